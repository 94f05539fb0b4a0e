"""Reports through ``configfs-tsm``: SEV-SNP and TDX guests (Linux, Documentation/ABI/testing/configfs-tsm).

Whoever writes an attribute raises ``generation`` by one. A report is ours only if exactly one write, ours, lies between
the two times we look; a platform that is busy or keeps changing is asked a few times and no more.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Final

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform._trees import Tree
from enarx.tcb.wire import encode

FOLDER: Final = "report"
ENTRY: Final = "report/keep"
ATTEMPTS: Final = 5
_BUSY: Final = (errno.EBUSY, errno.EAGAIN, errno.EINTR)
_TYPES: Final = {
    b"sev_guest": "application/vnd.enarx.evidence.snp",
    b"tdx_guest": "application/vnd.enarx.evidence.tdx",
}


class TsmSource:
    """The reports of one guest."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def evidence(self, report_data: bytes) -> bytes:
        """Give report or quote over 64 bytes, with the certificates that the host has put beside it."""
        try:
            with contextlib.suppress(FileExistsError):  # left over from an attempt that failed
                self._tree.make(ENTRY)
            try:
                return self._repeated(lambda: self._report(report_data))
            finally:
                self._tree.remove(ENTRY)
        except OSError as error:
            raise Unavailable(f"the platform gives no report: {error.strerror}") from None

    def _repeated(self, attempt: Callable[[], bytes | None]) -> bytes:
        for _ in range(ATTEMPTS):
            try:
                found = attempt()
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                continue
            if found is not None:
                return found
        raise Unavailable(f"the platform gives no report that is ours alone in {ATTEMPTS} attempts")

    def _report(self, report_data: bytes) -> bytes | None:
        before = self._generation()
        provider = self._read("provider")
        self._tree.write(f"{ENTRY}/inblob", report_data)
        report = self._read("outblob")
        beside = b""
        with contextlib.suppress(FileNotFoundError):  # TDX has none, nor has a host without certificates
            beside = self._read("auxblob")
        if (self._generation(), self._read("provider")) != (before + 1, provider):
            return None
        kind = _TYPES.get(provider.strip())
        if kind is None:
            raise Unavailable("the platform is of a kind that a keep does not know")
        return encode([kind, report + beside])

    def _read(self, name: str) -> bytes:
        return self._tree.read(f"{ENTRY}/{name}")

    def _generation(self) -> int:
        text = self._read("generation").strip()
        if not text.isdigit() or len(text) > 20:
            raise Unavailable("the platform's generation is no number")
        return int(text)
