/* One fd_write of 64 MiB, or of as many as the argument says, and vectors of 0, 1, 1024 and 1025 buffers. */
#include "check.h"
int main(int argc, char **argv)
{
    const w32 LARGE = (argc > 1 ? (w32)atoi(argv[1]) : 64) << 20;
    static w32 iov[2 * 1025];
    w32 root = preopen(), fd = create_at(root, "vectors"), written, got;
    char *large = malloc(LARGE), byte[1025], back[1025];

    CHECK(large != NULL);
    memset(large, 'x', LARGE);
    for (w32 done = 0, more; done < LARGE; done += more) {
        more = put(1, large + done, LARGE - done);
        CHECK(more > 0);
    }
    written = 77;
    OK(raw_fd_write(fd, AT(iov), 0, AT(&written)));
    CHECK(written == 0);
    for (w32 i = 0; i < 1025; i++) {
        byte[i] = (char)(i * 7);
        iov[2 * i] = AT(byte + i);
        iov[2 * i + 1] = 1;
    }
    for (w32 count = 1; count <= 1024; count += 1023) {
        OK(raw_fd_pwrite(fd, AT(iov), count, 0, AT(&written)));
        CHECK(written == count);
    }
    for (w32 i = 0; i < 1024; i++)
        iov[2 * i] = AT(back + i);
    OK(raw_fd_pread(fd, AT(iov), 1024, 0, AT(&got)));
    CHECK(got == 1024 && memcmp(byte, back, 1024) == 0);

    written = 0; /* more buffers than IOV_MAX: all or a part of them, or a refusal, but nothing in between */
    w32 errno_ = raw_fd_write(fd, AT(iov), 1025, AT(&written));
    EXPECT(errno_, 0, INVAL, E2BIG_);
    CHECK(errno_ ? written == 0 : written >= 1 && written <= 1025);
    for (w32 i = 0; i < 1024; i++)
        iov[2 * i + 1] = 0; /* empty buffers are no end of file and no error */
    OK(raw_fd_write(fd, AT(iov), 1024, AT(&written)));
    CHECK(written == 0);
    return 0;
}
