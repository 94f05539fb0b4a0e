"""What a policy may ask of a virtual machine of PEF. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest.policy import TeeRules
from enarx.attest.rules import Exactly, Rule, boolean, denied, digests, key, octets

MEASUREMENT_BYTES: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class PefRules(TeeRules):
    """The section ``[pef]``. No field of evidence says what is judged here: the owner sealed it."""

    measurement: Rule = key(
        digests(MEASUREMENT_BYTES),
        path="measurement",
        field=(),
        advice="the secret was sealed for another virtual machine than one that is expected",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field=(),
        default=Exactly(False),
        advice="a secure virtual machine cannot be debugged: this asks for what does not exist",
    )
    vendor_root: Rule = key(
        boolean,
        path="root.is_vendor",
        field=(),
        default=Exactly(True),
        advice='IBM publishes no root; write vendor_root = "any" where you named the key of the machine yourself',
    )
    machines: Rule | None = key(
        octets(32),
        path="chip_id",
        field=(),
        default=None,
        advice="this machine (SHA-256 of its public key) is not on the list",
    )
    denied_machines: Rule | None = key(
        denied(32),
        path="chip_id",
        field=(),
        default=None,
        any_allowed=False,
        advice="this machine (SHA-256 of its public key) is known to be compromised",
    )
