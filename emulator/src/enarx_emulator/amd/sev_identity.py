"""The keys and certificates of a platform of SEV before SNP: OCA, PEK, PDH, and the CEK that endorses them.

Source: AMD 55766 (SEV API), 2.1 and appendix C.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.sev._certs import (
    SIGNED_BYTES,
    Algorithm,
    SevCertificate,
    Usage,
    parse_certificate,
    signed_by_platform,
)
from enarx.attest.sev._encode import NO_SIGNATURE, pack_body
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.amd.certificates import by_platform
from enarx_emulator.amd.chip import Fuses
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.seed import Seed


class Identity:
    """What the firmware keeps in its own flash memory. ``saved`` is what ``save`` gave."""

    def __init__(
        self, fuses: Fuses, saved: Mapping[str, Value], api: tuple[int, int], faults: frozenset[str]
    ) -> None:
        self._seed: Seed = fuses.seed.child("sev identity")
        self._cek, self.api, self._faults = fuses.cek(), api, faults
        self._generation = _count(saved.get("generation"))
        self._pdh_generation = _count(saved.get("pdh_generation"))
        pek, oca = saved.get("pek"), saved.get("oca")
        self._imported = (pek, oca) if isinstance(pek, bytes) and isinstance(oca, bytes) else None

    @property
    def owned(self) -> bool:
        """Whether somebody else than the platform is its owner."""
        return self._imported is not None

    @property
    def pdh(self) -> ec.EllipticCurvePrivateKey:
        """The Diffie-Hellman key."""
        return self._key(f"pdh {self._pdh_generation}")

    def save(self) -> dict[str, Value]:
        """Give what the constructor takes."""
        counts: dict[str, Value] = {"generation": self._generation, "pdh_generation": self._pdh_generation}
        return (
            counts
            if self._imported is None
            else {**counts, "pek": self._imported[0], "oca": self._imported[1]}
        )

    def renew_owner(self) -> None:
        """New OCA, PEK and PDH."""
        self._generation += 1
        self._imported = None
        self.renew_pdh()

    def renew_pdh(self) -> None:
        """A new PDH."""
        self._pdh_generation += 1

    def take_owner(self, pek: bytes, oca: bytes) -> None:
        """Check what an owner brings, and add the CEK's signature to the PEK."""
        brought, owner = parsed("pek", pek), parsed("oca", oca)
        require(
            owner.usage is Usage.OCA and _signs(owner, owner),
            SevStatus.BAD_SIGNATURE,
            "the oca is not signed by itself",
        )
        require(_signs(owner, brought), SevStatus.BAD_SIGNATURE, "the pek is not signed by the oca")
        require(
            pek[:SIGNED_BYTES] == self.pek_body(),
            SevStatus.INVALID_CERTIFICATE,
            "the pek is none that PEK_CSR gave",
        )
        signature = next(
            pek[at : at + 520] for at in (SIGNED_BYTES, SIGNED_BYTES + 520) if pek[at : at + 2] == b"\x01\x10"
        )
        body = pek[:SIGNED_BYTES]
        self._imported = (body + signature + by_platform(body, Usage.CEK, self._cek), oca)
        self.renew_pdh()

    def pek_body(self) -> bytes:
        """The PEK without signatures."""
        return self._body(Usage.PEK, self._pek)

    def pdh_certificate(self) -> bytes:
        """The PDH, signed by the PEK."""
        usage = Usage.PEK if "sev-pdh-usage" in self._faults else Usage.PDH
        body = pack_body(usage, Algorithm.ECDH_SHA256, self.pdh.public_key(), api=self.api)
        signer = self._stranger if "sev-pdh-not-by-pek" in self._faults else self._pek
        return body + by_platform(body, Usage.PEK, signer) + NO_SIGNATURE

    def chain(self) -> bytes:
        """PEK, OCA and the unsigned CEK."""
        cek = self._body(Usage.CEK, self._cek) + NO_SIGNATURE * 2
        if self._imported is not None:
            return self._imported[0] + self._imported[1] + cek
        pek = self.pek_body()
        oca = self._body(Usage.OCA, self._oca)
        by_oca = self._stranger if "sev-pek-not-by-oca" in self._faults else self._oca
        by_cek = self._stranger if "sev-pek-not-by-cek" in self._faults else self._cek
        self_signed = self._stranger if "sev-oca-not-by-itself" in self._faults else self._oca
        return b"".join(
            (
                pek + by_platform(pek, Usage.OCA, by_oca) + by_platform(pek, Usage.CEK, by_cek),
                oca + by_platform(oca, Usage.OCA, self_signed) + NO_SIGNATURE,
                cek,
            )
        )

    def _body(self, usage: Usage, key: ec.EllipticCurvePrivateKey) -> bytes:
        return pack_body(usage, Algorithm.ECDSA_SHA256, key.public_key(), api=self.api)

    @property
    def _pek(self) -> ec.EllipticCurvePrivateKey:
        return self._key(f"pek {self._generation}")

    @property
    def _oca(self) -> ec.EllipticCurvePrivateKey:
        return self._key(f"oca {self._generation}")

    @property
    def _stranger(self) -> ec.EllipticCurvePrivateKey:
        return self._key("nobody's")

    def _key(self, label: str) -> ec.EllipticCurvePrivateKey:
        return self._seed.ec_key(label, ec.SECP384R1())


def parsed(name: str, data: bytes) -> SevCertificate:
    """Read a certificate that the host brought. Raises ``FirmwareError`` (INVALID_CERTIFICATE)."""
    try:
        return parse_certificate(data)
    except Malformed as wrong:
        require(False, SevStatus.INVALID_CERTIFICATE, f"{name}: {wrong}")
        raise


def _signs(signer: SevCertificate, certificate: SevCertificate) -> bool:
    found = certificate.signatures_of(signer.usage)
    return any(signed_by_platform(signer.key, one, certificate.signed) for one in found)


def _count(value: Value | None) -> int:
    return value if isinstance(value, int) else 0
