/* With files that the tester delivers at /data: reads, changes, adds and removes them; "ro" expects refusals. */
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int read_only = argc > 1 && strcmp(argv[1], "ro") == 0;
    char text[64] = "";
    FILE *file = fopen("/data/in.txt", "r");
    CHECK(file && fgets(text, sizeof text, file) && strcmp(text, "delivered\n") == 0 && fclose(file) == 0);
    CHECK((file = fopen("/data/sub/deep.bin", "rb")) && fread(text, 1, 4, file) == 4);
    CHECK(memcmp(text, "\0\1\2\xff", 4) == 0 && fclose(file) == 0);
    if (read_only) {
        CHECK(open("/data/in.txt", O_WRONLY) < 0 && (errno == EROFS || errno == EPERM || errno == ENOTCAPABLE || errno == EACCES));
        CHECK(open("/data/in.txt", O_RDONLY | O_TRUNC) < 0);
        CHECK(open("/data/new.txt", O_WRONLY | O_CREAT, 0666) < 0);
        CHECK(unlink("/data/in.txt") < 0 && mkdir("/data/dir", 0777) < 0 && rename("/data/in.txt", "/data/x") < 0);
        CHECK(symlink("in.txt", "/data/l") < 0 && link("/data/in.txt", "/data/h") < 0 && rmdir("/data/sub") < 0);
        return 0;
    }
    CHECK((file = fopen("/data/in.txt", "a")) && fputs("changed\n", file) >= 0 && fclose(file) == 0);
    CHECK((file = fopen("/data/new.txt", "w")) && fputs("new\n", file) >= 0 && fclose(file) == 0);
    CHECK(mkdir("/data/made", 0777) == 0 && unlink("/data/sub/deep.bin") == 0 && rmdir("/data/sub") == 0);
    return 0;
}
