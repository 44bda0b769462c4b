/* Digests of 64 bits, FNV-1a: for telling units apart, not for keeping anybody out. */
#pragma once

#include "arguments.h"

#define DIGEST_START 14695981039346656037ULL

void mix(unsigned long long *digest, const char *text, size_t length);

/* Of the options that change what the compiler has to do. It leaves out the names of inputs and outputs, dependency files, where
 * headers and libraries are searched, how messages look, macros that hold a version, threads where they have no effect, and
 * `root` wherever it stands; that may be NULL. Response files are in `words` already. */
unsigned long long digest_of(const struct command *command, char *const *words, const char *root);
