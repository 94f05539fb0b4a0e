"""The tenant's end of TLS, against whatever may answer for a keep."""

from __future__ import annotations

import contextlib
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from enarx.tcb.keep.tls import self_signed, server_context
from enarx.tenant.channel import Channel, ChannelLost

VERSION_3 = bytes.fromhex("a003020102")
"""In a certificate: the explicit tag of its version, and v3."""


def test_a_certificate_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    """OpenSSL shakes hands with it; whoever reads it afterwards must not fall over it."""
    credential = self_signed("keep", now=datetime.now(UTC))
    context = server_context(credential)
    odd = credential.chain[0].public_bytes(Encoding.DER).replace(VERSION_3, VERSION_3[:-1] + b"\x05", 1)
    (tmp_path / "odd.der").write_bytes(odd)
    context.use_certificate_file(str(tmp_path / "odd.der"), crypto.FILETYPE_ASN1)
    ours, theirs = socket.socketpair()

    def answer() -> None:
        server = SSL.Connection(context, theirs)
        server.set_accept_state()
        with contextlib.suppress(SSL.Error):
            server.do_handshake()

    with ours, theirs:
        peer = threading.Thread(target=answer)
        peer.start()
        with pytest.raises(ChannelLost, match="nobody can read"):
            Channel(ours)
        peer.join()
