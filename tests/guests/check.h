/* What the guest programs share: checks that tell where they fail, and WASI preview 1 as bare integers.
 *
 * A program ends with 0 when all its checks hold; otherwise it names the first that does not and ends with 1. */

#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* A call must answer one of the error numbers that follow it. */
#define EXPECT(call, ...) \
    check_errno((unsigned)(call), (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int), #call, \
                __FILE__, __LINE__)
#define OK(call) EXPECT(call, 0)

static inline void check_errno(unsigned got, const int *allowed, size_t count, const char *call, const char *file, int line)
{
    for (size_t i = 0; i < count; i++)
        if ((int)got == allowed[i])
            return;
    fprintf(stderr, "%s:%d: %s answers %u, expected", file, line, call, got);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%s %d", i ? " or" : "", allowed[i]);
    fprintf(stderr, "\n");
    exit(1);
}

enum { E2BIG_ = 1, ACCES = 2, AGAIN = 6, BADF = 8, EXIST = 20, FAULT = 21, FBIG = 22, ILSEQ = 25, INVAL = 28,
       ISDIR = 31, LOOP = 32, MLINK = 34, NAMETOOLONG = 37, NFILE = 41, NOENT = 44, NOMEM = 48, NOSPC = 51,
       NOSYS = 52, NOTCONN = 53, NOTDIR = 54, NOTEMPTY = 55, NOTSOCK = 57, NOTSUP = 58, OVERFLOW_ = 61, PERM = 63,
       PIPE = 64, SPIPE = 70, DQUOT = 19, NOTCAPABLE = 76, BUSY = 10, XDEV = 75, NXIO = 60 };

typedef uint32_t w32;
typedef uint64_t w64;

#define RAW(name, ...) \
    w32 raw_##name(__VA_ARGS__) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)));
RAW(args_get, w32, w32)
RAW(args_sizes_get, w32, w32)
RAW(environ_get, w32, w32)
RAW(environ_sizes_get, w32, w32)
RAW(clock_res_get, w32, w32)
RAW(clock_time_get, w32, w64, w32)
RAW(fd_advise, w32, w64, w64, w32)
RAW(fd_allocate, w32, w64, w64)
RAW(fd_close, w32)
RAW(fd_datasync, w32)
RAW(fd_fdstat_get, w32, w32)
RAW(fd_fdstat_set_flags, w32, w32)
RAW(fd_fdstat_set_rights, w32, w64, w64)
RAW(fd_filestat_get, w32, w32)
RAW(fd_filestat_set_size, w32, w64)
RAW(fd_filestat_set_times, w32, w64, w64, w32)
RAW(fd_pread, w32, w32, w32, w64, w32)
RAW(fd_prestat_get, w32, w32)
RAW(fd_prestat_dir_name, w32, w32, w32)
RAW(fd_pwrite, w32, w32, w32, w64, w32)
RAW(fd_read, w32, w32, w32, w32)
RAW(fd_readdir, w32, w32, w32, w64, w32)
RAW(fd_renumber, w32, w32)
RAW(fd_seek, w32, w64, w32, w32)
RAW(fd_sync, w32)
RAW(fd_tell, w32, w32)
RAW(fd_write, w32, w32, w32, w32)
RAW(path_create_directory, w32, w32, w32)
RAW(path_filestat_get, w32, w32, w32, w32, w32)
RAW(path_filestat_set_times, w32, w32, w32, w32, w64, w64, w32)
RAW(path_link, w32, w32, w32, w32, w32, w32, w32)
RAW(path_open, w32, w32, w32, w32, w32, w64, w64, w32, w32)
RAW(path_readlink, w32, w32, w32, w32, w32, w32)
RAW(path_remove_directory, w32, w32, w32)
RAW(path_rename, w32, w32, w32, w32, w32, w32)
RAW(path_symlink, w32, w32, w32, w32, w32)
RAW(path_unlink_file, w32, w32, w32)
RAW(poll_oneoff, w32, w32, w32, w32)
RAW(proc_raise, w32)
RAW(random_get, w32, w32)
RAW(sched_yield, void)
RAW(sock_accept, w32, w32, w32)
RAW(sock_recv, w32, w32, w32, w32, w32, w32)
RAW(sock_send, w32, w32, w32, w32, w32)
RAW(sock_shutdown, w32, w32)
#undef RAW

#define AT(pointer) ((w32)(uintptr_t)(pointer))
#define STR(text) AT(text), (w32)strlen(text)

static const w64 ALL_RIGHTS = (1ull << 30) - 1;
static const w64 FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 |
                               1 << 21 | 1 << 22 | 1 << 23 | 1 << 27;

/* What a directory can do. To ask for more, above all for writing, may be refused with ISDIR. */
static const w64 DIR_RIGHTS = 0x1FFF << 9 | 1 << 3 | 1 << 23 | 7 << 24;

/* The first preopened directory. */
static inline w32 preopen(void)
{
    unsigned char prestat[8];
    for (w32 fd = 0; fd < 16; fd++)
        if (raw_fd_prestat_get(fd, AT(prestat)) == 0 && prestat[0] == 0)
            return fd;
    fprintf(stderr, "%s: no preopened directory\n", __FILE__);
    exit(1);
}

/* The descriptor of the entry of Enarx.toml that has this name. */
static inline w32 descriptor(const char *name)
{
    const char *names = getenv("FD_NAMES");
    size_t length = strlen(name);
    for (w32 fd = 0; names; fd++) {
        if (strncmp(names, name, length) == 0 && (names[length] == ':' || names[length] == 0))
            return fd;
        if ((names = strchr(names, ':')))
            names++;
    }
    fprintf(stderr, "no descriptor %s\n", name);
    exit(1);
}

static inline w32 open_at(w32 directory, const char *path, w32 oflags, w64 rights, w32 fdflags, w32 *fd)
{
    return raw_path_open(directory, 0, STR(path), oflags, rights, rights, fdflags, AT(fd));
}

/* Creates or truncates a file. */
static inline w32 create_at(w32 directory, const char *path)
{
    w32 fd = 0xAAAAAAAA;
    OK(open_at(directory, path, __WASI_OFLAGS_CREAT | __WASI_OFLAGS_TRUNC, FILE_RIGHTS, 0, &fd));
    return fd;
}

static inline w32 put(w32 fd, const void *data, w32 length)
{
    w32 iov[2] = {AT(data), length}, written = 0;
    OK(raw_fd_write(fd, AT(iov), 1, AT(&written)));
    return written;
}

static inline w32 get(w32 fd, void *data, w32 length)
{
    w32 iov[2] = {AT(data), length}, got = 0;
    OK(raw_fd_read(fd, AT(iov), 1, AT(&got)));
    return got;
}

struct filestat {
    w64 dev, ino;
    uint8_t type, pad[7];
    w64 nlink, size, atim, mtim, ctim;
};
_Static_assert(sizeof(struct filestat) == 64, "filestat");

struct fdstat {
    uint8_t type, pad;
    uint16_t flags;
    w32 pad2;
    w64 base, inheriting;
};
_Static_assert(sizeof(struct fdstat) == 24, "fdstat");

static inline struct filestat stat_at(w32 directory, const char *path, w32 lookup)
{
    struct filestat about;
    memset(&about, 0xAA, sizeof about);
    OK(raw_path_filestat_get(directory, lookup, STR(path), AT(&about)));
    return about;
}

#endif
