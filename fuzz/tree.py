"""Fuzz target: the header of a tree, as it arrives in a delivery."""

from __future__ import annotations

import io

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import decode, encode
from enarx.tcb.workload import Tree


def one(data: bytes) -> None:
    """Read ``data`` as a header with contents behind it; whatever is accepted must travel unchanged."""
    size = int.from_bytes(data[:2], "big")
    header, contents = data[2 : 2 + size], io.BytesIO(data[2 + size :])
    try:
        tree = Tree.from_header(
            decode(header, max_bytes=len(header)), lambda wanted: contents.read(min(wanted, 1 << 20))
        )
    except Malformed:
        return
    supply = io.BytesIO(b"".join(tree.blobs()))
    assert Tree.from_header(decode(encode(tree.header()), max_bytes=1 << 26), supply.read) == tree
