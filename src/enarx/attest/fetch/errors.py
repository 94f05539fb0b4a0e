"""What can go wrong on the way to a vendor's service."""

from __future__ import annotations

from enarx.tcb.errors import Unavailable


class CollateralUnavailable(Unavailable):
    """A service gave no usable answer: it is down, slow, refuses, or answered with something else."""

    def __init__(self, url: str, reason: str, *, status: int | None = None, hint: str = "") -> None:
        super().__init__(f"{url}: {reason}", hint=hint)
        self.url = url
        self.status = status
        """The HTTP status, if there was an answer."""
