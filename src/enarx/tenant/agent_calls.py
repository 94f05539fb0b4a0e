"""The calls of a host agent as values: what to send, and what an answer means. Pure; the host is not trusted.

Whatever it answers is read strictly; a redirect, another media type or a field too many is an error of its own kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from enarx.api import agent as api
from enarx.api.problems import MEDIA_TYPE, Problem
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation, Unavailable

T = TypeVar("T", bound=msgspec.Struct)

MAX_ANSWER_BYTES: Final = 32 << 20
LAUNCH_S: Final = 180.0
"""How long a launch may take: a machine that boots, on a host that boots others."""
"""The collateral of a machine, in base64."""
_KEEP_ID: Final = re.compile(r"[0-9a-f]{32}")


class HostUnreachable(Unavailable):
    """Nobody answers at the host's address."""


class HostMisbehaved(ProtocolViolation):
    """The host's answer is none that its interface has."""


class HostRefused(EnarxError):
    """The host says no. ``status`` is that of HTTP."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class NotAllowed(HostRefused):
    """The host does not know our token, or wants one."""


class NoSuchKeep(HostRefused):
    """The host has no such keep of ours."""


class KeepNotReady(HostRefused):
    """The keep is not in a state for that; perhaps it has ended."""


class QuotaReached(HostRefused):
    """We have all that the host gives us."""


class HostUnable(HostRefused, Unavailable):
    """The host would, but cannot now."""


_REFUSALS: Final[Mapping[int, type[HostRefused]]] = {
    HTTPStatus.UNAUTHORIZED: NotAllowed,
    HTTPStatus.FORBIDDEN: NotAllowed,
    HTTPStatus.NOT_FOUND: NoSuchKeep,
    HTTPStatus.CONFLICT: KeepNotReady,
    HTTPStatus.TOO_MANY_REQUESTS: QuotaReached,
    HTTPStatus.BAD_GATEWAY: HostUnable,
    HTTPStatus.SERVICE_UNAVAILABLE: HostUnable,
    HTTPStatus.INSUFFICIENT_STORAGE: HostUnable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress:
    """Where a host agent is. ``token`` is shown to nobody but it."""

    scheme: str
    host: str
    port: int
    token: str = field(default="", repr=False)
    certificates: Path | None = None
    """Certificates (PEM) that the host's own may end at, instead of the system's."""

    @classmethod
    def parse(cls, url: str, *, token: str = "", certificates: Path | None = None) -> HostAddress:
        """Read ``http[s]://HOST[:PORT]``. Raises ``Malformed``; a token is not sent in the clear over a network."""
        hint = "write http://HOST:PORT or https://HOST:PORT"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise Malformed("host: no URL", hint=hint) from None
        more = (
            parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/")
        )
        if parts.scheme not in ("http", "https") or not host or more:
            raise Malformed("host: expected scheme, name and port, and nothing more", hint=hint)
        if token and not re.fullmatch(r"[!-~]{1,4096}", token):
            raise Malformed("token: expected visible ASCII characters", hint="without spaces and line ends")
        if token and parts.scheme == "http" and not _is_local(host):
            hint = "use https, or a tunnel that ends at this machine"
            raise Malformed("token: everybody on the way could read it", hint=hint)
        default = 443 if parts.scheme == "https" else 80
        return cls(
            scheme=parts.scheme,
            host=host,
            port=default if port is None else port,
            token=token,
            certificates=certificates,
        )

    @property
    def authority(self) -> str:
        """Host and port as HTTP writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address without the token."""
        return f"{self.scheme}://{self.authority}"

    def headers(self) -> dict[str, str]:
        """What every request says."""
        accept = {"Accept": f"application/json, {MEDIA_TYPE}"}
        return accept | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and the type of its answer."""

    method: str
    path: str
    gives: type[T]
    status: HTTPStatus = HTTPStatus.OK
    body: bytes = field(default=b"", repr=False)
    may_take_s: float = 0.0
    """How long the answer may take, where that is longer than usual."""

    def read(self, status: int, media_type: str, body: bytes) -> T:
        """Understand an answer. Raises ``HostRefused`` and its kinds, ``HostMisbehaved``."""
        if status != self.status:
            raise refusal(status, media_type, body)
        if media_type.partition(";")[0].strip().lower() != "application/json":
            raise HostMisbehaved(f"{self.path}: the host answers with {media_type[:60]!a}, expected JSON")
        try:
            answer = msgspec.json.decode(body, type=self.gives)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise HostMisbehaved(
                f"{self.path}: the host's answer is malformed: {printable(str(error))}"
            ) from None
        if isinstance(answer, api.KeepInfo):
            keep_path(answer.id)
        return answer


def refusal(status: int, media_type: str, body: bytes) -> EnarxError:
    """Make the error of an answer that is not what was asked for."""
    if media_type.partition(";")[0].strip().lower() != MEDIA_TYPE or not 400 <= status <= 599:
        hint = "is it the address of a host agent?"
        return HostMisbehaved(f"the host answers with status {status}, which means nothing here", hint=hint)
    try:
        told = msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return HostMisbehaved(f"the host answers with status {status} and no reason that can be read")
    kind = _REFUSALS.get(status, HostRefused)
    text = printable(told.detail or told.title)
    return kind(f"the host refuses: {text}", hint=printable(told.hint), status=status)


def printable(text: str) -> str:
    """Make harmless what somebody else wrote."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:500])


def keep_path(name: str) -> str:
    """Give the path of a keep, whose name must be what hosts give. Raises ``HostMisbehaved``."""
    if not _KEEP_ID.fullmatch(name):
        raise HostMisbehaved("the name of a keep: expected 32 hex digits")
    return f"/v1/keeps/{name}"


def get_info() -> Call[api.Info]:
    """What the machine offers."""
    return Call(method="GET", path="/v1/info", gives=api.Info)


def get_image() -> Call[api.HostImage]:
    """What the machine says that it launches."""
    return Call(method="GET", path="/v1/image", gives=api.HostImage)


def get_platform(tee: str) -> Call[api.Platform]:
    """What the vendor says of the machine."""
    if not re.fullmatch(r"[a-z0-9-]{1,32}", tee):
        raise HostMisbehaved("the name of a TEE: expected letters, digits and '-'")
    return Call(method="GET", path=f"/v1/platforms/{tee}", gives=api.Platform)


def create_keep(tee: str, tenant: bytes) -> Call[api.KeepInfo]:
    """Launch a keep."""
    body = msgspec.json.encode(api.NewKeep(tee=tee, tenant=tenant))
    return Call(
        method="POST",
        path="/v1/keeps",
        gives=api.KeepInfo,
        status=HTTPStatus.CREATED,
        body=body,
        may_take_s=LAUNCH_S,
    )


def list_keeps() -> Call[api.KeepList]:
    """All keeps of ours."""
    return Call(method="GET", path="/v1/keeps", gives=api.KeepList)


def get_keep(name: str) -> Call[api.KeepInfo]:
    """Look at one keep."""
    return Call(method="GET", path=keep_path(name), gives=api.KeepInfo)


def stop_keep(name: str) -> Call[api.KeepInfo]:
    """End one keep."""
    return Call(method="DELETE", path=keep_path(name), gives=api.KeepInfo)


def give_secret(name: str, packet: bytes) -> Call[api.KeepInfo]:
    """Hand over the launch secret of a pre-boot TEE."""
    body = msgspec.json.encode(api.Secret(packet=packet))
    path = f"{keep_path(name)}/secret"
    return Call(method="POST", path=path, gives=api.KeepInfo, body=body, may_take_s=LAUNCH_S)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
