"""The keeps of one agent: launched through backends, watched by a thread each, connected to their tenants."""

from __future__ import annotations

import array
import contextlib
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from enarx.api.agent import ANY, KeepInfo, KeepState
from enarx.host.agent._tenants import Account, Accounts, QuotaReached
from enarx.host.backend import Backend, Launched, LaunchRequest
from enarx.host.relay import answer
from enarx.host.sallyport import Host, Permissions
from enarx.tcb.errors import EnarxError, ProtocolViolation, Unavailable
from enarx.tcb.sallyport.items import Admit, Connect, Exited, Listen, Progress, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.workload import Outcome

FORGET_S: Final = 3600.0
"""How long the end of a keep is told."""
MAX_ENDED: Final = 1024
MAX_REASON: Final = 300
"""Characters of what a keep, which may be hostile, says of its end."""
SECRET_WAIT_S: Final = 120.0
"""How long a measured guest may wait for its tenant's secret."""


Tell = Callable[[KeepInfo, int | None], None]


class NotFound(EnarxError):
    """There is no such thing, or it is somebody else's."""


class NotReady(EnarxError):
    """The keep is not in a state for that."""


@dataclass(slots=True, kw_only=True)
class _Keep:
    id: str
    account: str
    backend: Backend
    launched: Launched
    created: str
    state: KeepState
    ended: str = ""
    ended_at: float = 0.0
    waits_since: float = field(default_factory=time.monotonic)
    door: socket.socket | None = None

    def info(self) -> KeepInfo:
        return KeepInfo(
            id=self.id,
            tee=self.backend.tee,
            backend=self.backend.name,
            emulated=self.backend.emulated,
            state=self.state,
            created=self.created,
            ended=self.ended,
            launch=self.launched.launch,
        )


class Keeps:
    """All keeps. Its methods may block for some milliseconds; they are safe for several threads."""

    def __init__(
        self,
        backends: Sequence[Backend],
        image: Path,
        *,
        accounts: Accounts,
        permissions: Permissions,
        max_keeps: int,
        tell: Tell = lambda keep, pid: None,
    ) -> None:
        """``tell`` learns of every keep that was launched or has ended, and of its process, from any thread."""
        self.backends = tuple(backends)
        self.max_keeps = max_keeps
        self.started = 0
        self.channels = 0
        self._image = image
        self._accounts = accounts
        self._permissions = permissions
        self._tell = tell
        self._keeps: dict[str, _Keep] = {}
        self._coming: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def alive(self) -> int:
        """How many keeps live."""
        with self._lock:
            return sum(1 for keep in self._keeps.values() if keep.state is not KeepState.ENDED)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many keeps there are, by TEE and state."""
        found = {(backend.tee, state.value): 0 for backend in self.backends for state in KeepState}
        with self._lock:
            for keep in self._keeps.values():
                found[keep.backend.tee, keep.state.value] += 1
        return found

    def create(self, account: Account, *, tee: str, tenant: bytes) -> KeepInfo:
        """Launch a keep on the first backend that has the TEE and can. Raises ``EnarxError``."""
        backends = self._fitting(tee)
        with self._reserved(account):
            backend, launched = self._launch(backends, tenant)
            keep = _Keep(
                id=secrets.token_hex(16),
                account=account.name,
                backend=backend,
                launched=launched,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                state=KeepState.AWAITING_SECRET,
            )
            with self._lock:
                closed = self._closed
                if not closed:
                    self._keeps[keep.id] = keep
                    self.started += 1
        if closed:
            launched.stop()
            raise Unavailable("the agent is going down")
        if launched.channel is not None:
            self._open_door(keep, launched.channel)
        self._tell(keep.info(), keep.launched.pid)
        return keep.info()

    @contextmanager
    def _reserved(self, account: Account) -> Iterator[None]:
        """Hold the place of one more keep while it is being launched. Raises ``QuotaReached``."""
        with self._lock:
            living = [keep.account for keep in self._keeps.values() if keep.state is not KeepState.ENDED]
            if len(living) + self._coming.total() >= self.max_keeps:
                raise QuotaReached(f"this machine takes {self.max_keeps} keeps, and has them")
            self._accounts.start(account, living.count(account.name) + self._coming[account.name])
            self._coming[account.name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming[account.name] -= 1

    def _launch(self, backends: Sequence[Backend], tenant: bytes) -> tuple[Backend, Launched]:
        """Launch on the first that is there; a tenant who names no TEE does not care which."""
        request = LaunchRequest(image=self._image, tenant=tenant)
        for backend in backends[:-1]:
            with contextlib.suppress(Unavailable):
                return backend, backend.launch(request)
        return backends[-1], backends[-1].launch(request)

    def missing(self, tee: str) -> Unavailable:
        """Say that this machine has no such TEE."""
        known = ", ".join(backend.tee for backend in self.backends)
        return Unavailable(f"this machine has no {tee[:64]!r}", hint=f"it offers {known}")

    def secret(self, account: Account, name: str, packet: bytes) -> KeepInfo:
        """Hand over the secret of a pre-boot TEE's tenant. Raises ``EnarxError``; the keep ends when it is refused."""
        keep = self._find(account, name)
        if keep.state is not KeepState.AWAITING_SECRET:
            raise NotReady(f"keep {name} waits for no secret")
        try:
            keep.launched.secret(packet)
        except EnarxError as error:
            self._end(keep, f"the launch secret was refused: {error}")
            raise
        channel = keep.launched.channel
        if channel is None:
            self._end(keep, "it did not start")
            raise NotReady("the keep did not start")
        self._open_door(keep, channel)
        self._tell(keep.info(), keep.launched.pid)
        return keep.info()

    def list(self, account: Account) -> list[KeepInfo]:
        """Give the keeps of one account, the oldest first."""
        with self._lock:
            return [keep.info() for keep in self._keeps.values() if keep.account == account.name]

    def get(self, account: Account, name: str) -> KeepInfo:
        """Give one keep. Raises ``NotFound``."""
        return self._find(account, name).info()

    def stop(self, account: Account, name: str) -> KeepInfo:
        """End a keep. Raises ``NotFound``."""
        keep = self._find(account, name)
        self._end(keep, "it was stopped")
        return keep.info()

    def door(self, account: Account, name: str) -> socket.socket:
        """Give the way to hand connections to a keep. Raises ``NotFound``, ``NotReady``."""
        keep = self._find(account, name)
        if keep.state is not KeepState.READY or keep.door is None:
            raise NotReady(f"keep {name} is {keep.state.value}" + (f": {keep.ended}" if keep.ended else ""))
        return keep.door

    def connect(self, account: Account, name: str, connection: socket.socket) -> None:
        """Hand a tenant's connection to its keep; it is the keep's from now on. Raises ``EnarxError``."""
        door = self.door(account, name)
        rights = array.array("i", [connection.fileno()])
        try:
            door.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise NotReady(
                f"keep {name} takes no more connections now", hint="try again in a moment"
            ) from None
        except OSError:
            raise NotReady(f"keep {name} has just ended") from None
        self.channels += 1

    def close(self) -> None:
        """End all keeps."""
        with self._lock:
            self._closed = True
            keeps = list(self._keeps.values())
        for keep in keeps:
            self._end(keep, "the agent went down")

    def sweep(self) -> None:
        """Forget what ended long ago, and end what waits too long for a secret."""
        now = time.monotonic()
        with self._lock:
            ended = [keep for keep in self._keeps.values() if keep.state is KeepState.ENDED]
            for at, keep in enumerate(ended):
                if now - keep.ended_at > FORGET_S or at < len(ended) - MAX_ENDED:
                    del self._keeps[keep.id]
            late = [
                keep
                for keep in self._keeps.values()
                if keep.state is KeepState.AWAITING_SECRET and now - keep.waits_since > SECRET_WAIT_S
            ]
        for keep in late:
            self._end(keep, "no secret came")

    def _fitting(self, tee: str) -> Sequence[Backend]:
        fitting = [backend for backend in self.backends if tee in (ANY, backend.tee)]
        if not fitting:
            raise self.missing(tee)
        return fitting

    def _find(self, account: Account, name: str) -> _Keep:
        with self._lock:
            keep = self._keeps.get(name)
        if keep is None or keep.account != account.name:
            raise NotFound(f"there is no keep {name[:64]!r}", hint="see enarx keep list")
        return keep

    def _open_door(self, keep: _Keep, channel: socket.socket) -> None:
        """Admit tenants, and watch what the keep says from now on. Raises ``NotReady``, ``OSError``."""
        half = Host(self._permissions)
        half.received(Ready(version="ready"), 0)
        link = SocketChannel(channel)
        try:
            door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with inside:
                keep.door = door
                link.send(half.deliver(Admit()), [inside.fileno()])
            with self._lock:
                if keep.state is KeepState.ENDED:
                    raise NotReady(f"keep {keep.id} has just ended: {keep.ended}")
                keep.state = KeepState.READY
            threading.Thread(target=self._watch, args=(keep, link, half), daemon=True).start()
        except ChannelClosed:
            self._end(keep, "it ended before it took a tenant")
            raise NotReady(f"keep {keep.id} has just ended") from None
        except BaseException:
            self._end(keep, "the machine could not go on with it")
            raise

    def _watch(self, keep: _Keep, link: SocketChannel, half: Host) -> None:
        """Answer the keep until it ends. It is hostile, as far as we know."""
        why = "its process is gone"
        try:
            while True:
                item, descriptors = link.receive()
                for descriptor in descriptors:
                    os.close(descriptor)
                half.received(item, len(descriptors))
                if isinstance(item, Listen | Connect):
                    answer(half, link, item)
                elif isinstance(item, Exited):
                    why = "it ended" if item.outcome is None else Outcome.from_value(item.outcome).detail
                    break
                elif not isinstance(item, Progress):
                    raise ProtocolViolation(f"{type(item).__name__} is nothing that a host gets")
        except ChannelClosed:
            pass
        except EnarxError as error:
            why = f"it broke the protocol: {error}" if isinstance(error, ProtocolViolation) else str(error)
        except OSError as error:
            why = f"its channel broke: {error.strerror}"
        self._end(keep, why)

    def _end(self, keep: _Keep, why: str) -> None:
        with self._lock:
            if keep.state is KeepState.ENDED:
                return
            keep.state, keep.ended, keep.ended_at = KeepState.ENDED, why[:MAX_REASON], time.monotonic()
        if keep.door is not None:
            keep.door.close()
        channel = keep.launched.channel
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)  # the thread that reads from it wakes up
        keep.launched.stop()
        self._tell(keep.info(), keep.launched.pid)
