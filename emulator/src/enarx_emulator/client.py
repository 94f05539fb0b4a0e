"""Both sides that talk to a platform process: hosts command it, guests ask it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from enarx.tcb.errors import Unavailable
from enarx.tcb.wire import FrameDecoder, Value, frame
from enarx_emulator.messages import (
    MAX_HOST_BYTES,
    MAX_PORT_BYTES,
    pack_operation,
    pack_request,
    parse_answer,
    parse_reply,
)
from enarx_emulator.process import SOCKET

TIMEOUT_S: Final = 60.0
_READ_BYTES: Final = 1 << 16


class _Frames:
    """A stream of frames on a blocking socket. Raises ``Unavailable``."""

    def __init__(self, sock: socket.socket, *, max_bytes: int) -> None:
        self.sock = sock
        self._decoder = FrameDecoder(max_bytes=max_bytes)

    def ask(self, body: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """Send one frame and give the next that comes."""
        data = frame(body)
        try:
            sent = socket.send_fds(self.sock, [data], descriptors) if descriptors else 0
            self.sock.sendall(memoryview(data)[sent:])
            while True:
                for answer in self._decoder.frames():
                    return answer
                received = self.sock.recv(_READ_BYTES)
                if not received:
                    raise Unavailable("the platform closed the connection")
                self._decoder.feed(received)
        except OSError as error:
            self.sock.close()  # a late answer must not pass for that of the next command
            reason = "does not answer" if isinstance(error, TimeoutError) else "is gone"
            raise Unavailable(f"the platform {reason}") from None


class Platform:
    """A host's connection to the platform process whose state is in ``directory``. Raises ``Unavailable``."""

    def __init__(self, directory: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            home = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{home}/{SOCKET}")
            finally:
                os.close(home)
        except OSError as error:
            sock.close()
            hint = f"enarx-emulator start KIND --state {directory}"
            reason = (error.strerror or "cannot be reached").lower()
            raise Unavailable(f"no platform at {directory}: {reason}", hint=hint) from None
        self._frames = _Frames(sock, max_bytes=MAX_HOST_BYTES)

    def command(self, name: str, **arguments: Value) -> dict[str, Value]:
        """Run a command. Raises ``Refused`` with the firmware's status, ``Malformed``, ``Unavailable``."""
        return parse_reply(self._frames.ask(pack_request(name, arguments)))

    def run(self, guest: int, argv: Sequence[str], *, channel: int, root: Path = Path("/")) -> int:
        """Start a launched guest with the descriptor ``channel`` as its 3, and give its process id."""
        arguments: dict[str, Value] = {"guest": guest, "argv": [*argv], "root": str(root)}
        result = parse_reply(self._frames.ask(pack_request("run", arguments), [channel]))
        pid = result.get("pid")
        if not isinstance(pid, int):
            raise Unavailable("the platform did not tell the process of the guest")
        return pid

    def keep(self, guest: int) -> tuple[int, socket.socket, bool]:
        """Start the keep of a launched guest.

        Give its process id, the host's end of its channel, and whether its first word is still to come there.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                body = pack_request("keep", {"guest": guest})
                result = parse_reply(self._frames.ask(body, [theirs.fileno()]))
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        pid = result.get("pid")
        if not isinstance(pid, int) or len(descriptors) != 1:
            raise Unavailable("the platform did not hand over the channel of the keep")
        return pid, socket.socket(fileno=descriptors[0]), result.get("booting") is True

    def close(self) -> None:
        """Close the connection, also under somebody who waits for an answer; guests that run go on."""
        with contextlib.suppress(OSError):
            self._frames.sock.shutdown(socket.SHUT_RDWR)
        self._frames.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PortTree:
    """A guest's tree through its port, a stream socket (descriptor 4 of its process)."""

    def __init__(self, port: socket.socket, *, timeout_s: float = TIMEOUT_S) -> None:
        port.settimeout(timeout_s)
        self._frames = _Frames(port, max_bytes=MAX_PORT_BYTES)

    def make(self, path: str) -> None:
        """Make a directory."""
        self._ask("make", path)

    def remove(self, path: str) -> None:
        """Remove a directory or a file."""
        self._ask("remove", path)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""
        self._ask("write", path, data)

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""
        return self._ask("read", path)

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""
        return self._ask("list", path).decode().splitlines()

    def _ask(self, operation: str, path: str, data: bytes = b"") -> bytes:
        return parse_answer(self._frames.ask(pack_operation(operation, path, data)), path)
