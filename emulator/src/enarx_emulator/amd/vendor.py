"""AMD as the maker of processors and the one who endorses them, and what its key service (KDS) answers. EMULATED.

Source: AMD 57230 (VCEK and KDS interface).
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enarx.attest.sev._certs import Algorithm, Usage
from enarx.attest.sev._encode import NO_SIGNATURE, pack_body
from enarx.attest.snp._report import Line, SigningKey, Tcb
from enarx.tcb.wire import decode, encode
from enarx_emulator.amd.authority import Authority
from enarx_emulator.amd.certificates import by_ask
from enarx_emulator.amd.chip import CHIP_ID_BYTES, Fuses, Product, pack_tcb, product
from enarx_emulator.amd.endorsement import AMD_ARC, amd_name, comment, endorsement_extensions
from enarx_emulator.answer import Answer
from enarx_emulator.errors import EmulatorError
from enarx_emulator.machine import Store
from enarx_emulator.pki import Cert
from enarx_emulator.seed import Seed, random_seed

CSP_ID: Final = "CN=EMULATED"
"""The cloud provider of every VLEK, unless another is named."""
VLEK_BYTES: Final = 384
WRAPPED_VLEK_BYTES: Final = 432
_MARK: Final = comment("EMULATED: no product of AMD, endorses nothing that protects anything")
_LIFETIME: Final = {SigningKey.VCEK: timedelta(days=7 * 365), SigningKey.VLEK: timedelta(days=365)}
_OTHER_LINE: Final = {"Milan-B0": "Genoa", "Genoa": "Milan-B0", "Turin": "Venice"}
_MAX_RECORD_BYTES: Final = 4096
_MAX_ISSUED: Final = 1024
"""Certificates that are remembered: clients may ask for any version there could be."""


def utc_now() -> datetime:
    """The clock of a real vendor."""
    return datetime.now(UTC)


class AmdVendor:
    """AMD's secrets lie in ``store``: authorities' keys, and the fuses of every chip that it made."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        key_bits: int = 4096,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        self.faults = faults
        self._store, self._clock, self._key_bits = store, clock, key_bits
        self._authorities: dict[Line, Authority] = {}
        self._issued: dict[tuple[object, ...], bytes] = {}

    def authority(self, line: Line) -> Authority:
        """The authorities of one product line."""
        if line not in self._authorities:
            self._authorities[line] = Authority(
                line, self._store, clock=self._clock, key_bits=self._key_bits, faults=self.faults
            )
        return self._authorities[line]

    def manufacture(self, made: Product, seed: Seed) -> Fuses:
        """Make a chip whose secrets come from ``seed``; making it again changes nothing."""
        fuses = Fuses(made, seed.child(made.line.value))
        record = encode({"product": made.line.value.lower(), "seed": fuses.seed.root})
        if self._store.get(_file_of(fuses.hwid)) != record:
            self._store.put(_file_of(fuses.hwid), record)
        return fuses

    def fuses(self, hwid: bytes) -> Fuses | None:
        """The secrets of a chip, if it was made here."""
        stored = self._store.get(_file_of(hwid))
        if stored is None:
            return None
        record = decode(stored, max_bytes=_MAX_RECORD_BYTES)
        if not isinstance(record, dict):
            raise EmulatorError(f"vendor's file {_file_of(hwid)} is damaged")
        name, seed = record.get("product"), record.get("seed")
        if not isinstance(name, str) or not isinstance(seed, bytes):
            raise EmulatorError(f"vendor's file {_file_of(hwid)} is damaged")
        return Fuses(product(name), Seed(seed))

    def root_pem(self, line: Line) -> bytes:
        """The root's certificate, which names the emulator to a verifier."""
        return _pem(self._kept(line, "ark", self.authority(line).genuine_root))

    def chain(self, line: Line, kind: SigningKey = SigningKey.VCEK) -> tuple[bytes, bytes]:
        """The intermediate and the root above VCEKs or VLEKs, in DER."""
        authority = self.authority(line)
        name, between = ("asvk", authority.asvk) if kind is SigningKey.VLEK else ("ask", authority.ask)
        chain = ((f"{name}-{between.serial}", between), ("ark", authority.ark))
        if not self.faults:
            intermediate, root = (self._kept(line, file, certificate) for file, certificate in chain)
            return intermediate, root
        for file, certificate in chain:
            if (line, file) not in self._issued:
                self._issued[line, file] = certificate.der
        return self._issued[line, chain[0][0]], self._issued[line, "ark"]

    def crl(self, line: Line) -> bytes:
        """The revocation list of a product line, in DER."""
        return self.authority(line).crl()

    def vcek(self, fuses: Fuses, tcb: Tcb) -> bytes:
        """The certificate of a chip with firmware at ``tcb``, in DER."""
        said, hwid, name = tcb, fuses.hwid, fuses.product.name
        if "snp-vcek-of-older-tcb" in self.faults:
            said = replace(tcb, snp=max(tcb.snp - 1, 0))
        if "snp-vcek-of-other-chip" in self.faults:
            hwid = hwid[:-1] + bytes((hwid[-1] ^ 1,))
        if "snp-wrong-line" in self.faults:
            name = _OTHER_LINE[name]
        return self._endorse(
            SigningKey.VCEK, fuses.product, fuses.vcek(tcb), name=name, tcb=said.components(), hwid=hwid
        )

    def vlek(self, made: Product, tcb: Tcb, *, csp_id: str = CSP_ID) -> bytes:
        """The certificate of a provider's key for firmware at ``tcb``, in DER."""
        key = vlek_key(self._vlek_secret(made, tcb, csp_id))
        return self._endorse(SigningKey.VLEK, made, key, name=made.name, tcb=tcb.components(), csp_id=csp_id)

    def wrapped_vlek(self, fuses: Fuses, tcb: Tcb, *, iv: bytes, csp_id: str = CSP_ID) -> bytes:
        """A VLEK that only this chip can load (432 bytes); ``iv``: 12 fresh bytes."""
        secret = self._vlek_secret(fuses.product, tcb, csp_id)
        said = pack_tcb(tcb, fuses.product.line) + bytes(8)
        sealed = AESGCM(fuses.vlek_wrapping_key()).encrypt(iv, secret, said)
        return iv + bytes(4) + sealed[:VLEK_BYTES] + said + sealed[VLEK_BYTES:]

    def cek(self, fuses: Fuses) -> bytes:
        """The certificate of a chip in the format of SEV before SNP (2084 bytes)."""
        major, minor, _ = fuses.product.firmware.version
        body = pack_body(Usage.CEK, Algorithm.ECDSA_SHA256, fuses.cek().public_key(), api=(major, minor))
        authority = self.authority(fuses.product.line)
        signer = authority.stranger if "sev-cek-not-by-ask" in self.faults else authority.key("ask")
        return body + by_ask(body, signer) + NO_SIGNATURE

    def ask_ark(self, line: Line) -> bytes:
        """ASK and ARK in that format, one behind the other."""
        return self.authority(line).ask_sev() + self.authority(line).ark_sev()

    def _kept(self, line: Line, file: str, certificate: Cert) -> bytes:
        """The certificate that was made first, since each signature is another."""
        return self._store.once(f"amd-{line.value.lower()}-{file}.der", lambda: certificate.der)

    def _vlek_secret(self, made: Product, tcb: Tcb, csp_id: str) -> bytes:
        stored = self._store.once("amd-vlek.seed", lambda: random_seed().root)
        versions = pack_tcb(tcb, made.line).hex()
        return Seed(stored).derive(f"vlek {made.line.value} {versions} {csp_id}", VLEK_BYTES)

    def _endorse(
        self, kind: SigningKey, made: Product, key: ec.EllipticCurvePrivateKey, *, name: str, **said: Any
    ) -> bytes:
        authority = self.authority(made.line)
        issuer = authority.asvk if kind is SigningKey.VLEK else authority.ask
        known = (kind, name, repr(said), issuer.serial)
        if known in self._issued:
            return self._issued[known]
        structure = int(made.line in (Line.TURIN, Line.VENICE))
        extensions = endorsement_extensions(product=name, structure=structure, **said)
        begin = self._clock() - timedelta(days=1)
        faulty: dict[str, Any] = {}
        if "snp-expired-vcek" in self.faults:
            begin -= _LIFETIME[kind] + timedelta(days=2)
        if "snp-future-vcek" in self.faults:
            begin += timedelta(days=2)
        if "snp-vcek-not-by-ask" in self.faults:
            faulty["signer"] = authority.stranger
        if "snp-pkcs1-vcek" in self.faults:
            faulty["pkcs1"] = True
        certificate = Cert(
            name=amd_name(f"SEV-{kind.name}"),
            key=key,
            issuer=issuer,
            ca=None,
            serial=1,
            not_before=begin,
            not_after=begin + _LIFETIME[kind],
            extensions=(*((AMD_ARC + arc, False, value) for arc, value in extensions.items()), _MARK),
        ).but(**faulty)
        if len(self._issued) >= _MAX_ISSUED:
            self._issued.clear()
        self._issued[known] = certificate.der
        return self._issued[known]


def vlek_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The key that the last part of a loaded VLEK gives."""
    return Seed(secret[-48:]).ec_key("vlek", ec.SECP384R1())


_LINES: Final = {line.value: line for line in (Line.MILAN, Line.GENOA, Line.TURIN)}
_QUERY: Final = {
    "blSPL": "bootloader",
    "teeSPL": "tee",
    "snpSPL": "snp",
    "ucodeSPL": "microcode",
    "fmcSPL": "fmc",
}
_SERVICE: Final = re.compile(r"/(vcek|vlek)/v1/([A-Za-z]+)/([0-9a-zA-Z_]+)")
_CEK: Final = re.compile(r"/cek/id/([0-9a-fA-F]{128})")
_ROOTS: Final = re.compile(r"/wp-content/resources/ask_ark_([a-z]+)\.cert")


def kds_answer(vendor: AmdVendor, path: str, query: Mapping[str, str]) -> Answer:
    """Answer a request to AMD's services as they do, whatever the client sends; ``path`` without the query."""
    if cek := _CEK.fullmatch(path):
        return _cek_answer(vendor, bytes.fromhex(cek[1]))
    if roots := _ROOTS.fullmatch(path):
        line = _LINES.get(roots[1].capitalize())
        return _refusal(404, "no such file") if line is None else _binary(vendor.ask_ark(line))
    request = _SERVICE.fullmatch(path)
    line = _LINES.get(request[2]) if request else None
    if request is None or line is None:
        return _refusal(404, "no such path or product")
    kind = SigningKey(request[1])
    match request[3]:
        case "cert_chain":
            chain = b"".join(_pem(der) for der in vendor.chain(line, kind))
            return Answer(status=200, headers={"Content-Type": "application/x-pem-file"}, body=chain)
        case "crl":
            return (
                _refusal(404, "no list") if "snp-missing-crl" in vendor.faults else _binary(vendor.crl(line))
            )
        case hwid if kind is SigningKey.VCEK:
            return _vcek_answer(vendor, line, hwid, query)
    return _refusal(404, "a VLEK is given to its provider alone")


def _vcek_answer(vendor: AmdVendor, line: Line, hwid: str, query: Mapping[str, str]) -> Answer:
    size = 8 if line is Line.TURIN else 64
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", hwid):
        return _refusal(400, f"the hardware id of {line.value} has {2 * size} hexadecimal digits")
    names = set(_QUERY) - (set() if line is Line.TURIN else {"fmcSPL"})
    if set(query) - names or not all(re.fullmatch("[0-9]{1,3}", value) for value in query.values()):
        return _refusal(400, f"parameters are {', '.join(sorted(names))}, each a number")
    tcb = {_QUERY[name]: int(query.get(name, "0")) for name in names}
    if max(tcb.values()) > 255:
        return _refusal(400, "a security version is at most 255")
    fuses = vendor.fuses(bytes.fromhex(hwid))
    if fuses is None or fuses.product.line is not line or "snp-missing-vcek" in vendor.faults:
        return _refusal(404, "no chip has this hardware id")
    return _binary(vendor.vcek(fuses, Tcb(**tcb)))


def _cek_answer(vendor: AmdVendor, chip_id: bytes) -> Answer:
    found = vendor.fuses(chip_id) or vendor.fuses(chip_id[:8])
    if found is None or found.hwid.ljust(CHIP_ID_BYTES, b"\0") != chip_id:
        return _refusal(404, "no chip has this id")
    return _binary(vendor.cek(found))


def _binary(body: bytes) -> Answer:
    return Answer(status=200, headers={"Content-Type": "application/octet-stream"}, body=body)


def _refusal(status: int, why: str) -> Answer:
    return Answer(status=status, headers={"Content-Type": "text/plain"}, body=why.encode())


def _file_of(hwid: bytes) -> str:
    return f"amd-chip-{hashlib.sha256(hwid).hexdigest()}"


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()
