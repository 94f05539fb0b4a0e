/* Symbolic links: made, read, followed or not, dangling, in loops. */
#include "check.h"
int main(void)
{
    w32 root = preopen(), fd, used;
    char text[16], name[8] = "l00";
    OK(raw_path_create_directory(root, STR("dir")));
    fd = create_at(root, "dir/file");
    CHECK(put(fd, "data", 4) == 4);
    OK(raw_fd_close(fd));

    OK(raw_path_symlink(STR("dir/file"), root, STR("link")));
    EXPECT(raw_path_symlink(STR("dir/file"), root, STR("link")), EXIST);
    EXPECT(raw_path_symlink(STR("x"), root, STR("dir")), EXIST);
    EXPECT(raw_path_symlink(STR("x"), root, STR("absent/link")), NOENT);
    EXPECT(raw_path_symlink(STR(""), root, STR("void")), NOENT, INVAL);
    OK(raw_path_readlink(root, STR("link"), AT(text), 16, AT(&used)));
    CHECK(used == 8 && memcmp(text, "dir/file", 8) == 0);
    memset(text, '-', sizeof text);
    EXPECT(raw_path_readlink(root, STR("link"), AT(text), 3, AT(&used)), 0);
    CHECK(used == 3 && memcmp(text, "dir-", 4) == 0);
    EXPECT(raw_path_readlink(root, STR("dir/file"), AT(text), 16, AT(&used)), INVAL);
    EXPECT(raw_path_readlink(root, STR("absent"), AT(text), 16, AT(&used)), NOENT);

    CHECK(stat_at(root, "link", 0).type == __WASI_FILETYPE_SYMBOLIC_LINK);
    CHECK(stat_at(root, "link", 0).size == 8);
    CHECK(stat_at(root, "link", 1).type == __WASI_FILETYPE_REGULAR_FILE);
    EXPECT(raw_path_open(root, 0, STR("link"), 0, FILE_RIGHTS, 0, 0, AT(&fd)), LOOP);
    OK(raw_path_open(root, 1, STR("link"), 0, FILE_RIGHTS, 0, 0, AT(&fd)));
    CHECK(get(fd, text, 16) == 4 && memcmp(text, "data", 4) == 0);
    OK(raw_fd_close(fd));
    EXPECT(raw_path_open(root, 1, STR("link"), __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, FILE_RIGHTS, 0, 0, AT(&fd)), EXIST);

    OK(raw_path_symlink(STR("dir"), root, STR("way")));
    CHECK(stat_at(root, "way/file", 0).size == 4); /* links before the last name are always followed */
    OK(raw_path_symlink(STR("../link"), root, STR("dir/up")));
    CHECK(stat_at(root, "way/up", 1).size == 4);
    EXPECT(raw_path_remove_directory(root, STR("way")), NOTDIR);
    EXPECT(raw_path_open(root, 0, STR("way"), __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, 0, 0, AT(&fd)), NOTDIR, LOOP);

    OK(raw_path_symlink(STR("nowhere"), root, STR("dangling")));
    struct filestat about;
    EXPECT(raw_path_filestat_get(root, 1, STR("dangling"), AT(&about)), NOENT);
    OK(raw_path_filestat_get(root, 0, STR("dangling"), AT(&about)));
    EXPECT(raw_path_open(root, 1, STR("dangling"), 0, FILE_RIGHTS, 0, 0, AT(&fd)), NOENT);

    OK(raw_path_symlink(STR("self"), root, STR("self")));
    EXPECT(raw_path_open(root, 1, STR("self"), 0, FILE_RIGHTS, 0, 0, AT(&fd)), LOOP);
    EXPECT(raw_path_filestat_get(root, 1, STR("self/x"), AT(&about)), LOOP);
    OK(raw_path_symlink(STR("pong"), root, STR("ping")));
    OK(raw_path_symlink(STR("ping"), root, STR("pong")));
    EXPECT(raw_path_filestat_get(root, 1, STR("ping"), AT(&about)), LOOP);
    OK(raw_path_symlink(STR("link"), root, STR("l00"))); /* a chain of a hundred links ends as a loop does */
    for (int i = 1; i < 100; i++) {
        char next[8];
        snprintf(next, sizeof next, "l%02d", i);
        OK(raw_path_symlink(STR(name), root, STR(next)));
        strcpy(name, next);
    }
    CHECK(stat_at(root, "l03", 1).size == 4);
    EXPECT(raw_path_filestat_get(root, 1, STR("l99"), AT(&about)), LOOP);

    OK(raw_path_link(root, 0, STR("link"), root, STR("hard"))); /* a hard link to the symbolic link itself */
    CHECK(stat_at(root, "hard", 0).type == __WASI_FILETYPE_SYMBOLIC_LINK);
    OK(raw_path_rename(root, STR("link"), root, STR("renamed")));
    CHECK(stat_at(root, "renamed", 0).type == __WASI_FILETYPE_SYMBOLIC_LINK);
    OK(raw_path_unlink_file(root, STR("renamed")));
    CHECK(stat_at(root, "dir/file", 0).size == 4); /* the target stays */
    return 0;
}
