"""Tenants of the demos against hosts that say anything: an error of ours, and nothing is said too early."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from enarx.api.demo import CertificateChain, ChainRequest, Line, Measurement, Message, Printed, Quote, Sealed
from enarx.attest import EvidenceRejected
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tenant.demo.sev import SevTenant, _number
from enarx.tenant.demo.sgx import SgxTenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSION = {"api_major": 1, "api_minor": 55, "build": 29}


def sev_tenant(told: list[Line]) -> SevTenant:
    return SevTenant(a=2, b=2, roots={}, say=told.append, random=bytes, now=NOW)


def sgx_tenant(told: list[Line]) -> SgxTenant:
    return SgxTenant(a=2, b=2, roots={}, say=told.append, random=bytes, now=NOW)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Measurement(measure=bytes(48), **VERSION), ProtocolViolation),
        (Printed(output=b"4\n", interpreted=False), ProtocolViolation),
        (CertificateChain(certificates=b"c", **VERSION), Malformed),
        (CertificateChain(certificates=bytes(4 * 2084), **VERSION), Malformed),
    ],
)
def test_a_sev_host_that_says_anything(answer: Message, error: type[EnarxError]) -> None:
    told: list[Line] = []
    dialogue = sev_tenant(told).converse()
    assert next(dialogue) == ChainRequest()
    with pytest.raises(error):
        dialogue.send(answer)
    assert len(told) == 1


@pytest.mark.parametrize(
    "output", [b"", b"\n", b"4", b"4\n\n", b"-4\n", b"\xb2\n", b"4 \n", b"123456\n", b"\x1b[2J\n"]
)
def test_output_that_is_no_number(output: bytes) -> None:
    with pytest.raises(Malformed, match="no number on a line"):
        _number(output)


def test_output_that_is_one() -> None:
    assert (_number(b"0\n"), _number(b"65535\n")) == (0, 65535)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Sealed(data=b"s"), ProtocolViolation),
        (Quote(quote=b"q", key=bytes(32), certificates=[], crls=[], documents=[]), Malformed),
        (Quote(quote=b"q", key=bytes(32), certificates=[], crls=[], documents=[["x", b""]]), Malformed),
        (Quote(quote=bytes(500), key=bytes(32), certificates=[b"c"], crls=[], documents=[]), EnarxError),
    ],
)
def test_an_sgx_host_that_says_anything(answer: Message, error: type[EnarxError]) -> None:
    told: list[Line] = []
    dialogue = sgx_tenant(told).converse()
    next(dialogue)
    with pytest.raises(error):
        dialogue.send(answer)
    assert len(told) == 1


def test_without_the_emulated_root_an_emulated_chain_is_refused() -> None:
    from tests.forge import amd  # keys are made when it is used

    chain = amd.octets(amd.sev().command("info", {})["platform_chain"])
    dialogue = sev_tenant([]).converse()
    next(dialogue)
    with pytest.raises(EvidenceRejected) as refused:
        dialogue.send(CertificateChain(certificates=chain, **VERSION))
    assert refused.value.check.name == "sev.chain.root"
