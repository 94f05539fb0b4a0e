/* Paths that try to leave the directory they start from. No answer may be a descriptor of something outside. */
#include "check.h"
static w32 root, box;

static void outside(const char *path, w32 length)
{
    w32 fd, n;
    char text[64];
    struct filestat about;
    static const int allowed[] = {PERM, NOTCAPABLE, ACCES, NOENT, INVAL, ILSEQ, NAMETOOLONG, LOOP, NOTDIR};
#define REFUSED(call) check_errno((call), allowed, sizeof allowed / sizeof *allowed, #call, path, (int)length)
    for (w32 follow = 0; follow < 2; follow++) {
        REFUSED(raw_path_open(box, follow, AT(path), length, 0, 0, 0, 0, AT(&fd)));
        REFUSED(raw_path_open(box, follow, AT(path), length, 1 /* create */, 64, 0, 0, AT(&fd)));
        REFUSED(raw_path_open(box, follow, AT(path), length, 2 /* directory */, 0, 0, 0, AT(&fd)));
        REFUSED(raw_path_filestat_get(box, follow, AT(path), length, AT(&about)));
        REFUSED(raw_path_filestat_set_times(box, follow, AT(path), length, 0, 0, 4));
        REFUSED(raw_path_link(box, follow, AT(path), length, root, STR("box/loot")));
    }
    REFUSED(raw_path_create_directory(box, AT(path), length));
    REFUSED(raw_path_remove_directory(box, AT(path), length));
    REFUSED(raw_path_unlink_file(box, AT(path), length));
    REFUSED(raw_path_readlink(box, AT(path), length, AT(text), 64, AT(&n)));
    REFUSED(raw_path_rename(box, AT(path), length, root, STR("box/loot")));
    REFUSED(raw_path_rename(root, STR("box/mine"), box, AT(path), length));
    REFUSED(raw_path_link(root, 0, STR("box/mine"), box, AT(path), length));
    REFUSED(raw_path_symlink(STR("mine"), box, AT(path), length));
}

int main(void)
{
    static char deep[8192];
    w32 fd;
    root = preopen();
    fd = create_at(root, "secret");
    put(fd, "secret", 6);
    OK(raw_path_create_directory(root, STR("box")));
    OK(raw_path_create_directory(root, STR("box/in")));
    OK(raw_fd_close(create_at(root, "box/mine")));
    OK(raw_path_open(root, 0, STR("box"), __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, ALL_RIGHTS, 0, AT(&box)));

    static const char *const paths[] = {
        "..", "../", "../secret", "../secret/", "./../secret", "in/../../secret", "in/../../box/mine", "in/../..",
        "in/.././../secret", "//secret", "/", "/secret", "/box/mine", "/etc/passwd", "/proc/self/environ", "/dev/null",
        "///../secret", ".././", "in//..//..//secret", "in/../in/../../secret", "absent/../../secret",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        outside(paths[i], (w32)strlen(paths[i]));

    /* Links that a hostile or careless writer could have left in the directory. */
    w32 refused = raw_path_symlink(STR("/secret"), box, STR("absolute"));
    EXPECT(refused, 0, PERM, NOTCAPABLE, INVAL);
    OK(raw_path_symlink(STR("../secret"), box, STR("up")));
    OK(raw_path_symlink(STR(".."), box, STR("parent")));
    OK(raw_path_symlink(STR("parent/secret"), box, STR("chain1")));
    OK(raw_path_symlink(STR("chain1"), box, STR("chain2")));
    OK(raw_path_symlink(STR("../../secret"), box, STR("in/upup")));
    static const char *const followed[] = {"absolute", "up", "chain1", "chain2", "in/upup", "parent"};
    static const char *const through[] = {"parent/secret", "parent/box/mine", "parent/../secret", "up/", "parent/"};
    struct filestat about;
    for (int i = refused ? 1 : 0; i < 6; i++) {
        EXPECT(open_at(box, "in/../mine", 0, FILE_RIGHTS, 0, &fd), 0);
        OK(raw_fd_close(fd));
        EXPECT(raw_path_open(box, 1, STR(followed[i]), 0, FILE_RIGHTS, 0, 0, AT(&fd)), PERM, NOTCAPABLE, ACCES, NOENT);
        EXPECT(raw_path_open(box, 1, STR(followed[i]), 9, FILE_RIGHTS, 0, 0, AT(&fd)), PERM, NOTCAPABLE, ACCES, NOENT);
        EXPECT(raw_path_filestat_get(box, 1, STR(followed[i]), AT(&about)), PERM, NOTCAPABLE, ACCES, NOENT);
        EXPECT(raw_path_filestat_set_times(box, 1, STR(followed[i]), 0, 0, 4), PERM, NOTCAPABLE, ACCES, NOENT);
    }
    for (int i = 0; i < 5; i++) {
        EXPECT(raw_path_open(box, 0, STR(through[i]), 0, FILE_RIGHTS, 0, 0, AT(&fd)), PERM, NOTCAPABLE, ACCES, NOENT, LOOP, NOTDIR);
        EXPECT(raw_path_filestat_get(box, 0, STR(through[i]), AT(&about)), PERM, NOTCAPABLE, ACCES, NOENT, LOOP, NOTDIR);
        EXPECT(raw_path_unlink_file(box, STR(through[i])), PERM, NOTCAPABLE, ACCES, NOENT, LOOP, NOTDIR, ISDIR);
        EXPECT(raw_path_create_directory(box, STR(through[i])), PERM, NOTCAPABLE, ACCES, NOENT, LOOP, NOTDIR, EXIST);
    }

    outside("mine\0x", 6); /* a name ends where it ends, not at a zero byte */
    outside("a\0", 2);
    outside("\xff\xfe", 2); /* no UTF-8 */
    outside("\xc0\xae\xc0\xae/secret", 11); /* ".." spelled too long */
    outside("\xed\xa0\x80", 3); /* half a surrogate pair */
    memset(deep, 'a', 5000);
    outside(deep, 5000); /* one name of 5,000 bytes */
    for (int i = 0; i < 4000; i += 2)
        memcpy(deep + i, "./", 2);
    memcpy(deep + 4000, "mine", 4); /* long, but harmless */
    EXPECT(raw_path_filestat_get(box, 0, AT(deep), 4004, AT(&about)), 0, NAMETOOLONG);

    CHECK(stat_at(root, "secret", 0).size == 6 && stat_at(root, "secret", 0).nlink == 1);
    EXPECT(raw_path_filestat_get(root, 0, STR("box/loot"), AT(&about)), NOENT);
    CHECK(stat_at(root, "box/mine", 0).nlink == 1);
    return 0;
}
