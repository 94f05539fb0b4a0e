"""Every maximum between keep and host, with its reason (docs/spec/sallyport.md, section 6)."""

from __future__ import annotations

from typing import Final

MAX_ITEM_BYTES: Final = 4 << 20
"""One item: a delivery's header with a CA bundle (250 KB), or the listing of a tree of 50,000 names, fits."""
MAX_BLOB_BYTES: Final = 1 << 30
"""Raw bytes behind one item: the keep holds them in memory, next to the workload's own."""
MAX_DESCRIPTORS: Final = 3
"""Descriptors beside one item: standard input, output and error travel together."""
MAX_REQUEST: Final = (1 << 32) - 1
"""Request and stream numbers: 32 bits outlast any keep."""
MAX_REQUESTS: Final = 1024
"""Requests of one keep: each is an entry of Enarx.toml, which has no more of them."""
MAX_PORT: Final = 65535
MAX_NAME: Final = 253
"""Host names and addresses in characters (RFC 1035, section 2.3.4, without the root)."""
MAX_VERSION: Final = 64
MAX_TEXT: Final = 1024
"""Text for people: a few lines of a terminal."""
MAX_PROGRESS: Final = 1000
"""Progress reports of one keep: booting takes a dozen; more would only flood the host."""
