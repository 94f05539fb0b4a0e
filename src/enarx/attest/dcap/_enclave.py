"""The report of an SGX enclave: the body of an SGX quote, and what the quoting enclave says of itself in every quote.

Source: Intel SDM volume 3D, REPORT structure without its key and MAC (``sgx_report_body_t``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from enarx.tcb.wire import Layout

ENCLAVE_REPORT: Final = Layout(
    name="enclave report",
    size=384,
    fields={
        "cpu_svn": range(16),
        "misc_select": range(16, 20),
        "cet_attributes": range(20, 21),
        "isv_ext_prod_id": range(32, 48),
        "attributes": range(48, 64),
        "mrenclave": range(64, 96),
        "mrsigner": range(128, 160),
        "config_id": range(192, 256),
        "isv_prod_id": range(256, 258),
        "isv_svn": range(258, 260),
        "config_svn": range(260, 262),
        "isv_family_id": range(304, 320),
        "report_data": range(320, 384),
    },
    reserved=(range(21, 32), range(96, 128), range(160, 192), range(262, 304)),
)

_FLAGS: Final = {
    "init": 0,
    "debug": 1,
    "mode64": 2,
    "provision_key": 4,
    "launch_key": 5,
    "cet": 6,
    "kss": 7,
    "aex_notify": 10,
}
KNOWN_FLAGS: Final = sum(1 << bit for bit in _FLAGS.values())
"""Intel SDM volume 3D, ATTRIBUTES."""


@dataclass(frozen=True, slots=True)
class EnclaveAttributes:
    """The sixteen bytes of ATTRIBUTES: flags and the extended features that the enclave may use."""

    flags: int
    xfrm: int

    @property
    def init(self) -> bool:
        """EINIT has succeeded: nothing else ever signs."""
        return bool(self.flags & 1)

    @property
    def debug(self) -> bool:
        """The operator can read the enclave's memory."""
        return bool(self.flags >> 1 & 1)

    @property
    def mode64(self) -> bool:
        """It runs 64-bit code."""
        return bool(self.flags >> 2 & 1)

    @property
    def provision_key(self) -> bool:
        """It can derive the key that names the platform."""
        return bool(self.flags >> 4 & 1)

    @property
    def launch_key(self) -> bool:
        """It can decide which other enclaves start."""
        return bool(self.flags >> 5 & 1)

    @property
    def kss(self) -> bool:
        """Key separation and sharing: CONFIGID, CONFIGSVN, ISVFAMILYID and ISVEXTPRODID have a meaning."""
        return bool(self.flags >> 7 & 1)

    @property
    def unknown(self) -> int:
        """Flags without a meaning that we know."""
        return self.flags & ~KNOWN_FLAGS

    def __str__(self) -> str:
        names = [name for name, bit in _FLAGS.items() if self.flags >> bit & 1]
        return f"{' '.join(names) or 'none'}, xfrm {self.xfrm:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """What the processor says of an enclave. Nothing here is true before a signature over ``raw`` was verified."""

    raw: bytes
    cpu_svn: bytes
    misc_select: bytes
    cet_attributes: bytes
    isv_ext_prod_id: bytes
    attributes: EnclaveAttributes
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @property
    def attributes_bytes(self) -> bytes:
        """ATTRIBUTES as they stand in the report."""
        return self.raw[48:64]

    def fields(self) -> Mapping[str, object]:
        """Every field by name."""
        flags = {f"attributes.{name}": bool(self.attributes.flags >> bit & 1) for name, bit in _FLAGS.items()}
        return {
            **{
                name: getattr(self, name)
                for name in ENCLAVE_REPORT.fields
                if name not in ("attributes", "raw")
            },
            **flags,
            "attributes.unknown": self.attributes.unknown,
            "attributes.xfrm": self.attributes.xfrm,
        }


def parse_enclave_report(data: bytes) -> EnclaveReport:
    """Read 384 bytes. Raises ``Malformed``."""
    part: dict[str, Any] = {**ENCLAVE_REPORT.split(data)}
    attributes = part["attributes"]
    part["attributes"] = EnclaveAttributes(
        int.from_bytes(attributes[:8], "little"), int.from_bytes(attributes[8:], "little")
    )
    for name in ("isv_prod_id", "isv_svn", "config_svn"):
        part[name] = int.from_bytes(part[name], "little")
    return EnclaveReport(raw=data, **part)
