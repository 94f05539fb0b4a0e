/* Sends back three lines on the connection named "out", or as the argument says. */
#include "check.h"
#include <unistd.h>
int main(int argc, char **argv)
{
    int fd = (int)descriptor(argc > 1 ? argv[1] : "out");
    CHECK(atoi(getenv("FD_COUNT")) > fd);
    for (int line = 0; line < 3; line++) {
        char text[64];
        ssize_t used = 0, got;
        do {
            CHECK((got = read(fd, text + used, sizeof text - (size_t)used)) > 0);
            used += got;
        } while (text[used - 1] != '\n');
        CHECK(write(fd, text, (size_t)used) == used);
    }
    return 0;
}
