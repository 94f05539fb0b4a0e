"""The keys and certificates of AMD's authorities for one product line: ARK, ASK and ASVK. EMULATED.

Their RSA keys are made when first needed and kept in the vendor's store; certificates are signed again by every
process, always over the same keys, names and times.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from enarx.attest.sev._certs import Usage
from enarx.attest.snp._report import Line
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.amd.certificates import amd_certificate
from enarx_emulator.amd.endorsement import (
    amd_name,
    comment,
    issuer_identifier,
    key_identifier,
    list_location,
)
from enarx_emulator.errors import EmulatorError
from enarx_emulator.machine import Store
from enarx_emulator.pki import Cert

CRITICAL_UNKNOWN: Final = ("1.3.6.1.4.1.3704.1.99", True, b"\x05\x00")
_MARK: Final = comment("EMULATED: no product of AMD, endorses nothing that protects anything")
_YEARS: Final = timedelta(days=25 * 365)
_BASES: Final = {Line.MILAN: 0x10000, Line.GENOA: 0x20000, Line.TURIN: 0x30000, Line.VENICE: 0x40000}
"""Serial number of the root; those of its authorities follow."""
_SERIALS: Final = {"ask": 1, "asvk": 0x101}
_MAX_RECORD_BYTES: Final = 64 * 1024


class Authority:
    """AMD for one product line. ``clock`` gives the time at which it was founded, and issues lists."""

    def __init__(
        self,
        line: Line,
        store: Store,
        *,
        clock: Callable[[], datetime],
        key_bits: int,
        faults: frozenset[str],
    ) -> None:
        self.line = line
        self._store, self._clock, self._key_bits, self._faults = store, clock, key_bits, faults
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._record = self._read_record()

    @property
    def genuine_root(self) -> Cert:
        """The root to be trusted by those who mean to trust this emulator."""
        return self._root(self.key("ark"))

    @cached_property
    def ark(self) -> Cert:
        """The root that signs; with a fault one that only has its name."""
        return self._root(self.stranger if "snp-forged-root" in self._faults else self.key("ark"))

    @cached_property
    def ask(self) -> Cert:
        """The authority of VCEKs."""
        return self._intermediate("ask", f"SEV-{self.line.value}", "vcek")

    @cached_property
    def asvk(self) -> Cert:
        """The authority of VLEKs."""
        return self._intermediate("asvk", f"SEV-VLEK-{self.line.value}", "vlek")

    @cached_property
    def stranger(self) -> rsa.RSAPrivateKey:
        """A key that nobody trusts."""
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def revoke(self, authority: str) -> None:
        """Withdraw the certificate of ``ask`` or ``asvk``; it gets another, with a higher serial number."""
        serials, revoked = self._serials(), self._revoked()
        if authority not in serials:
            raise EmulatorError(f"authority is {authority!r}, expected ask or asvk")
        revoked.append(serials[authority])
        serials[authority] += 1
        self._write_record(serials, revoked)
        self.__dict__.pop(authority, None)

    def crl(self) -> bytes:
        """The list of withdrawn intermediates, which the root signs (DER); valid for a year."""
        now, revoked, signer = self._clock(), self._revoked(), None
        since, until = now - timedelta(hours=1), now + timedelta(days=365)
        if "snp-revoked-ask" in self._faults:
            revoked.append(self._serials()["ask"])
        if "snp-stale-crl" in self._faults:
            since, until = now - timedelta(days=400), now - timedelta(days=35)
        if "snp-future-crl" in self._faults:
            since = now + timedelta(days=1)
        if "snp-foreign-crl" in self._faults:
            signer = self.stranger
        above = issuer_identifier(self.ark.key.public_key())
        return self.ark.crl(
            *revoked,
            this_update=since,
            next_update=until,
            signer=signer,
            number=len(revoked) + 1,
            extensions=(above, _MARK),
        )

    def ark_sev(self) -> bytes:
        """The root in the format of SEV before SNP."""
        key, name = self.key("ark"), self._sev_id("ARK")
        if "sev-forged-root" in self._faults:
            key = self.stranger
        return amd_certificate(Usage.ARK, key.public_key(), key, key_id=name, certifying_id=name)

    def ask_sev(self) -> bytes:
        """The intermediate in that format."""
        signer = self.key("ark")
        if self._faults & {"sev-ask-not-by-ark", "sev-forged-root"}:
            signer = self.stranger
        own, by = self._sev_id("ASK"), self._sev_id("ARK")
        if "sev-ask-names-other-ark" in self._faults:
            by = by[::-1]
        key = self.key("ask").public_key()
        return amd_certificate(Usage.ASK, key, signer, key_id=own, certifying_id=by)

    def key(self, name: str) -> rsa.RSAPrivateKey:
        """The key of ``ark``, ``ask`` or ``asvk``."""
        if name not in self._keys:
            self._keys[name] = self._load(f"amd-{self.line.value.lower()}-{name}.pem")
        return self._keys[name]

    def _sev_id(self, kind: str) -> bytes:
        return f"EMULATED {kind} {self.line.value}".encode()[:16]

    def _root(self, key: rsa.RSAPrivateKey) -> Cert:
        more = (key_identifier(key.public_key()), self._list("vcek"), _MARK)
        return self._certificate(f"ARK-{self.line.value}", key, serial=_BASES[self.line], extensions=more)

    def _intermediate(self, name: str, common_name: str, service: str) -> Cert:
        faulty: dict[str, Any] = {}
        if "snp-ask-not-by-ark" in self._faults:
            faulty["signer"] = self.stranger
        if "snp-ask-no-ca" in self._faults:
            faulty |= {"ca": False, "path_length": None}
        if "snp-ask-no-cert-sign" in self._faults:
            faulty |= {"cert_sign": False, "crl_sign": True}
        key, above = self.key(name), issuer_identifier(self.ark.key.public_key())
        more = [key_identifier(key.public_key()), above, self._list(service), _MARK]
        if "snp-critical-extension" in self._faults:
            more.append(CRITICAL_UNKNOWN)
        made = self._certificate(
            common_name,
            key,
            serial=self._serials()[name],
            issuer=self.ark,
            path_length=0,
            crl_sign=False,
            extensions=tuple(more),
        )
        return made.but(**faulty)

    def _list(self, service: str) -> tuple[str, bool, bytes]:
        return list_location(f"/{service}/v1/{self.line.value}/crl")

    def _certificate(self, common_name: str, key: rsa.RSAPrivateKey, **more: Any) -> Cert:
        founded = self._founded()
        return Cert(
            name=amd_name(common_name), key=key, not_before=founded, not_after=founded + _YEARS, **more
        )

    def _load(self, name: str) -> rsa.RSAPrivateKey:
        pem = self._store.once(name, lambda: _new_key(self._key_bits))
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise EmulatorError(f"vendor's file {name} holds no RSA key")
        return key

    # What the authority remembers: since when it exists, current serial numbers, withdrawn ones

    @property
    def _record_name(self) -> str:
        return f"amd-{self.line.value.lower()}.cbor"

    def _read_record(self) -> dict[str, Value]:
        record = decode(self._store.once(self._record_name, self._new_record), max_bytes=_MAX_RECORD_BYTES)
        if not isinstance(record, dict):
            raise EmulatorError(f"vendor's file {self._record_name} is damaged")
        return record

    def _new_record(self) -> bytes:
        founded = self._clock() - timedelta(days=366)
        serials: dict[str, Value] = {name: _BASES[self.line] + one for name, one in _SERIALS.items()}
        return encode({"founded": int(founded.timestamp()), "revoked": [], **serials})

    def _write_record(self, serials: dict[str, int], revoked: list[int]) -> None:
        known: dict[str, Value] = {"ask": serials["ask"], "asvk": serials["asvk"], "revoked": [*revoked]}
        self._record = {**self._record, **known}
        self._store.put(self._record_name, encode(self._record))

    def _founded(self) -> datetime:
        return datetime.fromtimestamp(_whole(self._record["founded"]), UTC)

    def _serials(self) -> dict[str, int]:
        return {name: _whole(self._record[name]) for name in _SERIALS}

    def _revoked(self) -> list[int]:
        revoked = self._record["revoked"]
        return [_whole(one) for one in revoked] if isinstance(revoked, list) else []


def _new_key(bits: int) -> bytes:
    made = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _whole(value: Value) -> int:
    if not isinstance(value, int):
        raise EmulatorError(f"the vendor's record holds {value!r}, expected a number")
    return value
