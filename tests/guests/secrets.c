/* Shows the secrets that it was given, as files and as variables. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int main(void) {
    char *names[16];
    int count = 0;
    DIR *folder = opendir("/run/secrets");
    if (!folder) {
        perror("/run/secrets");
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(folder)) && count < 16;)
        if (entry->d_name[0] != '.') names[count++] = strdup(entry->d_name);
    qsort(names, (size_t)count, sizeof *names, by_name);
    for (int at = 0; at < count; at++) {
        char path[256], text[256] = "";
        snprintf(path, sizeof path, "/run/secrets/%s", names[at]);
        FILE *file = fopen(path, "r");
        if (!file) {
            perror(path);
            return 1;
        }
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        printf("%s %s\n", path, text);
    }
    for (int at = 0; at < count; at++)
        if (getenv(names[at])) printf("%s=%s\n", names[at], getenv(names[at]));
    puts(fopen("/run/secrets/new", "w") ? "writable" : "not writable");
    return 0;
}
