"""Event logs: real ones replay to what was quoted; faults of form and events that lie about their data are refused."""

from __future__ import annotations

import hashlib
import json

import pytest
from tests.evidence import Evidence, Sample, samples
from tests.forge.eventlog import NO_ACTION, Entry, cc_log, event_log, spec_id, u

from enarx.attest._eventlog import MAX_EVENTS, MAX_LOG_BYTES, extend_all, hash_bytes
from enarx.attest.measure import (
    Algorithm,
    EventType,
    check_event_data,
    extend,
    parse_cc_event_log,
    parse_ccel_table,
    parse_tpm_event_log,
    replay,
)
from enarx.tcb.errors import Malformed

SEPARATOR = Entry(index=0, kind=4, data=bytes(4))
ACTION = Entry(index=4, kind=EventType.EFI_ACTION, data=b"Calling EFI Application from Boot Option")
LOG = event_log([SEPARATOR, ACTION])
STARTUP = b"StartupLocality\0"


@pytest.mark.evidence
@pytest.mark.parametrize("sample", samples("tpm", "tcg-event-log"), ids=lambda sample: sample.id)
def test_a_recorded_log(sample: Sample) -> None:
    log = parse_tpm_event_log(sample.read("event_log"))
    assert len(log.events) == sample.expected["events"]
    for bank, pcrs in sample.expected["replayed_pcrs"].items():
        registers = replay(log, Algorithm[bank.upper()])
        assert {str(index): value.hex() for index, value in registers.items()} == pcrs
        check_event_data(log, Algorithm[bank.upper()])


@pytest.mark.evidence
@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384"])
def test_a_log_gives_the_pcrs_that_were_quoted(bank: str) -> None:
    sample = Evidence().sample("tpm/gce-cos85-nonce")
    registers = replay(parse_tpm_event_log(sample.read("event_log")), Algorithm[bank.upper()])
    quoted = json.loads(Evidence().read(f"tpm/gce-cos85-nonce/{bank}.pcrs.json"))["pcrs"]
    assert sorted(registers) == list(range(10))
    assert {str(index): value.hex() for index, value in registers.items()} == {
        index: value for index, value in quoted.items() if int(index) < 10
    }


@pytest.mark.evidence
@pytest.mark.parametrize(("name", "rtmrs"), [("tdx/v4-gcp-cos113-ccel", (0, 1, 2)), ("tdx/v4-tappd", (0,))])
def test_a_ccel_gives_the_rtmrs_of_the_quote(name: str, rtmrs: tuple[int, ...]) -> None:
    sample = Evidence().sample(name)
    log = parse_cc_event_log(sample.read("cc_event_log"))
    check_event_data(log, Algorithm.SHA384)
    registers = replay(log, Algorithm.SHA384)
    for number in rtmrs:
        assert registers[number + 1].hex() == sample.expected["fields"][f"rtmr{number}"]


@pytest.mark.evidence
def test_a_ccel_table() -> None:
    table = Evidence().read("tdx/v4-gcp-cos113-ccel/ccel_table.bin")
    parsed = parse_ccel_table(table)
    assert (parsed.cc_type, parsed.cc_subtype) == (2, 0)
    assert parsed.area_bytes == len(Evidence().read("tdx/v4-gcp-cos113-ccel/ccel.bin"))
    for at in range(len(table)):
        with pytest.raises(Malformed, match="ccel table"):
            parse_ccel_table(table[:at] + bytes([table[at] ^ 1]) + table[at + 1 :])


@pytest.mark.evidence
def test_a_recorded_ccel_with_a_second_separator() -> None:
    (sample,) = samples("tdx", "cc-event-log-negative")
    assert sample.expected["verdict"] == "reject"
    with pytest.raises(Malformed, match="second separator of register 1"):
        parse_cc_event_log(sample.read("event_log"))


def test_replay_is_a_chain_of_hashes() -> None:
    registers = replay(parse_tpm_event_log(LOG), Algorithm.SHA256)
    first = hashlib.sha256(bytes(32) + hashlib.sha256(bytes(4)).digest()).digest()
    assert registers == {0: first, 4: extend_all(Algorithm.SHA256, [hashlib.sha256(ACTION.data).digest()])}
    twice = replay(
        parse_tpm_event_log(event_log([SEPARATOR, Entry(index=0, kind=1, data=b"x")])), Algorithm.SHA256
    )
    assert twice[0] == extend(Algorithm.SHA256, first, hashlib.sha256(b"x").digest())


def test_events_that_take_no_action_change_nothing() -> None:
    note = Entry(index=0, kind=NO_ACTION, data=b"note")
    everywhere = Entry(index=0xFFFFFFFF, kind=NO_ACTION, data=b"SP800-155 Event3")
    log = parse_tpm_event_log(event_log([note, everywhere, SEPARATOR]))
    assert replay(log, Algorithm.SHA1) == replay(parse_tpm_event_log(event_log([SEPARATOR])), Algorithm.SHA1)


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_the_startup_locality_is_where_pcr0_begins(locality: int) -> None:
    entries = [Entry(index=0, kind=NO_ACTION, data=STARTUP + bytes([locality])), SEPARATOR, ACTION]
    registers = replay(parse_tpm_event_log(event_log(entries)), Algorithm.SHA256)
    start = bytes(31) + bytes([locality])
    assert registers[0] == extend(Algorithm.SHA256, start, hashlib.sha256(bytes(4)).digest())
    assert registers[4] == replay(parse_tpm_event_log(LOG), Algorithm.SHA256)[4]


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(index=0, kind=NO_ACTION, data=STARTUP + b"\1")],
        [Entry(index=0, kind=NO_ACTION, data=STARTUP)],
        [Entry(index=1, kind=NO_ACTION, data=STARTUP + b"\3")],
        [SEPARATOR, Entry(index=0, kind=NO_ACTION, data=STARTUP + b"\3")],
        [
            Entry(index=0, kind=NO_ACTION, data=STARTUP + b"\0"),
            Entry(index=0, kind=NO_ACTION, data=STARTUP + b"\3"),
        ],
    ],
)
def test_a_startup_locality_that_cannot_be(entries: list[Entry]) -> None:
    with pytest.raises(Malformed, match="startup locality"):
        parse_tpm_event_log(event_log(entries))


def test_registers_of_a_dynamic_launch_begin_with_ones() -> None:
    registers = replay(parse_tpm_event_log(event_log([Entry(index=17, kind=1, data=b"x")])), Algorithm.SHA256)
    assert registers[17] == extend(Algorithm.SHA256, b"\xff" * 32, hashlib.sha256(b"x").digest())


def test_logs_of_sha1_alone() -> None:
    old = b"".join(u(i) + u(4) + hash_bytes(Algorithm.SHA1, bytes(4)) + u(4) + bytes(4) for i in range(3))
    log = parse_tpm_event_log(old)
    assert log.algorithms == (Algorithm.SHA1,)
    assert sorted(replay(log, Algorithm.SHA1)) == [0, 1, 2]
    with pytest.raises(Malformed, match="no bank of SHA256"):
        replay(log, Algorithm.SHA256)
    with pytest.raises(Malformed, match="wants"):
        parse_tpm_event_log(old[:-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (bytes(MAX_LOG_BYTES + 1), "are allowed"),
        (LOG[:-1], "event data wants"),
        (LOG + b"\0", "register index wants 4 bytes"),
        (LOG + bytes(12), "has 0 digests, expected 2"),
        (LOG + b"\xff" * 32, "digests, expected 2"),
        (event_log([SEPARATOR, SEPARATOR]), "second separator of register 0"),
        (event_log([Entry(index=0, kind=4, data=u(1))]), "tells of a failed start"),
        (event_log([Entry(index=0, kind=4, data=b"")]), "tells of a failed start"),
        (event_log([Entry(index=24, kind=1, data=b"")]), "register 0x18, which does not exist"),
        (event_log([Entry(index=0xFFFFFFFF, kind=1, data=b"")]), "which does not exist"),
        (spec_id([4, 4]), "SHA1 is there twice"),
        (spec_id([4, 0xB], sizes=[20, 20]), "SHA256 is there twice or with 20-byte"),
        (spec_id([]), "names no hash"),
        (spec_id([4]).replace(b"\x04\x00\x14\x00", b"\x05\x00\x14\x00"), "unknown hash algorithm 0x5"),
        (spec_id([4]).replace(bytes((0, 2, 0, 2)), bytes((0, 1, 0, 2))), "version is 1.0"),
        (spec_id([4]) + Entry(index=0, kind=1, data=b"").pack([0xB]), "of algorithm 0xb twice or against"),
        (spec_id([4, 0xB]) + Entry(index=0, kind=1, data=b"").pack([4, 4]), "of algorithm 0x4 twice"),
        (spec_id([4, 0xB]) + Entry(index=0, kind=1, data=b"").pack([4]), "has 1 digests, expected 2"),
    ],
)
def test_a_log_out_of_form(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_tpm_event_log(data)


def test_a_header_with_more_than_it_says() -> None:
    header = bytearray(spec_id([4]) + b"\0")
    header[28:32] = u(int.from_bytes(header[28:32], "little") + 1)
    with pytest.raises(Malformed, match="trail"):
        parse_tpm_event_log(bytes(header))


def test_too_many_events() -> None:
    entry = Entry(index=0, kind=1, data=b"").pack([4])
    assert len(parse_tpm_event_log(spec_id([4]) + entry * MAX_EVENTS).events) == MAX_EVENTS
    with pytest.raises(Malformed, match="more than"):
        parse_tpm_event_log(spec_id([4]) + entry * (MAX_EVENTS + 1))


def test_a_bank_that_cannot_be_computed() -> None:
    sm3 = parse_tpm_event_log(
        spec_id([0x12], sizes=[32]) + u(0) + u(1) + u(1) + u(0x12, 2) + bytes(32) + u(0)
    )
    with pytest.raises(Malformed, match="no bank of SM3_256"):
        replay(sm3, Algorithm.SM3_256)
    with pytest.raises(Malformed, match="SM3_256 cannot be computed"):
        hash_bytes(Algorithm.SM3_256, b"")


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
def test_the_area_of_a_ccel_ends_in_fill(fill: bytes) -> None:
    entries = [Entry(index=1, kind=4, data=bytes(4)), Entry(index=4, kind=1, data=b"x")]
    log = parse_cc_event_log(cc_log(entries, fill=fill))
    assert sorted(replay(log, Algorithm.SHA384)) == [1, 4]
    assert log == parse_cc_event_log(cc_log(entries, area=0))
    with pytest.raises(Malformed, match="other bytes follow the fill"):
        parse_cc_event_log(cc_log(entries, fill=fill)[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LOG, "digests are SHA1, SHA256, expected SHA384 alone"),
        (cc_log([Entry(index=5, kind=1, data=b"")]), "register 0x5, which does not exist"),
        (cc_log([SEPARATOR, SEPARATOR]), "second separator"),
        (bytes(4096), "does not begin with a Spec ID Event03"),
        (b"\xff" * 4096, "wants"),
    ],
)
def test_a_ccel_out_of_form(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_cc_event_log(data)


def variable(name: str, value: bytes) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return bytes(16) + u(len(name), 8) + u(len(value), 8) + name.encode("utf-16-le") + value


@pytest.mark.parametrize(
    "kind",
    [
        EventType.ACTION,
        EventType.S_CRTM_VERSION,
        EventType.EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EFI_VARIABLE_BOOT,
        EventType.EFI_VARIABLE_BOOT2,
        EventType.EFI_GPT_EVENT,
        EventType.EFI_ACTION,
    ],
)
def test_an_event_whose_data_were_replaced(kind: EventType) -> None:
    log = parse_tpm_event_log(event_log([Entry(index=1, kind=kind, data=b"told", measured=b"measured")]))
    with pytest.raises(Malformed, match=f"type {kind:#x} has data that its SHA256 digest does not cover"):
        check_event_data(log, Algorithm.SHA256)
    check_event_data(
        parse_tpm_event_log(event_log([Entry(index=1, kind=kind, data=b"told")])), Algorithm.SHA256
    )


def test_a_separator_whose_digest_is_another() -> None:
    log = parse_tpm_event_log(event_log([Entry(index=1, kind=4, data=bytes(4), measured=b"evil")]))
    with pytest.raises(Malformed, match="does not cover"):
        check_event_data(log, Algorithm.SHA256)


def test_boot_variables_may_be_measured_by_value() -> None:
    data = variable("BootOrder", b"\0\0")
    log = parse_tpm_event_log(
        event_log([Entry(index=1, kind=EventType.EFI_VARIABLE_BOOT, data=data, measured=b"\0\0")])
    )
    check_event_data(log, Algorithm.SHA256)
    for wrong in (variable("BootOrder", b"\1\0"), data + b"\0", data[:31]):
        entry = Entry(index=1, kind=EventType.EFI_VARIABLE_BOOT, data=wrong, measured=b"\0\0")
        with pytest.raises(Malformed, match="does not cover"):
            check_event_data(parse_tpm_event_log(event_log([entry])), Algorithm.SHA256)


def test_types_that_say_nothing_about_their_digest_prove_nothing() -> None:
    log = parse_tpm_event_log(
        event_log([Entry(index=8, kind=EventType.IPL, data=b"cmdline", measured=b"file")])
    )
    check_event_data(log, Algorithm.SHA256)
    assert not log.events[0].proves_data(Algorithm.SHA256)
