"""The evidence folder beside the repository: samples of real machines with what they must give (its manifest.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "shared" / "evidence"


@dataclass(frozen=True)
class Sample:
    """One entry of the manifest."""

    entry: dict[str, Any]

    @property
    def id(self) -> str:
        """The name, ``snp/genoa-v5-oak``."""
        return str(self.entry["id"])

    @property
    def expected(self) -> dict[str, Any]:
        """What the manifest says about it."""
        expected: dict[str, Any] = self.entry["expected"]
        return expected

    @property
    def time(self) -> datetime:
        """When to verify it."""
        return datetime.fromisoformat(self.entry["verification_time"])

    def has(self, role: str) -> bool:
        """Whether there is a file in this role."""
        return role in self.entry["files"]

    def read(self, role: str) -> bytes:
        """The file in this role."""
        path: str = self.entry["files"][role]
        return (FOLDER / path).read_bytes()


def samples(tech: str, *kinds: str) -> list[Sample]:
    """All samples of a technology, or those of the kinds named; empty when there is no folder."""
    if not FOLDER.is_dir():
        return []
    entries = json.loads((FOLDER / "manifest.json").read_text())["samples"]
    return [
        Sample(entry) for entry in entries if entry["tech"] == tech and (not kinds or entry["kind"] in kinds)
    ]


class Evidence:
    """Access to files and samples by name."""

    def read(self, path: str) -> bytes:
        """A file by its path in the folder."""
        return (FOLDER / path).read_bytes()

    def sample(self, name: str) -> Sample:
        """The sample of this id."""
        return next(sample for sample in samples(name.partition("/")[0]) if sample.id == name)
