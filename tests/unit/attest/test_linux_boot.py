"""A kernel started by QEMU and OVMF: its PE hash, the header that QEMU writes, the PCRs of boots that were made."""

from __future__ import annotations

import hashlib

import pytest
from tests.forge.kernel import CERTIFICATE_ENTRY_AT, CHECKSUM_AT, PE_AT, bz_image

from enarx.attest._eventlog import extend_all
from enarx.attest._linux_boot import boot_digests, load_options, low_memory, stub_digests
from enarx.attest.measure import (
    Algorithm,
    Unmeasurable,
    authenticode_digest,
    expected_pcrs,
    kernel_digest,
    patched_kernel,
)
from enarx.tcb.errors import Malformed

SHA256 = Algorithm.SHA256
KERNEL = bz_image()
GIB = 1 << 30


def oracle(image: bytes, certificate_bytes: int = 0) -> bytes:
    """The PE hash of an image whose sections fill it, in other words: all but three gaps."""
    end = len(image) - certificate_bytes
    kept = (
        image[:CHECKSUM_AT]
        + image[CHECKSUM_AT + 4 : CERTIFICATE_ENTRY_AT]
        + image[CERTIFICATE_ENTRY_AT + 8 : end]
    )
    return hashlib.sha256(kept).digest()


def test_the_pe_hash_leaves_out_checksum_and_signatures() -> None:
    assert authenticode_digest(KERNEL, SHA256) == oracle(KERNEL)
    signed = bz_image(signature=b"s" * 0x148)
    assert authenticode_digest(signed, SHA256) == oracle(signed, 0x148) == authenticode_digest(KERNEL, SHA256)
    assert authenticode_digest(KERNEL + b"more", SHA256) == oracle(KERNEL + b"more")


def test_sections_count_in_the_order_of_the_file() -> None:
    table = PE_AT + 24 + 112 + 48
    first, second = KERNEL[table : table + 40], KERNEL[table + 40 : table + 80]
    swapped = KERNEL[:table] + second + first + KERNEL[table + 80 :]
    assert authenticode_digest(swapped, SHA256) == oracle(swapped)


def changed(at: int, size: int, value: int) -> bytes:
    """The kernel with another number in it."""
    return KERNEL[:at] + value.to_bytes(size, "little") + KERNEL[at + size :]


OPTIONAL = PE_AT + 24
SECTION = OPTIONAL + 112 + 48


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "does not begin with MZ"),
        (b"MZ", "before the field at 0x3c"),
        (changed(0x3C, 4, 0xFFFFFFFF), "no PE header at 0xffffffff"),
        (changed(PE_AT, 4, 0), "no PE header"),
        (changed(OPTIONAL, 2, 0x107), "unknown magic 0x107"),
        (changed(PE_AT + 6, 2, 97), "97 sections"),
        (changed(OPTIONAL + 60, 4, 0x300), "do not fit into the file"),
        (changed(OPTIONAL + 60, 4, 0x7FFFFFFF), "do not fit into the file"),
        (changed(PE_AT + 20, 2, 112 + 32), "too short"),
        (changed(SECTION + 20, 4, 0x800), "section 0x800"),
        (changed(SECTION + 20, 4, 0x2000), "overlaps what is before it"),
        (changed(SECTION + 56, 4, 0x2000), "ends outside"),
        (changed(CERTIFICATE_ENTRY_AT + 4, 4, 1), "describe more than its"),
    ],
)
def test_images_that_are_no_pe_file(image: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        authenticode_digest(image, SHA256)


def test_an_image_without_an_entry_for_signatures() -> None:
    image = changed(OPTIONAL + 108, 4, 4)
    kept = image[:CHECKSUM_AT] + image[CHECKSUM_AT + 4 :]
    assert authenticode_digest(image, SHA256) == hashlib.sha256(kept).digest()


def test_qemu_writes_loader_heap_command_line_and_ramdisk() -> None:
    patched = patched_kernel(KERNEL, memory_bytes=GIB // 2, initrd_bytes=0x1234)
    fields = {
        at: patched[at : at + size].hex()
        for at, size in ((0x210, 2), (0x218, 4), (0x21C, 4), (0x224, 2), (0x228, 4))
    }
    address = ((GIB // 2 - 0x28000 - 1 - 0x1234) & ~0xFFF).to_bytes(4, "little").hex()
    assert fields == {0x210: "b081", 0x218: address, 0x21C: "34120000", 0x224: "00fe", 0x228: "00000200"}
    same = bytearray(patched)
    for at, size in ((0x210, 2), (0x218, 8), (0x224, 2), (0x228, 4)):
        same[at : at + size] = KERNEL[at : at + size]
    assert bytes(same) == KERNEL


def test_the_ramdisk_lies_below_what_memory_and_kernel_allow() -> None:
    def address(kernel: bytes, memory: int) -> int:
        return int.from_bytes(
            patched_kernel(kernel, memory_bytes=memory, initrd_bytes=0x1000)[0x218:0x21C], "little"
        )

    assert address(KERNEL, 4 * GIB) == 0x80000000 - 0x28000 - 0x2000
    old = changed(0x206, 2, 0x20B)
    assert address(old, 4 * GIB) == 0x7FFFFFFF - 0x28000 - 0x1FFF
    assert (
        address(
            changed(0x236, 2, 0)[:0x22C]
            + (0x37FFFFFF).to_bytes(4, "little")
            + KERNEL[0x230:0x236]
            + b"\0\0"
            + KERNEL[0x238:],
            4 * GIB,
        )
        == 0x37FFE000
    )
    assert (low_memory(0xB0000000 - 1), low_memory(0xB0000000)) == (0xB0000000 - 1, 0x80000000)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (bytes(0x2000), {}, "no Linux boot header"),
        (KERNEL[:0x500], {}, "no Linux boot header"),
        (bz_image(protocol=0x201), {}, "boot protocol 0x201"),
        (changed(0x211, 1, 0), {}, "loaded low"),
        (KERNEL, {"cmdline": "quiet vga=791"}, "holds vga="),
        (KERNEL, {"initrd_bytes": GIB}, "does not fit into"),
    ],
)
def test_kernels_that_qemu_starts_otherwise(
    kernel: bytes, options: dict[str, int | str], message: str
) -> None:
    arguments = {"memory_bytes": GIB // 2, "initrd_bytes": 0, **options}
    with pytest.raises(Unmeasurable, match=message):
        patched_kernel(kernel, **arguments)  # type: ignore[arg-type]


def test_load_options() -> None:
    assert load_options("a b", has_initrd=True) == "a b initrd=initrd\0".encode("utf-16-le")
    assert load_options("", has_initrd=False) == b"\0\0"
    for text in ("a\0b", "caf\u00e9"):
        with pytest.raises(Unmeasurable, match="NUL or is not ASCII"):
            load_options(text, has_initrd=False)


BOOTED = {
    "QEMU 7.2.22, OVMF 2022.11-6+deb12u2, 512 MiB": (
        "528c0507d799568db8734bb7586ea327b68d19ba96c9d43feecf318195bc93f8",
        "4a5beb5c848d4f4106b018db31928b59373bc66296b92c43339710649f76b5ef",
    ),
    "QEMU 10.0.2, OVMF 2025.02-8+deb13u1, 512 MiB": (
        "48df3aee4f7518867d5cd624da73db46d6b954bb3cde4dc5236ca9c0555c2d65",
        "ed28ea86e458c07896f3356346989f4774a9fe4c2971918aabcbde7ea94f6703",
    ),
}
"""The digest of Debian's kernel 6.1.176-1 (cloud) in the event log, and PCR4 as the guest read it from its TPM."""


@pytest.mark.parametrize("machine", BOOTED)
def test_pcr4_of_a_boot_that_was_made(machine: str) -> None:
    logged, pcr4 = BOOTED[machine]
    assert extend_all(SHA256, boot_digests(SHA256, bytes.fromhex(logged))).hex() == pcr4


def test_what_that_kernel_measured_of_its_command_line() -> None:
    (options,) = stub_digests(SHA256, cmdline="console=ttyS0 quiet initrd=initrd", initrd=None)
    assert options.hex() == "6791447f65301cd17d9cda83bad8f4aa38f69a3257c2ba8315262e9325c78e6d"
    initrd = bytes.fromhex("fa369c66164706c07fa121a1916a032c22404f8c145a639310170f01fc7d3e98")
    pcr9 = "d12cc7102e8da67aec3d9dfdbd95bffc4926b8105d7382676946d5889a065f5b"
    assert extend_all(SHA256, [options, initrd]).hex() == pcr9


def test_the_pcrs_without_anything_of_their_own() -> None:
    pcrs = expected_pcrs(KERNEL, initrd=b"ramdisk", cmdline="quiet")
    separated = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"
    assert [pcrs[index].hex() for index in (2, 3, 6)] == [separated] * 3
    assert pcrs[5].hex() == "a5ceb755d043f32431d63e39f5161464620a3437280494b5850dc1b47cc074e0"
    assert sorted(pcrs) == [2, 3, 4, 5, 6, 9]


def test_what_each_input_changes() -> None:
    base = expected_pcrs(KERNEL, initrd=b"ramdisk", cmdline="quiet", patched_for=GIB)

    def differing(**changes: object) -> set[int]:
        arguments = {"initrd": b"ramdisk", "cmdline": "quiet", "patched_for": GIB, **changes}
        pcrs = expected_pcrs(KERNEL, **arguments)  # type: ignore[arg-type]
        return {index for index in base if base[index] != pcrs[index]}

    assert differing(cmdline="loud") == {9}
    assert differing(initrd=b"RAMDISK") == {9}
    assert differing(initrd=b"ramdisk" * 999) == {4, 9}
    assert differing(initrd=None) == {4, 9}
    assert differing(patched_for=None) == {4}
    assert differing(patched_for=GIB // 2) == {4}
    other = expected_pcrs(bz_image(seed=1), initrd=b"ramdisk", cmdline="quiet", patched_for=GIB)
    assert {index for index in base if base[index] != other[index]} == {4}


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHA384, Algorithm.SHA512])
def test_other_banks(algorithm: Algorithm) -> None:
    pcrs = expected_pcrs(KERNEL, algorithm=algorithm)
    digest = kernel_digest(KERNEL, algorithm)
    assert {len(value) for value in (*pcrs.values(), digest)} == {algorithm.digest_bytes}
    assert pcrs[4] == extend_all(algorithm, boot_digests(algorithm, digest))
