/* Replaces each letter of standard input by the one thirteen places on. Doing it twice gives the text back. */

#include <stdio.h>

static int rotate(int c)
{
    if (c >= 'a' && c <= 'z')
        return 'a' + (c - 'a' + 13) % 26;
    if (c >= 'A' && c <= 'Z')
        return 'A' + (c - 'A' + 13) % 26;
    return c;
}

int main(void)
{
    static unsigned char text[64 * 1024];
    size_t length;

    while ((length = fread(text, 1, sizeof text, stdin)) > 0) {
        for (size_t i = 0; i < length; i++)
            text[i] = (unsigned char)rotate(text[i]);
        if (fwrite(text, 1, length, stdout) != length)
            break;
    }
    if (ferror(stdin) || ferror(stdout) || fflush(stdout) != 0) {
        perror("rot13");
        return 1;
    }
    return 0;
}
