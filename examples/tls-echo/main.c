/* Sends back every byte that a client sends, on many connections at once.
 *
 * The listener is the descriptor that Enarx.toml names "echo". TLS ends in the keep, below this program: it reads and
 * writes plain bytes. With an argument N the server ends after N connections have been served, otherwise never. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/api.h>

enum { MAX_CONNECTIONS = 256, BUFFER = 16 * 1024, TURNS = 16 };

struct connection {
    int fd;
    size_t start, end; /* the bytes still to be sent back */
    int eof;
    char data[BUFFER];
};

static struct connection *connections[MAX_CONNECTIONS];
static size_t open_connections, served;

/* FD_NAMES lists the names of all descriptors in order, separated by colons. */
static int descriptor(const char *name)
{
    const char *names = getenv("FD_NAMES");
    size_t length = strlen(name);

    for (int fd = 0; names; fd++) {
        if (strncmp(names, name, length) == 0 && (names[length] == ':' || names[length] == 0))
            return fd;
        if ((names = strchr(names, ':')))
            names++;
    }
    fprintf(stderr, "tls-echo: Enarx.toml has no file named \"%s\"\n", name);
    exit(1);
}

static void accept_all(int listener)
{
    while (open_connections < MAX_CONNECTIONS) {
        struct connection *connection;
        __wasi_fd_t fd;
        __wasi_errno_t error = __wasi_sock_accept(listener, __WASI_FDFLAGS_NONBLOCK, &fd);

        if (error == __WASI_ERRNO_AGAIN || error == __WASI_ERRNO_CONNABORTED)
            return;
        if (error != __WASI_ERRNO_SUCCESS) {
            fprintf(stderr, "tls-echo: accept: %s\n", strerror(error));
            exit(1);
        }
        if (!(connection = malloc(sizeof *connection))) {
            close((int)fd);
            return;
        }
        connection->fd = (int)fd;
        connection->start = connection->end = 0;
        connection->eof = 0;
        connections[open_connections++] = connection;
    }
}

static void finish(size_t at)
{
    close(connections[at]->fd);
    free(connections[at]);
    connections[at] = connections[--open_connections];
    served++;
}

static int would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* Moves what can be moved without waiting; returns whether the connection lives on. */
static int pump(struct connection *connection)
{
    for (int turn = 0; turn < TURNS; turn++) { /* then it is the others' turn */
        ssize_t moved;

        if (connection->start < connection->end) {
            moved = write(connection->fd, connection->data + connection->start, connection->end - connection->start);
            if (moved < 0)
                return would_block();
            connection->start += (size_t)moved;
        } else if (connection->eof) {
            return 0;
        } else {
            moved = read(connection->fd, connection->data, sizeof connection->data);
            if (moved < 0)
                return would_block();
            connection->eof = moved == 0;
            connection->start = 0;
            connection->end = (size_t)moved;
        }
    }
    return 1;
}

int main(int argc, char **argv)
{
    static struct pollfd ready[1 + MAX_CONNECTIONS];
    size_t limit = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    int listener = descriptor("echo");

    if (__wasi_fd_fdstat_set_flags((__wasi_fd_t)listener, __WASI_FDFLAGS_NONBLOCK) != __WASI_ERRNO_SUCCESS) {
        fprintf(stderr, "tls-echo: descriptor %d cannot be made non-blocking\n", listener);
        return 1;
    }
    fprintf(stderr, "tls-echo: listening on descriptor %d\n", listener);
    while (!limit || served < limit) {
        size_t polled = open_connections;

        for (size_t i = 0; i < polled; i++) {
            int pending = connections[i]->start < connections[i]->end;
            ready[i] = (struct pollfd){.fd = connections[i]->fd, .events = pending ? POLLOUT : POLLIN};
        }
        ready[polled] = (struct pollfd){.fd = listener, .events = POLLIN};
        if (poll(ready, polled + (polled < MAX_CONNECTIONS), -1) < 0) {
            perror("tls-echo: poll");
            return 1;
        }
        for (size_t i = polled; i-- > 0;) /* backwards, because finish() fills the gap from the end */
            if (ready[i].revents && !pump(connections[i]))
                finish(i);
        if (polled < MAX_CONNECTIONS && ready[polled].revents)
            accept_all(listener);
    }
    fprintf(stderr, "tls-echo: served %zu connections\n", served);
    return 0;
}
