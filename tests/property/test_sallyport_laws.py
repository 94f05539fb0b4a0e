"""The sallyport: items keep their meaning, and whatever bytes arrive, only our own refusals come out."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from enarx.host.sallyport import Host, Permissions, Scope
from enarx.tcb import wire
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.sallyport import limits
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import (
    Changed,
    Compiled,
    Connect,
    Deliver,
    Exited,
    Item,
    Listen,
    Opened,
    Progress,
    Ready,
    Reason,
    Refused,
    decode,
    encode,
)

NUMBERS = st.integers(1, limits.MAX_REQUEST)
PORTS = st.integers(1, limits.MAX_PORT)
SIZES = st.integers(0, limits.MAX_BLOB_BYTES)
PRINTABLE = st.characters(exclude_categories=("C", "Z"))
NAMES = st.text(PRINTABLE, min_size=1, max_size=20)
VALUES: st.SearchStrategy[wire.Value] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Ready, version=NAMES),
    st.builds(Listen, request=NUMBERS, address=NAMES, port=st.integers(0, limits.MAX_PORT)),
    st.builds(Connect, request=NUMBERS, host=NAMES, port=PORTS),
    st.builds(Compiled, size=SIZES),
    st.builds(Changed, header=VALUES, size=SIZES),
    st.builds(Progress, text=NAMES),
    st.builds(Exited, outcome=VALUES),
    st.builds(Deliver, header=VALUES, size=SIZES),
    st.builds(Opened, request=st.integers(1, 4), port=st.sampled_from([1, 80])),
    st.builds(Refused, request=st.integers(1, 4), reason=st.sampled_from(Reason), detail=st.text(PRINTABLE)),
)


@given(ITEMS)
def test_an_item_comes_back_as_it_was(item: Item) -> None:
    assert decode(encode(item)) == item


@given(st.binary(max_size=200) | VALUES.map(wire.encode) | st.lists(VALUES, max_size=4).map(wire.encode))
def test_decoding_is_total_and_accepts_one_spelling(data: bytes) -> None:
    try:
        item = decode(data)
    except Malformed:
        return
    assert encode(item) == data


@given(st.lists(st.tuples(ITEMS, st.integers(0, 4)), max_size=12))
def test_each_request_of_the_keep_has_at_most_one_answer(answers: list[tuple[Item, int]]) -> None:
    guest = Guest(sockets=True)
    asked = [guest.listen("::", 80), guest.listen("::", 0), guest.connect("db", 80)]
    answered = []
    for item, descriptors in answers:
        with contextlib.suppress(EnarxError):
            request, answer = guest.answered(item, descriptors)
            assert descriptors == isinstance(answer, Opened)
            answered.append(request)
    assert len({request.request for request in answered}) == len(answered)
    assert all(request in asked for request in answered)


@given(st.lists(ITEMS, max_size=20))
def test_a_host_never_takes_more_than_its_owner_allows(said: list[Item]) -> None:
    host = Host(Permissions(listen=Scope.ANY, connect=frozenset()), max_bytes=1 << 29)
    taken: list[Item] = []
    for item in [Ready(version="1"), Deliver(header=None, size=0), *said]:
        with contextlib.suppress(EnarxError):
            if isinstance(item, Deliver):
                host.deliver(item)
            else:
                taken.append(host.received(item, 0))
    assert sum(item.size for item in taken if isinstance(item, Compiled | Changed)) <= 1 << 29
    assert not any(isinstance(item, Opened | Refused) for item in taken)
    ends = [at for at, item in enumerate(taken) if isinstance(item, Exited)]
    assert ends in ([], [len(taken) - 1])
