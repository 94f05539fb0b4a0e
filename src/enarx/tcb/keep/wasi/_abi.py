"""Numbers and structures of WASI preview 1, as in its witx definition (WASI, phases/snapshot, typenames.witx)."""

from __future__ import annotations

import errno as system
import struct
from enum import IntEnum, IntFlag
from typing import Final


class Errno(IntEnum):
    """``errno``: what a call answers."""

    SUCCESS = 0
    TOOBIG = 1
    ACCES = 2
    ADDRINUSE = 3
    ADDRNOTAVAIL = 4
    AFNOSUPPORT = 5
    AGAIN = 6
    ALREADY = 7
    BADF = 8
    BADMSG = 9
    BUSY = 10
    CANCELED = 11
    CHILD = 12
    CONNABORTED = 13
    CONNREFUSED = 14
    CONNRESET = 15
    DEADLK = 16
    DESTADDRREQ = 17
    DOM = 18
    DQUOT = 19
    EXIST = 20
    FAULT = 21
    FBIG = 22
    HOSTUNREACH = 23
    IDRM = 24
    ILSEQ = 25
    INPROGRESS = 26
    INTR = 27
    INVAL = 28
    IO = 29
    ISCONN = 30
    ISDIR = 31
    LOOP = 32
    MFILE = 33
    MLINK = 34
    MSGSIZE = 35
    MULTIHOP = 36
    NAMETOOLONG = 37
    NETDOWN = 38
    NETRESET = 39
    NETUNREACH = 40
    NFILE = 41
    NOBUFS = 42
    NODEV = 43
    NOENT = 44
    NOEXEC = 45
    NOLCK = 46
    NOLINK = 47
    NOMEM = 48
    NOMSG = 49
    NOPROTOOPT = 50
    NOSPC = 51
    NOSYS = 52
    NOTCONN = 53
    NOTDIR = 54
    NOTEMPTY = 55
    NOTRECOVERABLE = 56
    NOTSOCK = 57
    NOTSUP = 58
    NOTTY = 59
    NXIO = 60
    OVERFLOW = 61
    OWNERDEAD = 62
    PERM = 63
    PIPE = 64
    PROTO = 65
    PROTONOSUPPORT = 66
    PROTOTYPE = 67
    RANGE = 68
    ROFS = 69
    SPIPE = 70
    SRCH = 71
    STALE = 72
    TIMEDOUT = 73
    TXTBSY = 74
    XDEV = 75
    NOTCAPABLE = 76


class Rights(IntFlag):
    """``rights``: what may be done with a descriptor."""

    FD_DATASYNC = 1 << 0
    FD_READ = 1 << 1
    FD_SEEK = 1 << 2
    FD_FDSTAT_SET_FLAGS = 1 << 3
    FD_SYNC = 1 << 4
    FD_TELL = 1 << 5
    FD_WRITE = 1 << 6
    FD_ADVISE = 1 << 7
    FD_ALLOCATE = 1 << 8
    PATH_CREATE_DIRECTORY = 1 << 9
    PATH_CREATE_FILE = 1 << 10
    PATH_LINK_SOURCE = 1 << 11
    PATH_LINK_TARGET = 1 << 12
    PATH_OPEN = 1 << 13
    FD_READDIR = 1 << 14
    PATH_READLINK = 1 << 15
    PATH_RENAME_SOURCE = 1 << 16
    PATH_RENAME_TARGET = 1 << 17
    PATH_FILESTAT_GET = 1 << 18
    PATH_FILESTAT_SET_SIZE = 1 << 19
    PATH_FILESTAT_SET_TIMES = 1 << 20
    FD_FILESTAT_GET = 1 << 21
    FD_FILESTAT_SET_SIZE = 1 << 22
    FD_FILESTAT_SET_TIMES = 1 << 23
    PATH_SYMLINK = 1 << 24
    PATH_REMOVE_DIRECTORY = 1 << 25
    PATH_UNLINK_FILE = 1 << 26
    POLL_FD_READWRITE = 1 << 27
    SOCK_SHUTDOWN = 1 << 28
    SOCK_ACCEPT = 1 << 29


class FileType(IntEnum):
    """``filetype``: what a descriptor or a directory entry is."""

    UNKNOWN = 0
    BLOCK_DEVICE = 1
    CHARACTER_DEVICE = 2
    DIRECTORY = 3
    REGULAR_FILE = 4
    SOCKET_DGRAM = 5
    SOCKET_STREAM = 6
    SYMBOLIC_LINK = 7


class FdFlags(IntFlag):
    """``fdflags``: how a descriptor behaves."""

    APPEND = 1 << 0
    DSYNC = 1 << 1
    NONBLOCK = 1 << 2
    RSYNC = 1 << 3
    SYNC = 1 << 4


class OFlags(IntFlag):
    """``oflags``: how ``path_open`` opens."""

    CREAT = 1 << 0
    DIRECTORY = 1 << 1
    EXCL = 1 << 2
    TRUNC = 1 << 3


class FstFlags(IntFlag):
    """``fstflags``: which times to set, and to what."""

    ATIM = 1 << 0
    ATIM_NOW = 1 << 1
    MTIM = 1 << 2
    MTIM_NOW = 1 << 3


class Whence(IntEnum):
    """``whence``: what an offset counts from."""

    SET = 0
    CUR = 1
    END = 2


class ClockId(IntEnum):
    """``clockid``: which clock."""

    REALTIME = 0
    MONOTONIC = 1
    PROCESS_CPUTIME = 2
    THREAD_CPUTIME = 3


class EventType(IntEnum):
    """``eventtype``: what a subscription waits for."""

    CLOCK = 0
    FD_READ = 1
    FD_WRITE = 2


LOOKUP_SYMLINK_FOLLOW: Final = 1
SUBSCRIPTION_CLOCK_ABSTIME: Final = 1
EVENT_FD_READWRITE_HANGUP: Final = 1
RI_RECV_PEEK: Final = 1
RI_RECV_WAITALL: Final = 2
RO_RECV_DATA_TRUNCATED: Final = 1
SD_RD: Final = 1
SD_WR: Final = 2
PREOPEN_DIRECTORY: Final = 0
PREOPEN_UNKNOWN: Final = 1
DIRCOOKIE_START: Final = 0

FDSTAT: Final = struct.Struct("<BxHxxxxQQ")
"""``fdstat``, 24 bytes: file type, flags, base rights, inheriting rights."""
FILESTAT: Final = struct.Struct("<QQBxxxxxxxQQQQQ")
"""``filestat``, 64 bytes: device, inode, file type, links, size, access, modification and change time in ns."""
DIRENT: Final = struct.Struct("<QQIBxxx")
"""``dirent``, 24 bytes: cookie of the next entry, inode, length of the name, file type."""
PRESTAT: Final = struct.Struct("<BxxxI")
"""``prestat``, 8 bytes: kind, length of the name."""
SUBSCRIPTION_SIZE: Final = 48
SUBSCRIPTION_HEAD: Final = struct.Struct("<QBxxxxxxx")
"""``subscription``, its first 16 of 48 bytes: user data, event type."""
SUBSCRIPTION_CLOCK: Final = struct.Struct("<IxxxxQQHxxxxxx")
"""``subscription_clock``, bytes 16 to 48: clock, time-out in ns, precision in ns, flags."""
SUBSCRIPTION_FD: Final = struct.Struct("<I28x")
"""``subscription_fd_readwrite``, bytes 16 to 48: descriptor."""
EVENT: Final = struct.Struct("<QHBxxxxxQHxxxxxx")
"""``event``, 32 bytes: user data, errno, event type, bytes available, flags."""


class WasiError(Exception):
    """A call fails with ``errno``; the guest sees the number and goes on."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


_BY_SYSTEM: Final = {getattr(system, f"E{it.name}"): it for it in Errno if hasattr(system, f"E{it.name}")}


def errno_of(error: OSError) -> Errno:
    """Give WASI's number for an error of the operating system."""
    return _BY_SYSTEM.get(error.errno or 0, Errno.IO)
