"""The ultravisor gives secrets only to what the owner sealed, and answers everything else with its status codes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.evidence import Evidence

from enarx.attest.pef import Digests, build_esm_blob
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.errors import FirmwareError
from enarx_emulator.faults import Fault
from enarx_emulator.ibm.faults import FAULTS
from enarx_emulator.ibm.machine import BOOTARGS, PefMachine, make
from enarx_emulator.ibm.ultravisor import Loaded, Status, Ultravisor
from enarx_emulator.machine import Setup
from enarx_emulator.seed import Seed
from enarx_emulator.state import Memory

GUID = "736870e5-84f0-4973-92ec-06879ce3da0b"
IMAGE = b"image of a keep"
SECRET = b"launch secret of 32 bytes, or so"


@pytest.fixture(scope="module")
def saved() -> Mapping[str, Value]:
    """A machine that has a key, which takes a while to make."""
    machine = machine_of()
    machine.command("info", {})
    return machine.save()


def machine_of(saved: Mapping[str, Value] | None = None, *faults: str) -> PefMachine:
    setup = Setup(kind="pef", seed=Seed(bytes(32)), vendor=Memory(), saved=saved, faults=frozenset(faults))
    return make(setup)


def blob_for(machine: PefMachine, **files: bytes) -> bytes:
    key = machine.command("info", {})["machine_key"]
    assert isinstance(key, bytes)
    digests = Digests.of(kernel=IMAGE, bootargs=BOOTARGS)
    return build_esm_blob(digests, machines={"m": key}, files=files or {GUID: SECRET}, random=os.urandom)


def status(machine: PefMachine, name: str, **arguments: object) -> str:
    with pytest.raises(FirmwareError) as caught:
        machine.command(name, arguments)
    return caught.value.status.name


def test_the_verified_guest_gets_its_secret(saved: Mapping[str, Value]) -> None:
    machine = machine_of(saved)
    launched = machine.command("launch", {"image": IMAGE, "esm_blob": blob_for(machine)})
    assert launched["measurement"] == Digests.of(kernel=IMAGE, bootargs=BOOTARGS).measurement
    handle = launched["guest"]
    assert isinstance(handle, int)
    machine.command("finish", {"guest": handle})
    machine.command("finish", {"guest": handle})  # it is secure already: success
    tree = machine.guest(handle).tree()
    assert tree.list("coco") == [GUID]
    assert tree.read(f"coco/{GUID}") == SECRET


def test_nobody_gets_a_secret_before_the_guest_is_verified(saved: Mapping[str, Value]) -> None:
    machine = machine_of(saved)
    handle = machine.command("launch", {"image": IMAGE, "esm_blob": blob_for(machine)})["guest"]
    assert isinstance(handle, int)
    with pytest.raises(FirmwareError, match="U_NOT_AVAILABLE"):
        machine.guest(handle)


@pytest.mark.parametrize(
    "changes", [{"image": b"another"}, {"initrd": b"x"}, {"bootargs": ""}, {"rtas": b""}]
)
def test_another_guest_gets_nothing(saved: Mapping[str, Value], changes: Mapping[str, object]) -> None:
    machine = machine_of(saved)
    arguments = {"image": IMAGE, "esm_blob": blob_for(machine), **changes}
    handle = machine.command("launch", arguments)["guest"]
    assert status(machine, "finish", guest=handle) == "U_PERMISSION"
    assert isinstance(handle, int)
    with pytest.raises(FirmwareError, match="U_NOT_AVAILABLE"):
        machine.guest(handle)


def test_a_blob_for_another_machine_stays_shut(saved: Mapping[str, Value]) -> None:
    machine, other = machine_of(saved), machine_of()
    handle = machine.command("launch", {"image": IMAGE, "esm_blob": blob_for(other)})["guest"]
    assert status(machine, "finish", guest=handle) == "U_PERMISSION"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_refused(saved: Mapping[str, Value], fault: Fault) -> None:
    machine = machine_of(saved, fault.name)
    handle = machine.command("launch", {"image": IMAGE, "esm_blob": blob_for(machine)})["guest"]
    assert status(machine, "finish", guest=handle) == fault.caught_by


def test_a_machine_comes_back_with_its_key(saved: Mapping[str, Value]) -> None:
    first, second = machine_of(saved), machine_of(dict(saved))
    assert first.command("info", {}) == second.command("info", {})
    handle = second.command("launch", {"image": IMAGE, "esm_blob": blob_for(first)})["guest"]
    second.command("finish", {"guest": handle})


def test_wrong_commands_get_status_codes(saved: Mapping[str, Value]) -> None:
    machine = machine_of(saved)
    assert status(machine, "report") == "U_FUNCTION"
    assert status(machine, "secret", guest=1) == "U_FUNCTION"
    assert status(machine, "finish", guest=7) == "U_PARAMETER"
    assert status(machine, "launch", image=b"", esm_blob=b"") == "U_PARAMETER"
    handle = machine.command("launch", {"image": IMAGE, "esm_blob": b"no tree"})["guest"]
    assert status(machine, "finish", guest=handle) == "U_PARAMETER"
    machine.command("stop", {"guest": handle})
    assert status(machine, "stop", guest=handle) == "U_PARAMETER"
    for arguments in ({}, {"image": 1, "esm_blob": b""}, {"image": b"i", "esm_blob": b"", "more": 1}):
        with pytest.raises(Malformed):
            machine.command("launch", arguments)


def test_a_file_that_the_real_one_would_cut_is_refused(saved: Mapping[str, Value]) -> None:
    machine = machine_of(saved)
    blob = blob_for(machine, big=bytes(0x10000))
    handle = machine.command("launch", {"image": IMAGE, "esm_blob": blob})["guest"]
    assert status(machine, "finish", guest=handle) == "U_PARAMETER"


@pytest.mark.evidence
def test_the_blob_of_ibms_tool_makes_its_machine_secure(evidence: Evidence) -> None:
    sample = evidence.sample("pef/svm-tool-1")
    key = load_pem_private_key(sample.read("machine_private_TEST_ONLY"), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    ultravisor = Ultravisor(key)
    loaded = Loaded(
        kernel=sample.read("kernel"), initrd=sample.read("initrd"), bootargs=sample.expected["bootargs"]
    )
    files = ultravisor.esm(loaded, sample.read("esm_blob"))
    assert files == {"file-1": sample.read("file_1"), "file-2": sample.read("file_2")}
    with pytest.raises(FirmwareError) as caught:
        ultravisor.esm(Loaded(kernel=loaded.kernel, bootargs=loaded.bootargs), sample.read("esm_blob"))
    assert caught.value.status is Status.U_PERMISSION
