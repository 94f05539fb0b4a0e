"""KVM from Python beside the same in C through the raw ioctls: making and freeing machines, and exits a second.

The C peer (``bench/peers/kvm.c``) is compiled by ``cc``, or by the compiler of the examples. Rounds of both take turns.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench._report import line
from ketuvim import Halt, IoOut, Kvm, boot, measure
from ketuvim.system import DEVICE

HERE: Final = Path(__file__).parent
TURNS: Final = 5
MACHINES: Final = 100
EXITS: Final = 40_000
CYCLE_GOAL_MS: Final = 1.0
EXITS_GOAL: Final = 0.5
HALT: Final = bytes.fromhex("f4")
WRITES: Final = bytes.fromhex("baf803 ee ebfd")  # mov dx, 0x3f8; again: out dx, al; jmp again


def main() -> None:
    """Print medians, rates and their ratios to C."""
    if not Path(DEVICE).exists():
        print(f"nothing measured: there is no {DEVICE}")
        return
    with tempfile.TemporaryDirectory() as folder, Kvm.open() as kvm:
        peer = compiled(Path(folder))
        found = measure(kvm)
        print(
            f"this KVM {'runs' if found.accelerated else 'interprets'} guests: {found.ns_per_round:.1f} ns a round"
        )
        cycle(kvm, 5)
        spent(peer, "cycle", 5)
        ours: list[float] = []
        theirs: list[float] = []
        rates: list[tuple[float, float]] = []
        for _ in range(TURNS):
            ours += cycle(kvm, MACHINES)
            theirs += spent(peer, "cycle", MACHINES)
            rates.append((exits(kvm, EXITS), EXITS / spent(peer, "exits", EXITS)[0]))
    mine, other = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    line(
        "machine made, run and freed, median",
        f"{mine:.2f} ms",
        peer=f"C ({other:.2f} ms)",
        ratio=mine / other,
        goal=f"< {CYCLE_GOAL_MS:.0f} ms",
        met=mine < CYCLE_GOAL_MS,
    )
    best, best_c = max(rate for rate, _ in rates), max(rate for _, rate in rates)
    line(
        "exits to a port, best of the turns",
        f"{best:,.0f} /s",
        peer=f"C ({best_c:,.0f} /s)",
        ratio=best / best_c,
        goal=f">= {EXITS_GOAL}",
        met=best / best_c >= EXITS_GOAL,
    )


def compiled(folder: Path) -> Path:
    """Compile the peer."""
    binary = folder / "kvm"
    compiler = [shutil.which("cc") or ""] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*compiler, "-O2", "-o", str(binary), str(HERE / "peers" / "kvm.c")], check=True)
    return binary


def cycle(kvm: Kvm, rounds: int) -> list[float]:
    """Make a machine, run it to its end, free it; give seconds."""
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        with boot(kvm, HALT) as machine:
            event = machine.vcpu.run()
        samples.append(time.perf_counter() - started)
        assert event == Halt()
    return samples


def exits(kvm: Kvm, rounds: int) -> float:
    """Give how many writes to a port a second come out of a guest and are looked at."""
    with boot(kvm, WRITES) as machine:
        run, count = machine.vcpu.run, 0
        started = time.perf_counter()
        for _ in range(rounds):
            match run():
                case IoOut(data=data):
                    count += len(data)
        rate = rounds / (time.perf_counter() - started)
    assert count == rounds
    return rate


def spent(peer: Path, what: str, rounds: int) -> list[float]:
    """Let the peer do the same; give the seconds that it printed."""
    done = subprocess.run([str(peer), what, str(rounds)], capture_output=True, text=True, check=True)
    return [int(nanoseconds) / 1e9 for nanoseconds in done.stdout.split()]


if __name__ == "__main__":
    main()
