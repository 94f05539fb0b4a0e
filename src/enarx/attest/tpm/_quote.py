"""TPM 2.0 quotes (TPM 2.0 Library, part 2: TPMS_ATTEST 10.12.12, TPMT_SIGNATURE 11.3.4): big endian.

Evidence is a CMW collection of three items: ``quote`` (TPMS_ATTEST), ``signature`` (TPMT_SIGNATURE) and ``pcrs``, the
values of the selected PCRs one behind the other in the order of their indices; optionally ``certificate``, that of the
attestation key in DER.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from enarx.attest import cmw
from enarx.attest._eventlog import Algorithm
from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Reader

MAX_FIELD_BYTES: Final = 1024
PCRS: Final = 24
_MAGIC: Final = 0xFF544347
_QUOTE: Final = 0x8018
_MAX_BANKS: Final = 16
HEAD: Final = _MAGIC.to_bytes(4, "big") + _QUOTE.to_bytes(2, "big")
"""Magic and type, with which a quote begins."""
_MEDIA_TYPE: Final = "application/octet-stream"
_ITEMS: Final = frozenset({"quote", "signature", "pcrs"})


class Scheme(IntEnum):
    """TPM_ALG_ID of the signature schemes that attestation keys use."""

    RSASSA = 0x14
    RSAPSS = 0x16
    ECDSA = 0x18


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """TPMT_SIGNATURE: of RSA one number, of ECDSA r and s, as they are."""

    scheme: Scheme
    algorithm: Algorithm
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """A quote with the values of its PCRs; nothing of it is true yet."""

    raw: bytes
    """What is signed."""
    qualified_signer: bytes
    extra_data: bytes
    """The qualifying data of the caller."""
    clock: int
    """Milliseconds that the TPM was powered."""
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    bank: Algorithm
    selection: tuple[int, ...]
    pcr_digest: bytes
    pcrs: Mapping[int, bytes]
    signature: Signature
    certificate: bytes | None

    @property
    def bank_name(self) -> str:
        """The hash of the bank as policies name it, ``sha256``."""
        return self.bank.name.lower()

    @property
    def registers(self) -> dict[str, bytes]:
        """The PCRs by name, ``pcr0``."""
        return {f"pcr{index}": value for index, value in self.pcrs.items()}

    def fields(self) -> Mapping[str, object]:
        """Every field. The qualifying data are called ``report_data``, the name under which binding judges them."""
        return {
            "qualified_signer": self.qualified_signer,
            "report_data": self.extra_data,
            "clock": self.clock,
            "reset_count": self.reset_count,
            "restart_count": self.restart_count,
            "safe": self.safe,
            "firmware_version": self.firmware_version,
            "bank": self.bank_name,
            "selection": self.selection,
            "pcr_digest": self.pcr_digest,
            **{f"pcrs.{name}": value for name, value in self.registers.items()},
        }


def parse_evidence(data: bytes) -> TpmQuote:
    """Read a collection. Raises ``MalformedEvidence``, ``Malformed``."""
    items = cmw.parse(data)
    if not isinstance(items, cmw.Collection) or not _ITEMS <= set(items.items) <= _ITEMS | {"certificate"}:
        raise MalformedEvidence(
            "tpm evidence: expected a collection of quote, signature, pcrs and certificate"
        )
    values = {label: item.value for label, item in items.items.items() if isinstance(item, cmw.Record)}
    if len(values) != len(items.items):
        raise MalformedEvidence("tpm evidence: an item is itself a collection")
    return parse_quote(
        values["quote"], values["signature"], values["pcrs"], certificate=values.get("certificate")
    )


def pack_evidence(quote: bytes, signature: bytes, pcrs: bytes, *, certificate: bytes | None = None) -> bytes:
    """Write what ``parse_evidence`` reads."""
    parts = {"quote": quote, "signature": signature, "pcrs": pcrs}
    if certificate is not None:
        parts["certificate"] = certificate
    items = {label: cmw.Record(_MEDIA_TYPE, value) for label, value in parts.items()}
    return cmw.to_cbor(cmw.Collection(items))


def parse_quote(raw: bytes, signature: bytes, pcrs: bytes, *, certificate: bytes | None = None) -> TpmQuote:
    """Read the parts of a quote. Raises ``MalformedEvidence``, ``Malformed``."""
    at = Reader(raw, name="tpm quote")
    magic, kind = _number(at, 4, "magic"), _number(at, 2, "type")
    if magic != _MAGIC or kind != _QUOTE:
        raise MalformedEvidence(f"tpm quote: magic and type are {magic:#x} {kind:#x}, expected ff544347 8018")
    signer, extra = _block(at, "qualified signer"), _block(at, "extra data")
    clock, resets, restarts = (
        _number(at, 8, "clock"),
        _number(at, 4, "reset count"),
        _number(at, 4, "restart count"),
    )
    safe, firmware = _number(at, 1, "safe"), _number(at, 8, "firmware version")
    bank, selection = _selection(at)
    digest = _block(at, "pcr digest")
    at.end()
    if safe > 1:
        raise MalformedEvidence(f"tpm quote: safe is {safe}, expected 0 or 1")
    size = bank.digest_bytes
    if len(pcrs) != size * len(selection):
        raise MalformedEvidence(
            f"pcrs: {len(pcrs)} bytes, expected {size} for each of {len(selection)} registers"
        )
    return TpmQuote(
        raw=raw,
        qualified_signer=signer,
        extra_data=extra,
        clock=clock,
        reset_count=resets,
        restart_count=restarts,
        safe=bool(safe),
        firmware_version=firmware,
        bank=bank,
        selection=selection,
        pcr_digest=digest,
        pcrs={index: pcrs[size * at : size * (at + 1)] for at, index in enumerate(selection)},
        signature=parse_signature(signature),
        certificate=certificate,
    )


def parse_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE. Raises ``MalformedEvidence``, ``Malformed``."""
    at = Reader(data, name="tpm signature")
    try:
        scheme, algorithm = Scheme(_number(at, 2, "scheme")), Algorithm(_number(at, 2, "hash"))
    except ValueError:
        raise MalformedEvidence("tpm signature: an algorithm that is not known") from None
    parts = tuple(_block(at, "number") for _ in range(2 if scheme is Scheme.ECDSA else 1))
    at.end()
    return Signature(scheme=scheme, algorithm=algorithm, parts=parts)


def _number(at: Reader, size: int, field: str) -> int:
    return at.number(size, field, order="big")


def _block(at: Reader, field: str) -> bytes:
    found = at.block(2, field, order="big")
    if len(found) > MAX_FIELD_BYTES:
        raise MalformedEvidence(f"{field}: {len(found)} bytes, at most {MAX_FIELD_BYTES} are allowed")
    return found


def _selection(at: Reader) -> tuple[Algorithm, tuple[int, ...]]:
    """The one bank that is quoted; others may be listed with nothing selected."""
    count = _number(at, 4, "pcr selections")
    if count > _MAX_BANKS:
        raise MalformedEvidence(f"tpm quote: {count} pcr selections, at most {_MAX_BANKS} are allowed")
    found: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(count):
        bank, bits = _number(at, 2, "bank"), int.from_bytes(at.block(1, "pcr selection"), "little")
        if bits >> PCRS:
            raise MalformedEvidence(f"tpm quote: a PCR from {PCRS} on is selected")
        if bits:
            found.append((bank, tuple(index for index in range(PCRS) if bits >> index & 1)))
    try:
        ((bank, selection),) = found
        return Algorithm(bank), selection
    except ValueError:
        raise MalformedEvidence("tpm quote: expected PCRs of exactly one bank that is known") from None
