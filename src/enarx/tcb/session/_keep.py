"""The keep's end of one connection with a tenant (docs/spec/session.md, 6): bytes in, events out."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from hashlib import sha256

from enarx.tcb.binding import Binding, Role, Stage
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.record import field, record
from enarx.tcb.session._audit import MAX_CHALLENGES
from enarx.tcb.session._messages import (
    MAX_CHUNK_BYTES,
    MAX_HELLO_BYTES,
    MAX_MESSAGE_BYTES,
    VERSION,
    VOCABULARY,
    Attach,
    Attestation,
    Chunk,
    Deliver,
    Exited,
    Extent,
    Hello,
    Input,
    Message,
    Output,
    Problem,
    Progress,
    Run,
    Stop,
    Stream,
)
from enarx.tcb.session._proof import check_possession
from enarx.tcb.session._state import Life, Move, State
from enarx.tcb.wire import FrameDecoder, Value, frame
from enarx.tcb.workload import Job, Outcome, configuration_digest, workload_digest


@record(kw_only=False)
class Challenged:
    """Get evidence over ``binding`` and hand it to ``attest``."""

    binding: Binding


@record(kw_only=False)
class Delivered:
    """The workload is here; hand evidence over ``binding`` to ``attest``: the keep is locked from now on."""

    job: Job = field(repr=False)
    binding: Binding


@record(kw_only=False)
class Started:
    """Run the workload."""


@record(kw_only=False)
class Attached:
    """Send output from these offsets on."""

    stdout: int
    stderr: int


@record(kw_only=False)
class Typed:
    """Bytes for standard input; none are its end."""

    data: bytes = field(repr=False)


@record(kw_only=False)
class Stopped:
    """End the workload now."""


Event = Challenged | Delivered | Started | Attached | Typed | Stopped


class Keep:
    """What one keep is to all its connections: its life, its name, and from the delivery on its tenant."""

    def __init__(self, *, life: Life, instance: bytes, key: bytes) -> None:
        self.life, self.instance = life, instance
        self.key = key
        """SHA-256 of the public key of its TLS certificate."""
        self.tenant: bytes | None = None
        """SHA-256 of the key of whoever delivered; nobody else is served afterwards."""
        self.workload = self.configuration = b""
        self.seen: set[bytes] = set()
        """Nonces that were answered: none is answered twice."""


class KeepSession:
    """One connection. After any error it is over; what that means for the keep, its life's table says."""

    def __init__(self, keep: Keep, *, exporter: bytes) -> None:
        self._keep = keep
        self._exporter = exporter
        self._frames = FrameDecoder(max_bytes=MAX_HELLO_BYTES)
        self._nonce = b""
        self._tenant = b""
        self._owed: Binding | None = None
        self._header: Value = None
        self._body = bytearray()
        self._missing: int | None = None

    @property
    def tenant_known(self) -> bool:
        """Whether the peer has proved a key that this keep would serve."""
        return bool(self._tenant) and not self._foreign()

    def _foreign(self) -> bool:
        """Whether the keep belongs to somebody else, perhaps only since this peer was answered."""
        tenant = self._keep.tenant
        return tenant is not None and not hmac.compare_digest(tenant, self._tenant)

    def receive(self, data: bytes | memoryview) -> Iterator[Event]:
        """Take bytes of the tenant and give what they ask for. Raises ``ProtocolViolation``, ``Malformed``."""
        self._frames.feed(data)
        for body in self._frames.frames():
            event = self._take(VOCABULARY.decode(body))
            if event is not None:
                yield event

    def _take(self, message: Message) -> Event | None:
        if self._owed is not None:
            raise ProtocolViolation("tenant spoke before the evidence was given")
        if self._nonce and self._foreign():
            raise ProtocolViolation("this keep belongs to another tenant")
        match message:
            case Hello() if not self._nonce:
                return self._challenged(message)
            case _ if not self._nonce:
                raise ProtocolViolation(f"tenant sent {type(message).__name__} before its challenge")
            case Deliver():
                self._begin(message)
                return self._finish() if self._missing == 0 else None
            case Chunk() if self._missing is not None:
                return self._continue(message.data, self._missing)
            case _ if self._missing is not None:
                raise ProtocolViolation(f"tenant sent {type(message).__name__} inside a delivery")
            case Run():
                self._keep.life.move(Move.RUN)
                return Started()
            case Attach():
                self._keep.life.require(State.LOCKED, State.RUNNING, State.EXITED)
                return Attached(message.stdout, message.stderr)
            case Input():
                self._keep.life.require(State.LOCKED, State.RUNNING)
                return Typed(message.data)
            case Stop():
                self._keep.life.require(State.RUNNING, State.EXITED)  # it may have ended in the meantime
                return Stopped()
        raise ProtocolViolation(f"tenant sent {type(message).__name__} out of turn")

    def _challenged(self, hello: Hello) -> Challenged:
        keep = self._keep
        keep.life.require(State.EMPTY, State.ATTESTED, State.LOCKED, State.RUNNING, State.EXITED)
        if hello.version != VERSION:
            raise ProtocolViolation(f"tenant speaks version {hello.version}, this keep {VERSION}")
        check_possession(hello, self._exporter)
        tenant = sha256(hello.key).digest()
        if keep.tenant is not None and not hmac.compare_digest(tenant, keep.tenant):
            raise ProtocolViolation("this keep belongs to another tenant")
        if hello.nonce in keep.seen:
            raise ProtocolViolation("nonce was used before")
        if len(keep.life.audit.records) >= MAX_CHALLENGES:
            raise ProtocolViolation("this keep has answered too many challenges")
        keep.seen.add(hello.nonce)
        self._frames.max_bytes = MAX_MESSAGE_BYTES
        self._nonce, self._tenant = hello.nonce, tenant
        self._owed = self._binding(Stage.EMPTY if keep.tenant is None else Stage.LOCKED)
        return Challenged(self._owed)

    def _binding(self, stage: Stage) -> Binding:
        keep = self._keep
        return Binding(
            role=Role.KEEP,
            stage=stage,
            nonce=self._nonce,
            exporter=self._exporter,
            key=keep.key,
            instance=keep.instance,
            tenant=self._tenant,
            workload=keep.workload,
            configuration=keep.configuration,
        )

    def _begin(self, message: Deliver) -> None:
        self._keep.life.require(State.ATTESTED)
        if self._missing is not None:
            raise ProtocolViolation("tenant sent Deliver inside a delivery")
        self._header, self._missing = message.header, message.size

    def _continue(self, data: bytes, missing: int) -> Delivered | None:
        if len(data) > missing:
            raise ProtocolViolation("tenant sent more than the delivery has")
        self._body += data
        self._missing = missing - len(data)
        return self._finish() if self._missing == 0 else None

    def _finish(self) -> Delivered:
        """Take the delivery whole: compute the digests of what is really here, and belong to this tenant."""
        keep = self._keep
        keep.life.require(
            State.ATTESTED
        )  # another connection may have been faster: nothing it set is touched
        job = Job.from_parts(self._header, memoryview(self._body))
        if job.code or job.seal_key or any(job.terminals):  # code could come from any module
            raise ProtocolViolation("a keep takes no code and no terminals: no digest tells of them")
        self._header, self._body, self._missing = None, bytearray(), None
        keep.workload, keep.configuration = workload_digest(job), configuration_digest(job)
        keep.tenant = self._tenant
        keep.life.move(Move.DELIVER, tenant=keep.tenant)
        self._owed = self._binding(Stage.LOCKED)
        return Delivered(job, self._owed)

    def attest(self, evidence: bytes) -> bytes:
        """Give the bytes that carry ``evidence`` over the binding that was asked for, and record it."""
        binding, keep = self._owed, self._keep
        if binding is None:
            raise ProtocolViolation("no evidence is asked for")
        self._owed = None
        facts: dict[str, Value] = {
            "stage": binding.stage.value,
            "report_data": binding.report_data(),
            "evidence": sha256(evidence).digest(),
        }
        if binding.stage is Stage.EMPTY:
            keep.life.move(Move.ATTEST, **facts)
        elif keep.life.state is State.PROVISIONED:
            keep.life.move(Move.LOCK, workload=keep.workload, configuration=keep.configuration, **facts)
        else:
            keep.life.audit.append("reattested", facts)
        return _framed(
            Attestation(
                stage=binding.stage,
                instance=keep.instance,
                workload=keep.workload,
                configuration=keep.configuration,
                evidence=evidence,
            )
        )

    def progress(self, text: str) -> bytes:
        """Give the bytes that tell the tenant what is going on."""
        return _framed(Progress(text=text))

    def output(self, stream: Stream, offset: int, data: bytes) -> bytes:
        """Give the bytes that carry at most ``MAX_CHUNK_BYTES`` of output."""
        return _framed(Output(stream=stream, offset=offset, data=data[:MAX_CHUNK_BYTES]))

    def extent(self, stdout: int, stderr: int, *, ended: bool) -> bytes:
        """Give the bytes that answer Attach: where the streams end now, and whether the workload has ended."""
        return _framed(Extent(stdout=stdout, stderr=stderr, ended=ended))

    def exited(self, outcome: Outcome) -> bytes:
        """Give the bytes that tell the end, with the audit record of this keep's whole life."""
        records: Value = [record.fields() for record in self._keep.life.audit.records]
        return _framed(Exited(outcome=outcome.value(), audit=records))

    def problem(self, text: str, hint: str = "") -> bytes:
        """Give the bytes of a refusal."""
        return _framed(Problem(text=_printable(text) or "refused", hint=_printable(hint)))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:1000])


def _framed(message: Message) -> bytes:
    return frame(VOCABULARY.encode(message))
