"""Does this KVM run guests on the processor, or does it interpret their instructions? Measured, not looked up.

A guest counts down in a loop of two instructions. A processor needs about a nanosecond a round; interpreters that were
measured need hundreds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ketuvim.errors import UnknownExit
from ketuvim.exits import Halt
from ketuvim.loader import Mode, boot
from ketuvim.system import Kvm

LIMIT_NS: Final = 50.0
"""Above this many nanoseconds a round it is called interpretation."""

_ROUNDS: Final = 20_000
_TRIES: Final = 3
# mov ecx, rounds; dec ecx; jnz to the dec; hlt. In 16-bit code with operand size prefixes.
_LOOP: Final = {
    Mode.REAL: b"\x66\xb9%s\x66\x49\x75\xfc\xf4",
    Mode.PROTECTED: b"\xb9%s\xff\xc9\x75\xfc\xf4",
    Mode.LONG: b"\xb9%s\xff\xc9\x75\xfc\xf4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """What was measured: nanoseconds for a round of two instructions, the best of some tries."""

    mode: Mode
    ns_per_round: float

    @property
    def accelerated(self) -> bool:
        """Say whether the processor itself ran the guest."""
        return self.ns_per_round < LIMIT_NS


def measure(kvm: Kvm, mode: Mode = Mode.LONG) -> Acceleration:
    """Run the loop; takes under 0.1 s even where it is interpreted."""
    best = float("inf")
    code = _LOOP[mode] % _ROUNDS.to_bytes(4, "little")
    for _ in range(_TRIES):
        with boot(kvm, code, mode=mode) as machine:
            started = time.perf_counter_ns()
            event = machine.vcpu.run()
            spent = time.perf_counter_ns() - started
            if not isinstance(event, Halt):
                raise machine.vcpu.failed(UnknownExit, f"the loop ended with {event}")
        best = min(best, spent / _ROUNDS)
    return Acceleration(mode=mode, ns_per_round=best)
