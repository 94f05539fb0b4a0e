"""The error of expected measurements: the inputs are well formed, but no platform could be started with them."""

from __future__ import annotations

from enarx.tcb.errors import EnarxError


class Unmeasurable(EnarxError):
    """No launch has this digest: the inputs contradict each other, or firmware lacks what the launch needs."""
