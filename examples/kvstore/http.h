/* Reads one HTTP/1.1 request head (RFC 9112). No input or output, no memory of its own. */

#ifndef HTTP_H
#define HTTP_H

#include <stddef.h>
#include <string.h>
#include <strings.h>

enum { HTTP_MAX_HEAD = 8 * 1024, HTTP_MAX_TARGET = 1024, HTTP_MAX_BODY = 256 * 1024, HTTP_INCOMPLETE = -1 };

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_PUT, HTTP_DELETE, HTTP_OTHER };

struct http_request {
    enum http_method method;
    const char *target; /* the path, into the bytes that were parsed */
    size_t target_length;
    size_t head_length, body_length;
    int has_length, has_host, close, expects_continue;
};

static const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"}, {201, "Created"}, {204, "No Content"}, {400, "Bad Request"}, {404, "Not Found"},
        {405, "Method Not Allowed"}, {411, "Length Required"}, {413, "Content Too Large"}, {414, "URI Too Long"},
        {417, "Expectation Failed"}, {431, "Request Header Fields Too Large"}, {501, "Not Implemented"},
        {505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Error";
}

static int http_is_token_char(unsigned char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        return 1;
    return c && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static size_t http_token_length(const char *text, const char *end)
{
    size_t length = 0;
    while (text + length < end && http_is_token_char((unsigned char)text[length]))
        length++;
    return length;
}

static int http_is(const char *text, size_t length, const char *word)
{
    return length == strlen(word) && strncasecmp(text, word, length) == 0;
}

/* Whether a comma-separated list holds a word. */
static int http_lists(const char *value, size_t length, const char *word)
{
    const char *end = value + length;

    while (value < end) {
        size_t token = http_token_length(value, end);
        if (http_is(value, token, word))
            return 1;
        value += token ? token : 1;
    }
    return 0;
}

/* Content-Length decides where the next request begins, so it is read without any leniency. */
static int http_read_length(const char *value, size_t length, struct http_request *request)
{
    size_t number = 0;

    if (length == 0 || request->has_length)
        return 400;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 400;
        if (number <= HTTP_MAX_BODY)
            number = 10 * number + (size_t)(value[i] - '0');
    }
    request->has_length = 1;
    request->body_length = number;
    return 0;
}

static int http_read_field(const char *line, const char *end, struct http_request *request)
{
    size_t name = http_token_length(line, end);
    const char *value = line + name + 1;

    if (name == 0 || line + name == end || line[name] != ':') /* also a folded line or a space before the colon */
        return 400;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    size_t length = (size_t)(end - value);
    for (size_t i = 0; i < length; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            return 400;

    if (http_is(line, name, "content-length"))
        return http_read_length(value, length, request);
    if (http_is(line, name, "transfer-encoding"))
        return 501;
    if (http_is(line, name, "host"))
        return request->has_host++ ? 400 : 0;
    if (http_is(line, name, "connection"))
        request->close |= http_lists(value, length, "close");
    if (http_is(line, name, "expect")) {
        if (!http_is(value, length, "100-continue"))
            return 417;
        request->expects_continue = 1;
    }
    return 0;
}

/* "METHOD SP target SP HTTP/1.x", and nothing that could be read in two ways. */
static int http_read_request_line(const char *line, const char *end, struct http_request *request, int *minor)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE"};
    size_t method = http_token_length(line, end);
    const char *target = line + method + 1, *stop = target;

    if (method == 0 || target >= end || line[method] != ' ')
        return 400;
    for (request->method = HTTP_GET; request->method < HTTP_OTHER; request->method++)
        if (method == strlen(methods[request->method]) && memcmp(line, methods[request->method], method) == 0)
            break;
    while (stop < end && *stop > 0x20 && *stop < 0x7f)
        stop++;
    if (end - stop != 9 || memcmp(stop, " HTTP/", 6) != 0 || stop[7] != '.')
        return 400;
    if (stop[6] != '1' || stop[8] < '0' || stop[8] > '9')
        return 505;
    *minor = stop[8] - '0';
    for (const char *scheme = "http://"; scheme; scheme = strcmp(scheme, "http://") == 0 ? "https://" : NULL) {
        size_t length = strlen(scheme);
        if ((size_t)(stop - target) > length && strncasecmp(target, scheme, length) == 0) {
            const char *path = memchr(target + length, '/', (size_t)(stop - target) - length);
            target = path ? path : stop;
        }
    }
    request->target = target;
    request->target_length = (size_t)(stop - target);
    return request->target_length > HTTP_MAX_TARGET ? 414 : 0;
}

/* Returns 0 and fills in `request`, HTTP_INCOMPLETE when more bytes must come, or the status of the refusal. */
static int http_parse(const char *data, size_t length, struct http_request *request)
{
    const char *line = data, *stop = data + (length < HTTP_MAX_HEAD ? length : HTTP_MAX_HEAD), *end;
    int status, minor = 0;

    memset(request, 0, sizeof *request);
    while ((end = memchr(line, '\n', (size_t)(stop - line)))) {
        if (end == line || end[-1] != '\r')
            return 400;
        const char *text_end = end - 1;
        if (line == data) {
            if ((status = http_read_request_line(line, text_end, request, &minor)))
                return status;
        } else if (line == text_end) {
            request->head_length = (size_t)(end + 1 - data);
            if (request->has_host != 1 && minor > 0)
                return 400;
            request->close |= minor == 0;
            return request->body_length > HTTP_MAX_BODY ? 413 : 0;
        } else if ((status = http_read_field(line, text_end, request))) {
            return status;
        }
        line = end + 1;
    }
    return length >= HTTP_MAX_HEAD ? 431 : HTTP_INCOMPLETE;
}

#endif
