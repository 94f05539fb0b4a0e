/* Runs programs of this folder one after another, in one workload: sequence NAME ARGUMENT... -- NAME ARGUMENT...
 *
 * Each finds an empty file system and no descriptor of the one before it, and tells by its name that its turn has come.
 * parts.h, which the build writes, declares the main functions and lists them in `parts`. */
#include "check.h"
#include "parts.h"
#include <dirent.h>
#include <unistd.h>

enum { DESCRIPTORS = 4096, FIRST = 64 };
static unsigned char ours[FIRST];

/* Directories that were delivered are not ours to empty: what cannot be removed stays. */
static void empty(const char *path)
{
    char inner[512];
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(inner, sizeof inner, "%s%s%s", path, path[1] ? "/" : "", entry->d_name);
        if (unlink(inner) != 0) {
            empty(inner);
            rmdir(inner);
        }
    }
    if (folder)
        closedir(folder);
}

static void clean_up(void)
{
    for (w32 fd = 0; fd < DESCRIPTORS; fd++)
        if (fd >= FIRST || !ours[fd])
            raw_fd_close(fd);
    empty("/");
}

static int run(int argc, char **argv)
{
    for (size_t at = 0; at < sizeof parts / sizeof *parts; at++) {
        if (strcmp(parts[at].name, argv[0]) == 0) {
            char *last = argv[argc];
            argv[argc] = NULL;
            int code = parts[at].call(argc, argv);
            argv[argc] = last;
            return code;
        }
    }
    fprintf(stderr, "there is no part %s\n", argv[0]);
    return 1;
}

int main(int argc, char **argv)
{
    struct fdstat about;
    for (w32 fd = 0; fd < FIRST; fd++)
        ours[fd] = raw_fd_fdstat_get(fd, AT(&about)) == 0;
    for (int at = 1, end; at < argc; at = end + 1) {
        for (end = at; end < argc && strcmp(argv[end], "--") != 0;)
            end++;
        printf("== %s\n", argv[at]);
        fflush(stdout);
        int code = run(end - at, argv + at);
        fflush(stdout);
        if (code != 0) {
            fprintf(stderr, "%s: ended with %d\n", argv[at], code);
            return code;
        }
        clean_up();
    }
    return 0;
}
