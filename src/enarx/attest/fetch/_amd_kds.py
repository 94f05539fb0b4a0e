"""AMD's Key Distribution Service (AMD 57230, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface").

It knows every chip by its id and gives the certificate for any firmware version that the chip has had. Certificates
of VLEKs it gives to cloud providers alone, which hand them to their guests.
"""

from __future__ import annotations

from typing import Final

from enarx.attest.errors import MalformedCollateral
from enarx.attest.fetch._item import REVALIDATED, Item, Plan, certificates, revocation_list
from enarx.attest.snp import Line, SigningKey, SnpEvidence, SnpReport, Tcb
from enarx.attest.snp._certs import Endorsement, read_endorsement
from enarx.attest.snp._verify import fits
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import Malformed, Unavailable

AMD_KDS: Final = "https://kdsintf.amd.com"

_SPL: Final = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}
_SHORT_ID_BYTES: Final = 8
"""From Turin on; the rest of CHIP_ID is zero."""
_UNNAMED: Final = (Line.MILAN, Line.GENOA)
"""Reports of version 2 do not say what they are of; these two lines wrote them."""


def plan(evidence: SnpEvidence, base: str) -> Plan:
    """What a report needs: its certificate, the chain above it, the revocation list. Raises ``Unavailable``.

    What the host attached to the report and fits it is not asked for again.
    """
    report = evidence.report
    attached = [one for one in map(_endorsement, evidence.certificates) if one and _suits(report, one)]
    if report.signing_key is SigningKey.NONE:
        raise Unavailable("the platform did not sign this report, so no certificate endorses it")
    if attached:
        return Plan(choices=(_above(attached[0].line, report.signing_key, base),))
    lines = (report.line,) if report.line else _UNNAMED
    if report.cpuid is not None and report.line is None:
        raise Unavailable(
            f"the processor model {bytes(report.cpuid).hex()} is of no product line that is known"
        )
    if report.signing_key is SigningKey.VLEK:
        if len(lines) > 1:
            raise Unavailable(
                "the report does not say of which product line it is, and has no VLEK certificate attached",
                hint="the cloud provider hands the certificate to its guests, with the extended report",
            )
        note = "the certificate of the VLEK is not published: the cloud provider hands it to its guests"
        return Plan(choices=(_above(lines[0], report.signing_key, base),), notes=(note,))
    if not any(report.chip_id):
        raise Unavailable(
            "chip_id is zero: the host hides which machine this is, so its certificate cannot be asked for",
            hint="let the host attach the VCEK to the report (extended report)",
        )
    return Plan(
        choices=tuple((_vcek(report, line, base), *_above(line, report.signing_key, base)) for line in lines)
    )


def _suits(report: SnpReport, one: Endorsement) -> bool:
    try:
        return one.kind is report.signing_key and (not any(report.chip_id) or fits(report, one))
    except Malformed:
        return False  # its product line has another layout of TCB_VERSION


def _endorsement(der: bytes) -> Endorsement | None:
    try:
        return read_endorsement(parse_certificate(der))
    except MalformedCollateral:
        return None


def _vcek(report: SnpReport, line: Line, base: str) -> Item:
    tcb = Tcb.parse(report.reported_tcb, line)
    levels = tcb.components()
    hwid = report.chip_id if tcb.fmc is None else report.chip_id[:_SHORT_ID_BYTES]
    query = "&".join(f"{_SPL[name]}={level:02}" for name, level in levels.items())
    name = f"vcek-{line.value.lower()}-{hwid[:16].hex()}-{'-'.join(map(str, levels.values()))}"
    url = f"{base.rstrip('/')}/vcek/v1/{line.value}/{hwid.hex()}?{query}"
    return Item(url=url, read=certificates(name), revalidated=None)


def _above(line: Line, key: SigningKey, base: str) -> tuple[Item, ...]:
    kind, name = key.value, f"{key.value}-{line.value.lower()}"
    folder = f"{base.rstrip('/')}/{kind}/v1/{line.value}"
    return (
        Item(url=f"{folder}/cert_chain", read=certificates(f"{name}-chain"), revalidated=None),
        Item(url=f"{folder}/crl", read=revocation_list(name), revalidated=REVALIDATED),
    )
