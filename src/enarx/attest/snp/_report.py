"""ATTESTATION_REPORT of SEV-SNP: one table a version (AMD 56860, SEV-SNP Firmware ABI, table
"ATTESTATION_REPORT").

Numbers are little endian. Bytes 0x000..0x29F are signed; what follows is the signature and zeros that it does
not cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Layout, Reader

REPORT_BYTES: Final = 0x4A0
SIGNED_BYTES: Final = 0x2A0

_HEAD: Final = {
    "version": range(0x004),
    "guest_svn": range(0x004, 0x008),
    "policy": range(0x008, 0x010),
    "family_id": range(0x010, 0x020),
    "image_id": range(0x020, 0x030),
    "vmpl": range(0x030, 0x034),
    "signature_algo": range(0x034, 0x038),
    "current_tcb": range(0x038, 0x040),
    "platform_info": range(0x040, 0x048),
    "key_info": range(0x048, 0x04C),
    "report_data": range(0x050, 0x090),
    "measurement": range(0x090, 0x0C0),
    "host_data": range(0x0C0, 0x0E0),
    "id_key_digest": range(0x0E0, 0x110),
    "author_key_digest": range(0x110, 0x140),
    "report_id": range(0x140, 0x160),
    "report_id_ma": range(0x160, 0x180),
    "reported_tcb": range(0x180, 0x188),
    "chip_id": range(0x1A0, 0x1E0),
    "committed_tcb": range(0x1E0, 0x1E8),
    "current_version": range(0x1E8, 0x1EB),
    "committed_version": range(0x1EC, 0x1EF),
    "launch_tcb": range(0x1F0, 0x1F8),
    "signature_r": range(0x2A0, 0x2E8),
    "signature_s": range(0x2E8, 0x330),
}
_CPUID: Final = {"cpuid": range(0x188, 0x18B)}
_MITIGATIONS: Final = {"launch_mit_vector": range(0x1F8, 0x200), "current_mit_vector": range(0x200, 0x208)}
_GAPS: Final = (range(0x04C, 0x050), range(0x18B, 0x1A0), range(0x1EB, 0x1EC), range(0x1EF, 0x1F0))
_TAIL: Final = (range(0x208, 0x2A0), range(0x330, 0x4A0))

_V2: Final = Layout(
    "SNP report v2", REPORT_BYTES, _HEAD, (*_GAPS, range(0x188, 0x18B), range(0x1F8, 0x208), *_TAIL)
)
_V3: Final = Layout("SNP report v3", REPORT_BYTES, _HEAD | _CPUID, (*_GAPS, range(0x1F8, 0x208), *_TAIL))
_V4: Final = Layout("SNP report v4", REPORT_BYTES, _HEAD | _CPUID, (*_GAPS, range(0x1F8, 0x208), *_TAIL))
_V5: Final = Layout("SNP report v5", REPORT_BYTES, _HEAD | _CPUID | _MITIGATIONS, (*_GAPS, *_TAIL))
LAYOUTS: Final[Mapping[int, Layout]] = {2: _V2, 3: _V3, 4: _V4, 5: _V5}

ECDSA_P384_SHA384: Final = 1


class SigningKey(Enum):
    """Which key signs the report (KEY_INFO bits 4:2)."""

    VCEK = "vcek"
    """Of the chip and its firmware versions."""
    VLEK = "vlek"
    """Of a cloud provider and the firmware versions."""
    NONE = "none"
    """The platform was told not to sign."""


_SIGNING_KEYS: Final = {0: SigningKey.VCEK, 1: SigningKey.VLEK, 7: SigningKey.NONE}


class Line(Enum):
    """A product line: it has a root key and a layout of TCB_VERSION."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"
    VENICE = "Venice"


_MODELS: Final = (
    (0x19, range(0x10), Line.MILAN),
    (0x19, range(0x10, 0x20), Line.GENOA),
    (0x19, range(0xA0, 0xB0), Line.GENOA),
    (0x1A, range(0x12), Line.TURIN),
    (0x1A, range(0x50, 0x58), Line.VENICE),
    (0x1A, range(0x90, 0xB0), Line.VENICE),
    (0x1A, range(0xC0, 0xC8), Line.VENICE),
)
"""CPUID family and models to line. Bergamo and Siena are of the Genoa line."""

_TCB_MILAN: Final = Layout(
    "TCB_VERSION",
    8,
    {"bootloader": range(1), "tee": range(1, 2), "snp": range(6, 7), "microcode": range(7, 8)},
    (range(2, 6),),
)
_TCB_TURIN: Final = Layout(
    "TCB_VERSION of Turin",
    8,
    {
        "fmc": range(1),
        "bootloader": range(1, 2),
        "tee": range(2, 3),
        "snp": range(3, 4),
        "microcode": range(7, 8),
    },
    (range(4, 7),),
)
TCB_LAYOUTS: Final[Mapping[Line, Layout]] = {
    Line.MILAN: _TCB_MILAN,
    Line.GENOA: _TCB_MILAN,
    Line.TURIN: _TCB_TURIN,
    Line.VENICE: _TCB_TURIN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """Security versions by component. There is no order between two of them, only component by component."""

    fmc: int | None = None
    """Turin and later."""
    bootloader: int
    tee: int
    snp: int
    microcode: int

    @classmethod
    def parse(cls, raw: bytes, line: Line) -> Tcb:
        """Read TCB_VERSION in the layout of ``line``. Raises ``Malformed``."""
        return cls(**{name: value[0] for name, value in TCB_LAYOUTS[line].split(raw).items()})

    def components(self) -> dict[str, int]:
        """The components that this line has, by name."""
        named = {"bootloader": self.bootloader, "tee": self.tee, "snp": self.snp, "microcode": self.microcode}
        return named if self.fmc is None else {"fmc": self.fmc, **named}

    def within(self, other: Tcb) -> bool:
        """Say whether every component is at most the other's."""
        mine, limits = self.components(), other.components()
        return mine.keys() == limits.keys() and all(mine[name] <= limits[name] for name in mine)

    def __str__(self) -> str:
        return " ".join(f"{name} {value}" for name, value in self.components().items())


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """POLICY: what the owner of the guest allowed at launch."""

    value: int

    RESERVED_ONE = 1 << 17
    KNOWN = (1 << 26) - 1

    @property
    def abi(self) -> tuple[int, int]:
        """Least firmware ABI, major and minor."""
        return self.value >> 8 & 0xFF, self.value & 0xFF

    smt = property(lambda self: bool(self.value >> 16 & 1), doc="Simultaneous multithreading is allowed.")
    migrate_ma = property(lambda self: bool(self.value >> 18 & 1), doc="A migration agent is allowed.")
    debug = property(lambda self: bool(self.value >> 19 & 1), doc="Debugging by the host is allowed.")
    single_socket = property(lambda self: bool(self.value >> 20 & 1), doc="Only one socket may be used.")
    cxl = property(lambda self: bool(self.value >> 21 & 1), doc="CXL is allowed.")
    mem_aes_256_xts = property(lambda self: bool(self.value >> 22 & 1), doc="AES-256-XTS is required.")
    rapl_disable = property(lambda self: bool(self.value >> 23 & 1), doc="RAPL must be off.")
    ciphertext_hiding = property(
        lambda self: bool(self.value >> 24 & 1), doc="Ciphertext hiding is required."
    )
    page_swap_disable = property(lambda self: bool(self.value >> 25 & 1), doc="Page swapping is refused.")


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """PLATFORM_INFO: what the platform is configured to."""

    value: int

    KNOWN = 0b1011_1111

    smt = property(lambda self: bool(self.value & 1), doc="Simultaneous multithreading is on.")
    tsme = property(lambda self: bool(self.value >> 1 & 1), doc="Transparent memory encryption is on.")
    ecc = property(lambda self: bool(self.value >> 2 & 1), doc="Memory has error correction.")
    rapl_disabled = property(
        lambda self: bool(self.value >> 3 & 1), doc="Running average power limit is off."
    )
    ciphertext_hiding = property(
        lambda self: bool(self.value >> 4 & 1), doc="The host cannot read ciphertext."
    )
    alias_check_complete = property(
        lambda self: bool(self.value >> 5 & 1), doc="No aliased memory was found."
    )
    tio = property(lambda self: bool(self.value >> 7 & 1), doc="Trusted I/O is enabled.")

    @property
    def unknown(self) -> int:
        """Bits without a meaning that we know; real Turin machines set bit 6."""
        return self.value & ~self.KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """A report as the firmware wrote it; nothing of it is true until the signature is checked."""

    raw: bytes
    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform_info: PlatformInfo
    author_key_en: bool
    mask_chip_key: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    cpuid: tuple[int, int, int] | None
    """Family, model, stepping; version 3 and later."""
    chip_id: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    current_version: tuple[int, int, int]
    """Major, minor, build."""
    committed_version: tuple[int, int, int]
    launch_mit_vector: int | None
    """Version 5 and later."""
    current_mit_vector: int | None
    r: int
    s: int

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers, as they were received."""
        return self.raw[:SIGNED_BYTES]

    @property
    def line(self) -> Line | None:
        """The product line that CPUID names; nothing for version 2 and for models that we do not know."""
        if self.cpuid is None:
            return None
        family, model, _ = self.cpuid
        return next((line for known, models, line in _MODELS if family == known and model in models), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """A report, and the certificates that the host attached to it (an extended report); the latter are hints."""

    report: SnpReport
    certificates: tuple[bytes, ...] = ()

    def fields(self) -> dict[str, object]:
        """Every field of the report by its dotted name."""
        return report_fields(self.report)


def parse_evidence(data: bytes) -> SnpEvidence:
    """Read a report, alone or followed by the certificate table of an extended report. Raises ``Malformed``."""
    report = parse_report(data[:REPORT_BYTES])
    table = data[REPORT_BYTES:]
    return SnpEvidence(report=report, certificates=tuple(parse_certificate_table(table)) if table else ())


def parse_report(raw: bytes) -> SnpReport:
    """Read one report of exactly 1184 bytes. Raises ``Malformed``."""
    if len(raw) != REPORT_BYTES:
        raise MalformedEvidence(f"SNP report: expected {REPORT_BYTES} bytes, got {len(raw)}")
    version = int.from_bytes(raw[:4], "little")
    layout = LAYOUTS.get(version)
    if layout is None:
        raise MalformedEvidence(f"SNP report: version is {version}, expected 2 to 5")
    cut = layout.split(raw)

    def number(name: str) -> int:
        return int.from_bytes(cut[name], "little")

    algorithm, keys = number("signature_algo"), number("key_info")
    if algorithm != ECDSA_P384_SHA384:
        raise MalformedEvidence(
            f"SNP report: signature_algo is {algorithm}, expected 1 (ECDSA P-384 with SHA-384)"
        )
    signing_key = _SIGNING_KEYS.get(keys >> 2 & 7)
    if keys >> 5 or signing_key is None:
        raise MalformedEvidence(
            f"SNP report: key_info is {keys:#x}, which has bits or a signing key we do not know"
        )
    if any(cut["signature_r"][48:]) or any(cut["signature_s"][48:]):
        raise MalformedEvidence("SNP report: signature is longer than the two 48-byte numbers of P-384")
    cpuid = cut.get("cpuid")
    return SnpReport(
        raw=raw,
        version=version,
        guest_svn=number("guest_svn"),
        policy=GuestPolicy(number("policy")),
        family_id=cut["family_id"],
        image_id=cut["image_id"],
        vmpl=number("vmpl"),
        platform_info=PlatformInfo(number("platform_info")),
        author_key_en=bool(keys & 1),
        mask_chip_key=bool(keys >> 1 & 1),
        signing_key=signing_key,
        report_data=cut["report_data"],
        measurement=cut["measurement"],
        host_data=cut["host_data"],
        id_key_digest=cut["id_key_digest"],
        author_key_digest=cut["author_key_digest"],
        report_id=cut["report_id"],
        report_id_ma=cut["report_id_ma"],
        cpuid=(cpuid[0], cpuid[1], cpuid[2]) if cpuid is not None else None,
        chip_id=cut["chip_id"],
        current_tcb=cut["current_tcb"],
        reported_tcb=cut["reported_tcb"],
        committed_tcb=cut["committed_tcb"],
        launch_tcb=cut["launch_tcb"],
        current_version=_version(cut["current_version"]),
        committed_version=_version(cut["committed_version"]),
        launch_mit_vector=number("launch_mit_vector") if "launch_mit_vector" in cut else None,
        current_mit_vector=number("current_mit_vector") if "current_mit_vector" in cut else None,
        r=number("signature_r"),
        s=number("signature_s"),
    )


def _version(raw: bytes) -> tuple[int, int, int]:
    return raw[2], raw[1], raw[0]


_TABLE: Final = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
}
_ENTRY_BYTES: Final = 24
_MAX_ENTRIES: Final = 32


def parse_certificate_table(table: bytes) -> list[bytes]:
    """Read the table of an extended report (GHCB specification, SNP_EXT_REPORT): the DER of the entries we
    know.

    Raises ``Malformed`` unless entries lie behind the table, inside the data, and end with an entry of zeros.
    """
    reader = Reader(table, name="SNP certificate table")
    entries: list[tuple[UUID, int, int]] = []
    while any(raw := reader.take(16, "GUID")) or reader.number(4, "offset") or reader.number(4, "length"):
        if len(entries) == _MAX_ENTRIES:
            raise MalformedEvidence(f"SNP certificate table has more than {_MAX_ENTRIES} entries")
        entries.append((UUID(bytes_le=raw), reader.number(4, "offset"), reader.number(4, "length")))
    first = reader.offset
    found: list[bytes] = []
    for guid, offset, length in entries:
        if offset < first or offset + length > len(table):
            raise MalformedEvidence(
                f"SNP certificate table: entry {guid} lies at {offset:#x}, outside the data"
            )
        if guid in _TABLE:
            found.append(table[offset : offset + length])
    return found


def report_fields(report: SnpReport) -> dict[str, object]:
    """Every field of the report by its dotted name; TCB versions in the layout of the line that CPUID names."""
    policy, platform = report.policy, report.platform_info
    fields: dict[str, object] = {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy.abi": report.policy.abi,
        **{f"policy.{name}": getattr(policy, name) for name in _POLICY_BITS},
        "family_id": report.family_id,
        "image_id": report.image_id,
        "vmpl": report.vmpl,
        **{f"platform_info.{name}": getattr(platform, name) for name in _PLATFORM_BITS},
        "platform_info.unknown": platform.unknown,
        "key_info.author_key_en": report.author_key_en,
        "key_info.mask_chip_key": report.mask_chip_key,
        "key_info.signing_key": report.signing_key,
        "report_data": report.report_data,
        "measurement": report.measurement,
        "host_data": report.host_data,
        "id_key_digest": report.id_key_digest,
        "author_key_digest": report.author_key_digest,
        "report_id": report.report_id,
        "report_id_ma": report.report_id_ma,
        "chip_id": report.chip_id,
        "current_version": report.current_version,
        "committed_version": report.committed_version,
    }
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        for part, value in TCB_LAYOUTS[report.line or Line.MILAN].fields.items():
            fields[f"{name}.{part}"] = getattr(report, name)[value.start]
    if report.cpuid is not None:
        fields["cpuid"] = report.cpuid
    if report.launch_mit_vector is not None:
        fields["launch_mit_vector"] = report.launch_mit_vector
        fields["current_mit_vector"] = report.current_mit_vector
    return fields


_POLICY_BITS: Final = (
    "smt",
    "migrate_ma",
    "debug",
    "single_socket",
    "cxl",
    "mem_aes_256_xts",
    "rapl_disable",
    "ciphertext_hiding",
    "page_swap_disable",
)
_PLATFORM_BITS: Final = (
    "smt",
    "tsme",
    "ecc",
    "rapl_disabled",
    "ciphertext_hiding",
    "alias_check_complete",
    "tio",
)
