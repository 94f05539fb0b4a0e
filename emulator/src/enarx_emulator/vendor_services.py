"""What AMD's and Intel's services answer for emulated machines, and what may happen to them. No I/O but the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from enarx.attest.snp import Line
from enarx.tcb.errors import Malformed
from enarx_emulator.amd.vendor import AmdVendor, kds_answer, utc_now
from enarx_emulator.answer import Answer
from enarx_emulator.arguments import Arguments
from enarx_emulator.faults import registry
from enarx_emulator.intel._recovery import Recovery
from enarx_emulator.intel.pck import pem
from enarx_emulator.intel.pcs import pcs_answer
from enarx_emulator.intel.vendor import IntelVendor
from enarx_emulator.machine import Store

SERVICES: Final = ("kds", "pcs")


class Outage(Enum):
    """How a service fails."""

    NONE = "none"
    REFUSE = "refuse"
    """503, as from an overloaded service."""
    LIMIT = "limit"
    """429, as AMD answers who asks too often."""
    GARBAGE = "garbage"
    """200 with nothing sensible in it."""
    HANG = "hang"
    """The connection is taken and nothing ever comes."""
    CUT = "cut"
    """The connection ends in the middle of the answer."""


class VendorServices:
    """Both vendors over one store."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._real_clock = clock
        self._fixed: datetime | None = None
        self._outages = dict.fromkeys(SERVICES, Outage.NONE)
        self._events: Mapping[str, Callable[[Arguments], Mapping[str, object]]] = {
            "outage": self._outage,
            "clock": self._clock,
            "faults": self._faults,
            "revoke-amd-authority": self._revoke_amd,
            "revoke-intel-certificate": self._revoke_intel,
            "recover-intel-tcb": self._recover_intel,
        }
        self._set_faults(faults)

    @property
    def now(self) -> datetime:
        """The vendors' time."""
        return self._fixed or self._real_clock()

    def outage(self, path: str) -> Outage:
        """How the service of this path fails just now."""
        return self._outages[service_of(path)]

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """Answer a GET request as the vendor would; outages are for the server to play."""
        if service_of(path) == "pcs":
            return pcs_answer(self._intel, path, query, now=self.now)
        return kds_answer(self._amd, path, query)

    def root(self, name: str) -> bytes | None:
        """The root certificate (PEM) of ``Milan``, ``Genoa``, ``Turin`` or ``intel``."""
        if name == "intel":
            return pem(IntelVendor(self._store).root.der)  # the genuine one, whatever the faults
        lines = {line.value: line for line in Line}
        return self._amd.root_pem(lines[name]) if name in lines else None

    def state(self) -> Mapping[str, object]:
        """What has happened so far."""
        return {
            "emulated": True,
            "now": self.now.isoformat(),
            "outages": {name: outage.value for name, outage in self._outages.items()},
            "faults": sorted(self._amd.faults),
            "tcb_evaluation_number": self._intel.newest_number,
        }

    def event(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Let something happen. Raises ``Malformed``, ``EmulatorError``."""
        if name not in self._events:
            raise Malformed(f"event is {name!r}, expected one of {', '.join(sorted(self._events))}")
        return self._events[name](Arguments(name, arguments))

    def _outage(self, given: Arguments) -> Mapping[str, object]:
        service, kind = given.text("service", "all"), given.text("kind")
        given.end()
        kinds = {outage.value: outage for outage in Outage}
        if service not in (*SERVICES, "all") or kind not in kinds:
            expected = f"service {', '.join(SERVICES)} or all, kind {', '.join(kinds)}"
            raise Malformed(f"outage: {service} {kind} is unknown, expected {expected}")
        for name in SERVICES if service == "all" else (service,):
            self._outages[name] = kinds[kind]
        return self.state()

    def _clock(self, given: Arguments) -> Mapping[str, object]:
        """Set the vendors' time: what was issued long ago has expired now. ``real``: the real time again."""
        text = given.text("now")
        given.end()
        try:
            self._fixed = None if text == "real" else datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise Malformed(f"clock: now is {text!r}, expected a time in ISO 8601 or real") from None
        return self.state()

    def _faults(self, given: Arguments) -> Mapping[str, object]:
        names = frozenset(given.text("names", "").split())
        given.end()
        if unknown := names - registry().keys():
            raise Malformed(f"faults: {', '.join(sorted(unknown))} is no fault")
        self._set_faults(names)
        return self.state()

    def _set_faults(self, names: frozenset[str]) -> None:
        self._amd = AmdVendor(self._store, clock=lambda: self.now, faults=names)
        self._intel = IntelVendor(self._store, faults=names)

    def _revoke_amd(self, given: Arguments) -> Mapping[str, object]:
        product, authority = given.text("product"), given.text("authority", "ask")
        given.end()
        lines = {line.value: line for line in Line}
        if product not in lines:
            raise Malformed(f"product is {product!r}, expected one of {', '.join(lines)}")
        self._amd.authority(lines[product]).revoke(authority)
        return self.state()

    def _revoke_intel(self, given: Arguments) -> Mapping[str, object]:
        serial = _hex(given, "serial")
        given.end()
        self._intel.revoke(int.from_bytes(serial, "big"))
        return self.state()

    def _recover_intel(self, given: Arguments) -> Mapping[str, object]:
        """Need newer versions of a platform (fmspc, cpu_svn, pce_svn, tee_tcb_svn) or of an enclave."""
        recovery = Recovery(
            number=0,
            at=int(self.now.timestamp()),
            advisories=tuple(given.text("advisories", "INTEL-SA-EMULATED").split()),
            older=given.text("older", "OutOfDate"),
            fmspc=_hex(given, "fmspc", ""),
            cpu_svn=_hex(given, "cpu_svn", ""),
            pce_svn=_number(given, "pce_svn"),
            tee_tcb_svn=_hex(given, "tee_tcb_svn", ""),
            enclave=given.text("enclave", ""),
            isv_svn=_number(given, "isv_svn"),
        )
        given.end()
        self._intel.recover(recovery)
        return self.state()


def service_of(path: str) -> str:
    """Whose path it is."""
    return "pcs" if path.startswith(("/sgx/", "/tdx/", "/IntelSGXRootCA")) else "kds"


def parse_event(body: bytes) -> Mapping[str, object]:
    """Read the arguments of an event: a JSON object of texts. Raises ``Malformed``."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("event is not JSON") from None
    if not isinstance(found, dict):
        raise Malformed("event is no JSON object")
    return found


def _hex(given: Arguments, name: str, default: str | None = None) -> bytes:
    text = given.text(name, default)
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Malformed(f"{name} is {text!r}, expected hex") from None


def _number(given: Arguments, name: str) -> int:
    text = given.text(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise Malformed(f"{name} is {text!r}, expected a number")
    return int(text)
