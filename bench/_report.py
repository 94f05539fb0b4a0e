"""One line a result: what, how much, against whom, and whether the goal is met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def median_ms(samples_s: Sequence[float]) -> float:
    """Give the median of ``samples_s`` in milliseconds."""
    return statistics.median(samples_s) * 1000


def timed(action: Callable[[], object], rounds: int) -> list[float]:
    """Give how long each of ``rounds`` calls took, in seconds."""
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        samples.append(time.perf_counter() - started)
    return samples


def line(
    what: str, value: str, *, peer: str = "", ratio: float | None = None, goal: str = "", met: bool = True
) -> None:
    """Print one result."""
    parts = [f"{what:<44} {value:>14}"]
    if ratio is not None:
        parts.append(f"{ratio:6.2f} x {peer}")
    if goal:
        parts.append(f"goal {goal}: {'met' if met else 'MISSED'}")
    print("   ".join(parts), flush=True)
