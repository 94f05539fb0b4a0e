"""What the agent answers: one table of paths, methods and handlers, from which its OpenAPI document is made."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec

from enarx import __version__
from enarx.api import agent as api
from enarx.api.keep_image import Image
from enarx.api.vm_image import VmImage
from enarx.host.agent._http import Request, Response, Upgrade, problem
from enarx.host.agent._keeps import Keeps, NotFound, NotReady
from enarx.host.agent._metrics import metrics
from enarx.host.agent._tenants import Account, Accounts, NotAllowed, QuotaReached
from enarx.host.backend import Backend
from enarx.tcb.errors import EnarxError, Malformed, Unavailable

_STATUS: Final[Mapping[type[EnarxError], HTTPStatus]] = {
    NotAllowed: HTTPStatus.UNAUTHORIZED,
    QuotaReached: HTTPStatus.TOO_MANY_REQUESTS,
    NotFound: HTTPStatus.NOT_FOUND,
    NotReady: HTTPStatus.CONFLICT,
    Malformed: HTTPStatus.BAD_REQUEST,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WAITING: Final = 32
"""Requests that may wait for platforms at a time; others are answered meanwhile."""
_LOG: Final = logging.getLogger("enarx.host.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. Where ``authenticated`` is not set, it tells nothing of any keep."""

    method: str
    path: str
    summary: str
    handler: Callable[[Routes, Account, Mapping[str, str], Request], Any]
    status: HTTPStatus = HTTPStatus.OK
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None
    authenticated: bool = True
    blocking: bool = False
    """Whether it may wait for a platform."""
    media_type: str = "application/json"

    @property
    def pattern(self) -> re.Pattern[str]:
        """The path as a pattern with its parameters as groups."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[A-Za-z0-9_.-]{1,64})", self.path))


class Routes:
    """Finds the handler of a request; handlers that may block run in threads."""

    def __init__(self, keeps: Keeps, accounts: Accounts, *, image: Image | VmImage) -> None:
        self.keeps = keeps
        self.image = image
        self._accounts = accounts
        self._table = [(route.pattern, route) for route in ROUTES]
        self._threads = ThreadPoolExecutor(max_workers=WAITING, thread_name_prefix="platform")

    async def __call__(self, request: Request) -> Response | Upgrade:
        """Answer; every error of ours is a problem document."""
        found = [
            (match, route) for pattern, route in self._table if (match := pattern.fullmatch(request.path))
        ]
        if not found:
            return problem(HTTPStatus.NOT_FOUND, f"there is no {request.path[:128]!r}", "see /openapi.json")
        method = "GET" if request.method == "HEAD" else request.method
        match, route = next((it for it in found if it[1].method == method), (None, None))
        if match is None or route is None:
            allowed = ", ".join(sorted({it.method for _, it in found}))
            headers = (("Allow", allowed),)
            detail = f"{request.method} is not possible"
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, f"possible: {allowed}", headers=headers)
        try:
            return await self._answer(route, match.groupdict(), request)
        except (EnarxError, OSError) as error:
            return failure(error)
        except Exception:  # a mistake of ours must not take the machine's keeps with it
            _LOG.exception("%s %s", route.method, route.path)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a mistake of the agent, see its log")

    async def _answer(self, route: Route, names: Mapping[str, str], request: Request) -> Response | Upgrade:
        account = Account(name="")
        if route.authenticated:
            account = self._accounts.find(request.headers.get("authorization", ""))
        if route.takes is not None:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if (
                kind != "application/json"
            ):  # what pages of other sites can send without asking is refused, too
                return problem(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    "the body is not JSON",
                    "Content-Type: application/json",
                )
        if route.blocking:
            loop = asyncio.get_running_loop()
            call = partial(route.handler, self, account, names, request)
            result = await loop.run_in_executor(self._threads, call)
        else:
            result = route.handler(self, account, names, request)
        if isinstance(result, Response | Upgrade):
            return result
        return Response(status=route.status, body=msgspec.json.encode(result))

    def close(self) -> None:
        """Start nothing that waits any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def backend(self, backend: Backend) -> api.Backend:
        """Describe one backend."""
        support = backend.support()
        facts = [
            api.Fact(name=it.name, passed=it.passed, detail=it.detail, advice=it.advice)
            for it in support.facts
        ]
        return api.Backend(
            name=backend.name, tee=backend.tee, emulated=backend.emulated, ready=support.ready, facts=facts
        )


def failure(error: EnarxError | OSError) -> Response:
    """Turn an error into its answer."""
    if isinstance(error, OSError):
        status = HTTPStatus.INSUFFICIENT_STORAGE if error.errno in _FULL else HTTPStatus.SERVICE_UNAVAILABLE
        return problem(status, f"the machine cannot do that now: {(error.strerror or 'unknown').lower()}")
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_GATEWAY)
    headers = (("WWW-Authenticate", "Bearer"),) if status is HTTPStatus.UNAUTHORIZED else ()
    return problem(status, str(error), error.hint, headers=headers)


def _read(request: Request, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"body: {str(error)[:300]}") from None


def _info(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.Info:
    return api.Info(
        version=__version__,
        image=routes.image.digest.hex(),
        backends=[routes.backend(backend) for backend in routes.keeps.backends],
        max_keeps=routes.keeps.max_keeps,
        keeps=routes.keeps.alive,
    )


def _image(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.HostImage:
    image = routes.image
    cmdline = image.cmdline if isinstance(image, VmImage) else ""
    return api.HostImage(manifest=image.manifest.decode("utf-8", "replace"), cmdline=cmdline)


def _platform(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.Platform:
    for backend in routes.keeps.backends:
        if backend.tee == names["tee"]:
            found = backend.endorsements()
            return api.Platform(
                tee=backend.tee,
                emulated=backend.emulated,
                certificates=list(found.certificates),
                crls=list(found.crls),
                documents=[api.Document(kind=kind, data=data) for kind, data in found.documents],
                roots=list(found.roots),
            )
    raise routes.keeps.missing(names["tee"])


def _create(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.KeepInfo:
    wanted: api.NewKeep = _read(request, api.NewKeep)
    return routes.keeps.create(account, tee=wanted.tee, tenant=wanted.tenant)


def _list(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.KeepList:
    return api.KeepList(keeps=routes.keeps.list(account))


def _get(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.KeepInfo:
    return routes.keeps.get(account, names["id"])


def _stop(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.KeepInfo:
    return routes.keeps.stop(account, names["id"])


def _secret(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.KeepInfo:
    packet: api.Secret = _read(request, api.Secret)
    return routes.keeps.secret(account, names["id"], packet.packet)


def _channel(
    routes: Routes, account: Account, names: Mapping[str, str], request: Request
) -> Response | Upgrade:
    routes.keeps.door(account, names["id"])
    if not request.upgrades():
        hint = f"Connection: Upgrade, Upgrade: {api.PROTOCOL}"
        headers = (("Connection", "Upgrade"), ("Upgrade", api.PROTOCOL))
        return problem(HTTPStatus.UPGRADE_REQUIRED, "this is the channel to a keep", hint, headers=headers)
    return Upgrade(lambda connection: routes.keeps.connect(account, names["id"], connection), failure)


def _health(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> api.Health:
    return api.Health()


def _metrics(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> Response:
    body, media_type = metrics(routes.keeps)
    return Response(body=body, media_type=media_type)


def _openapi(routes: Routes, account: Account, names: Mapping[str, str], request: Request) -> Response:
    from enarx.host.agent._openapi import openapi

    return Response(body=msgspec.json.encode(openapi()))


_ID = "/v1/keeps/{id}"
ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/info",
        summary="What this machine offers",
        handler=_info,
        gives=api.Info,
        blocking=True,
    ),
    Route(
        method="GET",
        path="/v1/image",
        summary="What this machine says that it launches",
        handler=_image,
        gives=api.HostImage,
    ),
    Route(
        method="GET",
        path="/v1/platforms/{tee}",
        summary="What the vendor says of this machine",
        handler=_platform,
        blocking=True,
        gives=api.Platform,
    ),
    Route(
        method="POST",
        path="/v1/keeps",
        summary="Launch a keep",
        handler=_create,
        blocking=True,
        status=HTTPStatus.CREATED,
        takes=api.NewKeep,
        gives=api.KeepInfo,
    ),
    Route(method="GET", path="/v1/keeps", summary="List your keeps", handler=_list, gives=api.KeepList),
    Route(method="GET", path=_ID, summary="Look at a keep", handler=_get, gives=api.KeepInfo),
    Route(method="DELETE", path=_ID, summary="End a keep", handler=_stop, gives=api.KeepInfo, blocking=True),
    Route(
        method="POST",
        path=_ID + "/secret",
        summary="Hand over a launch secret (SEV, SEV-ES)",
        handler=_secret,
        blocking=True,
        takes=api.Secret,
        gives=api.KeepInfo,
    ),
    Route(
        method="GET",
        path=_ID + "/channel",
        summary=f"Upgrade to {api.PROTOCOL}: the connection goes to the keep",
        handler=_channel,
        status=HTTPStatus.SWITCHING_PROTOCOLS,
    ),
    Route(
        method="GET",
        path="/healthz",
        summary="Whether it is up",
        handler=_health,
        gives=api.Health,
        authenticated=False,
    ),
    Route(
        method="GET",
        path="/metrics",
        summary="Figures for Prometheus",
        handler=_metrics,
        authenticated=False,
        media_type="text/plain",
    ),
    Route(
        method="GET",
        path="/openapi.json",
        summary="This interface",
        handler=_openapi,
        authenticated=False,
    ),
)
