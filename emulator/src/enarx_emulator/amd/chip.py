"""One processor: who it is, which firmware it runs, and the keys that follow from both.

A chip's secrets are fused in by its maker, who keeps a copy to certify keys with: ``Fuses`` is what both know. For each
firmware component there is a chain of hashes; version n has the link 255 - n steps from its beginning, so that firmware
can go on to the keys of older versions and never back to those of newer ones. Source: AMD 57230 (VCEK).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.snp._report import TCB_LAYOUTS, Line, Tcb
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.errors import EmulatorError
from enarx_emulator.seed import Seed

CHIP_ID_BYTES: Final = 64
_LINKS: Final = 255
_MARK: Final = b"EMULATED"
"""With this begins the id of every chip that has room for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What is installed: the version that people read, and the security versions of its components."""

    version: tuple[int, int, int]
    """Major, minor, build."""
    tcb: Tcb


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A line of processors, as its firmware and its certificates name it."""

    line: Line
    name: str
    """In certificates: ``Milan-B0``."""
    cpuid: tuple[int, int, int]
    """Family, model, stepping."""
    hwid_bytes: int
    report_version: int
    """The newest that its firmware writes."""
    firmware: Firmware
    """What a new machine comes with."""
    mitigations: int = 0


PRODUCTS: Final[Mapping[str, Product]] = {
    "milan": Product(
        line=Line.MILAN,
        name="Milan-B0",
        cpuid=(0x19, 0x01, 0x01),
        hwid_bytes=64,
        report_version=3,
        firmware=Firmware(version=(1, 55, 29), tcb=Tcb(bootloader=4, tee=0, snp=24, microcode=219)),
    ),
    "genoa": Product(
        line=Line.GENOA,
        name="Genoa",
        cpuid=(0x19, 0x11, 0x01),
        hwid_bytes=64,
        report_version=5,
        firmware=Firmware(version=(1, 55, 54), tcb=Tcb(bootloader=10, tee=0, snp=23, microcode=84)),
        mitigations=0x3,
    ),
    "turin": Product(
        line=Line.TURIN,
        name="Turin",
        cpuid=(0x1A, 0x02, 0x01),
        hwid_bytes=8,
        report_version=5,
        firmware=Firmware(version=(1, 55, 65), tcb=Tcb(fmc=1, bootloader=1, tee=1, snp=4, microcode=76)),
        mitigations=0x7,
    ),
}


def product(name: str | None) -> Product:
    """Find a product by its lower-case name; ``None``: Milan."""
    found = PRODUCTS.get("milan" if name is None else name.lower())
    if found is None:
        raise EmulatorError(f"product is {name!r}, expected one of {', '.join(PRODUCTS)}")
    return found


def pack_tcb(tcb: Tcb, line: Line) -> bytes:
    """Give TCB_VERSION (8 bytes) in the layout of ``line``."""
    raw = bytearray(8)
    values = tcb.components()
    for name, at in TCB_LAYOUTS[line].fields.items():
        raw[at.start] = values[name]
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class Fuses:
    """The secrets of one chip."""

    product: Product
    seed: Seed = field(repr=False)

    @property
    def hwid(self) -> bytes:
        """By which the vendor knows the chip: 64 bytes, 8 from Turin on."""
        size = self.product.hwid_bytes
        if size <= len(_MARK):
            return self.seed.derive("hwid", size)
        return _MARK + self.seed.derive("hwid", size - len(_MARK))

    @property
    def chip_id(self) -> bytes:
        """As reports and GET_ID give it (64 bytes)."""
        return self.hwid.ljust(CHIP_ID_BYTES, b"\0")

    def vcek(self, tcb: Tcb) -> ec.EllipticCurvePrivateKey:
        """The key that endorses reports of firmware at ``tcb``."""
        return Seed(self.versioned_secret(tcb)).ec_key("vcek", ec.SECP384R1())

    def versioned_secret(self, tcb: Tcb) -> bytes:
        """What firmware at ``tcb`` derives its keys from (48 bytes)."""
        links = b"".join(self._link(name, value) for name, value in tcb.components().items())
        return hmac.digest(self.seed.derive("vcek root", 48), links, hashlib.sha384)

    def cek(self) -> ec.EllipticCurvePrivateKey:
        """The endorsement key of SEV before SNP, which no version changes."""
        return self.seed.ec_key("cek", ec.SECP384R1())

    def vlek_wrapping_key(self) -> bytes:
        """With which the vendor wraps VLEKs for this chip alone (32 bytes)."""
        return self.seed.derive("vlek wrapping", 32)

    def _link(self, component: str, version: int) -> bytes:
        link = self.seed.derive(f"stick {component}", 48)
        for _ in range(_LINKS - version):
            link = hashlib.sha384(link).digest()
        return link


class Chip:
    """A processor in a machine, with the state that survives power cycles."""

    def __init__(self, fuses: Fuses) -> None:
        self.fuses = fuses
        self.committed = self.current = fuses.product.firmware
        self.reported = self.current.tcb
        self._vceks: dict[Tcb, ec.EllipticCurvePrivateKey] = {}

    @property
    def product(self) -> Product:
        """What it is."""
        return self.fuses.product

    def vcek(self) -> ec.EllipticCurvePrivateKey:
        """The key for the reported TCB."""
        if self.reported not in self._vceks:
            self._vceks[self.reported] = self.fuses.vcek(self.reported)
        return self._vceks[self.reported]

    def pack(self, tcb: Tcb) -> bytes:
        """TCB_VERSION of this line."""
        return pack_tcb(tcb, self.product.line)

    def parse(self, raw: bytes) -> Tcb:
        """Read TCB_VERSION of this line. Raises ``FirmwareError`` (INVALID_PARAM)."""
        try:
            return Tcb.parse(raw, self.product.line)
        except Malformed as wrong:
            require(False, SevStatus.INVALID_PARAM, str(wrong))
            raise

    def update(self, firmware: Firmware) -> None:
        """Run other firmware until it is committed (DOWNLOAD_FIRMWARE_EX).

        Raises ``FirmwareError``: BAD_SVN below the committed security versions, BAD_VERSION below the committed
        version.
        """
        require(
            self.committed.tcb.within(firmware.tcb),
            SevStatus.BAD_SVN,
            f"firmware has {firmware.tcb}, committed is {self.committed.tcb}",
        )
        require(
            firmware.version >= self.committed.version,
            SevStatus.BAD_VERSION,
            f"firmware is {firmware.version}, committed is {self.committed.version}",
        )
        self.current = firmware

    def commit(self) -> None:
        """Never go back behind the running firmware (SNP_COMMIT); it is reported from now on."""
        self.committed = self.current
        self.reported = self.current.tcb

    def report_as(self, tcb: Tcb) -> None:
        """Report an older TCB (SNP_CONFIG). Raises ``FirmwareError`` (INVALID_PARAM) above the committed one."""
        require(
            tcb.within(self.committed.tcb),
            SevStatus.INVALID_PARAM,
            f"reported tcb is {tcb}, committed is {self.committed.tcb}",
        )
        self.reported = tcb

    def save(self) -> dict[str, Value]:
        """Give what ``restore`` needs beside the fuses."""
        return {
            "product": self.product.line.value.lower(),
            "committed": _pack(self.committed),
            "current": _pack(self.current),
            "reported": _components(self.reported),
        }

    @classmethod
    def restore(cls, fuses: Fuses, saved: Mapping[str, Value]) -> Self:
        """Put it together again. Raises ``EmulatorError`` when ``saved`` is not what ``save`` gave."""
        chip, name = cls(fuses), fuses.product.line.value.lower()
        if saved.get("product") != name:
            raise EmulatorError(f"saved state is of a {saved.get('product')!r} machine, not of a {name} one")
        try:
            chip.committed, chip.current = _unpack(saved["committed"]), _unpack(saved["current"])
            chip.reported = _tcb(saved["reported"])
        except (KeyError, TypeError, ValueError):
            raise EmulatorError("saved state of the chip is not what this release wrote") from None
        return chip


def raised(firmware: Firmware, *, by: int = 1) -> Firmware:
    """Give firmware that is newer: its SNP security version and its build are ``by`` higher."""
    major, minor, build = firmware.version
    return Firmware(version=(major, minor, build + by), tcb=replace(firmware.tcb, snp=firmware.tcb.snp + by))


def _pack(firmware: Firmware) -> dict[str, Value]:
    return {"version": list(firmware.version), "tcb": _components(firmware.tcb)}


def _unpack(saved: Value) -> Firmware:
    if not isinstance(saved, Mapping):
        raise TypeError(saved)
    version = saved["version"]
    if not isinstance(version, list) or len(version) != 3:
        raise TypeError(version)
    major, minor, build = (_byte(part) for part in version)
    return Firmware(version=(major, minor, build), tcb=_tcb(saved["tcb"]))


def _components(tcb: Tcb) -> dict[str, Value]:
    return dict(tcb.components().items())


def _tcb(saved: Value) -> Tcb:
    if not isinstance(saved, Mapping):
        raise TypeError(saved)
    return Tcb(**{str(name): _byte(value) for name, value in saved.items()})


def _byte(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError(value)
    return value
