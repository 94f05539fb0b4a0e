"""TLS that ends in the keep: version 1.3 alone, no resumption, no early data, keys that never leave."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.record import record

SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
RECORD_BYTES: Final = 1 << 14
"""The largest content of a record (RFC 8446, section 5.1)."""
HANDSHAKE_TIMEOUT_S: Final = 10.0
"""From the connection to the end of its handshake: ten round trips of a bad line."""
_LIFETIME: Final = timedelta(days=365)
_MAX_COMMON_NAME: Final = 64
"""RFC 5280, appendix A.1, ub-common-name."""


class HandshakeError(EnarxError):
    """The peer is not who it should be, or does not speak our TLS."""


@record
class Credential:
    """A private key and its certificates, the leaf first."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


def self_signed(name: str, *, now: datetime) -> Credential:
    """Make a fresh P-256 key and a certificate for ``name`` that nobody but its key has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])] if name else [])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if name and name.isascii():
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=not subject
        )
    return Credential(key=key, chain=(builder.sign(key, hashes.SHA256()),))


def _context(credential: Credential) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(SUITES)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # and without a cache a ticket opens nothing
    context.use_privatekey(credential.key)
    context.use_certificate(credential.chain[0])
    for certificate in credential.chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.check_privatekey()
    return context


def server_context(credential: Credential) -> SSL.Context:
    """Prepare to be the server that ``credential`` proves; clients stay anonymous."""
    context = _context(credential)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def client_context(credential: Credential, roots: bytes) -> SSL.Context:
    """Prepare to trust servers under ``roots`` (PEM) alone, and to show ``credential`` when asked to."""
    context = _context(credential)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    try:
        certificates = x509.load_pem_x509_certificates(roots)
    except ValueError:
        raise Malformed("certificate authorities are not PEM certificates") from None
    store: Any = context.get_cert_store()
    for certificate in certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    return context


def connect(context: SSL.Context, sock: socket.socket, host: str, *, timeout_s: float) -> SSL.Connection:
    """Shake hands as a client with ``host``, a name or an address that the certificate must name.

    ``sock`` is non-blocking afterwards. Raises ``HandshakeError``.
    """
    sock.setblocking(False)
    connection = SSL.Connection(context, sock)
    connection.set_connect_state()
    _expect(connection, host)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.do_handshake()
            return connection
        except SSL.WantReadError:
            event = select.POLLIN
        except SSL.WantWriteError:
            event = select.POLLOUT
        except (SSL.Error, OSError) as error:
            raise HandshakeError(f"handshake failed: {_why(connection, error)}") from None
        poll = select.poll()
        poll.register(sock, event)
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise HandshakeError(f"handshake did not end within {timeout_s:g} s")


def receive_into(connection: SSL.Connection, view: memoryview) -> int:
    """Receive the content of at most one record into ``view``, which is not empty.

    This and ``send`` do what pyOpenSSL's methods do, without their copies: a small message takes a third less time.
    """
    room = len(view)
    target = _BUFFER("char[]", view, True)  # writable
    size: int = _SSL_READ(connection._ssl, target, room if room < RECORD_BYTES else RECORD_BYTES)
    if size <= 0:
        connection._raise_ssl_error(connection._ssl, size)
    return size


def send(connection: SSL.Connection, view: memoryview) -> int:
    """Send the first of ``view``, which is not empty, as at most one record; give how much that was."""
    left = len(view)
    size: int = _SSL_WRITE(connection._ssl, _BUFFER(view), left if left < RECORD_BYTES else RECORD_BYTES)
    if size <= 0:
        connection._raise_ssl_error(connection._ssl, size)
    return size


_BUFFER: Final[Any] = Binding.ffi.from_buffer  # its arguments by name take three times as long
_SSL_READ: Final[Any] = Binding.lib.SSL_read
_SSL_WRITE: Final[Any] = Binding.lib.SSL_write


def _expect(connection: SSL.Connection, host: str) -> None:
    """Have OpenSSL hold the server's certificate against ``host`` while it verifies (RFC 9525).

    pyOpenSSL gives this function of OpenSSL no name of its own, so it is called beneath it.
    """
    lib: Any = Binding.lib
    parameters = lib.SSL_get0_param(connection._ssl)
    lib.X509_VERIFY_PARAM_set_hostflags(
        parameters, lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    )
    try:
        packed = ipaddress.ip_address(host).packed
        accepted = lib.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
    except ValueError:  # a name
        try:
            name = host.removesuffix(".").encode("idna")
        except UnicodeError:
            raise HandshakeError("host is no name that a certificate could hold") from None
        accepted = lib.X509_VERIFY_PARAM_set1_host(parameters, name, len(name))
        connection.set_tlsext_host_name(name)
    if accepted != 1:
        raise HandshakeError("host is no name that a certificate could hold")


def _why(connection: SSL.Connection, error: Exception) -> str:
    lib: Any = Binding.lib
    verdict = lib.SSL_get_verify_result(connection._ssl)
    if verdict:
        return str(Binding.ffi.string(lib.X509_verify_cert_error_string(verdict)).decode())
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(reason[-1]) for reason in reasons) or str(error.args[-1] if error.args else error)


def rehearse(now: datetime) -> None:
    """Shake hands with ourselves in memory, so that everything that is loaded on first use is loaded now."""
    credential = self_signed("rehearsal", now=now)
    server = SSL.Connection(server_context(credential), None)
    server.set_accept_state()
    roots = credential.chain[0].public_bytes(serialization.Encoding.PEM)
    client = SSL.Connection(client_context(credential, roots), None)
    client.set_connect_state()
    _expect(client, "rehearsal")
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(1 << 16))
