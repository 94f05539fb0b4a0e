/* Descriptors are renumbered, standard output among them; preopened directories can be closed. */
#include "check.h"
#include <unistd.h>
int main(void)
{
    w32 root = preopen(), a = create_at(root, "a"), b = create_at(root, "b"), iov[2] = {AT("to the file\n"), 12}, n;
    char text[16];
    w64 at;
    EXPECT(raw_fd_renumber(a, 999), BADF);
    EXPECT(raw_fd_renumber(999, a), BADF);
    EXPECT(raw_fd_renumber(a, 0xFFFFFFFF), BADF);
    OK(raw_fd_renumber(a, a));
    OK(raw_fd_renumber(a, b)); /* closes b's file, frees the number a */
    EXPECT(raw_fd_tell(a, AT(&at)), BADF);
    CHECK(put(b, "hello", 5) == 5);
    CHECK(stat_at(root, "a", 0).size == 5 && stat_at(root, "b", 0).size == 0);
    EXPECT(raw_fd_close(a), BADF);

    CHECK(write(1, "before\n", 7) == 7);
    w32 c = create_at(root, "c");
    OK(raw_fd_renumber(c, 1));
    OK(raw_fd_write(1, AT(iov), 1, AT(&n)));
    OK(raw_fd_seek(1, 0, 0, AT(&at)));
    CHECK(get(1, text, 16) == 12 && memcmp(text, "to the file\n", 12) == 0);
    OK(raw_fd_renumber(2, 1)); /* standard error takes the place of standard output */
    CHECK(write(1, "aside\n", 6) == 6);
    EXPECT(raw_fd_write(2, AT(iov), 1, AT(&n)), BADF);
    OK(raw_fd_close(0));
    EXPECT(raw_fd_read(0, AT(iov), 1, AT(&n)), BADF);

    struct filestat about;
    w32 again;
    OK(raw_fd_close(root));
    EXPECT(raw_path_filestat_get(root, 0, STR("a"), AT(&about)), BADF);
    EXPECT(open_at(root, "a", 0, FILE_RIGHTS, 0, &again), BADF);
    EXPECT(raw_fd_prestat_get(root, AT(text)), BADF);
    OK(raw_fd_tell(b, AT(&at))); /* what was opened through it stays open */
    return 0;
}
