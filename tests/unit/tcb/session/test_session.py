"""The session from both ends, and what each refuses."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.tcb.session.pair import EXPORTER, INSTANCE, JOB, KEEP_KEY, NONCE, TENANT, Pair

from enarx.tcb.binding import Binding, Role, Stage
from enarx.tcb.errors import Malformed, ProtocolViolation
from enarx.tcb.record import replace
from enarx.tcb.session import (
    Attested,
    AuditLog,
    Ended,
    Extent,
    Life,
    Move,
    Output,
    Problem,
    State,
    Stream,
    resumed_life,
    verify_chain,
)
from enarx.tcb.session._audit import MAX_CHALLENGES
from enarx.tcb.session._keep import Attached, Challenged, Delivered, Started, Stopped, Typed
from enarx.tcb.session._messages import VOCABULARY, Attach, Chunk, Deliver, Exited, Input, Message, Run, Stop
from enarx.tcb.wire import frame
from enarx.tcb.workload import Ending, Job, Outcome, Secret, configuration_digest, workload_digest


def test_a_session_goes_from_challenge_to_exit() -> None:
    pair = Pair()
    [challenged] = pair.up(pair.outside.hello())
    assert isinstance(challenged, Challenged)
    [attested] = pair.down(pair.inside.attest(b"evidence"))
    assert attested == Attested(challenged.binding, b"evidence")
    pair.outside.accept(attested.binding.report_data())
    [delivered] = pair.up(pair.outside.deliver(JOB))
    assert isinstance(delivered, Delivered)
    assert delivered.job == replace(delivered.job, module=JOB.module, config=JOB.config, secrets=JOB.secrets)
    [attested] = pair.down(pair.inside.attest(b"more evidence"))
    assert attested.binding.stage is Stage.LOCKED
    assert attested.binding.workload == workload_digest(JOB)
    assert attested.binding.configuration == configuration_digest(JOB)
    pair.outside.accept(attested.binding.report_data())
    assert pair.up(pair.outside.attach()) == [Attached(0, 0)]
    assert pair.up(pair.outside.run()) == [Started()]
    assert pair.up(pair.outside.input(b"line\n")) == [Typed(b"line\n")]
    assert pair.up(pair.outside.stop()) == [Stopped()]
    [output] = pair.down(pair.inside.output(Stream.STDOUT, 0, b"result\n"))
    assert output == Output(stream=Stream.STDOUT, offset=0, data=b"result\n")
    pair.keep.life.move(Move.END)
    [ended] = pair.down(pair.inside.exited(Outcome(ending=Ending.EXITED, code=3)))
    assert isinstance(ended, Ended)
    assert ended.outcome.code == 3
    assert [record.event for record in ended.audit] == [
        "life.boot",
        "life.attest",
        "life.deliver",
        "life.lock",
        "life.run",
        "life.end",
    ]
    assert verify_chain(ended.audit) == pair.keep.life.audit.head
    assert pair.outside.life.state is State.EXITED


def test_one_byte_at_a_time_is_the_same() -> None:
    pair = Pair()
    data = pair.outside.hello()
    events = [event for at in range(len(data)) for event in pair.up(data[at : at + 1])]
    assert [type(event) for event in events] == [Challenged]


def test_nothing_is_delivered_before_evidence_was_accepted() -> None:
    pair = Pair()
    pair.up(pair.outside.hello())
    pair.down(pair.inside.attest(b"evidence"))
    with pytest.raises(ProtocolViolation, match="expected state attested"):
        next(pair.outside.deliver(JOB))


@pytest.mark.parametrize("verified", [b"", bytes(64), b"x"])
def test_verified_evidence_of_another_session_is_not_accepted(verified: bytes) -> None:
    pair = Pair()
    pair.up(pair.outside.hello())
    pair.down(pair.inside.attest(b"evidence"))
    with pytest.raises(ProtocolViolation, match="not made for this session"):
        pair.outside.accept(verified)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "tenant"},
        {"stage": Stage.LOCKED, "workload": bytes(32), "configuration": bytes(32)},
        {"nonce": bytes(32)},
        {"exporter": bytes(32)},
        {"key": bytes(32)},
        {"instance": bytes(16)},
        {"tenant": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_report_data_commits_to_every_field(change: dict[str, Any]) -> None:
    class Other(str):
        value = "tenant"

    if "role" in change:
        change = {"role": Other("tenant")}
    binding = Binding(
        role=Role.KEEP,
        stage=Stage.EMPTY,
        nonce=NONCE,
        exporter=EXPORTER,
        key=KEEP_KEY,
        instance=INSTANCE,
        tenant=b"t" * 32,
    )
    assert len(binding.report_data()) == 64
    assert replace(binding, **change).report_data() != binding.report_data()


@pytest.mark.parametrize("field", ["workload", "configuration"])
def test_report_data_of_a_locked_keep_commits_to_what_runs(field: str) -> None:
    binding = Binding(
        role=Role.KEEP,
        stage=Stage.LOCKED,
        nonce=NONCE,
        exporter=EXPORTER,
        key=KEEP_KEY,
        instance=INSTANCE,
        tenant=b"t" * 32,
        workload=b"w" * 32,
        configuration=b"c" * 32,
    )
    changed: dict[str, Any] = {field: bytes(32)}
    assert replace(binding, **changed).report_data() != binding.report_data()


def test_a_binding_with_a_short_field_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="nonce"):
        Binding(
            role=Role.KEEP,
            stage=Stage.EMPTY,
            nonce=bytes(31),
            exporter=EXPORTER,
            key=KEEP_KEY,
            instance=INSTANCE,
            tenant=bytes(32),
        )


def test_replayed_challenge_is_refused() -> None:
    pair = Pair()
    hello = pair.outside.hello()
    pair.up(hello)
    pair.inside.attest(b"evidence")
    with pytest.raises(ProtocolViolation, match="nonce was used before"):
        Pair(pair.keep).up(hello)


def test_challenge_from_another_session_is_refused() -> None:
    pair = Pair(keep_exporter=bytes(32))
    with pytest.raises(ProtocolViolation, match="does not hold the key"):
        pair.up(pair.outside.hello())


@pytest.mark.parametrize(
    "message",
    [
        Output(stream=Stream.STDOUT, offset=0, data=b"forged"),
        Exited(outcome=Outcome(ending=Ending.EXITED).value(), audit=[]),
    ],
    ids=["output", "end"],
)
def test_a_keep_that_was_left_says_nothing_that_counts_before_it_was_accepted_anew(message: Message) -> None:
    pair = Pair(life=resumed_life(Life(AuditLog())), resumed=(bytes(32), bytes(32)))
    pair.outside.hello()
    with pytest.raises(ProtocolViolation, match="before it was accepted"):
        pair.down(frame(VOCABULARY.encode(message)))
    assert pair.outside.life.state is State.RUNNING


def test_nobody_makes_a_keep_read_a_large_message_before_its_challenge() -> None:
    pair = Pair()
    with pytest.raises(Malformed, match="announces 257 bytes"):
        pair.up((257).to_bytes(4, "big"))


def test_challenges_leave_room_in_the_record_for_the_end() -> None:
    """Strangers, or a tenant who asks for the output every minute, must not keep a workload's end from being told."""
    keep = Pair().locked().keep
    keep.life.move(Move.RUN)
    pair = Pair(keep, nonce=bytes(32))
    while len(keep.life.audit.records) < MAX_CHALLENGES:
        keep.life.audit.append("reattested", {})
    with pytest.raises(ProtocolViolation, match="too many challenges"):
        pair.up(pair.outside.hello())
    keep.life.move(Move.END)


def test_another_tenant_is_refused_once_a_workload_is_there() -> None:
    pair = Pair().locked()
    stranger = Pair(pair.keep, key=Ed25519PrivateKey.generate(), nonce=b"n" * 32)
    with pytest.raises(ProtocolViolation, match="another tenant"):
        stranger.up(stranger.outside.hello())


@pytest.mark.parametrize("say", ["attach", "run", "input", "stop"])
def test_stolen_session_whoever_was_answered_before_the_delivery_is_served_no_more(say: str) -> None:
    """Until the delivery anybody may ask; a stranger that did must not hear or steer what another delivers."""
    stranger = Pair(key=Ed25519PrivateKey.generate(), nonce=bytes(32)).attested()
    owner = Pair(stranger.keep).locked()
    assert stranger.inside.tenant_known is False
    messages = {
        "attach": Attach(stdout=0, stderr=0),
        "run": Run(),
        "input": Input(data=b"x"),
        "stop": Stop(),
    }
    with pytest.raises(ProtocolViolation, match="another tenant"):
        stranger.up(frame(VOCABULARY.encode(messages[say])))
    assert stranger.keep.life.state is State.LOCKED
    assert owner.up(owner.outside.run()) == [Started()]


def test_the_tenant_comes_back_and_learns_that_it_is_the_same_keep() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    digests = workload_digest(JOB), configuration_digest(JOB)
    again = Pair(pair.keep, nonce=b"2" * 32, life=resumed_life(Life(AuditLog())), resumed=digests)
    [challenged] = again.up(again.outside.hello())
    with pytest.raises(ProtocolViolation, match="not accepted in this session"):
        again.outside.attach()
    [attested] = again.down(again.inside.attest(b"evidence"))
    assert attested.binding == challenged.binding
    assert attested.binding.stage is Stage.LOCKED
    again.outside.accept(attested.binding.report_data())
    assert again.up(again.outside.attach(7, 8)) == [Attached(7, 8)]


def test_a_keep_that_is_resumed_with_another_workload_is_refused() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    again = Pair(
        pair.keep, nonce=b"2" * 32, life=resumed_life(Life(AuditLog())), resumed=(bytes(32), bytes(32))
    )
    again.up(again.outside.hello())
    with pytest.raises(ProtocolViolation, match="another workload"):
        again.down(again.inside.attest(b"evidence"))


def test_evidence_factory_a_keep_with_a_workload_proves_nothing_but_that_workload() -> None:
    """A45: whoever makes a keep run something can never get evidence of an empty keep, or of another workload."""
    pair = Pair().locked()
    pair.up(pair.outside.run())
    again = Pair(pair.keep, nonce=b"2" * 32)
    [challenged] = again.up(again.outside.hello())
    assert challenged.binding.stage is Stage.LOCKED
    assert challenged.binding.workload == workload_digest(JOB)
    with pytest.raises(ProtocolViolation, match="attests to locked, expected empty"):
        again.down(again.inside.attest(b"evidence"))


def test_evidence_of_another_role_is_not_accepted() -> None:
    """A8: what a peer in another role would sign over the very same session is nothing here."""

    class Other(str):
        value = "tenant"

    pair = Pair()
    pair.up(pair.outside.hello())
    [attested] = pair.down(pair.inside.attest(b"evidence"))
    other: dict[str, Any] = {"role": Other("tenant")}
    with pytest.raises(ProtocolViolation, match="not made for this session"):
        pair.outside.accept(replace(attested.binding, **other).report_data())


def test_a_keep_cannot_be_loaded_twice() -> None:
    pair = Pair().locked()
    with pytest.raises(ProtocolViolation, match="expected state attested"):
        pair.up(frame(VOCABULARY.encode(Deliver(header=JOB.header(), size=JOB.size))))


@pytest.mark.parametrize(
    "change", [{"code": b"machine code"}, {"seal_key": bytes(32)}], ids=["code", "key of a code cache"]
)
def test_evidence_factory_a_keep_takes_no_machine_code_beside_the_module(change: dict[str, Any]) -> None:
    """A sender could seal any code under its own key, and have the keep attest for the module instead."""
    pair = Pair().attested()
    with pytest.raises(ProtocolViolation, match="takes no code"):
        pair.up(pair.outside.deliver(replace(JOB, **change)))
    assert pair.keep.life.state is State.ATTESTED


def test_evidence_factory_a_delivery_that_ends_after_another_renames_nothing() -> None:
    """The same tenant on two connections: one delivery waits for its last byte until the other runs."""
    late = Pair(nonce=bytes(32)).attested()
    other = replace(JOB, module=JOB.module + b"\0", config=None)
    *most, last = late.outside.deliver(other)
    late.up(most)
    first = Pair(late.keep).locked()
    first.up(first.outside.run())
    named = late.keep.workload, late.keep.configuration
    with pytest.raises(ProtocolViolation, match="expected state attested, the keep is running"):
        late.up(last)
    assert (
        (late.keep.workload, late.keep.configuration)
        == named
        == (workload_digest(JOB), configuration_digest(JOB))
    )


def test_evidence_factory_a_keep_takes_nothing_that_no_digest_tells_of() -> None:
    pair = Pair().attested()
    with pytest.raises(ProtocolViolation, match="no terminals"):
        pair.up(pair.outside.deliver(replace(JOB, terminals=(False, True, False))))


def test_a_locked_keep_does_not_run_twice() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    with pytest.raises(ProtocolViolation, match="run is not possible in state running"):
        pair.up(frame(VOCABULARY.encode(Run())))


def test_a_workload_does_not_run_before_the_lock_was_attested() -> None:
    pair = Pair().attested()
    pair.up(pair.outside.deliver(JOB))
    with pytest.raises(ProtocolViolation, match="before the evidence was given"):
        pair.up(frame(VOCABULARY.encode(Run())))


def test_a_swapped_workload_is_noticed_by_the_tenant() -> None:
    pair = Pair().attested()
    list(pair.outside.deliver(JOB))
    other = replace(JOB, module=JOB.module + b"!")
    pair.up(frame(VOCABULARY.encode(Deliver(header=other.header(), size=other.size))))
    for at in range(0, other.size, 1 << 18):
        pair.up(frame(VOCABULARY.encode(Chunk(data=other.module[at : at + (1 << 18)]))))
    with pytest.raises(ProtocolViolation, match="another workload"):
        pair.down(pair.inside.attest(b"evidence"))


def test_more_than_was_announced_is_refused() -> None:
    pair = Pair().attested()
    pair.up(frame(VOCABULARY.encode(Deliver(header=JOB.header(), size=10))))
    with pytest.raises(ProtocolViolation, match="more than the delivery has"):
        pair.up(frame(VOCABULARY.encode(Chunk(data=bytes(11)))))


def test_nothing_else_interrupts_a_delivery() -> None:
    pair = Pair().attested()
    pair.up(frame(VOCABULARY.encode(Deliver(header=JOB.header(), size=10))))
    with pytest.raises(ProtocolViolation, match="inside a delivery"):
        pair.up(frame(VOCABULARY.encode(Run())))


def test_output_before_the_start_is_refused() -> None:
    pair = Pair().locked()
    with pytest.raises(ProtocolViolation, match="expected state running"):
        pair.down(pair.inside.output(Stream.STDOUT, 0, b"early"))


def test_a_stop_that_comes_after_the_end_is_no_violation() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    pair.keep.life.move(Move.END)
    assert pair.up(pair.outside.stop()) == [Stopped()]


def test_whoever_attaches_is_told_how_much_there_is() -> None:
    pair = Pair().locked()
    assert pair.up(pair.outside.attach(1, 2)) == [Attached(1, 2)]
    [extent] = pair.down(pair.inside.extent(7, 0, ended=True))
    assert extent == Extent(stdout=7, stderr=0, ended=True)
    with pytest.raises(ProtocolViolation, match="Extent out of turn"):
        pair.down(pair.inside.extent(8, 0, ended=False))


def test_nobody_is_told_how_much_there_is_unasked() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    with pytest.raises(ProtocolViolation, match="Extent out of turn"):
        pair.down(pair.inside.extent(0, 0, ended=False))


def test_an_end_with_a_broken_audit_chain_is_refused() -> None:
    pair = Pair().locked()
    pair.up(pair.outside.run())
    records = [record.fields() for record in pair.keep.life.audit.records]
    del records[1]
    outcome = Outcome(ending=Ending.EXITED).value()
    with pytest.raises(Malformed, match="audit record 1"):
        pair.down(frame(VOCABULARY.encode(Exited(outcome=outcome, audit=list(records)))))


def test_a_problem_reaches_the_tenant_as_printable_text() -> None:
    pair = Pair()
    [problem] = pair.down(pair.inside.problem("no\x1b[2J", "try\nagain"))
    assert problem == Problem(text="no [2J", hint="try again")


def test_secrets_are_in_no_representation() -> None:
    pair = Pair().attested()
    [delivered] = pair.up(pair.outside.deliver(JOB))
    shown = repr((delivered, delivered.job, pair.keep, pair.keep.life.audit.records, JOB.secrets))
    assert "canary" not in shown
    assert "canary" not in repr(Deliver(header=JOB.header(), size=1))
    assert "canary" not in repr(JOB.mounts)


@pytest.mark.parametrize(
    "given",
    [{"config": b"canary"}, {"arguments": ("canary",)}, {"environment": (("TOKEN", "canary"),)}],
    ids=lambda given: next(iter(given)),
)
def test_what_a_workload_is_told_is_in_no_representation(given: dict[str, Any]) -> None:
    """Tenants put secrets there all the same."""
    assert "canary" not in repr(replace(JOB, **given))


@pytest.mark.parametrize(
    "change",
    [
        {"module": b"\0asm\1\0\0\0"},
        {"config": b'args = ["b"]\n'},
        {"arguments": ("b",)},
        {"environment": (("A", "b"),)},
        {"threads": True},
        {"roots": b"other"},
        {"secrets": (Secret(name="tokem", value=b"canary"),)},
        {"secrets": (Secret(name="token", value=b"canary", environment=True),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_two_digests_name_everything_that_runs(change: dict[str, Any]) -> None:
    other: Job = replace(JOB, **change)
    assert (workload_digest(other), configuration_digest(other)) != (
        workload_digest(JOB),
        configuration_digest(JOB),
    )


def test_the_configuration_digest_does_not_depend_on_the_value_of_a_secret() -> None:
    other = replace(JOB, secrets=(Secret(name="token", value=b"another"),))
    assert configuration_digest(other) == configuration_digest(JOB)


def test_the_tenant_key_is_bound() -> None:
    binding = Pair().up(Pair().outside.hello())[0].binding
    other = Pair(key=Ed25519PrivateKey.generate())
    assert other.up(other.outside.hello())[0].binding.tenant != binding.tenant
    assert TENANT.public_key().public_bytes_raw() not in binding.report_data()
