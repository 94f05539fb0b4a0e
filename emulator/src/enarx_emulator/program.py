"""What runs as a guest: programs whose files and command line are what the firmware measured.

The image of a process is a list of files, one a line: 64 hex digits of SHA-256, two spaces, the path (as ``sha256sum``
writes it). The line of the path ``argv`` is no file: its digest is that of the command line, arguments joined by NUL.
The firmware measures the list; the platform holds everything against it before the start.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from enarx.tcb.errors import Malformed
from enarx_emulator.errors import EmulatorError

ARGV: Final = PurePosixPath("argv")
MAX_FILES: Final = 1 << 16
CHANNEL: Final = 3
"""The descriptor on which the guest talks to the host."""
PORT: Final = 4
"""The descriptor on which the guest, and nobody else, asks the platform."""
_ABOVE: Final = 10
_LINE: Final = re.compile(r"([0-9a-f]{64})  (\S.*)")


def pack_image(files: Sequence[Path], argv: Sequence[str]) -> bytes:
    """Write the image of ``argv``, which needs ``files`` (absolute paths); the program itself must be among them."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}\n" for file in files]
    return "".join([*lines, f"{_digest_of(argv)}  {ARGV}\n"]).encode()


def _digest_of(argv: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(argv).encode()).hexdigest()


def parse_image(image: bytes) -> Mapping[PurePosixPath, str]:
    """Read the list of files. Raises ``Malformed``."""
    try:
        lines = image.decode().splitlines()
    except UnicodeDecodeError:
        raise Malformed("image is no list of files: not UTF-8") from None
    if not lines or len(lines) > MAX_FILES:
        raise Malformed(f"image lists {len(lines)} files, expected 1 to {MAX_FILES}")
    files: dict[PurePosixPath, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        path = PurePosixPath(match[2]) if match else PurePosixPath()
        if match is None or path.as_posix() != match[2] or ".." in path.parts:
            raise Malformed(f"image: line {number} is not 64 hex digits, two spaces and a plain path")
        if path in files:
            raise Malformed(f"image: {path} is listed twice")
        files[path] = match[1]
    return files


def check_files(files: Mapping[PurePosixPath, str], root: Path) -> None:
    """Hold every file below ``root`` (or at its absolute path) against the list. Raises ``EmulatorError``."""
    for path, expected in files.items():
        try:
            with (root / path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise EmulatorError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
        if found != expected:
            hint = "the image was measured with another file; measure again or restore the file"
            raise EmulatorError(f"{path} is not what was measured", hint=hint)


def start(image: bytes, root: Path, argv: Sequence[str], *, channel: int, port: int) -> int:
    """Start ``argv``, whose program must be a listed file, and give its process id. Raises ``EmulatorError``.

    It has no environment, no standard streams and no descriptors but ``CHANNEL`` and ``PORT``.
    """
    if not argv:
        raise Malformed("run: argv is empty")
    files = dict(parse_image(image))
    program = PurePosixPath(argv[0])
    if files.pop(ARGV, None) != _digest_of(argv):
        raise EmulatorError("the command line is not what was measured")
    if program not in files:
        raise EmulatorError(f"{program} is not among the files that were measured")
    check_files(files, root)
    moved = [_moved(channel), _moved(port)]
    actions = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    targets = zip(moved, (CHANNEL, PORT), strict=True)
    dups = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in targets]
    try:
        return os.posix_spawn(root / program, [*argv], {}, file_actions=[*actions, *dups], setsid=True)
    except OSError as error:
        raise EmulatorError(f"{program}: {(error.strerror or 'does not start').lower()}") from None
    finally:
        for descriptor in moved:
            os.close(descriptor)


def _moved(descriptor: int) -> int:
    """A copy out of the way of the numbers that the guest sees, closed on exec."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
