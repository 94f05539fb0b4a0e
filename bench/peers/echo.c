/* The C peer of bench/tls.py: a TLS 1.3 echo server for one connection at a time. Usage: echo PORT CERTIFICATE KEY */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[65536];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (argc != 4 || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)
        || SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1
        || SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    address.sin_port = htons(atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128))
        return 2;
    for (;;) {
        int size, fd = accept(listener, NULL, NULL);
        SSL *connection = SSL_new(context);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        SSL_set_fd(connection, fd);
        if (SSL_accept(connection) == 1)
            while ((size = SSL_read(connection, buffer, sizeof buffer)) > 0)
                SSL_write(connection, buffer, size);
        SSL_free(connection);
        close(fd);
    }
}
