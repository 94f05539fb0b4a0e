"""The image of VM keeps: a directory that holds all that a launch is given, byte for byte what is measured.

``MANIFEST`` lists the other files as that of a process keep does (``enarx.api.keep_image``); its SHA-256 is the name
of the image. ``files.json`` says what lies in the initial ramdisk and which package brought it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.tcb.errors import Malformed, Unavailable

KERNEL: Final = "vmlinuz"
VMLINUX: Final = "vmlinux"
INITRD: Final = "initrd"
CMDLINE: Final = "cmdline"
SEV_FIRMWARE: Final = "ovmf-sev.fd"
FIRMWARE: Final = "ovmf.fd"
FILES: Final = "files.json"
SBOM: Final = "sbom.json"
SNP_ID_BLOCK: Final = "snp-id-block"
SNP_ID_AUTH: Final = "snp-id-auth"
"""What somebody has signed of the image lies beside it, and not in its manifest."""
SNP_ID_BYTES: Final = (96, 4096)
SNP_POLICY: Final = 0x30000
"""The guest policy of every launch, which an ID block repeats: SMT is allowed, and nothing else: no debugging, no
migration (AMD 56860, GUEST_POLICY).
"""
MAX_FILE_BYTES: Final = 256 << 20
MAX_CMDLINE_BYTES: Final = 2048
"""Linux on x86 keeps no more."""
NEEDED: Final = frozenset({KERNEL, VMLINUX, INITRD, CMDLINE, FILES, SBOM})
OPTIONAL: Final = frozenset({SEV_FIRMWARE, FIRMWARE})
_CONSOLE: Final = "console="


@dataclass(frozen=True, slots=True, kw_only=True)
class VmImage:
    """What QEMU is given to launch a VM keep."""

    kernel: Path
    """A bzImage: what firmware starts, and what evidence covers."""
    vmlinux: Path
    """The same kernel unpacked, for QEMU's direct start without firmware (PVH), which nothing measures."""
    initrd: Path
    cmdline: str
    sev_firmware: Path | None
    """OVMF that holds the kernel, the initrd and the command line against the hashes of the launch (SEV family)."""
    firmware: Path | None
    """OVMF for TDX and for measured boot with a TPM."""
    manifest: bytes
    snp_identity: tuple[bytes, bytes] | None = None
    """ID block and ID authentication of SEV-SNP, by which a platform launches this image alone."""

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return self.kernel.parent

    @property
    def digest(self) -> bytes:
        """SHA-256 of the manifest: the name of the image."""
        return sha256(self.manifest).digest()

    @property
    def console(self) -> bool:
        """Whether the kernel writes to a serial line, which the host reads: never in production."""
        return any(word.startswith(_CONSOLE) for word in self.cmdline.split())


def read_vm_image(directory: Path) -> VmImage:
    """Describe the image in ``directory``, whose files must be those that its manifest lists.

    Raises ``Malformed``, ``Unavailable``.
    """
    manifest = _content(directory / MANIFEST)
    names = [line[66:] for line in manifest.decode("utf-8", "replace").splitlines()]
    if missing := sorted(NEEDED - set(names)):
        raise Malformed(f"image: its manifest does not list {missing[0]}", hint="build it anew")
    if unknown := sorted(set(names) - NEEDED - OPTIONAL):
        raise Malformed(f"image: its manifest lists {unknown[0]!r}, which no image has", hint="build it anew")
    lines = [manifest_line(name, _content(directory / name)) for name in sorted(names)]
    if "".join(lines).encode() != manifest:
        listed = manifest.decode("utf-8", "replace").splitlines(keepends=True)
        changed = next(
            (name for name, line in zip(sorted(names), lines, strict=True) if line not in listed), MANIFEST
        )
        raise Malformed(
            f"image: its files are not those of its manifest: {directory / changed}", hint="build it anew"
        )
    return VmImage(
        kernel=directory / KERNEL,
        vmlinux=directory / VMLINUX,
        initrd=directory / INITRD,
        cmdline=_cmdline(_content(directory / CMDLINE)),
        sev_firmware=directory / SEV_FIRMWARE if SEV_FIRMWARE in names else None,
        firmware=directory / FIRMWARE if FIRMWARE in names else None,
        manifest=manifest,
        snp_identity=_snp_identity(directory),
    )


def write_snp_identity(directory: Path, block: bytes, auth: bytes) -> None:
    """Put a signature beside the image in ``directory``. Raises ``Unavailable``."""
    for name, content in ((SNP_ID_BLOCK, block), (SNP_ID_AUTH, auth)):
        try:
            (directory / name).write_bytes(content)
        except OSError as error:
            raise Unavailable(f"{directory / name}: {(error.strerror or str(error)).lower()}") from None


def _snp_identity(directory: Path) -> tuple[bytes, bytes] | None:
    if not any((directory / name).exists() for name in (SNP_ID_BLOCK, SNP_ID_AUTH)):
        return None
    block, auth = _content(directory / SNP_ID_BLOCK), _content(directory / SNP_ID_AUTH)
    if (len(block), len(auth)) != SNP_ID_BYTES:
        raise Malformed(
            f"image: {SNP_ID_BLOCK} and {SNP_ID_AUTH} have {len(block)} and {len(auth)} bytes, expected 96 and 4096",
            hint="enarx image sign writes them",
        )
    return block, auth


def _cmdline(content: bytes) -> str:
    """Read the command line, which has no line end: every byte of it is measured."""
    if len(content) > MAX_CMDLINE_BYTES or not content.isascii() or any(byte < 0x20 for byte in content):
        raise Malformed("image: its command line is too long or holds more than printable ASCII")
    return content.decode("ascii")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "enarx image build --vm makes one"
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    if len(content) > MAX_FILE_BYTES:
        raise Malformed(f"image: {path.name} has more than {MAX_FILE_BYTES} bytes")
    return content
