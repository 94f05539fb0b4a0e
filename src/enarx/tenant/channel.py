"""The tenant's end of the TLS connection to a keep: bytes through the host, the exporter and the keep's key out of it.

The certificate is not verified here: it proves nothing by itself. Evidence over the exporter and the key does, and
nothing is delivered before (docs/spec/session.md).
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import InvalidVersion
from OpenSSL import SSL

from enarx.tcb.binding import EXPORTER_BYTES, EXPORTER_LABEL
from enarx.tcb.errors import EnarxError

READ_BYTES: Final = 1 << 17
HANDSHAKE_TIMEOUT_S: Final = 20.0
SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"


class ChannelLost(EnarxError):
    """The connection to the keep ended before it should."""


class Channel:
    """A TLS 1.3 connection with a keep. Not for several threads at once; ``send`` and ``receive`` may wait."""

    def __init__(self, sock: socket.socket, *, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> None:
        """Shake hands over ``sock``, which this object then owns. Raises ``ChannelLost``."""
        sock.setblocking(False)
        self._sock = sock
        self._connection = SSL.Connection(_context(), sock)
        self._connection.set_connect_state()
        self._poll = select.poll()
        self._poll.register(sock, 0)
        try:
            self._until_done(self._connection.do_handshake, timeout_s)
            public = _shown_key(self._connection)
        except BaseException:
            sock.close()
            raise
        self.keep_key = sha256(public).digest()
        """SHA-256 of the public key that the keep has shown."""
        self.exporter = self._connection.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)
        self.group = _group(self._connection)
        """The key exchange that was agreed on, as OpenSSL names it."""

    def fileno(self) -> int:
        """Give the socket to wait on; ``buffered`` tells of bytes that no wait would."""
        return self._sock.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes are here already."""
        return self._connection.pending() > 0

    def send(self, data: bytes, *, timeout_s: float | None = None) -> None:
        """Send all of ``data``. Raises ``ChannelLost``."""
        view = memoryview(data)
        while view:
            part = view[:READ_BYTES]
            sent = self._until_done(lambda part=part: self._connection.send(part), timeout_s)
            view = view[sent:]

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting, and give how much that was. Raises ``ChannelLost``."""
        try:
            return self._connection.send(data[:READ_BYTES])
        except (SSL.WantReadError, SSL.WantWriteError):
            return 0
        except (SSL.Error, OSError) as error:
            raise ChannelLost("the connection to the keep broke") from error

    def receive(self, *, timeout_s: float | None = None) -> bytes:
        """Give what has arrived, waiting for the first byte; nothing at the end. Raises ``ChannelLost``."""
        try:
            data: bytes = self._until_done(lambda: self._connection.recv(READ_BYTES), timeout_s)
        except SSL.ZeroReturnError:
            return b""
        return data

    def receive_now(self) -> bytes | None:
        """Give what has arrived without waiting, nothing at the end, None when nothing has. Raises ``ChannelLost``."""
        try:
            return self._connection.recv(READ_BYTES)
        except (SSL.WantReadError, SSL.WantWriteError):
            return None
        except SSL.ZeroReturnError:
            return b""
        except (SSL.Error, OSError) as error:
            raise ChannelLost("the connection to the keep broke") from error

    def close(self) -> None:
        """Say goodbye and give the socket back."""
        with contextlib.suppress(SSL.Error, OSError):
            self._connection.shutdown()
        self._sock.close()

    def _until_done(self, action: Any, timeout_s: float | None) -> Any:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                return action()
            except SSL.WantReadError:
                event = select.POLLIN
            except SSL.WantWriteError:
                event = select.POLLOUT
            except SSL.ZeroReturnError:
                raise
            except (SSL.Error, OSError):
                hint = "the keep ended, or the host cut the connection: see its log"
                raise ChannelLost("the connection to the keep broke", hint=hint) from None
            self._poll.modify(self._sock, event)
            left = None if deadline is None else max(0.0, 1000 * (deadline - time.monotonic()))
            if not self._poll.poll(left):
                raise ChannelLost(f"the keep did not answer within {timeout_s:g} seconds")


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(SUITES)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _shown_key(connection: SSL.Connection) -> bytes:
    """Give the public key of the peer's certificate (SubjectPublicKeyInfo in DER). Raises ``ChannelLost``."""
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise ChannelLost("the keep shows no certificate")
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, InvalidVersion, UnsupportedAlgorithm):
        hint = "a keep shows a P-256 key: something else answers for it"
        raise ChannelLost("the keep shows a certificate that nobody can read", hint=hint) from None


def _group(connection: SSL.Connection) -> str:
    name = getattr(connection, "get_group_name", None)
    return (name() or "") if name is not None else ""
