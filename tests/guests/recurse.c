/* Calls itself without end. */
#include "check.h"
static volatile int depth;
__attribute__((noinline)) static int deeper(int n)
{
    volatile char frame[256];
    frame[0] = (char)n;
    depth++;
    return depth ? deeper(n + 1) + frame[0] : 0; /* depth is never 0, but the compiler does not know */
}
int main(void)
{
    printf("%d\n", deeper(0));
    return 0;
}
