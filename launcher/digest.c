#include "digest.h"

#include <stdlib.h>
#include <string.h>

#include "words.h"

void mix(unsigned long long *digest, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        *digest = (*digest ^ (unsigned char)text[i]) * 1099511628211ULL;
}

/* With the build's root left out wherever it stands. */
static void mix_text(unsigned long long *digest, const char *text, const char *root)
{
    size_t skip = root ? strlen(root) : 0;
    for (const char *found; skip > 1 && (found = strstr(text, root)); text = found + skip)
        mix(digest, text, (size_t)(found - text));
    mix(digest, text, strlen(text) + 1);
}

/* A macro that tells a version: named so, or with a value like 1.2. */
static bool tells_version(const char *define)
{
    static const char *const names[] = {"version", "revision", "commit", "git_", "_sha", "build_date", "build_time"};
    const char *equals = strchr(define, '=');
    size_t length = equals ? (size_t)(equals - define) : strlen(define);
    char *name = strndup(define, length);
    bool found = false;
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        found = found || strcasestr(name, names[i]);
    free(name);
    for (const char *dot = equals; dot && !found && (dot = strchr(dot + 1, '.'));)
        found = dot[-1] >= '0' && dot[-1] <= '9' && dot[1] >= '0' && dot[1] <= '9';
    return found;
}

/* Says nothing about what the compiler has to do (see `digest_of`). */
static bool irrelevant(const struct command *command, const struct option *option)
{
    static const char *const common[] = {
        "-o", "-I", "-L", "-isystem", "-iquote", "-idirafter", "-MF", "-MT", "-MQ", "-MD", "-MMD", "-MP", "-MG", "-v",
        "-dumpbase", "-dumpdir", "-rpath", "--output", "-odir", "-keep-dir", "-time", "-optf",
        "-fdiagnostics-color", "-fcolor-diagnostics", "-fdiagnostics-urls",
        "--output-file", "--include-path", "--system-include", "--library-path", "--dependency-output",
        "--dependency-target-name", "--generate-dependencies-with-compile", "--generate-nonsystem-dependencies-with-compile",
        "--generate-dependency-targets", "--output-directory", "--keep-dir", "--options-file", "--time",
        "--out-dir", "--extern", "--json", "--error-format", "--diagnostic-width", "--color", "--remap-path-prefix",
    };
    static const char *const rust[] = {"metadata=", "extra-filename=", "incremental="};
    if (option->input || begins(option->name, "-Wp,-M"))
        return true;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        if (same(option->name, common[i]))
            return true;
    if (!option->value)
        return false;
    if (same(option->name, "-D") || same(option->name, "--define-macro"))
        return tells_version(option->value);
    for (size_t i = 0; command->family == RUSTC && i < sizeof rust / sizeof *rust; i++)
        if (begins(option->value, rust[i]))
            return true;
    return command->family == NVCC && named(option, "threads", "t") && command->architectures == 1;
}

unsigned long long digest_of(const struct command *command, char *const *words, const char *root)
{
    unsigned long long digest = DIGEST_START;
    const char *slash = strrchr(words[0], '/');
    mix_text(&digest, slash ? slash + 1 : words[0], NULL);
    for (char *const *at = words + 1; *at;) {
        struct option option = read_option(command->family, at);
        at += option.words;
        if (irrelevant(command, &option))
            continue;
        mix_text(&digest, option.name, NULL);
        if (option.value)
            mix_text(&digest, option.value, root);
    }
    return digest;
}
