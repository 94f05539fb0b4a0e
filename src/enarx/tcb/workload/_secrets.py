"""Secrets of a workload: files under ``/run/secrets``, and environment variables only where the tenant asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.record import field, record
from enarx.tcb.wire import Value
from enarx.tcb.workload._tree import Entry, EntryKind, Tree

SECRETS_DIRECTORY: Final = "/run/secrets"
MAX_SECRETS: Final = 1024
MAX_VALUE_BYTES: Final = 1 << 20
"""All secrets of a job together: keys and tokens, not data."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


@record
class Secret:
    """One secret. With ``environment`` it is also a variable of that name, whose value must then be text."""

    name: str
    value: bytes = field(repr=False)
    environment: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Malformed(
                "secret name: expected letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
                hint="NAME=VALUE wants a name like api-key",
            )
        if self.environment:
            try:
                text = self.value.decode()
            except UnicodeError:
                text = "\0"
            if "\0" in text:
                raise Malformed(
                    f"secret {self.name}: a variable holds UTF-8 without NUL; deliver it as a file"
                )


def check_secrets(secrets: Iterable[Secret]) -> None:
    """Raise ``Malformed`` for too many, too large or two of one name."""
    names = [secret.name for secret in secrets]
    if len(names) > MAX_SECRETS or len(set(names)) != len(names):
        raise Malformed(f"secrets: expected at most {MAX_SECRETS}, each of another name")
    if sum(len(secret.value) for secret in secrets) > MAX_VALUE_BYTES:
        raise Malformed(f"secrets: together at most {MAX_VALUE_BYTES} bytes are allowed")


def secrets_tree(secrets: Iterable[Secret]) -> Tree:
    """Give the directory that the workload finds at ``SECRETS_DIRECTORY``."""
    return Tree(tuple(Entry(path=it.name, kind=EntryKind.FILE, data=it.value) for it in secrets))


def secrets_value(secrets: Iterable[Secret]) -> Value:
    """Give the form that crosses the wall."""
    return [[it.name, it.value, it.environment] for it in secrets]


def secrets_from_value(value: Value) -> tuple[Secret, ...]:
    """Read what ``secrets_value`` gave. Raises ``Malformed``."""
    if not isinstance(value, list):
        raise Malformed("job: secrets: expected a list")
    secrets = []
    for item in value:
        match item:
            case [str(name), bytes(content), bool(environment)]:
                secrets.append(Secret(name=name, value=content, environment=environment))
            case _:
                raise Malformed("job: secrets: expected name, value and whether it is a variable")
    check_secrets(secrets)
    return tuple(secrets)
