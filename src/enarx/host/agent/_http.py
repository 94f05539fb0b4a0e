"""The HTTP/1.1 shell of the agent: limits, time-outs, and upgrades that give the socket away. The protocol is h11's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import h11
import msgspec

from enarx.api.agent import MAX_BODY_BYTES, PROTOCOL
from enarx.api.problems import MEDIA_TYPE, Problem

HEAD_TIMEOUT_S: Final = 10.0
"""From the first byte of a request to its last."""
IDLE_TIMEOUT_S: Final = 75.0
MAX_CONNECTIONS: Final = 2048
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
        return "upgrade" in tokens and self.headers.get("upgrade", "").lower() == PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Give the connection away: ``take`` gets a socket, which it copies or passes on before it returns."""

    take: Callable[[socket.socket], None]


Handler = Callable[[Request], Awaitable[Response | Upgrade]]


def problem(status: HTTPStatus, detail: str, hint: str = "") -> Response:
    """Make the error document."""
    body = msgspec.json.encode(Problem(title=status.phrase, status=status.value, detail=detail, hint=hint))
    return Response(status=status, body=body, media_type=MEDIA_TYPE)


class Shell:
    """Serves ``handler`` on one port. What a peer does harms only its own connection."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises ``OSError``."""
        return await asyncio.start_server(
            self._connected, host, port, ssl=self._tls, limit=_READ_BYTES, backlog=1024
        )

    async def stop(self) -> None:
        """Cut all connections."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await _Connection(self._handler, reader, writer).serve()
        finally:
            self._connections.discard(task)
            writer.transport.abort()


class _Connection:
    """One client, request after request."""

    def __init__(self, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handler, self._reader, self._writer = handler, reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> None:
        while True:
            try:
                request = await self._request()
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint or 400)
                await self._refuse(problem(status, str(error)))
                return
            except _TooLarge:
                detail = f"a body has at most {MAX_BODY_BYTES} bytes"
                await self._refuse(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
                return
            if request is None:
                return
            answer = await self._handler(request)
            if isinstance(answer, Upgrade):
                await self._give_away(answer)
                return
            await self._send(answer)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> Request | None:
        """Read one request; None when the client has no more."""
        event = await self._event(IDLE_TIMEOUT_S)
        if not isinstance(event, h11.Request):
            return None
        body = bytearray()
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            while isinstance(part := await self._event(None), h11.Data):
                body += part.data
                if len(body) > MAX_BODY_BYTES:
                    raise _TooLarge
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        path = event.target.decode("ascii").partition("?")[0]
        return Request(method=event.method.decode("ascii"), path=path, headers=headers, body=bytes(body))

    async def _event(self, timeout_s: float | None) -> object:
        """Give the next event. The first bytes may take their time, a request that has begun may not."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                begun = bool(self._http.trailing_data[0])
                limit = HEAD_TIMEOUT_S if begun and timeout_s is not None else timeout_s
                async with asyncio.timeout(limit):
                    self._http.receive_data(await self._reader.read(_READ_BYTES))
                continue
            return event

    async def _refuse(self, answer: Response) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with contextlib.suppress(h11.LocalProtocolError):
                await self._send(answer, close=True)

    async def _send(self, answer: Response, *, close: bool = False) -> None:
        headers = [
            ("Content-Type", answer.media_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if close:
            headers.append(("Connection", "close"))
        self._write(
            h11.Response(status_code=answer.status.value, headers=headers, reason=answer.status.phrase)
        )
        self._write(h11.Data(data=answer.body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _give_away(self, upgrade: Upgrade) -> None:
        """Switch protocols. A plain connection itself goes to the keep; one with TLS is carried over."""
        transport = self._writer.transport
        if self._http.trailing_data[0]:
            await self._send(
                problem(HTTPStatus.BAD_REQUEST, "bytes came before the upgrade was granted"), close=True
            )
            return
        headers = [("Connection", "Upgrade"), ("Upgrade", PROTOCOL)]
        switching = self._http.send(h11.InformationalResponse(status_code=101, headers=headers)) or b""
        if transport.get_extra_info("ssl_object") is not None:
            ours, theirs = socket.socketpair()
            with theirs:
                upgrade.take(theirs)
            self._writer.write(switching)
            await self._carry(ours)
            return
        if isinstance(transport, asyncio.Transport):
            transport.pause_reading()  # the client is silent until it reads the answer
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
            self._writer.write(switching)
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                await self._writer.drain()
            upgrade.take(connection)

    async def _carry(self, ours: socket.socket) -> None:
        inside, outside = await asyncio.open_connection(sock=ours)
        pumps = [
            asyncio.create_task(_pump(self._reader, outside)),
            asyncio.create_task(_pump(inside, self._writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(HEAD_TIMEOUT_S):
                    await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            outside.transport.abort()


class _TooLarge(Exception):
    pass


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_RELAY_BYTES):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
