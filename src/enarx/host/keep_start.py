"""Start a keep's interpreter, with nothing loaded here that is not needed for that.

A command that will need a keep starts it before anything else and reads its own arguments while the keep boots.
"""

from __future__ import annotations

import os
import socket
import sys

import enarx

CHANNEL_FD = 3
"""The number under which a keep finds its end of the channel."""
ENGINE = "wasmtime"
_BOOT = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from enarx.tcb.keep.__main__ import main; main()"
)

Interpreter = tuple[socket.socket, int]
"""Our end of its channel, and its process number."""


def image_path() -> str:
    """Name the folders in which a keep finds its code, separated by colons."""
    ours = os.path.dirname(os.path.dirname(enarx.__file__))
    engine = next((place for place in sys.path if os.path.isdir(os.path.join(place, ENGINE))), ours)
    return f"{ours}:{engine}"


def start_interpreter(
    *, stderr: bool = True, path: str | None = None, port: socket.socket | None = None
) -> Interpreter:
    """Start an isolated interpreter with the keep's code; it waits for its launch line. Raises ``OSError``.

    No site, no environment, no descriptor but the channel, with ``stderr`` ours, where it reports if it dies, and with
    ``port`` the way to its platform. The code is found in ``path``, or where ours is.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, path or image_path()]
    nowhere = (0, 1) if stderr else (0, 1, 2)
    with theirs:
        actions = [
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in nowhere),
            *_passed(theirs, port),
        ]
        return ours, os.posix_spawn(sys.executable, command, {}, file_actions=actions)


def _passed(channel: socket.socket, port: socket.socket | None) -> list[tuple[int, int, int]]:
    """Give the moves that put ``channel`` and ``port`` where a keep looks for them."""
    if port is None:
        return [(os.POSIX_SPAWN_DUP2, channel.fileno(), CHANNEL_FD)]
    aside = CHANNEL_FD + 2  # the port may be where the channel belongs
    return [
        (os.POSIX_SPAWN_DUP2, port.fileno(), aside),
        (os.POSIX_SPAWN_DUP2, channel.fileno(), CHANNEL_FD),
        (os.POSIX_SPAWN_DUP2, aside, CHANNEL_FD + 1),
    ]
