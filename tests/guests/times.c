/* Clocks, and the times of files. */
#include "check.h"
static w64 clock_ns(w32 id)
{
    w64 now = 0;
    OK(raw_clock_time_get(id, 1, AT(&now)));
    return now;
}
int main(void)
{
    w32 root = preopen(), fd = create_at(root, "f");
    struct filestat about;
    w64 resolution, before, after;
    for (w32 id = 0; id < 2; id++) {
        resolution = 0;
        OK(raw_clock_res_get(id, AT(&resolution)));
        CHECK(resolution >= 1 && resolution <= 1000000000);
    }
    EXPECT(raw_clock_res_get(4, AT(&resolution)), INVAL);
    EXPECT(raw_clock_time_get(4, 1, AT(&before)), INVAL);
    EXPECT(raw_clock_time_get(~0u, 1, AT(&before)), INVAL);
    before = clock_ns(1), after = clock_ns(1);
    CHECK(after >= before);
    CHECK(clock_ns(0) > 1600000000ull * 1000000000);

    before = clock_ns(0);
    CHECK(put(fd, "x", 1) == 1);
    OK(raw_fd_filestat_get(fd, AT(&about)));
    after = clock_ns(0);
    CHECK(about.mtim + 20000000 >= before && about.mtim <= after + 20000000);

    OK(raw_fd_filestat_set_times(fd, 5000000007, 6000000008, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM));
    OK(raw_fd_filestat_get(fd, AT(&about)));
    CHECK(about.atim == 5000000007 && about.mtim == 6000000008);
    OK(raw_fd_filestat_set_times(fd, 1, 7000000009, __WASI_FSTFLAGS_MTIM));
    OK(raw_fd_filestat_get(fd, AT(&about)));
    CHECK(about.atim == 5000000007 && about.mtim == 7000000009); /* only what is asked for changes */
    before = clock_ns(0);
    OK(raw_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_ATIM_NOW));
    OK(raw_fd_filestat_get(fd, AT(&about)));
    CHECK(about.atim + 20000000 >= before && about.mtim == 7000000009);
    EXPECT(raw_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_ATIM_NOW), INVAL);
    EXPECT(raw_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW), INVAL);

    OK(raw_path_symlink(STR("f"), root, STR("l")));
    OK(raw_path_filestat_set_times(root, 1, STR("l"), 0, 8000000001, __WASI_FSTFLAGS_MTIM));
    CHECK(stat_at(root, "f", 0).mtim == 8000000001);
    OK(raw_path_filestat_set_times(root, 0, STR("l"), 0, 9000000001, __WASI_FSTFLAGS_MTIM));
    CHECK(stat_at(root, "f", 0).mtim == 8000000001 && stat_at(root, "l", 0).mtim == 9000000001);
    EXPECT(raw_path_filestat_set_times(root, 0, STR("absent"), 0, 0, __WASI_FSTFLAGS_MTIM), NOENT);
    EXPECT(raw_path_filestat_set_times(root, 0, STR("f"), 0, 0, 3), INVAL);
    return 0;
}
