"""Where a keep gets its evidence: the files that Linux shows in a guest, or a library OS in an enclave.

The list of sources is closed: what could be plugged in would have to be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform import _gramine, _launch_secret, _tpm, _tsm
from enarx.tcb.keep.platform._trees import PortTree, Tree

__all__ = ["EvidenceSource", "PortTree", "Tree", "find_source"]


class EvidenceSource(Protocol):
    """One TEE, seen from inside."""

    def evidence(self, report_data: bytes) -> bytes:
        """Give evidence over 64 bytes as a CMW record. Raises ``Unavailable``."""


_SOURCES: Final[Mapping[str, Callable[[Tree], EvidenceSource]]] = {
    _tsm.FOLDER: _tsm.TsmSource,
    _gramine.FOLDER: _gramine.GramineSource,
    _launch_secret.FOLDER: _launch_secret.open_source,
    _tpm.FOLDER: _tpm.TpmSource,
}


def find_source(tree: Tree) -> EvidenceSource:
    """Find the TEE that ``tree`` is the face of. Raises ``Unavailable`` when there is none."""
    try:
        names = tree.list("")
    except OSError as error:
        raise Unavailable(f"the platform shows nothing: {error.strerror}") from None
    for folder, open_source in _SOURCES.items():
        if folder in names:
            return open_source(tree)
    raise Unavailable("the platform offers no evidence that a keep knows", hint="is this a TEE?")
