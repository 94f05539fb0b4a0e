"""What Intel publishes about platforms and quoting enclaves: TCB info and enclave identities, as values.

Source: Intel, "Provisioning Certification Service API" version 4 (and 3 for TCB info version 2). The signature is
over the body exactly as it was sent; what was parsed is never written again. Members that we do not know are
ignored, as the service adds some without a new version; members that occur twice are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enarx.attest.errors import MalformedCollateral

MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""The largest seen has 10 KiB."""

T = TypeVar("T")


class TcbStatus(Enum):
    """Intel's word about a platform; the value is its spelling in documents, policies and results."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"


_PLATFORM_STATUSES: Final = {status.value: status for status in TcbStatus if "Relaunch" not in status.value}
_ENCLAVE_STATUSES: Final = {
    status.value: status for status in (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The body of a document as it was signed, and the signature in DER. Nothing here was verified."""

    body: bytes
    signature: bytes
    issue_date: datetime
    next_update: datetime
    evaluation_number: int
    """Which TCB recovery the document knows: ``tcbEvaluationDataNumber``. Several are valid at once."""


class TcbLevel(NamedTuple):
    """Least security versions of a platform, and what Intel says of one that has them."""

    sgx: bytes
    pce_svn: int
    tdx: bytes | None
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


class SvnLevel(NamedTuple):
    """The same for one enclave or module, which has a single security version."""

    isv_svn: int
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxModule:
    """Which TDX module is genuine, and the versions of it that Intel knows, newest first."""

    id: str
    """``TDX_01`` and so on; empty for the one of version 0, whose levels are those of the platform."""
    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo(Signed):
    """What Intel says of all platforms of one FMSPC; levels newest first."""

    id: str
    """``SGX`` or ``TDX``."""
    version: int
    fmspc: bytes
    pce_id: bytes
    levels: tuple[TcbLevel, ...]
    module: TdxModule | None
    modules: tuple[TdxModule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity(Signed):
    """How to know a genuine quoting enclave; levels newest first."""

    id: str
    """``QE``, ``TD_QE`` or ``QVE``."""
    misc_select: int
    misc_select_mask: int
    attributes: int
    attributes_mask: int
    mrsigner: bytes
    isv_prod_id: int
    levels: tuple[SvnLevel, ...]


def parse_tcb_info(data: bytes) -> TcbInfo:
    """Read a TCB info with its signature. Raises ``MalformedCollateral``."""
    body, signature, value = _split(data, "tcbInfo")
    at = _Object(value, "tcbInfo")
    version = at.take("version", int)
    if version not in (2, 3):
        raise at.bad("version", version)
    kind = at.take("id", str) if version == 3 else "SGX"
    if kind not in ("SGX", "TDX"):
        raise at.bad("id", kind)
    if (tcb_type := at.take("tcbType", int)) != 0:
        raise at.bad("tcbType", tcb_type)
    component_names = ["sgxtcbcomponents", "tdxtcbcomponents"] if kind == "TDX" else ["sgxtcbcomponents"]
    names = component_names if version == 3 else []
    return TcbInfo(
        body=body,
        signature=signature,
        id=kind,
        version=version,
        fmspc=at.octets("fmspc", 6),
        pce_id=at.octets("pceId", 2),
        levels=at.each("tcbLevels", lambda one: _tcb_level(one, names)),
        module=_module(at.inside("tdxModule"), "") if kind == "TDX" else None,
        modules=at.each("tdxModuleIdentities", _module) if at.has("tdxModuleIdentities") else (),
        **_validity(at),
    )


def parse_qe_identity(data: bytes) -> QeIdentity:
    """Read an enclave identity with its signature. Raises ``MalformedCollateral``."""
    body, signature, value = _split(data, "enclaveIdentity")
    at = _Object(value, "enclaveIdentity")
    if (version := at.take("version", int)) != 2:
        raise at.bad("version", version)
    if (kind := at.take("id", str)) not in ("QE", "TD_QE", "QVE"):
        raise at.bad("id", kind)
    return QeIdentity(
        body=body,
        signature=signature,
        id=kind,
        misc_select=at.number("miscselect", 4),
        misc_select_mask=at.number("miscselectMask", 4),
        attributes=at.number("attributes", 16),
        attributes_mask=at.number("attributesMask", 16),
        mrsigner=at.octets("mrsigner", 32),
        isv_prod_id=at.small("isvprodid", 0xFFFF),
        levels=at.each("tcbLevels", _svn_level),
        **_validity(at),
    )


_HEAD: Final = r'\s*\{\s*"%s"\s*:\s*'
_TAIL: Final = re.compile(r'\s*,\s*"signature"\s*:\s*"([0-9A-Fa-f]{128})"\s*\}\s*')


def _split(data: bytes, name: str) -> tuple[bytes, bytes, object]:
    """The body as it was signed, the signature in DER, and the body's value."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedCollateral(f"{name} has {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are allowed")
    try:
        text = data.decode("ascii")
        head = re.match(_HEAD % name, text)
        start = head.end() if head else -1
        value, end = _DECODER.raw_decode(text, start) if head else (None, 0)
    except (ValueError, RecursionError) as error:
        raise MalformedCollateral(f"{name} is not JSON: {error}") from None
    tail = _TAIL.fullmatch(text, end)
    if head is None or tail is None:
        raise MalformedCollateral(f"{name} is not an object of that name and a signature")
    raw = bytes.fromhex(tail[1])
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    return data[start:end], encode_dss_signature(r, s), value


def _no_float(text: str) -> float:
    raise ValueError(f"{text} is no integer")


# An object becomes a tuple of its members, so that whoever reads it sees those that occur twice; an array is a list.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_no_float, parse_constant=_no_float)


class _Object:
    """Members of a JSON object by name and kind."""

    __slots__ = ("_name", "_value")

    def __init__(self, value: object, name: str) -> None:
        if type(value) is not tuple:
            raise MalformedCollateral(f"{name}: expected an object, found {type(value).__name__}")
        self._value: dict[str, Any] = dict(value)
        if len(self._value) != len(value):
            raise MalformedCollateral(f"{name}: a member occurs twice")
        self._name = name

    def bad(self, name: str, found: object) -> MalformedCollateral:
        return MalformedCollateral(f"{self._name}.{name}: {str(found)[:60]!r} is not known or not allowed")

    def has(self, name: str) -> bool:
        return name in self._value

    def take(self, name: str, kind: type[T]) -> T:
        value = self._value.get(name)
        if type(value) is not kind:
            raise MalformedCollateral(
                f"{self._name}.{name}: expected {kind.__name__}, found {type(value).__name__}"
            )
        return value

    def inside(self, name: str) -> _Object:
        return _Object(self._value.get(name), f"{self._name}.{name}")

    def each(self, name: str, read: Callable[[_Object], T]) -> tuple[T, ...]:
        listed: list[object] = self.take(name, list)
        if not listed:
            raise self.bad(name, "an empty list")
        where = f"{self._name}.{name}"
        return tuple([read(_Object(one, where)) for one in listed])

    def small(self, name: str, most: int) -> int:
        value = self.take(name, int)
        if not 0 <= value <= most:
            raise self.bad(name, value)
        return value

    def octets(self, name: str, size: int) -> bytes:
        text = self.take(name, str)
        try:
            value = bytes.fromhex(text)
        except ValueError:
            value = b""
        if len(text) != 2 * size or len(value) != size:
            raise self.bad(name, text)
        return value

    def number(self, name: str, size: int) -> int:
        """Hex of ``size`` bytes; first byte first, as it stands in a report, so little endian."""
        return int.from_bytes(self.octets(name, size), "little")

    def time(self, name: str) -> datetime:
        text = self.take(name, str)
        try:
            if len(text) == 20 and text[10] == "T" and text[19] == "Z":
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        raise self.bad(name, text)

    def status(self, known: dict[str, TcbStatus]) -> TcbStatus:
        text = self.take("tcbStatus", str)
        if text not in known:
            raise self.bad("tcbStatus", text)
        return known[text]

    def advisories(self) -> tuple[str, ...]:
        if "advisoryIDs" not in self._value:
            return ()
        found: list[str] = self.take("advisoryIDs", list)
        for one in found:
            if type(one) is not str:
                raise self.bad("advisoryIDs", found)
        return tuple(found)

    def components(self, name: str) -> bytes:
        """Sixteen SVNs: a list of objects."""
        svns: list[int] = []
        for one in self.take(name, list):
            if type(one) is not tuple:
                raise self.bad(name, one)
            if len(one) == 1:  # most say nothing else
                member, svn = one[0]
            else:
                members: dict[str, object] = dict(one)
                if len(members) != len(one):
                    raise self.bad(name, one)
                member, svn = "svn", members.get("svn")
            if member != "svn" or type(svn) is not int or not 0 <= svn <= 255:
                raise self.bad(name, one)
            svns.append(svn)
        if len(svns) != 16:
            raise self.bad(name, svns)
        return bytes(svns)


def _validity(at: _Object) -> dict[str, Any]:
    return {
        "issue_date": at.time("issueDate"),
        "next_update": at.time("nextUpdate"),
        "evaluation_number": at.small("tcbEvaluationDataNumber", 0xFFFFFFFF),
    }


def _tcb_level(one: _Object, names: list[str]) -> TcbLevel:
    tcb = one.inside("tcb")
    if names:
        found = [tcb.components(name) for name in names]
    else:  # version 2 has a member for each component
        found = [bytes(tcb.small(f"sgxtcbcomp{number:02}svn", 255) for number in range(1, 17))]
    return TcbLevel(
        sgx=found[0],
        tdx=found[1] if len(found) > 1 else None,
        pce_svn=tcb.small("pcesvn", 0xFFFF),
        date=one.time("tcbDate"),
        status=one.status(_PLATFORM_STATUSES),
        advisories=one.advisories(),
    )


def _svn_level(one: _Object) -> SvnLevel:
    return SvnLevel(
        isv_svn=one.inside("tcb").small("isvsvn", 0xFFFF),
        date=one.time("tcbDate"),
        status=one.status(_ENCLAVE_STATUSES),
        advisories=one.advisories(),
    )


def _module(one: _Object, id: str | None = None) -> TdxModule:  # noqa: A002 -- the document's word
    return TdxModule(
        id=one.take("id", str).upper() if id is None else id,
        mrsigner=one.octets("mrsigner", 48),
        attributes=one.octets("attributes", 8),
        attributes_mask=one.octets("attributesMask", 8),
        levels=one.each("tcbLevels", _svn_level) if id is None else (),
    )
