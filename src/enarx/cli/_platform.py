"""What ``enarx platform info`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from enarx.cli._output import printable

if TYPE_CHECKING:
    from enarx.host.platform import Backend, Fact, Report

VERSION = 1
"""Of the document that ``to_json`` gives; a change that readers must know of makes a new one."""
PASSED, FAILED = "✔", "✗"


def render_text(report: Report, *, colour: bool = False) -> str:
    """Write ``report`` for people: a tree of facts for each kind of keep, and under it what would help."""
    lines = [
        f"Enarx version {report.enarx}",
        f"System Info: {' '.join(report.system.values())}",
    ]
    for backend in report.backends:
        lines += ["", f"{_icon(backend.usable, colour)} Backend: {backend.name}"]
        facts = (*backend.data, *backend.configuration)
        for fact in facts:
            lines += _lines(fact, 1, colour)
        lines += [f"  {advice}" for advice in _advice(backend)]
    return "\n".join(lines)


def to_json(report: Report) -> dict[str, object]:
    """Give ``report`` as one document for programs; what is absent is null."""
    return {
        "version": VERSION,
        "enarx": report.enarx,
        "system": dict(report.system),
        "backends": [
            {
                "backend": backend.name,
                "usable": backend.usable,
                "available": backend.available,
                "configured": backend.configured,
                "data": [_document(fact) for fact in backend.data],
                "configuration": [_document(fact) for fact in backend.configuration],
            }
            for backend in report.backends
        ],
    }


def _document(fact: Fact) -> dict[str, object]:
    return {
        "name": fact.name,
        "pass": fact.passed,
        "info": fact.info or None,
        "advice": fact.advice or None,
        "facts": [_document(below) for below in fact.facts],
    }


def _lines(fact: Fact, depth: int, colour: bool) -> Iterator[str]:
    info = f": {fact.info}" if fact.info else ""
    yield f"{'  ' * depth}{_icon(fact.passed, colour)} {printable(fact.name + info)}"
    for below in fact.facts:
        yield from _lines(below, depth + 1, colour)


def _advice(backend: Backend) -> Iterator[str]:
    seen = dict.fromkeys(
        each.advice
        for fact in (*backend.data, *backend.configuration)
        for each in fact.all()
        if not each.passed and each.advice
    )
    for advice in seen:
        yield f"→ {advice}"


def _icon(passed: bool, colour: bool) -> str:
    icon = PASSED if passed else FAILED
    return f"\x1b[{32 if passed else 31}m{icon}\x1b[0m" if colour else icon
