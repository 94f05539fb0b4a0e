"""Event logs of a TD, replayed: the CCEL of its firmware, and the JSON that dstack keeps with its own run-time events.

A log proves nothing by itself: its registers must be those of the quote. Source: Intel, "TDX Virtual Firmware Design
Guide", CCEL; dstack, ``tdx-attest``, for type 0x08000001: SHA-384 over type (4 bytes), ``:``, name, ``:``, payload.
"""

from __future__ import annotations

import json
from typing import Any, Final

from enarx.attest._eventlog import (
    MAX_LOG_BYTES,
    RTMRS,
    Algorithm,
    Event,
    EventLog,
    check_event_data,
    make_cc_event_log,
    parse_cc_event_log,
    replay,
)
from enarx.attest.checks import Phrase
from enarx.attest.collateral import Kind
from enarx.attest.errors import MalformedCollateral
from enarx.attest.tdx._body import TdReport
from enarx.attest.tee import Context

RUNTIME_EVENT: Final = 0x08000001

_UNTOUCHED: Final = bytes(48)
_MEMBERS: Final = {"imr": int, "event_type": int, "digest": str, "event": str, "event_payload": str}


def parse_td_log(data: bytes) -> EventLog:
    """Read either form. Raises ``Malformed``, also when data contradict a digest that is one of them."""
    log = _parse_json(data) if data[:1] == b"[" else parse_cc_event_log(data)
    check_event_data(log, Algorithm.SHA384)
    return log


def verify_logs(report: TdReport, context: Context) -> frozenset[int]:
    """Replay the logs among the collateral; give the registers, 0 to 3, that they explain or that are zero.

    Checks: ``tdx.event_log.rtmr0`` to ``rtmr3``, for each register that a log extends.
    """
    documents = dict.fromkeys(
        context.collateral.of(Kind.EVENT_LOG)
    )  # too large, and too many, to be remembered
    replayed = [replay(parse_td_log(data), Algorithm.SHA384) for data in documents]
    rtmrs = (report.rtmr0, report.rtmr1, report.rtmr2, report.rtmr3)
    explained = {register for register, have in enumerate(rtmrs) if have == _UNTOUCHED}
    for register, have in enumerate(rtmrs if replayed else ()):
        for found in (registers[register + 1] for registers in replayed if register + 1 in registers):
            context.ledger.require(
                f"tdx.event_log.rtmr{register}",
                found == have,
                field=f"rtmr{register}",
                expected=Phrase("{}, to which the event log leads", found),
                found=have,
                advice="the log is of another boot, or was changed",
            )
            explained.add(register)
    return frozenset(explained)


def _parse_json(data: bytes) -> EventLog:
    if len(data) > MAX_LOG_BYTES:
        raise MalformedCollateral(f"event log has {len(data)} bytes, at most {MAX_LOG_BYTES} are allowed")
    try:
        listed: list[Any] = json.loads(data, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise MalformedCollateral(f"event log is not JSON: {error}") from None
    return make_cc_event_log([_event(one) for one in listed])


def _event(value: object) -> Event:
    members = dict(value) if type(value) is tuple and len(value) == len(_MEMBERS) else {}
    if {name: type(one) for name, one in members.items()} != _MEMBERS:
        raise MalformedCollateral(f"event log: an event is no object of {', '.join(_MEMBERS)}")
    register, event_type = members["imr"], members["event_type"]
    try:
        digest, payload = bytes.fromhex(members["digest"]), bytes.fromhex(members["event_payload"])
    except ValueError:
        raise MalformedCollateral("event log: digest or payload is not hex") from None
    if not 0 <= register < RTMRS or not 0 <= event_type < 1 << 32 or len(digest) != 48:
        raise MalformedCollateral("event log: register, type or digest is out of range")
    data = payload
    if event_type == RUNTIME_EVENT:
        data = event_type.to_bytes(4, "little") + f":{members['event']}:".encode() + payload
    event = Event(index=register + 1, event_type=event_type, digests={Algorithm.SHA384: digest}, data=data)
    if event_type == RUNTIME_EVENT and not event.proves_data(Algorithm.SHA384):
        raise MalformedCollateral(f"event log: the digest of {members['event']!r} does not cover its payload")
    return event
