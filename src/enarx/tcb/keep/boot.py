"""The life of a keep that one delivery of the host comes to, in order.

1. Say that it is ready, and take the one delivery.
2. Run it (``execution``), while the main thread watches for the time limit and for the host to go away.
3. Send changed directories and the outcome; end.

The process is confined before this begins (``__main__``).
"""

from __future__ import annotations

import select
import threading
from typing import Final

from enarx import __version__
from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.execution import INCOMPLETE, Execution, Returning, refused, rehearse
from enarx.tcb.keep.runner import Runtime
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Changed, Compiled, Exited, Progress, Ready
from enarx.tcb.sallyport.limits import MAX_BLOB_BYTES
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.workload import Ending, Job, Outcome

TALK_TIMEOUT_S: Final = 2.0
"""How long a keep that must end waits for a message on its way."""


class Keep:
    """One keep: it serves one delivery and ends with the process."""

    def __init__(self, channel: SocketChannel, runtime: Runtime, *, required: bool) -> None:
        self.required = required
        """Whether a missing layer of the sandbox is an error."""
        self.talking = threading.Lock()
        self._channel = channel
        self._runtime = runtime
        self.private_files = False
        """Whether this process sees a file system of its own and no other; components need that."""

    def descriptors(self) -> tuple[int, ...]:
        """Give what must stay open: the channel, the only descriptor that a keep starts with."""
        return (self._channel.fileno(),)

    def serve(self) -> None:
        """Live, and return when the process may end."""
        execution = Execution(self._runtime, self._channel, self)
        execution.required, execution.private_files = self.required, self.private_files
        try:
            self._channel.send(Ready(version=__version__))
            item, stdio = self._channel.receive()
            delivery = Guest(sockets=True).delivered(item, len(stdio))
            body = self._channel.receive_blob(delivery.size, MAX_BLOB_BYTES)
            job = Job.from_parts(delivery.header, memoryview(body))
            del body
        except ChannelClosed:
            return
        except EnarxError as error:
            self._finish(refused(error))
            return
        execution.start(job, stdio)
        outcome = self._watch(execution, job.limits.time_ms)
        if outcome is not None and execution.files is not None:
            self._give_back(job, execution.files)
        self._finish(outcome)

    def rehearse(self) -> None:
        """Be ready sooner (``execution.rehearse``)."""
        rehearse(self._runtime)

    def refuse(self, missing: str) -> None:
        """End before there is anything to run, because layers of the sandbox are ``missing``."""
        detail = f"the sandbox is incomplete: {missing}"
        self._finish(Outcome(ending=Ending.UNAVAILABLE, detail=detail, hint=INCOMPLETE))

    def progress(self, text: str) -> None:
        """Tell the host, who is the user, what is going on."""
        with self.talking:
            self._channel.send(Progress(text=text))

    def compiled(self, sealed: bytes) -> None:
        """Leave a sealed copy of what was compiled with the host."""
        with self.talking:
            self._channel.send(Compiled(size=len(sealed)))
            self._channel.send_blob([sealed])

    def _watch(self, execution: Execution, time_ms: int | None) -> Outcome | None:
        """Wait for the workload's end, the time limit or the end of the host; None when there is nobody to tell."""
        poll = select.poll()
        poll.register(execution.done, select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLRDHUP)
        events = dict(poll.poll(time_ms))
        if execution.done in events:
            return execution.outcome
        if events:
            return None
        return execution.late(time_ms or 0)

    def _give_back(self, job: Job, files: Returning) -> None:
        """Send the directories whose changes the sender wants."""
        for directory in job.directories:
            if directory.returned:
                tree = files.harvest(directory.name)
                with self.talking:
                    self._channel.send(Changed(header=[directory.name, tree.header()], size=tree.size))
                    self._channel.send_blob(tree.blobs())

    def _finish(self, outcome: Outcome | None) -> None:
        if outcome is None or not self.talking.acquire(timeout=TALK_TIMEOUT_S):
            return
        try:
            self._channel.send(Exited(outcome=outcome.value()))
        except ChannelClosed:
            return  # the host is gone, and with it everybody who could be told
