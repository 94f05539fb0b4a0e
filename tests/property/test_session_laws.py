"""A session on a wire that somebody else owns: whatever happens to it, availability is all that is lost.

``Wire`` is the hostile agent: it drops, delays, duplicates, reorders, changes and invents what passes between a tenant
and a keep. Both ends are the real ones, TLS included; only the evidence stands for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from enarx.tcb import wire
from enarx.tcb.binding import EXPORTER_BYTES, EXPORTER_LABEL
from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.tls import self_signed, server_context
from enarx.tcb.session import (
    Attested,
    AuditLog,
    Ended,
    Keep,
    KeepSession,
    Life,
    Move,
    Output,
    State,
    Stream,
    TenantSession,
)
from enarx.tcb.session._keep import Attached, Challenged, Delivered, Started
from enarx.tcb.workload import Ending, Job, Outcome, Secret
from enarx.tenant.channel import _context

CANARY: Final = b"canary-of-the-tenant"
RESULT: Final = b"the result"
JOB: Final = Job(
    module=b"\0asm\1\0\0\0" + bytes(40_000), config=b"", secrets=(Secret(name="token", value=CANARY),)
)
CREDENTIAL: Final = self_signed("keep", now=datetime.now(UTC))
KEEP_KEY: Final = sha256(
    CREDENTIAL.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).digest()
SERVER: Final = server_context(CREDENTIAL)
CLIENT: Final = _context()
TENANT: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ACTIONS: Final = ("pass", "drop", "hold", "twice", "swap", "cut", "flip", "invent", "return")


class End:
    """One end of the TLS connection."""

    def __init__(self, context: SSL.Context, *, server: bool) -> None:
        self.tls = SSL.Connection(context, None)
        (self.tls.set_accept_state if server else self.tls.set_connect_state)()
        self.ready = False
        self.error: Exception | None = None

    def exporter(self) -> bytes:
        return self.tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)

    def read(self) -> bytes:
        """What is there, after as much of the handshake as can be done."""
        data = bytearray()
        with contextlib.suppress(SSL.WantReadError):
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
            while True:
                data += self.tls.recv(1 << 17)
        return bytes(data)

    def written(self) -> bytes:
        with contextlib.suppress(SSL.WantReadError):
            return self.tls.bio_read(1 << 20)
        return b""


class Inside:
    """The keep: it answers a challenge with the report data itself, and runs by printing its result."""

    def __init__(self) -> None:
        self.keep = Keep(life=Life(AuditLog()), instance=bytes(16), key=KEEP_KEY)
        self.keep.life.move(Move.BOOT)
        self.end = End(SERVER, server=True)
        self.session: KeepSession | None = None
        self.jobs: list[Job] = []
        self.starts = 0

    def go_on(self) -> None:
        data = self.end.read()
        if self.session is None:
            if not self.end.ready:
                return
            self.session = KeepSession(self.keep, exporter=self.end.exporter())
        for event in self.session.receive(data):
            match event:
                case Challenged(binding=binding):
                    self.end.tls.sendall(self.session.attest(binding.report_data()))
                case Delivered(job=job, binding=binding):
                    self.jobs.append(job)
                    self.end.tls.sendall(self.session.attest(binding.report_data()))
                case Attached():
                    self.end.tls.sendall(self.session.extent(0, 0, ended=False))
                case Started():
                    self.starts += 1
                    self.keep.life.move(Move.END)
                    self.end.tls.sendall(self.session.output(Stream.STDOUT, 0, RESULT))
                    self.end.tls.sendall(self.session.exited(Outcome(ending=Ending.EXITED, code=0)))


class Outside:
    """The tenant: its verifier accepts exactly the evidence that commits to the binding."""

    def __init__(self) -> None:
        self.end = End(CLIENT, server=False)
        self.session: TenantSession | None = None
        self.heard = b""
        self.ended: Ended | None = None
        self.delivered = False

    def go_on(self) -> None:
        data = self.end.read()
        if self.session is None:
            if not self.end.ready:
                return
            life = Life(AuditLog())
            life.move(Move.BOOT)
            certificate = self.end.tls.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.session = TenantSession(
                life,
                key=TENANT,
                nonce=bytes(32),
                exporter=self.end.exporter(),
                keep_key=sha256(public).digest(),
            )
            self.end.tls.sendall(self.session.hello())
        for event in self.session.receive(data):
            match event:
                case Attested():
                    self._accept(self.session, event)
                case Output(data=part):
                    self.heard += part
                case Ended():
                    self.ended = event

    def _accept(self, session: TenantSession, event: Attested) -> None:
        session.accept(event.evidence)
        if session.life.state is State.ATTESTED:
            self.delivered = True
            for part in session.deliver(JOB):
                self.end.tls.sendall(part)
        else:
            self.end.tls.sendall(session.attach() + session.run())


class Wire:
    """The host: it has a script of what it does to each flight of bytes, and then passes on what it is given."""

    def __init__(self, script: Sequence[tuple[str, int]]) -> None:
        self._script = list(script)
        self._waiting: dict[bool, list[bytes]] = {True: [], False: []}
        self.seen = b""
        self.harmful = False

    def carry(self, data: bytes, up: bool) -> list[tuple[bool, bytes]]:
        """What arrives, and in which direction, when ``data`` was sent."""
        self.seen += data
        action, at = self._script.pop(0) if self._script else ("pass", 0)
        waiting = self._waiting[up]
        if action == "hold":  # until the next flight of this direction: late, but in order
            waiting.append(data)
            return []
        self.harmful |= action != "pass"
        if action == "swap":
            return [(up, data), *((up, it) for it in self._taken(up))]
        place = at % len(data)
        changed = {
            "pass": data,
            "drop": b"",
            "twice": data + data,
            "cut": data[:place],
            "flip": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
            "invent": data + bytes([at % 256]) * 9,
            "return": data,
        }[action]
        return [*((up, it) for it in self._taken(up)), (up is (action != "return"), changed)]

    def late(self) -> list[tuple[bool, bytes]]:
        """What was held back to the end."""
        return [(up, it) for up in (True, False) for it in self._taken(up)]

    def _taken(self, up: bool) -> list[bytes]:
        held, self._waiting[up] = self._waiting[up], []
        return held


def converse(wire: Wire) -> tuple[Outside, Inside]:
    """Let both talk until nothing moves any more; whoever finds an error says no more."""
    outside, inside = Outside(), Inside()
    ends: list[tuple[End, Callable[[], None], bool]] = [
        (outside.end, outside.go_on, True),
        (inside.end, inside.go_on, False),
    ]
    for _ in range(200):
        moved = False
        for end, go_on, up in ends:
            if end.error is not None:
                continue
            try:
                go_on()
            except (EnarxError, SSL.Error) as error:
                end.error = error
            if data := end.written():
                moved = True
                _arrive(outside, inside, wire.carry(data, up))
        if not moved:
            late = wire.late()
            if not late:
                return outside, inside
            _arrive(outside, inside, late)
    raise AssertionError("they talk for ever")


def _arrive(outside: Outside, inside: Inside, flights: list[tuple[bool, bytes]]) -> None:
    for up, data in flights:
        if data:
            (inside if up else outside).end.tls.bio_write(data)


def test_an_honest_wire_carries_it_to_the_end() -> None:
    outside, inside = converse(Wire(()))
    assert outside.ended is not None
    assert (outside.heard, inside.jobs, inside.starts) == (RESULT, [inside.jobs[0]], 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1 << 16)), max_size=12))
def test_a_hostile_agent_takes_nothing_but_availability(script: list[tuple[str, int]]) -> None:
    wire = Wire(script)
    outside, inside = converse(wire)
    assert CANARY not in wire.seen
    assert RESULT not in wire.seen
    assert outside.heard in (b"", RESULT)
    assert inside.starts <= 1
    for job in inside.jobs:
        assert (job.module, job.secrets) == (JOB.module, JOB.secrets)
    if outside.ended is not None:
        assert (outside.heard, inside.starts, len(inside.jobs)) == (RESULT, 1, 1)
    if not wire.harmful:
        assert outside.ended is not None


@pytest.mark.parametrize("action", [action for action in ACTIONS if action not in ("pass", "hold", "swap")])
@pytest.mark.parametrize("flight", range(4))
def test_one_interference_is_enough_to_stop_it(action: str, flight: int) -> None:
    """The law above would hold for a wire that does nothing; this shows that it interferes."""
    outside, _ = converse(Wire([("pass", 0)] * flight + [(action, 11)]))
    assert outside.ended is None


VALUES: st.SearchStrategy[wire.Value] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 40) | st.text(max_size=4) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)
FRAMES: Final = st.lists(
    st.one_of(
        VALUES.map(wire.encode),
        st.tuples(st.integers(0, 24), st.lists(VALUES, max_size=5)).map(
            lambda it: wire.encode([it[0], *it[1]])
        ),
        st.binary(max_size=40),
    ).map(wire.frame),
    max_size=6,
).map(b"".join)


@given(FRAMES | st.binary(max_size=200))
def test_whatever_a_tenant_says_first_it_is_refused(said: bytes) -> None:
    """Without a signature over this session nothing is even answered."""
    keep = Keep(life=Life(AuditLog()), instance=bytes(16), key=KEEP_KEY)
    keep.life.move(Move.BOOT)
    session = KeepSession(keep, exporter=bytes(32))
    with contextlib.suppress(EnarxError):
        assert list(session.receive(said)) == []
    assert keep.life.state is State.EMPTY
    assert not session.tenant_known


@given(FRAMES | st.binary(max_size=200))
def test_whatever_a_keep_says_first_nothing_is_delivered(said: bytes) -> None:
    life = Life(AuditLog())
    life.move(Move.BOOT)
    session = TenantSession(life, key=TENANT, nonce=bytes(32), exporter=bytes(32), keep_key=KEEP_KEY)
    session.hello()
    with contextlib.suppress(EnarxError):
        for event in session.receive(said):
            assert not isinstance(event, Output | Ended)
    with pytest.raises(EnarxError):
        next(session.deliver(JOB))
