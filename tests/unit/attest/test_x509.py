"""Certificates and revocation lists are read as another library reads them, and DER is read strictly."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.evidence import FOLDER
from tests.forge.pki import NOW, ec_key, rsa_key
from tests.forge.snp import ark, ask, vcek

from enarx.attest import MalformedCollateral
from enarx.attest.chain import parse_revocation_list
from enarx.attest.der import Der, Tag, only
from enarx.attest.x509 import (
    MAX_CERTIFICATE_BYTES,
    load_public_key,
    name_attributes,
    parse_certificate,
    signed_by,
)


def certificates() -> Iterator[bytes]:
    """Every certificate of the evidence folder, in DER; what the other library cannot read is left out."""
    seen: set[bytes] = set()
    for path in sorted(FOLDER.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        found = [
            base64.b64decode(re.sub(rb"\\n|\s", b"", block))
            for block in re.findall(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s\\]+)-----END", data)
        ]
        for der in found or (
            [data] if data[:2] == b"\x30\x82" and path.suffix in {".der", ".cer", ".crt"} else []
        ):
            if der in seen:
                continue
            seen.add(der)
            try:
                x509.load_der_x509_certificate(der)
            except ValueError:
                continue
            yield der


@pytest.mark.evidence
def test_certificates_of_all_vendors_are_read_as_another_library_reads_them() -> None:
    count = damaged = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AMD's serial number zero
        for der in certificates():
            other = x509.load_der_x509_certificate(der)
            try:
                list(other.subject), list(other.issuer), other.public_key()
            except ValueError:
                damaged += (
                    1  # the other library looks late; ours refuses no later than where the value is used
                )
                continue
            ours = parse_certificate(der)
            count += 1
            assert ours.tbs == other.tbs_certificate_bytes
            assert ours.signature == other.signature
            assert ours.serial == other.serial_number
            assert (ours.not_before, ours.not_after) == (
                other.not_valid_before_utc,
                other.not_valid_after_utc,
            )
            assert (ours.issuer, ours.subject) == (other.issuer.public_bytes(), other.subject.public_bytes())
            spki = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            assert ours.spki == spki
            assert list(ours.extensions) == [extension.oid.dotted_string for extension in other.extensions]
            assert [one.critical for one in ours.extensions.values()] == [
                one.critical for one in other.extensions
            ]
    assert count > 40
    assert damaged < 3


def test_revocation_list_is_read_as_another_library_reads_it() -> None:
    der = ark().crl(1, 0x20001, 2**150)
    ours, other = parse_revocation_list(der), x509.load_der_x509_crl(der)
    assert ours.revoked == {entry.serial_number for entry in other}
    assert (ours.this_update, ours.next_update) == (other.last_update_utc, other.next_update_utc)
    assert (ours.tbs, ours.issuer) == (other.tbs_certlist_bytes, other.issuer.public_bytes())


def test_signature_is_checked_with_the_algorithm_that_is_named() -> None:
    root, leaf = parse_certificate(ark().der), parse_certificate(vcek().der)
    between = parse_certificate(ask().der)
    assert signed_by(between.spki, leaf.algorithm, leaf.signature, leaf.tbs)
    assert not signed_by(root.spki, leaf.algorithm, leaf.signature, leaf.tbs)
    assert not signed_by(between.spki, leaf.algorithm, leaf.signature[:-1], leaf.tbs)
    curve = ec_key("x").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert not signed_by(curve, leaf.algorithm, leaf.signature, leaf.tbs)


def test_certificate_with_a_changed_byte_is_another_certificate_or_none() -> None:
    der = vcek().der
    between = parse_certificate(ask().der)
    for at in range(0, len(der), 7):
        changed = bytearray(der)
        changed[at] ^= 0x10
        try:
            found = parse_certificate(bytes(changed))
        except MalformedCollateral:
            continue
        assert not signed_by(between.spki, found.algorithm, found.signature, found.tbs)


def test_every_length_but_the_right_one_is_refused() -> None:
    der = vcek().der
    for wrong in (*(der[:size] for size in range(len(der))), der + b"\x00", der + der):
        with pytest.raises(MalformedCollateral):
            parse_certificate(wrong)
    crl = ark().crl(7)
    for wrong in (*(crl[:size] for size in range(len(crl))), crl + b"\x00"):
        with pytest.raises(MalformedCollateral):
            parse_revocation_list(wrong)


def test_a_large_certificate_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedCollateral, match="at most"):
        parse_certificate(bytes(MAX_CERTIFICATE_BYTES + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x81\x01\x00",
        b"\x30\x82\x00\x80" + bytes(128),
        b"\x30\x84\x00\x00\x00\x01\x00",
        b"\x30\x02\x05",
        b"\x30\x00\x00",
        b"\x3f\x81\x01\x00",
        b"\x31\x00",
    ],
)
def test_what_is_not_shortest_definite_der_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedCollateral):
        only(data, Tag.SEQUENCE, name="test")


@pytest.mark.parametrize(
    ("data", "value"),
    [("020100", 0), ("02017f", 127), ("02020080", 128), ("0201ff", -1), ("02020100", 256)],
)
def test_integers(data: str, value: int) -> None:
    assert Der(bytes.fromhex(data), name="test").integer("x") == value


@pytest.mark.parametrize("data", ["0200", "02020001", "0202ff80", "030100"])
def test_integers_that_are_none(data: str) -> None:
    with pytest.raises(MalformedCollateral):
        Der(bytes.fromhex(data), name="test").integer("x")


@pytest.mark.parametrize(
    ("data", "value"), [("060155", "2.5"), ("06032a0304", "1.2.3.4"), ("0603883703", "2.999.3")]
)
def test_object_identifiers(data: str, value: str) -> None:
    assert Der(bytes.fromhex(data), name="test").oid("x") == value


@pytest.mark.parametrize("data", ["0600", "060180", "0602 8001", "06022a80", "0641" + "2a" * 65])
def test_object_identifiers_that_are_none(data: str) -> None:
    with pytest.raises(MalformedCollateral):
        Der(bytes.fromhex(data), name="test").oid("x")


@pytest.mark.parametrize("data", ["010101", "0100", "01020000"])
def test_booleans_that_are_none(data: str) -> None:
    with pytest.raises(MalformedCollateral):
        Der(bytes.fromhex(data), name="test").boolean("x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"\x17\x0d491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"\x17\x0d500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (b"\x18\x0f20500101000000Z", datetime(2050, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(text: bytes, value: datetime) -> None:
    assert Der(text, name="test").time("x") == value


@pytest.mark.parametrize(
    "text",
    [
        b"\x17\x0d250230000000Z",
        b"\x17\x0d250101000060Z",
        b"\x17\x0b2501010000Z",
        b"\x17\x11250101000000+0000",
        b"\x18\x0d250101000000Z",
        b"\x17\x0d25010100000 Z",
        b"\x18\x0f00000101000000Z",
        b"\x16\x0d250101000000Z",
    ],
)
def test_times_that_are_none(text: bytes) -> None:
    with pytest.raises(MalformedCollateral):
        Der(text, name="test").time("x")


def test_keys_that_vendors_do_not_use_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 -- that is the point
    other = ec.generate_private_key(ec.SECP256K1()).public_key()
    for key in (small, other, ed25519.Ed25519PrivateKey.generate().public_key()):
        with pytest.raises(MalformedCollateral):
            load_public_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    off_curve = bytearray(
        ec_key("x").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    off_curve[-1] ^= 1
    with pytest.raises(MalformedCollateral):
        load_public_key(bytes(off_curve))


def test_names_are_listed_in_order() -> None:
    attributes = name_attributes(parse_certificate(vcek().der).subject)
    assert attributes[0] == ("2.5.4.11", "Engineering")
    assert attributes[-1] == ("2.5.4.3", "SEV-VCEK")


def test_what_revocation_lists_may_not_be() -> None:
    authority = ark()
    issuing = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.name)
        .last_update(NOW)
        .next_update(NOW.replace(year=2026))
        .add_extension(issuing, critical=True)
    )
    from cryptography.hazmat.primitives import hashes

    der = builder.sign(rsa_key("ark"), hashes.SHA384()).public_bytes(Encoding.DER)
    with pytest.raises(MalformedCollateral, match="critical extension"):
        parse_revocation_list(der)
