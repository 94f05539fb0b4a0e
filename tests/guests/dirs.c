/* Making, reading, moving and removing directories. */
#include "check.h"
static w32 root;

struct dirent { w64 next, ino; w32 length; uint8_t type, pad[3]; };
_Static_assert(sizeof(struct dirent) == 24, "dirent");

static w32 open_dir(w32 at, const char *path)
{
    w32 fd;
    OK(raw_path_open(at, 0, STR(path), __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, ALL_RIGHTS, 0, AT(&fd)));
    return fd;
}

/* Lists a directory through a buffer of `size` bytes; marks the names "nN" that it meets. */
static int list(w32 fd, w32 size, char *seen)
{
    static char buffer[65536];
    w64 cookie = 0;
    int entries = 0;
    for (;;) {
        w32 used = 0, at = 0;
        OK(raw_fd_readdir(fd, AT(buffer), size, cookie, AT(&used)));
        CHECK(used <= size);
        while (at + sizeof(struct dirent) <= used) {
            struct dirent entry;
            memcpy(&entry, buffer + at, sizeof entry);
            if (at + sizeof entry + entry.length > used)
                break; /* cut off: it comes again with the next call */
            if (buffer[at + sizeof entry] == 'n') {
                int number = 0;
                for (w32 i = 1; i < entry.length; i++)
                    number = 10 * number + buffer[at + sizeof entry + i] - '0';
                CHECK(entry.type == __WASI_FILETYPE_REGULAR_FILE && !seen[number]);
                seen[number] = 1;
            } else {
                CHECK(entry.type == __WASI_FILETYPE_DIRECTORY);
            }
            CHECK(entry.ino != 0);
            entries++;
            cookie = entry.next;
            at += sizeof entry + entry.length;
        }
        if (used < size)
            return entries;
        CHECK(at > 0); /* the buffer holds at least one entry */
    }
}

static void reading(void)
{
    enum { MANY = 500 };
    static char seen[MANY];
    char name[16], one[1];
    w32 fd, used;

    OK(raw_path_create_directory(root, STR("many")));
    fd = open_dir(root, "many");
    int dots = list(fd, 4096, seen); /* "." and "..", or neither */
    CHECK(dots == 0 || dots == 2);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "n%d", i);
        OK(raw_fd_close(create_at(fd, name)));
    }
    static const w32 sizes[] = {40, 64, 100, 4096, 65536};
    for (int i = 0; i < 5; i++) {
        memset(seen, 0, sizeof seen);
        CHECK(list(fd, sizes[i], seen) == MANY + dots);
        for (int j = 0; j < MANY; j++)
            CHECK(seen[j]);
    }
    OK(raw_fd_readdir(fd, AT(one), 1, 0, AT(&used)));
    CHECK(used == 1); /* a full buffer, however small, says that there is more */
    OK(raw_fd_readdir(fd, AT(one), 0, 0, AT(&used)));
    CHECK(used == 0);
    EXPECT(raw_fd_readdir(fd, AT(name), 16, ~0ull, AT(&used)), 0, INVAL, NOENT);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "n%d", i);
        OK(raw_path_unlink_file(fd, STR(name)));
    }
    CHECK(list(fd, 4096, seen) == dots);
    OK(raw_path_remove_directory(root, STR("many")));
    OK(raw_fd_close(fd));
}

static void nesting(void)
{
    w32 a, b;
    OK(raw_path_create_directory(root, STR("a")));
    EXPECT(raw_path_create_directory(root, STR("a")), EXIST);
    OK(raw_path_create_directory(root, STR("a/b/")));
    OK(raw_path_create_directory(root, STR("./a/./b/../b/c")));
    EXPECT(raw_path_create_directory(root, STR("x/y")), NOENT);
    EXPECT(raw_path_create_directory(root, STR("")), NOENT, INVAL);
    a = open_dir(root, "a"), b = open_dir(a, "b");
    CHECK(stat_at(b, "c", 0).type == __WASI_FILETYPE_DIRECTORY);
    CHECK(stat_at(b, "c", 0).ino == stat_at(root, "a/b/c", 0).ino);
    OK(raw_fd_close(create_at(b, "file")));

    EXPECT(raw_path_remove_directory(root, STR("a")), NOTEMPTY);
    EXPECT(raw_path_remove_directory(root, STR("absent")), NOENT);
    EXPECT(raw_path_remove_directory(b, STR("file")), NOTDIR);
    EXPECT(raw_path_remove_directory(b, STR(".")), INVAL, BUSY, NOTEMPTY);
    EXPECT(raw_path_unlink_file(b, STR("c")), ISDIR, PERM);
    EXPECT(raw_path_unlink_file(b, STR("file/")), NOTDIR, NOENT);

    EXPECT(raw_path_rename(root, STR("a"), root, STR("a/b/inside")), INVAL);
    OK(raw_path_create_directory(root, STR("empty")));
    EXPECT(raw_path_rename(b, STR("file"), root, STR("empty")), ISDIR);
    EXPECT(raw_path_rename(root, STR("empty"), b, STR("file")), NOTDIR);
    EXPECT(raw_path_rename(root, STR("empty"), root, STR("a")), NOTEMPTY, EXIST);
    OK(raw_path_rename(a, STR("b"), root, STR("empty"))); /* onto an empty directory */
    CHECK(stat_at(root, "empty/file", 0).size == 0);
    CHECK(stat_at(b, "file", 0).ino == stat_at(root, "empty/file", 0).ino); /* b is open and moved along */
    OK(raw_path_remove_directory(root, STR("empty/c")));
    OK(raw_path_unlink_file(root, STR("empty/file")));
    OK(raw_path_remove_directory(root, STR("empty/")));
    w32 fd;
    EXPECT(open_at(b, "late", __WASI_OFLAGS_CREAT, FILE_RIGHTS, 0, &fd), NOENT);
    OK(raw_path_remove_directory(root, STR("a")));
    OK(raw_fd_close(a));
    OK(raw_fd_close(b));
}

static void as_files(void)
{
    w32 fd, n, iov[2] = {AT(&n), 4};
    w64 at;
    OK(raw_path_create_directory(root, STR("d")));
    fd = open_dir(root, "d");
    EXPECT(raw_fd_read(fd, AT(iov), 1, AT(&n)), ISDIR, BADF, NOTCAPABLE);
    EXPECT(raw_fd_write(fd, AT(iov), 1, AT(&n)), ISDIR, BADF, NOTCAPABLE);
    EXPECT(raw_fd_seek(fd, 0, 0, AT(&at)), BADF, ISDIR, NOTCAPABLE, SPIPE, INVAL);
    EXPECT(raw_fd_filestat_set_size(fd, 0), ISDIR, BADF, INVAL, NOTCAPABLE);
    EXPECT(raw_fd_allocate(fd, 0, 1), ISDIR, BADF, NOTCAPABLE, NOTSUP);
    EXPECT(open_at(root, "d", __WASI_OFLAGS_TRUNC, FILE_RIGHTS, 0, &n), ISDIR, INVAL);
    OK(raw_fd_close(fd));
    OK(raw_path_remove_directory(root, STR("d")));
}

int main(void)
{
    root = preopen();
    reading();
    nesting();
    as_files();
    return 0;
}
