/* Counts the words of all files in a directory: wordfreq DIRECTORY REPORT [TOP]
 *
 * The full count goes to the file REPORT, one word a line; the TOP most frequent words are printed. A word is a run
 * of letters, in which every byte above 127 counts as a letter, so that UTF-8 text stays whole. */

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_WORD = 64, MAX_PATH = 1024, BAR = 40 };

struct word {
    char *text;
    size_t count;
};

struct table {
    struct word *slots; /* open addressing; the capacity is a power of two */
    size_t capacity, used, words;
};

static void die(const char *what)
{
    fprintf(stderr, "wordfreq: %s: %s\n", what, strerror(errno));
    exit(1);
}

static size_t hash(const char *text)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    while (*text)
        h = (h ^ (unsigned char)*text++) * 16777619u;
    return h;
}

static struct word *find(const struct table *table, const char *text)
{
    size_t i = hash(text);
    while (table->slots[i &= table->capacity - 1].text && strcmp(table->slots[i].text, text) != 0)
        i++;
    return &table->slots[i];
}

static void grow(struct table *table)
{
    struct table larger = {.capacity = table->capacity ? 2 * table->capacity : 1024};

    if (!(larger.slots = calloc(larger.capacity, sizeof *larger.slots)))
        die("out of memory");
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].text)
            *find(&larger, table->slots[i].text) = table->slots[i];
    free(table->slots);
    table->slots = larger.slots;
    table->capacity = larger.capacity;
}

static void count(struct table *table, const char *text)
{
    struct word *word;

    if (4 * (table->used + 1) > 3 * table->capacity)
        grow(table);
    word = find(table, text);
    if (!word->text) {
        if (!(word->text = strdup(text)))
            die("out of memory");
        table->used++;
    }
    word->count++;
    table->words++;
}

static int is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || c >= 128;
}

static void count_file(struct table *table, const char *path)
{
    char word[MAX_WORD + 1];
    size_t length = 0;
    int c;
    FILE *file = fopen(path, "rb");

    if (!file)
        die(path);
    do {
        c = getc(file);
        if (c >= 'A' && c <= 'Z')
            c += 'a' - 'A';
        if (c != EOF && is_letter(c) && length < MAX_WORD) {
            word[length++] = (char)c;
        } else if (length && !(c != EOF && is_letter(c))) {
            word[length] = 0;
            count(table, word);
            length = 0;
        }
    } while (c != EOF);
    if (ferror(file))
        die(path);
    fclose(file);
}

static size_t count_directory(struct table *table, const char *directory)
{
    char path[MAX_PATH];
    struct stat about;
    struct dirent *entry;
    size_t files = 0;
    DIR *open = opendir(directory);

    if (!open)
        die(directory);
    while ((entry = readdir(open))) {
        if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) >= (int)sizeof path) {
            errno = ENAMETOOLONG;
            die(directory);
        }
        if (stat(path, &about) == 0 && S_ISREG(about.st_mode)) {
            count_file(table, path);
            files++;
        }
    }
    closedir(open);
    return files;
}

static int by_count(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->text, y->text);
}

static void sort(struct table *table)
{
    size_t kept = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].text)
            table->slots[kept++] = table->slots[i];
    if (kept)
        qsort(table->slots, kept, sizeof *table->slots, by_count);
}

static void report(const struct table *table, const char *path)
{
    FILE *file = fopen(path, "w");

    if (!file)
        die(path);
    for (size_t i = 0; i < table->used; i++)
        fprintf(file, "%zu\t%s\n", table->slots[i].count, table->slots[i].text);
    if (ferror(file) || fclose(file) != 0)
        die(path);
}

int main(int argc, char **argv)
{
    struct table table = {0};
    size_t files, top = argc > 3 ? strtoul(argv[3], NULL, 10) : 10;

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: wordfreq DIRECTORY REPORT [TOP]\n");
        return 2;
    }
    files = count_directory(&table, argv[1]);
    sort(&table);
    report(&table, argv[2]);
    printf("%zu words, %zu of them different, in %zu files\n", table.words, table.used, files);
    for (size_t i = 0; i < top && i < table.used; i++) {
        int bar = (int)((table.slots[i].count * BAR + table.slots[0].count - 1) / table.slots[0].count);
        printf("%6zu  %-12s ", table.slots[i].count, table.slots[i].text);
        while (bar--)
            putchar('#');
        putchar('\n');
    }
    return 0;
}
