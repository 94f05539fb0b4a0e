"""The guest of the SEV demo in both kinds of machine: they print the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx.api.demo_guest import CODE, ENTRY, REGION_BYTES, assemble, measured_memory
from enarx.host.demo.machine import open_machine
from enarx.tcb.errors import EnarxError
from ketuvim import EmulationFailed, KvmUnavailable, Misuse, VmType
from ketuvim.system import DEVICE

WITHOUT = "/dev/none"
PLACES = [
    WITHOUT,
    pytest.param(DEVICE, marks=pytest.mark.skipif(not Path(DEVICE).exists(), reason=f"needs {DEVICE}")),
]


def printed(device: str, code: bytes) -> bytes:
    with open_machine(device, VmType.DEFAULT) as machine:
        assert machine.interpreted is (device == WITHOUT)
        machine.vm.write(ENTRY, measured_memory())
        machine.vm.write(CODE, code)
        assert machine.vm.read(CODE, len(code)) == code
        return machine.run()


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (2, 2), (9, 1), (99, 1), (12345, 50000), (65535, 0), (65535, 1), (65535, 65535)]
)
def test_it_prints_the_sum_of_words(device: str, a: int, b: int) -> None:
    assert printed(device, assemble(a, b)) == f"{(a + b) % 65536}\n".encode()


@pytest.mark.parametrize("device", PLACES)
def test_memory_ends_where_the_guest_ends(device: str) -> None:
    with open_machine(device, VmType.DEFAULT) as machine:
        for address, size in ((ENTRY - 1, 2), (ENTRY + REGION_BYTES - 1, 2), (0x100000, 1)):
            with pytest.raises(Misuse, match="no region holds"):
                machine.vm.write(address, bytes(size))
            with pytest.raises(Misuse, match="no region holds"):
                machine.vm.read(address, size)


def test_code_that_the_interpreter_does_not_know() -> None:
    with pytest.raises(EmulationFailed, match="0f0b"):
        printed(WITHOUT, bytes.fromhex("0f0b"))


def test_a_guest_that_writes_elsewhere_or_without_end() -> None:
    elsewhere = bytes.fromhex("ba7000 ee c3")  # mov dx, 0x70; out dx, al
    with pytest.raises(EnarxError, match="port 0x70"):
        printed(WITHOUT, elsewhere)
    endless = bytes.fromhex("baf803 bb0100 ee b9ffff e2fa c3")  # out: out dx, al; mov cx, -1; loop out
    with pytest.raises(EnarxError, match="a line on 0x3f8"):
        printed(WITHOUT, endless)


def test_a_file_that_is_no_kvm() -> None:
    with pytest.raises(KvmUnavailable, match="is not KVM"), open_machine("/dev/null", VmType.DEFAULT):
        pass


def test_encrypted_machines_are_never_interpreted() -> None:
    with pytest.raises(KvmUnavailable, match="cannot be opened"), open_machine(WITHOUT, VmType.SEV):
        pass
