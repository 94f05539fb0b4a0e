"""What a guest of SNP or TDX sees of its TEE: Linux's files, with their order, limits and errors.

``report/`` is ``/sys/kernel/config/tsm/report`` (Documentation/ABI/testing/configfs-tsm-report, drivers/virt/coco),
``measurements/`` are the registers of a TDX guest. A refusal is an ``OSError`` with the number that the kernel gives.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from enarx_emulator.errors import FirmwareError
from enarx_emulator.faults import Fault
from enarx_emulator.tree import parts, refused

INBLOB_MAX: Final = 64
"""TSM_INBLOB_MAX; both providers want exactly so many bytes."""
PRIVLEVEL_MAX: Final = 3
MAX_ENTRIES: Final = 256
"""Linux has no such limit; here it keeps one guest from filling the memory of all."""
GENERATIONS: Final = 1 << 64

_TSM: Final = ("snp", "tdx")
FAULTS: Final = (
    Fault(name="tsm-absent", kinds=_TSM, effect="no provider is registered", caught_by="ENXIO"),
    Fault(name="tsm-busy", kinds=_TSM, effect="the report is never ready", caught_by="EBUSY"),
    Fault(name="tsm-io-error", kinds=_TSM, effect="the firmware fails for each report", caught_by="EIO"),
    Fault(
        name="tsm-generation",
        kinds=_TSM,
        effect="others change the request meanwhile",
        caught_by="generation",
    ),
    Fault(name="tsm-provider", kinds=_TSM, effect="the provider is called otherwise", caught_by="provider"),
    Fault(
        name="tsm-replay",
        kinds=_TSM,
        effect="the first report is given for ever",
        caught_by="binding.report_data",
    ),
    Fault(
        name="tsm-truncated",
        kinds=_TSM,
        effect="the report lacks its last byte",
        caught_by="Malformed",
    ),
    Fault(name="tsm-empty", kinds=_TSM, effect="the report is empty", caught_by="MalformedEvidence"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a provider gives for one request."""

    outblob: bytes
    auxblob: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One TEE behind Linux's interface."""

    name: str
    """``sev_guest`` or ``tdx_guest``."""
    new_report: Callable[[bytes, int], Report]
    """From 64 bytes of report data and the privilege level (VMPL); may raise ``FirmwareError`` or ``OSError``."""
    privlevel_floor: int | None = None
    """The lowest level that may be asked for; ``None``: the provider has no levels."""
    auxblob: bool = False
    """Whether there is a second blob: the certificates that the host supplied."""


@dataclass(slots=True)
class _Entry:
    """The state of one directory below ``report``."""

    inblob: bytes = b""
    privlevel: int = 0
    write_generation: int = 0
    read_generation: int = 0
    report: Report | None = None


class ReportTree:
    """``report/NAME/…``: configfs-tsm of one guest."""

    def __init__(self, provider: Provider, *, faults: frozenset[str] = frozenset()) -> None:
        self._provider = provider
        self._faults = faults
        self._entries: dict[str, _Entry] = {}
        self._first: Report | None = None

    def make(self, path: str) -> None:
        """Begin a request of its own."""
        match parts(path):
            case ["report"]:
                raise refused(errno.EEXIST, path)
            case ["report", name] if name not in self._entries:
                if "tsm-absent" in self._faults:
                    raise refused(errno.ENXIO, path)
                if len(self._entries) >= MAX_ENTRIES:
                    raise refused(errno.ENOMEM, path)
                self._entries[name] = _Entry()
            case ["report", _]:
                raise refused(errno.EEXIST, path)
            case ["report", name, *_]:
                raise refused(errno.EPERM if name in self._entries else errno.ENOENT, path)
            case _:
                raise refused(errno.EPERM, path)

    def remove(self, path: str) -> None:
        """Forget a request."""
        match parts(path):
            case ["report", name] if name in self._entries:
                del self._entries[name]
            case ["report", name, attribute] if name in self._entries and attribute in self._attributes():
                raise refused(errno.EPERM, path)
            case [] | ["report"]:
                raise refused(errno.EPERM, path)
            case _:
                raise refused(errno.ENOENT, path)

    def list(self, path: str) -> list[str]:
        """Give requests, or the attributes of one."""
        match parts(path):
            case []:
                return ["report"]
            case ["report"]:
                return sorted(self._entries)
            case ["report", name] if name in self._entries:
                return [*self._attributes()]
            case ["report", name, attribute] if name in self._entries and attribute in self._attributes():
                raise refused(errno.ENOTDIR, path)
        raise refused(errno.ENOENT, path)

    def write(self, path: str, data: bytes) -> None:
        """Set an option: the request is a new one from then on."""
        entry, attribute = self._found(path)
        if attribute == "inblob":
            if len(data) > INBLOB_MAX:
                raise refused(errno.EFBIG, path)
            self._advance(entry, path)
            entry.inblob = data
        elif attribute == "privlevel":
            level = _number(data, path)
            if not (self._provider.privlevel_floor or 0) <= level <= PRIVLEVEL_MAX:
                raise refused(errno.EINVAL, path)
            self._advance(entry, path)
            entry.privlevel = level
        else:
            raise refused(errno.EACCES, path)

    def read(self, path: str) -> bytes:
        """Read an attribute; ``outblob`` and ``auxblob`` make the report when there is none for this generation."""
        entry, attribute = self._found(path)
        match attribute:
            case "generation":
                return b"%d\n" % entry.write_generation
            case "provider":
                shown = "other_guest" if "tsm-provider" in self._faults else self._provider.name
                return f"{shown}\n".encode()
            case "privlevel_floor":
                return b"%d\n" % (self._provider.privlevel_floor or 0)
            case "outblob":
                return self._spoiled(self._report(entry, path).outblob)
            case "auxblob":
                return self._report(entry, path).auxblob
        raise refused(errno.EACCES, path)

    def _report(self, entry: _Entry, path: str) -> Report:
        if not entry.inblob:
            raise refused(errno.EINVAL, path)
        if entry.report is None or entry.read_generation != entry.write_generation:
            if len(entry.inblob) != INBLOB_MAX:
                raise refused(errno.EINVAL, path)
            if "tsm-busy" in self._faults:
                raise refused(errno.EBUSY, path)
            if "tsm-io-error" in self._faults:
                raise refused(errno.EIO, path)
            try:
                entry.report = self._provider.new_report(entry.inblob, entry.privlevel)
            except FirmwareError as error:
                raise OSError(errno.EIO, str(error), path) from error
            entry.read_generation = entry.write_generation
        if "tsm-generation" in self._faults:
            entry.write_generation += 1
        self._first = self._first or entry.report
        return self._first if "tsm-replay" in self._faults else entry.report

    def _spoiled(self, outblob: bytes) -> bytes:
        if "tsm-empty" in self._faults:
            return b""
        return outblob[:-1] if "tsm-truncated" in self._faults else outblob

    def _advance(self, entry: _Entry, path: str) -> None:
        """Count the change, unless so many went unread that a stale report would look like a new one."""
        if entry.write_generation == (entry.read_generation - 1) % GENERATIONS:
            raise refused(errno.EBUSY, path)
        entry.write_generation = (entry.write_generation + 1) % GENERATIONS

    def _attributes(self) -> tuple[str, ...]:
        more = ["auxblob"] if self._provider.auxblob else []
        more += ["privlevel", "privlevel_floor"] if self._provider.privlevel_floor is not None else []
        return tuple(sorted(["generation", "inblob", "outblob", "provider", *more]))

    def _found(self, path: str) -> tuple[_Entry, str]:
        match parts(path):
            case ["report", name, attribute] if name in self._entries and attribute in self._attributes():
                return self._entries[name], attribute
            case [] | ["report"]:
                raise refused(errno.EISDIR, path)
            case ["report", name] if name in self._entries:
                raise refused(errno.EISDIR, path)
        raise refused(errno.ENOENT, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One runtime measurement register: read it, extend it with a digest of ``size`` bytes."""

    read: Callable[[], bytes]
    extend: Callable[[bytes], None] | None
    """``None``: the guest may only read it."""
    size: int = 48


class MeasurementTree:
    """``measurements/NAME:ALGORITHM``: the registers of a TDX guest, extended by writing."""

    def __init__(self, registers: Mapping[str, Register]) -> None:
        self._registers = registers

    def make(self, path: str) -> None:
        """Nothing can be made here."""
        raise refused(errno.EPERM, path)

    def remove(self, path: str) -> None:
        """Nothing can be removed here."""
        raise refused(errno.EPERM, path)

    def list(self, path: str) -> list[str]:
        """Give the registers."""
        match parts(path):
            case ["measurements"]:
                return sorted(self._registers)
        raise refused(errno.ENOENT, path)

    def read(self, path: str) -> bytes:
        """Give a register's value."""
        return self._found(path).read()

    def write(self, path: str, data: bytes) -> None:
        """Extend a register by a digest."""
        register = self._found(path)
        if register.extend is None:
            raise refused(errno.EACCES, path)
        if len(data) != register.size:
            raise refused(errno.EINVAL, path)
        try:
            register.extend(data)
        except FirmwareError as error:
            raise OSError(errno.EIO, str(error), path) from error

    def _found(self, path: str) -> Register:
        match parts(path):
            case ["measurements", name] if name in self._registers:
                return self._registers[name]
        raise refused(errno.ENOENT, path)


def _number(data: bytes, path: str) -> int:
    """Read what Linux's ``kstrtouint`` reads, with base 0."""
    match = re.fullmatch(rb"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<oct>[0-7]+)|(?P<dec>[0-9]+))\n?", data)
    if match is None:
        raise refused(errno.EINVAL, path)
    bases = {"hex": 16, "oct": 8, "dec": 10}
    number = next(int(text, bases[kind]) for kind, text in match.groupdict().items() if text is not None)
    if number >= 1 << 32:
        raise refused(errno.ERANGE, path)
    return number
