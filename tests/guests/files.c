/* What can be done with one file. */
#include "check.h"
static w32 root;

static w64 size_of(const char *path)
{
    return stat_at(root, path, 1).size;
}

static void positions(void)
{
    w32 fd = create_at(root, "file"), n, iov[2];
    w64 at = 99;
    char text[32];

    CHECK(put(fd, "hello world", 11) == 11);
    OK(raw_fd_tell(fd, AT(&at)));
    CHECK(at == 11);
    OK(raw_fd_seek(fd, (w64)-5, __WASI_WHENCE_CUR, AT(&at)));
    CHECK(at == 6);
    CHECK(get(fd, text, sizeof text) == 5 && memcmp(text, "world", 5) == 0);
    CHECK(get(fd, text, sizeof text) == 0);
    OK(raw_fd_seek(fd, (w64)-11, __WASI_WHENCE_END, AT(&at)));
    CHECK(at == 0);
    EXPECT(raw_fd_seek(fd, (w64)-1, __WASI_WHENCE_SET, AT(&at)), INVAL);
    EXPECT(raw_fd_seek(fd, (w64)-1, __WASI_WHENCE_CUR, AT(&at)), INVAL);
    EXPECT(raw_fd_seek(fd, 0, 3, AT(&at)), INVAL);
    EXPECT(raw_fd_seek(fd, 0, 255, AT(&at)), INVAL);
    OK(raw_fd_tell(fd, AT(&at)));
    CHECK(at == 0);

    iov[0] = AT("HELL"), iov[1] = 4;
    OK(raw_fd_pwrite(fd, AT(iov), 1, 7, AT(&n)));
    iov[0] = AT(text), iov[1] = 32;
    OK(raw_fd_pread(fd, AT(iov), 1, 5, AT(&n)));
    CHECK(n == 6 && memcmp(text, " wHELL", 6) == 0);
    OK(raw_fd_pread(fd, AT(iov), 1, 1000, AT(&n)));
    CHECK(n == 0);
    OK(raw_fd_tell(fd, AT(&at)));
    CHECK(at == 0); /* pread and pwrite leave the position */

    OK(raw_fd_seek(fd, 20, __WASI_WHENCE_SET, AT(&at)));
    CHECK(put(fd, "!", 1) == 1 && size_of("file") == 21);
    iov[0] = AT(text), iov[1] = 10;
    OK(raw_fd_pread(fd, AT(iov), 1, 11, AT(&n)));
    CHECK(n == 10 && memcmp(text, "\0\0\0\0\0\0\0\0\0!", 10) == 0); /* the hole reads as zeros */
    OK(raw_fd_close(fd));
    EXPECT(raw_fd_tell(fd, AT(&at)), BADF);
}

static void sizes(void)
{
    w32 fd = create_at(root, "sized"), n, iov[2];
    char text[8];
    CHECK(put(fd, "abcdef", 6) == 6);
    OK(raw_fd_filestat_set_size(fd, 3));
    CHECK(size_of("sized") == 3);
    OK(raw_fd_filestat_set_size(fd, 6));
    iov[0] = AT(text), iov[1] = 8;
    OK(raw_fd_pread(fd, AT(iov), 1, 0, AT(&n)));
    CHECK(n == 6 && memcmp(text, "abc\0\0\0", 6) == 0);
    EXPECT(raw_fd_filestat_set_size(fd, ~0ull), INVAL, FBIG, NOSPC, DQUOT);
    EXPECT(raw_fd_filestat_set_size(fd, 1ull << 62), INVAL, FBIG, NOSPC, DQUOT);
    CHECK(size_of("sized") == 6);
    w32 errno_ = raw_fd_allocate(fd, 10, 10); /* the standard lets an implementation refuse it */
    EXPECT(errno_, 0, NOTSUP);
    CHECK(size_of("sized") == (errno_ ? 6 : 20));
    EXPECT(raw_fd_allocate(fd, 0, 0), INVAL, NOTSUP);
    EXPECT(raw_fd_allocate(fd, ~0ull, 10), INVAL, FBIG, NOTSUP);
    OK(raw_fd_advise(fd, 0, 10, __WASI_ADVICE_SEQUENTIAL));
    EXPECT(raw_fd_advise(fd, 0, 10, 6), INVAL);
    OK(raw_fd_sync(fd));
    OK(raw_fd_datasync(fd));
    OK(raw_fd_close(fd));
}

static void appending(void)
{
    w32 fd = create_at(root, "log"), other;
    w64 at;
    struct fdstat stat;
    char text[16];
    CHECK(put(fd, "one", 3) == 3);
    OK(open_at(root, "log", 0, FILE_RIGHTS, __WASI_FDFLAGS_APPEND, &other));
    OK(raw_fd_fdstat_get(other, AT(&stat)));
    CHECK(stat.flags == __WASI_FDFLAGS_APPEND && stat.type == __WASI_FILETYPE_REGULAR_FILE);
    OK(raw_fd_seek(other, 0, __WASI_WHENCE_SET, AT(&at)));
    CHECK(put(other, "two", 3) == 3);
    OK(raw_fd_fdstat_set_flags(other, 0));
    OK(raw_fd_seek(other, 0, __WASI_WHENCE_SET, AT(&at)));
    CHECK(put(other, "ONE", 3) == 3);
    OK(raw_fd_seek(other, 0, __WASI_WHENCE_SET, AT(&at)));
    CHECK(get(other, text, 16) == 6 && memcmp(text, "ONEtwo", 6) == 0);
    OK(raw_fd_close(other));
    OK(raw_fd_close(fd));
}

static void opening(void)
{
    w32 fd = 7;
    EXPECT(open_at(root, "absent", 0, FILE_RIGHTS, 0, &fd), NOENT);
    OK(raw_fd_close(create_at(root, "present")));
    EXPECT(open_at(root, "present", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, FILE_RIGHTS, 0, &fd), EXIST);
    EXPECT(open_at(root, "present", __WASI_OFLAGS_DIRECTORY, FILE_RIGHTS, 0, &fd), NOTDIR);
    EXPECT(open_at(root, "present/below", 0, FILE_RIGHTS, 0, &fd), NOTDIR);
    EXPECT(open_at(root, "present/", 0, FILE_RIGHTS, 0, &fd), NOTDIR, NOENT, ISDIR);
    EXPECT(open_at(root, "new", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_DIRECTORY, FILE_RIGHTS, 0, &fd), INVAL, NOTDIR, NOENT);
    EXPECT(open_at(root, "", 0, FILE_RIGHTS, 0, &fd), NOENT, INVAL);
    EXPECT(open_at(root, "present", 0x100, FILE_RIGHTS, 0, &fd), INVAL);
    EXPECT(open_at(root, "present", 0, FILE_RIGHTS, 0x100, &fd), INVAL);
}

static void links_and_names(void)
{
    w32 fd = create_at(root, "a"), other;
    char text[4];
    struct filestat a, b;
    CHECK(put(fd, "data", 4) == 4);
    OK(raw_path_link(root, 0, STR("a"), root, STR("b")));
    a = stat_at(root, "a", 0), b = stat_at(root, "b", 0);
    CHECK(a.ino == b.ino && a.nlink == 2 && b.size == 4);
    EXPECT(raw_path_link(root, 0, STR("a"), root, STR("b")), EXIST);
    EXPECT(raw_path_link(root, 0, STR("absent"), root, STR("c")), NOENT);
    EXPECT(raw_path_link(root, 0, STR("."), root, STR("c")), PERM, ACCES, ISDIR, INVAL, NOENT, EXIST);
    OK(raw_path_unlink_file(root, STR("a")));
    EXPECT(raw_path_unlink_file(root, STR("a")), NOENT);
    CHECK(stat_at(root, "b", 0).nlink == 1);
    OK(raw_path_rename(root, STR("b"), root, STR("c")));
    EXPECT(raw_path_rename(root, STR("b"), root, STR("c")), NOENT);
    OK(raw_path_rename(root, STR("c"), root, STR("c"))); /* onto itself */
    other = create_at(root, "victim");
    OK(raw_path_rename(root, STR("c"), root, STR("victim")));
    CHECK(stat_at(root, "victim", 0).size == 4);
    CHECK(put(other, "xy", 2) == 2); /* an overwritten file lives on while it is open */
    OK(raw_path_unlink_file(root, STR("victim")));
    w64 at;
    OK(raw_fd_seek(fd, 0, __WASI_WHENCE_SET, AT(&at)));
    CHECK(get(fd, text, 4) == 4 && memcmp(text, "data", 4) == 0); /* and so does a removed one */
    OK(raw_fd_filestat_get(fd, AT(&a)));
    CHECK(a.nlink == 0 && a.size == 4);
    OK(raw_fd_close(fd));
    OK(raw_fd_close(other));
}

int main(void)
{
    root = preopen();
    positions();
    sizes();
    appending();
    opening();
    links_and_names();
    return 0;
}
