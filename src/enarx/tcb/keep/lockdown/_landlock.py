"""Landlock: no file, no TCP port, no abstract socket, no process outside (Linux, userspace-api/landlock.rst)."""

from __future__ import annotations

import os
import struct
from ctypes import create_string_buffer

from enarx.tcb.keep.lockdown._syscalls import call

# Access rights to files by the version of the interface that brought them: bits 0 to 12, then one each.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_TCP_RIGHTS = 0b11  # bind, connect: version 4
_SCOPES = 0b11  # abstract Unix sockets, signals: version 6
_EXECUTE, _MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _IOCTL_DEV = 0, 6, 9, 10, 11, 15
_NEVER = sum(1 << bit for bit in (_EXECUTE, _MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _IOCTL_DEV))


def restrict(allowed: str | None) -> str:
    """Deny everything that this kernel's Landlock can deny, but plain files beneath ``allowed``."""
    version = call("landlock_create_ruleset", None, 0, 1)
    files = sum(rights for since, rights in _FILE_RIGHTS.items() if since <= version)
    tcp, scopes = _TCP_RIGHTS * (version >= 4), _SCOPES * (version >= 6)
    attributes = struct.pack("=QQQ", files, tcp, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = call("landlock_create_ruleset", create_string_buffer(attributes, 24), size, 0)
    try:
        if allowed:
            parent = os.open(allowed, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", files & ~_NEVER, parent)
                call("landlock_add_rule", ruleset, 1, create_string_buffer(rule, len(rule)), 0)
            finally:
                os.close(parent)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return f"version {version}"
