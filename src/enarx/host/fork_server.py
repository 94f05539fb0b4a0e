"""Keeps without a wait: a warm process that forks them, and a pool of them that are confined and ready.

Taking a keep costs one message; the pool is filled again behind the caller's back.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from collections import deque
from types import TracebackType
from typing import Final

from enarx.host.keep_process import START_TIMEOUT_S, KeepNotStarted, KeepProcess
from enarx.host.keep_start import start_interpreter
from enarx.tcb.errors import EnarxError

DEFAULT_POOL: Final = 8
"""Ready keeps, about 3 MiB each; enough for a burst while one more takes 10 ms to make."""
REST_S: Final = 0.02
"""How long a pool that is at least half full waits before it is filled again."""
_ANSWER_BYTES: Final = 4
_MAKE: Final = {False: b"k", True: b"r"}


class ForkServer:
    """A fork server and its pool. Use it as a context manager; leaving it ends every keep it made."""

    def __init__(
        self,
        *,
        pool: int = DEFAULT_POOL,
        require_sandbox: bool = False,
        attested: bool = False,
        path: str | None = None,
    ) -> None:
        """``attested`` keeps have a port to their platform; ``path`` says where the image is, if not with us."""
        self._size = pool
        self._attested = attested
        self._make = _MAKE[require_sandbox]
        self._ready: deque[KeepProcess] = deque()
        self._changed = threading.Condition()
        self._failure: EnarxError | None = None
        self._closed = False
        try:
            self._control, self._pid = start_interpreter(stderr=False, path=path)
            self._control.sendall(b"--serve --attested\n" if attested else b"--serve\n")
        except OSError as error:
            raise KeepNotStarted(
                f"the fork server does not start: {(error.strerror or '').lower()}"
            ) from None
        self._control.settimeout(START_TIMEOUT_S)
        self._filler = threading.Thread(target=self._fill, daemon=True)
        self._filler.start()

    def take(self, timeout_s: float = START_TIMEOUT_S) -> KeepProcess:
        """Give a keep that is ready for its delivery; it is the caller's to end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready or self._failure or self._closed, timeout_s):
                raise KeepNotStarted(f"no keep is ready after {timeout_s:g} seconds")
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise KeepNotStarted("the fork server is closed")
            keep = self._ready.popleft()
            self._changed.notify_all()
            return keep

    def wait_full(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the pool is full."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._ready) >= self._size or self._failure, timeout_s):
                raise KeepNotStarted(f"the pool is not full after {timeout_s:g} seconds")
            if self._failure is not None:
                raise self._failure

    @property
    def ready(self) -> tuple[KeepProcess, ...]:
        """The keeps that wait in the pool now."""
        with self._changed:
            return tuple(self._ready)

    def _fill(self) -> None:
        """Keep the pool full, several keeps on their way at a time; one that will not come up stops everything."""
        coming: deque[KeepProcess] = deque()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closed or len(self._ready) + len(coming) < self._size
                    )
                    if self._closed:
                        return
                    wanted = self._size - len(self._ready) - len(coming)
                for _ in range(min(wanted, os.cpu_count() or 1)):
                    coming.append(self._request())
                while coming:
                    keep = coming[0]
                    refusal = keep.await_ready()
                    if refusal is not None:
                        raise KeepNotStarted(refusal.detail, hint=refusal.hint)
                    coming.popleft()
                    with self._changed:
                        self._ready.append(keep)
                        self._changed.notify_all()
        except EnarxError as error:
            self._fail(error)
        except OSError as error:
            self._fail(
                KeepNotStarted(f"the fork server does not answer: {(error.strerror or str(error)).lower()}")
            )
        finally:
            for keep in coming:
                keep.end()

    def _fail(self, error: EnarxError) -> None:
        with self._changed:
            if not self._closed:
                self._failure = error
            self._changed.notify_all()

    def _request(self) -> KeepProcess:
        pairs = [socket.socketpair() for _ in range(1 + self._attested)]
        descriptors = array.array("i", [theirs.fileno() for _, theirs in pairs])
        try:
            self._control.sendmsg([self._make], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            pid = self._answer()
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        return KeepProcess(pairs[0][0], pid, ours=False, port=pairs[1][0] if self._attested else None)

    def _answer(self) -> int:
        answer = b""
        while len(answer) < _ANSWER_BYTES:
            part = self._control.recv(_ANSWER_BYTES - len(answer))
            if not part:
                raise KeepNotStarted("the fork server has ended")
            answer += part
        pid = int.from_bytes(answer, "big", signed=True)
        if pid <= 0:
            raise KeepNotStarted("the fork server made no keep")
        return pid

    def close(self) -> None:
        """End the server and every keep that it made; safe to call twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._control.shutdown(socket.SHUT_RDWR)
        self._filler.join()
        self._control.close()
        for keep in self._ready:
            keep.end()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
