"""Proofs of a launch secret: one form, judged by the whole of it, and no verdict gives a right one away."""

from __future__ import annotations

import pytest
from tests.forge.launch import REPORT_DATA, SECRET, proof

from enarx.attest import EvidenceRejected, MalformedEvidence
from enarx.attest.checks import Ledger, explain
from enarx.attest.launch_proof import (
    MEDIA_TYPE,
    PROOF_BYTES,
    check_proof,
    looks_like_proof,
    pack_proof,
    parse_proof,
)
from enarx.tcb.keep.platform import _launch_secret
from enarx.tcb.keep.platform._launch_secret import LaunchSecretSource
from enarx.tcb.session import launch_proof
from enarx.tcb.wire import decode, encode


def test_what_the_keep_writes_is_read() -> None:
    assert _launch_secret.TYPE == MEDIA_TYPE
    match decode(LaunchSecretSource(SECRET).evidence(REPORT_DATA), max_bytes=1 << 12):
        case [str(kind), bytes(body)]:
            assert (kind, body) == (MEDIA_TYPE, proof())
        case other:
            raise AssertionError(other)


def test_a_proof_by_the_secret_gives_its_report_data() -> None:
    ledger = Ledger()
    assert check_proof(parse_proof(proof()), SECRET, ledger) == REPORT_DATA
    assert [check.name for check in ledger] == ["launch.proof"]


@pytest.mark.parametrize(
    "shown",
    [
        pack_proof(REPORT_DATA, bytes(32)),
        pack_proof(bytes(64), launch_proof(SECRET, REPORT_DATA)),
        pack_proof(REPORT_DATA, launch_proof(bytes(32), REPORT_DATA)),
    ],
)
def test_any_other_proof_is_refused_and_the_verdict_gives_no_right_one(shown: bytes) -> None:
    ledger, read = Ledger(), parse_proof(shown)
    with pytest.raises(EvidenceRejected) as refused:
        check_proof(read, SECRET, ledger)
    assert refused.value.check.name == "launch.proof"
    right = launch_proof(SECRET, read.report_data)
    for said in (explain(ledger), repr(ledger.checks()), str(refused.value)):
        assert right.hex() not in said
        assert repr(right) not in said


def test_every_bit_of_it_counts() -> None:
    """One bit of every byte: it is no proof any more, or one that does not hold."""
    for at in range(PROOF_BYTES):
        flipped = bytearray(proof())
        flipped[at] ^= 1 << at % 8
        with pytest.raises((EvidenceRejected, MalformedEvidence)):
            check_proof(parse_proof(bytes(flipped)), SECRET, Ledger())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        proof()[:-1],
        proof() + b"\0",
        encode([REPORT_DATA, bytes(31)]),
        encode([REPORT_DATA[:-1], bytes(33)]),
        encode([REPORT_DATA, bytes(32), b""]),
        encode([REPORT_DATA, "m" * 32]),
        encode({"report_data": REPORT_DATA}),
        b"\x9f" + proof()[1:] + b"\xff",
        b"\x82\x59\x00\x40" + proof()[3:],
    ],
)
def test_another_form_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence, match="launch proof"):
        parse_proof(data)


def test_it_is_recognised_by_size_and_beginning() -> None:
    assert looks_like_proof(proof())
    assert not looks_like_proof(proof()[:-1])
    assert not looks_like_proof(b"\x83" + proof()[1:])


def test_it_has_the_fields_that_are_judged() -> None:
    read = parse_proof(proof())
    assert read.fields() == {"report_data": REPORT_DATA, "mac": launch_proof(SECRET, REPORT_DATA)}
