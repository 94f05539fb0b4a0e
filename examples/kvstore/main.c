/* A key-value store that speaks HTTP/1.1: GET, HEAD, PUT and DELETE /k/NAME.
 *
 * The listener is the descriptor that Enarx.toml names "http". One loop serves all connections; nothing in it waits
 * but poll(). Clients are not trusted: what may be ambiguous is refused, everything that grows has a limit, and a
 * client that makes no progress is dropped. Framing follows RFC 9112. */

#include "http.h"
#include "store.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

enum {
    MAX_CONNECTIONS = 256,
    READ_STEP = 16 * 1024,
    MAX_PENDING = 256 * 1024, /* unsent answers after which a connection's further requests wait */
    DEADLINE_S = 30,          /* to send one complete request, or to take in more of the answers */
    LINGER_S = 2,             /* to read the final answer before the connection is cut */
};

struct buffer {
    char *data;
    size_t start, end, capacity;
};

struct connection {
    int fd;
    struct buffer in, out;
    int eof;       /* the peer has sent its last byte */
    int last;      /* no further request is served after this answer */
    int continued; /* "100 Continue" went out for the request that is being read */
    int lingering; /* everything is sent; the peer's rest is read and forgotten */
    time_t deadline;
};

static struct connection *connections[MAX_CONNECTIONS];
static size_t open_connections;
static time_t now_s;

static size_t held(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* Makes room for `more` bytes behind the data; returns where they go, or NULL when memory is short. */
static char *reserve(struct buffer *buffer, size_t more)
{
    if (buffer->start) {
        memmove(buffer->data, buffer->data + buffer->start, held(buffer));
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->end + more > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : READ_STEP;
        char *data;

        while (capacity < buffer->end + more)
            capacity *= 2;
        if (!(data = realloc(buffer->data, capacity)))
            return NULL;
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->end;
}

static void put(struct connection *connection, const void *data, size_t length)
{
    char *room = reserve(&connection->out, length);

    if (!room) { /* half an answer is no answer */
        connection->last = 1;
        return;
    }
    if (length)
        memcpy(room, data, length);
    connection->out.end += length;
}

/* Queues an answer; `body` stays out of it for HEAD, but its length is told. */
static void answer(struct connection *connection, int status, const char *extra, const void *body, size_t length,
                   int head)
{
    char text[512], date[64];
    int size;

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now_s));
    size = snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nDate: %s\r\n%s", status, http_reason(status), date, extra);
    if (status != 204)
        size += snprintf(text + size, sizeof text - (size_t)size, "Content-Length: %zu\r\n", length);
    size += snprintf(text + size, sizeof text - (size_t)size, "%s\r\n", connection->last ? "Connection: close\r\n" : "");
    if (!reserve(&connection->out, (size_t)size + length)) {
        connection->last = 1;
        return;
    }
    put(connection, text, (size_t)size);
    if (!head)
        put(connection, body, length);
}

static void fail(struct connection *connection, int status, const char *extra, int head)
{
    char body[64];
    int length = snprintf(body, sizeof body, "%s\n", http_reason(status));
    char fields[128];

    snprintf(fields, sizeof fields, "Content-Type: text/plain\r\n%s", extra);
    answer(connection, status, fields, body, (size_t)length, head);
}

static void serve(struct connection *connection, const struct http_request *request, const char *body)
{
    static const char kind[] = "Content-Type: application/octet-stream\r\n";
    int head = request->method == HTTP_HEAD;
    const struct store_value *value;

    if (request->target_length < 3 || memcmp(request->target, "/k/", 3) != 0) {
        fail(connection, 404, "", head);
        return;
    }
    const char *name = request->target + 3;
    size_t length = request->target_length - 3;
    if (!store_name_is_valid(name, length)) {
        fail(connection, 400, "", head);
        return;
    }
    switch (request->method) {
    case HTTP_GET:
    case HTTP_HEAD:
        if ((value = store_get(name, length)))
            answer(connection, 200, kind, value->data, value->length, head);
        else
            fail(connection, 404, "", head);
        return;
    case HTTP_PUT:
        if (!request->has_length) {
            fail(connection, 411, "", 0);
            return;
        }
        switch (store_put(name, length, body, request->body_length)) {
        case STORE_NEW:
            answer(connection, 201, "", NULL, 0, 0);
            return;
        case STORE_REPLACED:
            answer(connection, 204, "", NULL, 0, 0);
            return;
        case STORE_FULL:
            fail(connection, 507, "", 0);
            return;
        }
        return;
    case HTTP_DELETE:
        if (store_delete(name, length))
            answer(connection, 204, "", NULL, 0, 0);
        else
            fail(connection, 404, "", 0);
        return;
    case HTTP_OTHER:
        fail(connection, 405, "Allow: GET, HEAD, PUT, DELETE\r\n", 0);
        return;
    }
}

/* Serves the requests that are complete, in their order; returns whether more may be, which wait for room. */
static int serve_complete(struct connection *connection)
{
    struct buffer *in = &connection->in;

    while (!connection->last) {
        struct http_request request;
        const char *data = in->data + in->start;

        while (held(in) && !connection->continued && (*data == '\r' || *data == '\n')) { /* RFC 9112, section 2.2 */
            in->start++;
            data++;
        }
        if (!held(in))
            return 0;
        if (held(&connection->out) >= MAX_PENDING)
            return 1;
        int status = http_parse(data, held(in), &request);
        if (status == HTTP_INCOMPLETE)
            return 0;
        if (status) { /* where the next request would begin is unknown */
            connection->last = 1;
            fail(connection, status, "", 0);
            return 0;
        }
        if (held(in) - request.head_length < request.body_length) {
            if (request.expects_continue && !connection->continued) {
                static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
                put(connection, go_on, sizeof go_on - 1);
                connection->continued = 1;
            }
            return 0;
        }
        connection->last |= request.close;
        serve(connection, &request, data + request.head_length);
        in->start += request.head_length + request.body_length;
        connection->continued = 0;
        connection->deadline = now_s + DEADLINE_S;
    }
    return 0;
}

static int would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* Reads what is there, up to one step; returns 0 at the end of the stream and -1 when the connection broke. */
static int receive(struct connection *connection)
{
    char *room = reserve(&connection->in, READ_STEP);
    ssize_t got;

    if (!room)
        return -1;
    got = read(connection->fd, room, READ_STEP);
    if (got > 0 && !connection->lingering)
        connection->in.end += (size_t)got;
    if (got < 0)
        return would_block() ? 1 : -1;
    return got > 0;
}

static int transmit(struct connection *connection)
{
    struct buffer *out = &connection->out;

    while (held(out)) {
        ssize_t sent = write(connection->fd, out->data + out->start, held(out));
        if (sent < 0)
            return would_block();
        out->start += (size_t)sent;
        connection->deadline = now_s + DEADLINE_S;
    }
    return 1;
}

static int wants_input(const struct connection *connection)
{
    if (connection->lingering)
        return 1;
    return !connection->last && !connection->eof && held(&connection->out) < MAX_PENDING;
}

/* One turn of a ready connection; returns whether it lives on. */
static int turn(struct connection *connection, int readable)
{
    int more;

    if (readable && wants_input(connection)) {
        int got = receive(connection);
        if (got < 0 || (got == 0 && connection->lingering))
            return 0;
        connection->eof |= got == 0;
    }
    do {
        more = serve_complete(connection);
        if (!transmit(connection))
            return 0;
    } while (more && held(&connection->out) < MAX_PENDING);
    if (more || held(&connection->out) || connection->lingering)
        return 1;
    if (connection->eof)
        return 0;
    if (connection->last) { /* closing at once could destroy the answer on its way (RFC 9112, section 9.6) */
        connection->lingering = 1;
        connection->in.start = connection->in.end = 0;
        connection->deadline = now_s + LINGER_S;
        return shutdown(connection->fd, SHUT_WR) == 0;
    }
    return 1;
}

static void drop(size_t at)
{
    struct connection *connection = connections[at];

    close(connection->fd);
    free(connection->in.data);
    free(connection->out.data);
    free(connection);
    connections[at] = connections[--open_connections];
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
            fprintf(stderr, "kvstore: accept: %s\n", strerror(error));
            exit(1);
        }
        if (!(connection = calloc(1, sizeof *connection))) {
            close((int)fd);
            return;
        }
        connection->fd = (int)fd;
        connection->deadline = now_s + DEADLINE_S;
        connections[open_connections++] = connection;
    }
}

static void tell_time(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    now_s = now.tv_sec;
}

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
    fprintf(stderr, "kvstore: Enarx.toml has no file named \"%s\"\n", name);
    exit(1);
}

int main(void)
{
    static struct pollfd ready[1 + MAX_CONNECTIONS];
    int listener = descriptor("http");

    if (__wasi_fd_fdstat_set_flags((__wasi_fd_t)listener, __WASI_FDFLAGS_NONBLOCK) != __WASI_ERRNO_SUCCESS) {
        fprintf(stderr, "kvstore: descriptor %d cannot be made non-blocking\n", listener);
        return 1;
    }
    tell_time();
    fprintf(stderr, "kvstore: listening on descriptor %d\n", listener);
    for (;;) {
        size_t polled = open_connections;

        for (size_t i = 0; i < polled; i++) {
            int events = (wants_input(connections[i]) ? POLLIN : 0) | (held(&connections[i]->out) ? POLLOUT : 0);
            ready[i] = (struct pollfd){.fd = connections[i]->fd, .events = (short)events};
        }
        ready[polled] = (struct pollfd){.fd = listener, .events = POLLIN};
        if (poll(ready, polled + (polled < MAX_CONNECTIONS), polled ? 1000 : -1) < 0) {
            perror("kvstore: poll");
            return 1;
        }
        tell_time();
        for (size_t i = polled; i-- > 0;) { /* backwards, because drop() fills the gap from the end */
            int alive = now_s <= connections[i]->deadline;
            if (alive && ready[i].revents)
                alive = turn(connections[i], (ready[i].revents & ~POLLOUT) != 0);
            if (!alive)
                drop(i);
        }
        if (polled < MAX_CONNECTIONS && ready[polled].revents)
            accept_all(listener);
    }
}
