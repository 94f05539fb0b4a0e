"""Nitro Enclaves as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.nitro._document import NitroDocument, parse_document
from enarx.attest.nitro._policy import NitroRules
from enarx.attest.nitro._verify import verify
from enarx.attest.policy import TeeRules
from enarx.attest.tee import Context, TeeVerifier


class _Nitro:
    name = "nitro"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.NITRO: NitroRules}

    def recognise(self, data: bytes) -> bool:
        """COSE_Sign1, tagged or, as genuine documents are, not: an array that begins with short octets."""
        head = data[:3].removeprefix(b"\xd2")
        return head[:1] == b"\x84" and 0x40 <= int.from_bytes(head[1:2], "big") < 0x58

    def parse(self, data: bytes) -> NitroDocument:
        """Read an attestation document."""
        return parse_document(data)

    def verify(self, evidence: NitroDocument, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Nitro()
