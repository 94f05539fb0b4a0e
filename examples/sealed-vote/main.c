/* Counts secret ballots and tells the total only: sealed-vote QUORUM CHOICE CHOICE...
 *
 * A ballot is one line of the secret "ballots", or without one of standard input: "VOTER CHOICE SECRET". A voter's first valid ballot counts. Out come the
 * total and, in the order of their digits, receipts: the SHA-256 of each counted line. Voters can find their own,
 * which shows that their ballot was counted unchanged; without the SECRET nobody can tell whose a receipt is or
 * what it stands for. Below the quorum nothing is told, since the total of a few ballots gives each of them away. */

#include "sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BALLOTS = 100000, MAX_CHOICES = 32, MAX_LINE = 256, MIN_SECRET = 8, RECEIPT = 8, BAR = 30 };

struct ballot {
    char *voter;
    int choice;
    unsigned char receipt[RECEIPT];
};

static struct ballot *ballots[MAX_BALLOTS];
static size_t counted, refused;
static FILE *input;

static int by_voter(const void *a, const void *b)
{
    const struct ballot *const *x = a, *const *y = b;
    return strcmp((*x)->voter, (*y)->voter);
}

static int by_receipt(const void *a, const void *b)
{
    const struct ballot *const *x = a, *const *y = b;
    return memcmp((*x)->receipt, (*y)->receipt, RECEIPT);
}

/* Reads one ballot; returns NULL when it is malformed or names no choice. */
static struct ballot *parse(char *line, char **choices, int number)
{
    unsigned char digest[32];
    char *voter, *choice, *secret;
    struct ballot *ballot;

    sha256(line, strlen(line), digest);
    if (!(voter = strtok(line, " ")) || !(choice = strtok(NULL, " ")) || !(secret = strtok(NULL, " ")))
        return NULL;
    if (strtok(NULL, " ") || strlen(secret) < MIN_SECRET)
        return NULL;
    for (int i = 0; i < number; i++) {
        if (strcmp(choice, choices[i]) != 0)
            continue;
        if (!(ballot = malloc(sizeof *ballot)) || !(ballot->voter = strdup(voter))) {
            fprintf(stderr, "sealed-vote: out of memory\n");
            exit(1);
        }
        ballot->choice = i;
        memcpy(ballot->receipt, digest, RECEIPT);
        return ballot;
    }
    return NULL;
}

static void read_ballots(char **choices, int number)
{
    static char line[MAX_LINE + 2];

    while (fgets(line, sizeof line, input)) {
        size_t length = strcspn(line, "\r\n");
        struct ballot *ballot;
        int whole = line[length] != 0 || feof(input);

        line[length] = 0;
        for (int c = 0; !whole && c != '\n' && c != EOF;) /* a line without end is one ballot, not many */
            c = getc(input);
        if (length == 0)
            continue;
        if (whole && counted < MAX_BALLOTS && (ballot = parse(line, choices, number)))
            ballots[counted++] = ballot;
        else
            refused++;
    }
}

/* Keeps the first ballot of each voter. The sort is a stable one: equal voters stay in the order of arrival. */
static void refuse_second_ballots(void)
{
    size_t kept = 0;

    for (size_t width = 1; width < counted; width *= 2) {
        static struct ballot *merged[MAX_BALLOTS];
        for (size_t at = 0; at < counted; at += 2 * width) {
            size_t left = at, middle = at + width < counted ? at + width : counted, right = middle;
            size_t end = middle + width < counted ? middle + width : counted;
            for (size_t i = at; i < end; i++) {
                int take_left = left < middle && (right == end || by_voter(&ballots[left], &ballots[right]) <= 0);
                merged[i] = ballots[take_left ? left++ : right++];
            }
        }
        memcpy(ballots, merged, counted * sizeof *ballots);
    }
    for (size_t i = 0; i < counted; i++) {
        if (kept && by_voter(&ballots[kept - 1], &ballots[i]) == 0)
            refused++;
        else
            ballots[kept++] = ballots[i];
    }
    counted = kept;
}

static void print_result(char **choices, int number)
{
    size_t totals[MAX_CHOICES] = {0}, most = 1;

    for (size_t i = 0; i < counted; i++)
        totals[ballots[i]->choice]++;
    for (int i = 0; i < number; i++)
        most = totals[i] > most ? totals[i] : most;
    printf("%zu ballots counted, %zu refused\n\n", counted, refused);
    for (int i = 0; i < number; i++) {
        printf("  %-12s %6zu  ", choices[i], totals[i]);
        for (size_t bar = (totals[i] * BAR + most - 1) / most; bar > 0; bar--)
            putchar('#');
        putchar('\n');
    }
    printf("\nreceipts:\n");
    qsort(ballots, counted, sizeof *ballots, by_receipt);
    for (size_t i = 0; i < counted; i++) {
        printf(i % 4 ? " " : "  ");
        for (int j = 0; j < RECEIPT; j++)
            printf("%02x", ballots[i]->receipt[j]);
        if (i % 4 == 3 || i + 1 == counted)
            putchar('\n');
    }
}

int main(int argc, char **argv)
{
    size_t quorum = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    int number = argc - 2;

    if (quorum < 2 || number < 2 || number > MAX_CHOICES) {
        fprintf(stderr, "usage: sealed-vote QUORUM CHOICE CHOICE... (a quorum of 2 or more, 2 to %d choices)\n", MAX_CHOICES);
        return 2;
    }
    if (!(input = fopen("/run/secrets/ballots", "r")))
        input = stdin;
    read_ballots(argv + 2, number);
    refuse_second_ballots();
    if (counted < quorum) {
        printf("the urn stays sealed: %zu ballots, quorum %zu\n", counted, quorum);
        return 3;
    }
    print_result(argv + 2, number);
    return 0;
}
