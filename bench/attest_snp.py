"""How long SNP reports take to verify, beside the signature checks alone that no verifier can leave out, in one run.

warm: another report of a platform whose certificates were seen: one P-384 signature;
cold: nothing is remembered: the report's signature, and RSA-PSS signatures of VCEK, ASK and ARK.

    python -m bench.attest_snp [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bench._report import line, timed
from enarx.attest import AuthenticityOnly, Cache, Collateral, Policy, TrustAnchors, Verifier, x509
from enarx.attest.snp import VERIFIER, parse_report
from enarx.attest.x509 import load_public_key, parse_certificate, signed_by

FOLDER: Final = Path(__file__).parents[2] / "shared" / "evidence"
NOW: Final = datetime.fromisoformat("2025-10-06T17:21:41Z")
GOAL_WARM: Final = 1.5
POLICY: Final = (
    'version = 1\n[snp]\nmeasurement = ["{}"]\nrevocation = "any"\n[snp.min_reported_tcb]\nsnp = 20'
)


def main(rounds: int) -> None:
    """Print medians and ratios."""
    raw = (FOLDER / "snp/genoa-v5-oak/report.bin").read_bytes()
    leaf_der = (FOLDER / "snp/genoa-v5-oak/vcek.der").read_bytes()
    issuers = Collateral.from_pem((FOLDER / "roots/amd_genoa_ask_ark_asvk.pem").read_bytes())
    chain = Collateral(certificates=issuers.certificates[:2])  # what AMD's service gives for a VCEK
    given = chain | Collateral(certificates=(leaf_der,))
    report, leaf = parse_report(raw), parse_certificate(leaf_der)
    ask, ark = (parse_certificate(der) for der in chain.certificates[:2])
    key, signature = load_public_key(leaf.spki), encode_dss_signature(report.r, report.s)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    algorithm, anchors = ec.ECDSA(hashes.SHA384()), TrustAnchors.vendor()
    policy = Policy.parse(POLICY.format(report.measurement.hex()), [VERIFIER])

    def bare_chain() -> None:
        for below, above in ((leaf, ask), (ask, ark), (ark, ark)):
            assert signed_by(above.spki, below.algorithm, below.signature, below.tbs)

    def verifying(rules: Policy | AuthenticityOnly, cache: Cache | None) -> Callable[[], object]:
        verifier = Verifier(tees=[VERIFIER], anchors=anchors, policy=rules, cache=cache)

        def verify() -> None:
            if cache is None:
                x509._common_name.cache_clear()
                x509._relative_name.cache_clear()
            verifier.verify(raw, collateral=given, binding=report.report_data, now=NOW)

        return verify

    actions: dict[str, Callable[[], object]] = {
        "bare": lambda: key.verify(signature, report.signed, algorithm),
        "bare chain": bare_chain,
        "warm": verifying(AuthenticityOnly(), Cache()),
        "warm, with a policy": verifying(policy, Cache()),
        "cold": verifying(AuthenticityOnly(), None),
    }
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):  # interleaved: what else the machine does meets all of them
        for name, action in actions.items():
            samples[name] += timed(action, 1)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    for name in ("warm", "warm, with a policy", "cold"):
        bare = medians["bare"] + (medians["bare chain"] if name == "cold" else 0)
        ratio = medians[name] / bare
        goal = f"<= {GOAL_WARM}" if name == "warm" else ""
        what, value = f"verify an SNP report, {name}", f"{medians[name] * 1e6:.0f} us"
        line(what, value, peer="bare signatures", ratio=ratio, goal=goal, met=ratio <= GOAL_WARM)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
