/* Waits for standard input and reads it to its end; every event comes before its read and no read makes wait. */
#include "check.h"
#include <poll.h>
#include <unistd.h>
int main(void)
{
    char text[4];
    size_t total = 0;
    for (;;) {
        struct pollfd ready = {.fd = 0, .events = POLLIN};
        CHECK(poll(&ready, 1, 20000) == 1);
        CHECK(ready.revents & (POLLIN | POLLHUP));
        ssize_t got = read(0, text, sizeof text);
        CHECK(got >= 0);
        if (got == 0)
            break;
        total += (size_t)got;
    }
    printf("%zu\n", total);
    return 0;
}
