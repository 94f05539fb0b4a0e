/* A spike of 16 MiB, then many blocks of many sizes that are filled, checked and freed in changing order. */
#include "check.h"
int main(void)
{
    enum { SPIKE = 16 << 20, BLOCKS = 512, ROUNDS = 40000 };
    static unsigned char *blocks[BLOCKS];
    static size_t sizes[BLOCKS];
    uint32_t state = 1;
    unsigned char *spike = malloc(SPIKE);
    CHECK(spike != NULL);
    memset(spike, 0x5A, SPIKE);
    CHECK(spike[0] == 0x5A && spike[SPIKE - 1] == 0x5A);
    free(spike);
    for (int round = 0; round < ROUNDS; round++) {
        state = state * 1664525 + 1013904223;
        size_t i = (state >> 8) % BLOCKS, size = 1 + (state >> 16) % (round % 100 ? 2000 : 200000);
        if (blocks[i]) {
            CHECK(blocks[i][0] == (unsigned char)i && blocks[i][sizes[i] - 1] == (unsigned char)i);
            free(blocks[i]);
            blocks[i] = NULL;
        } else {
            CHECK((blocks[i] = malloc(size)) != NULL);
            memset(blocks[i], (int)i, sizes[i] = size);
        }
    }
    return 0;
}
