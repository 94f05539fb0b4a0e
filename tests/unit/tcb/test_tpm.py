"""Commands that a real TPM understands, and answers that no TPM gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.pki import NOW
from tests.software_tpm import SoftwareTpm, plain_command, software_tpm

from enarx.attest import AuthenticityOnly, Claims, Collateral, EvidenceRejected, TrustAnchors, Verifier
from enarx.attest.tpm import VERIFIER, pack_evidence
from enarx.tcb import tpm
from enarx.tcb.errors import Malformed, Unavailable

DATA = bytes(range(64))


@pytest.fixture(scope="module")
def machine() -> Iterator[SoftwareTpm]:
    with software_tpm() as found:
        found.extend(4, b"kernel")
        yield found


def point_of(machine: SoftwareTpm) -> bytes:
    return tpm.read_primary(tpm.ask(machine.exchange, tpm.create_primary()))[1]


@pytest.fixture(scope="module")
def answers(machine: SoftwareTpm) -> dict[str, bytes]:
    """One answer of each kind."""
    primary = machine.exchange(tpm.create_primary())
    handle, _ = tpm.read_primary(primary)
    return {
        "primary": primary,
        "quote": machine.exchange(tpm.quote(handle, DATA)),
        "registers": machine.exchange(tpm.pcr_read(tpm.PCRS)),
    }


READERS: dict[str, Callable[[bytes], object]] = {
    "primary": tpm.read_primary,
    "quote": tpm.read_quote,
    "registers": tpm.read_pcr_values,
}


def judge(evidence: bytes, point: bytes, binding: bytes = DATA) -> Claims:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    anchors = TrustAnchors.none().adding(spki, name="enrolled")
    verifier = Verifier(tees=[VERIFIER], anchors=anchors, policy=AuthenticityOnly())
    return verifier.verify(evidence, collateral=Collateral.none(), binding=binding, now=NOW)


def test_what_the_tpm_quotes_is_verified(machine: SoftwareTpm, answers: dict[str, bytes]) -> None:
    _, point = tpm.read_primary(answers["primary"])
    evidence = pack_evidence(*tpm.read_quote(answers["quote"]), tpm.read_registers(machine.exchange))
    claims = judge(evidence, point)
    assert claims.measurements == {
        f"pcr{index}": hashlib.sha256(bytes(32) + hashlib.sha256(b"kernel").digest()).digest()
        if index == 4
        else bytes(32)
        for index in tpm.PCRS
    }
    with pytest.raises(EvidenceRejected) as refused:
        judge(evidence, point, binding=DATA[::-1])
    assert refused.value.check.name == "binding.report_data"


def test_a_tpm_has_one_key_for_ever_and_no_other_tpm_has_it(machine: SoftwareTpm, tmp_path: Path) -> None:
    with software_tpm(tmp_path) as first:
        key = point_of(first)
        assert point_of(first) == key
    with software_tpm(tmp_path) as again:
        assert point_of(again) == key
    assert point_of(machine) != key


def test_registers_come_in_several_answers(machine: SoftwareTpm) -> None:
    """The TPM gives eight at a time, and nine are quoted."""
    asked: list[bytes] = []

    def counted(command: bytes) -> bytes:
        asked.append(command)
        return machine.exchange(command)

    assert len(tpm.read_registers(counted)) == 32 * len(tpm.PCRS)
    assert len(asked) == 2


def test_a_refusal_is_told_with_its_code(machine: SoftwareTpm) -> None:
    with pytest.raises(Unavailable, match="refuses QUOTE with 0x"):
        tpm.read_quote(machine.exchange(tpm.quote(0x81000000, DATA)))


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x922])
def test_a_tpm_that_is_busy_is_asked_again_and_not_for_ever(code: int) -> None:
    busy = bytes.fromhex("8001 0000000a") + code.to_bytes(4, "big")
    said = [busy] * (tpm.ATTEMPTS - 1)
    assert tpm.ask(lambda _: said.pop() if said else b"done", tpm.create_primary()) == b"done"
    with pytest.raises(Unavailable, match=f"in {tpm.ATTEMPTS} attempts"):
        tpm.ask(lambda _: busy, tpm.create_primary())


@pytest.mark.parametrize("kind", READERS)
def test_an_answer_cut_anywhere_or_prolonged_is_malformed(kind: str, answers: dict[str, bytes]) -> None:
    read, whole = READERS[kind], answers[kind]
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            read(whole[:size])
        with pytest.raises(Malformed):  # also when it says so itself
            read(whole[:2] + size.to_bytes(4, "big") + whole[6:size])
    with pytest.raises(Malformed):
        read(whole + b"\0")
    with pytest.raises(Malformed):
        read(whole[:2] + (len(whole) + 1).to_bytes(4, "big") + whole[6:] + b"\0")


@pytest.mark.parametrize("kind", READERS)
def test_an_answer_to_another_command_is_malformed(kind: str, answers: dict[str, bytes]) -> None:
    for other in READERS:
        if other != kind:
            with pytest.raises(Malformed):
                READERS[kind](answers[other])


def spoiled(answer: bytes, at: int, data: bytes) -> bytes:
    return answer[:at] + data + answer[at + len(data) :]


def test_a_key_of_another_kind_is_refused(answers: dict[str, bytes]) -> None:
    """One that may sign anything would sign what looks like a quote."""
    head = answers["primary"].index(bytes.fromhex("0023000b00050472"))
    for what in (
        spoiled(answers["primary"], head + 4, bytes.fromhex("00040472")),
        spoiled(answers["primary"], head + 2, b"\0\x0c"),
    ):
        with pytest.raises(Malformed, match="not what was asked for"):
            tpm.read_primary(what)


def test_an_answer_in_another_session_is_refused(answers: dict[str, bytes]) -> None:
    with pytest.raises(Malformed, match="authorization area"):
        tpm.read_quote(answers["quote"][:-3] + b"\x41\0\0")


def test_registers_that_were_not_asked_for_are_refused(answers: dict[str, bytes]) -> None:
    at = answers["registers"].index(b"\x00\x0b\x03") + 3
    moved = spoiled(answers["registers"], at, b"\xfe\x04")  # PCR10 in place of PCR0
    with pytest.raises(Malformed, match="asked for"):
        tpm.read_registers(lambda _: moved)
    none = spoiled(answers["registers"], at, bytes(3))[: at + 3] + bytes(4)
    none = none[:2] + len(none).to_bytes(4, "big") + none[6:]
    with pytest.raises(Malformed, match="asked for"):
        tpm.read_registers(lambda _: none)
    with pytest.raises(Malformed, match="SHA-256"):
        tpm.read_registers(lambda _: spoiled(answers["registers"], at - 3, b"\0\x04"))


def test_only_what_a_quote_needs_may_be_sent() -> None:
    commands = [tpm.create_primary(), tpm.quote(0x80000000, DATA), tpm.pcr_read([0])]
    assert [tpm.code_of(it) for it in commands] == list(tpm.Command)
    passed = []
    for code in (*range(0x11F, 0x1A0), 0x20000000):
        try:
            passed.append(tpm.code_of(plain_command(code)))
        except Malformed:
            continue
    assert passed == list(tpm.Command)
    for wrong in (b"", commands[0][:-1], commands[0] + b"\0", commands[2][:9]):
        with pytest.raises(Malformed, match="length"):
            tpm.code_of(wrong)
