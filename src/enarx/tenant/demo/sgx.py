"""The tenant of the SGX demo: numbers that only one enclave can read, and a sum that only this tenant can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enarx.api.demo import (
    NONCE_BYTES,
    Dialogue,
    EnclaveRequest,
    End,
    Line,
    Quote,
    Say,
    Sealed,
    Side,
    expect,
)
from enarx.attest import Collateral, Document, Kind, Policy, TrustAnchors, Verifier
from enarx.attest.sgx import VERIFIER
from enarx.tcb.errors import Malformed
from enarx.tenant.demo.enclave_image import build_image
from enarx.tenant.demo.sealing import OPERANDS, SUM, public_bytes, report_data, seal, unseal


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxTenant:
    """Who wants ``a`` and ``b`` added by an enclave, and whom that tenant trusts beside the vendor."""

    a: int
    b: int
    roots: Mapping[str, bytes]
    say: Say
    random: Callable[[int], bytes] = field(repr=False)
    now: datetime

    def converse(self) -> Dialogue:
        """Speak with the host. Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.

        1. Ask for the enclave, with a challenge. 2. Verify its quote, which names its code and its key. 3. Send the
        numbers to that key. 4. Read the sum.
        """
        image, nonce = build_image(), self.random(NONCE_BYTES)
        files = image.files.count(b"\n") - 1
        self._tell(f"Enclave of {files} files, and a challenge", to_peer=True)
        request = EnclaveRequest(image=image.files, argv=image.argv, nonce=nonce)
        answer = expect(Quote, (yield request))  # 1
        binding = report_data(nonce, answer.key)
        self._verify(answer, image.mrenclave, binding)  # 2
        reply = X25519PrivateKey.generate()
        sealed = seal(
            [self.a, self.b, public_bytes(reply)], key=answer.key, purpose=OPERANDS, binding=binding
        )
        self._tell(f"Encrypted Data: {sealed.hex()}", to_peer=True)
        sent = expect(Sealed, (yield Sealed(data=sealed)))  # 3
        match unseal(sent.data, key=reply, purpose=SUM, binding=binding):  # 4
            case int(total):
                self._tell("Sum decrypted")
                return End(total=total)
        raise Malformed("sum: expected a number")

    def _verify(self, answer: Quote, mrenclave: bytes, binding: bytes) -> None:
        anchors = TrustAnchors.vendor()
        for name, root in self.roots.items():
            anchors = anchors.adding(root, name=name)
        rules = ["version = 1", "[sgx]", f'measurement = ["{mrenclave.hex()}"]']
        rules.append('vendor_root = "any"' if self.roots else "")
        policy = Policy.parse("\n".join(rules), (VERIFIER,))
        verifier = Verifier(tees=(VERIFIER,), anchors=anchors, policy=policy)
        claims = verifier.verify(answer.quote, collateral=_collateral(answer), binding=binding, now=self.now)
        self._tell(
            f"Quote OK: {len(claims.checks)} checks, up to {claims.root}; MRENCLAVE {claims.measurement.hex()}"
        )

    def _tell(self, text: str, *, to_peer: bool = False) -> None:
        self.say(Line(speaker=Side.TENANT, text=text, to_peer=to_peer))


def _collateral(answer: Quote) -> Collateral:
    """Read what the host says that Intel said; none of it is trusted."""
    documents = []
    for kind, data in answer.documents:
        try:
            documents.append(Document(kind=Kind(kind), data=bytes(data)))  # type: ignore[arg-type]
        except ValueError:
            raise Malformed("quote: a document of an unknown kind came along") from None
    return Collateral(
        certificates=tuple(answer.certificates), crls=tuple(answer.crls), documents=tuple(documents)
    )
