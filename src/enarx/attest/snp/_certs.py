"""What VCEK and VLEK certificates say about the chip and its firmware (AMD 57230, Versioned Chip Endorsement
Key).

The extensions are under 1.3.6.1.4.1.3704.1. The hardware id is not wrapped in DER on real certificates, and
it may begin with bytes that look like a tag, so its form is told by its length alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest.der import Der, Tag
from enarx.attest.errors import MalformedCollateral
from enarx.attest.snp._report import Line, SigningKey, Tcb
from enarx.attest.x509 import Certificate, name_attributes

_AMD: Final = "1.3.6.1.4.1.3704.1."
_VERSION, _PRODUCT, _HWID, _CSP_ID = (_AMD + arc for arc in ("1", "2", "4", "5"))
_SPL: Final = {
    "bootloader": _AMD + "3.1",
    "tee": _AMD + "3.2",
    "snp": _AMD + "3.3",
    "microcode": _AMD + "3.8",
    "fmc": _AMD + "3.9",
}
_SPARE: Final = tuple(_AMD + f"3.{arc}" for arc in (4, 5, 6, 7))
_HWID_BYTES: Final = {0: 64, 1: 8}
"""Structure version (0 Milan and Genoa, 1 Turin) to size of the hardware id."""

_COMMON_NAMES: Final = {"SEV-VCEK": SigningKey.VCEK, "SEV-VLEK": SigningKey.VLEK}
_INTERMEDIATES: Final = {SigningKey.VCEK: "SEV-", SigningKey.VLEK: "SEV-VLEK-"}

_NAME: Final = {
    "2.5.4.11": "Engineering",
    "2.5.4.6": "US",
    "2.5.4.7": "Santa Clara",
    "2.5.4.8": "CA",
    "2.5.4.10": "Advanced Micro Devices",
}
"""What every AMD name holds beside the common name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """A VCEK or VLEK certificate with its extensions read; nothing here was verified."""

    certificate: Certificate
    kind: SigningKey
    product: str
    """As written: ``Milan-B0``, ``Genoa``."""
    line: Line
    tcb: Tcb
    hwid: bytes | None
    """VCEK: 64 bytes, 8 from Turin on."""
    csp_id: str | None
    """VLEK: the cloud provider, ``CN=cc-us-east-2.amazonaws.com``."""

    def __hash__(self) -> int:
        return hash(self.certificate)


def read_endorsement(certificate: Certificate) -> Endorsement | None:
    """Read a VCEK or VLEK; nothing for certificates of other kinds. Raises ``MalformedCollateral``."""
    kind = _COMMON_NAMES.get(certificate.common_name)
    if kind is None:
        return None
    product = _text(certificate, _PRODUCT, "product name")
    line = _line(product)
    structure = _number(certificate, _VERSION, "structure version")
    later = line in (Line.TURIN, Line.VENICE)
    if structure != int(later):
        raise MalformedCollateral(f"{kind.value}: structure version {structure} does not belong to {product}")
    known = {*_SPL.values(), *_SPARE, _VERSION, _PRODUCT, _HWID, _CSP_ID}
    for oid in certificate.extensions:
        if oid.startswith(_AMD + "3.") and oid not in known:
            raise MalformedCollateral(f"{kind.value}: {oid} is a firmware component that we do not know")
    for oid in _SPARE:
        if oid in certificate.extensions and _number(certificate, oid, "spare component"):
            raise MalformedCollateral(f"{kind.value}: spare component {oid} is in use")
    if not later and _SPL["fmc"] in certificate.extensions:
        raise MalformedCollateral(f"{kind.value}: {product} has no FMC")
    tcb = {name: _number(certificate, oid, name) for name, oid in _SPL.items() if later or name != "fmc"}
    has_hwid, has_csp = _HWID in certificate.extensions, _CSP_ID in certificate.extensions
    if (has_hwid, has_csp) != ((True, False) if kind is SigningKey.VCEK else (False, True)):
        raise MalformedCollateral(f"{kind.value}: expected a hardware id on a VCEK, a provider id on a VLEK")
    return Endorsement(
        certificate=certificate,
        kind=kind,
        product=product,
        line=line,
        tcb=Tcb(**tcb),
        hwid=_hwid(certificate, _HWID_BYTES[structure]) if has_hwid else None,
        csp_id=_text(certificate, _CSP_ID, "provider id") if has_csp else None,
    )


def chain_names(endorsement: Endorsement) -> tuple[str, str, str]:
    """The common names that leaf, intermediate and root must have."""
    kind, line = endorsement.kind, endorsement.line.value
    return f"SEV-{kind.name}", f"{_INTERMEDIATES[kind]}{line}", f"ARK-{line}"


def is_amd_name(name: bytes, common_name: str) -> bool:
    """Say whether ``name`` is exactly AMD's with this common name."""
    attributes = name_attributes(name)
    return len(attributes) == len(_NAME) + 1 and dict(attributes) == {**_NAME, "2.5.4.3": common_name}


def _line(product: str) -> Line:
    try:
        return Line(product.partition("-")[0])
    except ValueError:
        known = ", ".join(line.value for line in Line)
        raise MalformedCollateral(f"product name is {product!r}, expected one of {known}") from None


def _value(certificate: Certificate, oid: str, field: str) -> bytes:
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise MalformedCollateral(f"{certificate.common_name}: {field} ({oid}) is absent")
    return extension.value


def _number(certificate: Certificate, oid: str, field: str) -> int:
    extension = _value(certificate, oid, field)
    if len(extension) == 3 and extension[:2] == b"\x02\x01" and extension[2] < 0x80:  # as most are
        return extension[2]
    at = Der(extension, name=certificate.common_name)
    value = at.small(field, most=255)
    at.end()
    return value


def _text(certificate: Certificate, oid: str, field: str) -> str:
    at = Der(_value(certificate, oid, field), name=certificate.common_name)
    if at.peek() != Tag.IA5_STRING:
        raise at.bad(f"{field} is no IA5String")
    value = at.text(field)
    at.end()
    return value


def _hwid(certificate: Certificate, size: int) -> bytes:
    value = _value(certificate, _HWID, "hardware id")
    if len(value) == size:
        return value
    at = Der(value, name=certificate.common_name)
    wrapped = at.take(Tag.OCTET_STRING, "hardware id")
    at.end()
    if len(wrapped) != size:
        raise MalformedCollateral(f"hardware id has {len(wrapped)} bytes, expected {size}")
    return wrapped
