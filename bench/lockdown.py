"""What the lock-down of a keep costs: each step, and the whole from fork to a locked process, against a bare fork.

python -m bench.lockdown [ROUNDS]
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

from enarx.tcb.keep import lockdown
from enarx.tcb.keep.lockdown import (
    Profile,
    Result,
    Step,
    close_all_but,
    confine,
    die_with_parent,
    isolate,
    seal_code,
)

ROUNDS: Final = 200
GOAL_MS: Final = 8.0
_NS: Final = struct.Struct("=q")
_Action = Callable[[], str | int | None]


def bare_fork(sock: socket.socket) -> NoReturn:
    """Answer at once."""
    sock.send(b"x")
    os._exit(0)


def locked_fork(sock: socket.socket) -> NoReturn:
    """Answer as a keep does: isolated, forked again, confined, sealed."""
    isolate(Profile.MODULE)
    keep = os.fork()
    if keep:
        os.waitpid(keep, 0)  # it dies with this process
    else:
        die_with_parent(None)
        close_all_but(sock.fileno())
        confine(Profile.MODULE)
        seal_code()
        sock.send(b"x")
    os._exit(0)


def latency_ms(child: Callable[[socket.socket], NoReturn]) -> float:
    """Give the time from before the fork to the child's answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = time.perf_counter_ns()
        pid = os.fork()
        if pid == 0:
            child(theirs)
        assert ours.recv(1) == b"x"
        end = time.perf_counter_ns()
        os.waitpid(pid, 0)
    return (end - start) / 1e6


def steps_ms() -> dict[Step, float]:
    """Give the time of each step of one lock-down."""
    times: dict[Step, float] = {}
    original = lockdown._attempt

    def timed(step: Step, action: _Action) -> Result:
        start = time.perf_counter_ns()
        result = original(step, action)
        times[step] = (time.perf_counter_ns() - start) / 1e6
        return result

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        lockdown._attempt = timed
        isolate(Profile.MODULE)
        if os.fork() == 0:
            confine(Profile.MODULE)
            seal_code()
            os.write(writer, b"".join(_NS.pack(int(times.get(step, 0) * 1e6)) for step in Step))
        os._exit(0)
    os.close(writer)
    answer = os.read(reader, 4096)
    os.close(reader)
    os.waitpid(pid, 0)
    return dict(zip(Step, (ns / 1e6 for (ns,) in _NS.iter_unpack(answer)), strict=True))


def percentile(values: list[float], percent: int) -> float:
    """Give the ``percent``-th percentile."""
    return statistics.quantiles(values, n=100)[percent - 1]


def main(rounds: int = ROUNDS) -> None:
    """Measure everything interleaved, and print it."""
    bare, locked, steps = list[float](), list[float](), list[dict[Step, float]]()
    for _ in range(rounds):
        bare.append(latency_ms(bare_fork))
        locked.append(latency_ms(locked_fork))
        steps.append(steps_ms())
    print(f"{'step':<20} median ms")
    for step in Step:
        print(f"{step.value:<20} {statistics.median(times[step] for times in steps):9.3f}")
    print(f"{'':<20} {'p50':>9} {'p90':>9} {'p99':>9}")
    for name, values in (("bare fork", bare), ("locked fork", locked)):
        print(f"{name:<20} " + " ".join(f"{percentile(values, percent):9.2f}" for percent in (50, 90, 99)))
    ratio = statistics.median(locked) / statistics.median(bare)
    met = "met" if statistics.median(locked) <= GOAL_MS else "missed"
    print(f"locked / bare fork: {ratio:.1f} (goal: at most {GOAL_MS} ms: {met})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
