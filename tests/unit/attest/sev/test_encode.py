"""Certificates that owners of guests make for themselves."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.sev import ec_key

from enarx.attest.sev import owner_certificate, parse_certificate
from enarx.attest.sev._certs import Algorithm, Usage


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_an_owner_certificate_is_what_launch_start_takes(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve).public_key()
    read = parse_certificate(owner_certificate(key))
    assert (read.usage, read.algorithm) == (Usage.PDH, Algorithm.ECDH_SHA256)
    assert read.key.public_numbers() == key.public_numbers()
    assert [one.usage for one in read.signatures] == [Usage.EMPTY, Usage.EMPTY]


def test_an_owner_certificate_has_the_size_and_no_version_of_an_api() -> None:
    made = owner_certificate(ec_key("owner").public_key())
    assert len(made) == 2084
    assert made[4:8] == bytes(4)
