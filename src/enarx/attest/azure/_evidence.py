"""What a confidential virtual machine of Azure shows: its paravisor's report, a quote of its virtual TPM, and more.

Evidence is a CMW collection of ``hcl-report``, ``tpm-quote`` (TPMS_ATTEST), ``tpm-signature`` (TPMT_SIGNATURE) and
``tpm-pcrs`` (the values one behind the other); of ``td-quote`` on TDX; optionally of ``vcek`` on SNP and of
``tpm-certificate``, that of the attestation key, both in DER. Or it is the JSON that the tools of guests write, which
has several spellings: bytes in hex, base64 or a list of numbers, an RSASSA signature without its head. The carrier
proves nothing, so what it names beyond that is not looked at.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from enarx.attest import cmw
from enarx.attest._json import read_object
from enarx.attest.anchors import pem_blocks
from enarx.attest.azure._hcl import MAGIC, HclReport, ReportType, parse_hcl_report
from enarx.attest.der import Der
from enarx.attest.errors import MalformedEvidence
from enarx.attest.snp import SnpEvidence, parse_report
from enarx.attest.tdx import TdxQuote, parse_tdx_quote
from enarx.attest.tpm import TpmQuote, parse_quote

MAX_CERTIFICATE_BYTES: Final = 8192
_NEEDED: Final = frozenset({"hcl-report", "tpm-quote", "tpm-signature", "tpm-pcrs"})
_OPTIONAL: Final = frozenset({"td-quote", "vcek", "tpm-certificate"})
_MEDIA_TYPE: Final = "application/octet-stream"
_RSASSA_SHA256: Final = b"\x00\x14\x00\x0b"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureEvidence:
    """All of it, read; nothing here was verified."""

    hcl: HclReport
    hardware: SnpEvidence | TdxQuote
    """What vouches for the report: that of the chip in it, or the quote of it."""
    quote: TpmQuote
    certificate: bytes | None
    """Of the attestation key, in DER."""

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """All that came along."""
        chip = self.hardware.certificates if isinstance(self.hardware, SnpEvidence) else ()
        return (*chip, *((self.certificate,) if self.certificate is not None else ()))

    def fields(self) -> Mapping[str, object]:
        """Every field: of the hardware by their own names, of the virtual TPM below ``vtpm``.

        ``report_data`` are the qualifying data of the quote, which binding judges.
        """
        hardware, quote = dict(self.hardware.fields()), dict(self.quote.fields())
        return {
            **hardware,
            "hardware_report_data": hardware["report_data"],
            "report_data": quote.pop("report_data"),
            **self.hcl.fields(),
            **{f"vtpm.{name}": value for name, value in quote.items()},
        }


def looks_like_evidence(data: bytes) -> bool:
    """Say cheaply whether ``data`` may be evidence of Azure; never raises."""
    if data[:4] == MAGIC:
        return True
    if not cmw.looks_like(data) and data.lstrip()[:1] != b"{":
        return False
    by_tools = b'"hcl_report"' in data or (b'"quote"' in data and b'"report"' in data)
    return by_tools or b"hcl-report" in data


def parse_evidence(data: bytes) -> AzureEvidence:
    """Read evidence in any of its forms. Raises ``Malformed``."""
    if data[:4] == MAGIC:
        raise MalformedEvidence(
            "an HCL report alone is of the paravisor: it says nothing about the guest",
            hint="quote the virtual TPM with your challenge, and give both as a collection",
        )
    if b"hcl-report" in data:
        return _from_items(_collection(data))
    return _from_items(_from_tools(read_object(data, "azure evidence")))


def pack_evidence(
    hcl_report: bytes,
    quote: bytes,
    signature: bytes,
    pcrs: bytes,
    *,
    td_quote: bytes | None = None,
    vcek: bytes | None = None,
    certificate: bytes | None = None,
) -> bytes:
    """Write the collection that ``parse_evidence`` reads."""
    parts = {
        "hcl-report": hcl_report,
        "tpm-quote": quote,
        "tpm-signature": signature,
        "tpm-pcrs": pcrs,
        "td-quote": td_quote,
        "vcek": vcek,
        "tpm-certificate": certificate,
    }
    given = {label: cmw.Record(_MEDIA_TYPE, value) for label, value in parts.items() if value is not None}
    return cmw.to_cbor(cmw.Collection(given))


def _collection(data: bytes) -> dict[str, bytes]:
    items = cmw.parse(data)
    if not isinstance(items, cmw.Collection) or not _NEEDED <= set(items.items) <= _NEEDED | _OPTIONAL:
        raise MalformedEvidence(
            f"azure evidence: expected a collection of {', '.join(sorted(_NEEDED))}, and maybe "
            f"{', '.join(sorted(_OPTIONAL))}"
        )
    values = {label: item.value for label, item in items.items.items() if isinstance(item, cmw.Record)}
    if len(values) != len(items.items):
        raise MalformedEvidence("azure evidence: an item is itself a collection")
    return values


def _from_items(items: dict[str, bytes]) -> AzureEvidence:
    hcl = parse_hcl_report(items["hcl-report"])
    if (hcl.report_type is ReportType.TDX) != ("td-quote" in items):
        raise MalformedEvidence("azure evidence: a TD quote must be there where TDX vouches, and only there")
    hardware: SnpEvidence | TdxQuote
    if hcl.report_type is ReportType.TDX:
        hardware = parse_tdx_quote(items["td-quote"])
    else:
        chip = (items["vcek"],) if "vcek" in items else ()
        hardware = SnpEvidence(report=parse_report(hcl.hardware), certificates=chip)
    certificate = items.get("tpm-certificate")
    return AzureEvidence(
        hcl=hcl,
        hardware=hardware,
        quote=parse_quote(items["tpm-quote"], items["tpm-signature"], items["tpm-pcrs"]),
        certificate=_unpadded(certificate) if certificate is not None else None,
    )


def _unpadded(certificate: bytes) -> bytes:
    """A certificate without what fills its index in the TPM: zeros, or ones where nothing was ever written."""
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise MalformedEvidence(f"tpm-certificate: at most {MAX_CERTIFICATE_BYTES} bytes are allowed")
    der = Der(certificate, name="tpm-certificate").any()[2]
    if len(set(certificate[len(der) :]) | {0}) > 1 and len(set(certificate[len(der) :]) | {0xFF}) > 1:
        raise MalformedEvidence("tpm-certificate: something is behind it")
    return der


def _from_tools(found: dict[str, Any]) -> dict[str, bytes]:
    """Put the tools' several spellings into ours."""
    if isinstance(found.get("evidence"), dict):  # beside the name of the platform
        found = found["evidence"]
    report, quote = _one(found, "hcl_report", "report"), _one(found, "tpm_quote", "quote")
    if not isinstance(quote, dict) or not isinstance(quote.get("pcrs"), list):
        raise MalformedEvidence("azure evidence: expected a quote of message, signature and pcrs")
    signature = _octets(quote.get("signature"), "signature")
    items = {
        "hcl-report": _octets(report, "report"),
        "tpm-quote": _octets(quote.get("message"), "message"),
        "tpm-signature": _RSASSA_SHA256 + (len(signature) & 0xFFFF).to_bytes(2, "big") + signature,
        "tpm-pcrs": b"".join(_octets(value, "pcrs") for value in quote["pcrs"]),
    }
    if found.get("td_quote") is not None:
        items["td-quote"] = _octets(found["td_quote"], "td_quote")
    if found.get("vcek") is not None:
        items["vcek"] = _certificate(found["vcek"])
    return items


def _one(found: dict[str, Any], *names: str) -> object:
    here = [name for name in names if name in found]
    if len(here) != 1:
        raise MalformedEvidence(f"azure evidence: expected one of {' and '.join(names)}")
    value: object = found[here[0]]
    return value


def _certificate(value: object) -> bytes:
    if not isinstance(value, str) or "-----BEGIN" not in value:
        return _octets(value, "vcek")
    blocks = [der for label, der in pem_blocks(value.encode()) if label == "CERTIFICATE"]
    if len(blocks) != 1:
        raise MalformedEvidence(f"vcek: {len(blocks)} certificates, expected one")
    return blocks[0]


def _octets(value: object, name: str) -> bytes:
    """Bytes as a list of numbers, in hex, or in base64 of either alphabet."""
    try:
        if isinstance(value, list):
            return bytes(value)
        if not isinstance(value, str):
            raise TypeError
        if len(value) % 2 == 0 and all(letter in "0123456789abcdefABCDEF" for letter in value):
            return bytes.fromhex(value)
        plain = value.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, TypeError):
        raise MalformedEvidence(f"{name}: expected numbers of bytes, hex or base64") from None
