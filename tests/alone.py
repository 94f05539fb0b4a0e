"""A pytest plugin (``-p tests.alone --alone FILE``) that finds out which checks fail alone in some test.

Where a verification is refused, it is made again with the one check that failed made to pass. If it then accepts,
nothing else was wrong. FILE gets, by the name of each check, what then happened in any test: ``accepted``, the name of
the check that failed next, or ``ended`` where the code cannot go on without what the check established. Checks that
only note something are ``noted``.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

import enarx.attest.sev
from enarx.attest import CollateralMissing, EvidenceRejected, PolicyDenied, Verifier
from enarx.attest.checks import Ledger

FOUND: Final[defaultdict[str, set[str]]] = defaultdict(set)
_passing = threading.local()
_require, _note, _missing = Ledger.require, Ledger.note, Ledger.missing
_lock: Final = threading.Lock()


def _tolerant(self: Ledger, name: str, ok: bool, **words: Any) -> None:
    _require(self, name, ok or name == getattr(_passing, "name", None), **words)


def _noting(self: Ledger, name: str, **words: Any) -> None:
    _record(name, "noted")
    _note(self, name, **words)


def _ending(self: Ledger, name: str, what: str, *, advice: str) -> NoReturn:
    _record(name, "ended")
    _missing(self, name, what, advice=advice)


def _again(name: str, verify: Callable[[], object]) -> str:
    """What happens when the check of this name passes."""
    _passing.name = name
    try:
        verify()
    except PolicyDenied:
        return "accepted"  # policies are judged when all else is done
    except (EvidenceRejected, CollateralMissing) as refused:
        return refused.check.name
    except Exception:
        return "ended"
    finally:
        _passing.name = None
    return "accepted"


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except PolicyDenied as denied:
            names = [check.name for check in denied.failures]
            _record(names[0], "accepted" if len(names) == 1 else names[1])
            raise
        except EvidenceRejected as refused:
            name = refused.check.name
            if getattr(_passing, "name", None) is None:
                _record(name, _again(name, lambda: function(*arguments, **named)))
            raise

    return call


def _record(name: str, what: str) -> None:
    with _lock:
        FOUND[name].add(what)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write."""
    parser.addoption("--alone", type=Path, required=True)


def pytest_configure() -> None:
    """Watch every way into verification that tests use."""
    Ledger.require, Ledger.note, Ledger.missing = _tolerant, _noting, _ending  # type: ignore[method-assign]
    Verifier.verify = _watched(Verifier.verify)  # type: ignore[method-assign]
    enarx.attest.sev.verify_chain = _watched(enarx.attest.sev.verify_chain)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was found."""
    found = {name: sorted(what) for name, what in FOUND.items()}
    session.config.getoption("--alone").write_text(json.dumps(found))
