"""System calls by number, and the few structures that go with them."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from typing import Final

MACHINE: Final = platform.machine()

# name, x86_64, aarch64 (Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h)
_TABLE: Final = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, lseek 8 62, close 3 57, dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25,
ioctl 16 29, pipe2 293 59, fstat 5 80, newfstatat 262 79, statx 332 291, stat 4 -, lstat 6 -, access 21 -,
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -,
epoll_pwait 281 22, epoll_pwait2 441 441, eventfd2 290 19, timerfd_create 283 85, timerfd_settime 286 86,
socketpair 53 199, accept4 288 242, recvfrom 45 207, recvmsg 47 212, sendto 44 206,
sendmsg 46 211, shutdown 48 210, getsockopt 55 209, setsockopt 54 208, getsockname 51 204, getpeername 52 205,
mmap 9 222, mprotect 10 226, pkey_mprotect 329 288, munmap 11 215, mremap 25 216, madvise 28 233, brk 12 214,
membarrier 324 283, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132,
restart_syscall 219 128, tgkill 234 131, clone 56 220, clone3 435 435, futex 202 98, set_robust_list 273 99,
rseq 334 293, sched_yield 24 124, sched_getaffinity 204 123, getpid 39 172, gettid 186 178, exit 60 93,
exit_group 231 94, prctl 157 167, prlimit64 302 261, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, getrandom 318 278, uname 63 160,
open 2 -, openat 257 56, openat2 437 437, getdents64 217 61, getcwd 79 17, mkdir 83 -, mkdirat 258 34, rmdir 84 -,
unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37,
symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78, ftruncate 77 46, fallocate 285 47,
utimensat 280 88, fsync 74 82, fdatasync 75 83, faccessat 269 48, faccessat2 439 439, fadvise64 221 223,
execve 59 221, execveat 322 281, fork 57 -, vfork 58 -, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, bpf 321 280, init_module 175 105, finit_module 313 273, kexec_load 246 104,
unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, capset 126 91, seccomp 317 277,
landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446, close_range 436 436,
reboot 169 142, socket 41 198, bind 49 200, connect 42 203, listen 50 201, wait4 61 260
"""
_COLUMN: Final = {"x86_64": 1, "aarch64": 2}.get(MACHINE, 0)
_ROWS: Final = [row.split() for row in _TABLE.split(",") if _COLUMN]
NUMBERS: Final[Mapping[str, int]] = {row[0]: int(row[_COLUMN]) for row in _ROWS if row[_COLUMN] != "-"}
"""What this machine's kernel calls them; a name that it does not have is absent."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 16, 24
PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 28, 36, 38, 65

# loaded here, because a process that is locked down loads nothing
_syscall: Final = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make the system call ``name``. Raises ``OSError``, also when this machine's numbers are not known."""
    number = NUMBERS.get(name)
    if number is None:
        raise OSError(38, f"no number for {name} on {MACHINE}")
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _syscall(ctypes.c_long(number), *values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code).lower())
    return result


def prctl(option: int, *arguments: int) -> int:
    """Make ``prctl(2)`` with the arguments that are not given zero, as the newer options demand."""
    return call("prctl", option, *arguments, *[0] * (4 - len(arguments)))
