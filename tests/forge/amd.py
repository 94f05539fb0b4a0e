"""Emulated AMD machines for tests: one vendor a run, whose keys are small because they are made quickly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tests.forge.pki import NOW

from enarx.attest import (
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    Policy,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.snp import VERIFIER
from enarx.tcb.wire import Value
from enarx_emulator.amd.machine import make
from enarx_emulator.amd.sev_machine import SevMachine
from enarx_emulator.amd.snp_machine import SnpMachine
from enarx_emulator.amd.vendor import AmdVendor
from enarx_emulator.machine import Setup
from enarx_emulator.seed import Seed
from enarx_emulator.state import Memory

REPORT_DATA = bytes(range(64))
IMAGE = b"the image of a keep" * 1000


@cache
def store() -> Memory:
    """The vendor's secrets of this run."""
    return Memory()


def vendor(*faults: str) -> AmdVendor:
    """AMD at the time of the tests."""
    return AmdVendor(store(), clock=lambda: NOW, key_bits=2048, faults=frozenset(faults))


class Randomness:
    """Bytes that nobody chose, and that are the same in every run."""

    def __init__(self, root: bytes = bytes(32)) -> None:
        self._seed, self._count = Seed(root), 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return self._seed.derive(str(self._count), size)


def setup(
    kind: str, product: str | None = None, *faults: str, saved: Mapping[str, Value] | None = None
) -> Setup:
    """What the platform process would give."""
    return Setup(
        kind=kind,
        product=product,
        seed=Seed(b"a machine of tests"),
        vendor=store(),
        saved=saved,
        faults=frozenset(faults),
    )


def snp(product: str | None = None, *faults: str) -> SnpMachine:
    """A machine with SNP."""
    made = make(setup("snp", product, *faults), vendor=vendor(*faults), random=Randomness())
    assert isinstance(made, SnpMachine)
    return made


def sev(kind: str = "sev", *faults: str) -> SevMachine:
    """A machine with SEV or SEV-ES."""
    made = make(setup(kind, None, *faults), vendor=vendor(*faults), random=Randomness())
    assert isinstance(made, SevMachine)
    return made


def report(machine: SnpMachine, handle: int, report_data: bytes = REPORT_DATA) -> tuple[bytes, bytes]:
    """Outblob and auxblob as a guest reads them."""
    tree = machine.guest(handle).tree()
    if "one" not in tree.list("report"):
        tree.make("report/one")
    tree.write("report/one/inblob", report_data)
    return tree.read("report/one/outblob"), tree.read("report/one/auxblob")


def anchors(machine: SnpMachine | SevMachine) -> TrustAnchors:
    """The root that the emulator names, and no other."""
    roots = machine.command("info", {})["roots"]
    assert isinstance(roots, list)
    assert isinstance(roots[0], bytes)
    return TrustAnchors.none().adding(roots[0], name="emulated", vendor=Vendor.AMD)


def collateral(machine: SnpMachine) -> Collateral:
    """What the host hands over beside a report."""
    given = machine.command("certificates", {})
    certificates, crls = given["certificates"], given["crls"]
    assert isinstance(certificates, list)
    assert isinstance(crls, list)
    return Collateral(
        certificates=tuple(one for one in certificates if isinstance(one, bytes)),
        crls=tuple(one for one in crls if isinstance(one, bytes)),
    )


def judge(
    evidence: bytes,
    beside: Collateral,
    trusted: TrustAnchors,
    *,
    policy: Policy | AuthenticityOnly | None = None,
    binding: bytes = REPORT_DATA,
) -> Claims:
    """What a relying party says of SNP evidence at the time of the tests."""
    verifier = Verifier(tees=[VERIFIER], anchors=trusted, policy=policy or AuthenticityOnly(), cache=Cache())
    return verifier.verify(evidence, collateral=beside, binding=binding, now=NOW)
