/* Random bytes: different each time, in any amount; the processor is given up politely; no signal is sent. */
#include "check.h"
int main(void)
{
    enum { LARGE = 4 << 20 };
    unsigned char a[32] = {0}, b[32] = {0}, *large = calloc(1, LARGE);
    size_t counts[256] = {0};
    OK(raw_random_get(AT(a), 32));
    OK(raw_random_get(AT(b), 32));
    CHECK(memcmp(a, b, 32) != 0);
    OK(raw_random_get(AT(a), 0));
    OK(raw_random_get(AT(large), LARGE));
    for (int i = 0; i < LARGE; i++)
        counts[large[i]]++;
    for (int i = 0; i < 256; i++)
        CHECK(counts[i] > LARGE / 256 - 2000 && counts[i] < LARGE / 256 + 2000);
    OK(raw_sched_yield());
    EXPECT(raw_proc_raise(6), NOTSUP, NOSYS);
    EXPECT(raw_proc_raise(255), NOTSUP, NOSYS, INVAL);
    return 0;
}
