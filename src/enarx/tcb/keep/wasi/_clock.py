"""Clocks. In a keep time comes from the host and proves nothing; a workload must not stake a secret on it."""

from __future__ import annotations

import time
from typing import Final

from enarx.tcb.keep.wasi._abi import ClockId, Errno, WasiError

_NOW: Final = {
    ClockId.REALTIME: time.time_ns,
    ClockId.MONOTONIC: time.monotonic_ns,
    ClockId.PROCESS_CPUTIME: time.process_time_ns,
    ClockId.THREAD_CPUTIME: time.thread_time_ns,
}
_SYSTEM: Final = {
    ClockId.REALTIME: time.CLOCK_REALTIME,
    ClockId.MONOTONIC: time.CLOCK_MONOTONIC,
    ClockId.PROCESS_CPUTIME: time.CLOCK_PROCESS_CPUTIME_ID,
    ClockId.THREAD_CPUTIME: time.CLOCK_THREAD_CPUTIME_ID,
}


def now(clock: int) -> int:
    """Give the time of ``clock`` in nanoseconds. Raises INVAL for a clock that does not exist."""
    try:
        return _NOW[clock]()  # type: ignore[index] # the guest's number
    except KeyError:
        raise WasiError(Errno.INVAL) from None


def resolution(clock: int) -> int:
    """Give the resolution of ``clock`` in nanoseconds."""
    try:
        return max(1, round(time.clock_getres(_SYSTEM[clock]) * 1e9))  # type: ignore[index] # the guest's number
    except KeyError:
        raise WasiError(Errno.INVAL) from None
