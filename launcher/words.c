#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A longer response file isn't read, as it could hardly be one. */
#define LONGEST_FILE (16 << 20)

void *need(size_t bytes)
{
    void *found = malloc(bytes);
    if (!found) {
        fputs("spark-build: no memory for a command line\n", stderr);
        exit(70);
    }
    return found;
}

void add_word(struct words *list, char *word)
{
    if (list->count + 1 >= list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        char **larger = need(room * sizeof *larger);
        if (list->count)
            memcpy(larger, list->at, list->count * sizeof *larger);
        free(list->at);
        list->at = larger;
        list->room = room;
    }
    list->at[list->count++] = word;
    list->at[list->count] = NULL;
}

char *join(const char *first, const char *second)
{
    size_t before = strlen(first), after = strlen(second) + 1;
    char *joined = need(before + after);
    memcpy(joined, first, before);
    memcpy(joined + before, second, after);
    return joined;
}

bool begins(const char *word, const char *start)
{
    return !strncmp(word, start, strlen(start));
}

bool ends(const char *word, const char *end)
{
    size_t length = strlen(word), tail = strlen(end);
    return length >= tail && !strcmp(word + length - tail, end);
}

bool same(const char *one, const char *other)
{
    return !strcmp(one, other);
}

void execute(char *const *words)
{
    struct words script = {0};
    execv(words[0], words);
    if (errno != ENOEXEC)
        return;
    add_word(&script, "/bin/sh");
    for (; *words; words++)
        add_word(&script, *words);
    execv(script.at[0], script.at);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Takes one word off `*from`, unquoted in place; NULL at the end. */
static char *cut_word(char **from)
{
    char *read = *from, *write, *word;
    char quote = 0;
    while (*read && is_blank(*read))
        read++;
    if (!*read)
        return NULL;
    for (word = write = read; *read && (quote || !is_blank(*read)); read++) {
        if (*read == '\\' && read[1])
            *write++ = *++read;
        else if (quote ? *read == quote : *read == '\'' || *read == '"')
            quote = quote ? 0 : *read;
        else
            *write++ = *read;
    }
    *from = *read ? read + 1 : read;
    *write = 0;
    return word;
}

/* The text of the regular file `path`; NULL where there is none. */
static char *read_whole(const char *path)
{
    struct stat status;
    char *text = NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return NULL;
    if (!fstat(file, &status) && S_ISREG(status.st_mode) && status.st_size <= LONGEST_FILE) {
        size_t size = (size_t)status.st_size, filled = 0;
        text = need(size + 1);
        for (ssize_t got; filled < size && (got = read(file, text + filled, size - filled)) > 0;)
            filled += (size_t)got;
        text[filled] = 0;
    }
    (void)close(file);
    return text;
}

bool add_response_file(struct words *list, const char *path)
{
    char *text = read_whole(path);
    if (!text)
        return false;
    for (char *word; (word = cut_word(&text));)
        add_word(list, word);
    return true;
}
