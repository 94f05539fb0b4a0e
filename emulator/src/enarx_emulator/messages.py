"""What hosts and guests say to a platform, and what it answers. Bytes in, bytes out.

Both kinds of stream are frames (four bytes of length, big endian) of deterministic CBOR.
A host sends ``{"command": text, "arguments": map}`` and gets ``{"ok": map}`` or ``{"error": map}``.
A guest sends ``[operation, path, data]`` on its port and gets ``[errno, data]``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.errors import FirmwareError, Refused
from enarx_emulator.tree import Tree

MAX_HOST_BYTES: Final = 64 << 20
"""Of one message of a host, which may hold an image."""
MAX_PATH_BYTES: Final = 256
MAX_DATA_BYTES: Final = 1 << 16
MAX_PORT_BYTES: Final = MAX_PATH_BYTES + MAX_DATA_BYTES + 64
OPERATIONS: Final = ("make", "remove", "write", "read", "list")


def parse_request(body: bytes) -> tuple[str, dict[str, Value]]:
    """Read what a host wants. Raises ``Malformed``."""
    request = decode(body, max_bytes=MAX_HOST_BYTES)
    if not isinstance(request, dict) or set(request) != {"command", "arguments"}:
        raise Malformed("request: expected a map of command and arguments")
    command, arguments = request["command"], request["arguments"]
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise Malformed("request: command is no text or arguments is no map")
    return command, arguments


def pack_request(command: str, arguments: Mapping[str, Value]) -> bytes:
    """Write what ``parse_request`` reads."""
    return encode({"command": command, "arguments": dict(arguments)})


def pack_result(result: Mapping[str, Value]) -> bytes:
    """Say that a command was done."""
    return encode({"ok": dict(result)})


def pack_error(error: Exception) -> bytes:
    """Say why a command was not done."""
    match error:
        case FirmwareError():
            kind, status, name = "firmware", int(error.status), error.status.name
        case Malformed():
            kind, status, name = "malformed", 0, ""
        case EnarxError():
            kind, status, name = "refused", 0, ""
        case _:
            kind, status, name = "internal", 0, ""
    message = str(error) if kind != "internal" else f"internal error: {type(error).__name__}"
    hint = error.hint if isinstance(error, EnarxError) else ""
    return encode({"error": {"kind": kind, "status": status, "name": name, "message": message, "hint": hint}})


def parse_reply(body: bytes) -> dict[str, Value]:
    """Read an answer to a host. Raises ``Refused`` for an error, ``Malformed``."""
    match decode(body, max_bytes=MAX_HOST_BYTES):
        case {"ok": dict(result), **rest} if not rest:
            return result
        case {"error": {"status": int(status), "name": str(name), "message": str(text), "hint": str(hint)}}:
            raise Refused(text, status=status, name=name, hint=hint)
    raise Malformed("reply: expected a map of ok or error")


def answer_guest(tree: Tree, body: bytes) -> bytes:
    """Do one operation on a guest's tree."""
    try:
        found = _done(tree, *_operation(decode(body, max_bytes=MAX_PORT_BYTES)))
        if len(found) > MAX_DATA_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return encode([0, found])
    except Malformed:
        return encode([errno.EINVAL, b""])
    except OSError as error:
        return encode([error.errno or errno.EIO, b""])


def _done(tree: Tree, operation: str, path: str, data: bytes) -> bytes:
    match operation:
        case "make":
            tree.make(path)
        case "remove":
            tree.remove(path)
        case "write":
            tree.write(path, data)
        case "read":
            return tree.read(path)
        case _:
            return "\n".join(tree.list(path)).encode()
    return b""


def _operation(request: Value) -> tuple[str, str, bytes]:
    match request:
        case [str(operation), str(path), bytes(data)] if operation in OPERATIONS:
            pass
        case _:
            raise Malformed("operation: expected a name, a path and data")
    if len(path.encode(errors="replace")) > MAX_PATH_BYTES or len(data) > MAX_DATA_BYTES:
        raise Malformed("operation: path or data is too long")
    if data and operation != "write":
        raise Malformed(f"operation: {operation} takes no data")
    return operation, path, data


def pack_operation(operation: str, path: str, data: bytes = b"") -> bytes:
    """Write what a guest sends on its port."""
    return encode([operation, path, data])


def parse_answer(body: bytes, path: str) -> bytes:
    """Read an answer to a guest. Raises ``OSError`` with the number that the platform gave, ``Malformed``."""
    match decode(body, max_bytes=MAX_PORT_BYTES):
        case [0, bytes(data)]:
            return data
        case [int(number), bytes()]:
            raise OSError(number, os.strerror(number), path)
    raise Malformed("answer: expected a number and data")
