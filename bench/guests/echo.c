/* The workload of bench/tls.py: accepts on descriptor 3, which speaks TLS outside, and echoes, blocking. */
#include <unistd.h>
#include <wasi/api.h>

int main(void)
{
    static char buffer[65536];
    for (;;) {
        __wasi_fd_t fd;
        if (__wasi_sock_accept(3, 0, &fd) != 0)
            return 1;
        ssize_t size;
        while ((size = read((int)fd, buffer, sizeof buffer)) > 0)
            for (ssize_t done = 0, n; done < size; done += n)
                if ((n = write((int)fd, buffer + done, (size_t)(size - done))) <= 0)
                    return 2;
        close((int)fd);
    }
}
