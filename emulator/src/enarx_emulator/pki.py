"""Certificates and revocation lists with anything in them, signed with real keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


def digest_of(key: Key) -> hashes.SHA256 | hashes.SHA384:
    """What vendors hash with: SHA-256 for P-256, SHA-384 for all else."""
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    return hashes.SHA256() if is_p256 else hashes.SHA384()


@dataclass(frozen=True, kw_only=True)
class Cert:
    """A certificate to be made. ``issuer=None``: self-signed."""

    name: x509.Name
    key: Key
    issuer: Cert | None = None
    ca: bool | None = True
    """``None``: no basic constraints."""
    path_length: int | None = None
    cert_sign: bool | None = None
    """keyCertSign; by default as ``ca``."""
    crl_sign: bool = True
    not_before: datetime
    not_after: datetime
    serial: int = 0x10000
    extensions: Sequence[tuple[str, bool, bytes]] = ()
    signer: Key | None = None
    """Whose key really signs; by default the issuer's."""
    digest: hashes.SHA256 | hashes.SHA384 | None = None
    """What is hashed with in place of ``digest_of`` the signer's key."""
    pkcs1: bool = False
    """Sign with PKCS #1 v1.5 where an RSA key signs."""

    def but(self, **changes: Any) -> Self:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def der(self) -> bytes:
        """Make it."""
        issuer = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.path_length), critical=True)
            usage = x509.KeyUsage(
                digital_signature=not self.ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=self.ca if self.cert_sign is None else self.cert_sign,
                crl_sign=self.crl_sign,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        for oid, critical, value in self.extensions:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=critical
            )
        key = self.signer or issuer.key
        padded = None if self.pkcs1 or not isinstance(key, rsa.RSAPrivateKey) else _PSS
        same = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
        digest = self.digest or digest_of(key)
        signed = builder.sign(key, digest, rsa_padding=padded, ecdsa_deterministic=same)
        return signed.public_bytes(Encoding.DER)

    def crl(
        self,
        *revoked: int,
        this_update: datetime,
        next_update: datetime,
        signer: Key | None = None,
        number: int = 1,
        extensions: Sequence[tuple[str, bool, bytes]] = (),
    ) -> bytes:
        """Make a revocation list of this authority, in DER; ``revoked`` are serial numbers."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(this_update)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for oid, critical, value in extensions:
            other = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(other, critical=critical)
        for serial in revoked:
            entry = (
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update).build()
            )
            builder = builder.add_revoked_certificate(entry)
        key = signer or self.key
        padded = _PSS if isinstance(key, rsa.RSAPrivateKey) else None
        same = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
        signed = builder.sign(key, digest_of(key), rsa_padding=padded, ecdsa_deterministic=same)
        return signed.public_bytes(Encoding.DER)
