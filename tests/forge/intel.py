"""Emulated machines of Intel's for tests, and what verifiers say of their quotes: ours, and ``dcap_qvl``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import dcap_qvl  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import rsa

from enarx.attest import (
    AuthenticityOnly,
    Claims,
    Collateral,
    Document,
    Kind,
    Policy,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tdx import VERIFIER as TDX
from enarx_emulator.intel.machine import make
from enarx_emulator.intel.pck import pem
from enarx_emulator.intel.processor import MODELS, Model, Processor
from enarx_emulator.intel.sgx import SgxCpu
from enarx_emulator.intel.vendor import IntelVendor, stored_rsa_key
from enarx_emulator.machine import Machine, Setup
from enarx_emulator.seed import Seed
from enarx_emulator.state import Memory

NOW: Final = datetime(2026, 1, 15, 12, tzinfo=UTC)
SEED: Final = Seed(b"the seed of Intel machines in tests")
CHALLENGE: Final = bytes(range(64))
IMAGE: Final = b"\x90" * 5000
_KEYS: Final = ("intel-enclave-signer", "sgx-developer-key", "stranger-enclave-signer", "intel-ppid-key")


@cache
def enclave_key(name: str = "sgx-developer-key") -> rsa.RSAPrivateKey:
    """One RSA key of each name and test run."""
    return stored_rsa_key(_made(name), name)


@cache
def _made(name: str) -> Memory:
    store = Memory()
    stored_rsa_key(store, name)
    return store


def vendor_store() -> Memory:
    """A vendor who has made nothing yet; RSA keys are the same for all tests, as they take long to make."""
    store = Memory()
    for name in _KEYS:
        data = _made(name).get(name)
        assert data is not None
        store.put(name, data)
    return store


def vendor(store: Memory | None = None, **changes: Any) -> IntelVendor:
    """The vendor of ``machine``'s, who is the same in all stores."""
    return IntelVendor(store or vendor_store(), seed=SEED.child("intel vendor"), **changes)


def cpu(model: str = "icelake", *, seed: Seed = SEED, **changes: Any) -> SgxCpu:
    """A processor."""
    return SgxCpu(Processor(seed, MODELS[model]), **changes)


def machine(
    kind: str,
    *,
    product: str | None = None,
    store: Memory | None = None,
    faults: frozenset[str] = frozenset(),
    **changes: Any,
) -> Machine:
    """A machine of one kind."""
    setup = Setup(
        kind=kind, product=product, seed=SEED, vendor=store or vendor_store(), faults=faults, **changes
    )
    return make(setup)


def launch(on: Machine, image: bytes = IMAGE, **options: object) -> tuple[int, bytes]:
    """Start a guest; give its handle and measurement."""
    answer = on.command("launch", {"image": image, **options})
    guest, measurement = answer["guest"], answer["measurement"]
    assert isinstance(guest, int)
    assert isinstance(measurement, bytes)
    return guest, measurement


def quote(on: Machine, guest: int, data: bytes = CHALLENGE) -> bytes:
    """Ask for a quote as the guest does."""
    tree = on.guest(guest).tree()
    if on.kind == "sgx":
        tree.write("attestation/user_report_data", data)
        return tree.read("attestation/quote")
    name = f"report/{data.hex()[:8]}"
    tree.make(name)
    tree.write(f"{name}/inblob", data)
    made = tree.read(f"{name}/outblob")
    tree.remove(name)
    return made


def model_of(on: Machine) -> Model:
    """Which model it is."""
    product = on.command("info", {})["product"]
    assert isinstance(product, str)
    return MODELS[product]


def anchors(of: IntelVendor | None = None) -> TrustAnchors:
    """The emulated root alone."""
    root = (of or vendor()).root.der
    return TrustAnchors.none().adding(root, name="EMULATED Intel", vendor=Vendor.INTEL)


def verify(
    raw: bytes,
    collateral: Collateral,
    *,
    policy: str | None = None,
    trusted: TrustAnchors | None = None,
    now: datetime = NOW,
    challenge: bytes = CHALLENGE,
) -> Claims:
    """Ask ``enarx.attest``."""
    tees = [SGX, TDX]
    judged = Policy.parse(policy, tees) if policy is not None else AuthenticityOnly()
    verifier = Verifier(tees=tees, anchors=trusted or anchors(), policy=judged)
    return verifier.verify(raw, collateral=collateral, binding=challenge, now=now)


def strict_policy(kind: str, measurement: bytes) -> str:
    """Exactly this image, and the emulated root in place of the vendor's."""
    lines = [
        "version = 1",
        f"[{kind}]",
        f'measurement = ["{measurement.hex()}"]',
        "vendor_root = false",
        "min_tcb_evaluation_data_number = 17",
    ]
    return "\n".join([*lines, ""])


def peer_verify(raw: bytes, of: IntelVendor, tee: str, model: Model, *, now: datetime = NOW) -> str:
    """Ask ``dcap_qvl`` with the emulated root; give the status."""

    def split(document: bytes) -> tuple[str, bytes]:
        text = document.decode()
        return text[text.index(":") + 1 : text.rindex(',"signature"')], bytes.fromhex(
            json.loads(text)["signature"]
        )

    root = of.root.der
    signing = pem(of.tcb_signing.der, root).decode()
    info, info_signature = split(of.tcb_info(tee, model, now))
    identity, identity_signature = split(of.identity("TD_QE" if tee == "TDX" else "QE", now))
    collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=pem(of.pck_ca(multi_package=model.multi_package).der, root).decode(),
        root_ca_crl=of.root_crl(now),
        pck_crl=of.pck_crl(now, multi_package=model.multi_package),
        tcb_info_issuer_chain=signing,
        tcb_info=info,
        tcb_info_signature=info_signature,
        qe_identity_issuer_chain=signing,
        qe_identity=identity,
        qe_identity_signature=identity_signature,
    )
    report = dcap_qvl.verify_with_root_ca(raw, collateral, root, int(now.timestamp()))
    status: str = report.status
    return status


def with_log(collateral: Collateral, log: bytes) -> Collateral:
    """The same with an event log."""
    return collateral | Collateral(documents=(Document(Kind.EVENT_LOG, log),))
