"""One HTTPS client for everything that is fetched: bounded in bytes, in time and in attempts.

Every exchange is a connection of its own and one GET. Nothing that a server does makes it take longer than its
deadline or more memory than its limit. What arrives is untrusted: TLS protects who asks for what, not the answer.
"""

from __future__ import annotations

import http.client
import ipaddress
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import (  # type: ignore[attr-defined] # the stubs lack the second
    getproxies_environment,
    proxy_bypass_environment,
)

from enarx import __version__
from enarx.attest.fetch._stream import connect, left, receive, send
from enarx.attest.fetch.errors import CollateralUnavailable

EXCHANGE_S: Final = 15.0
"""From the connection's start to the last byte. The vendors answer within a second."""
TOTAL_S: Final = 60.0
"""With all attempts and the waits between them. AMD's service lets one address ask once in ten seconds."""
ATTEMPTS: Final = 4
FIRST_WAIT_S: Final = 2.0
"""Doubled with each further attempt where the server does not say how long to wait; three waits pass ten seconds."""
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""The largest answers are revocation lists, which may grow to some hundred KiB."""
MAX_REDIRECTS: Final = 3

_RETRIED: Final = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_OTHER_SERVICE: Final = "name another service with --kds or --pcs, or fetch on another machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said: the whole body, or 304 and nothing."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """By lower-case name; the first where a name occurs twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Fetches one address at a time; may be used by many threads."""

    exchange_s: float = EXCHANGE_S
    total_s: float = TOTAL_S
    max_body_bytes: int = MAX_BODY_BYTES
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    """By default the authorities of the machine, or those that SSL_CERT_FILE names."""
    proxies: Mapping[str, str] = field(default_factory=getproxies_environment)
    """By default those of HTTPS_PROXY and NO_PROXY; TLS goes through them to the service."""
    sleep: Callable[[float], None] = time.sleep

    def get(self, url: str, *, etag: str = "") -> Answer:
        """Fetch ``url``; with the ``etag`` of an earlier answer 304 may come back. Raises ``CollateralUnavailable``."""
        end = time.monotonic() + self.total_s
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._follow(url, etag, end)
            if answer.status not in _RETRIED:
                break
            backing_off = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 -- no secret
            wait = _retry_after(answer.headers.get("retry-after", ""))
            wait = backing_off if wait is None else wait
            if attempt == ATTEMPTS or time.monotonic() + wait > end:
                raise _refused(url, answer.status, f"try again in {max(1, round(wait))} seconds or later")
            self.sleep(wait)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED):
            raise _refused(url, answer.status, _advice(answer.status))
        return answer

    def _follow(self, url: str, etag: str, end: float) -> Answer:
        """One attempt, with redirects within the same service."""
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._exchange(at, etag, end)
            if answer.status not in _REDIRECTS:
                return answer
            to = urljoin(at, answer.headers.get("location", ""))
            if _service(urlsplit(to)) != _service(urlsplit(at)):
                raise CollateralUnavailable(
                    at,
                    f"status {answer.status} leads to another service, {to[:200]!r}",
                    status=answer.status,
                    hint="if that is the service you mean, name it with --kds or --pcs",
                )
            at = to
        raise CollateralUnavailable(url, f"more than {MAX_REDIRECTS} redirects", status=answer.status)

    def _exchange(self, url: str, etag: str, end: float) -> Answer:
        parts = check_url(url)
        deadline = min(end, time.monotonic() + self.exchange_s)
        try:
            with self._connect(parts, deadline) as connection:
                send(connection, _request(parts, etag), deadline)
                return self._read(url, connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise CollateralUnavailable(
                url,
                f"the certificate of the server is not valid here: {error.verify_message}",
                hint="SSL_CERT_FILE names the authorities of a service of your own",
            ) from None
        except socket.gaierror:
            raise CollateralUnavailable(
                url, "the name of the server cannot be resolved", hint=_OTHER_SERVICE
            ) from None
        except TimeoutError:
            raise CollateralUnavailable(
                url, f"no whole answer within {self.exchange_s:g} seconds", hint=_OTHER_SERVICE
            ) from None
        except http.client.IncompleteRead:
            raise _truncated(url) from None
        except http.client.HTTPException as error:
            raise CollateralUnavailable(url, f"the answer is not HTTP: {type(error).__name__}") from None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise CollateralUnavailable(
                url, f"the server cannot be reached: {reason}", hint=_OTHER_SERVICE
            ) from None

    def _connect(self, parts: SplitResult, deadline: float) -> socket.socket:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme == "http":
            return connect(host, port, deadline)
        bypassed = proxy_bypass_environment(host, dict(self.proxies))
        plain = connect(host, port, deadline, proxy="" if bypassed else self.proxies.get("https", ""))
        try:
            plain.settimeout(left(deadline))
            return self.tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def _read(self, url: str, connection: socket.socket, deadline: float) -> Answer:
        response = receive(connection, "GET", deadline)
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), value)
        announced = response.length or 0
        body = b"" if announced > self.max_body_bytes else response.read(self.max_body_bytes + 1)
        if max(announced, len(body)) > self.max_body_bytes:
            raise CollateralUnavailable(
                url, f"the answer has more than {self.max_body_bytes} bytes", status=response.status
            )
        if len(body) < announced:
            raise _truncated(url)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise CollateralUnavailable(url, "the answer is compressed, which was not asked for")
        return Answer(status=response.status, body=body, headers=headers)


def check_url(url: str) -> SplitResult:
    """Take an address apart. Raises ``CollateralUnavailable`` unless it is https, or http to this very machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise CollateralUnavailable(url, "not an address") from None
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url) or not parts.hostname:
        raise CollateralUnavailable(url, "not an address")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname)):
        raise CollateralUnavailable(
            url, "neither https nor on this machine", hint="addresses begin with https://"
        )
    if parts.username is not None or parts.fragment:
        raise CollateralUnavailable(url, "the address holds a user name or a fragment")
    return parts


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _service(parts: SplitResult) -> tuple[str, str]:
    return parts.scheme, parts.netloc.lower()


def _request(parts: SplitResult, etag: str) -> list[str]:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"User-Agent: enarx/{__version__}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if etag and etag.isascii() and etag.isprintable():
        lines.append(f"If-None-Match: {etag}")
    return lines


def _retry_after(text: str) -> float | None:
    """Seconds, or a date (RFC 9110, section 10.2.3); nothing when there is neither."""
    if text.strip().isdecimal() and len(text) <= 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _truncated(url: str) -> CollateralUnavailable:
    return CollateralUnavailable(url, "the connection ended in the middle of the answer", hint="try again")


def _refused(url: str, status: int, hint: str) -> CollateralUnavailable:
    known = {one.value: f" ({one.phrase.lower()})" for one in HTTPStatus}
    return CollateralUnavailable(
        url, f"the server answered with status {status}{known.get(status, '')}", status=status, hint=hint
    )


def _advice(status: int) -> str:
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.BAD_REQUEST | HTTPStatus.GONE:
            return "the service does not know this platform or its firmware version; is it the right service?"
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return "the service wants to know who asks, which Enarx cannot tell it"
    return "the service is in trouble: try again later"
