"""Secrets that are read when they are needed: after the empty keep was accepted, and not before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.workload import Secret

MAX_FILE_BYTES: Final = 1 << 20
"""As much as all secrets of a delivery together may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """The name of a secret and where its value comes from. It never holds the value."""

    name: str
    read: Callable[[], bytes] = field(repr=False)
    environment: bool = False
    """Whether the workload also gets it as a variable."""

    def __post_init__(self) -> None:
        Secret(name=self.name, value=b"")  # checks the name

    @classmethod
    def from_file(cls, name: str, path: Path, *, environment: bool = False) -> Self:
        """Read the whole file, byte by byte as it is."""

        def read() -> bytes:
            try:
                with path.open("rb") as file:
                    value = file.read(MAX_FILE_BYTES + 1)
            except OSError as error:
                reason = (error.strerror or "cannot be read").lower()
                raise Unavailable(f"secret {name}: {path}: {reason}") from None
            if len(value) > MAX_FILE_BYTES:
                raise Malformed(f"secret {name}: {path}: more than {MAX_FILE_BYTES} bytes")
            return value

        return cls(name=name, read=read, environment=environment)

    @classmethod
    def from_environment(cls, name: str, variable: str, *, environment: bool = False) -> Self:
        """Take the value of one of our own variables."""

        def read() -> bytes:
            value = os.environb.get(variable.encode())
            if value is None:
                raise Unavailable(f"secret {name}: there is no variable {variable}")
            return value

        return cls(name=name, read=read, environment=environment)

    def secret(self) -> Secret:
        """Read it. Raises ``EnarxError``."""
        return Secret(name=self.name, value=bytes(self.read()), environment=self.environment)


def read_secrets(secrets: Iterable[Secret | SecretSource]) -> tuple[Secret, ...]:
    """Give all of them with their values. Raises ``EnarxError``."""
    return tuple(one.secret() if isinstance(one, SecretSource) else one for one in secrets)


def check_names(secrets: Iterable[Secret | SecretSource]) -> None:
    """Raise ``Malformed`` when two have one name, before anything is read."""
    names = [one.name for one in secrets]
    for name in names:
        if names.count(name) > 1:
            raise Malformed(f"secret {name}: given twice")
