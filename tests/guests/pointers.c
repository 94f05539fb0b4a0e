/* Every call with every pointer and every length that could be wrong: an error each time, and life goes on.
 *
 * A row names, for each argument of a call, what it is: a pointer to so many bytes, a pointer with a length behind
 * it, an array of vectors, or a plain value. Each pointer is made wrong in several ways while the rest stays good. */
#include "check.h"

enum kind { VALUE, OUT, BUFFER, PATH, VECTORS, SUBS, EVENTS };
struct argument { enum kind kind; w64 value; };
#define V(x) {VALUE, x}
#define O(size) {OUT, size}
#define FD {VALUE, 0xF11E}
#define DIR {VALUE, 0xD1E}
#define MAX 9

typedef w32 function(const w64 *a);
#define CALL(name, ...) static w32 call_##name(const w64 *a) { return raw_##name(__VA_ARGS__); }
#define A(i) (w32)a[i]
CALL(args_get, A(0), A(1)) CALL(args_sizes_get, A(0), A(1)) CALL(environ_get, A(0), A(1))
CALL(environ_sizes_get, A(0), A(1)) CALL(clock_res_get, A(0), A(1)) CALL(clock_time_get, A(0), a[1], A(2))
CALL(fd_fdstat_get, A(0), A(1)) CALL(fd_filestat_get, A(0), A(1)) CALL(fd_pread, A(0), A(1), A(2), a[3], A(4))
CALL(fd_prestat_get, A(0), A(1)) CALL(fd_prestat_dir_name, A(0), A(1), A(2))
CALL(fd_pwrite, A(0), A(1), A(2), a[3], A(4)) CALL(fd_read, A(0), A(1), A(2), A(3))
CALL(fd_readdir, A(0), A(1), A(2), a[3], A(4)) CALL(fd_seek, A(0), a[1], A(2), A(3)) CALL(fd_tell, A(0), A(1))
CALL(fd_write, A(0), A(1), A(2), A(3)) CALL(path_create_directory, A(0), A(1), A(2))
CALL(path_filestat_get, A(0), A(1), A(2), A(3), A(4))
CALL(path_filestat_set_times, A(0), A(1), A(2), A(3), a[4], a[5], A(6))
CALL(path_link, A(0), A(1), A(2), A(3), A(4), A(5), A(6))
CALL(path_open, A(0), A(1), A(2), A(3), A(4), a[5], a[6], A(7), A(8))
CALL(path_readlink, A(0), A(1), A(2), A(3), A(4), A(5)) CALL(path_remove_directory, A(0), A(1), A(2))
CALL(path_rename, A(0), A(1), A(2), A(3), A(4), A(5)) CALL(path_symlink, A(0), A(1), A(2), A(3), A(4))
CALL(path_unlink_file, A(0), A(1), A(2)) CALL(poll_oneoff, A(0), A(1), A(2), A(3)) CALL(random_get, A(0), A(1))
CALL(sock_accept, A(0), A(1), A(2)) CALL(sock_recv, A(0), A(1), A(2), A(3), A(4), A(5))
CALL(sock_send, A(0), A(1), A(2), A(3), A(4))

/* A path, a buffer and vectors are two arguments each. */
#define P(text) {PATH, AT(text)}, V(sizeof(text) - 1)
#define B(size) {BUFFER, size}, V(size)
#define IOV {VECTORS, 0}, V(1)
struct row { const char *name; function *call; int count; struct argument arguments[MAX]; };
#define ROW(name, count, ...) {#name, call_##name, count, {__VA_ARGS__}}

static w64 place[64]; /* where good pointers lead: 512 bytes */
static w32 vectors[4], file, directory, end_of_memory;

static w64 good(struct argument argument)
{
    switch (argument.kind) {
    case VALUE: return argument.value == 0xF11E ? file : argument.value == 0xD1E ? directory : argument.value;
    case PATH: return argument.value;
    case VECTORS: vectors[0] = AT(place), vectors[1] = 8; return AT(vectors);
    default: return AT(place);
    }
}

static void refuse(const struct row *row, const w64 *a, int at, const char *how)
{
    w32 answer = row->call(a);
    /* sockets may be asked for first whether they are sockets; a name may be refused as a name */
    if (answer == 0 && row->arguments[at].kind == VECTORS && strcmp(how, "length") == 0)
        return; /* the first of too many vectors may be served, as a short transfer */
    if (answer == FAULT || answer == INVAL || answer == OVERFLOW_ || answer == NAMETOOLONG || answer == ILSEQ)
        return;
    if (strncmp(row->name, "sock_", 5) == 0 && (answer == NOTSOCK || answer == BADF || answer == NOTCAPABLE))
        return;
    fprintf(stderr, "%s: argument %d, %s: answers %u, expected 21\n", row->name, at, how, answer);
    exit(1);
}

static w32 size_at(const struct row *row, int at)
{
    switch (row->arguments[at].kind) {
    case OUT: case BUFFER: return (w32)row->arguments[at].value;
    case VECTORS: return 8;
    case SUBS: return 48;
    case EVENTS: return 32;
    default: return (w32)row->arguments[at + 1].value;
    }
}

static void attack(const struct row *row, int at)
{
    w64 a[MAX];
    enum kind kind = row->arguments[at].kind;
    w32 size = size_at(row, at);
    for (int i = 0; i < row->count; i++)
        a[i] = good(row->arguments[i]);
    const w64 was = a[at];
    a[at] = 0xFFFFFFFF, refuse(row, a, at, "last address");
    a[at] = end_of_memory, refuse(row, a, at, "end of memory");
    if (size > 1)
        a[at] = end_of_memory - size + 1, refuse(row, a, at, "one byte too few");
    a[at] = 0x80000000, refuse(row, a, at, "beyond memory");
    a[at] = 0u - size, refuse(row, a, at, "wraps around");
    if (kind == OUT)
        return;
    a[at] = was;
    static const w32 lengths[] = {0xFFFFFFFF, 0x80000000, 0x7FFFFFFF};
    int length = at + (kind == SUBS ? 2 : 1);
    for (int i = 0; i < 3; i++) { /* too long from a good address */
        a[length] = lengths[i];
        refuse(row, a, at, "length");
    }
    a[length] = kind == VECTORS ? 0x20000001 : 0xFFFFFFF0; /* times 8 the first is 8 again */
    refuse(row, a, at, "length");
    if (kind != VECTORS)
        return;
    a[at + 1] = 1;
    static const w32 bad[][2] = {{0xFFFFFFFF, 1}, {0x80000000, 8}, {0xFFFFFFF8, 8}, {0xFFFFFFFF, 0xFFFFFFFF}, {16, 0xFFFFFFFF}};
    for (int i = 0; i < 5; i++) {
        vectors[0] = bad[i][0], vectors[1] = bad[i][1];
        refuse(row, a, at, "vector");
    }
    vectors[0] = AT(place), vectors[1] = 8, vectors[2] = 0xFFFFFFF0, vectors[3] = 64;
    a[at + 1] = 2; /* good, then bad */
    refuse(row, a, at, "second vector");
}

int main(void)
{
    directory = preopen();
    file = create_at(directory, "file");
    put(file, "0123456789", 10);
    OK(raw_path_symlink(STR("file"), directory, STR("link")));
    w64 at;
    OK(raw_fd_seek(file, 0, 0, AT(&at)));
    end_of_memory = (w32)__builtin_wasm_memory_size(0) << 16;

    const struct row rows[] = {
        ROW(args_sizes_get, 2, O(4), O(4)), ROW(environ_sizes_get, 2, O(4), O(4)),
        ROW(args_get, 2, O(4), O(1)), ROW(environ_get, 2, O(4), O(1)), ROW(fd_prestat_dir_name, 3, DIR, O(1), V(1)),
        ROW(clock_res_get, 2, V(1), O(8)), ROW(clock_time_get, 3, V(1), V(1), O(8)),
        ROW(fd_fdstat_get, 2, FD, O(24)), ROW(fd_filestat_get, 2, FD, O(64)), ROW(fd_tell, 2, FD, O(8)),
        ROW(fd_seek, 4, FD, V(0), V(0), O(8)), ROW(fd_prestat_get, 2, DIR, O(8)),
        ROW(fd_pread, 5, FD, IOV, V(0), O(4)), ROW(fd_read, 4, FD, IOV, O(4)),
        ROW(fd_pwrite, 5, FD, IOV, V(0), O(4)), ROW(fd_write, 4, FD, IOV, O(4)),
        ROW(fd_readdir, 5, DIR, B(64), V(0), O(4)),
        ROW(path_create_directory, 3, DIR, P("made")), ROW(path_remove_directory, 3, DIR, P("made")),
        ROW(path_unlink_file, 3, DIR, P("gone")), ROW(path_filestat_get, 5, DIR, V(0), P("file"), O(64)),
        ROW(path_filestat_set_times, 7, DIR, V(0), P("file"), V(0), V(0), V(0)),
        ROW(path_link, 7, DIR, V(0), P("file"), DIR, P("hard")), ROW(path_rename, 6, DIR, P("file"), DIR, P("file2")),
        ROW(path_symlink, 5, P("file"), DIR, P("soft")),
        ROW(path_readlink, 6, DIR, P("link"), B(64), O(4)),
        ROW(path_open, 9, DIR, V(0), P("file"), V(0), V(2), V(2), V(0), O(4)),
        ROW(random_get, 2, B(64)),
        ROW(poll_oneoff, 4, {SUBS, 0}, {EVENTS, 0}, V(1), O(4)),
        ROW(sock_recv, 6, FD, IOV, V(0), O(4), O(2)), ROW(sock_send, 5, FD, IOV, V(0), O(4)),
        ROW(sock_accept, 3, FD, V(0), O(4)),
    };
    int attacked = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int j = 0; j < rows[i].count; j++)
            if (rows[i].arguments[j].kind != VALUE) {
                memset(place, 0, sizeof place); /* for poll_oneoff: a clock that is due */
                attack(&rows[i], j);
                attacked++;
            }

    char text[16]; /* nothing was half done: no name was made, removed or moved; the file may have been written to */
    struct filestat about;
    static const char *const absent[] = {"made", "hard", "soft", "file2"};
    for (int i = 0; i < 4; i++)
        EXPECT(raw_path_filestat_get(directory, 0, STR(absent[i]), AT(&about)), NOENT);
    CHECK(stat_at(directory, "file", 0).type == __WASI_FILETYPE_REGULAR_FILE);
    OK(raw_fd_seek(file, 0, 0, AT(&at)));
    CHECK(get(file, text, 16) >= 8);
    printf("%d pointers\n", attacked);
    return 0;
}
