"""The report that Azure's paravisor (HCL) keeps in its virtual TPM: a hardware report and what that vouches for.

Source: openvmm, ``openhcl_attestation_protocol::igvm_attest::get``; Intel TDX Module ABI, TDREPORT_STRUCT.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest._json import read_object
from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Layout

MAGIC: Final = b"HCLA"
MAX_HCL_BYTES: Final = 16 * 1024
"""The index of the virtual TPM has 2600, of which the report takes what it needs; zeros follow."""
HARDWARE_BYTES: Final = 1184
MAX_KEYS: Final = 16
USER_DATA_BYTES: Final = 64
_AK_KID: Final = "HCLAkPub"
_EXPONENT: Final = 65537
_KEY_BITS: Final = range(2048, 4097)
_VERSIONS: Final = (1, 2)
_AK_CERTIFICATE_REQUEST: Final = 2
_RUNTIME_VERSION: Final = 1

_HCL: Final = Layout(
    name="HCL report",
    size=1236,
    fields={
        "signature": range(4),
        "version": range(4, 8),
        "report_size": range(8, 12),
        "request_type": range(12, 16),
        "status": range(16, 20),
        "hardware": range(32, 1216),
        "data_size": range(1216, 1220),
        "data_version": range(1220, 1224),
        "report_type": range(1224, 1228),
        "hash_type": range(1228, 1232),
        "variable_data_size": range(1232, 1236),
    },
    reserved=(range(20, 32),),
)
_DATA_HEAD: Final = 20
_TD_REPORT: Final = Layout(
    name="TDREPORT of the HCL report",
    size=HARDWARE_BYTES,
    fields={
        "report_type": range(4),
        "cpu_svn": range(16, 32),
        "tee_tcb_info_hash": range(32, 80),
        "tee_info_hash": range(80, 128),
        "report_data": range(128, 192),
        "mac": range(224, 256),
        "valid": range(256, 264),
        "tcb": range(264, 384),
        "tee_tcb_svn2": range(384, 400),
        "td_info": range(512, 912),
        "mr_service_td": range(912, 960),
    },
    reserved=(range(4, 16), range(192, 224), range(400, 512), range(960, HARDWARE_BYTES)),
)
_TD_TYPE: Final = 0x81


class ReportType(IntEnum):
    """Which hardware vouches for the report."""

    SNP = 2
    TDX = 4


class HashType(IntEnum):
    """What the runtime data are hashed with."""

    SHA256 = 1
    SHA384 = 2
    SHA512 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeData:
    """What the paravisor has the hardware vouch for: the keys of its virtual TPM, and the virtual machine."""

    raw: bytes
    """What is hashed."""
    keys: tuple[str, ...]
    ak: bytes
    """The attestation key of the virtual TPM: SubjectPublicKeyInfo in DER."""
    vm_configuration: Mapping[str, Any]
    user_data: bytes
    """64 bytes that the guest chose; empty where the paravisor is too old to have them."""

    @property
    def secure_boot(self) -> object:
        """Whether firmware lets only signed boot loaders run."""
        return self.vm_configuration.get("secure-boot")

    @property
    def console_enabled(self) -> object:
        """Whether the operator has a console of the virtual machine."""
        return self.vm_configuration.get("console-enabled")

    @property
    def tpm_persisted(self) -> object:
        """Whether the state of the virtual TPM outlives the virtual machine."""
        return self.vm_configuration.get("tpm-persisted")

    @property
    def vm_unique_id(self) -> object:
        """Names the virtual machine."""
        return self.vm_configuration.get("vmUniqueId")

    def fields(self) -> dict[str, object]:
        """Every field by name."""
        configuration = {f"vm-configuration.{name}": value for name, value in self.vm_configuration.items()}
        return {"keys": self.keys, "ak": self.ak, **configuration, "user-data": self.user_data}


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """A report as it is; nothing of it is true yet."""

    version: int
    report_type: ReportType
    hash_type: HashType
    hardware: bytes
    """The SNP report, or the TDREPORT and zeros."""
    runtime: RuntimeData

    @property
    def expected_report_data(self) -> bytes:
        """What the hardware report must say, if it vouches for the runtime data: their hash, and zeros."""
        return hashlib.new(self.hash_type.name, self.runtime.raw).digest().ljust(64, b"\x00")

    def fields(self) -> Mapping[str, object]:
        """Every field of the envelope and of the runtime data by its dotted name."""
        return {
            "hcl.version": self.version,
            "hcl.report_type": self.report_type.name,
            "hcl.hash_type": self.hash_type.name,
            **{f"runtime.{name}": value for name, value in self.runtime.fields().items()},
        }


def parse_hcl_report(data: bytes) -> HclReport:
    """Read a report, and zeros behind it. Raises ``Malformed``."""
    if len(data) > MAX_HCL_BYTES:
        raise MalformedEvidence(f"HCL report: {len(data)} bytes, at most {MAX_HCL_BYTES} are allowed")
    cut = _HCL.split(data[: _HCL.size])
    number = {name: int.from_bytes(value, "little") for name, value in cut.items() if len(value) == 4}
    size = number["variable_data_size"]
    for name, found, expected in (
        ("signature", cut["signature"], (MAGIC,)),
        ("version", number["version"], _VERSIONS),
        ("request type", number["request_type"], (_AK_CERTIFICATE_REQUEST,)),
        ("status", number["status"], (0,)),
        ("version of the runtime data", number["data_version"], (_RUNTIME_VERSION,)),
        ("report type", number["report_type"], tuple(ReportType)),
        ("hash type", number["hash_type"], tuple(HashType)),
        ("size of the runtime data", number["data_size"], (_DATA_HEAD + size,)),
        ("size", number["report_size"], (_HCL.size + size,)),
    ):
        if found not in expected:
            raise MalformedEvidence(
                f"HCL report: {name} is {found!r}, expected {' or '.join(map(repr, expected))}"
            )
    raw, padding = data[_HCL.size : _HCL.size + size], data[_HCL.size + size :]
    if len(raw) != size or any(padding):
        raise MalformedEvidence(f"HCL report: expected {size} bytes of runtime data and zeros behind them")
    return HclReport(
        version=number["version"],
        report_type=ReportType(number["report_type"]),
        hash_type=HashType(number["hash_type"]),
        hardware=cut["hardware"],
        runtime=_runtime(raw),
    )


def td_report_body(hardware: bytes, *, with_1_5: bool) -> bytes:
    """Give the body that a quote of this TDREPORT has, of TD 1.0 or 1.5. Raises ``Malformed``."""
    cut = _TD_REPORT.split(hardware)
    if cut["report_type"][0] != _TD_TYPE:
        raise MalformedEvidence(
            f"TDREPORT of the HCL report: type is {cut['report_type'].hex()}, expected 81"
        )
    late = cut["tee_tcb_svn2"] + cut["mr_service_td"] if with_1_5 else b""
    return cut["tcb"] + cut["td_info"] + cut["report_data"] + late


def _runtime(raw: bytes) -> RuntimeData:
    found = read_object(raw, "runtime data")
    keys, configuration, user = found.get("keys"), found.get("vm-configuration"), found.get("user-data", "")
    if (
        not isinstance(keys, list)
        or not 0 < len(keys) <= MAX_KEYS
        or not all(isinstance(one, dict) for one in keys)
    ):
        raise MalformedEvidence(f"runtime data: expected 1 to {MAX_KEYS} keys")
    names = tuple(one.get("kid") for one in keys)
    if not all(isinstance(name, str) for name in names) or names.count(_AK_KID) != 1:
        raise MalformedEvidence(f"runtime data: expected one key called {_AK_KID}")
    if not isinstance(configuration, dict):
        raise MalformedEvidence("runtime data: expected a vm-configuration")
    try:
        user_data = bytes.fromhex(user)
    except (ValueError, TypeError):
        raise MalformedEvidence("runtime data: user-data are not hex") from None
    if len(user_data) not in (0, USER_DATA_BYTES):
        raise MalformedEvidence(
            f"runtime data: user-data have {len(user_data)} bytes, expected {USER_DATA_BYTES}"
        )
    return RuntimeData(
        raw=raw,
        keys=names,
        ak=_spki(keys[names.index(_AK_KID)]),
        vm_configuration=MappingProxyType(configuration),
        user_data=user_data,
    )


def _spki(jwk: dict[str, Any]) -> bytes:
    """An RSA key as JWK (RFC 7518, section 6.3) in the form in which all else has keys."""
    if jwk.get("kty") != "RSA":
        raise MalformedEvidence(f"runtime data: {_AK_KID} is not of type RSA")
    modulus, exponent = _base64url_number(jwk.get("n")), _base64url_number(jwk.get("e"))
    if modulus.bit_length() not in _KEY_BITS or exponent != _EXPONENT:
        raise MalformedEvidence(
            f"runtime data: {_AK_KID} is not of 2048 to 4096 bits with exponent {_EXPONENT}"
        )
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise MalformedEvidence(f"runtime data: {_AK_KID} is no RSA key") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _base64url_number(value: object) -> int:
    try:
        text = value.encode("ascii") if isinstance(value, str) else b"*"
        return int.from_bytes(
            base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True), "big"
        )
    except ValueError:
        raise MalformedEvidence(f"runtime data: a number of {_AK_KID} is not base64url") from None
