"""Policies: what a relying party accepts, one section a TEE, default deny.

A TEE whose section is absent is refused. Every section must say which measurements it accepts. Defaults are
the strict choice; ``"any"`` leaves a key out and must be written. Unknown keys, empty lists and zero digests
are errors when the policy is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Self

from enarx.attest.checks import Ledger, Outcome
from enarx.attest.claims import Revocation, Tee, Verified
from enarx.attest.errors import PolicyDenied, PolicyError
from enarx.attest.rules import (
    Anything,
    AtLeast,
    Each,
    Exactly,
    Key,
    NoneOf,
    OneOf,
    Rule,
    boolean,
    digests,
    key,
    words,
)
from enarx.attest.tee import TeeVerifier

MAX_POLICY_BYTES: Final = 1024 * 1024
"""Room for thousands of measurements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeeRules:
    """The keys that every section has. A TEE adds its own in a subclass."""

    measurement: Rule = key(
        digests(32, 48),
        path="measurement",
        field="measurement",
        advice="not an image that was expected; compare with `enarx measure` of the image you mean to run",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field="debug",
        default=Exactly(False),
        advice="the operator can read the memory of this keep; launch it without debugging",
    )
    revocation: Rule = key(
        words(Revocation),
        path="revocation",
        field=(),
        default=OneOf(frozenset({Revocation.CHECKED, Revocation.NOT_PUBLISHED})),
        advice="supply a current revocation list of the vendor",
    )
    vendor_root: Rule = key(
        boolean,
        path="root.is_vendor",
        field=(),
        default=Exactly(True),
        advice='the root is one that the caller added; write vendor_root = "any" only for emulated hardware',
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        yield from ()


@dataclass(frozen=True, slots=True)
class AuthenticityOnly:
    """Written out in place of a policy: nothing is appraised, and the claims say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is accepted, by TEE."""

    name: str
    sections: Mapping[Tee, TeeRules]
    digest: bytes = field(init=False)
    """SHA-256 over the meaning: the same for a file and for the same rules made in code."""
    _plan: Mapping[Tee, tuple[tuple[str, Key, Rule], ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sections:
            raise PolicyError("the policy has no section: it accepts nothing", hint="add one, such as [snp]")
        plan = {tee: tuple(_walk(rules, f"policy.{tee.value}")) for tee, rules in self.sections.items()}
        lines = sorted(f"{name} = {rule}" for steps in plan.values() for name, _, rule in steps)
        digest = hashlib.sha256("\n".join(["enarx policy 1", *lines]).encode()).digest()
        object.__setattr__(self, "_plan", MappingProxyType(plan))
        object.__setattr__(self, "digest", digest)

    @classmethod
    def parse(cls, text: str, tees: Iterable[TeeVerifier]) -> Self:
        """Read TOML: ``version = 1``, optional ``name``, and sections of the given TEEs. Raises
        ``PolicyError``.
        """
        known = {tee.value: (tee, rules) for verifier in tees for tee, rules in verifier.rules.items()}
        if len(text) > MAX_POLICY_BYTES:
            raise PolicyError(f"policy has {len(text)} characters, at most {MAX_POLICY_BYTES} are allowed")
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise PolicyError(f"policy is not TOML: {error}") from None
        written = document.pop("version", None)
        if written != 1 or isinstance(written, bool):
            raise PolicyError(f"version: expected 1, found {written!r}")
        name = document.pop("name", "")
        if not isinstance(name, str):
            raise PolicyError("name: expected a text")
        sections: dict[Tee, TeeRules] = {}
        for section, values in document.items():
            if section not in known:
                raise PolicyError(f"{section}: unknown key", hint=f"sections are {', '.join(sorted(known))}")
            tee, rules = known[section]
            sections[tee] = _load(rules, values, section)
        return cls(name=name, sections=MappingProxyType(sections))

    def appraise(self, verified: Verified, ledger: Ledger) -> None:
        """Judge every rule of the section and record each. Raises ``PolicyDenied`` with all that failed."""
        start = len(ledger)
        ledger.judge(
            "policy.tee",
            verified.tee in self.sections,
            expected=frozenset(self.sections),
            found=verified.tee,
            advice="add a section of this name if this kind of evidence is to be accepted",
        )
        for name, meta, rule in self._plan.get(verified.tee, ()):
            _judge(rule, attrgetter(meta.path)(verified), name, meta, ledger)
        checks = ledger.checks()
        failures = [check for check in checks[start:] if check.outcome is Outcome.FAILED]
        if failures:
            raise PolicyDenied(failures, checks)

    def lint(self) -> list[str]:
        """List what is probably a mistake: useless minimums, contradictions, checks switched off."""
        return [found for tee, rules in self.sections.items() for found in _lint(rules, tee.value)]


def _judge(rule: Rule, value: Any, name: str, meta: Key, ledger: Ledger) -> None:
    if not isinstance(rule, Each):
        ledger.judge(
            name, rule.admits(value), field=meta.fields, expected=rule, found=value, advice=meta.advice
        )
        return
    for part, one in rule.rules.items():
        found = value.get(part)
        fields = tuple(f"{whole}.{part}" for whole in meta.fields)
        ledger.judge(
            f"{name}.{part}", one.admits(found), field=fields, expected=one, found=found, advice=meta.advice
        )


def _load(rules: type[Any], values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise PolicyError(f"{where}: expected a table, found {values!r}")
    keys: dict[str, Key] = {declared.name: declared.metadata["key"] for declared in dataclasses.fields(rules)}
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in keys:
            raise PolicyError(f"{where}.{name}: unknown key", hint=f"keys are {', '.join(sorted(keys))}")
        made[name] = _rule(keys[name], value, f"{where}.{name}")
    for declared in dataclasses.fields(rules):
        if declared.default is dataclasses.MISSING and declared.name not in made:
            raise PolicyError(
                f"{where}.{declared.name}: missing", hint='name the accepted values, or write "any"'
            )
    if not made:
        raise PolicyError(f"{where}: an empty table asks for nothing")
    return rules(**made)


def _rule(meta: Key, value: object, where: str) -> Any:
    if meta.table is not None:
        return _load(meta.table, value, where)
    if value == "any":
        if not meta.any_allowed:
            raise PolicyError(f'{where}: "any" has no meaning here', hint="leave the key out")
        return Anything()
    assert meta.decode is not None  # noqa: S101 -- a key has a decoder or a table; this tells the type checker
    try:
        return meta.decode(value)
    except PolicyError as error:
        raise PolicyError(f"{where}: {error}", hint=error.hint) from None


def _walk(rules: Any, name: str, path: str = "", prefix: str = "") -> Iterator[tuple[str, Key, Rule]]:
    """Give every rule that is set, with its dotted name and a key whose path starts at ``Verified``."""
    for declared in dataclasses.fields(rules):
        rule = getattr(rules, declared.name)
        if rule is None:
            continue
        meta: Key = declared.metadata["key"]
        full = dataclasses.replace(
            meta, path=path + meta.path, fields=tuple(prefix + one for one in meta.fields)
        )
        if meta.table is not None:
            yield from _walk(rule, f"{name}.{declared.name}", f"{full.path}.", f"{full.fields[0]}.")
        else:
            yield f"{name}.{declared.name}", full, rule


def _lint(rules: TeeRules, where: str) -> Iterator[str]:
    seen: dict[str, tuple[str, Rule]] = {}
    for name, meta, rule in _walk(rules, where):
        match rule:
            case Anything() if name == f"{where}.measurement" or meta.path in (
                "debug",
                "root.is_vendor",
                "revocation",
            ):
                yield f"{name}: anything is accepted"
            case AtLeast(minimum) if not any(minimum if isinstance(minimum, tuple) else (minimum,)):
                yield f"{name}: a minimum of zero admits everything"
            case Exactly(True) if meta.path == "debug":
                yield f"{name}: only debuggable keeps are accepted"
        if meta.path in seen and isinstance(rule, NoneOf | OneOf):
            other, before = seen[meta.path]
            allow, deny = (rule, before) if isinstance(rule, OneOf) else (before, rule)
            both = allow.values & deny.values if isinstance(allow, OneOf) and isinstance(deny, NoneOf) else ()
            if both:
                yield f"{name}: contradicts {other}: {len(both)} values are allowed and denied"
        seen[meta.path] = (name, rule)
    for found in rules.lint():
        yield f"{where}.{found}"
