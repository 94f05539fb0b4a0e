/* Rights can be given up, not gained, and what a descriptor may not do it does not do. */
#include "check.h"
int main(void)
{
    w32 root = preopen(), fd, n = 0, iov[2] = {AT(&n), 4};
    w64 at;
    struct fdstat stat;
    w32 out = create_at(root, "f");
    CHECK(put(out, "data", 4) == 4);

    OK(open_at(root, "f", 0, __WASI_RIGHTS_FD_READ, 0, &fd)); /* not for writing */
    EXPECT(raw_fd_write(fd, AT(iov), 1, AT(&n)), NOTCAPABLE, BADF);
    OK(raw_fd_read(fd, AT(iov), 1, AT(&n)));
    CHECK(n == 4);
    EXPECT(raw_fd_filestat_set_size(fd, 0), NOTCAPABLE, BADF, INVAL);
    OK(raw_fd_close(fd));
    OK(open_at(root, "f", 0, __WASI_RIGHTS_FD_WRITE, 0, &fd)); /* not for reading */
    EXPECT(raw_fd_read(fd, AT(iov), 1, AT(&n)), NOTCAPABLE, BADF);
    OK(raw_fd_close(fd));
    CHECK(stat_at(root, "f", 0).size == 4);

    OK(raw_fd_fdstat_get(out, AT(&stat)));
    CHECK(stat.type == __WASI_FILETYPE_REGULAR_FILE && (stat.base & __WASI_RIGHTS_FD_WRITE));
    w64 fewer = stat.base & ~(w64)__WASI_RIGHTS_FD_WRITE;
    EXPECT(raw_fd_fdstat_set_rights(out, stat.base, ~0ull), NOTCAPABLE, INVAL, NOTSUP);
    w32 errno_ = raw_fd_fdstat_set_rights(out, fewer, 0);
    EXPECT(errno_, 0, NOTSUP); /* newer definitions drop the call */
    if (errno_ == 0) {
        OK(raw_fd_fdstat_get(out, AT(&stat)));
        CHECK(stat.base == fewer);
        EXPECT(raw_fd_write(out, AT(iov), 1, AT(&n)), NOTCAPABLE, BADF);
        EXPECT(raw_fd_fdstat_set_rights(out, fewer | __WASI_RIGHTS_FD_WRITE, 0), NOTCAPABLE);
        OK(raw_fd_tell(out, AT(&at)));
        OK(raw_fd_fdstat_set_rights(out, 0, 0));
        EXPECT(raw_fd_read(out, AT(iov), 1, AT(&n)), NOTCAPABLE, BADF);
        EXPECT(raw_fd_filestat_set_size(out, 0), NOTCAPABLE, BADF);
    }
    OK(raw_fd_close(out));
    EXPECT(raw_fd_fdstat_set_flags(root, 0x20), INVAL, NOTSUP, BADF);
    EXPECT(raw_fd_fdstat_set_flags(999, 0), BADF);
    return 0;
}
