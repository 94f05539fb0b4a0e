/* Copies standard input to standard output with the plain calls and tells the number of bytes on standard error. */
#include "check.h"
#include <unistd.h>
int main(void)
{
    static char buffer[100003];
    ssize_t got;
    size_t total = 0;
    while ((got = read(0, buffer, sizeof buffer)) > 0) {
        for (ssize_t done = 0, more; done < got; done += more) {
            more = write(1, buffer + done, (size_t)(got - done));
            CHECK(more > 0);
        }
        total += (size_t)got;
    }
    CHECK(got == 0);
    fprintf(stderr, "%zu\n", total);
    return 0;
}
