/* Prints the names of the preopened directories between bars. */
#include "check.h"
int main(void)
{
    unsigned char prestat[8];
    char name[256], small[1];
    w32 length;
    for (w32 fd = 0; fd < 64; fd++) {
        if (raw_fd_prestat_get(fd, AT(prestat)) != 0 || prestat[0] != 0)
            continue; /* not open, or a kind that is no directory */
        memcpy(&length, prestat + 4, 4);
        CHECK(length < sizeof name);
        OK(raw_fd_prestat_dir_name(fd, AT(name), length));
        name[length] = 0;
        if (length > 1)
            EXPECT(raw_fd_prestat_dir_name(fd, AT(small), 1), NAMETOOLONG, INVAL, OVERFLOW_);
        struct fdstat stat;
        OK(raw_fd_fdstat_get(fd, AT(&stat)));
        CHECK(stat.type == __WASI_FILETYPE_DIRECTORY);
        printf("|%s", name);
    }
    printf("|\n");
    EXPECT(raw_fd_prestat_get(1000, AT(prestat)), BADF);
    EXPECT(raw_fd_prestat_dir_name(1, AT(name), 10), BADF, NOTDIR, INVAL);
    return 0;
}
