"""The tenant's end of one connection with a keep (docs/spec/session.md, 7): bytes in, events out."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.tcb.binding import Binding, Role, Stage
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.record import field, record
from enarx.tcb.session._audit import AuditRecord, verify_chain
from enarx.tcb.session._messages import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    VOCABULARY,
    Attach,
    Attestation,
    Chunk,
    Deliver,
    Exited,
    Extent,
    Input,
    Message,
    Output,
    Problem,
    Progress,
    Run,
    Stop,
)
from enarx.tcb.session._proof import hello
from enarx.tcb.session._state import Life, Move, State
from enarx.tcb.wire import FrameDecoder, Value, frame
from enarx.tcb.workload import Job, Outcome, configuration_digest, workload_digest


@record(kw_only=False)
class Attested:
    """Evidence to verify against ``binding``; hand the report data that was verified to ``accept``."""

    binding: Binding
    evidence: bytes = field(repr=False)


@record(kw_only=False)
class Ended:
    """The workload has ended; ``audit`` is the keep's complete chain."""

    outcome: Outcome
    audit: tuple[AuditRecord, ...]


Event = Attested | Progress | Output | Extent | Ended | Problem


class TenantSession:
    """One connection. ``key`` is the tenant's; ``nonce`` is 32 fresh random bytes.

    ``life`` is the tenant's own view of the keep's life; for a keep that was locked before, it begins there
    (``resumed``), with the digests that the tenant remembers.
    """

    def __init__(
        self,
        life: Life,
        *,
        key: Ed25519PrivateKey,
        nonce: bytes,
        exporter: bytes,
        keep_key: bytes,
        resumed: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.life = life
        self._key = key
        self._nonce = nonce
        self._exporter = exporter
        self._keep_key = keep_key
        self._frames = FrameDecoder(max_bytes=MAX_MESSAGE_BYTES)
        self._asked: Stage | None = None
        self._digests = resumed or (b"", b"")
        self._resumed = resumed is not None
        self._pending: Binding | None = None
        self._attaching = False
        self.instance: bytes | None = None

    def hello(self) -> bytes:
        """Give the challenge, which is sent first and once."""
        if self._asked is not None:
            raise ProtocolViolation("the challenge was sent already")
        self._asked = Stage.LOCKED if self._resumed else Stage.EMPTY
        return _framed(hello(self._key, nonce=self._nonce, exporter=self._exporter))

    def receive(self, data: bytes | memoryview) -> Iterator[Event]:
        """Take bytes of the keep and give what they mean. Raises ``ProtocolViolation``, ``Malformed``."""
        self._frames.feed(data)
        for body in self._frames.frames():
            yield self._take(VOCABULARY.decode(body))

    def _take(self, message: Message) -> Event:
        if self.instance is None and isinstance(message, Output | Exited):
            raise ProtocolViolation(f"keep sent {type(message).__name__} before it was accepted")
        match message:
            case Attestation() if self._asked is not None and self._pending is None:
                return self._attested(message, self._asked)
            case Progress() | Problem():
                return message
            case Output():
                self.life.require(State.RUNNING, State.EXITED)
                return message
            case Extent() if self._attaching:
                self._attaching = False
                return message
            case Exited():
                return self._ended(message)
        raise ProtocolViolation(f"keep sent {type(message).__name__} out of turn")

    def _attested(self, message: Attestation, asked: Stage) -> Attested:
        """Derive what the evidence must commit to from what we know; the keep only tells its instance."""
        if message.stage is not asked:
            raise ProtocolViolation(f"keep attests to {message.stage.value}, expected {asked.value}")
        if (message.workload, message.configuration) != self._digests:
            what = "workload" if message.workload != self._digests[0] else "configuration"
            raise ProtocolViolation(f"keep names another {what} than the one delivered")
        if self.instance not in (None, message.instance):
            raise ProtocolViolation("keep changed its instance within the session")
        self._asked = None
        self._pending = Binding(
            role=Role.KEEP,
            stage=asked,
            nonce=self._nonce,
            exporter=self._exporter,
            key=self._keep_key,
            instance=message.instance,
            tenant=sha256(self._key.public_key().public_bytes_raw()).digest(),
            workload=self._digests[0],
            configuration=self._digests[1],
        )
        return Attested(self._pending, message.evidence)

    def accept(self, report_data: bytes, **facts: Value) -> None:
        """Go on, because evidence was verified and appraised; ``report_data`` is what it commits to.

        Raises ``ProtocolViolation`` unless that is the binding of this session.
        """
        binding = self._pending
        if binding is None or not hmac.compare_digest(binding.report_data(), report_data):
            raise ProtocolViolation("the accepted evidence was not made for this session")
        self._pending = None
        self.instance = binding.instance
        told: dict[str, Value] = {"stage": binding.stage.value, "report_data": report_data, **facts}
        if self._resumed:
            self.life.audit.append("reattested", told)
        else:
            self.life.move(Move.ATTEST if binding.stage is Stage.EMPTY else Move.LOCK, **told)

    def deliver(self, job: Job) -> Iterator[bytes]:
        """Give the bytes of the delivery. Raises ``ProtocolViolation`` unless the empty keep was accepted."""
        self.life.require(State.ATTESTED)
        self._digests = workload_digest(job), configuration_digest(job)
        yield _framed(Deliver(header=job.header(), size=job.size))
        for blob in job.blobs():
            yield from _chunks(blob)
        self._asked = Stage.LOCKED
        self.life.move(Move.DELIVER, workload=self._digests[0], configuration=self._digests[1])

    def run(self) -> bytes:
        """Give the bytes that start the workload. Raises ``ProtocolViolation`` unless the lock was accepted."""
        self.life.move(Move.RUN)
        return _framed(Run())

    def attach(self, stdout: int = 0, stderr: int = 0) -> bytes:
        """Give the bytes that ask for output from these offsets on."""
        self.life.require(State.LOCKED, State.RUNNING)
        if self._resumed and self.instance is None:
            raise ProtocolViolation("the keep was not accepted in this session")
        self._attaching = True
        return _framed(Attach(stdout=stdout, stderr=stderr))

    def input(self, data: bytes) -> bytes:
        """Give the bytes that carry at most ``MAX_CHUNK_BYTES`` of standard input; none are its end."""
        return _framed(Input(data=data))

    def stop(self) -> bytes:
        """Give the bytes that end the workload."""
        return _framed(Stop())

    def _ended(self, message: Exited) -> Ended:
        self.life.require(State.RUNNING)
        outcome = Outcome.from_value(message.outcome)
        if not isinstance(message.audit, list):
            raise ProtocolViolation("keep sent no audit record")
        records = tuple(AuditRecord.from_fields(it) for it in message.audit)
        head = verify_chain(records)
        self.life.move(Move.END, ending=outcome.ending.value, code=outcome.code, audit=head)
        return Ended(outcome, records)


def resumed_life(life: Life) -> Life:
    """Take ``life`` to where a keep is that the tenant locked and started earlier."""
    for move in (Move.BOOT, Move.ATTEST, Move.DELIVER, Move.LOCK, Move.RUN):
        life.move(move, resumed=True)
    return life


def _chunks(blob: bytes) -> Iterable[bytes]:
    view = memoryview(blob)
    for start in range(0, len(blob), MAX_CHUNK_BYTES):
        yield _framed(Chunk(data=bytes(view[start : start + MAX_CHUNK_BYTES])))


def _framed(message: Message) -> bytes:
    return frame(VOCABULARY.encode(message))
