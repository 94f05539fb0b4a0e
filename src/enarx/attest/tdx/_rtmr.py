"""RTMR0 to RTMR2 of a trust domain in which OVMF starts a kernel that QEMU hands over directly.

RTMR0: the memory map (TD HOB), the variable store, the secure boot variables, the separator and the boot variables
are computed here. The digests of the ACPI tables are the caller's, from the event log of a good boot: QEMU makes the
tables from the machine's description. RTMR1: kernel, boot actions. RTMR2: command line and initrd, when the kernel's
EFI stub measures through the CC protocol (Linux 6.9). RTMR3 belongs to the guest.

Compared with real quotes and their logs: TD HOB (1 GiB and 64 GiB machines), variable store, variables, separator,
RTMR0 to RTMR2 as a whole. Source: edk2, OvmfPkg/IntelTdx and TdTcg2Dxe; QEMU, hw/i386/tdvf-hob.c; UEFI PI 1.8, volume
3 (HOB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from enarx.attest._eventlog import Algorithm, extend_all, hash_bytes
from enarx.attest._guid_table import FOUR_GIB
from enarx.attest._linux_boot import (
    SEPARATOR,
    boot_digests,
    exit_digests,
    kernel_digest,
    low_memory,
    stub_digests,
)
from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.tdx._tdvf import SectionKind, TdFirmware

_EFI_GLOBAL: Final = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_IMAGE_SECURITY: Final = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_SHA384: Final = Algorithm.SHA384
_SYSTEM_MEMORY, _UNACCEPTED_MEMORY = 0, 7
_PRESENT_INITIALIZED_TESTED: Final = 7
_UI_APP_VOLUME: Final = UUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1")
_UI_APP: Final = UUID("462caa21-7614-4503-836e-8ab6f4662331")
_NOWHERE_ELSE: Final = bytes.fromhex("7fff0400")
BOOT_VARIABLES: Final = (
    bytes(2),  # BootOrder: Boot0000 alone
    bytes.fromhex("090100002c00")  # active, hidden, an application; 44 bytes of device path
    + "UiApp\0".encode("utf-16-le")
    + bytes.fromhex("04071400")
    + _UI_APP_VOLUME.bytes_le
    + bytes.fromhex("04061400")
    + _UI_APP.bytes_le
    + _NOWHERE_ELSE,
)
"""The values of BootOrder and Boot0000 in an OVMF that has found nothing else to start."""


def td_hob(firmware: TdFirmware, *, memory_bytes: int) -> bytes:
    """Give the part of the hand-off list of a q35 machine that OVMF measures: all but its end marker.

    Memory of the TD HOB and TEMP_MEM sections is given as accepted, the rest below and above 4 GiB as not.
    """
    low = low_memory(memory_bytes)
    inside = sorted(
        (section.gpa, section.size)
        for section in firmware.sections
        if section.kind in (SectionKind.TD_HOB, SectionKind.TEMP_MEM)
    )
    if not inside or inside[-1][0] + inside[-1][1] > low:
        raise Unmeasurable(f"memory of {memory_bytes:#x} bytes does not hold the sections of the firmware")
    ranges: list[tuple[int, int, int]] = []
    at = 0
    for gpa, size in inside:
        ranges += [(_UNACCEPTED_MEMORY, at, gpa - at), (_SYSTEM_MEMORY, gpa, size)]
        at = gpa + size
    ranges += [(_UNACCEPTED_MEMORY, at, low - at), (_UNACCEPTED_MEMORY, FOUR_GIB, memory_bytes - low)]
    resources = b"".join(_resource(*span) for span in ranges if span[2])
    end = firmware.only(SectionKind.TD_HOB).gpa + 56 + len(resources) + 8
    version, boot_mode, limits = 9, 0, bytes(4 * 8)
    handoff = _numbers((1, 2), (56, 2), (0, 4), (version, 4), (boot_mode, 4)) + limits + _numbers((end, 8))
    return handoff + resources


def rtmr0_digests(
    firmware: TdFirmware,
    *,
    memory_bytes: int,
    acpi: Sequence[bytes],
    boot: Sequence[bytes] | None = None,
    secure_boot: bytes = b"",
) -> tuple[bytes, ...]:
    """Give the SHA-384 digests of the events of RTMR0, in order, of a machine without secure boot keys.

    ``acpi`` and ``boot`` are the digests of the ACPI events and of the boot variables; without ``boot`` there are only
    ``BOOT_VARIABLES``. ``secure_boot`` is the value of the variable SecureBoot: newer firmware leaves it out, older
    sets it to one zero byte.
    """
    variables = (
        (_EFI_GLOBAL, "SecureBoot", secure_boot),
        (_EFI_GLOBAL, "PK", b""),
        (_EFI_GLOBAL, "KEK", b""),
        (_IMAGE_SECURITY, "db", b""),
        (_IMAGE_SECURITY, "dbx", b""),
    )
    if boot is None:
        boot = tuple(hash_bytes(_SHA384, value) for value in BOOT_VARIABLES)
    measured = [
        td_hob(firmware, memory_bytes=memory_bytes),
        firmware.only(SectionKind.CFV).data,
        *(_variable(*variable) for variable in variables),
        SEPARATOR,
    ]
    return (*(hash_bytes(_SHA384, data) for data in measured), *_digests(acpi), *_digests(boot))


def rtmr0(
    firmware: TdFirmware,
    *,
    memory_bytes: int,
    acpi: Sequence[bytes],
    boot: Sequence[bytes] | None = None,
    secure_boot: bytes = b"",
) -> bytes:
    """Give RTMR0 (48 bytes), see ``rtmr0_digests``."""
    digests = rtmr0_digests(
        firmware, memory_bytes=memory_bytes, acpi=acpi, boot=boot, secure_boot=secure_boot
    )
    return extend_all(_SHA384, digests)


def rtmr1(kernel: bytes) -> bytes:
    """Give RTMR1 (48 bytes) for the SHA-384 digest of a kernel, see ``kernel_rtmr1``."""
    return extend_all(_SHA384, (*boot_digests(_SHA384, *_digests((kernel,))), *exit_digests(_SHA384)))


def kernel_rtmr1(
    kernel: bytes, *, patched_for: int | None = None, initrd: bytes | None = None, cmdline: str = ""
) -> bytes:
    """Give RTMR1 (48 bytes) for a kernel file. ``patched_for``: memory in bytes where QEMU patches the kernel's
    header.
    """
    initrd_bytes = len(initrd or b"")
    return rtmr1(
        kernel_digest(kernel, _SHA384, patched_for=patched_for, initrd_bytes=initrd_bytes, cmdline=cmdline)
    )


def rtmr2(*, cmdline: str, initrd: bytes | None = None) -> bytes:
    """Give RTMR2 (48 bytes)."""
    return extend_all(_SHA384, stub_digests(_SHA384, cmdline=cmdline, initrd=initrd))


def _resource(kind: int, start: int, size: int) -> bytes:
    """Give a resource descriptor HOB (48 bytes) without an owner."""
    fields = (
        (3, 2),
        (48, 2),
        (0, 4),
        (0, 16),
        (kind, 4),
        (_PRESENT_INITIALIZED_TESTED, 4),
        (start, 8),
        (size, 8),
    )
    return _numbers(*fields)


def _variable(vendor: UUID, name: str, value: bytes) -> bytes:
    """Give UEFI_VARIABLE_DATA."""
    return vendor.bytes_le + _numbers((len(name), 8), (len(value), 8)) + name.encode("utf-16-le") + value


def _digests(digests: Sequence[bytes]) -> Sequence[bytes]:
    for digest in digests:
        if len(digest) != _SHA384.digest_bytes:
            raise Unmeasurable(f"digest has {len(digest)} bytes, expected {_SHA384.digest_bytes}")
    return digests


def _numbers(*fields: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value, size in fields)
