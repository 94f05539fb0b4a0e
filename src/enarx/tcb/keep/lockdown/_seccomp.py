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
from dataclasses import dataclass
from typing import Final

from enarx.tcb.keep.lockdown._syscalls import MACHINE, NUMBERS, PR_GET_NAME, PR_SET_MDWE, PR_SET_NAME, call

ALLOW: Final = 0x7FFF_0000
KILL: Final = 0x8000_0000
EPERM: Final = 0x0005_0001
ENOSYS: Final = 0x0005_0026

# Streams that were handed in, waiting, memory, signals, threads, clocks: what Python and the engine live on.
_ALWAYS: Final = """
read write readv writev pread64 preadv lseek close dup fstat poll ppoll select pselect6 epoll_create1 epoll_ctl
epoll_wait epoll_pwait epoll_pwait2 eventfd2 accept4 recvfrom recvmsg sendto sendmsg shutdown getsockname getpeername
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
_NEVER: Final = """
execve execveat fork vfork ptrace process_vm_readv process_vm_writev bpf init_module finit_module kexec_load unshare
setns mount umount2 pivot_root
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The argument ``arg``, masked, must be among ``values``; its upper half counts only if ``high`` is set."""

    arg: int
    values: Sequence[int]
    mask: int = 0xFFFF_FFFF
    high: bool = False
    otherwise: int = EPERM


_PROT_EXEC: Final = Check(2, [0], mask=4)
_THREAD: Final = 0x1_0000
_NAMESPACES: Final = 0x7E02_0000
_CHECKS: Final[Mapping[str, Sequence[Check]]] = {
    # a thread, not a process; glibc asks for it with clone when there is no clone3, whose arguments no filter can see
    "clone": [Check(0, [_THREAD], mask=_THREAD | _NAMESPACES, otherwise=KILL)],
    "mmap": [_PROT_EXEC],  # the compiler maps its code as data and then makes it executable with mprotect
    "fcntl": [Check(1, [0, 1, 2, 3, 4, 1030])],  # duplicate, descriptor flags, status flags
    "ioctl": [Check(1, [0x5401, 0x541B, 0x5421, 0x5451])],  # TCGETS FIONREAD FIONBIO FIOCLEX
    "getsockopt": [Check(1, [1, 6])],  # SOL_SOCKET, IPPROTO_TCP
    # neither filters (26, 50) nor protocols on top of TCP (31), only what tunes a connection
    "setsockopt": [Check(1, [1, 6]), Check(2, [*range(1, 10), 12, 13, 20, 21])],
    "newfstatat": [Check(3, [0x1000])],  # AT_EMPTY_PATH: how glibc does fstat
    "prlimit64": [Check(2, [0]), Check(2, [0], high=True)],  # read only
    "prctl": [Check(0, [PR_SET_NAME, PR_GET_NAME, PR_SET_MDWE])],
    "seccomp": [Check(0, [1]), Check(1, [1])],  # one more filter, for all threads
}
_FLAGS_TSYNC: Final = 1
_ARCHITECTURE: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32: Final = 0x4000_0000
_LOAD, _AND, _JEQ, _JGE, _RET = (
    0x20,
    0x54,
    0x15,
    0x35,
    0x06,
)  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, JMP|JGE|K, RET|K
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16  # struct seccomp_data; both architectures are little-endian


def _op(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _check(check: Check) -> list[bytes]:
    """Go on after these instructions if the check holds, else return."""
    count = len(check.values)
    jumps = [_op(_JEQ, value, true=count - index) for index, value in enumerate(check.values)]
    load = _op(_LOAD, _ARGS_OFFSET + 8 * check.arg + 4 * check.high)
    return [load, _op(_AND, check.mask), *jumps, _op(_RET, check.otherwise)]


def _rule(name: str, checks: Iterable[Check], verdict: int) -> list[bytes]:
    if name not in NUMBERS:
        return []
    body = [op for check in checks for op in _check(check)] + [_op(_RET, verdict)]
    return [_op(_JEQ, NUMBERS[name], false=len(body)), *body]


def assemble(rules: Iterable[tuple[str, Iterable[Check], int]], default: int) -> bytes:
    """Compile ``rules`` (name, checks, verdict if they all hold) to a program."""
    program = [
        _op(_LOAD, _ARCH_OFFSET),
        _op(_JEQ, _ARCHITECTURE[MACHINE], true=1),
        _op(_RET, KILL),
        _op(_LOAD, _NR_OFFSET),
    ]
    if MACHINE == "x86_64":
        program += [_op(_JGE, _X32, false=1), _op(_RET, KILL)]
    for name, checks, verdict in rules:
        program += _rule(name, checks, verdict)
    return b"".join([*program, _op(_RET, default)])


def allow_list(*, files: bool) -> bytes:
    """Give the filter of a keep, with the calls for files or without."""
    plain = (_ALWAYS + _FILES if files else _ALWAYS).split()
    checks = {name: checks for name, checks in _CHECKS.items() if name not in plain}
    if files:
        checks["fcntl"] = [Check(1, [*range(5), 1030, 1031, 1032])]  # and the size of pipes
    this = Check(0, [os.getpid()], otherwise=EPERM)
    return assemble(
        [
            *((name, (), ALLOW) for name in plain),
            *((name, (), KILL) for name in _NEVER.split()),
            ("clone3", (), ENOSYS),
            ("tgkill", [this], ALLOW),
            *((name, wanted, ALLOW) for name, wanted in checks.items()),
        ],
        default=EPERM,
    )


def no_new_code() -> bytes:
    """Give the filter that refuses to make memory executable."""
    return assemble(
        [(name, [_PROT_EXEC], ALLOW) for name in ("mmap", "mprotect", "pkey_mprotect")], default=ALLOW
    )


def install(program: bytes) -> str:
    """Bind every thread of this process to ``program``, for ever."""
    buffer = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    head = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(buffer)))
    if call("seccomp", 1, _FLAGS_TSYNC, head):
        raise OSError(3, "a thread cannot take the filter")
    return f"{count} instructions"
