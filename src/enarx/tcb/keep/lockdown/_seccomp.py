"""Which system calls a keep may make: an allow-list, compiled to classic BPF by hand.

What is not listed answers EPERM, so that a library that tries finds out in its own way. What only an attacker wants
ends the process. The order of a filter: architecture, foreign numbers, calls without conditions (the kernel caches
those), calls with conditions on arguments.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from enarx.tcb.keep.lockdown._syscalls import MACHINE, NUMBERS, PR_GET_NAME, PR_SET_MDWE, PR_SET_NAME, call

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF_0000, 0x8000_0000, 0x0005_0001, 0x0005_0026

# Streams that were handed in, waiting, memory, signals, threads, clocks: what Python and the engine live on.
_ALWAYS: Final = """
read write readv writev pread64 preadv lseek close dup fstat poll ppoll select pselect6 epoll_create1 epoll_ctl
epoll_wait epoll_pwait epoll_pwait2 eventfd2 accept4 recvfrom recvmsg shutdown getsockname getpeername
mprotect munmap mremap madvise brk membarrier rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
futex set_robust_list rseq sched_yield sched_getaffinity getpid gettid exit exit_group clock_gettime clock_getres
clock_nanosleep nanosleep gettimeofday getrandom uname
"""
# The engine's own WASI and the files beneath /work, for components.
_FILES: Final = """
open openat openat2 newfstatat statx stat lstat access faccessat faccessat2 getdents64 getcwd mkdir mkdirat rmdir
unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat readlink readlinkat ftruncate fallocate
utimensat fsync fdatasync fadvise64 pwrite64 pwritev preadv2 pwritev2 dup2 dup3 pipe2 socketpair timerfd_create
timerfd_settime
"""
# Memory, signals and the end: what any Python lives on that runs nothing but ours.
_PLAIN: Final = """
read write close munmap mremap madvise brk rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall futex
getpid gettid exit exit_group clock_gettime
"""
# A VM keep's first process: bytes between the port and Unix sockets, which it makes and hands on; a child that ends.
_CARRIER: Final = """
readv writev pread64 poll ppoll epoll_ctl epoll_wait epoll_pwait epoll_pwait2 recvfrom recvmsg shutdown getsockname
socketpair bind listen connect wait4
"""
# The process that serves the keep a tree of attributes.
_TREE: Final = "lseek fstat getdents64 openat mkdirat unlinkat"
_NEVER: Final = """
execve execveat fork vfork ptrace process_vm_readv process_vm_writev bpf init_module finit_module kexec_load unshare
setns mount umount2 pivot_root
"""


class Check(NamedTuple):
    """The masked half ``half`` of the arguments (2 n is the lower one of argument n) must be among ``values``."""

    half: int
    values: Sequence[int]
    mask: int = 0xFFFF_FFFF
    otherwise: int = EPERM


_NO_PROT_EXEC: Final = Check(4, [0], mask=4)
_THREAD, _NAMESPACES, _FASTOPEN = 0x1_0000, 0x7E02_0000, 0x2000_0000
_CHECKS: Final[Mapping[str, Sequence[Check]]] = {
    # a thread, not a process; glibc asks for it with clone when there is no clone3, whose arguments no filter can see
    "clone": [Check(0, [_THREAD], mask=_THREAD | _NAMESPACES, otherwise=KILL)],
    "mmap": [_NO_PROT_EXEC],  # the compiler maps its code as data and then makes it executable with mprotect
    "fcntl": [Check(2, [0, 1, 2, 3, 4, 1030])],  # duplicate, descriptor flags, status flags
    "ioctl": [Check(2, [0x5401, 0x541B, 0x5421, 0x5451])],  # TCGETS FIONREAD FIONBIO FIOCLEX
    # an address would connect a TCP socket of the host's network that is not connected yet
    "sendto": [Check(6, [0], mask=_FASTOPEN), Check(8, [0]), Check(9, [0])],
    "sendmsg": [Check(4, [0], mask=_FASTOPEN)],
    "getsockopt": [Check(2, [1, 6])],  # SOL_SOCKET, IPPROTO_TCP
    # neither filters (26, 50) nor protocols on top of TCP (31) nor connecting (30), only what tunes a connection
    "setsockopt": [Check(2, [1, 6]), Check(4, [*range(1, 10), 12, 13, 20, 21])],
    "newfstatat": [Check(6, [0x1000])],  # AT_EMPTY_PATH: how glibc does fstat
    "prlimit64": [Check(4, [0]), Check(5, [0])],  # read only
    "prctl": [Check(0, [PR_SET_NAME, PR_GET_NAME, PR_SET_MDWE])],
    "seccomp": [Check(0, [1]), Check(2, [1])],  # one more filter, for all threads
}
_DATA_ONLY: Final = {"mmap": [_NO_PROT_EXEC], "mprotect": [_NO_PROT_EXEC], "fcntl": _CHECKS["fcntl"]}
_POWER_OFF: Final = 0x4321_FEDC
_FILTERS: Final[Mapping[str, tuple[str, Mapping[str, Sequence[Check]]]]] = {
    "module": (_ALWAYS, _CHECKS),
    "component": (_ALWAYS + _FILES, _CHECKS),
    "carrier": (
        _PLAIN + _CARRIER,
        {
            **_DATA_ONLY,
            **{name: _CHECKS[name] for name in ("ioctl", "sendto", "sendmsg", "getsockopt", "setsockopt")},
            "socket": [Check(0, [1])],  # AF_UNIX
            "reboot": [Check(4, [_POWER_OFF])],
        },
    ),
    "tree": (_PLAIN + _TREE, {**_DATA_ONLY, "newfstatat": _CHECKS["newfstatat"]}),
}
"""By profile: calls without conditions, and those with."""
_ARCHITECTURE: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}.get(MACHINE, 0)
# BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, JMP|JGE|K, RET|K
_LOAD, _AND, _JEQ, _JGE, _RET = 0x20, 0x54, 0x15, 0x35, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; both architectures are little-endian


def _op(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _rule(number: int, checks: Iterable[Check], verdict: int) -> list[bytes]:
    """Give ``verdict`` for the call ``number`` if all checks hold, else what the first that fails says."""
    body: list[bytes] = []
    for check in checks:
        jumps = [_op(_JEQ, value, true=len(check.values) - at) for at, value in enumerate(check.values)]
        body += [_op(_LOAD, _ARGUMENTS + 4 * check.half), _op(_AND, check.mask)]
        body += [*jumps, _op(_RET, check.otherwise)]
    return [_op(_JEQ, number, false=len(body) + 1), *body, _op(_RET, verdict)]


def _install(rules: Iterable[tuple[str, Iterable[Check], int]], default: int) -> str:
    """Bind every thread of this process for ever to the first of ``rules`` (name, checks, verdict) that fits."""
    program = [_op(_LOAD, _ARCH), _op(_JEQ, _ARCHITECTURE, true=1), _op(_RET, KILL), _op(_LOAD, _NR)]
    if MACHINE == "x86_64":
        program += [_op(_JGE, 0x4000_0000, false=1), _op(_RET, KILL)]  # the numbers of x32
    for name, checks, verdict in rules:
        program += _rule(NUMBERS[name], checks, verdict) if name in NUMBERS else []
    program.append(_op(_RET, default))
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    if call("seccomp", 1, 1, head):  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
        raise OSError(3, "a thread cannot take the filter")
    return f"{len(program)} instructions"


def allow_only(profile: str) -> str:
    """Refuse every system call but those of ``profile``."""
    names, checked = _FILTERS[profile]
    plain = names.split()
    return _install(
        [
            *((name, (), ALLOW) for name in plain),
            *((name, (), KILL) for name in _NEVER.split()),
            ("clone3", (), ENOSYS),
            ("tgkill", [Check(0, [os.getpid()])], ALLOW),
            *((name, checks, ALLOW) for name, checks in checked.items() if name not in plain),
        ],
        default=EPERM,
    )


def no_new_code() -> str:
    """Refuse to make memory executable."""
    calls = ("mmap", "mprotect", "pkey_mprotect")
    return _install([(name, [_NO_PROT_EXEC], ALLOW) for name in calls], default=ALLOW)
