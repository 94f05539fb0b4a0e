"""Defence in depth on Linux: a keep's process gives up everything that a workload does not need.

    results = isolate(profile)       # single-threaded; the caller stays outside the process namespace ...
    if os.fork() == 0:               # ... and its next child is the first process inside
        die_with_parent(None)        # after the final parent is known, and after isolate, which would undo it
        close_all_but(channel)
        results += confine(profile)  # single-threaded; last, nothing can be imported or opened from here on
        ...                          # receive and compile the workload, in threads too
        results.append(seal_code())  # before the workload's first instruction

Nothing here raises because the machine refuses a step: each gives a ``Result``, and the caller decides. If a step of
``isolate`` is refused, the process is still fit for the next one.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from ctypes import create_string_buffer
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from enarx.tcb.keep.lockdown import _landlock, _namespaces, _seccomp, _syscalls
from enarx.tcb.keep.lockdown._syscalls import call, prctl

COMPONENT_FILES: Final = _namespaces.WORK
"""Where the file system of a component is, when its root was emptied."""
WORK_BYTES, WORK_FILES = 1 << 30, 1 << 14
DESCRIPTORS, THREADS = 4096, 4096
_CAP_SYS_BOOT: Final = 22


class Step(Enum):
    """A layer of the sandbox."""

    USER_NAMESPACE = "user namespace"
    MOUNT_NAMESPACE = "mount namespace"
    EMPTY_ROOT = "empty root"
    NETWORK_NAMESPACE = "network namespace"
    IPC_NAMESPACE = "IPC namespace"
    UTS_NAMESPACE = "UTS namespace"
    CGROUP_NAMESPACE = "cgroup namespace"
    PID_NAMESPACE = "process namespace"
    RESOURCE_LIMITS = "resource limits"
    NO_CAPABILITIES = "no capabilities"
    NO_NEW_PRIVILEGES = "no new privileges"
    LANDLOCK = "Landlock"
    SECCOMP = "seccomp"
    NOT_DUMPABLE = "not dumpable"
    WRITE_XOR_EXECUTE = "write xor execute"


class Profile(Enum):
    """What the process will run."""

    MODULE = "module"
    """Everything that the workload reaches is our code over inherited descriptors."""
    COMPONENT = "component"
    """The engine's own WASI serves the workload, over a private file system."""
    CARRIER = "carrier"
    """The first process of a VM keep, between the host's port and the keep; it ends the machine."""
    TREE = "tree"
    """The process of a VM keep that reads the platform's attributes for the keep."""


class Result(NamedTuple):
    """How one step went: ``detail`` is the system's answer, or what the step consists of here."""

    step: Step
    applied: bool
    detail: str


def _attempt(step: Step, action: Callable[[], str | int | None]) -> Result:
    try:
        detail = action()
        return Result(step, True, detail if isinstance(detail, str) else "")
    except OSError as error:
        return Result(step, False, f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror}")


def isolate(profile: Profile, *, work_bytes: int = WORK_BYTES, work_files: int = WORK_FILES) -> list[Result]:
    """Enter new namespaces; the process namespace counts for the next child. Raises ``OSError`` without ``/proc``.

    ``work_*`` bound the file system of a component. Root becomes *nobody*, also when user namespaces are refused.
    """
    work = (work_bytes, work_files) if profile is Profile.COMPONENT else None
    proc_self = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        user = None
        enter_user = partial(_namespaces.user_namespace, proc_self)
        mount = _attempt(Step.MOUNT_NAMESPACE, _namespaces.mount_namespace)
        if not mount.applied:
            user = _attempt(Step.USER_NAMESPACE, enter_user)
            mount = _attempt(Step.MOUNT_NAMESPACE, _namespaces.mount_namespace)
        empty = Result(Step.EMPTY_ROOT, False, "needs a mount namespace")
        if mount.applied:
            empty = _attempt(Step.EMPTY_ROOT, partial(_namespaces.empty_root, work))
        rest = [
            _attempt(Step.NETWORK_NAMESPACE, partial(_namespaces.leave, _namespaces.NEWNET)),
            _attempt(Step.IPC_NAMESPACE, partial(_namespaces.leave, _namespaces.NEWIPC)),
            _attempt(Step.UTS_NAMESPACE, _namespaces.uts_namespace),
            _attempt(Step.CGROUP_NAMESPACE, partial(_namespaces.leave, _namespaces.NEWCGROUP)),
            _attempt(Step.PID_NAMESPACE, partial(_namespaces.leave, _namespaces.NEWPID)),
        ]
        user = user or _attempt(Step.USER_NAMESPACE, enter_user)
        return [user, mount, empty, *rest]
    finally:
        os.close(proc_self)


def confine(profile: Profile, *, beneath: str | None = None) -> list[Result]:
    """Give up resources, privileges, files and system calls for ever; the process must have one thread.

    ``beneath`` is the only directory whose files a profile that may open some reaches; a component has its own.
    """
    if profile is Profile.COMPONENT:
        emptied = [f"/{name}" for name in os.listdir("/")] == [
            COMPONENT_FILES
        ]  # else it may be somebody else's
        beneath = COMPONENT_FILES if emptied else None
    capabilities = 1 << _CAP_SYS_BOOT if profile is Profile.CARRIER else 0
    return [
        _attempt(Step.RESOURCE_LIMITS, _resource_limits),
        _attempt(Step.NO_CAPABILITIES, partial(_no_capabilities, capabilities)),
        _attempt(Step.NO_NEW_PRIVILEGES, partial(prctl, _syscalls.PR_SET_NO_NEW_PRIVS, 1)),
        _attempt(Step.LANDLOCK, partial(_landlock.restrict, beneath)),
        _attempt(Step.NOT_DUMPABLE, partial(prctl, _syscalls.PR_SET_DUMPABLE, 0)),
        _attempt(Step.SECCOMP, partial(_seccomp.allow_only, profile.value)),
    ]


def seal_code() -> Result:
    """Make no memory executable any more, in any thread."""
    return _attempt(Step.WRITE_XOR_EXECUTE, _write_xor_execute)


def die_with_parent(parent: int | None) -> None:
    """Be killed when the thread that is the parent ends; end at once if ``parent`` no longer is it.

    A change of user would undo it, so it comes after ``isolate``. From inside a process namespace the parent's
    number cannot be seen; there the end of the channel is what tells of a parent that ended before.
    """
    prctl(_syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() not in (0, parent):
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends."""
    prctl(_syscalls.PR_SET_CHILD_SUBREAPER, 1)


def close_all_but(*keep: int) -> None:
    """Close every descriptor of this process but ``keep``. Raises ``OSError`` on kernels before 5.9."""
    first = 0
    for fd in [*sorted(set(keep)), 1 << 32]:
        if first < fd:
            call("close_range", first, fd - 1, 0)
        first = fd + 1


def _resource_limits() -> str:
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: DESCRIPTORS, resource.RLIMIT_NPROC: THREADS}
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    return f"{DESCRIPTORS} descriptors, {THREADS} threads, no core"


def _no_capabilities(but: int) -> None:
    with suppress(OSError):  # after the last capability, or at once for a process that has none to lose
        prctl(_syscalls.PR_SET_SECUREBITS, 0xEF)  # no rights for uid 0, none kept or raised, all of it locked
        for capability in range(64):
            prctl(_syscalls.PR_CAPBSET_DROP, capability)
    header = create_string_buffer(struct.pack("=Ii", 0x2008_0522, 0), 8)  # version 3, this thread
    call("capset", header, create_string_buffer(struct.pack("=II", but, but), 24))


def _write_xor_execute() -> str:
    try:
        prctl(_syscalls.PR_SET_MDWE, 1)
        return "PR_SET_MDWE"
    except OSError:
        return f"seccomp, {_seccomp.no_new_code()}"
