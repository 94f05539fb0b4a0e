"""A tenant's conversation with one keep, over one channel: challenge, delivery, run, streams in both directions.

Nothing waits for ever in one direction: while input waits to leave, output is taken, and the other way round.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import Final

from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.session import (
    MAX_CHUNK_BYTES,
    Attested,
    Ended,
    Event,
    Extent,
    Output,
    Problem,
    Progress,
    Stream,
    TenantSession,
)
from enarx.tcb.workload import Job
from enarx.tenant.agent_calls import printable
from enarx.tenant.channel import Channel, ChannelLost
from enarx.tenant.judge import Judge, Verdict, check_keep_log
from enarx.tenant.steps import Step, What, Who
from enarx.tenant.streams import Interrupt, Interrupted, Sink, Source

EVIDENCE_TIMEOUT_S: Final = 60.0
"""From a challenge or the last byte of a delivery to the evidence."""
STALL_TIMEOUT_S: Final = 60.0
"""How long no byte of a delivery may leave."""

MAX_TOLD: Final = 100
"""What a keep may say before it gives evidence; a keep of ours says one thing at most."""


class KeepRefused(EnarxError):
    """The keep says no, and the conversation is over."""


class Conversation:
    """One channel and its session. After any error it is over; ``close`` it."""

    def __init__(
        self, channel: Channel, session: TenantSession, judge: Judge, *, interrupt: Interrupt | None = None
    ) -> None:
        self.session = session
        self._channel = channel
        self._judge = judge
        self._interrupt = interrupt
        self._unread: Iterator[Event] = iter(())

    def challenge(self) -> Verdict:
        """Send the challenge and judge the answer. Raises ``EnarxError``."""
        self._send(self.session.hello())
        return self._accept()

    def deliver(self, job: Job) -> Verdict:
        """Deliver to the accepted keep, and judge it again. Raises ``EnarxError``."""
        for part in (memoryview(it) for it in self.session.deliver(job)):
            self._send(part)  # a view: no traceback shows what is in it
        return self._accept()

    def run(self) -> None:
        """Start the workload."""
        self._send(self.session.run())

    def detach(self) -> None:
        """End its input; nobody listens from now on."""
        self._send(self.session.input(b""))

    def stop(self) -> None:
        """End the workload; ``stream`` tells how it ended."""
        self._send(self.session.stop())

    def close(self) -> None:
        """End the conversation; the keep goes on if it is locked."""
        self._channel.close()

    def stream(
        self,
        stdin: Source | None,
        sinks: dict[Stream, Sink],
        *,
        start: bytes = b"",
        until_now: bool = False,
    ) -> Ended | None:
        """Carry input and output until the workload has ended; ``start`` is sent first.

        With ``until_now``, give nothing when all is there that was written before. Raises ``EnarxError``.
        """
        cursors = dict.fromkeys(Stream, 0)
        waiting = start
        ends: dict[Stream, int] | None = None
        while True:
            deadline = time.monotonic() + STALL_TIMEOUT_S if until_now else None
            for event in self._arrived():
                if isinstance(event, Ended):
                    return self._ended(event)
                if isinstance(event, Output):
                    self._take(event, cursors, sinks)
                elif isinstance(event, Extent):
                    now = {Stream.STDOUT: event.stdout, Stream.STDERR: event.stderr}
                    ends = now if until_now and not event.ended else None
                else:
                    self._told(event)
            if ends is not None and all(cursors[stream] >= end for stream, end in ends.items()):
                return None
            if waiting:
                waiting = waiting[self._send_some(waiting) :]
            readable = None if waiting or stdin is None else stdin
            if readable is not None and self._ready(readable):
                data = readable.read()
                waiting = self.session.input(data[:MAX_CHUNK_BYTES])
                stdin = stdin if data else None
                continue
            if not self._wait(bool(waiting), readable, deadline):
                raise ChannelLost("the keep did not answer in time", hint="the host may hold it back")

    def _accept(self) -> Verdict:
        """Take the next evidence, have it judged, and go on only if it was accepted for this session."""
        deadline = time.monotonic() + EVIDENCE_TIMEOUT_S
        for _ in range(MAX_TOLD):
            event = self._next(deadline)
            if isinstance(event, Attested):
                break
            self._told(event)
        else:
            raise ProtocolViolation("keep talks and talks, and gives no evidence")
        verdict = self._judge.judge(event.binding, event.evidence)
        self.session.accept(verdict.claims.report_data, **verdict.facts)
        return verdict

    def _ended(self, event: Ended) -> Ended:
        check_keep_log(event.audit, self._judge.verdicts)
        return event

    def _told(self, event: Event) -> None:
        match event:
            case Progress(text=text):
                self._judge.tell(Step(who=Who.KEEP, what=What.PROGRESS, text=printable(text)))
            case Problem(text=text, hint=hint):
                raise KeepRefused(f"the keep refuses: {printable(text)}", hint=printable(hint))
            case _:
                raise ProtocolViolation(f"keep sent {type(event).__name__} out of turn")

    def _take(self, event: Output, cursors: dict[Stream, int], sinks: dict[Stream, Sink]) -> None:
        missing = event.offset - cursors[event.stream]
        if missing < 0:
            raise ProtocolViolation("keep sent output a second time")
        if missing:
            name = event.stream.name.lower()
            facts = {"stream": name, "bytes": str(missing)}
            text = f"{missing} bytes of {name} are forgotten"
            self._judge.tell(Step(who=Who.KEEP, what=What.FORGOTTEN, text=text, facts=facts))
        cursors[event.stream] = event.offset + len(event.data)
        sinks[event.stream](event.data)

    def _next(self, deadline: float) -> Event:
        """Give the next event. Raises ``ChannelLost``, ``Interrupted``."""
        while True:
            for event in self._arrived():
                return event
            if not self._wait(False, None, deadline):
                raise ChannelLost("the keep did not answer in time", hint="the host may hold it back")

    def _arrived(self) -> Iterator[Event]:
        """Give what has come, without waiting: what was left over, and then one record."""
        for event in self._unread:  # not delegated: that would close what is left when only one is taken
            yield event
        data = self._channel.receive_now()
        if data == b"":
            hint = "the keep ended, or the host cut the connection: see its log"
            raise ChannelLost("the keep hung up without saying how it ended", hint=hint)
        if data is not None:
            self._unread = self.session.receive(data)
            for event in self._unread:
                yield event

    def _send(self, data: bytes | memoryview) -> None:
        """Send all of it; what the keep says meanwhile can only be why it does not listen."""
        try:
            while data:
                data = data[self._send_some(data) :]
                if data and not self._wait(True, None, time.monotonic() + STALL_TIMEOUT_S, hear=False):
                    raise ChannelLost(f"the keep took nothing for {STALL_TIMEOUT_S:g} seconds")
        except ChannelLost:
            for event in self._arrived():
                self._told(event)
            raise

    def _send_some(self, data: bytes | memoryview) -> int:
        return self._channel.send_now(data)

    def _ready(self, source: Source) -> bool:
        if source.fd is None:
            return True
        poll = select.poll()
        poll.register(source.fd, select.POLLIN)
        return bool(poll.poll(0))

    def _wait(
        self, to_send: bool, stdin: Source | None, deadline: float | None, *, hear: bool = True
    ) -> bool:
        """Wait until something can be done; false at the deadline. Raises ``Interrupted``."""
        if hear and self._channel.buffered:
            return True
        poll = select.poll()
        poll.register(self._channel, (select.POLLIN if hear else 0) | (select.POLLOUT if to_send else 0))
        if stdin is not None and stdin.fd is not None:
            poll.register(stdin.fd, select.POLLIN)
        if self._interrupt is not None:
            poll.register(self._interrupt, select.POLLIN)
        left = None if deadline is None else max(0.0, 1000 * (deadline - time.monotonic()))
        found = poll.poll(left)
        if self._interrupt is not None and any(fd == self._interrupt.fileno() for fd, _ in found):
            raise Interrupted("interrupted")
        return bool(found)
