"""What the default policy accepts follows from what the tenant named, and goes no further."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from enarx.api.keep_image import Image, digest_line
from enarx.attest import Tee
from enarx.tenant.verification import Trust

IMAGE = Image(manifest=digest_line("a", bytes(32)).encode(), size=1)
OWNER = ec.generate_private_key(ec.SECP256R1())


def bare_key() -> bytes:
    """The key of a machine, or of its TPM: whoever runs that may know the private one."""
    return OWNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate() -> bytes:
    """A root that somebody made to be one."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, OWNER.public_key(), 1, now, now + timedelta(days=1))
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(OWNER, SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("roots", "accepting"),
    [
        ({}, set()),
        ({"a machine": bare_key()}, {Tee.PEF}),
        ({"an emulator": certificate()}, {Tee.SNP, Tee.TDX, Tee.SGX, Tee.SEV, Tee.SEV_ES, Tee.PEF}),
    ],
    ids=["nothing", "a key", "a root"],
)
def test_the_key_of_a_machine_founds_no_certificates_of_other_tees(
    roots: dict[str, bytes], accepting: set[Tee]
) -> None:
    sections = Trust.release(IMAGE, roots=roots).policy.sections
    assert {tee for tee, rules in sections.items() if rules.vendor_root.admits(False)} == accepting
