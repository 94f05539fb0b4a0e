/* Pure computation of three kinds; ends with 0 when the results are right. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static unsigned sieve(unsigned limit)
{
    char *composite = calloc(limit + 1, 1);
    unsigned count = 0;
    for (unsigned n = 2; n <= limit; n++) {
        if (composite[n])
            continue;
        count++;
        for (uint64_t m = (uint64_t)n * n; m <= limit; m += n)
            composite[m] = 1;
    }
    free(composite);
    return count;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int sorted(unsigned size)
{
    uint32_t *values = malloc(size * sizeof *values), state = 1;
    for (unsigned i = 0; i < size; i++)
        values[i] = state = state * 1664525u + 1013904223u;
    qsort(values, size, sizeof *values, ascending);
    int right = 1;
    for (unsigned i = 1; i < size; i++)
        right &= values[i - 1] <= values[i];
    free(values);
    return right;
}

static uint64_t mixed(unsigned rounds)
{
    uint64_t hash = 14695981039346656037u;
    for (unsigned i = 0; i < rounds; i++) {
        hash ^= i & 0xff;
        hash *= 1099511628211u;
        hash = hash << 13 | hash >> 51;
    }
    return hash;
}

int main(void)
{
    if (sieve(20000000) != 1270607)
        return 1;
    if (!sorted(1000000))
        return 2;
    return mixed(100000000) == 0 ? 3 : 0;
}
