"""Run a function in a child process, free or locked down, and learn how it ended."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from enarx.tcb.keep.lockdown import (
    Profile,
    Result,
    close_all_but,
    confine,
    die_with_parent,
    isolate,
    seal_code,
)
from enarx.tcb.keep.lockdown._syscalls import PR_SET_DUMPABLE, prctl

NOBODY: Final = 65534
UIDS: Final = (0, NOBODY) if os.geteuid() == 0 else (os.geteuid(),)
"""The users as whom a test can run."""
TIMEOUT_S: Final = 30
DONE: Final = "done"


_SYSCALL: Final = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.restype = ctypes.c_long


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call. Raises ``OSError``."""
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _SYSCALL(ctypes.c_long(number), *values)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Cage:
    """How a function's process is locked down, and as which user it starts."""

    uid: int = UIDS[0]
    isolated: bool = True
    confined: bool = True
    sealed: bool = True
    profile: Profile = Profile.MODULE
    keeps: Sequence[int] = ()
    """Descriptors that stay open beside the one that reports."""

    def run(self, action: Callable[[], object]) -> str:
        """Give ``done``, or what the function returned as text, or the name of the error or signal it met."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._live(action, writer)
        os.close(writer)
        try:
            return _read(reader)
        finally:
            os.close(reader)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _live(self, action: Callable[[], object], writer: int) -> NoReturn:
        try:
            self._become_user()
            results = isolate(self.profile) if self.isolated else []
            keep = os.fork()
            if keep == 0:
                die_with_parent(None)
                self._confine(results, writer)
                os.write(writer, _outcome(action).encode())
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(keep, 0)[1])
            if status:
                os.write(writer, (signal.Signals(-status).name if status < 0 else f"exit {status}").encode())
        except BaseException as error:
            os.write(writer, f"broken test: {error!r}".encode())
        finally:
            os._exit(0)

    def _become_user(self) -> None:
        if self.uid != os.geteuid():
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        prctl(PR_SET_DUMPABLE, 1)  # as a process is that was started by this user

    def _confine(self, results: list[Result], writer: int) -> None:
        if self.isolated:
            close_all_but(writer, *self.keeps)
        if self.confined:
            results += confine(self.profile)
            if self.sealed:
                results.append(seal_code())
        missing = [result for result in results if not result.applied]
        assert not missing, missing


FREE: Final = Cage(isolated=False, confined=False)


def _outcome(action: Callable[[], object]) -> str:
    try:
        result = action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    return DONE if result is None else str(result)


def _read(reader: int) -> str:
    """Give everything until the last writer ends; an empty answer is a process that ended well without a word."""
    said = b""
    while select.select([reader], [], [], TIMEOUT_S)[0]:
        data = os.read(reader, 4096)
        if not data:
            return said.decode() or DONE
        said += data
    return "still running"
