"""Verdicts as documents: plain JSON here, EAR tokens in ``ear``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum

from enarx.attest.checks import Check, show, uncovered
from enarx.attest.claims import Claims


def claims_document(claims: Claims) -> dict[str, object]:
    """Give the claims that all TEEs have, as JSON: bytes in hex, ``null`` for what the evidence does not have."""
    return {
        "tee": claims.tee.value,
        "measurement": claims.measurement.hex(),
        "measurements": {name: value.hex() for name, value in claims.measurements.items()},
        "report_data": claims.report_data.hex(),
        "debug": claims.debug,
        "memory_protected": claims.memory_protected,
        "tcb": dict(claims.tcb),
        "tcb_status": claims.tcb_status,
        "signer": claims.signer.hex() if claims.signer is not None else None,
        "chip_id": claims.chip_id.hex() if claims.chip_id is not None else None,
        "revocation": claims.revocation.value,
        "root": {
            "name": claims.root.name,
            "vendor": claims.root.is_vendor,
            "spki_sha256": claims.root.spki_sha256.hex(),
        },
        "bound": claims.bound,
        "policy_sha256": claims.policy_digest.hex() if claims.policy_digest is not None else None,
        "fields": fields_document(claims.evidence.fields()),
        "uncovered": list(uncovered(claims.evidence.fields(), claims.checks)),
    }


def checks_document(checks: Iterable[Check]) -> list[dict[str, object]]:
    """Give checks as JSON, in the order in which they were made."""
    return [
        {
            "name": check.name,
            "outcome": check.outcome.value,
            "fields": list(check.fields),
            "expected": show(check.expected),
            "found": show(check.found),
            "advice": check.advice or None,
        }
        for check in checks
    ]


def fields_document(fields: Mapping[str, object]) -> dict[str, object]:
    """Give parsed fields as JSON: numbers and truth values as they are, all else as it is shown."""
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: object) -> object:
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, datetime | bytes | Enum):
        return show(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return show(value)
