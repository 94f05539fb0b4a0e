"""Attestation documents of AWS Nitro Enclaves ("Verifying the root of trust", AWS; nsm-api, attestation process)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from enarx.attest._cose import Sign1, decode, parse_sign1
from enarx.attest.errors import MalformedEvidence

PCR_BYTES: Final = 48
MAX_PCRS: Final = 32
MAX_CERTIFICATE_BYTES: Final = 1024
MAX_BUNDLE: Final = 16
"""Certificates in the bundle; genuine documents have four."""
SIGNATURE_BYTES: Final = 96
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""
_REQUIRED: Final = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL: Final = {"public_key": 1024, "user_data": 1024, "nonce": 1024}
"""Most bytes of each. Genuine documents write an absent one as null, whatever the text says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroDocument:
    """A document as the Nitro Secure Module wrote it; nothing of it is true yet."""

    message: Sign1
    module_id: str
    digest: str
    timestamp: datetime
    pcrs: Mapping[int, bytes]
    """By index, 48 bytes each."""
    certificate: bytes
    cabundle: tuple[bytes, ...]
    """Root first; the certificate that issued ``certificate`` is last."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def registers(self) -> dict[str, bytes]:
        """The PCRs by name, ``pcr0``."""
        return {f"pcr{index}": value for index, value in sorted(self.pcrs.items())}

    def fields(self) -> Mapping[str, object]:
        """Every field. The nonce is called ``report_data``, the name under which binding judges it."""
        pcrs: dict[str, object] = {f"pcrs.{name}": value for name, value in self.registers.items()}
        return {
            "module_id": self.module_id,
            "digest": self.digest,
            "timestamp": self.timestamp,
            **pcrs,
            "public_key": self.public_key,
            "user_data": self.user_data,
            "report_data": self.nonce,
        }


def parse_document(data: bytes) -> NitroDocument:
    """Read a document. Raises ``MalformedEvidence``."""
    message = parse_sign1(decode(data, "nitro document"), "nitro document")
    if len(message.signature) != SIGNATURE_BYTES:
        raise MalformedEvidence(
            f"nitro document: signature has {len(message.signature)} bytes, expected {SIGNATURE_BYTES}"
        )
    payload = decode(message.payload, "nitro payload", indefinite=True)  # as some genuine modules write it
    if not isinstance(payload, dict) or not _REQUIRED <= set(payload) <= _REQUIRED | set(_OPTIONAL):
        raise MalformedEvidence("nitro payload: expected a map of the nine fields that are known")
    module_id, digest, timestamp = payload["module_id"], payload["digest"], payload["timestamp"]
    if not isinstance(module_id, str) or not 0 < len(module_id) <= 256 or not module_id.isprintable():
        raise MalformedEvidence("module_id: expected a text of 1 to 256 printable characters")
    if digest != "SHA384":
        raise MalformedEvidence("digest: expected SHA384")
    if type(timestamp) is not int or not 0 < timestamp <= _MAX_MS:
        raise MalformedEvidence("timestamp: expected milliseconds since 1970")
    return NitroDocument(
        message=message,
        module_id=module_id,
        digest=digest,
        timestamp=_EPOCH + timedelta(milliseconds=timestamp),
        pcrs=_pcrs(payload["pcrs"]),
        certificate=_octets(payload["certificate"], "certificate", MAX_CERTIFICATE_BYTES),
        cabundle=_bundle(payload["cabundle"]),
        **{name: _optional(payload.get(name), name, most) for name, most in _OPTIONAL.items()},
    )


def _pcrs(value: object) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_PCRS:
        raise MalformedEvidence(f"pcrs: expected a map of 1 to {MAX_PCRS} registers")
    for index, content in value.items():
        if type(index) is not int or not 0 <= index < MAX_PCRS:
            raise MalformedEvidence(f"pcrs: expected indices from 0 to {MAX_PCRS - 1}")
        if not isinstance(content, bytes) or len(content) != PCR_BYTES:
            raise MalformedEvidence(f"pcrs: PCR{index} is not {PCR_BYTES} bytes")
    if not {0, 1, 2} <= set(value):
        raise MalformedEvidence("pcrs: PCR0, PCR1 or PCR2 is absent")
    return MappingProxyType(dict(value))


def _bundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_BUNDLE:
        raise MalformedEvidence(f"cabundle: expected 1 to {MAX_BUNDLE} certificates")
    return tuple(_octets(one, "cabundle", MAX_CERTIFICATE_BYTES) for one in value)


def _octets(value: object, name: str, most: int, least: int = 1) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise MalformedEvidence(f"{name}: expected {least} to {most} bytes")
    return value


def _optional(value: object, name: str, most: int) -> bytes | None:
    return None if value is None else _octets(value, name, most, least=int(name == "public_key"))
