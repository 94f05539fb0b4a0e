"""What a virtual machine measures of a kernel that QEMU hands to OVMF (``-kernel``, ``-initrd``, ``-append``).

OVMF starts the kernel as an EFI application and measures its PE hash; the kernel's EFI stub measures its command line
and its initial ramdisk. Source: QEMU, hw/i386/x86.c (x86_load_linux) and x86-common.c; edk2, GenericQemuLoadImageLib;
Linux, drivers/firmware/efi/libstub. All of it was compared with logs and PCRs of TPM boots under QEMU 7.2 and 10.0.
"""

from __future__ import annotations

from typing import Final

from enarx.attest._eventlog import Algorithm, hash_bytes
from enarx.attest._guid_table import FOUR_GIB
from enarx.attest._pe import authenticode_digest
from enarx.attest._unmeasurable import Unmeasurable

BOOT_ACTION: Final = b"Calling EFI Application from Boot Option"
EXIT_ACTIONS: Final = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
SEPARATOR: Final = bytes(4)
_ACPI_BYTES: Final = 0x28000
"""What QEMU's pc and q35 machines keep free below the end of low memory for ACPI tables."""
_Q35_SPLIT: Final = 0xB0000000
_Q35_LOW_BYTES: Final = 0x80000000
_LOADER_QEMU: Final = 0xB0
_CAN_USE_HEAP: Final = 0x80
_LOADED_HIGH: Final = 0x01
_ABOVE_4G: Final = 0x02
_REAL_MODE: Final = 0x10000
_COMMAND_LINE: Final = 0x20000


def low_memory(memory_bytes: int) -> int:
    """Give how much memory of a q35 machine lies below 4 GiB."""
    return memory_bytes if memory_bytes < _Q35_SPLIT else _Q35_LOW_BYTES


def patched_kernel(kernel: bytes, *, memory_bytes: int, initrd_bytes: int, cmdline: str = "") -> bytes:
    """Give the kernel as OVMF sees it under a QEMU of 7.2, which writes boot parameters into its header.

    Not with SEV, and not with QEMU 10.0 and OVMF 2025.02 (both are needed): there OVMF sees the file as it is.
    ``memory_bytes`` is that of a q35 machine. Raises ``Unmeasurable``.
    """
    if len(kernel) < 0x1000 or kernel[0x202:0x206] != b"HdrS":
        raise Unmeasurable("kernel has no Linux boot header", hint="give a bzImage (vmlinuz), not vmlinux")
    if (version := _u(kernel, 0x206, 2)) < 0x202 or not kernel[0x211] & _LOADED_HIGH:
        raise Unmeasurable(
            f"kernel has boot protocol {version:#x} or is loaded low, expected a bzImage of this century"
        )
    if "vga=" in cmdline:
        raise Unmeasurable("kernel command line holds vga=, which QEMU writes into the kernel")
    header = bytearray(kernel)
    header[0x210] = _LOADER_QEMU
    header[0x211] |= _CAN_USE_HEAP
    _put(header, 0x224, 2, _COMMAND_LINE - _REAL_MODE - 0x200)
    _put(header, 0x228, 4, _COMMAND_LINE)
    if initrd_bytes:
        top = FOUR_GIB - 1 if version >= 0x20C and kernel[0x236] & _ABOVE_4G else _u(kernel, 0x22C, 4)
        top = min(top, low_memory(memory_bytes) - _ACPI_BYTES - 1)
        if initrd_bytes >= top:
            raise Unmeasurable(
                f"initrd of {initrd_bytes} bytes does not fit into {memory_bytes} bytes of memory"
            )
        _put(header, 0x218, 4, (top - initrd_bytes) & ~0xFFF)
        _put(header, 0x21C, 4, initrd_bytes)
    return bytes(header)


def kernel_digest(
    kernel: bytes,
    algorithm: Algorithm,
    *,
    patched_for: int | None = None,
    initrd_bytes: int = 0,
    cmdline: str = "",
) -> bytes:
    """Give the digest that OVMF measures for ``kernel``.

    ``patched_for`` is the memory size in bytes where QEMU patches the header, see ``patched_kernel``.
    """
    if patched_for is not None:
        kernel = patched_kernel(kernel, memory_bytes=patched_for, initrd_bytes=initrd_bytes, cmdline=cmdline)
    return authenticode_digest(kernel, algorithm)


def load_options(cmdline: str, *, has_initrd: bool) -> bytes:
    """Give the command line as OVMF passes it on: UTF-16 with a NUL, the initrd named at its end."""
    if "\0" in cmdline or not cmdline.isascii():
        raise Unmeasurable("kernel command line holds a NUL or is not ASCII")
    return f"{cmdline}{' initrd=initrd' if has_initrd else ''}\0".encode("utf-16-le")


def boot_digests(algorithm: Algorithm, kernel: bytes) -> tuple[bytes, ...]:
    """Give what PCR4 gets, and RTMR1 at first: the kernel's digest, the boot option, the separator."""
    return kernel, hash_bytes(algorithm, BOOT_ACTION), hash_bytes(algorithm, SEPARATOR)


def exit_digests(algorithm: Algorithm) -> tuple[bytes, ...]:
    """Give what PCR5 gets at last, and RTMR1: the end of the boot services."""
    return tuple(hash_bytes(algorithm, action) for action in EXIT_ACTIONS)


def stub_digests(algorithm: Algorithm, *, cmdline: str, initrd: bytes | None) -> tuple[bytes, ...]:
    """Give what the kernel's EFI stub puts into PCR9, or RTMR2: its load options, and the initrd if there is one.

    The stub does so through the TPM protocol (seen with Linux 6.1), and through the CC protocol of TDX from 6.9 on.
    """
    options = hash_bytes(algorithm, load_options(cmdline, has_initrd=bool(initrd)))
    return (options, hash_bytes(algorithm, initrd)) if initrd else (options,)


def _u(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _put(data: bytearray, at: int, size: int, value: int) -> None:
    data[at : at + size] = value.to_bytes(size, "little")
