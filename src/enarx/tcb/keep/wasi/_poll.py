"""``poll_oneoff``: wait until one of several things happens."""

from __future__ import annotations

import select
import time
from typing import Final, NamedTuple

from enarx.tcb.keep.wasi import _clock
from enarx.tcb.keep.wasi._abi import (
    EVENT,
    EVENT_FD_READWRITE_HANGUP,
    SUBSCRIPTION_CLOCK,
    SUBSCRIPTION_CLOCK_ABSTIME,
    SUBSCRIPTION_FD,
    SUBSCRIPTION_HEAD,
    SUBSCRIPTION_SIZE,
    ClockId,
    Errno,
    EventType,
    Rights,
    WasiError,
)
from enarx.tcb.keep.wasi._fds import Descriptor, Readiness, Table
from enarx.tcb.keep.wasi._memory import GuestMemory

MAX_SUBSCRIPTIONS: Final = 16384
"""More than any program's descriptors and timers; a larger number is a mistake or an attack."""

_RIGHT: Final = {EventType.FD_READ: Rights.FD_READ, EventType.FD_WRITE: Rights.FD_WRITE}
_CLOCKS: Final = (ClockId.REALTIME, ClockId.MONOTONIC)


class _Waiting(NamedTuple):
    """A subscription on a descriptor."""

    userdata: int
    kind: int
    descriptor: Descriptor

    def event(self, readiness: Readiness) -> bytes:
        hangup = EVENT_FD_READWRITE_HANGUP if readiness.hangup else 0
        return EVENT.pack(self.userdata, Errno.SUCCESS, self.kind, readiness.available, hangup)


class Poll:
    """One call: the subscriptions of the guest, sorted into those that wait for time, for data, and the failed."""

    def __init__(self, memory: GuestMemory, pointer: int, count: int, table: Table) -> None:
        if not 0 < count <= MAX_SUBSCRIPTIONS:
            raise WasiError(Errno.INVAL)
        self._timers: list[tuple[int, int]] = []
        self._waiting: list[_Waiting] = []
        self._events: list[bytes] = []
        raw = bytes(memory.slice(pointer, SUBSCRIPTION_SIZE * count))
        for at in range(0, len(raw), SUBSCRIPTION_SIZE):
            userdata, kind = SUBSCRIPTION_HEAD.unpack_from(raw, at)
            try:
                self._subscribe(userdata, kind, raw, at + SUBSCRIPTION_HEAD.size, table)
            except WasiError as error:
                self._events.append(EVENT.pack(userdata, error.errno, kind, 0, 0))

    def _subscribe(self, userdata: int, kind: int, raw: bytes, at: int, table: Table) -> None:
        if kind == EventType.CLOCK:
            clock, timeout, _precision, flags = SUBSCRIPTION_CLOCK.unpack_from(raw, at)
            if clock not in _CLOCKS:
                raise WasiError(Errno.INVAL)
            delay = timeout - _clock.now(clock) if flags & SUBSCRIPTION_CLOCK_ABSTIME else timeout
            self._timers.append((time.monotonic_ns() + max(0, delay), userdata))
        elif kind in _RIGHT:
            (fd,) = SUBSCRIPTION_FD.unpack_from(raw, at)
            descriptor = table.get(fd)
            if not descriptor.rights & (Rights.POLL_FD_READWRITE | _RIGHT[EventType(kind)]):
                raise WasiError(Errno.NOTCAPABLE)
            self._waiting.append(_Waiting(userdata, kind, descriptor))
        else:
            raise WasiError(Errno.INVAL)

    def events(self) -> list[bytes]:
        """Wait until there is at least one event and give all that there are."""
        events = self._events + self._ready()
        while not events:
            self._sleep()
            events = self._ready()
        return events

    def _ready(self) -> list[bytes]:
        now = time.monotonic_ns() if self._timers else 0
        events = [
            EVENT.pack(user, Errno.SUCCESS, EventType.CLOCK, 0, 0) for end, user in self._timers if end <= now
        ]
        for waiting in self._waiting:
            readiness = waiting.descriptor.ready(write=waiting.kind == EventType.FD_WRITE)
            if readiness is not None:
                events.append(waiting.event(readiness))
        return events

    def _sleep(self) -> None:
        poll = select.poll()
        masks: dict[int, int] = {}
        for waiting in self._waiting:
            fd = waiting.descriptor.waitable()
            mask = select.POLLOUT if waiting.kind == EventType.FD_WRITE else select.POLLIN
            masks[fd] = masks.get(fd, 0) | mask
        for fd, mask in masks.items():
            poll.register(fd, mask)
        if not self._timers:
            poll.poll()
            return
        left = min(self._timers)[0] - time.monotonic_ns()
        # poll counts in milliseconds: whole ones are slept there, the rest more exactly
        if left > 1_000_000 or masks:
            poll.poll(min(left // 1_000_000, 2**31 - 1))
        elif left > 0:
            time.sleep(left / 1e9)
