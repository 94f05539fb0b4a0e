"""A Debian kernel: what is inside a bzImage, and its modules."""

from __future__ import annotations

import lzma

import pytest
from tests.forge.debian import compressed_kernel, library
from tests.forge.kernel import bz_image

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.vm import _machine
from enarx.tenant.image.vm._kernel import MODULES, payload, unpack_module, vmlinux

INSIDE = library()
PACKED = b"\x28\xb5\x2f\xfd" + b"packed"
KERNEL = compressed_kernel(bz_image(), PACKED, len(INSIDE))


def test_the_kernel_proper_comes_out() -> None:
    asked = []

    def unpack(data: bytes, size: int) -> bytes:
        asked.append((data, size))
        return INSIDE

    assert vmlinux(KERNEL, unpack) == INSIDE
    assert asked == [(PACKED, len(INSIDE))]


@pytest.mark.parametrize("unpacked", [INSIDE[:-1], INSIDE + b"x", bytes(len(INSIDE))])
def test_another_content_is_refused(unpacked: bytes) -> None:
    with pytest.raises(Malformed, match="does not unpack to an ELF file"):
        vmlinux(KERNEL, lambda data, size: unpacked)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (b"MZ", "no Linux boot header"),
        (bz_image(protocol=0x207), "boot protocol is 0x207"),
        (KERNEL[:-1], "lies outside the file"),
        (compressed_kernel(bz_image(), b"\x02\x21\x4c\x18lz4", 10), "not compressed with zstd"),
        (compressed_kernel(bz_image(), PACKED, 1 << 30), "unpacks to 1073741824 bytes"),
        (compressed_kernel(bz_image(), PACKED, 0), "unpacks to 0 bytes"),
    ],
)
def test_other_kernels_are_refused(kernel: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        payload(kernel)


def test_modules_are_unpacked() -> None:
    assert unpack_module(lzma.compress(INSIDE)) == INSIDE
    for content in (INSIDE, lzma.compress(b"no module")):
        with pytest.raises(Malformed, match="a module"):
            unpack_module(content)


def test_the_image_has_the_modules_that_a_keep_loads() -> None:
    assert set(_machine.REPORTS) | {"sev-guest", "tdx-guest"} == set(MODULES)
