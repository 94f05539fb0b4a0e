/* A thousand files in ten directories: made, filled, read back, removed. */
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void)
{
    char path[64], text[64], back[64];
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "/d%d", i % 10);
        if (i < 10)
            CHECK(mkdir(path, 0777) == 0);
        snprintf(path, sizeof path, "/d%d/f%d", i % 10, i);
        snprintf(text, sizeof text, "content of %d", i);
        FILE *file = fopen(path, "wx");
        CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    }
    for (int i = 999; i >= 0; i--) {
        snprintf(path, sizeof path, "/d%d/../d%d/f%d", i % 10, i % 10, i);
        snprintf(text, sizeof text, "content of %d", i);
        FILE *file = fopen(path, "r");
        CHECK(file && fgets(back, sizeof back, file) && strcmp(text, back) == 0 && fclose(file) == 0);
        CHECK(unlink(path) == 0);
    }
    for (int i = 0; i < 10; i++) {
        snprintf(path, sizeof path, "/d%d", i);
        CHECK(rmdir(path) == 0);
    }
    return 0;
}
