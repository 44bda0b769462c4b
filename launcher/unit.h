/* One compile or link as the broker and its history know it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "arguments.h"

struct unit {
    char kind[8];
    char source[512]; /* relative to the source tree, else to the build tree, else absolute */
    char object[256]; /* its last two path parts */
    char flags[20];
    char name[128];   /* as people are shown it */
    char command[304];
    int slots;
    bool once; /* it can't be run again */
};

/* `root` is the build tree, NULL where there is none. */
void describe(struct unit *unit, const struct command *command, char *const *words, const char *root);

/* A text of one line for each field, for the environment of the compile cache's prefix; and back: false where it is none. */
const char *unit_text(const struct unit *unit);
bool read_unit(struct unit *unit, const char *text);
