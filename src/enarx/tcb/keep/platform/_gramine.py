"""Quotes of an SGX enclave, through the files of the Gramine library OS (``/dev/attestation``)."""

from __future__ import annotations

from typing import Final

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform._trees import Tree
from enarx.tcb.wire import encode

FOLDER: Final = "attestation"
TYPE: Final = "application/vnd.enarx.evidence.sgx"


class GramineSource:
    """The quotes of one enclave."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def evidence(self, report_data: bytes) -> bytes:
        """Give a quote over 64 bytes."""
        try:
            self._tree.write(f"{FOLDER}/user_report_data", report_data)
            return encode([TYPE, self._tree.read(f"{FOLDER}/quote")])
        except OSError as error:
            raise Unavailable(f"the platform gives no quote: {error.strerror}") from None
