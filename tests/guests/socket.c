/* Serves one connection after another on the listener named "in", or as the first argument says: socket [on:NAME] MODE...
 *
 * A MODE is a connection: "block" accepts and reads waiting, "nonblock" asks again and again, "poll" waits with
 * poll(), "echo" copies until the end of the stream, "flags" peeks and waits for all, "close" closes at once. */
#include "check.h"
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static w32 receive(w32 fd, char *text, w32 size, w32 flags)
{
    w32 iov[2] = {AT(text), size}, got = 0, answered = 0;
    OK(raw_sock_recv(fd, AT(iov), 1, flags, AT(&got), AT(&answered)));
    return got;
}

static void wait_for(w32 fd, short events)
{
    struct pollfd ready = {.fd = (int)fd, .events = events};
    CHECK(poll(&ready, 1, 20000) == 1 && (ready.revents & events));
}

static void echo_line(w32 fd, int waits)
{
    char text[256];
    w32 used = 0, n, iov[2];
    while (used == 0 || text[used - 1] != '\n') {
        iov[0] = AT(text + used), iov[1] = sizeof text - used;
        w32 errno_ = raw_fd_read(fd, AT(iov), 1, AT(&n));
        if (errno_ == AGAIN) {
            CHECK(!waits);
            wait_for(fd, POLLIN);
            continue;
        }
        CHECK(errno_ == 0 && n > 0);
        used += n;
    }
    CHECK(put(fd, text, used) == used);
}

static void flags(w32 fd)
{
    char text[16];
    w32 iov[4] = {AT("he"), 2, AT("llo"), 3}, n = 0;
    CHECK(receive(fd, text, 4, __WASI_RIFLAGS_RECV_PEEK) >= 1 && text[0] == 'a');
    CHECK(receive(fd, text, 10, __WASI_RIFLAGS_RECV_WAITALL) == 10 && memcmp(text, "abcdefghij", 10) == 0);
    OK(raw_sock_send(fd, AT(iov), 2, 0, AT(&n)));
    CHECK(n == 5);
    EXPECT(raw_sock_send(fd, AT(iov), 2, 1, AT(&n)), INVAL, NOTSUP); /* no flags are defined */
    EXPECT(raw_sock_recv(fd, AT(iov), 1, 4, AT(&n), AT(text)), INVAL, NOTSUP);
    EXPECT(raw_sock_shutdown(fd, 0), INVAL);
    EXPECT(raw_sock_shutdown(fd, 4), INVAL);
    OK(raw_sock_shutdown(fd, __WASI_SDFLAGS_WR));
    EXPECT(raw_sock_send(fd, AT(iov), 2, 0, AT(&n)), PIPE, NOTCONN);
    CHECK(receive(fd, text, 16, 0) == 0); /* the peer answers the end with its end */
}

static w32 accept_(w32 listener, const char *mode)
{
    w32 fd = 0xFFFF, errno_, nonblock = strcmp(mode, "block") && strcmp(mode, "echo") && strcmp(mode, "flags");
    OK(raw_fd_fdstat_set_flags(listener, nonblock ? __WASI_FDFLAGS_NONBLOCK : 0));
    while ((errno_ = raw_sock_accept(listener, nonblock ? __WASI_FDFLAGS_NONBLOCK : 0, AT(&fd))) == AGAIN) {
        CHECK(nonblock);
        if (strcmp(mode, "nonblock") == 0)
            usleep(1000);
        else
            wait_for(listener, POLLIN);
    }
    CHECK(errno_ == 0);
    struct fdstat stat;
    OK(raw_fd_fdstat_get(fd, AT(&stat)));
    CHECK(stat.type == __WASI_FILETYPE_SOCKET_STREAM && stat.flags == (nonblock ? __WASI_FDFLAGS_NONBLOCK : 0));
    return fd;
}

int main(int argc, char **argv)
{
    static char block[65536];
    int named = argc > 1 && strncmp(argv[1], "on:", 3) == 0;
    w32 listener = descriptor(named ? argv[1] + 3 : "in"), n, iov[2] = {AT(block), 8};
    w64 at;
    struct filestat about;
    OK(raw_fd_filestat_get(listener, AT(&about)));
    CHECK(about.type == __WASI_FILETYPE_SOCKET_STREAM);
    EXPECT(raw_sock_recv(listener, AT(iov), 1, 0, AT(&n), AT(block)), NOTCONN, INVAL, BADF, NOTCAPABLE);
    EXPECT(raw_fd_write(listener, AT(iov), 1, AT(&n)), NOTCONN, INVAL, BADF, NOTCAPABLE, PIPE);
    EXPECT(raw_fd_seek(listener, 0, 0, AT(&at)), SPIPE, BADF, NOTCAPABLE);
    EXPECT(raw_path_open(listener, 0, STR("x"), 0, 0, 0, 0, AT(&n)), NOTDIR, BADF, NOTCAPABLE);
    for (int i = 1 + named; i < argc; i++) {
        w32 fd = accept_(listener, argv[i]);
        EXPECT(raw_fd_seek(fd, 0, 0, AT(&at)), SPIPE, BADF, NOTCAPABLE);
        EXPECT(raw_fd_pread(fd, AT(iov), 1, 0, AT(&n)), SPIPE, BADF, NOTCAPABLE, NOTSUP);
        EXPECT(raw_sock_accept(fd, 0, AT(&n)), INVAL, BADF, NOTCAPABLE, NOTSUP);
        if (strcmp(argv[i], "echo") == 0)
            while ((n = get(fd, block, sizeof block)))
                for (w32 done = 0; done < n;)
                    done += put(fd, block + done, n - done);
        else if (strcmp(argv[i], "flags") == 0)
            flags(fd);
        else if (strcmp(argv[i], "close") != 0)
            for (int line = 0; line < 3; line++)
                echo_line(fd, strcmp(argv[i], "block") == 0);
        OK(raw_fd_close(fd));
        EXPECT(raw_fd_read(fd, AT(iov), 1, AT(&n)), BADF);
    }
    printf("%d served\n", argc - 1 - named);
    return 0;
}
