"""The exit codes of every command. ``docs/reference/exit-codes.md`` is generated from here."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. With ``enarx run`` the workload's own code, 0 to 255, comes through unchanged."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Make a member with its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = member.__doc__ = meaning
        return member

    DONE = 0, "Done, or accepted."
    REFUSED = 1, "Refused, or failed."
    USAGE = 2, "The command line is wrong; nothing was done."
    MALFORMED = 3, "Input is not in the form that it should have: Enarx.toml, a module, a file of ours."
    UNAVAILABLE = 4, "Something that is needed is not there or not permitted: a file, a device, a service."
    INTERNAL = 70, "An error in Enarx itself; please report it."
    MEMORY_LIMIT = 112, "run, deploy: the workload ended because it reached the memory limit."
    TABLE_LIMIT = 113, "run, deploy: the workload ended because it reached the limit of table elements."
    STACK_OVERFLOW = 114, "run, deploy: the workload's call stack was exhausted."
    OUTPUT_LIMIT = 115, "run, deploy: the workload wrote more than the output limit allows."
    STORAGE_LIMIT = 116, "run, deploy: the workload ended because its file system was full."
    THREAD_LIMIT = 118, "run, deploy: the workload started more threads than the limit allows."
    NOT_ACCEPTED = (
        119,
        "deploy, keep: the keep did not prove that it is what you accept; it was told no secret.",
    )
    TIME_LIMIT = 124, "run, deploy: the workload did not end within the time limit."
    KEEP_LOST = (
        125,
        "run, deploy, keep: the keep was killed or crashed; nothing is known about the workload's end.",
    )
    UNRUNNABLE = 126, "run, deploy: the module has no entry point, or needs what the keep does not offer."
    INTERRUPTED = 130, "Interrupted from the keyboard."
    TRAPPED = (
        134,
        "run, deploy: the workload trapped: an unreachable instruction, an access out of bounds, a division by zero.",
    )
    STOPPED = 143, "deploy, keep: the tenant stopped the workload."
    BROKEN_PIPE = 141, "Nobody reads standard output any more."
