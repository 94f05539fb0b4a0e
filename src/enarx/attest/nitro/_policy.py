"""What a policy may ask of a Nitro document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest.errors import PolicyError
from enarx.attest.nitro._document import MAX_PCRS, PCR_BYTES
from enarx.attest.policy import TeeRules
from enarx.attest.rules import Each, Exactly, Rule, boolean, digests, key, octets, texts

MAX_AGE_S: Final = 300
"""The default. A document is made when it is asked for, so it is seconds old."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """A maximum."""

    maximum: int

    def admits(self, value: int | None) -> bool:
        return value is not None and value <= self.maximum

    def __str__(self) -> str:
        return f"at most {self.maximum}"


def seconds(value: object) -> Rule:
    """An integer of seconds, at most a year's."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 366 * 86400:
        raise PolicyError(f"expected seconds from 0 to a year's, found {value!r}")
    return AtMost(value)


def registers(value: object) -> Rule:
    """A non-empty table of lists of hex strings by register: ``{ pcr3 = ["…"] }``; zeros mean "not used"."""
    names = frozenset(f"pcr{index}" for index in range(MAX_PCRS))
    if not isinstance(value, dict) or not value or not names >= set(value):
        raise PolicyError(f"expected a table of registers pcr0 to pcr{MAX_PCRS - 1}, found {value!r}")
    return Each({name: octets(PCR_BYTES)(one) for name, one in value.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroRules(TeeRules):
    """The section ``[nitro]``. ``measurement`` is PCR0, the image."""

    measurement: Rule = key(
        digests(PCR_BYTES),
        path="measurement",
        field="pcrs.pcr0",
        advice="not an image that was expected; compare with PCR0 that nitro-cli printed when it built the image",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field=("pcrs.pcr0", "pcrs.pcr1", "pcrs.pcr2"),
        default=Exactly(False),
        advice="PCR0, PCR1 or PCR2 is zero: the operator can read the console; launch without --debug-mode",
    )
    pcrs: Rule | None = key(
        registers,
        path="measurements",
        field="pcrs",
        default=None,
        advice="another kernel, application, role, instance or signer than expected",
    )
    max_age_s: Rule = key(
        seconds,
        path="detail.age_s",
        field="timestamp",
        default=AtMost(MAX_AGE_S),
        advice="ask the enclave for a new document",
    )
    module_id: Rule | None = key(
        texts,
        path="detail.document.module_id",
        field="module_id",
        default=None,
        advice="another instance or enclave",
    )
    public_key: Rule | None = key(
        octets(*range(1, 1025)), path="detail.document.public_key", field="public_key", default=None
    )
    user_data: Rule | None = key(
        octets(*range(1, 1025)), path="detail.document.user_data", field="user_data", default=None
    )
