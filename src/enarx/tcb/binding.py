"""What evidence commits to: one hash over everything that makes a session this session (docs/spec/session.md, 4)."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha512
from typing import Final

from enarx.tcb.record import record
from enarx.tcb.wire import Value, encode

LABEL: Final = "enarx-binding/1"
EXPORTER_LABEL: Final = b"EXPORTER-enarx-session-1"
EXPORTER_BYTES: Final = 32
NONCE_BYTES: Final = 32
DIGEST_BYTES: Final = 32
INSTANCE_BYTES: Final = 16
REPORT_DATA_BYTES: Final = 64


class Role(StrEnum):
    """Who attests; evidence of one role is nothing in another."""

    KEEP = "keep"


class Stage(StrEnum):
    """What the evidence says about the keep."""

    EMPTY = "empty"
    """No workload has been loaded."""
    LOCKED = "locked"
    """The named workload has been loaded, and nothing can be loaded any more."""


@record
class Binding:
    """Everything that report data commits to. The two digests at the end are empty until the keep is locked."""

    role: Role
    stage: Stage
    nonce: bytes
    """32 bytes, made by the verifier for this session."""
    exporter: bytes
    """32 bytes that only the two ends of this TLS session can compute (RFC 8446, section 7.5)."""
    key: bytes
    """SHA-256 of the keep's public key (SubjectPublicKeyInfo in DER)."""
    instance: bytes
    """16 random bytes: this keep and no other."""
    tenant: bytes
    """SHA-256 of the public key of the tenant for whom the evidence was made."""
    workload: bytes = b""
    configuration: bytes = b""

    def __post_init__(self) -> None:
        digest = DIGEST_BYTES if self.stage is Stage.LOCKED else 0
        for name, size in (
            ("nonce", NONCE_BYTES),
            ("exporter", EXPORTER_BYTES),
            ("key", DIGEST_BYTES),
            ("instance", INSTANCE_BYTES),
            ("tenant", DIGEST_BYTES),
            ("workload", digest),
            ("configuration", digest),
        ):
            if len(getattr(self, name)) != size:
                raise ValueError(f"binding.{name}: expected {size} bytes, found {len(getattr(self, name))}")

    def report_data(self) -> bytes:
        """Give the 64 bytes for the hardware to sign: SHA-512 of the one encoding of all fields with their label."""
        fields: list[Value] = [
            LABEL,
            self.role.value,
            self.stage.value,
            self.nonce,
            self.exporter,
            self.key,
            self.instance,
            self.tenant,
            self.workload,
            self.configuration,
        ]
        return sha512(encode(fields)).digest()
