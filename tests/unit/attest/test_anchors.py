"""The pinned roots are those of the vendors, and nothing else begins a chain unless it is passed in."""

from __future__ import annotations

import json

import pytest
from tests.evidence import Evidence
from tests.forge.pki import ec_key
from tests.forge.snp import ark, vcek

from enarx.attest import MalformedCollateral, TrustAnchors, Vendor


def test_there_are_ten_vendor_roots_and_each_file_matches_its_pin() -> None:
    anchors = TrustAnchors.vendor().anchors
    assert len({anchor.spki_sha256 for anchor in anchors}) == 10
    assert all(anchor.is_vendor and anchor.vendor for anchor in anchors)


@pytest.mark.evidence
def test_pins_are_those_that_the_evidence_folder_confirmed(evidence: Evidence) -> None:
    confirmed = json.loads(evidence.read("manifest.json"))["pinned_roots"].values()
    known = {entry["spki_sha256"] for entry in confirmed}
    assert {anchor.spki_sha256.hex() for anchor in TrustAnchors.vendor().anchors} <= known


def test_a_root_of_one_vendor_is_none_of_another() -> None:
    vendor = TrustAnchors.vendor()
    milan = next(anchor for anchor in vendor.anchors if "Milan" in anchor.name)
    assert vendor.find(Vendor.AMD, milan.spki) is milan
    assert vendor.find(Vendor.INTEL, milan.spki) is None


def test_an_added_root_is_not_a_vendor_root_and_the_old_set_is_unchanged() -> None:
    before = TrustAnchors.vendor()
    after = before.adding(ark().der, name="mine")
    (mine,) = (anchor for anchor in after.anchors if not anchor.is_vendor)
    assert "NOT a vendor root" in str(mine)
    assert len(before.anchors) == 10
    assert after.find(Vendor.AMD, mine.spki) is mine
    assert after.find(Vendor.INTEL, mine.spki) is mine


def test_a_bare_public_key_in_der_can_be_a_root() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = ec_key("root").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (anchor,) = TrustAnchors.none().adding(spki, name="key", vendor=Vendor.ARM_CCA).anchors
    assert (anchor.spki, anchor.certificate) == (spki, None)


@pytest.mark.parametrize(
    "root", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", bytes(100)]
)
def test_what_is_no_root_is_refused(root: bytes) -> None:
    with pytest.raises(MalformedCollateral):
        TrustAnchors.none().adding(root, name="bad")


def test_a_chain_of_two_is_no_root() -> None:
    from base64 import b64encode

    blocks = b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + b64encode(cert.der) + b"\n-----END CERTIFICATE-----\n"
        for cert in (ark(), vcek())
    )
    with pytest.raises(MalformedCollateral, match="2 PEM blocks"):
        TrustAnchors.none().adding(blocks, name="chain")
