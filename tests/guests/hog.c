/* Takes what it can get, as its argument says, until it is refused; then it tells how far it came and goes on living. */
#include "check.h"
int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    w32 root = preopen(), count = 0, errno_ = 0, fd, n, iov[2];
    w64 at;
    char name[32];
    static char block[1 << 20];
    if (strcmp(what, "memory") == 0) {
        while (count < 65536 && __builtin_wasm_memory_grow(0, 16) != (size_t)-1)
            count += 16;
        errno_ = NOMEM;
    } else if (strcmp(what, "files") == 0) {
        for (; count < 100000 && errno_ == 0; count += errno_ == 0) {
            snprintf(name, sizeof name, "file-%u", count);
            if ((errno_ = open_at(root, name, __WASI_OFLAGS_CREAT, FILE_RIGHTS, 0, &fd)) == 0)
                OK(raw_fd_close(fd));
        }
        OK(raw_path_unlink_file(root, STR("file-0"))); /* there is room for one again */
        OK(open_at(root, "again", __WASI_OFLAGS_CREAT, FILE_RIGHTS, 0, &fd));
    } else if (strcmp(what, "storage") == 0) {
        fd = create_at(root, "large");
        for (; count < 100000 && errno_ == 0; count += errno_ == 0) {
            iov[0] = AT(block), iov[1] = sizeof block;
            errno_ = raw_fd_write(fd, AT(iov), 1, AT(&n));
            if (errno_ == 0 && n < sizeof block)
                break;
        }
        EXPECT(raw_fd_filestat_set_size(fd, 1ull << 40), NOSPC, FBIG, DQUOT);
        OK(raw_fd_filestat_set_size(fd, 0)); /* there is room again */
        OK(raw_fd_seek(fd, 0, 0, AT(&at)));
        put(fd, block, 1000);
        errno_ = errno_ ? errno_ : NOSPC;
    } else if (strcmp(what, "descriptors") == 0) {
        OK(raw_fd_close(create_at(root, "f")));
        for (; count < 100000 && errno_ == 0; count += errno_ == 0)
            errno_ = open_at(root, "f", 0, FILE_RIGHTS, 0, &fd);
    } else {
        return 2;
    }
    printf("%s: refused after %u with %u\n", what, count, errno_);
    return 0;
}
