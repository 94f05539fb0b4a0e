"""What is known about a machine, as data: facts within facts, a group of them for each kind of keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was looked at. ``info`` is what was found, ``advice`` what would make it pass, or empty.

    Something that is only told and not needed passes always. The facts below one refine it; if it fails they are
    not looked at.
    """

    name: str
    passed: bool
    info: str = ""
    advice: str = ""
    facts: tuple[Fact, ...] = ()

    def all(self) -> Iterator[Fact]:
        """Give this fact and everything below it."""
        yield self
        for fact in self.facts:
            yield from fact.all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One kind of keep: what the machine must have for it, and how the machine must be set up."""

    name: str
    data: tuple[Fact, ...]
    configuration: tuple[Fact, ...] = ()

    @property
    def available(self) -> bool:
        """Whether this machine has what it takes."""
        return _all_pass(self.data)

    @property
    def configured(self) -> bool:
        """Whether nothing of what it takes has been left out by whoever set the machine up."""
        return _all_pass(self.configuration)

    @property
    def usable(self) -> bool:
        """Whether keeps of this kind can be made here now."""
        return self.available and self.configured


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was found."""

    enarx: str
    system: Mapping[str, str]
    backends: Sequence[Backend]


def _all_pass(facts: Sequence[Fact]) -> bool:
    return all(each.passed for fact in facts for each in fact.all())
