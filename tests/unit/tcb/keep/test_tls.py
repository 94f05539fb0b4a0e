"""TLS of the keep against Python's own ``ssl`` on the other side (attacks A41 and A42)."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL

from enarx.tcb.errors import Malformed
from enarx.tcb.keep import tls
from enarx.tcb.keep.tls import Credential, HandshakeError, client_context, self_signed, server_context

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Authority:
    """A certificate authority for one test."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            x509.CertificateBuilder(self.name, self.name, self.key.public_key(), 1, NOW - DAY, NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, *names: x509.GeneralName, common_name: str = "leaf", until: dt.datetime = NOW + DAY
    ) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = x509.CertificateBuilder(
            self.name, subject, key.public_key(), x509.random_serial_number(), NOW - 2 * DAY, until
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Credential(key=key, chain=(builder.sign(self.key, hashes.SHA256()), self.certificate))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextmanager
def thread(target: Callable[[], None]) -> Iterator[None]:
    """Run ``target`` beside the block, and have it over when the block is."""
    other = threading.Thread(target=target)
    other.start()
    try:
        yield
    finally:
        other.join()


def shake(connection: SSL.Connection, peer: SSL.Connection) -> None:
    """Shake hands in memory."""
    for _ in range(4):
        for end, other in ((connection, peer), (peer, connection)):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(1 << 16))


def memory_server(credential: Credential) -> SSL.Connection:
    connection = SSL.Connection(server_context(credential), None)
    connection.set_accept_state()
    return connection


def python_client(
    server: SSL.Connection, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """Shake hands as Python's client, in memory, and read one message so that tickets have arrived."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, session=session)
    for _ in range(4):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if data := outgoing.read():
            server.bio_write(data)
        with suppress(SSL.WantReadError):
            server.do_handshake()
        with suppress(SSL.WantReadError):
            incoming.write(server.bio_read(1 << 16))
    server.send(b"hello")
    incoming.write(server.bio_read(1 << 16))
    assert client.read(5) == b"hello"
    return client


def trusting_nobody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_self_signed_certificate_names_its_listener() -> None:
    credential = self_signed("front.example", now=NOW)
    (certificate,) = credential.chain
    assert certificate.subject.rfc4514_string() == "CN=front.example"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["front.example"]
    assert isinstance(credential.key.curve, ec.SECP256R1)
    assert certificate.public_key() == credential.key.public_key()
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("name", ["", "x" * 255, "ключ", "two words", "*"])
def test_any_name_of_a_listener_makes_a_certificate_that_serves(name: str) -> None:
    server = memory_server(self_signed(name, now=NOW))
    assert python_client(server, trusting_nobody()).version() == "TLSv1.3"


def test_two_keys_are_never_the_same() -> None:
    first, second = (self_signed("x", now=NOW).key.public_key() for _ in range(2))
    assert first != second


def test_a_client_that_trusts_the_certificate_accepts_the_server() -> None:
    credential = self_signed("front.example", now=NOW)
    pem = credential.chain[0].public_bytes(Encoding.PEM).decode()
    server = memory_server(credential)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=pem)
    client = context.wrap_bio(incoming, outgoing, server_hostname="front.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server.bio_write(outgoing.read())
    with pytest.raises(SSL.WantReadError):
        server.do_handshake()
    incoming.write(server.bio_read(1 << 16))
    client.do_handshake()


def test_an_older_version_is_refused() -> None:
    context = trusting_nobody()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server = memory_server(self_signed("x", now=NOW))
    server.bio_write(outgoing.read())
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        server.do_handshake()


def test_plain_text_is_refused() -> None:
    server = memory_server(self_signed("x", now=NOW))
    server.bio_write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(SSL.Error, match="http request"):
        server.do_handshake()


def test_no_session_is_ever_resumed() -> None:
    context = trusting_nobody()
    keep = server_context(self_signed("x", now=NOW))

    def connect(session: ssl.SSLSession | None) -> ssl.SSLObject:
        server = SSL.Connection(keep, None)
        server.set_accept_state()
        return python_client(server, context, session)

    first = connect(None)
    second = connect(first.session)
    assert second.session_reused is False


def test_a_session_is_resumed_by_a_server_that_does_so() -> None:
    """What the test before relies on: with a ticket, Python's client does resume."""
    credential = self_signed("x", now=NOW)
    keep = SSL.Context(SSL.TLS_METHOD)
    keep.use_privatekey(credential.key)
    keep.use_certificate(credential.chain[0])
    keep.set_session_id(b"test")
    context = trusting_nobody()
    session = None
    for _ in range(2):
        server = SSL.Connection(keep, None)
        server.set_accept_state()
        client = python_client(server, context, session)
        session = client.session
    assert client.session_reused is True


def test_keeps_agree_on_a_post_quantum_group_and_a_strong_suite() -> None:
    credential = self_signed("x", now=NOW)
    server = memory_server(credential)
    client = SSL.Connection(client_context(credential, credential.chain[0].public_bytes(Encoding.PEM)), None)
    client.set_connect_state()
    shake(client, server)
    assert client.get_protocol_version_name() == "TLSv1.3"
    assert client.get_cipher_name() == "TLS_AES_256_GCM_SHA384"
    assert (client.get_group_name() or "").lower() == "x25519mlkem768"


@pytest.mark.parametrize("suite", tls.SUITES.decode().split(":"))
def test_each_suite_is_served(suite: str) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(suite.encode())
    client = SSL.Connection(context, None)
    client.set_connect_state()
    shake(client, memory_server(self_signed("x", now=NOW)))
    assert client.get_cipher_name() == suite


def test_another_suite_is_not_served() -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(b"TLS_AES_128_CCM_SHA256")
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with pytest.raises(SSL.Error):
        shake(client, memory_server(self_signed("x", now=NOW)))


def _connect(server: Credential, roots: bytes, host: str) -> None:
    """Shake hands as the keep's client with a server that has ``server``."""
    ours, theirs = socket.socketpair()
    peer = SSL.Connection(server_context(server), theirs)
    peer.set_accept_state()

    def serve() -> None:
        with theirs, suppress(SSL.Error):
            peer.do_handshake()

    with thread(serve), ours:
        context = client_context(self_signed("client", now=NOW), roots)
        tls.connect(context, ours, host, timeout_s=10)


def test_a_server_under_a_delivered_root_is_accepted(authority: Authority) -> None:
    _connect(authority.issue(x509.DNSName("db.example")), authority.pem, "db.example")
    _connect(authority.issue(x509.DNSName("*.corp.example")), authority.pem, "db.corp.example.")
    _connect(authority.issue(x509.IPAddress(ip_address("192.0.2.1"))), authority.pem, "192.0.2.1")
    _connect(authority.issue(x509.IPAddress(ip_address("2001:db8::1"))), authority.pem, "2001:db8::1")


def test_a_server_under_another_root_is_refused(authority: Authority) -> None:
    with pytest.raises(HandshakeError, match="self-signed certificate in certificate chain"):
        _connect(Authority("another").issue(x509.DNSName("db.example")), authority.pem, "db.example")


def test_a_server_that_only_claims_the_roots_name_is_refused(authority: Authority) -> None:
    with pytest.raises(HandshakeError, match="signature failure"):
        _connect(Authority().issue(x509.DNSName("db.example")), authority.pem, "db.example")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (x509.DNSName("other.example"), "db.example"),
        (x509.DNSName("db*.example"), "db1.example"),
        (x509.DNSName("192.0.2.1"), "192.0.2.1"),
        (x509.IPAddress(ip_address("192.0.2.2")), "192.0.2.1"),
    ],
)
def test_a_server_of_another_name_is_refused(authority: Authority, name: x509.GeneralName, host: str) -> None:
    with pytest.raises(HandshakeError, match="mismatch"):
        _connect(authority.issue(name), authority.pem, host)


def test_a_common_name_is_no_name(authority: Authority) -> None:
    with pytest.raises(HandshakeError, match="hostname mismatch"):
        _connect(authority.issue(common_name="db.example"), authority.pem, "db.example")


def test_an_expired_server_is_refused(authority: Authority) -> None:
    with pytest.raises(HandshakeError, match="expired"):
        _connect(authority.issue(x509.DNSName("db.example"), until=NOW - DAY), authority.pem, "db.example")


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_no_certificate_could_name_is_refused(authority: Authority, host: str) -> None:
    with pytest.raises(HandshakeError, match="no name"):
        _connect(authority.issue(x509.DNSName("db.example")), authority.pem, host)


def test_a_server_that_asks_gets_the_keeps_certificate(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(x509.DNSName("db.example"))
    file = tmp_path / "server.pem"
    key = server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key + b"".join(it.public_bytes(Encoding.PEM) for it in server.chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem.decode())
    ours, theirs = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        with context.wrap_socket(theirs, server_side=True) as stream:
            seen.append(stream.getpeercert(binary_form=True))

    keep = authority.issue(x509.DNSName("keep"))
    with ours, thread(serve):
        tls.connect(client_context(keep, authority.pem), ours, "db.example", timeout_s=10)
    assert seen == [keep.chain[0].public_bytes(Encoding.DER)]


def test_a_silent_server_times_out(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    context = client_context(self_signed("client", now=NOW), authority.pem)
    with ours, theirs, pytest.raises(HandshakeError, match=r"did not end within 0\.05 s"):
        tls.connect(context, ours, "db.example", timeout_s=0.05)


def test_a_server_that_hangs_up_is_an_error(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    context = client_context(self_signed("client", now=NOW), authority.pem)
    with ours, pytest.raises(HandshakeError, match="handshake failed"):
        tls.connect(context, ours, "db.example", timeout_s=1)


@pytest.mark.parametrize(
    "roots", [b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_roots_that_are_no_certificates_are_malformed(roots: bytes) -> None:
    with pytest.raises(Malformed, match="authorities"):
        client_context(self_signed("client", now=NOW), roots)


def test_a_self_signed_certificate_is_for_no_authority() -> None:
    (certificate,) = self_signed("x", now=NOW).chain
    constraints = certificate.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
