"""Laws of launch proofs: nothing but the MAC of exactly these report data under exactly this secret holds."""

from __future__ import annotations

import contextlib

from fuzz.launch import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.launch import proof, proven
from tests.forge.sev import Launch

from enarx.attest import EvidenceRejected
from enarx.attest.checks import Ledger
from enarx.attest.launch_proof import PROOF_BYTES, check_proof, looks_like_proof, pack_proof, parse_proof
from enarx.tcb.errors import EnarxError

SECRETS = st.binary(min_size=32, max_size=32)
REPORT_DATA = st.binary(min_size=64, max_size=64)


@given(st.binary(max_size=2 * PROOF_BYTES))
def test_any_bytes_are_a_value_or_our_error(data: bytes) -> None:
    one(data)


@given(SECRETS, REPORT_DATA, SECRETS, REPORT_DATA)
def test_a_proof_holds_for_its_secret_and_report_data_alone(
    secret: bytes, report_data: bytes, other: bytes, others: bytes
) -> None:
    shown = parse_proof(proof(secret, report_data))
    assert check_proof(shown, secret, Ledger()) == report_data
    moved = parse_proof(pack_proof(others, shown.mac))
    for read, key, right in ((shown, other, other == secret), (moved, secret, others == report_data)):
        holds = False
        with contextlib.suppress(EvidenceRejected):
            check_proof(read, key, Ledger())
            holds = True
        assert holds is right


@given(SECRETS, REPORT_DATA, st.integers(0, 8 * PROOF_BYTES - 1))
def test_a_proof_of_which_one_bit_is_flipped_holds_nowhere(
    secret: bytes, report_data: bytes, bit: int
) -> None:
    flipped = bytearray(proof(secret, report_data))
    flipped[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(EnarxError):
        check_proof(parse_proof(bytes(flipped)), secret, Ledger())
        raise AssertionError("it was accepted")


@given(REPORT_DATA, SECRETS)
def test_what_was_packed_is_recognised_and_read(report_data: bytes, mac: bytes) -> None:
    packed = pack_proof(report_data, mac)
    assert looks_like_proof(packed)
    assert (parse_proof(packed).report_data, parse_proof(packed).mac) == (report_data, mac)


@settings(deadline=None)  # the first of them makes keys
@given(at=st.integers(0, 8800), piece=st.binary(min_size=1, max_size=64), cut=st.booleans())
def test_proven_launches_with_other_bytes_in_them_are_a_value_or_our_error(
    at: int, piece: bytes, cut: bool
) -> None:
    raw = proven(Launch())
    one(raw[:at] + piece + (b"" if cut else raw[at + len(piece) :]))
