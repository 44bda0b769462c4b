/* How each family of compilers spells its options: which take a value, and where that stands. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum family { UNKNOWN, GCC, NVCC, RUSTC, LINKER, CACHE };

/* By the name of the program: a triplet before it, a version behind it and a folder don't matter. CACHE is ccache or sccache. */
enum family family_of(const char *program);

/* One option of a command line, or an input. `name` is the option as written without its value ("-o", "--threads"), NULL for
 * an input; `value` is NULL for an option that has none, and the input itself for an input. `words` counts what it took. */
struct option {
    char name[48];
    bool input, separate;
    const char *value;
    size_t words;
};

/* Read what begins at `at[0]`; `at` ends with NULL and isn't empty. */
struct option read_option(enum family family, char *const *at);

/* Is it this option of nvcc, by its long or short name? Both are given without dashes, either may be NULL. */
bool named(const struct option *option, const char *long_name, const char *short_name);
