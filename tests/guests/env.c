/* Prints the environment variables whose names are its arguments. */
#include "check.h"
extern char **environ;
int main(int argc, char **argv)
{
    w32 count = 0, size = 0, expected = 0, entries = 0;
    OK(raw_environ_sizes_get(AT(&count), AT(&size)));
    for (char **entry = environ; *entry; entry++, entries++)
        expected += (w32)strlen(*entry) + 1;
    CHECK(count == entries);
    CHECK(size == expected);
    for (int i = 1; i < argc; i++)
        printf("%s=%s\n", argv[i], getenv(argv[i]) ? getenv(argv[i]) : "(unset)");
    return 0;
}
