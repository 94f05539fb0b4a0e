"""Both ends of one session in one process, with the wire between them in the test's hands."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.tcb.session import AuditLog, Keep, KeepSession, Life, Move, TenantSession
from enarx.tcb.workload import Job, Secret

NONCE = bytes(range(32))
EXPORTER = bytes(range(32, 64))
KEEP_KEY = sha256(b"the keep's public key").digest()
INSTANCE = bytes(range(16))
TENANT = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
JOB = Job(
    module=b"\0asm\1\0\0\0" + bytes(600_000),
    config=b'args = ["a"]\n',
    secrets=(Secret(name="token", value=b"canary"),),
)


class Pair:
    """A booted keep and a tenant on one connection."""

    def __init__(self, keep: Keep | None = None, **tenant: Any) -> None:
        if keep is None:
            keep = Keep(life=Life(AuditLog()), instance=INSTANCE, key=KEEP_KEY)
            keep.life.move(Move.BOOT)
        self.keep = keep
        exporter = tenant.pop("keep_exporter", EXPORTER)
        self.inside = KeepSession(keep, exporter=exporter)
        life = tenant.pop("life", None)
        if life is None:
            life = Life(AuditLog())
            life.move(Move.BOOT)
        options: dict[str, Any] = {
            "key": TENANT,
            "nonce": NONCE,
            "exporter": EXPORTER,
            "keep_key": KEEP_KEY,
            **tenant,
        }
        self.outside = TenantSession(life, **options)

    def up(self, data: bytes | Iterable[bytes]) -> list[Any]:
        """Carry bytes from the tenant to the keep."""
        parts = [data] if isinstance(data, bytes) else list(data)
        return [event for part in parts for event in self.inside.receive(part)]

    def down(self, data: bytes) -> list[Any]:
        """Carry bytes from the keep to the tenant."""
        return list(self.outside.receive(data))

    def attested(self) -> Pair:
        """Go on until the tenant has accepted the empty keep; the evidence is the report data itself."""
        [challenged] = self.up(self.outside.hello())
        [attested] = self.down(self.inside.attest(challenged.binding.report_data()))
        self.outside.accept(attested.evidence)
        return self

    def locked(self, job: Job = JOB) -> Pair:
        """Go on until the tenant has accepted the locked keep."""
        self.attested()
        [delivered] = self.up(self.outside.deliver(job))
        [attested] = self.down(self.inside.attest(delivered.binding.report_data()))
        self.outside.accept(attested.evidence)
        return self
