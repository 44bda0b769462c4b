/* Lists of command line words, and response files. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* `at[count]` is NULL, so that it can be handed to execv(3). Words are never freed: the process ends soon, or becomes another. */
struct words {
    char **at;
    size_t count, room;
};

void add_word(struct words *list, char *word);

/* The bytes that were asked for; ends the process with 70 where there are none. */
void *need(size_t bytes);
char *join(const char *first, const char *second);
bool begins(const char *word, const char *start);
bool ends(const char *word, const char *end);
bool same(const char *one, const char *other);

/* Become the program at `words[0]`; what the kernel can't run is a script for /bin/sh, as it is for execvp(3). Returns only
 * where that fails, with errno set. */
void execute(char *const *words);

/* Append the words of the response file `path`; false, with nothing appended, where it can't be read. Quoting is GCC's
 * (buildargv of libiberty): blanks separate, a backslash takes the next character as it is, quotes keep blanks. nvcc reads its
 * files likewise. */
bool add_response_file(struct words *list, const char *path);
