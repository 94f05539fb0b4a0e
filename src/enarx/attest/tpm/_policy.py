"""What a policy may ask of a TPM quote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enarx.attest._eventlog import Algorithm
from enarx.attest.errors import PolicyError
from enarx.attest.policy import TeeRules
from enarx.attest.rules import Each, Exactly, OneOf, Rule, boolean, digests, integers, key, octets, texts
from enarx.attest.tpm._quote import PCRS

_SIZES = (20, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Includes:
    """All of these, and maybe others."""

    values: frozenset[int]

    def admits(self, value: frozenset[int]) -> bool:
        return self.values <= value

    def __str__(self) -> str:
        return f"at least {', '.join(map(str, sorted(self.values)))}"


def registers(value: object) -> Rule:
    """A non-empty table of lists of hex strings by register: ``{ pcr4 = ["…"] }``."""
    names = frozenset(f"pcr{index}" for index in range(PCRS))
    if not isinstance(value, dict) or not value or not names >= set(value):
        raise PolicyError(f"expected a table of registers pcr0 to pcr{PCRS - 1}, found {value!r}")
    return Each({name: octets(*_SIZES)(one) for name, one in value.items()})


def indices(value: object) -> frozenset[int]:
    """A non-empty list of PCR indices."""
    found = integers(0, PCRS - 1)(value)
    assert isinstance(found, OneOf)  # noqa: S101 -- what integers makes
    return found.values


def banks(value: object) -> Rule:
    """A non-empty list of the names of hash algorithms, ``sha256``."""
    known = frozenset(one.name.lower() for one in Algorithm)
    found = texts(value)
    assert isinstance(found, OneOf)  # noqa: S101 -- what texts makes
    if not found.values <= known:
        raise PolicyError(f"expected a list of {', '.join(sorted(known))}, found {value!r}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmRules(TeeRules):
    """The section ``[tpm]``. ``measurement`` is the digest of the selected PCRs, which says nothing without
    ``selection``: others may hold the same values.
    """

    measurement: Rule = key(
        digests(32, 48, 64),
        path="measurement",
        field="pcr_digest",
        advice="another boot than expected; compare PCR by PCR with the event log",
    )
    selection: Rule = key(
        lambda value: OneOf(frozenset({tuple(sorted(indices(value)))})),
        path="detail.quote.selection",
        field="selection",
        advice="quote exactly these PCRs",
    )
    bank: Rule = key(
        banks,
        path="detail.quote.bank_name",
        field="bank",
        default=OneOf(frozenset({"sha256", "sha384", "sha512"})),
        advice="quote a bank of SHA-256 or better",
    )
    pcrs: Rule | None = key(registers, path="measurements", field="pcrs", default=None)
    event_log: Rule | None = key(
        lambda value: Includes(indices(value)),
        path="detail.replayed",
        field=(),
        default=None,
        advice="give an event log that explains these PCRs",
    )
    memory_protected: Rule = key(
        boolean,
        path="memory_protected",
        field=(),
        default=Exactly(True),
        advice="a TPM proves what was started, and keeps nobody out of memory; write memory_protected = false only if "
        "whoever runs the machine may read it",
    )
    safe: Rule | None = key(boolean, path="detail.quote.safe", field="safe", default=None)
    reset_count: Rule | None = key(
        integers(0, 2**32 - 1), path="detail.quote.reset_count", field="reset_count", default=None
    )
    restart_count: Rule | None = key(
        integers(0, 2**32 - 1), path="detail.quote.restart_count", field="restart_count", default=None
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        if self.memory_protected.admits(False):
            yield "memory_protected: whoever runs the machine may read the keep's memory"
