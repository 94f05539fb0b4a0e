"""Measured-boot event logs: TCG2 logs of a TPM, and the CCEL of a TDX guest.

A log is a claim. It means something only after its replay gave the registers of verified evidence, and even then only
digests are proven: type and data of an event are the word of whoever kept the log, except where the digest is one of
the data (``check_event_data``).

``parse_tpm_event_log``, ``parse_cc_event_log``: bytes to ``EventLog``; ``Malformed`` for anything out of form
``replay``: the registers that a log leads to, by index (PCR, or 1 to 4 for RTMR0 to RTMR3 in a CC log)

Source: TCG PC Client Platform Firmware Profile 1.06, sections 9 and 10; Intel TDX Virtual Firmware Design Guide,
CCEL; ACPI 6.5, table CCEL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Layout, Reader

MAX_LOG_BYTES: Final = 4 * 1024 * 1024
"""Logs have 5 to 300 KB; the area of a CCEL may be some times larger."""
MAX_EVENTS: Final = 16384
PCRS: Final = 24
RTMRS: Final = 4
_NO_INDEX: Final = 0xFFFFFFFF
_SPEC_ID: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"


class Algorithm(IntEnum):
    """TPM_ALG_ID of the hashes that logs use."""

    SHA1 = 0x04
    SHA256 = 0x0B
    SHA384 = 0x0C
    SHA512 = 0x0D
    SM3_256 = 0x12

    @property
    def digest_bytes(self) -> int:
        """How long a digest is."""
        return _DIGEST_BYTES[self]


_DIGEST_BYTES: Final = {
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
    Algorithm.SHA384: 48,
    Algorithm.SHA512: 64,
    Algorithm.SM3_256: 32,
}
_HASHES: Final = {
    Algorithm.SHA1: hashlib.sha1,
    Algorithm.SHA256: hashlib.sha256,
    Algorithm.SHA384: hashlib.sha384,
    Algorithm.SHA512: hashlib.sha512,
}


class EventType(IntEnum):
    """The types that mean something here. A log may hold any other; types are not signed."""

    POST_CODE = 0x01
    NO_ACTION = 0x03
    SEPARATOR = 0x04
    ACTION = 0x05
    EVENT_TAG = 0x06
    S_CRTM_CONTENTS = 0x07
    S_CRTM_VERSION = 0x08
    PLATFORM_CONFIG_FLAGS = 0x0A
    IPL = 0x0D
    EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EFI_VARIABLE_BOOT = 0x80000002
    EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EFI_GPT_EVENT = 0x80000006
    EFI_ACTION = 0x80000007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EFI_HANDOFF_TABLES = 0x80000009
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EFI_HANDOFF_TABLES2 = 0x8000000B
    EFI_VARIABLE_BOOT2 = 0x8000000C
    EFI_VARIABLE_AUTHORITY = 0x800000E0


_BOUND: Final = frozenset(
    {
        EventType.SEPARATOR,
        EventType.ACTION,
        EventType.S_CRTM_VERSION,
        EventType.EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EFI_VARIABLE_BOOT,
        EventType.EFI_VARIABLE_BOOT2,
        EventType.EFI_GPT_EVENT,
        EventType.EFI_ACTION,
    }
)
"""Types whose digest is one of the data. Not EFI_VARIABLE_AUTHORITY: shim logs other data than it measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry. ``index`` is a PCR; in a CC log 0 is MRTD and 1 to 4 are RTMR0 to RTMR3."""

    index: int
    event_type: int
    digests: Mapping[Algorithm, bytes]
    data: bytes

    @property
    def extends(self) -> bool:
        """Whether the event changed a register."""
        return self.event_type != EventType.NO_ACTION

    def proves_data(self, algorithm: Algorithm) -> bool:
        """Whether the digest is one of the data, or of the value of the EFI variable in them."""
        digest, data = self.digests[algorithm], self.data
        if hash_bytes(algorithm, data) == digest:
            return True
        if self.event_type != EventType.EFI_VARIABLE_BOOT or len(data) < 32:
            return False
        name, size = (int.from_bytes(data[at : at + 8], "little") for at in (16, 24))
        value = data[32 + 2 * name :]
        return len(value) == size and hash_bytes(algorithm, value) == digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A log in which every event has exactly one digest of each of ``algorithms``."""

    algorithms: tuple[Algorithm, ...]
    events: tuple[Event, ...]
    startup_locality: int = 0
    """The last byte of PCR0 before its first event."""


class _Form(Enum):
    TPM = "event log"
    CC = "cc event log"


def parse_tpm_event_log(data: bytes) -> EventLog:
    """Read a whole log, crypto agile or of SHA-1 alone, as its first event says. Raises ``Malformed``."""
    if data[32 : 32 + len(_SPEC_ID)] == _SPEC_ID:
        return _crypto_agile(data, _Form.TPM)
    reader = _reader(data, _Form.TPM)
    events: list[Event] = []
    while reader.remaining:
        events.append(_sha1_event(reader))
        _check_count(events)
    return _log((Algorithm.SHA1,), events, _Form.TPM)


def parse_cc_event_log(data: bytes) -> EventLog:
    """Read the area that a CCEL points to, with its fill of ones or zeros at the end. Raises ``Malformed``."""
    log = _crypto_agile(data, _Form.CC)
    if log.algorithms != (Algorithm.SHA384,):
        names = ", ".join(algorithm.name for algorithm in log.algorithms)
        raise Malformed(f"cc event log: digests are {names}, expected SHA384 alone")
    return log


def make_cc_event_log(events: list[Event]) -> EventLog:
    """Put events together that were kept in another form; the rules for a log are the same. Raises ``Malformed``."""
    _check_count(events)
    return _log((Algorithm.SHA384,), events, _Form.CC)


def replay(log: EventLog, algorithm: Algorithm) -> dict[int, bytes]:
    """Give the value of every register that the log extends. Raises ``Malformed`` when the log has no such bank."""
    if algorithm not in log.algorithms or algorithm not in _HASHES:
        raise Malformed(f"event log: there is no bank of {algorithm.name} to replay")
    registers: dict[int, bytes] = {}
    for event in log.events:
        if event.extends:
            before = registers.get(event.index)
            if before is None:
                before = _initial(log, event.index, algorithm)
            registers[event.index] = extend(algorithm, before, event.digests[algorithm])
    return registers


def extend(algorithm: Algorithm, register: bytes, digest: bytes) -> bytes:
    """Give the register after one extension."""
    return hash_bytes(algorithm, register + digest)


def extend_all(algorithm: Algorithm, digests: Iterable[bytes]) -> bytes:
    """Give a register that started at zero after all of ``digests``."""
    register = bytes(algorithm.digest_bytes)
    for digest in digests:
        register = extend(algorithm, register, digest)
    return register


def hash_bytes(algorithm: Algorithm, data: bytes) -> bytes:
    """Hash ``data``. Raises ``Malformed`` for SM3, which logs may hold and we cannot compute."""
    if algorithm not in _HASHES:
        raise Malformed(f"event log: {algorithm.name} cannot be computed")
    return _HASHES[algorithm](data).digest()


def check_event_data(log: EventLog, algorithm: Algorithm) -> None:
    """Refuse a log in which data contradict the digest though their type says that it is one of them.

    Raises ``Malformed``. What passes is still only as true as the digests, see ``replay``.
    """
    for number, event in enumerate(log.events):
        if event.event_type in _BOUND and not event.proves_data(algorithm):
            raise Malformed(
                f"event log: event {number} of register {event.index} and type {event.event_type:#x} has data "
                f"that its {algorithm.name} digest does not cover"
            )


_CCEL: Final = Layout(
    name="ccel table",
    size=56,
    fields={
        "signature": range(4),
        "length": range(4, 8),
        "revision": range(8, 9),
        "checksum": range(9, 10),
        "names": range(10, 36),
        "cc_type": range(36, 37),
        "cc_subtype": range(37, 38),
        "area_bytes": range(40, 48),
        "area_address": range(48, 56),
    },
    reserved=(range(38, 40),),
)
CC_TYPE_TDX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CcelTable:
    """Where the guest's firmware put the log."""

    cc_type: int
    cc_subtype: int
    area_bytes: int
    area_address: int


def parse_ccel_table(data: bytes) -> CcelTable:
    """Read the ACPI table (56 bytes). Raises ``Malformed``, also for a wrong checksum."""
    fields = _CCEL.split(data)
    if fields["signature"] != b"CCEL" or int.from_bytes(fields["length"], "little") != _CCEL.size:
        raise Malformed("ccel table: signature is not CCEL, or the length is not that of the table")
    if sum(data) % 256:
        raise Malformed("ccel table: bytes do not sum up to zero")
    numbers = {name: int.from_bytes(fields[name], "little") for name in CcelTable.__slots__}
    return CcelTable(**numbers)


def _reader(data: bytes, form: _Form) -> Reader:
    if len(data) > MAX_LOG_BYTES:
        raise Malformed(f"{form.value}: {len(data)} bytes, at most {MAX_LOG_BYTES} are allowed")
    if not data:
        raise Malformed(f"{form.value}: is empty")
    return Reader(data, name=form.value)


def _crypto_agile(data: bytes, form: _Form) -> EventLog:
    reader = _reader(data, form)
    header = _sha1_event(reader)
    if header.extends or not header.data.startswith(_SPEC_ID):
        raise Malformed(f"{form.value}: does not begin with a Spec ID Event03")
    algorithms = _spec_id(header.data, form)
    events: list[Event] = []
    while reader.remaining:
        if form is _Form.CC and _is_fill(data, reader.offset):
            break
        events.append(_event(reader, algorithms, form))
        _check_count(events)
    return _log(algorithms, events, form)


def _is_fill(data: bytes, at: int) -> bool:
    """Whether the log is over at ``at``: no event begins with 12 equal bytes of ones or zeros."""
    head = data[at : at + 12]
    if head.strip(b"\xff") and head.strip(b"\0"):
        return False
    if data[at:].strip(head[:1]):
        raise Malformed(f"cc event log: other bytes follow the fill that begins at {at:#x}")
    return True


def _spec_id(data: bytes, form: _Form) -> tuple[Algorithm, ...]:
    """Read TCG_EfiSpecIDEvent for the algorithms of the log."""
    reader = Reader(data, name=f"{form.value} header")
    reader.take(len(_SPEC_ID), "signature")
    reader.take(4, "platform class")
    minor, major, _errata, _uintn = reader.take(4, "version")
    if (major, minor) != (2, 0):
        raise Malformed(f"{form.value} header: version is {major}.{minor}, expected 2.0")
    count = reader.number(4, "number of algorithms")
    algorithms: list[Algorithm] = []
    for _ in range(count):
        number, size = reader.number(2, "algorithm"), reader.number(2, "digest size")
        try:
            algorithm = Algorithm(number)
        except ValueError:
            raise Malformed(f"{form.value} header: unknown hash algorithm {number:#x}") from None
        if size != algorithm.digest_bytes or algorithm in algorithms:
            raise Malformed(
                f"{form.value} header: {algorithm.name} is there twice or with {size}-byte digests"
            )
        algorithms.append(algorithm)
    if not algorithms:
        raise Malformed(f"{form.value} header: names no hash algorithm")
    reader.block(1, "vendor information")
    reader.end()
    return tuple(algorithms)


def _sha1_event(reader: Reader) -> Event:
    """Read TCG_PCClientPCREvent, the form of old logs and of the first event of new ones."""
    index, event_type = reader.number(4, "register index"), reader.number(4, "event type")
    digests = {Algorithm.SHA1: reader.take(20, "digest")}
    return Event(index=index, event_type=event_type, digests=digests, data=reader.block(4, "event data"))


def _event(reader: Reader, algorithms: tuple[Algorithm, ...], form: _Form) -> Event:
    """Read TCG_PCR_EVENT2."""
    index, event_type = reader.number(4, "register index"), reader.number(4, "event type")
    count = reader.number(4, "number of digests")
    if count != len(algorithms):
        raise Malformed(f"{form.value}: event has {count} digests, expected {len(algorithms)}")
    digests: dict[Algorithm, bytes] = {}
    for _ in range(count):
        number = reader.number(2, "digest algorithm")
        if number not in algorithms or number in digests:
            raise Malformed(
                f"{form.value}: event has a digest of algorithm {number:#x} twice or against its header"
            )
        algorithm = Algorithm(number)
        digests[algorithm] = reader.take(algorithm.digest_bytes, "digest")
    return Event(index=index, event_type=event_type, digests=digests, data=reader.block(4, "event data"))


def _check_count(events: list[Event]) -> None:
    if len(events) > MAX_EVENTS:
        raise Malformed(f"event log: more than {MAX_EVENTS} events")


def _log(algorithms: tuple[Algorithm, ...], events: list[Event], form: _Form) -> EventLog:
    """Check what concerns several events: indices, separators, the locality of the start."""
    registers = range(PCRS) if form is _Form.TPM else range(RTMRS + 1)
    separated: set[int] = set()
    extended: set[int] = set()
    locality: int | None = None
    for number, event in enumerate(events):
        if event.index not in registers and not (event.index == _NO_INDEX and not event.extends):
            raise Malformed(
                f"{form.value}: event {number} is for register {event.index:#x}, which does not exist"
            )
        if not event.extends:
            if form is _Form.TPM and event.data.startswith(_STARTUP_LOCALITY):
                locality = _locality(event, first=locality is None and 0 not in extended)
            continue
        extended.add(event.index)
        if event.event_type == EventType.SEPARATOR:
            if event.index in separated:
                raise Malformed(
                    f"{form.value}: event {number} is a second separator of register {event.index}"
                )
            if event.data not in (bytes(4), b"\xff" * 4):
                raise Malformed(f"{form.value}: separator of register {event.index} tells of a failed start")
            separated.add(event.index)
    return EventLog(algorithms=algorithms, events=tuple(events), startup_locality=locality or 0)


def _locality(event: Event, *, first: bool) -> int:
    if (
        event.index
        or not first
        or len(event.data) != len(_STARTUP_LOCALITY) + 1
        or event.data[-1] not in (0, 3, 4)
    ):
        raise Malformed("event log: startup locality is given twice, too late, or is none of 0, 3 and 4")
    return event.data[-1]


def _initial(log: EventLog, index: int, algorithm: Algorithm) -> bytes:
    """Give a PCR after reset: ones for those that only a dynamic launch clears, the locality for PCR0."""
    if 17 <= index <= 22:
        return b"\xff" * algorithm.digest_bytes
    return (log.startup_locality if index == 0 else 0).to_bytes(algorithm.digest_bytes, "big")
