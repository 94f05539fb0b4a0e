"""MRENCLAVE: a real enclave's, an independent spelling of the log, and enclaves that no loader could build."""

from __future__ import annotations

import hashlib

import pytest
from tests.evidence import Evidence

from enarx.attest.measure import (
    Page,
    PageType,
    Permission,
    Unmeasurable,
    enclave_size,
    flat_pages,
    mrenclave,
    sgxs_mrenclave,
)
from enarx.tcb.errors import Malformed


def record(tag: str, *numbers: bytes) -> bytes:
    """A block of the log, spelled out."""
    return (tag.encode().ljust(8, b"\0") + b"".join(numbers)).ljust(64, b"\0")


def eight(value: int) -> bytes:
    """A little-endian u64."""
    return value.to_bytes(8, "little")


def stream(image: bytes, size: int) -> bytes:
    """The log of a flat image, page by page, as an SGXS file has it."""
    log = record("ECREATE", (1).to_bytes(4, "little"), eight(size))
    for at in range(0, len(image), 4096):
        log += record("EADD", eight(at), eight(0x207 if at else 0x100))
        for chunk in range(at, at + 4096, 256):
            log += record("EEXTEND", eight(chunk)) + image[chunk : chunk + 256]
    return log


IMAGE = bytes(range(256)) * 16 + b"\x01" * 4096
LOG = stream(IMAGE, 0x2000)


@pytest.mark.evidence
def test_a_real_enclave() -> None:
    sample = Evidence().sample("measurement/sgx-enarx-encl")
    image = sample.read("image")
    digest = mrenclave(size=enclave_size(len(image)), pages=flat_pages(image))
    assert digest.hex() == sample.expected["mrenclave"]
    assert sgxs_mrenclave(stream(image, 0x8000)) == digest
    for at in range(0, len(image), 4096):
        changed = image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]
        assert mrenclave(size=0x8000, pages=flat_pages(changed)) != digest


def test_the_log_is_what_is_hashed() -> None:
    expected = hashlib.sha256(LOG).digest()
    assert mrenclave(size=0x2000, pages=flat_pages(IMAGE)) == expected == sgxs_mrenclave(LOG)


def test_unmeasured_pages_count_by_address_and_flags_alone() -> None:
    def heap(contents: bytes, *, offset: int = 0x1000, permissions: Permission = Permission.R) -> bytes:
        page = Page(
            offset=offset, page_type=PageType.REG, permissions=permissions, contents=contents, measured=False
        )
        return mrenclave(size=0x4000, pages=[page])

    assert heap(bytes(4096)) == heap(b"\1" * 4096)
    assert heap(bytes(4096)) != heap(bytes(4096), offset=0x2000)
    assert heap(bytes(4096)) != heap(bytes(4096), permissions=Permission.RWX)


def test_order_sizes_and_frames_count() -> None:
    pages = flat_pages(IMAGE)
    digests = {
        mrenclave(size=0x2000, pages=pages),
        mrenclave(size=0x2000, pages=pages[::-1]),
        mrenclave(size=0x4000, pages=pages),
        mrenclave(size=0x2000, pages=pages, ssa_frame_pages=2),
        mrenclave(size=0x2000, pages=flat_pages(IMAGE, tcs=[1])),
        mrenclave(size=0x2000, pages=flat_pages(IMAGE, permissions=Permission.R)),
    }
    assert len(digests) == 6


def page(offset: int = 0, **changes: object) -> Page:
    """A page that can be added, but for ``changes``."""
    fields = {"page_type": PageType.REG, "permissions": Permission.RWX, "contents": bytes(4096), **changes}
    return Page(offset=offset, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([page(0x800)], "is no page"),
        ([page(0x2000)], "is no page of an enclave of 0x2000"),
        ([page(-4096)], "is no page"),
        ([page(), page()], "added twice"),
        ([page(contents=bytes(4095))], "has 4095 bytes"),
        ([page(page_type=PageType.TCS)], "has no permissions"),
        ([page(permissions=Permission.W)], "writable and not readable"),
    ],
)
def test_pages_that_cannot_be_added(pages: list[Page], message: str) -> None:
    with pytest.raises(Unmeasurable, match=message):
        mrenclave(size=0x2000, pages=pages)


def test_enclaves_that_cannot_be_created() -> None:
    for size in (0, 0x1000, 0x3000, 1 << 64):
        with pytest.raises(Unmeasurable, match="not a power of two"):
            mrenclave(size=size, pages=[])
    with pytest.raises(Unmeasurable, match="ssa frames of 0 pages"):
        mrenclave(size=0x2000, pages=[], ssa_frame_pages=0)
    for image in (b"", bytes(100)):
        with pytest.raises(Unmeasurable, match="whole pages"):
            flat_pages(image)
    with pytest.raises(Unmeasurable, match="has no page 2 for a tcs"):
        flat_pages(IMAGE, tcs=[2])
    assert [enclave_size(size) for size in (1, 0x2000, 0x2001)] == [0x2000, 0x2000, 0x4000]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (b"", "inside a block"),
        (LOG[:-1], "inside a block"),
        (LOG[:-300], "no ECREATE, EADD or EEXTEND block|inside a block"),
        (LOG + record("UNMEASRD"), "no ECREATE, EADD or EEXTEND block"),
        (LOG[64:], "ECREATE must be the first"),
        (LOG + LOG, "ECREATE must be the first"),
        (LOG[:63] + b"\1" + LOG[64:], "reserved bytes of the block at 0x0"),
        (LOG + record("EEXTEND", eight(0)) + bytes(256), "outside the page added before"),
        (LOG[:64] + record("EEXTEND", eight(0)) + bytes(256), "outside the page added before"),
        (LOG + record("EEXTEND", eight(0x1001)) + bytes(256), "outside the page added before"),
    ],
)
def test_streams_that_are_no_log(log: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        sgxs_mrenclave(log)
