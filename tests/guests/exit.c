/* Ends with the code that its argument names, after output that is not flushed by hand. */
#include "check.h"
int main(int argc, char **argv)
{
    CHECK(argc == 2);
    printf("leaving with %s\n", argv[1]);
    exit(atoi(argv[1]));
}
