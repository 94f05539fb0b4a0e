/* Looks for more than it was given and says what it found: snoop [PATH...]
 *
 * It tries to read files that every machine has (and each PATH), lists the root directory, and counts its environment
 * variables and its sockets. The exit code is 0 when there is nothing to see, 1 when there is. */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <wasi/api.h>

extern char **environ;

enum { DESCRIPTORS = 4096 };

static int found;

static void try_to_read(const char *path)
{
    FILE *file = fopen(path, "r");

    if (!file) {
        printf("read %s: %s\n", path, strerror(errno));
        return;
    }
    printf("read %s: it opens\n", path);
    found = 1;
    fclose(file);
}

static void list_root(void)
{
    DIR *root = opendir("/");
    struct dirent *entry;

    if (!root) {
        printf("list /: %s\n", strerror(errno));
        return;
    }
    printf("list /:");
    while ((entry = readdir(root))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        printf(" %s", entry->d_name);
        found |= strcmp(entry->d_name, "dev") != 0; /* every keep has /dev/null */
    }
    putchar('\n');
    closedir(root);
}

static void count_variables(void)
{
    int variables = 0;

    for (char **variable = environ; *variable; variable++)
        variables += strncmp(*variable, "FD_", 3) != 0; /* FD_COUNT and FD_NAMES describe what was given */
    printf("environment: %d variables\n", variables);
    found |= variables > 0;
}

static void count_sockets(void)
{
    int sockets = 0;

    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        __wasi_fdstat_t status;
        if (__wasi_fd_fdstat_get(fd, &status) == __WASI_ERRNO_SUCCESS)
            sockets += status.fs_filetype == __WASI_FILETYPE_SOCKET_STREAM
                       || status.fs_filetype == __WASI_FILETYPE_SOCKET_DGRAM;
    }
    printf("network: %d sockets, and WASI has no call that opens one\n", sockets);
    found |= sockets > 0;
}

int main(int argc, char **argv)
{
    try_to_read("/etc/passwd");
    try_to_read("/../../../etc/passwd");
    try_to_read("/proc/self/environ");
    for (int at = 1; at < argc; at++)
        try_to_read(argv[at]);
    list_root();
    count_variables();
    count_sockets();
    return found;
}
