"""Whatever a service answers and whatever lies in the cache, it is files that are understood, or our error."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from tests.forge import dcap, snp

from enarx.attest.collateral import Kind
from enarx.attest.errors import MalformedCollateral
from enarx.attest.fetch import CollateralUnavailable
from enarx.attest.fetch._disk import DiskCache, Entry
from enarx.attest.fetch._http import _retry_after, check_url
from enarx.attest.fetch._item import certificates, document, revocation_list, until

READERS = (
    certificates("a"),
    revocation_list("a"),
    revocation_list("a", chain_header="x-issuer-chain"),
    document("a", Kind.TCB_INFO, "x-issuer-chain"),
    document("a", Kind.QE_IDENTITY, "x-issuer-chain"),
)
GENUINE = (
    snp.vcek().der,
    snp.ark().crl(),
    dcap.pem(snp.ask().der),
    dcap.document("tcbInfo", dcap.tcb_info("TDX")),
    dcap.document("enclaveIdentity", dcap.qe_identity("SGX")),
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A genuine answer with some bytes changed or cut off."""
    data = bytearray(draw(st.sampled_from(GENUINE)))
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[at] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(body=st.binary(max_size=200) | spoilt(), header=st.text(max_size=100), reader=st.sampled_from(READERS))
@example(body=GENUINE[3], header="%2", reader=READERS[3])
def test_answer_is_files_or_our_error(body: bytes, header: str, reader: object) -> None:
    try:
        files = reader(body, {"x-issuer-chain": header})  # type: ignore[operator]
        assert until(files).tzinfo is not None
    except MalformedCollateral:
        return
    assert all(files.values())


@given(text=st.text(max_size=60))
def test_time_to_wait_is_a_time_or_nothing(text: str) -> None:
    wait = _retry_after(text)
    assert wait is None or wait >= 0


@given(url=st.text(max_size=60).map("https://{}".format))
def test_address_is_one_line_or_refused(url: str) -> None:
    try:
        parts = check_url(url)
    except CollateralUnavailable:
        return
    assert parts.hostname
    assert not set(" \r\n\t\x00") & set(parts.geturl())


@given(
    body=st.binary(max_size=300),
    etag=st.text(max_size=20),
    headers=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
    at=st.integers(0, 1 << 33),
)
def test_cache_gives_back_what_it_was_given(body: bytes, etag: str, headers: dict[str, str], at: int) -> None:
    entry = Entry(body=body, headers=headers, etag=etag, fetched=datetime.fromtimestamp(at, UTC))
    with tempfile.TemporaryDirectory() as folder:
        cache = DiskCache(Path(folder))
        cache.put("https://a", entry)
        assert cache.get("https://a") == entry
        assert cache.get("https://b") is None


@given(change=st.integers(0, 200), bits=st.integers(1, 255))
def test_entry_with_one_changed_byte_counts_as_absent(change: int, bits: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = DiskCache(Path(folder))
        cache.put(
            "https://a", Entry(body=bytes(200), headers={}, etag="", fetched=datetime(2025, 1, 1, tzinfo=UTC))
        )
        (path,) = Path(folder).iterdir()
        data = bytearray(path.read_bytes())
        data[change] ^= bits
        path.write_bytes(data)
        assert cache.get("https://a") is None
