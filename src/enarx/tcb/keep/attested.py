"""The life of a keep that proves itself to a tenant, in order (docs/spec/session.md).

1. Make a key and a name that nobody else has; say that it is ready, and take the door from the host.
2. Take tenants' connections from the door; attest to whoever asks, until one delivers.
3. Lock, attest again, and run on that tenant's word (``execution``).
4. Send what the workload writes to its tenant and to nobody else; keep the last of it for a tenant who is away.
5. Tell the tenant how it ended; end. The host learns only that it ended.

One thread does all this and never waits for a single peer; the workload has threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx import __version__
from enarx.tcb.binding import INSTANCE_BYTES
from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.keep.execution import INCOMPLETE, Execution, rehearse
from enarx.tcb.keep.line import Line, LineClosed
from enarx.tcb.keep.platform import EvidenceSource, PortTree, find_source
from enarx.tcb.keep.runner import Runtime
from enarx.tcb.keep.stdio import StandardStreams
from enarx.tcb.keep.tls import HANDSHAKE_TIMEOUT_S, self_signed, server_context
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Exited, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.session import AuditLog, Keep, KeepSession, Life, Move, State, Stream
from enarx.tcb.session import _keep as events
from enarx.tcb.workload import Ending, Job, Outcome

MAX_LINES: Final = 8
"""Connections at a time; the oldest that has proved no tenant makes room."""
QUEUE_BYTES: Final = 1 << 20
"""What may wait for a slow tenant before the workload has to."""
LINGER_S: Final = 3600.0
"""How long a keep whose workload ended waits for its tenant to come back."""
FAREWELL_S: Final = 5.0
"""How long none of the last bytes may leave."""
SETTLE_S: Final = 120.0
"""How long a keep stays empty, or locked without running, after the last connection."""


class Peer:
    """A line, and the session on it once the handshake is done."""

    def __init__(self, line: Line, deadline: float) -> None:
        self.line = line
        self.session: KeepSession | None = None
        self.deadline: float | None = deadline
        self.cursors = {1: 0, 2: 0}
        self.deaf = False
        """Everything is said: what is queued still leaves, what comes is not heard."""
        self.finished = False
        self.tells_end = False  # when the end of the workload is among what is queued


class AttestedKeep:
    """One keep: it serves one tenant and ends with the process."""

    def __init__(
        self, channel: SocketChannel, port: int, runtime: Runtime, *, required: bool, streams: bool = False
    ) -> None:
        """``streams``: the sockets of the workload are streams of a VM keep's door."""
        self.required = required
        """Whether a missing layer of the sandbox is an error."""
        self.private_files = False
        self.talking = threading.Lock()
        self._channel = channel
        self._port = port
        self._stream_sockets = streams
        self._runtime = runtime
        self._streams = StandardStreams()
        self._peers: list[Peer] = []
        self._attached: Peer | None = None
        self._execution: Execution | None = None
        self._job: Job | None = None
        self._outcome: Outcome | None = None
        self._deadline: float | None = None
        self._told: deque[str] = deque()
        self._told_end = False
        self._abandoned = False  # the end was declared while the workload still ran
        self._idle_since = time.monotonic()

    def descriptors(self) -> tuple[int, ...]:
        """Give what must stay open: channel, port to the platform, standard streams of the workload."""
        return (self._channel.fileno(), self._port, *self._streams.descriptors())

    def rehearse(self) -> None:
        """Be ready sooner (``execution.rehearse``)."""
        rehearse(self._runtime)

    def refuse(self, missing: str) -> None:
        """End before there is anything to run, because layers of the sandbox are ``missing``."""
        outcome = Outcome(
            ending=Ending.UNAVAILABLE, detail=f"the sandbox is incomplete: {missing}", hint=INCOMPLETE
        )
        with contextlib.suppress(ChannelClosed):
            self._channel.send(Exited(outcome=outcome.value()))

    def serve(self) -> None:
        """Live, and return when the process may end."""
        credential = self_signed("keep", now=datetime.now(UTC))
        public = credential.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._context = server_context(credential)
        self._keep = Keep(
            life=Life(AuditLog()), instance=os.urandom(INSTANCE_BYTES), key=sha256(public).digest()
        )
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._channel.send(Ready(version=__version__))
            item, fds = self._channel.receive()
            Guest(sockets=True).admitted(item, len(fds))
            self._door = socket.socket(fileno=fds[0])
            self._source: EvidenceSource = find_source(PortTree(self._port))
            self._keep.life.move(Move.BOOT)
            self._live()
            with self.talking:
                self._channel.send(Exited(outcome=None))
        except ChannelClosed:
            return
        except EnarxError as error:  # the host broke the rules, or the platform is none
            self.refuse(str(error))

    # What the workload's thread says.

    def progress(self, text: str) -> None:
        """Tell the tenant what is going on."""
        self._told.append(text)
        os.eventfd_write(self._wake, 1)

    def compiled(self, sealed: bytes) -> None:
        """Keep no copy: there is no key that would outlive this keep."""

    # The loop.

    def _live(self) -> None:
        """Serve everybody until the life is over and its end is told, or nobody comes any more."""
        self._idle_since = time.monotonic()  # a keep of a pool has waited before, for as long as it may be
        while not self._over():
            for fd, event in self._wait():
                self._serve_descriptor(fd, event)
            self._expire()
            for peer in list(self._peers):
                self._guarded(peer, self._pump)

    def _over(self) -> bool:
        """Whether there is nothing left to do: the end is told, or cannot be."""
        if self._keep.life.state is not State.EXITED or any(peer.deaf for peer in self._peers):
            return False
        if self._outcome is None or self._told_end:
            return True
        return self._abandoned and self._attached is None  # waiting for its tenant, its workload would run on

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for something to do, or for a deadline."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLRDHUP)
        poll.register(self._wake, select.POLLIN)
        poll.register(self._door, select.POLLIN)
        for peer in self._peers:
            poll.register(peer.line, peer.line.events & ~(select.POLLIN if self._choked(peer) else 0))
        if self._execution is not None and self._outcome is None:
            poll.register(self._execution.done, select.POLLIN)
        self._streams.register(poll, patient=self._attached is not None)
        held = [it.line.fileno() for it in self._peers if it.line.buffered and not self._choked(it)]
        if held:  # no poll tells of them, whatever else it tells of
            return poll.poll(0) + [(fd, select.POLLIN) for fd in held]
        deadlines = [self._settled(), *(it.deadline for it in self._peers if it.deadline is not None)]
        if self._deadline is not None and self._outcome is None:
            deadlines.append(self._deadline)
        return poll.poll(max(0.0, 1000 * (min(deadlines) - time.monotonic())) + 1)

    def _settled(self) -> float:
        """When to give up waiting for somebody to come."""
        if self._peers or self._keep.life.state is State.RUNNING:
            self._idle_since = time.monotonic()
        patience = LINGER_S if self._keep.life.state is State.EXITED else SETTLE_S
        return self._idle_since + patience

    def _choked(self, peer: Peer) -> bool:
        """Whether to take no more from this tenant until the workload has read what it sent."""
        return peer is self._attached and self._streams.full

    def _serve_descriptor(self, fd: int, event: int) -> None:
        if fd == self._channel.fileno():
            raise ChannelClosed("the host is gone")
        if fd == self._door.fileno():
            self._admit()
        elif fd == self._wake:
            os.eventfd_read(self._wake)
            while self._told:
                text = self._told.popleft()
                if self._attached is not None and self._attached.session is not None:
                    self._attached.line.queue(self._attached.session.progress(text))
        elif self._execution is not None and fd == self._execution.done:
            self._ended(self._execution.outcome)
        elif not self._streams.serve(fd):
            for peer in [peer for peer in self._peers if peer.line.fileno() == fd]:
                if event & ~select.POLLOUT or peer.line.stalled:
                    self._guarded(peer, self._hear)

    def _admit(self) -> None:
        """Take the next connection from the door."""
        message, ancillary, _, _ = self._door.recvmsg(1, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise ChannelClosed("the host has shut the door")
        for _, _, data in ancillary:
            if len(self._peers) >= MAX_LINES:
                self._leave(self._least())
            line = Line(socket.socket(fileno=array("i", data)[0]), self._context)
            self._peers.append(Peer(line, time.monotonic() + HANDSHAKE_TIMEOUT_S))

    def _least(self) -> Peer:
        """Find who makes room: the oldest of those that have proved least, and never who listens."""
        others = [peer for peer in self._peers if peer is not self._attached]
        return min(others, key=lambda peer: peer.session is not None and peer.session.tenant_known)

    def _guarded(self, peer: Peer, action: Callable[[Peer], None]) -> None:
        """Do something for ``peer``; what goes wrong ends its connection, and by rule 2.3 the keep."""
        try:
            action(peer)
        except LineClosed:
            self._leave(peer)
        except EnarxError as error:
            if peer.session is None:
                self._leave(peer)
                return
            peer.line.queue(peer.session.problem(str(error), error.hint))
            self._say_goodbye(peer)
            if peer.session.tenant_known and self._keep.life.state not in (State.RUNNING, State.EXITED):
                self._keep.life.move(Move.FAIL, why=str(error))

    def _say_goodbye(self, peer: Peer) -> None:
        """Let what is queued leave, and hear nothing more: a socket with unread bytes would be reset."""
        peer.deaf = True
        peer.deadline = time.monotonic() + FAREWELL_S
        if peer is self._attached:
            self._attached = None

    def _leave(self, peer: Peer) -> None:
        peer.line.close()
        if peer.tells_end and not peer.finished:
            self._told_end = False  # it has not left this keep: its tenant may come back for it
        if peer in self._peers:
            self._peers.remove(peer)
        if peer is self._attached:
            self._attached = None

    def _expire(self) -> None:
        """End what is late: connections that prove nothing, the workload, a keep that nobody wants."""
        now = time.monotonic()
        for peer in [peer for peer in self._peers if peer.deadline is not None and peer.deadline < now]:
            self._leave(peer)
        late = self._deadline is not None and self._outcome is None and now >= self._deadline
        if late and self._execution is not None and self._job is not None:
            self._ended(self._execution.late(self._job.limits.time_ms or 0))
        if now >= self._settled():
            if self._keep.life.state is State.EXITED:
                self._told_end = True
            else:
                self._keep.life.move(Move.FAIL, why="nobody came")

    # One tenant.

    def _hear(self, peer: Peer) -> None:
        """Go on with the handshake, or take what the tenant says."""
        if peer.deaf:
            peer.line.receive()
            return
        if peer.session is None:
            if not peer.line.shake_hands() or peer.line.exporter is None:
                return
            peer.session = KeepSession(self._keep, exporter=peer.line.exporter)
        for event in peer.session.receive(peer.line.receive()):
            self._do(peer, peer.session, event)

    def _do(self, peer: Peer, session: KeepSession, event: events.Event) -> None:
        match event:
            case events.Challenged(binding=binding):
                peer.line.queue(session.attest(self._source.evidence(binding.report_data())))
                peer.deadline = None
            case events.Delivered(job=job, binding=binding):
                self._job = job
                for other in [it for it in self._peers if it is not peer]:
                    self._leave(other)  # whoever they are, and however much of a delivery they have sent
                peer.line.queue(session.attest(self._source.evidence(binding.report_data())))
            case events.Attached(stdout=stdout, stderr=stderr):
                if self._attached is not None and self._attached is not peer:
                    self._leave(self._attached)
                peer.cursors = {1: stdout, 2: stderr}
                self._attached = peer
                out, err = (self._streams.backlogs[it].end for it in Stream)
                peer.line.queue(session.extent(out, err, ended=self._outcome is not None))
            case events.Started():
                self._start()
            case events.Typed(data=data):
                self._streams.type(data)
            case events.Stopped():
                self._ended(Outcome(ending=Ending.STOPPED, detail="the tenant stopped the workload"))

    def _start(self) -> None:
        if self._job is None:
            raise ProtocolViolation("there is no workload")
        self._execution = Execution(self._runtime, self._channel, self)
        self._execution.required, self._execution.private_files = self.required, self.private_files
        self._execution.streams = self._stream_sockets
        if self._job.limits.time_ms is not None:
            self._deadline = time.monotonic() + self._job.limits.time_ms / 1000
        self._execution.start(self._job, self._streams.inside())

    def _ended(self, outcome: Outcome | None) -> None:
        """Take the end of the workload, once."""
        if self._outcome is not None:
            return
        self._outcome = outcome or Outcome(ending=Ending.KEEP_LOST, detail="the host is gone")
        self._streams.finish()
        self._abandoned = self._execution is None or self._execution.outcome is None
        move = Move.END if self._keep.life.state is State.RUNNING else Move.FAIL
        self._keep.life.move(move, ending=self._outcome.ending.value, code=self._outcome.code)

    def _pump(self, peer: Peer) -> None:
        """Queue what the workload wrote for its tenant, send what can be sent, and say farewell after the last byte."""
        before = peer.line.pending
        peer.line.flush()
        ending = peer.deaf or (self._abandoned and peer is self._attached)
        if ending and (peer.deadline is None or peer.line.pending < before):
            peer.deadline = time.monotonic() + FAREWELL_S
        more = True
        while more and peer.line.pending < QUEUE_BYTES:  # when all leaves at once, nothing wakes us for more
            more = peer is self._attached and peer.session is not None and self._fill(peer, peer.session)
            peer.line.flush()
        if peer.deaf and not peer.line.pending and not peer.finished:
            peer.finished = True
            peer.line.finish()

    def _fill(self, peer: Peer, session: KeepSession) -> bool:
        """Queue as much as may wait, and say whether there is more."""
        for stream, backlog in self._streams.backlogs.items():
            while peer.line.pending < QUEUE_BYTES:
                offset, data = backlog.after(peer.cursors[stream])
                if not data:
                    break
                peer.line.queue(session.output(stream, offset, data))
                peer.cursors[stream] = offset + len(data)
            backlog.release(peer.cursors[stream])
        done = all(peer.cursors[it] >= backlog.end for it, backlog in self._streams.backlogs.items())
        if self._outcome is not None and self._streams.drained and done:
            peer.line.queue(session.exited(self._outcome))
            self._told_end = peer.tells_end = True
            self._say_goodbye(peer)
        return not done
