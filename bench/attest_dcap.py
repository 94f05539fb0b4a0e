"""How long SGX and TDX quotes take to verify, beside ``dcap_qvl.verify`` on the same quotes and collateral in one run.

Prints medians in microseconds and their ratio to ``dcap_qvl`` (above 1: we are faster):
cold: nothing at all is remembered from one verification to the next;
warm: another quote of a platform whose certificates and collateral were seen: two signatures, all dates, all levels;
warm, new platform: as warm, but the platform's PCK certificate was never seen.

    python bench/attest_dcap.py [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import dcap_qvl  # type: ignore[import-untyped]

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Collateral,
    Document,
    Kind,
    TrustAnchors,
    Verifier,
    x509,
)
from enarx.attest.dcap import parse_pck_chain
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tdx import VERIFIER as TDX

FOLDER: Final = Path(__file__).parents[2] / "shared" / "evidence"
SAMPLES: Final = ("sgx/v3-icelake-automata-a", "tdx/v4-tdxsdk", "tdx/v5-go-tdx-guest")
LEAST_WARM: Final = 2.0
LEAST_COLD: Final = 0.5


def collateral(files: dict[str, str]) -> Collateral:
    """What the manifest names for one appraisal."""
    read = {name: (FOLDER / path).read_bytes() for name, path in files.items()}
    chains = read["tcb_info_and_qe_identity_issuer_chain"] + read["pck_crl_issuer_chain"]
    return Collateral.from_pem(chains) | Collateral(
        crls=(read["pck_crl"], read["root_ca_crl"]),
        documents=(
            Document(Kind.TCB_INFO, read["tcb_info"]),
            Document(Kind.QE_IDENTITY, read["qe_identity"]),
        ),
    )


def peer_collateral(files: dict[str, str]) -> dcap_qvl.QuoteCollateralV3:
    """The same for the other library."""
    read = {name: (FOLDER / path).read_bytes() for name, path in files.items()}

    def split(document: bytes) -> tuple[str, bytes]:
        text = document.decode()
        return text[text.index(":") + 1 : text.rindex(',"signature"')], bytes.fromhex(
            json.loads(text)["signature"]
        )

    (tcb_info, tcb_signature), (identity, identity_signature) = (
        split(read["tcb_info"]),
        split(read["qe_identity"]),
    )
    signing = read["tcb_info_and_qe_identity_issuer_chain"].decode()
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=read["pck_crl_issuer_chain"].decode(),
        root_ca_crl=read["root_ca_crl"],
        pck_crl=read["pck_crl"],
        tcb_info_issuer_chain=signing,
        tcb_info=tcb_info,
        tcb_info_signature=tcb_signature,
        qe_identity_issuer_chain=signing,
        qe_identity=identity,
        qe_identity_signature=identity_signature,
    )


class _ForgetsPlatforms(Cache):
    """Remembers collateral, but no PCK certificate and nothing that was signed over one."""

    def __init__(self, leaf: bytes) -> None:
        super().__init__()
        self._leaf = leaf

    def remember(self, compute: Callable[..., Any], *arguments: Any, **means: Any) -> Any:
        if compute is parse_pck_chain or (arguments and arguments[-1] == self._leaf):
            return compute(*arguments, **means)
        return super().remember(compute, *arguments, **means)


BLOCK: Final = 25


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians in microseconds; the candidates take turns in blocks, so that noise hits all alike."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(0, rounds, BLOCK):
        for name, run in runs.items():
            run()
            for _ in range(BLOCK):
                start = time.perf_counter()
                run()
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) * 1e6 for name, times in spent.items()}


def measure(sample: dict[str, Any], rounds: int) -> dict[str, float]:
    quote = (FOLDER / sample["files"]["quote"]).read_bytes()
    appraisal = sample["appraisals"][-1]
    now = datetime.fromisoformat(appraisal["verification_time"])
    given, peer = collateral(appraisal["collateral"]), peer_collateral(appraisal["collateral"])
    anchors, seconds = TrustAnchors.vendor(), int(now.timestamp())
    data = TDX.parse(quote) if quote[4] else SGX.parse(quote)
    leaf = parse_pck_chain(data.quote.certification_data).leaf.tbs

    def run(cache: Cache | None) -> Callable[[], object]:
        verifier = Verifier(tees=[SGX, TDX], anchors=anchors, policy=AuthenticityOnly(), cache=cache)
        return lambda: verifier.verify(quote, collateral=given, binding=AnyBinding(), now=now)

    def cold() -> object:
        x509._common_name.cache_clear()
        x509._relative_name.cache_clear()
        return run(None)()

    runs: dict[str, Callable[[], object]] = {
        "dcap_qvl": lambda: dcap_qvl.verify(quote, peer, seconds),
        "cold": cold,
        "warm": run(Cache()),
        "warm, new platform": run(_ForgetsPlatforms(leaf)),
    }
    assert dcap_qvl.verify(quote, peer, seconds).status == appraisal["expected_tcb_status"]
    return interleaved(runs, rounds)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    by_id = {sample["id"]: sample for sample in json.loads((FOLDER / "manifest.json").read_text())["samples"]}
    slow = 0
    for name in SAMPLES:
        medians = measure(by_id[name], rounds)
        peer = medians["dcap_qvl"]
        print(
            f"{name}: "
            + ", ".join(f"{run} {spent:.0f} us ({peer / spent:.2f})" for run, spent in medians.items())
        )
        slow += peer / medians["warm"] < LEAST_WARM or peer / medians["cold"] < LEAST_COLD
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
