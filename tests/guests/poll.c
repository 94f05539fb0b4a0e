/* Waiting with poll_oneoff: clocks, files, and descriptors that cannot be waited for. */
#include "check.h"
struct subscription { w64 user; uint8_t type, pad[7]; union {
    struct { w32 id, pad; w64 timeout, precision; uint16_t flags; } clock;
    w32 fd;
} u; };
_Static_assert(sizeof(struct subscription) == 48, "subscription");
struct event { w64 user; uint16_t error; uint8_t type, pad[5]; w64 bytes; uint16_t flags, pad2[3]; };
_Static_assert(sizeof(struct event) == 32, "event");
enum { MS = 1000000 };
static struct subscription in[600];
static struct event out[600];

static void clock_in(int at, w64 user, w32 id, w64 timeout, int absolute)
{
    memset(&in[at], 0, sizeof in[at]);
    in[at].user = user, in[at].u.clock.id = id, in[at].u.clock.timeout = timeout;
    in[at].u.clock.flags = (uint16_t)absolute;
}
static void fd_in(int at, w64 user, int type, w32 fd)
{
    memset(&in[at], 0, sizeof in[at]);
    in[at].user = user, in[at].type = (uint8_t)type, in[at].u.fd = fd;
}
static w32 wait(w32 count)
{
    w32 events = 0;
    memset(out, 0xAA, sizeof out);
    OK(raw_poll_oneoff(AT(in), AT(out), count, AT(&events)));
    CHECK(events >= 1 && events <= count);
    return events;
}
static w64 clock_ns(w32 id)
{
    w64 now = 0;
    OK(raw_clock_time_get(id, 1, AT(&now)));
    return now;
}

int main(void)
{
    w32 events, root = preopen(), file;
    w64 start;
    EXPECT(raw_poll_oneoff(AT(in), AT(out), 0, AT(&events)), INVAL);

    for (w32 id = 0; id < 2; id++) { /* relative, then absolute, on both clocks */
        start = clock_ns(1);
        clock_in(0, 42, id, 30 * MS, 0);
        CHECK(wait(1) == 1 && out[0].user == 42 && out[0].type == 0 && out[0].error == 0);
        CHECK(clock_ns(1) - start >= 29 * MS && clock_ns(1) - start < 5000ull * MS);
        start = clock_ns(1);
        clock_in(0, 43, id, clock_ns(id) + 30 * MS, 1);
        CHECK(wait(1) == 1 && out[0].user == 43 && out[0].error == 0);
        CHECK(clock_ns(1) - start >= 25 * MS && clock_ns(1) - start < 5000ull * MS);
        clock_in(0, 44, id, 1, 1); /* long past */
        CHECK(wait(1) == 1 && out[0].user == 44);
    }
    clock_in(0, 1, 1, 60000ull * MS, 0); /* the earliest of three */
    clock_in(1, 2, 1, 10 * MS, 0);
    clock_in(2, 3, 0, ~0ull, 0);
    CHECK(wait(3) == 1 && out[0].user == 2);
    clock_in(0, 1, 1, 0, 0), clock_in(1, 2, 1, 0, 0);
    CHECK(wait(2) == 2); /* both are due */
    clock_in(0, 9, 77, 0, 0);
    w32 errno_ = raw_poll_oneoff(AT(in), AT(out), 1, AT(&events));
    EXPECT(errno_, 0, INVAL, NOTSUP);
    CHECK(errno_ || (events == 1 && out[0].user == 9 && out[0].error != 0));

    file = create_at(root, "f");
    CHECK(put(file, "abc", 3) == 3);
    OK(raw_fd_filestat_set_size(file, 3));
    fd_in(0, 10, 1, file), fd_in(1, 11, 2, file), clock_in(2, 12, 1, 60000ull * MS, 0);
    events = wait(3); /* a file never makes wait */
    for (w32 i = 0; i < events; i++)
        CHECK(out[i].error == 0 && out[i].type == (out[i].user == 10 ? 1 : 2) && out[i].user != 12);
    fd_in(0, 20, 2, 1), fd_in(1, 21, 2, 2);
    CHECK(wait(2) == 2 && out[0].error == 0 && out[1].error == 0);

    fd_in(0, 30, 1, 999), fd_in(1, 31, 2, 0x80000000u), clock_in(2, 32, 1, 60000ull * MS, 0);
    events = wait(3); /* an event that tells of an error is an event */
    for (w32 i = 0; i < events; i++)
        CHECK(out[i].error == BADF && (out[i].user == 30 || out[i].user == 31));
    for (int type = 3; type < 256; type += 252) { /* no such event type: the call fails, or an event tells of it */
        fd_in(0, 40, type, 1);
        errno_ = raw_poll_oneoff(AT(in), AT(out), 1, AT(&events));
        EXPECT(errno_, 0, INVAL);
        CHECK(errno_ || (events == 1 && out[0].user == 40 && out[0].error == INVAL));
    }

    for (int i = 0; i < 600; i++)
        fd_in(i, (w64)i, 2, i % 2 ? file : 1);
    CHECK(wait(600) == 600);
    return 0;
}
