"""QEMU's control channel, in a thread of its own: what has happened to the guest, and commands to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from typing import Any, Final

from qemu.qmp import ExecuteError, QMPClient, QMPError

from enarx.tcb.errors import EnarxError, Unavailable

TIMEOUT_S: Final = 30.0
MAX_EVENTS: Final = 64
"""A guest can cause some for as long as it lives; how it ended is among the last."""


class QmpRefused(EnarxError):
    """QEMU did not do what it was told."""


class Control:
    """One QEMU, behind ``sock``, which is this object's from now on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("keep")
        self._client.logger.disabled = True  # that QEMU ends is no error, and why is ours to say
        self._connected = threading.Event()
        self.events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_EVENTS)
        """Names and data of the last events."""
        self._thread = threading.Thread(target=self._run, name="qmp", daemon=True)
        self._thread.start()

    def command(self, name: str, **arguments: object) -> Any:
        """Run a command and give its answer. Raises ``QmpRefused``, ``Unavailable``."""
        if not self._connected.wait(TIMEOUT_S):
            raise Unavailable("QEMU does not answer on its control channel")
        future = asyncio.run_coroutine_threadsafe(self._client.execute(name, arguments or None), self._loop)
        try:
            return future.result(TIMEOUT_S)
        except ExecuteError as error:
            raise QmpRefused(f"QEMU refuses {name}: {error.error_class}: {error}") from None
        except (QMPError, TimeoutError, RuntimeError, asyncio.CancelledError) as error:
            future.cancel()
            raise Unavailable(f"QEMU is gone: {error}") from None

    def join(self, timeout_s: float) -> None:
        """Wait until QEMU has shut the channel and everything that it said is in ``events``."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(QMPError, OSError, EOFError, asyncio.CancelledError):
            self._loop.run_until_complete(self._listen())
        self._connected.set()
        self._loop.close()
        self._sock.close()

    async def _listen(self) -> None:
        try:
            await self._client.connect(self._sock)
            self._connected.set()
            listener = asyncio.ensure_future(self._collect())
            while self._client.runstate.name == "RUNNING":
                await self._client.runstate_changed()
            await asyncio.sleep(0)
            listener.cancel()
            for event in self._client.events.clear():
                self._take(dict(event))
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await self._client.disconnect()

    async def _collect(self) -> None:
        async for event in self._client.events:
            self._take(dict(event))

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append((str(event.get("event")), dict(event.get("data") or {})))
