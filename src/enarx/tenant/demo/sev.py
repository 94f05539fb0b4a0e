"""The tenant of the SEV demo: code that exists on the host only encrypted, for one launch that was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.api.demo import (
    CertificateChain,
    ChainRequest,
    Dialogue,
    End,
    LaunchStart,
    Line,
    Measurement,
    Printed,
    Say,
    Secret,
    Side,
    expect,
)
from enarx.api.demo_guest import assemble, measured_memory
from enarx.attest import Claims, Collateral, Policy, TrustAnchors, Verifier
from enarx.attest.checks import Ledger
from enarx.attest.sev import (
    STRICT,
    VERIFIER,
    LaunchSession,
    Platform,
    SessionKeys,
    SevDetail,
    owner_certificate,
    pack_evidence,
    pack_policy,
    pack_secret,
    parse_chain,
    prepare_session,
    verify_chain,
)
from enarx.tcb.errors import Malformed

LEAST_API: Final = (0, 22)
"""The oldest firmware that may run the guest: the first whose API is published as final."""
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SevTenant:
    """Who wants ``a`` and ``b`` added by a guest, and whom that tenant trusts beside the vendor."""

    a: int
    b: int
    roots: Mapping[str, bytes]
    say: Say
    random: Callable[[int], bytes] = field(repr=False)
    now: datetime

    def converse(self) -> Dialogue:
        """Speak with the host. Raises ``EvidenceRejected``, ``Malformed``, ``ProtocolViolation``.

        1. Verify the platform's certificates. 2. Send policy and session keys. 3. Verify the measurement.
        4. Send code and operands, for this launch alone. 5. Read what the guest printed.
        """
        self._tell("Certificate Chain, please", to_peer=True)
        chain = expect(CertificateChain, (yield ChainRequest()))  # 1
        anchors = TrustAnchors.vendor()
        for name, root in self.roots.items():
            anchors = anchors.adding(root, name=name)
        platform = self._verified(chain, anchors)
        keys = SessionKeys(tek=self.random(16), tik=self.random(16))  # 2
        owner = ec.generate_private_key(platform.pdh.curve)
        policy = pack_policy(STRICT, api=LEAST_API)
        session = prepare_session(
            platform.pdh, owner=owner, keys=keys, policy=policy, nonce=self.random(16), iv=self.random(16)
        )
        self._tell(f"Policy {policy.hex()}, Session Keys", to_peer=True)
        certificate = owner_certificate(owner.public_key())
        start = LaunchStart(policy=policy, certificate=certificate, session=session)
        measurement = expect(Measurement, (yield start))  # 3
        digest = hashlib.sha256(measured_memory()).digest()
        kept = LaunchSession.prepared(platform.pdh, tik=keys.tik, session=session, digests=(digest,))
        claims = self._judged(chain, measurement, policy, kept, anchors)
        assert isinstance(claims.detail, SevDetail)  # noqa: S101 -- what the verifier of SEV makes
        code = assemble(self.a, self.b)  # 4
        padded = code.ljust(-(-len(code) // _BLOCK) * _BLOCK, b"\0")
        packet = pack_secret(claims.detail.launch, padded, keys=keys, iv=self.random(16))
        self._tell(f"Encrypted Code/Data: {packet.payload.hex()}", to_peer=True)
        printed = expect(Printed, (yield Secret(header=packet.header, payload=packet.payload)))
        return End(total=_number(printed.output), interpreted=printed.interpreted)  # 5

    def _verified(self, chain: CertificateChain, anchors: TrustAnchors) -> Platform:
        ledger = Ledger()
        platform = verify_chain(parse_chain(chain.certificates), anchors=anchors, ledger=ledger)
        self._tell(f"Chain OK: {len(ledger)} checks, up to {platform.root}")
        return platform

    def _judged(
        self,
        chain: CertificateChain,
        said: Measurement,
        policy: bytes,
        session: LaunchSession,
        anchors: TrustAnchors,
    ) -> Claims:
        """Hold the measurement against the one guest that is meant, by the policy of this demo."""
        evidence = pack_evidence(
            chain.certificates,
            api=(said.api_major, said.api_minor),
            build=said.build,
            policy=policy,
            measure=said.measure,
        )
        rules = [
            "version = 1",
            "[sev]",
            f'measurement = ["{session.digests[0].hex()}"]',
            f'min_firmware = "{LEAST_API[0]}.{LEAST_API[1]}.0"',
            'vendor_root = "any"' if self.roots else "",
        ]
        verifier = Verifier(
            tees=(VERIFIER,), anchors=anchors, policy=Policy.parse("\n".join(rules), (VERIFIER,))
        )
        claims = verifier.verify(
            evidence, collateral=Collateral(), binding=session.binding, now=self.now, launch=session
        )
        version = f"{said.api_major}.{said.api_minor}.{said.build}"
        self._tell(
            f"Measurement OK: {len(claims.checks)} checks, digest {claims.measurement.hex()}, firmware {version}"
        )
        return claims

    def _tell(self, text: str, *, to_peer: bool = False) -> None:
        self.say(Line(speaker=Side.TENANT, text=text, to_peer=to_peer))


def _number(output: bytes) -> int:
    """Read what the host says that the guest printed."""
    digits = output.removesuffix(b"\n")
    if not digits.isdigit() or len(digits) > 5 or output == digits:
        raise Malformed("the guest's output is no number on a line")
    return int(digits)
