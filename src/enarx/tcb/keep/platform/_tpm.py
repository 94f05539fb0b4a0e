"""Quotes of a TPM 2.0, of what a machine's firmware and kernel have measured, with the firmware's log of it.

A TPM protects no memory: its evidence says what was started, and nothing about who reads along.
"""

from __future__ import annotations

from typing import Final

from enarx.tcb import tpm
from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.keep.platform._trees import Tree
from enarx.tcb.wire import Value, encode

FOLDER: Final = "tpm0"
TYPE: Final = "tag:enarx.dev,2026:evidence"
"""Of a collection of evidence and collateral."""
_PART: Final = "application/octet-stream"


class TpmSource:
    """The quotes of one TPM, by a key that it derives once for this keep."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._key: int | None = None

    def evidence(self, report_data: bytes) -> bytes:
        """Give a quote over 64 bytes, its registers, and the log that led to them."""
        try:
            if self._key is None:
                self._key, _ = tpm.read_primary(tpm.ask(self._exchange, tpm.create_primary()))
            asked = tpm.quote(self._key, report_data)
            quote, signature = tpm.read_quote(tpm.ask(self._exchange, asked))
            parts = {"quote": quote, "signature": signature, "pcrs": tpm.read_registers(self._exchange)}
            log = self._tree.read(f"{FOLDER}/log")
        except OSError as error:
            raise Unavailable(f"the TPM gives no quote: {error.strerror}") from None
        except Malformed as error:
            raise Unavailable(f"the TPM does not answer as one: {error}") from None
        collection: dict[str, Value] = {"__cmwc_t": TYPE}
        collection["evidence"] = {name: [_PART, part] for name, part in parts.items()}
        return encode(collection | ({"event-log": [_PART, log]} if log else {}))

    def _exchange(self, command: bytes) -> bytes:
        self._tree.write(f"{FOLDER}/command", command)
        return self._tree.read(f"{FOLDER}/answer")
