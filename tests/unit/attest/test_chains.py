"""Every question that is asked of a chain and its revocation lists, of each kind of evidence that has one besides SNP's
and the PCK's, which have their own tests: a chain that is right in all but one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.forge import azure, dcap, nitro, tpm
from tests.forge.pki import NOW, Cert, Key, ec_key, rsa_key

from enarx.attest import (
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Outcome,
    Revocation,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.nitro import VERIFIER as NITRO
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tpm import VERIFIER as TPM

LEAF_SERIAL = 0x77
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Links:
    """A chain to be judged, root first, and the lists of its authorities."""

    root: Cert
    between: tuple[Cert, ...]
    leaf: Cert
    crls: tuple[bytes, ...] = ()
    given: tuple[Cert, ...] | None = None
    """The authorities that come along, where they are not all."""
    trusted: Key | None = None
    """The key that is trusted, where it is not that of the root."""

    @property
    def anchor(self) -> bytes:
        """The key that is trusted, without its certificate: that comes along, and must be right, too."""
        return tpm.spki(self.trusted or self.root.key)

    @property
    def authorities(self) -> tuple[Cert, ...]:
        """What comes along beside the leaf."""
        return (self.root, *self.between) if self.given is None else self.given

    @property
    def issuer(self) -> Cert:
        """Who issued the leaf."""
        return self.between[-1] if self.between else self.root

    @property
    def collateral(self) -> Collateral:
        """What comes along beside evidence that has the leaf in it."""
        return Collateral(certificates=tuple(one.der for one in self.authorities), crls=self.crls)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def judge_tpm(links: Links) -> Claims:
    anchors = TrustAnchors.none().adding(links.anchor, name="test root", vendor=Vendor.GOOGLE_TPM)
    verifier = Verifier(tees=[TPM], anchors=anchors, policy=AuthenticityOnly())
    case = tpm.Case(certificate=links.leaf.der)
    return verifier.verify(case.raw, collateral=links.collateral, binding=tpm.NONCE, now=NOW)


def judge_azure(links: Links) -> Claims:
    case = azure.Case(certificate=links.leaf, more=links.collateral)
    anchors = azure.Case().anchors.adding(links.anchor, name="root of keys", vendor=Vendor.AZURE_VTPM)
    return azure.judge(case, anchors=anchors)


def judge_nitro(links: Links) -> Claims:
    case = nitro.Case(certs=(*links.authorities, links.leaf))
    anchors = TrustAnchors.none().adding(links.anchor, name="test root", vendor=Vendor.AWS_NITRO)
    verifier = Verifier(tees=[NITRO], anchors=anchors, policy=AuthenticityOnly())
    return verifier.verify(case.raw, collateral=Collateral.none(), binding=nitro.NONCE, now=NOW)


def judge_documents(links: Links) -> Claims:
    case = dcap.Case(crls=(dcap.root().crl(), dcap.pck_ca().crl()) if not links.crls else links.crls)
    certificates = tuple(one.der for one in (links.leaf, *links.authorities))
    anchors = TrustAnchors.none().adding(links.anchor, name="test root", vendor=Vendor.INTEL)
    verifier = Verifier(tees=[SGX], anchors=anchors, policy=AuthenticityOnly())
    collateral = replace(case.collateral, certificates=certificates)
    return verifier.verify(case.quote.raw, collateral=collateral, binding=dcap.REPORT_DATA, now=NOW)


def links(leaf_name: str, key: Key) -> Links:
    """Root, intermediate, leaf."""
    root = Cert(name=name("root of the test"), key=ec_key("chain root"))
    middle = Cert(name=name("intermediate of the test"), key=ec_key("chain middle"), issuer=root, serial=0x66)
    leaf = Cert(name=name(leaf_name), key=key, issuer=middle, ca=False, crl_sign=False, serial=LEAF_SERIAL)
    return Links(root=root, between=(middle,), leaf=leaf)


def of_documents() -> Links:
    """No intermediate: Intel's root issues the certificate that signs documents."""
    return Links(root=dcap.root(), between=(), leaf=dcap.tcb_signing())


def of_nitro() -> Links:
    root, zonal, leaf = nitro.chain(zonal={"path_length": None})
    return Links(root=root, between=(zonal,), leaf=leaf)


KINDS: dict[str, tuple[Callable[[], Links], Callable[[Links], Claims]]] = {
    "tpm.chain": (lambda: links("attestation key", rsa_key("ak")), judge_tpm),
    "azure.ak_certificate.chain": (lambda: links("attestation key", rsa_key("ak")), judge_azure),
    "nitro.chain": (of_nitro, judge_nitro),
    "dcap.tcb_signing": (of_documents, judge_documents),
}
LISTS = {"tpm.chain": "tpm.crl", "azure.ak_certificate.chain": "azure.ak_certificate.crl"}


def with_leaf(whole: Links, **changes: Any) -> Links:
    return replace(whole, leaf=whole.leaf.but(**changes))


def with_authority(whole: Links, **changes: Any) -> Links:
    """Change who issued the leaf."""
    changed = whole.issuer.but(**changes)
    if not whole.between:
        return replace(whole, root=changed, leaf=whole.leaf.but(issuer=changed))
    return replace(whole, between=(*whole.between[:-1], changed), leaf=whole.leaf.but(issuer=changed))


def with_root(whole: Links, **changes: Any) -> Links:
    root = whole.root.but(**changes)
    middle = [one.but(issuer=root) for one in whole.between]
    return replace(whole, root=root, between=tuple(middle), leaf=whole.leaf.but(issuer=[root, *middle][-1]))


def longer(whole: Links, depth: int, **changes: Any) -> Links:
    """Put authorities between the root and the leaf."""
    above, found = whole.root.but(**changes), []
    root = above
    for at in range(depth):
        above = Cert(name=name(f"authority {at}"), key=key_of(whole, f"authority {at}"), issuer=above)
        found.append(above)
    return replace(whole, root=root, between=tuple(found), leaf=whole.leaf.but(issuer=above))


def key_of(whole: Links, label: str) -> Key:
    """A key of the kind that this chain has."""
    key = whole.root.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return ec_key(label, type(key.curve))


UNKNOWN = ("1.2.3.4", True, b"\x05\x00")
QUESTIONS: dict[str, Callable[[Links], Links]] = {
    "issuer": lambda whole: replace(whole, given=(whole.root,) if whole.between else ()),
    "signature": lambda whole: with_leaf(whole, signer=key_of(whole, "stranger")),
    "root": lambda whole: replace(
        with_root(whole, key=key_of(whole, "another root")), trusted=whole.root.key
    ),
    "length": lambda whole: longer(whole, 6),
    "ca": lambda whole: with_authority(whole, ca=False, path_length=None, cert_sign=True),
    "path_length": lambda whole: (
        longer(whole, 1, path_length=0) if not whole.between else with_root(whole, path_length=0)
    ),
    "key_usage": lambda whole: with_authority(whole, cert_sign=False),
    "critical": lambda whole: with_leaf(whole, extensions=[UNKNOWN]),
    "not_before": lambda whole: with_leaf(whole, not_before=NOW + SECOND),
    "not_after": lambda whole: with_leaf(whole, not_after=NOW - SECOND),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_chain_is_right(kind: str) -> None:
    make, judge = KINDS[kind]
    assert all(check.outcome is not Outcome.FAILED for check in judge(make()).checks)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_question_about_a_chain_fails_alone(kind: str, question: str) -> None:
    make, judge = KINDS[kind]
    wrong = QUESTIONS[question](make())
    with pytest.raises((EvidenceRejected, CollateralMissing)) as refused:
        judge(wrong)
    assert failed(refused.value.checks) == [f"{kind}.{question}"]
    assert isinstance(refused.value, CollateralMissing) == (question == "issuer")


def failed(checks: Iterable[Any]) -> list[str]:
    return [check.name for check in checks if check.outcome is Outcome.FAILED]


WRONG_LISTS: dict[str, Callable[[Links], Links]] = {
    "key_usage": lambda whole: with_list(with_authority(whole, crl_sign=False)),
    "signature": lambda whole: with_list(whole, signer=ec_key("stranger")),
    "issued": lambda whole: with_list(whole, this_update=NOW + SECOND),
    "revoked": lambda whole: with_list(whole, LEAF_SERIAL),
}


def with_list(whole: Links, *revoked: int, **changes: Any) -> Links:
    """The list of who issued the leaf, and a good one of the root."""
    return replace(whole, crls=(whole.root.crl(), whole.issuer.crl(*revoked, **changes)))


@pytest.mark.parametrize("question", WRONG_LISTS)
@pytest.mark.parametrize("kind", LISTS)
def test_each_question_about_a_list_fails_alone(kind: str, question: str) -> None:
    make, judge = KINDS[kind]
    with pytest.raises(EvidenceRejected) as refused:
        judge(WRONG_LISTS[question](make()))
    assert failed(refused.value.checks) == [f"{LISTS[kind]}.{question}"]


@pytest.mark.parametrize("kind", LISTS)
def test_what_lists_leave_open_is_noted(kind: str) -> None:
    make, judge = KINDS[kind]
    stale = with_list(make(), next_update=NOW - SECOND)
    for whole, outcome, note in (
        (with_list(make()), Revocation.CHECKED, None),
        (stale, Revocation.STALE, "stale"),
        (make(), Revocation.MISSING, "missing"),
    ):
        claims = judge(whole)
        notes = {check.name for check in claims.checks if check.outcome is Outcome.NOTED}
        assert (f"{LISTS[kind]}.{note}" in notes) == (note is not None)
        if kind == "tpm.chain":
            assert claims.revocation is outcome


@pytest.mark.parametrize(
    ("kind", "check"), [("tpm.chain", "tpm.certificate.usage"), ("nitro.chain", "nitro.certificate.usage")]
)
def test_a_certificate_that_is_for_nothing_signs_nothing(kind: str, check: str) -> None:
    make, judge = KINDS[kind]
    with pytest.raises(EvidenceRejected) as refused:
        judge(with_leaf(make(), ca=None))
    assert failed(refused.value.checks) == [check]


def test_an_authority_of_nitro_says_what_its_key_is_for() -> None:
    """It has basic constraints, but no key usage: others' authorities may leave it out."""
    bare: dict[str, Any] = {"ca": None, "extensions": [("2.5.29.19", True, b"\x30\x03\x01\x01\xff")]}
    for kind, (make, judge) in KINDS.items():
        changed = with_authority(make(), **bare)
        if kind == "nitro.chain":
            with pytest.raises(EvidenceRejected) as refused:
                judge(changed)
            assert failed(refused.value.checks) == ["nitro.chain.usage"]
        else:
            judge(changed)
