"""Expected PCRs of a virtual machine in which OVMF starts a kernel that QEMU hands over directly.

Covered: PCR4 (kernel), PCR9 (command line, initrd), and PCR2, 3, 5 and 6, which hold nothing of their own in such a
boot. Not covered: PCR0 (firmware, which is measured unpacked, and the version the distributor gave it), PCR1 (ACPI
tables, boot variables), PCR7 (secure boot variables), PCR10 (the kernel's own measurements): take these from a good
boot's event log.

Compared with the PCRs of boots under QEMU 7.2 with OVMF 2022.11 and QEMU 10.0 with OVMF 2025.02, Linux 6.1, swtpm.
"""

from __future__ import annotations

from enarx.attest._eventlog import Algorithm, extend_all, hash_bytes
from enarx.attest._linux_boot import SEPARATOR, boot_digests, exit_digests, kernel_digest, stub_digests


def expected_pcrs(
    kernel: bytes,
    *,
    initrd: bytes | None = None,
    cmdline: str = "",
    patched_for: int | None = None,
    algorithm: Algorithm = Algorithm.SHA256,
) -> dict[int, bytes]:
    """Give PCR2 to 6 and PCR9 after the kernel took over.

    ``patched_for`` is the memory size of the machine in bytes where QEMU changes the kernel's header
    (``patched_kernel``); ``None`` means the kernel as it is in its file.
    """
    separator = hash_bytes(algorithm, SEPARATOR)
    digest = kernel_digest(
        kernel, algorithm, patched_for=patched_for, initrd_bytes=len(initrd or b""), cmdline=cmdline
    )
    digests = {
        2: (separator,),
        3: (separator,),
        4: boot_digests(algorithm, digest),
        5: (separator, *exit_digests(algorithm)),
        6: (separator,),
        9: stub_digests(algorithm, cmdline=cmdline, initrd=initrd),
    }
    return {index: extend_all(algorithm, values) for index, values in digests.items()}
