/* Prints its arguments, each in brackets on a line of its own. */
#include "check.h"
int main(int argc, char **argv)
{
    w32 count = 0, size = 0, expected = 0;
    OK(raw_args_sizes_get(AT(&count), AT(&size)));
    CHECK(count == (w32)argc && argv[argc] == NULL);
    for (int i = 0; i < argc; i++) {
        expected += (w32)strlen(argv[i]) + 1;
        printf("[%s]\n", argv[i]);
    }
    CHECK(size == expected);
    return 0;
}
