"""The port to a tree that is served, as the keep in a machine has one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

from enarx.tcb.keep.platform import PortTree, Tree
from enarx.tcb.keep.vm._tree_server import serve_tree


def served(tree: Tree) -> Iterator[PortTree]:
    """Serve ``tree`` until the port is closed."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_tree, args=(theirs.fileno(), tree), daemon=True)
    thread.start()
    with theirs:
        with ours:
            yield PortTree(ours.fileno())
        thread.join(20)
        assert not thread.is_alive()
