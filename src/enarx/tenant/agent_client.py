"""Clients of a host agent, one that waits and one for asyncio. Nothing that they bring is trusted.

They follow no redirect, use no proxy and no cookie, and limit the size of an answer and the time that it may take.
"""

from __future__ import annotations

import re
import ssl
import sys
import time
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from enarx.api import agent as api
from enarx.tcb.errors import Unavailable
from enarx.tenant import agent_calls
from enarx.tenant.agent_calls import MAX_ANSWER_BYTES, Call, HostAddress, HostMisbehaved, HostUnreachable

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # its command line, half of its loading time
import httpx  # noqa: E402

T = TypeVar("T", bound=msgspec.Struct)

TIMEOUT_S: Final = 60.0
"""For one call from beginning to end."""
CONNECT_TIMEOUT_S: Final = 10.0
_ERRNO: Final = re.compile(r"^\[Errno -?\d+\] ")
_GONE: Final = re.compile(r"disconnected without|closed connection without")


class AgentClient:
    """Asks one host agent. Use it as a context manager. Safe for several threads."""

    def __init__(self, address: HostAddress, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._client = httpx.Client(**_settings(address, timeout_s))

    def ask(self, call: Call[T]) -> T:
        """Make one call. Raises ``HostUnreachable``, ``HostRefused``, ``HostMisbehaved``."""
        timeout_s = max(self._timeout_s, call.may_take_s)
        answer = _Answer(timeout_s)
        try:
            with self._client.stream(call.method, call.path, **_content(call, timeout_s)) as response:
                for part in response.iter_raw():
                    answer.add(part)
                return call.read(response.status_code, response.headers.get("content-type", ""), answer.body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(self.address, error) from None

    def info(self) -> api.Info:
        """Say what the machine offers."""
        return self.ask(agent_calls.get_info())

    def image(self) -> api.HostImage:
        """Give what the machine says that it launches."""
        return self.ask(agent_calls.get_image())

    def platform(self, tee: str) -> api.Platform:
        """Give what the vendor says of the machine."""
        return self.ask(agent_calls.get_platform(tee))

    def create(self, tee: str = api.ANY, tenant: bytes = b"") -> api.KeepInfo:
        """Launch a keep."""
        return self.ask(agent_calls.create_keep(tee, tenant))

    def keeps(self) -> list[api.KeepInfo]:
        """Give all keeps of ours."""
        return self.ask(agent_calls.list_keeps()).keeps

    def keep(self, name: str) -> api.KeepInfo:
        """Look at one keep."""
        return self.ask(agent_calls.get_keep(name))

    def stop(self, name: str) -> api.KeepInfo:
        """End one keep."""
        return self.ask(agent_calls.stop_keep(name))

    def secret(self, name: str, packet: bytes) -> api.KeepInfo:
        """Hand over the launch secret of a pre-boot TEE."""
        return self.ask(agent_calls.give_secret(name, packet))

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAgentClient:
    """The same for asyncio. Use it as an asynchronous context manager."""

    def __init__(self, address: HostAddress, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(**_settings(address, timeout_s))

    async def ask(self, call: Call[T]) -> T:
        """Make one call. Raises ``HostUnreachable``, ``HostRefused``, ``HostMisbehaved``."""
        timeout_s = max(self._timeout_s, call.may_take_s)
        answer = _Answer(timeout_s)
        try:
            async with self._client.stream(call.method, call.path, **_content(call, timeout_s)) as response:
                async for part in response.aiter_raw():
                    answer.add(part)
                return call.read(response.status_code, response.headers.get("content-type", ""), answer.body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(self.address, error) from None

    async def info(self) -> api.Info:
        """Say what the machine offers."""
        return await self.ask(agent_calls.get_info())

    async def image(self) -> api.HostImage:
        """Give what the machine says that it launches."""
        return await self.ask(agent_calls.get_image())

    async def platform(self, tee: str) -> api.Platform:
        """Give what the vendor says of the machine."""
        return await self.ask(agent_calls.get_platform(tee))

    async def create(self, tee: str = api.ANY, tenant: bytes = b"") -> api.KeepInfo:
        """Launch a keep."""
        return await self.ask(agent_calls.create_keep(tee, tenant))

    async def keeps(self) -> list[api.KeepInfo]:
        """Give all keeps of ours."""
        return (await self.ask(agent_calls.list_keeps())).keeps

    async def keep(self, name: str) -> api.KeepInfo:
        """Look at one keep."""
        return await self.ask(agent_calls.get_keep(name))

    async def stop(self, name: str) -> api.KeepInfo:
        """End one keep."""
        return await self.ask(agent_calls.stop_keep(name))

    async def secret(self, name: str, packet: bytes) -> api.KeepInfo:
        """Hand over the launch secret of a pre-boot TEE."""
        return await self.ask(agent_calls.give_secret(name, packet))

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def host_tls(address: HostAddress) -> ssl.SSLContext:
    """Make the settings of a connection to a host's own TLS, which protects our token and nothing else."""
    authority = address.certificates
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"{authority}: no certificates: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Answer:
    """The body of an answer as it comes in, within its limits."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        self._parts.append(part)
        if self._size > MAX_ANSWER_BYTES:
            raise HostMisbehaved(f"the host's answer has more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > self._deadline:
            raise HostUnreachable(f"the host did not finish its answer within {self._timeout_s:g} seconds")

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)


def _settings(address: HostAddress, timeout_s: float) -> dict[str, Any]:
    return {
        "base_url": address.url,
        "headers": address.headers() | {"Accept-Encoding": "identity"},
        "verify": host_tls(address) if address.scheme == "https" else False,
        "timeout": _timeout(timeout_s),
        "follow_redirects": False,
        "trust_env": False,
    }


def _content(call: Call[Any], timeout_s: float) -> dict[str, Any]:
    body = {"content": call.body, "headers": {"Content-Type": "application/json"}} if call.body else {}
    return {"timeout": _timeout(timeout_s), **body}


def _timeout(timeout_s: float) -> httpx.Timeout:
    return httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)


def _failure(address: HostAddress, error: Exception) -> HostUnreachable | HostMisbehaved:
    if isinstance(error, httpx.RemoteProtocolError) and _GONE.search(str(error)):
        hint = "did enarx host serve end there?"
        return HostUnreachable(f"{address.url}: the host went away before it had answered", hint=hint)
    if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError | httpx.InvalidURL):
        return HostMisbehaved(f"{address.url}: the host does not speak HTTP properly")
    if isinstance(error, httpx.TimeoutException):
        return HostUnreachable(f"{address.url}: the host did not answer in time")
    reason = _ERRNO.sub("", agent_calls.printable(str(error))).lower() or type(error).__name__
    return HostUnreachable(f"{address.url}: {reason}", hint="does enarx host serve run there?")
