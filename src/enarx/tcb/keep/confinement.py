"""From a process that may do what its user may do to one that can only be a keep.

A process enters new namespaces, then forks: its child, the first process of its process namespace, gives up the rest
and becomes the keep. Two kinds of parents differ in who waits for that child.

*One keep* (``confined_child``): the parent stays, holds nothing, waits, and ends as the child ends; when the parent
is killed, so is the child.

*A fork server* (``zygote``): the parent of the keep ends at once and the server adopts the keep.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final, Protocol

from enarx.tcb.keep.lockdown import (
    Profile,
    Result,
    Step,
    close_all_but,
    confine,
    die_with_parent,
)

STANDARD: Final = (0, 1, 2)
"""Stay open, so that nothing else gets these numbers: two lead nowhere, and on 2 interpreter and engine report when
they die."""
NO_CHANCE: Final = 70
"""Exit status of a keep that failed to confine itself in an unforeseen way."""


class Resident(Protocol):
    """What lives in the process in the end."""

    private_files: bool

    @property
    def required(self) -> bool:
        """Whether a missing layer of the sandbox is an error."""

    def descriptors(self) -> Sequence[int]:
        """Give what must stay open."""

    def refuse(self, missing: str) -> None:
        """End before anything has begun."""

    def rehearse(self) -> None:
        """Be ready sooner."""

    def serve(self) -> None:
        """Live."""


def become_keep(keep: Resident, profile: Profile, isolated: Sequence[Result], *, warm: bool = False) -> None:
    """Give up the rest, in the process that will be the keep, and live; never returns.

    ``isolated`` is what ``isolate`` gave. A keep that requires its whole sandbox refuses to live without; one
    that will wait for its delivery is made ``warm`` first.
    """
    try:
        die_with_parent(None)
        close_all_but(*STANDARD, *keep.descriptors())
        results = [*isolated, *confine(profile)]
        keep.private_files = any(result.step is Step.EMPTY_ROOT and result.applied for result in results)
        missing = [result for result in results if not result.applied]
        if keep.required and missing:
            detail = ", ".join(f"{result.step.value} ({result.detail})" for result in missing)
            keep.refuse(detail)
        else:
            if warm:
                keep.rehearse()
            keep.serve()
        os._exit(0)
    finally:
        os._exit(NO_CHANCE)


def confined_child(keep: Resident, profile: Profile, isolated: Sequence[Result]) -> None:
    """Fork a confined keep and end as it ends; never returns."""
    child = os.fork()
    if child == 0:
        become_keep(keep, profile, isolated)
    close_all_but()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other way and cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
