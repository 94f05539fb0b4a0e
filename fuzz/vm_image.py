"""Fuzz target: what the builder of VM images reads: a package, a library, a kernel, a lock."""

from __future__ import annotations

import contextlib
import lzma

from enarx.tcb.errors import Malformed
from enarx.tenant.image.vm import parse_lock
from enarx.tenant.image.vm._deb import AR_MAGIC, read_deb
from enarx.tenant.image.vm._elf import is_elf, needed, strip
from enarx.tenant.image.vm._kernel import payload, unpack_module


def one(data: bytes) -> None:
    """Read ``data`` as each of them; raises nothing but ``Malformed``."""
    with contextlib.suppress(Malformed):
        list(read_deb(data))
    with contextlib.suppress(Malformed):
        list(read_deb(_package(data)))
    with contextlib.suppress(Malformed):
        stripped = strip(data)
        assert is_elf(stripped)
        assert len(stripped) <= len(data)
        assert needed(stripped) == needed(data)
    with contextlib.suppress(Malformed):
        payload(data)
    with contextlib.suppress(Malformed):
        unpack_module(data)
    with contextlib.suppress(Malformed, UnicodeDecodeError):
        parse_lock(data.decode())


def _package(archive: bytes) -> bytes:
    """A package whose archive of files is ``archive``."""
    content = lzma.compress(archive, preset=0)
    head = f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return AR_MAGIC + head.encode() + content + bytes(len(content) % 2)
