/* Sends back three lines on the connection named "out". */
#include "check.h"
#include <unistd.h>
int main(void)
{
    const char *names = getenv("FD_NAMES");
    CHECK(names && strcmp(names, "stdin:stdout:stderr:out") == 0 && strcmp(getenv("FD_COUNT"), "4") == 0);
    for (int line = 0; line < 3; line++) {
        char text[64];
        ssize_t used = 0, got;
        do {
            CHECK((got = read(3, text + used, sizeof text - (size_t)used)) > 0);
            used += got;
        } while (text[used - 1] != '\n');
        CHECK(write(3, text, (size_t)used) == used);
    }
    return 0;
}
