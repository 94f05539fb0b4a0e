"""What Intel says of security versions, and how that changes with TCB recoveries.

Each recovery has a number (``tcbEvaluationDataNumber``). Documents of a number know of all recoveries up to it, so
several are valid at once, as with the real service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from enarx.tcb.wire import Value
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel.documents import Json, svn_level, tcb_level, tdx_module, timestamp
from enarx_emulator.intel.processor import Model

FIRST_NUMBER: Final = 17
"""What the documents say before the first recovery."""
FIRST_DATE: Final = datetime(2024, 3, 13, tzinfo=UTC)
OLD_DATE: Final = datetime(2023, 8, 9, tzinfo=UTC)
OLD_ADVISORIES: Final = ("INTEL-SA-00828", "INTEL-SA-00837")
ENCLAVES: Final[Mapping[str, tuple[int, int]]] = {"QE": (1, 8), "TD_QE": (2, 4), "QVE": (3, 3)}
"""Product number and newest security version of Intel's own enclaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """From now on these versions are needed; what is older has ``older`` as its status.

    ``fmspc``: which platforms, with ``cpu_svn``, ``pce_svn`` and, for TDX, ``tee_tcb_svn``; ``enclave``: which of
    ``ENCLAVES`` instead, with ``isv_svn``.
    """

    number: int
    at: int
    """When, in seconds of Unix time."""
    advisories: tuple[str, ...] = ()
    older: str = "OutOfDate"
    fmspc: bytes = b""
    cpu_svn: bytes = b""
    pce_svn: int = 0
    tee_tcb_svn: bytes = b""
    enclave: str = ""
    isv_svn: int = 0

    def save(self) -> dict[str, Value]:
        """Give it as a value to keep."""
        return {
            "number": self.number,
            "at": self.at,
            "advisories": list(self.advisories),
            "older": self.older,
            "fmspc": self.fmspc,
            "cpu_svn": self.cpu_svn,
            "pce_svn": self.pce_svn,
            "tee_tcb_svn": self.tee_tcb_svn,
            "enclave": self.enclave,
            "isv_svn": self.isv_svn,
        }

    @classmethod
    def restore(cls, value: Value) -> Recovery:
        """Read what ``save`` gave."""
        match value:
            case {
                "number": int() as number,
                "at": int() as at,
                "advisories": list() as advisories,
                "older": str() as older,
                "fmspc": bytes() as fmspc,
                "cpu_svn": bytes() as cpu_svn,
                "pce_svn": int() as pce_svn,
                "tee_tcb_svn": bytes() as tee_tcb_svn,
                "enclave": str() as enclave,
                "isv_svn": int() as isv_svn,
            }:
                return cls(
                    number=number,
                    at=at,
                    advisories=tuple(map(str, advisories)),
                    older=older,
                    fmspc=fmspc,
                    cpu_svn=cpu_svn,
                    pce_svn=pce_svn,
                    tee_tcb_svn=tee_tcb_svn,
                    enclave=enclave,
                    isv_svn=isv_svn,
                )
            case _:
                raise EmulatorError("the vendor's state holds no TCB recovery where one should be")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    cpu_svn: bytes
    pce_svn: int
    tee_tcb_svn: bytes | None
    status: str
    date: datetime
    advisories: tuple[str, ...] = ()


def tcb_levels(model: Model, recoveries: Sequence[Recovery], tee: str) -> list[Json]:
    """Give the levels of a TCB info, newest first; ``tee`` is SGX or TDX."""
    older = bytes(max(svn - 1, 0) for svn in model.cpu_svn)
    levels = [
        _Level(
            cpu_svn=model.cpu_svn,
            pce_svn=model.pce_svn,
            tee_tcb_svn=model.tee_tcb_svn,
            status="UpToDate",
            date=FIRST_DATE,
        ),
        _Level(
            cpu_svn=older,
            pce_svn=model.pce_svn - 2,
            tee_tcb_svn=bytes(max(svn - 1, 0) for svn in model.tee_tcb_svn or b"") or None,
            status="OutOfDate",
            date=OLD_DATE,
            advisories=OLD_ADVISORIES,
        ),
    ]
    for one in recoveries:
        if one.fmspc == model.fmspc:
            newest = levels[0]
            levels = [_outdated(level, one) for level in levels]
            new = _Level(
                cpu_svn=one.cpu_svn or newest.cpu_svn,
                pce_svn=one.pce_svn or newest.pce_svn,
                tee_tcb_svn=one.tee_tcb_svn or newest.tee_tcb_svn,
                status="UpToDate",
                date=datetime.fromtimestamp(one.at, UTC),
            )
            levels.insert(0, new)
    return [
        tcb_level(
            sgx=level.cpu_svn,
            pce_svn=level.pce_svn,
            tdx=level.tee_tcb_svn if tee == "TDX" else None,
            status=level.status,
            date=timestamp(level.date),
            advisories=level.advisories or None,
        )
        for level in levels
    ]


def _outdated(level: _Level, by: Recovery) -> _Level:
    current = level.status == "UpToDate"
    return _Level(
        cpu_svn=level.cpu_svn,
        pce_svn=level.pce_svn,
        tee_tcb_svn=level.tee_tcb_svn,
        status=by.older if current or by.older == "Revoked" else level.status,
        date=level.date,
        advisories=(*level.advisories, *by.advisories),
    )


def module_identities(model: Model, recoveries: Sequence[Recovery]) -> list[Json]:
    """Give the identities of the TDX modules that have one of their own: major version 1 and later."""
    assert model.tee_tcb_svn is not None  # noqa: S101 -- only models with TDX are asked for
    svn, major = model.tee_tcb_svn[:2]
    if not major:
        return []
    steps = [(one.tee_tcb_svn[0], one) for one in recoveries if one.fmspc == model.fmspc and one.tee_tcb_svn]
    levels = _svn_levels(svn, steps)
    return [tdx_module(id=f"TDX_{major:02X}", levels=levels)]


def enclave_levels(kind: str, recoveries: Sequence[Recovery]) -> list[Json]:
    """Give the levels of one of ``ENCLAVES``, newest first."""
    return _svn_levels(ENCLAVES[kind][1], [(one.isv_svn, one) for one in recoveries if one.enclave == kind])


def _svn_levels(first: int, steps: Sequence[tuple[int, Recovery]]) -> list[Json]:
    known: list[tuple[int, str, datetime, tuple[str, ...]]] = [
        (first, "UpToDate", FIRST_DATE, ()),
        (max(first - 2, 0), "OutOfDate", OLD_DATE, OLD_ADVISORIES),
    ]
    for svn, by in steps:
        if svn <= known[0][0]:
            continue
        worse = "Revoked" if by.older == "Revoked" else "OutOfDate"  # enclaves and modules have no other
        known = [
            (
                have,
                worse if status == "UpToDate" or worse == "Revoked" else status,
                date,
                (*ids, *by.advisories),
            )
            for have, status, date, ids in known
        ]
        known.insert(0, (svn, "UpToDate", datetime.fromtimestamp(by.at, UTC), ()))
    return [
        svn_level(svn, status=status, date=timestamp(date), advisories=ids or None)
        for svn, status, date, ids in known
    ]
