"""Namespaces: an empty file system, no network, no other process, no other user.

With the right to make mount namespaces (root) all others are made with that right and the process becomes *nobody*
before it enters its user namespace, over which nothing inside has any power. Without it the user namespace comes first
and gives the rights for the rest.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from enarx.tcb.keep.lockdown._syscalls import PR_SET_DUMPABLE, call, prctl

NOBODY: Final = 65534
WORK: Final = "/work"

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000
NEWUSER, NEWPID, NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 1 << 14, 1 << 18, 2
_PLAIN: Final = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC


def user_namespace(proc_self: int) -> str:
    """Become nobody in a user namespace of one user. ``proc_self`` is ``/proc/self``, open."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        uid = gid = NOBODY
        prctl(PR_SET_DUMPABLE, 1)  # a change of user takes the right to write the maps
    leave(NEWUSER)
    files = {"setgroups": "deny", "uid_map": f"{NOBODY} {uid} 1", "gid_map": f"{NOBODY} {gid} 1"}
    for name, text in files.items():
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc_self)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    return f"uid {uid} outside, {NOBODY} inside"


def mount_namespace() -> None:
    """Leave the machine's mounts; no mount crosses in either direction any more."""
    leave(NEWNS)
    call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def empty_root(work: tuple[int, int] | None) -> str:
    """Make the root an empty, read-only file system; with ``work`` (bytes, files) it has a writable ``/work``."""
    _tmpfs("/proc", 4096, 4, 0o555)
    os.chdir("/proc")
    if work:
        os.mkdir(f".{WORK}")
        _tmpfs(f".{WORK}", *work, 0o777)  # its owner may be another user than the process
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)  # the old root, which lies on top of the new one
    os.chdir("/")
    call("mount", None, b"/", None, _MS_REMOUNT | _MS_RDONLY | _PLAIN, None)
    return f"{WORK} has {work[0]} bytes and {work[1]} files" if work else ""


def _tmpfs(place: str, size: int, files: int, mode: int) -> None:
    options = f"size={size},nr_inodes={files},mode={mode:o}".encode()
    call("mount", b"tmpfs", place.encode(), b"tmpfs", _PLAIN, options)


def uts_namespace() -> None:
    """Forget the machine's name."""
    leave(NEWUTS)
    socket.sethostname("keep")


def leave(namespaces: int) -> None:
    """Enter new namespaces of the kinds ``namespaces``."""
    call("unshare", namespaces)
