/* What a compiler's command line asks for. Nothing is run, and no file is read but response files. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "options.h"

/* PASS is whatever makes no object worth waiting for: version questions, preprocessing, dependencies, no input, and the probes
 * by which configure steps find out about compilers. */
enum action { PASS, COMPILE, LINK };

struct command {
    enum family family;
    enum action action;
    const char *kind;   /* cu, cxx, c, rust, link or other */
    const char *source; /* the first one as written, "" where there is none */
    const char *object; /* as written, or the name that the compiler takes by itself; "" where it can't be known */
    int sources, inputs;
    int slots;          /* how many cores it can use at once */
    int architectures;  /* of a CUDA compile, that nvcc works on one beside the other */
    bool cacheable;     /* one source to one object and nothing else, of a kind that the compile cache knows */
    bool reads_stdin;   /* so it can't be run twice */
    unsigned long long flags;
};

/* `words[0]` is the compiler; the list ends with NULL. Strings in the result are parts of `words`, or live on. `root` is the
 * build tree, NULL where there is none; what goes into `flags` is told at `digest_of`. */
struct command understand(char *const *words, const char *root);

/* The words as they go to the compile cache, `words` itself where nothing has to be changed; NULL where they would have to be,
 * and are too many without their response file: such a command goes without the cache. Same object, better keys:
 *   -MMD becomes -MD             else the cache doesn't see headers found by -isystem, and returns old objects
 *   -Xcompiler X becomes -Xcompiler=X, and --compiler-options likewise    else X isn't in the key of ccache's preprocessed mode
 *   nvcc's --threads goes where there is one architecture, on which it has no effect
 * A response file that holds one of these is replaced by its words. */
char *const *for_cache(const struct command *command, char *const *words);
