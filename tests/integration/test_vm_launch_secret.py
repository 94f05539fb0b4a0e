"""The firmware of SEV guests, the kernel and the keep bring a launch secret from memory to a tenant's proof.

There is no SEV here, so nothing encrypts. The machine's loader puts into memory what LAUNCH_UPDATE_DATA and
LAUNCH_SECRET would: the hashes of what is booted, without which this firmware boots nothing, and the secrets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.test_vm_measured_boot import MEMORY_MIB, qemu_version
from tests.integration.vm_keep import SECRET, Machine, keep_image

from enarx.api.vm_image import VmImage
from enarx.attest._guid_table import entry_numbers, parse_guid_table
from enarx.attest.measure import hash_kernel, parse_sev_firmware, patched_kernel
from enarx.attest.sev import build_secret_table
from enarx.host.vm import Boot, Guest, Protection, VmKeep
from enarx.tcb.keep.vm._launch_secret import AREA_BYTES
from enarx.tcb.sallyport.items import Exited
from enarx.tcb.session import LAUNCH_GUID
from enarx.tcb.workload import Ending, Job, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm"), pytest.mark.timeout(300)]
SECRET_BLOCK = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
"""By which QEMU finds the area in the firmware (edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm)."""

TABLE = build_secret_table({UUID(LAUNCH_GUID): SECRET})


@pytest.fixture(scope="module")
def image() -> VmImage:
    return keep_image()


def loaded(at: int, content: bytes, file: Path) -> tuple[str, str]:
    """Have QEMU begin with ``content`` at the address ``at``."""
    file.write_bytes(content)
    return ("-device", f"loader,addr={at:#x},file={file},force-raw=on")


@contextlib.contextmanager
def launched(image: VmImage, place: Path, table: bytes) -> Iterator[Machine]:
    """Boot the image as SEV's firmware does, with ``table`` where a launch puts it."""
    assert image.sev_firmware is not None
    firmware = parse_sev_firmware(image.sev_firmware.read_bytes())
    area = entry_numbers(parse_guid_table(firmware.image), SECRET_BLOCK, "secrets", 2)
    assert area is not None
    assert firmware.kernel_hashes_gpa == area[0] + AREA_BYTES == sum(area)
    kernel, initrd = image.kernel.read_bytes(), image.initrd.read_bytes()
    if qemu_version() < 10:
        kernel = patched_kernel(
            kernel, memory_bytes=MEMORY_MIB << 20, initrd_bytes=len(initrd), cmdline=image.cmdline
        )
    hashes = hash_kernel(kernel, initrd=initrd, cmdline=image.cmdline)
    extra = (
        *loaded(area[0], table, place / "secrets"),
        *loaded(firmware.kernel_hashes_gpa, hashes.table(), place / "hashes"),
    )
    boot = Boot(kernel=image.kernel, initrd=image.initrd, firmware=image.sev_firmware)
    guest = Guest(cmdline=image.cmdline, memory_mib=MEMORY_MIB, extra=extra)
    keep = VmKeep(Protection.TPM, boot, guest)  # what starts firmware without a TEE
    try:
        keep.await_ready()
        host = Machine(keep.channel)
        try:
            yield host
        finally:
            host.close()
    finally:
        keep.stop()


def test_a_launch_secret_in_the_firmwares_page_is_proved_to_the_tenant(
    image: VmImage, tmp_path: Path
) -> None:
    from wasmtime import wat2wasm

    table = build_secret_table({UUID(int=1): b"of another", UUID(LAUNCH_GUID): SECRET})
    with launched(image, tmp_path, table) as host:
        tenant = host.tenant().attest()
        module = bytes(wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
        _, _, ended = tenant.deliver(Job(module=module)).run()
        assert ended.outcome.ending is Ending.EXITED
        assert host.last_word() == Exited(outcome=None)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (TABLE[:36] + (1 << 12).to_bytes(4, "little") + TABLE[40:], "secret cannot be read: Bad message"),
        (bytes(len(TABLE)), "the platform shows nothing"),
    ],
    ids=["damaged", "none"],
)
def test_without_a_whole_table_there_is_no_evidence_and_the_keep_says_so(
    image: VmImage, tmp_path: Path, table: bytes, reason: str
) -> None:
    with launched(image, tmp_path, table) as host:
        last = host.last_word()
        assert isinstance(last, Exited)
        assert reason in Outcome.from_value(last.outcome).detail
