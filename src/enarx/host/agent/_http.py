"""The HTTP/1.1 shell of the agent: limits, time-outs, and upgrades that give the socket away. The protocol is h11's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

import h11
import msgspec

from enarx.api.agent import MAX_BODY_BYTES, PROTOCOL
from enarx.api.problems import MEDIA_TYPE, Problem
from enarx.tcb.errors import EnarxError

REQUEST_TIMEOUT_S: Final = 10.0
"""From the first byte of a request to its last, and for a peer to take an answer."""
IDLE_TIMEOUT_S: Final = 75.0
LINGER_S: Final = 1.0
"""How long a peer that was refused may go on sending, so that it reads why."""
MAX_CONNECTIONS: Final = 2048
"""Without those that were given away; another one displaces the one that has been silent the longest."""
MAX_HEAD_BYTES: Final = 16 << 10
_READ_BYTES: Final = 1 << 16
_RELAY_BYTES: Final = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; the path has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def upgrades(self) -> bool:
        """Whether the client asks for the channel to a keep."""
        tokens = [token.strip().lower() for token in self.headers.get("connection", "").split(",")]
        wanted = self.headers.get("upgrade", "").lower()
        return self.method == "GET" and "upgrade" in tokens and wanted == PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Give the connection away: ``take`` gets a socket, which it copies or passes on before it returns.

    Raises ``EnarxError``, which ``failed`` turns into the answer.
    """

    take: Callable[[socket.socket], None]
    failed: Callable[[EnarxError], Response]


Handler = Callable[[Request], Awaitable[Response | Upgrade]]


def problem(
    status: HTTPStatus, detail: str, hint: str = "", *, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Make the error document."""
    body = msgspec.json.encode(Problem(title=status.phrase, status=status.value, detail=detail, hint=hint))
    return Response(status=status, body=body, media_type=MEDIA_TYPE, headers=headers)


class Shell:
    """Serves ``handler`` on one port. What a peer does harms only its own connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._request_timeout_s = request_timeout_s
        self._max_connections = max_connections
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises ``OSError``."""
        timeouts = {"ssl_handshake_timeout": self._request_timeout_s} if self._tls else {}
        return await asyncio.start_server(
            self._connected, host, port, ssl=self._tls, limit=_READ_BYTES, backlog=1024, **timeouts
        )

    async def stop(self) -> None:
        """Cut all connections."""
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports let go of their sockets in the round after

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or (len(self._connections) >= self._max_connections and not self._displace()):
            writer.transport.abort()
            return
        connection = _Connection(self._handler, reader, writer, timeout_s=self._request_timeout_s)
        self._connections[task] = connection
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await connection.serve()
        finally:
            del self._connections[task]
            writer.transport.abort()

    def _displace(self) -> bool:
        """Cut the connection that has been silent the longest, unless all are being served."""
        silent = [it for it in self._connections.items() if not it[1].busy and not it[0].cancelling()]
        if not silent:
            return False
        min(silent, key=lambda it: it[1].heard)[0].cancel()
        return True


class _Connection:
    """One client, request after request."""

    def __init__(
        self,
        handler: Handler,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        timeout_s: float,
    ) -> None:
        self._handler, self._reader, self._writer = handler, reader, writer
        self._timeout_s = timeout_s
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.busy = False
        self.heard = time.monotonic()
        self._secure = writer.get_extra_info("ssl_object") is not None
        writer.transport.set_write_buffer_limits(
            high=int(self._secure)
        )  # drained is sent; with TLS 0 would stop all

    async def serve(self) -> None:
        while True:
            self.busy = False
            try:
                request = await self._request()
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint or 400)
                await self._refuse(problem(status, str(error)))
                return
            except _TooSlow:
                detail = f"a request may take {self._timeout_s:g} seconds"
                await self._refuse(problem(HTTPStatus.REQUEST_TIMEOUT, detail))
                return
            except _TooLarge:
                detail = f"a body has at most {MAX_BODY_BYTES} bytes"
                await self._refuse(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
                return
            if request is None:
                return
            self.busy = True
            answer = await self._handler(request)
            if isinstance(answer, Upgrade):
                refusal = await self._give_away(answer)
                if refusal is None:
                    return
                answer = refusal
            await self._send(answer, head=request.method == "HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> Request | None:
        """Read one request; None when the client has no more. Its first byte may take long, the rest may not."""
        while not self._http.trailing_data[0]:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._http.receive_data(data)
        try:
            async with asyncio.timeout(self._timeout_s):
                event = await self._event()
                if not isinstance(event, h11.Request):
                    return None
                if event.http_version not in (b"1.0", b"1.1"):
                    raise h11.RemoteProtocolError("the version is not HTTP/1.1", error_status_hint=505)
                body = await self._body()
        except TimeoutError:
            raise _TooSlow from None
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        path = event.target.decode("ascii").partition("?")[0]
        return Request(method=event.method.decode("ascii"), path=path, headers=headers, body=body)

    async def _body(self) -> bytes:
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
        body = bytearray()
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > MAX_BODY_BYTES:
                raise _TooLarge
        return bytes(body)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self.heard = time.monotonic()
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _refuse(self, answer: Response) -> None:
        """Answer a request that was not read to its end. What still comes is thrown away for a moment: closing a
        socket with unread bytes takes back what was sent."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(answer, close=True)
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await self._reader.read(_READ_BYTES):
                pass

    async def _send(self, answer: Response, *, head: bool = False, close: bool = False) -> None:
        headers = [
            ("Content-Type", answer.media_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *answer.headers,
        ]
        if close:
            headers.append(("Connection", "close"))
        status, reason = answer.status.value, answer.status.phrase
        body = [] if head else [h11.Data(data=answer.body)]
        self._write(
            h11.Response(status_code=status, headers=headers, reason=reason), *body, h11.EndOfMessage()
        )
        await self._drain()

    def _write(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))

    async def _drain(self) -> None:
        async with asyncio.timeout(self._timeout_s):
            await self._writer.drain()

    async def _give_away(self, upgrade: Upgrade) -> Response | None:
        """Switch protocols, or say why not. A plain connection itself goes to the keep; one with TLS is carried over.

        The keep has it before the client reads that it may speak, and a keep does not speak first.
        """
        transport = cast(asyncio.Transport, self._writer.transport)
        transport.pause_reading()
        if self._http.trailing_data[0] or await self._early():
            transport.resume_reading()
            await self._refuse(problem(HTTPStatus.BAD_REQUEST, "bytes came before the upgrade was granted"))
            return None
        ours: socket.socket | None = None
        try:
            if self._secure:
                ours, connection = socket.socketpair()
            else:
                connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            with connection:
                upgrade.take(connection)
        except EnarxError as error:
            if ours is not None:
                ours.close()
            transport.resume_reading()
            return upgrade.failed(error)
        headers = [("Connection", "Upgrade"), ("Upgrade", PROTOCOL)]
        self._write(h11.InformationalResponse(status_code=101, headers=headers, reason="Switching Protocols"))
        await self._drain()
        if ours is not None:
            transport.resume_reading()
            await self._carry(ours)
        return None

    async def _early(self) -> bool:
        """Whether something lies in the reader already."""
        try:
            async with asyncio.timeout(0):
                return bool(await self._reader.read(1))
        except TimeoutError:
            return False

    async def _carry(self, ours: socket.socket) -> None:
        """Copy what is TLS to the keep, both ways, until the keep ends; it gets a moment when the client has."""
        inside, outside = await asyncio.open_connection(sock=ours)
        inward = asyncio.create_task(_pump(self._reader, outside))
        outward = asyncio.create_task(_pump(inside, self._writer))
        try:
            await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(self._timeout_s):
                await outward
                self._writer.close()
                await self._writer.wait_closed()
        finally:
            outside.transport.abort()  # before anything that a second cancellation could interrupt
            for pump in (inward, outward):
                pump.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)


class _TooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_RELAY_BYTES):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
