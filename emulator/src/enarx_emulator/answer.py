"""What a vendor's service answers to one request; the answers are pure functions, servers only carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of an HTTP service."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
