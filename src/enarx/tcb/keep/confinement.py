"""From a process that may do what its user may do to one that can only be a keep.

A process enters new namespaces, then forks: its child, the first process of its process namespace, gives up the rest
and becomes the keep. Two kinds of parents differ in who waits for that child.

*One keep* (``confined_child``): the parent stays, holds nothing, waits, and ends as the child ends; when the parent
is killed, so is the child.

*A fork server* (``zygote``): the parent of the keep ends at once and the server adopts the keep.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Final

from enarx.tcb.keep.boot import Keep
from enarx.tcb.keep.lockdown import Profile, Result, close_all_but, confine, die_with_parent, isolate

NO_CHANCE: Final = 70
"""Exit status of a keep that failed to confine itself in an unforeseen way."""


def become_keep(keep: Keep, profile: Profile, done: Sequence[Result], *, required: bool) -> None:
    """Give up the rest, in the process that will be the keep, and live. ``done`` is what ``isolate`` gave."""
    results = [*done, *confine(profile)]
    missing = [result for result in results if not result.applied]
    if required and missing:
        detail = ", ".join(f"{result.step.value} ({result.detail})" for result in missing)
        keep.refuse(
            f"the sandbox is incomplete: {detail}",
            "run without --require-sandbox, or see 'enarx platform info' for what this machine lacks",
        )
    else:
        keep.serve()


def confined_child(keep: Keep, profile: Profile, *, required: bool) -> None:
    """Make this process the parent of a confined keep, and end as it ends; never returns."""
    results = isolate(profile)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with_parent(parent)
            become_keep(keep, profile, results, required=required)
            os._exit(0)
        finally:
            os._exit(NO_CHANCE)
    close_all_but()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
