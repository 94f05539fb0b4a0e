"""Fuzz target: ESM blobs and the device trees in them."""

from __future__ import annotations

import contextlib

from enarx.attest.pef import parse_digests, parse_esm_blob
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read ``data`` as a blob, and as the digests that are sealed in one."""
    for parse in (parse_esm_blob, parse_digests):
        with contextlib.suppress(EnarxError):
            parse(data)
