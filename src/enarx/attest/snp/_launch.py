"""Expected launch digests of SEV-SNP: a SHA-384 chain with one link a page.

Source: AMD 56860 (SEV-SNP ABI), SNP_LAUNCH_UPDATE, PAGE_INFO; the order is QEMU's, with the differences of
EC2 and GCE.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Final

from enarx.attest._guid_table import PAGE_BYTES
from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.amd._kernel_hashes import KernelHashes
from enarx.attest.amd._launch import check_vcpus, no_kernel_hashes, vmsa_pages
from enarx.attest.amd._ovmf import Section, SectionKind, SevFirmware
from enarx.attest.amd._vmsa import GuestFeatures, Vmm, svsm_vmsa_page

DIGEST_BYTES: Final = 48
VMSA_GPA: Final = 0xFFFFFFFFF000
"""The address under which the firmware measures every save area."""
_PAGE_INFO: Final = struct.Struct("<48s48s8sQ")
"""Digest so far, digest of the contents, what ``_info`` gives, address."""
_BLANK: Final = {page: hashlib.sha384(page).digest() for page in (bytes(PAGE_BYTES), b"\xff" * PAGE_BYTES)}
"""Contents that firmware images are full of: recognised faster than hashed."""


class PageType(IntEnum):
    """PAGE_TYPE of SNP_LAUNCH_UPDATE."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


class PageChain:
    """The digest as it grows. ``seed`` is 48 zero bytes, or a digest from which to go on."""

    def __init__(self, seed: bytes = bytes(DIGEST_BYTES)) -> None:
        if len(seed) != DIGEST_BYTES:
            raise Unmeasurable(f"launch digest seed has {len(seed)} bytes, expected {DIGEST_BYTES}")
        self.digest = seed

    def normal(self, gpa: int, data: bytes) -> None:
        """Measure contents and addresses of whole pages."""
        digest, sha384, pack, info = self.digest, hashlib.sha384, _PAGE_INFO.pack, _info(PageType.NORMAL)
        zero, ones = _BLANK  # names, since this is the loop in which all the time goes
        zero_digest, ones_digest = _BLANK.values()
        for at in range(0, len(data), PAGE_BYTES):
            page = data[at : at + PAGE_BYTES]
            if page == zero:
                contents = zero_digest
            elif page == ones:
                contents = ones_digest
            else:
                contents = sha384(page).digest()
            digest = sha384(pack(digest, contents, info, gpa + at)).digest()
        self.digest = digest

    def vmsa(self, pages: tuple[bytes, ...]) -> None:
        """Measure the state of processors."""
        contents = {page: hashlib.sha384(page).digest() for page in set(pages)}
        for page in pages:
            self._link(PageType.VMSA, VMSA_GPA, contents[page])

    def without_contents(self, page_type: PageType, gpa: int, size: int) -> None:
        """Measure that the pages have a type at an address: their contents are fixed, or the firmware's own."""
        for at in range(gpa, gpa + size, PAGE_BYTES):
            self._link(page_type, at, bytes(DIGEST_BYTES))

    def _link(self, page_type: PageType, gpa: int, contents: bytes) -> None:
        self.digest = hashlib.sha384(_PAGE_INFO.pack(self.digest, contents, _info(page_type), gpa)).digest()


def snp_firmware_digest(firmware: SevFirmware) -> bytes:
    """Give the chain after the image alone (48 bytes), from which ``snp_launch_digest`` can go on."""
    if not firmware.image:
        raise Unmeasurable("neither a firmware image nor its digest was given")
    chain = PageChain()
    chain.normal(firmware.gpa, firmware.image)
    return chain.digest


def snp_launch_digest(
    firmware: SevFirmware,
    *,
    vcpus: int,
    cpu_signature: int,
    vmm: Vmm = Vmm.QEMU,
    features: int = GuestFeatures.SNP_ACTIVE,
    kernel: KernelHashes | None = None,
    firmware_digest: bytes | None = None,
) -> bytes:
    """Give MEASUREMENT of the report (48 bytes). ``firmware_digest`` is taken instead of hashing the image.

    Raises ``Unmeasurable`` when the firmware has no SNP metadata, or no place for kernel hashes that are
    given.
    """
    if not features & GuestFeatures.SNP_ACTIVE:
        raise Unmeasurable(
            f"guest features {features:#x} lack SNPActive (bit 0), without which no SNP guest starts"
        )
    _need_sections(firmware, "firmware")
    if kernel is not None and (
        firmware.section(SectionKind.KERNEL_HASHES) is None or not firmware.kernel_hashes_gpa
    ):
        raise no_kernel_hashes()
    chain = PageChain(snp_firmware_digest(firmware) if firmware_digest is None else firmware_digest)
    _measure_sections(chain, firmware, kernel, vmm)
    chain.vmsa(vmsa_pages(firmware, vmm, vcpus=vcpus, cpu_signature=cpu_signature, features=features))
    return chain.digest


def snp_svsm_launch_digest(
    firmware: SevFirmware, svsm: SevFirmware, *, vcpus: int, cpu_signature: int
) -> bytes:
    """Give the digest of a guest of QEMU whose ``svsm`` ends where the firmware and its variables begin."""
    check_vcpus(vcpus)
    _need_sections(svsm, "svsm")
    if svsm.svsm_entry is None:
        raise Unmeasurable("svsm: the image has no svsm info entry, which says where it starts")
    if svsm.gpa + len(svsm.image) > firmware.gpa:
        raise Unmeasurable(f"svsm: the image ends above {firmware.gpa:#x}, where the firmware begins")
    chain = PageChain(snp_firmware_digest(firmware))
    chain.normal(svsm.gpa, svsm.image)
    _measure_sections(chain, svsm, None, Vmm.QEMU)
    chain.vmsa((svsm_vmsa_page(entry=svsm.svsm_entry, cpu_signature=cpu_signature),) * vcpus)
    return chain.digest


def _need_sections(firmware: SevFirmware, name: str) -> None:
    kinds = {section.kind for section in firmware.sections}
    for kind in (SectionKind.SECRETS, SectionKind.CPUID):
        if kind not in kinds:
            raise Unmeasurable(
                f"{name}: the image lists no {kind.name.lower()} page, without which no SNP guest starts",
                hint="use a build with SEV-SNP metadata, for example OVMF.amdsev.fd",
            )


def _measure_sections(chain: PageChain, firmware: SevFirmware, kernel: KernelHashes | None, vmm: Vmm) -> None:
    """Measure the sections in the order of the metadata; EC2 puts the CPUID page last."""
    late: list[Section] = []
    for section in firmware.sections:
        match section.kind:
            case SectionKind.SEC_MEM if vmm is Vmm.GCE:
                chain.without_contents(PageType.UNMEASURED, section.gpa, section.size)
            case SectionKind.SEC_MEM | SectionKind.SVSM_CAA:
                chain.without_contents(PageType.ZERO, section.gpa, section.size)
            case SectionKind.SECRETS:
                chain.without_contents(PageType.SECRETS, section.gpa, PAGE_BYTES)
            case SectionKind.CPUID if vmm in (Vmm.EC2, Vmm.EC2_LEGACY):
                late.append(section)
            case SectionKind.CPUID:
                chain.without_contents(PageType.CPUID, section.gpa, PAGE_BYTES)
            case SectionKind.KERNEL_HASHES:
                _measure_kernel(chain, firmware, section, kernel)
    for section in late:
        chain.without_contents(PageType.CPUID, section.gpa, PAGE_BYTES)


def _measure_kernel(
    chain: PageChain, firmware: SevFirmware, section: Section, kernel: KernelHashes | None
) -> None:
    if kernel is None or firmware.kernel_hashes_gpa is None:
        chain.without_contents(PageType.ZERO, section.gpa, section.size)
        return
    offset = firmware.kernel_hashes_gpa - section.gpa
    if not 0 <= offset < PAGE_BYTES or section.size != PAGE_BYTES:
        raise Unmeasurable(
            f"firmware: kernel hashes at {firmware.kernel_hashes_gpa:#x} are not in the page at {section.gpa:#x}"
        )
    chain.normal(section.gpa, kernel.page(offset))


def _info(page_type: PageType) -> bytes:
    """Give PAGE_INFO between contents and address: its size, the type, no IMI, no permissions for VMPL 1 to
    3.
    """
    return (0x70).to_bytes(2, "little") + bytes((page_type, 0, 0, 0, 0, 0))
