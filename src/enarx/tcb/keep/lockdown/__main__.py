"""What this machine allows: locks a process down and prints how each step went, as JSON.

python -I -m enarx.tcb.keep.lockdown [component]
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from enarx.tcb.keep.lockdown import Profile, Result, confine, isolate, seal_code


def main(arguments: Sequence[str]) -> None:
    """Try every step in the order of a keep; exits with 0 if the answer is complete."""
    profile = Profile(arguments[0]) if arguments else Profile.MODULE
    results = isolate(profile)
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
    results += confine(profile)
    results.append(seal_code())
    os.write(1, json.dumps([_told(result) for result in results]).encode())
    os._exit(0)


def _told(result: Result) -> dict[str, object]:
    return {"step": result.step.value, "applied": result.applied, "detail": result.detail}


if __name__ == "__main__":
    main(sys.argv[1:])
