"""How a keep gets quotes through the first process of its machine, and how little else a hostile keep gets."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.software_tpm import SoftwareTpm, extend_command, plain_command, software_tpm
from tests.unit.tcb.keep.vm.tree_port import served

from enarx.attest import bundle, cmw
from enarx.attest.tpm import parse_evidence
from enarx.tcb import tpm
from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform import PortTree, find_source
from enarx.tcb.keep.platform import _tpm as source
from enarx.tcb.keep.vm._tpm_tree import ANSWER, COMMAND, LOG, TpmTree
from enarx.tcb.wire import decode

DATA = bytes(range(64))
THE_LOG = b"what firmware says that it has measured"


@pytest.fixture
def machine() -> Iterator[SoftwareTpm]:
    with software_tpm() as found:
        yield found


@pytest.fixture
def port(machine: SoftwareTpm) -> Iterator[PortTree]:
    yield from served(TpmTree(machine.sock.fileno(), THE_LOG))


def test_quotes_come_with_registers_and_log(machine: SoftwareTpm, port: PortTree) -> None:
    machine.extend(9, b"command line")
    found = find_source(port)
    for data in (DATA, DATA[::-1]):
        evidence = found.evidence(data)
        message = cmw.parse(evidence)
        assert isinstance(message, cmw.Collection)
        assert message.type == bundle.TYPE
        assert message.items["event-log"] == cmw.Record("application/octet-stream", THE_LOG)
        quote = parse_evidence(cmw.to_cbor(message.items["evidence"]))
        assert (quote.extra_data, quote.selection) == (data, tpm.PCRS)
        assert quote.pcrs[9] != quote.pcrs[4] == bytes(32)


def test_firmware_without_a_log_leaves_none(machine: SoftwareTpm) -> None:
    for port in served(TpmTree(machine.sock.fileno(), b"")):
        evidence = decode(find_source(port).evidence(DATA), max_bytes=1 << 16)
        assert isinstance(evidence, dict)
        assert set(evidence) == {"__cmwc_t", "evidence"}


HOSTILE = {
    "extend a register": extend_command(4, b"another kernel"),
    "reset a register": plain_command(0x13D, bytes.fromhex("00000010")),
    "clear the TPM": plain_command(
        0x126, bytes.fromhex("4000000c 00000009 40000009 0000 00 0000"), tag=0x8002
    ),
    "change the endorsement seed": plain_command(0x124),
    "certify another key": plain_command(0x148),
    "sign anything": plain_command(0x15D),
    "read what it stores": plain_command(0x14E),
    "read another key": plain_command(0x173, bytes.fromhex("81010001")),
    "start a session": plain_command(0x176),
    "shut it down": plain_command(0x145, b"\0\0"),
    "two commands in one": tpm.pcr_read([0]) + extend_command(4, b"another kernel"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_keep_that_was_taken_over_cannot(what: str, machine: SoftwareTpm, port: PortTree) -> None:
    before = tpm.read_registers(machine.exchange)
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the number is checked)
        port.write(COMMAND, HOSTILE[what])
    assert raised.value.errno == errno.EINVAL
    assert tpm.read_registers(machine.exchange) == before


@pytest.mark.parametrize("path", ["tpm0", "tpm0/", "/dev/tpm0", "tpm0/../../etc/passwd", "", "tpm1/answer"])
def test_there_are_no_other_files(path: str, port: PortTree) -> None:
    assert port.list(path) == ["tpm0"]
    for attempt, number in (
        (lambda: port.read(path), errno.ENOENT),
        (lambda: port.write(path, tpm.create_primary()), errno.EACCES),
        (lambda: port.make(path), errno.EACCES),
        (lambda: port.remove(path), errno.EACCES),
    ):
        with pytest.raises(OSError) as raised:  # noqa: PT011 (the number is checked)
            attempt()
        assert raised.value.errno == number
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the number is checked)
        port.write(LOG, b"another log")
    assert raised.value.errno == errno.EACCES


class LyingTree:
    """A TPM that a host made, which says what it likes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def list(self, path: str) -> list[str]:
        return [source.FOLDER]

    def read(self, path: str) -> bytes:
        return self._answer if path == ANSWER else THE_LOG

    def write(self, path: str, data: bytes) -> None:
        assert path == COMMAND

    def make(self, path: str) -> None:
        raise AssertionError(path)

    remove = make


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "does not answer as one"),
        (b"\xff" * 4096, "does not answer as one"),
        (bytes.fromhex("8001 0000000a 00000101"), "refuses CREATE_PRIMARY with 0x101"),
        (bytes.fromhex("8001 0000000a 00000922"), "in 5 attempts"),
    ],
    ids=["nothing", "noise", "failure mode", "always later"],
)
def test_whatever_a_tpm_says_a_keep_only_has_no_evidence(answer: bytes, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        find_source(LyingTree(answer)).evidence(DATA)
