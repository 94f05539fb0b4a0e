"""TDX evidence: a DCAP quote whose body is the report of a trust domain (TD), version 1.0 or 1.5.

Source: Intel, "TDX DCAP Quoting Library API", appendix A.3; bits of ATTRIBUTES and XFAM: "TDX Module Base
Specification", TD_PARAMS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from enarx.attest.dcap import BodyType, Quote, TeeType, parse_quote
from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Layout

_TD_1_0: Final = {
    "tee_tcb_svn": range(16),
    "mrseam": range(16, 64),
    "mrsigner_seam": range(64, 112),
    "seam_attributes": range(112, 120),
    "td_attributes": range(120, 128),
    "xfam": range(128, 136),
    "mrtd": range(136, 184),
    "mr_config_id": range(184, 232),
    "mr_owner": range(232, 280),
    "mr_owner_config": range(280, 328),
    "rtmr0": range(328, 376),
    "rtmr1": range(376, 424),
    "rtmr2": range(424, 472),
    "rtmr3": range(472, 520),
    "report_data": range(520, 584),
}
TD_REPORT_1_0: Final = Layout(name="TD report 1.0", size=584, fields=_TD_1_0)
TD_REPORT_1_5: Final = Layout(
    name="TD report 1.5",
    size=648,
    fields={**_TD_1_0, "tee_tcb_svn2": range(584, 600), "mr_service_td": range(600, 648)},
)

_TUD_BITS: Final = 0xFF
"""TD under debug: DEBUG is bit 0, and profiling bits follow; each lets the host look inside."""

_BITS: Final = {
    "debug": 0,
    "hgs_plus_prof": 4,
    "perf_prof": 5,
    "pmt_prof": 6,
    "lass": 27,
    "sept_ve_disable": 28,
    "migratable": 29,
    "pks": 30,
    "kl": 31,
    "tpa": 62,
    "perfmon": 63,
}
_KNOWN_BITS: Final = sum(1 << bit for bit in _BITS.values())

XFAM_FIXED: Final = 0x3
"""x87 and SSE, which every TD has."""

XFAM_KNOWN: Final = 0x000EDBE7
"""Those, AVX, AVX-512, PT, PK, CET, UINTR, LBR, AMX, APX."""


@dataclass(frozen=True, slots=True)
class TdAttributes:
    """The eight bytes of ATTRIBUTES, as a number."""

    value: int

    @property
    def debug(self) -> bool:
        """Any bit by which the host can look inside, reserved ones of that group included."""
        return bool(self.value & _TUD_BITS)

    @property
    def lass(self) -> bool:
        """Linear address space separation is available."""
        return bool(self.value >> 27 & 1)

    @property
    def sept_ve_disable(self) -> bool:
        """A page that the host takes away stops the TD, where it would otherwise get a virtualisation exception."""
        return bool(self.value >> 28 & 1)

    @property
    def migratable(self) -> bool:
        """A migration TD may move it to another machine."""
        return bool(self.value >> 29 & 1)

    @property
    def pks(self) -> bool:
        """Supervisor protection keys are available."""
        return bool(self.value >> 30 & 1)

    @property
    def kl(self) -> bool:
        """Key locker is available."""
        return bool(self.value >> 31 & 1)

    @property
    def tpa(self) -> bool:
        """It is a TDX provisioning agent."""
        return bool(self.value >> 62 & 1)

    @property
    def perfmon(self) -> bool:
        """Performance counters are available."""
        return bool(self.value >> 63 & 1)

    @property
    def reserved(self) -> int:
        """Bits without a meaning, outside the debug group."""
        return self.value & ~_KNOWN_BITS & ~_TUD_BITS

    def __str__(self) -> str:
        names = [name for name, bit in _BITS.items() if self.value >> bit & 1]
        return f"{self.value:#018x} ({' '.join(names) or 'none'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What the TDX module says of a TD. Nothing here is true before the quote's signature was verified."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsigner_seam: bytes
    seam_attributes: bytes
    td_attributes: TdAttributes
    xfam: int
    mrtd: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    """Version 1.5: the SVNs of the module that is loaded now, after updates that preserve TDs."""
    mr_service_td: bytes | None = None
    """Version 1.5: which service TDs are bound to this one."""

    @property
    def service_td(self) -> bytes:
        """MR_SERVICETD, or zeros where the report has none: no service TD is bound."""
        return self.mr_service_td if self.mr_service_td is not None else bytes(48)

    def fields(self) -> Mapping[str, object]:
        """Every field by name."""
        present = [name for name in TD_REPORT_1_5.fields if getattr(self, name) is not None]
        bits = {
            f"td_attributes.{name}": bool(self.td_attributes.value >> bit & 1) for name, bit in _BITS.items()
        }
        return {
            **{name: getattr(self, name) for name in present if name != "td_attributes"},
            **bits,
            "td_attributes.reserved": self.td_attributes.reserved,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxQuote:
    """A quote and its body. Nothing here was verified."""

    quote: Quote
    report: TdReport

    def fields(self) -> Mapping[str, object]:
        """Every field by its dotted name; those of the TD's report without a prefix."""
        return {**self.report.fields(), **self.quote.fields()}


def parse_td_report(data: bytes, body_type: BodyType) -> TdReport:
    """Read 584 or 648 bytes. Raises ``Malformed``."""
    part = (TD_REPORT_1_5 if body_type is BodyType.TD_1_5 else TD_REPORT_1_0).split(data)
    return TdReport(
        td_attributes=TdAttributes(int.from_bytes(part.pop("td_attributes"), "little")),
        xfam=int.from_bytes(part.pop("xfam"), "little"),
        **part,
    )


def parse_tdx_quote(data: bytes) -> TdxQuote:
    """Read a quote of version 4 or 5. Raises ``Malformed``."""
    quote = parse_quote(data)
    if quote.tee_type is not TeeType.TDX:
        raise MalformedEvidence("the quote is of an enclave, not of a TD")
    return TdxQuote(quote=quote, report=parse_td_report(quote.body, quote.body_type))
