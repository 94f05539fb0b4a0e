"""Laws of SNP evidence: layouts cover every byte, parsers are total, signing and verifying agree, order is
componentwise.
"""

from __future__ import annotations

import contextlib

import pytest
from fuzz.snp import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.pki import NOW
from tests.forge.snp import REPORT_DATA, Case, Report, vcek

from enarx.attest import AuthenticityOnly, EvidenceRejected, Verifier
from enarx.attest.chain import parse_revocation_list
from enarx.attest.material import recognise_collateral
from enarx.attest.snp import VERIFIER, Line, Tcb, parse_evidence, parse_report
from enarx.attest.snp._report import LAYOUTS, REPORT_BYTES, SIGNED_BYTES, TCB_LAYOUTS
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError

BYTE = st.integers(0, 255)


@pytest.mark.parametrize("version", sorted(LAYOUTS))
def test_a_layout_names_every_byte_once(version: int) -> None:
    layout = LAYOUTS[version]
    spans = [*layout.fields.values(), *layout.reserved]
    assert sorted(byte for span in spans for byte in span) == list(range(REPORT_BYTES))


@given(st.binary(max_size=2048))
def test_parsers_are_total(data: bytes) -> None:
    for parse in (parse_evidence, parse_certificate, parse_revocation_list, recognise_collateral):
        with contextlib.suppress(EnarxError):
            parse(data)
    one(data)


@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.binary(min_size=64, max_size=64),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_what_a_report_says_is_what_was_put_in(version: int, data: bytes, vmpl: int, svn: int) -> None:
    report = parse_report(Report(version=version).but(report_data=data, vmpl=vmpl, guest_svn=svn).raw)
    assert (report.version, report.report_data, report.vmpl, report.guest_svn) == (version, data, vmpl, svn)
    assert report.signed == report.raw[:SIGNED_BYTES]


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
@settings(max_examples=40, deadline=None)
def test_a_reserved_byte_that_is_not_zero_is_malformed(version: int, data: st.DataObject) -> None:
    gaps = [at for span in LAYOUTS[version].reserved for at in span]
    raw = bytearray(Report(version=version).raw)
    raw[data.draw(st.sampled_from(gaps))] = data.draw(st.integers(1, 255))
    with pytest.raises(EnarxError):
        parse_report(bytes(raw))


@given(at=st.integers(0, SIGNED_BYTES - 1), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_no_signed_bit_can_change(at: int, bit: int) -> None:
    case = Case()
    raw = bytearray(case.report.raw)
    raw[at] ^= 1 << bit
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    with pytest.raises(EnarxError):
        verifier.verify(bytes(raw), collateral=case.collateral, binding=REPORT_DATA, now=NOW)


@given(st.binary(min_size=8, max_size=8), st.sampled_from(list(Line)))
def test_a_tcb_version_is_its_components(raw: bytes, line: Line) -> None:
    layout = TCB_LAYOUTS[line]
    if any(raw[at] for span in layout.reserved for at in span):
        with pytest.raises(EnarxError):
            Tcb.parse(raw, line)
        return
    parts = Tcb.parse(raw, line).components()
    assert parts == {name: raw[span.start] for name, span in layout.fields.items()}


@given(st.tuples(BYTE, BYTE, BYTE, BYTE), st.tuples(BYTE, BYTE, BYTE, BYTE))
def test_one_tcb_is_within_another_only_in_every_component(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    """A permutation of the components is never within unless each one is (verifiers compared them as one
    number).
    """
    names = ("bootloader", "tee", "snp", "microcode")
    low, high = Tcb(**dict(zip(names, one, strict=True))), Tcb(**dict(zip(names, other, strict=True)))
    assert low.within(high) == all(a <= b for a, b in zip(one, other, strict=True))


@given(st.binary(min_size=64, max_size=64))
@settings(max_examples=25, deadline=None)
def test_any_hardware_id_is_taken_as_it_is(hwid: bytes) -> None:
    case = Case(report=Report().but(chip_id=hwid), leaf=vcek(hwid=hwid))
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    claims = verifier.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert claims.chip_id == (hwid if any(hwid) else None)


@given(st.binary(max_size=80).filter(lambda data: data != REPORT_DATA))
def test_no_other_binding_is_accepted(binding: bytes) -> None:
    case = CASE
    with pytest.raises(EvidenceRejected):
        VERIFIES.verify(RAW, collateral=GIVEN, binding=binding, now=NOW)
    assert case.trusted is None


CASE = Case()
RAW, GIVEN = CASE.report.raw, CASE.collateral
VERIFIES = Verifier(tees=[VERIFIER], anchors=CASE.anchors, policy=AuthenticityOnly())
