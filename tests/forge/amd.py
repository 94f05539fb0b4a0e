"""Emulated AMD machines for tests: one vendor a run, whose keys are small because they are made quickly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from uuid import UUID

from tests.forge.pki import NOW, ec_key

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
from enarx.attest.sev import (
    STRICT,
    GuestPolicy,
    LaunchSession,
    SessionKeys,
    SevDetail,
    build_secret_table,
    owner_certificate,
    pack_evidence,
    pack_policy,
    pack_secret,
    parse_chain,
    prepare_session,
)
from enarx.attest.sev import VERIFIER as SEV_VERIFIER
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


SEED = b"a machine of tests"


def setup(
    kind: str,
    product: str | None = None,
    *faults: str,
    seed: bytes = SEED,
    saved: Mapping[str, Value] | None = None,
) -> Setup:
    """What the platform process would give."""
    return Setup(
        kind=kind,
        product=product,
        seed=Seed(seed),
        vendor=store(),
        saved=saved,
        faults=frozenset(faults),
    )


def snp(
    product: str | None = None, *faults: str, seed: bytes = SEED, saved: Mapping[str, Value] | None = None
) -> SnpMachine:
    """A machine with SNP."""
    asked = setup("snp", product, *faults, seed=seed, saved=saved)
    made = make(asked, vendor=vendor(*faults), random=Randomness())
    assert isinstance(made, SnpMachine)
    return made


def sev(kind: str = "sev", *faults: str, saved: Mapping[str, Value] | None = None) -> SevMachine:
    """A machine with SEV or SEV-ES."""
    made = make(setup(kind, None, *faults, saved=saved), vendor=vendor(*faults), random=Randomness())
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


def launched(machine: SnpMachine) -> int:
    """The handle of a guest that runs ``IMAGE``."""
    return number(machine.command("launch", {"image": IMAGE})["guest"])


def number(value: object) -> int:
    """A number among the answers of a machine."""
    assert isinstance(value, int)
    return value


def octets(value: object) -> bytes:
    """Bytes among the answers of a machine."""
    assert isinstance(value, bytes)
    return value


class Owner:
    """Somebody who launches a guest on a machine of SEV or SEV-ES, and trusts the emulated root alone."""

    def __init__(
        self, machine: SevMachine, *, flags: GuestPolicy | None = None, image: bytes = IMAGE
    ) -> None:
        self.machine, self.image = machine, image
        es = GuestPolicy.ES if machine.kind == "sev-es" else GuestPolicy(0)
        self.policy = pack_policy(STRICT | es if flags is None else flags, api=(1, 40))
        self.keys = SessionKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
        self.anchors = anchors(machine)
        self.chain = octets(machine.command("info", {})["platform_chain"])
        self.pdh = parse_chain(self.chain).pdh.key
        self.key = ec_key("owner of a guest")
        self.certificate = owner_certificate(self.key.public_key())
        self.session = prepare_session(
            self.pdh, owner=self.key, keys=self.keys, policy=self.policy, nonce=bytes(16), iv=b"\x01" * 16
        )

    @property
    def digest(self) -> bytes:
        """The launch digest that the owner expects."""
        padded = self.image + bytes(-len(self.image) % 4096)
        vmsas = bytes(4096) if self.machine.kind == "sev-es" else b""
        return hashlib.sha256(padded + vmsas).digest()

    def start(self) -> int:
        """Launch up to the measurement; gives the handle."""
        given = {
            "image": self.image,
            "policy": self.policy,
            "certificate": self.certificate,
            "session": self.session,
        }
        return number(self.machine.command("launch", given)["guest"])

    def verify(
        self,
        measured: Mapping[str, Value],
        trusted: TrustAnchors | None = None,
        *,
        digest: bytes | None = None,
    ) -> Claims:
        """Judge what LAUNCH_MEASURE gave; ``digest``: where it is not that of ``image``."""
        evidence = pack_evidence(
            self.chain,
            api=(number(measured["api_major"]), number(measured["api_minor"])),
            build=number(measured["build"]),
            policy=self.policy,
            measure=octets(measured["measure"]),
        )
        session = LaunchSession.prepared(
            self.pdh, tik=self.keys.tik, session=self.session, digests=(digest or self.digest,)
        )
        verifier = Verifier(
            tees=[SEV_VERIFIER], anchors=trusted or self.anchors, policy=AuthenticityOnly(), cache=Cache()
        )
        return verifier.verify(
            evidence, collateral=Collateral.none(), binding=session.binding, now=NOW, launch=session
        )

    def launch(self, secrets: Mapping[UUID, bytes] | None = None) -> int:
        """Launch, verify, hand over secrets, let it run; gives the handle."""
        handle = self.start()
        claims = self.verify(self.machine.command("measure", {"guest": handle}))
        if secrets:
            assert isinstance(claims.detail, SevDetail)
            packet = pack_secret(
                claims.detail.launch, build_secret_table(secrets), keys=self.keys, iv=b"\x02" * 16
            )
            given = {"guest": handle, "header": packet.header, "payload": packet.payload}
            self.machine.command("secret", given)
        self.machine.command("finish", {"guest": handle})
        return handle
