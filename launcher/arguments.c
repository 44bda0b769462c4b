#include "arguments.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "words.h"

/* Response files may name others; a loop of them ends here. */
#define DEEPEST 8

#define MANY_ARCHITECTURES 99
#define MOST_SLOTS 256
#define LONGEST_LINE (128 << 10)

/* What was seen so far on one command line. */
struct reading {
    struct command *command;
    const char *language; /* of -x, for the inputs that follow; NULL: by the extension */
    const char *output, *folder, *crate;
    const char *suffix;   /* of the object, where the compiler names it itself; NULL: it links */
    bool plus, pass, links, no_object, unnamed, more_outputs;
    int threads, split, generated, named_codes;
};

static const struct {
    const char *suffix, *kind;
} kinds[] = {
    {".cu", "cu"},   {".cc", "cxx"},  {".cp", "cxx"},   {".cxx", "cxx"}, {".cpp", "cxx"},  {".CPP", "cxx"}, {".c++", "cxx"},
    {".C", "cxx"},   {".ii", "cxx"},  {".hh", "cxx"},   {".hpp", "cxx"}, {".hxx", "cxx"},  {".H", "cxx"},   {".c", "c"},
    {".i", "c"},     {".h", "c"},     {".s", "other"},  {".S", "other"}, {".sx", "other"}, {".m", "other"}, {".mm", "other"},
    {".f", "other"}, {".F", "other"}, {".f90", "other"}, {".F90", "other"}, {".for", "other"}, {".ptx", "cu"}, {".ll", "other"},
    {".bc", "other"},
};

static const char *suffix_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    return dot ? dot : "";
}

static const char *kind_of_language(const char *language)
{
    if (same(language, "cu") || same(language, "cuda"))
        return "cu";
    if (begins(language, "c++"))
        return "cxx";
    return same(language, "c") || begins(language, "c-") || same(language, "cpp-output") ? "c" : "other";
}

/* NULL for what only the linker reads. */
static const char *kind_of_input(const struct reading *seen, const char *path)
{
    if (seen->language)
        return kind_of_language(seen->language);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (same(suffix_of(path), kinds[i].suffix))
            return seen->plus && same(kinds[i].kind, "c") ? "cxx" : kinds[i].kind;
    return NULL;
}

static void take_source(struct reading *seen, const char *path, const char *kind)
{
    if (!seen->command->sources++) {
        seen->command->source = path;
        seen->command->kind = kind;
    }
    if (same(path, "-") || same(path, "/dev/stdin"))
        seen->command->reads_stdin = true;
}

static void take_input(struct reading *seen, const char *path)
{
    const char *kind = kind_of_input(seen, path);
    seen->command->inputs++;
    if (kind)
        take_source(seen, path, kind);
}

static int number_of(const char *text)
{
    char *end;
    long number = text ? strtol(text, &end, 10) : 1;
    if (text && (end == text || *end || number < 0))
        return 1;
    if (!number)
        number = sysconf(_SC_NPROCESSORS_ONLN);
    return number > MOST_SLOTS ? MOST_SLOTS : (int)number;
}

static void read_gcc_word(struct reading *seen, const struct option *option)
{
    static const char *const questions[] = {"--version", "--help", "--target-help", "-dump", "-print-", "--print-", "-###"};
    const char *name = option->name;
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++)
        if (begins(name, questions[i]) && !begins(name, "-dumpbase") && !same(name, "-dumpdir"))
            seen->pass = true;
    if (same(name, "-E") || same(name, "-M") || same(name, "-MM") || same(name, "--preprocess"))
        seen->pass = true;
    else if (same(name, "-c") || same(name, "--compile"))
        seen->suffix = seen->suffix ? seen->suffix : ".o";
    else if (same(name, "-S") || same(name, "--assemble"))
        seen->suffix = ".s";
    else if (same(name, "-fsyntax-only"))
        seen->no_object = true;
    else if (same(name, "-o") || same(name, "--output"))
        seen->output = option->value;
    else if (same(name, "-x") && option->value)
        seen->language = same(option->value, "none") ? NULL : option->value;
    else if (same(name, "-flto") && option->value)
        seen->threads = same(option->value, "auto") || same(option->value, "jobserver") ? number_of("0") : number_of(option->value);
}

/* Real architectures in the value of one -gencode, or of -code. */
static int count_codes(const char *value)
{
    int count = 0;
    for (const char *at = value; (at = strstr(at, "sm_")); at++)
        count++;
    for (const char *at = value; (at = strstr(at, "lto_")); at++)
        count++;
    return count ? count : 1;
}

static void read_architecture(struct reading *seen, const struct option *option)
{
    const char *value = option->value ? option->value : "";
    if (named(option, "generate-code", "gencode"))
        seen->generated += count_codes(value);
    else if (named(option, "gpu-code", "code"))
        seen->named_codes = count_codes(value);
    else if (named(option, "gpu-architecture", "arch") && (begins(value, "all") || same(value, "native")))
        seen->generated = MANY_ARCHITECTURES;
}

/* By which nvcc stops before it links, and what it then calls its output. */
static const struct {
    const char *long_name, *short_name, *suffix;
} nvcc_phases[] = {
    {"compile", "c", ".o"},      {"device-c", "dc", ".o"},   {"device-w", "dw", ".o"},
    {"cubin", "cubin", ".cubin"}, {"ptx", "ptx", ".ptx"},     {"fatbin", "fatbin", ".fatbin"},
    {"ltoir", "ltoir", ".ltoir"}, {"cuda", "cuda", ".cu.cpp.ii"}, {"optix-ir", "optix-ir", ".optixir"},
};

static const char *const nvcc_questions[][2] = {
    {"preprocess", "E"}, {"generate-dependencies", "M"}, {"generate-nonsystem-dependencies", "MM"}, {"dryrun", "dryrun"},
    {"version", "V"},    {"help", "h"},                  {"list-gpu-code", "code-ls"},              {"list-gpu-arch", "arch-ls"},
    {"clean-targets", "clean"},
};

static void read_nvcc_word(struct reading *seen, const struct option *option)
{
    for (size_t i = 0; i < sizeof nvcc_questions / sizeof *nvcc_questions; i++)
        if (named(option, nvcc_questions[i][0], nvcc_questions[i][1]))
            seen->pass = true;
    for (size_t i = 0; i < sizeof nvcc_phases / sizeof *nvcc_phases; i++)
        if (named(option, nvcc_phases[i].long_name, nvcc_phases[i].short_name))
            seen->suffix = nvcc_phases[i].suffix;
    if (named(option, "device-link", "dlink") || named(option, "lib", "lib"))
        seen->links = true;
    else if (named(option, "output-file", "o"))
        seen->output = option->value;
    else if (named(option, "output-directory", "odir"))
        seen->folder = option->value;
    else if (named(option, "x", "x"))
        seen->language = option->value;
    else if (named(option, "threads", "t"))
        seen->threads = number_of(option->value);
    else if (named(option, "split-compile", "split-compile") || named(option, "split-compile-extended", "split-compile-extended"))
        seen->split = number_of(option->value);
    else
        read_architecture(seen, option);
}

static void read_rustc_word(struct reading *seen, const struct option *option)
{
    const char *name = option->name, *value = option->value ? option->value : "";
    if (same(name, "--print") || same(name, "--version") || same(name, "-V") || same(name, "-vV") || same(name, "--help") ||
        same(name, "-h") || same(name, "--explain") || (same(name, "--emit") && begins(value, "dep-info") && !strchr(value, ',')))
        seen->pass = true;
    else if (same(name, "-o"))
        seen->output = option->value;
    else if (same(name, "--out-dir"))
        seen->folder = option->value;
    else if (same(name, "--crate-name"))
        seen->crate = option->value;
}

static void read_linker_word(struct reading *seen, const struct option *option)
{
    const char *name = option->name;
    if (same(name, "--version") || same(name, "--help"))
        seen->pass = true;
    else if (same(name, "-o") || same(name, "--output"))
        seen->output = option->value;
}

/* Does it have files written that the compile cache doesn't keep? After a hit they would be missing. */
static bool writes_more(enum family family, const struct option *option)
{
    if (family == NVCC && named(option, "compiler-options", "Xcompiler") && option->value)
        return strstr(option->value, "-fdump-") || strstr(option->value, "-aux-info");
    if (family == NVCC && (named(option, "time", "time") || named(option, "fdevice-time-trace", "fdevice-time-trace")))
        return true;
    return begins(option->name, "-fdump-") || begins(option->name, "-aux-info");
}

static void read_word(struct reading *seen, const struct option *option)
{
    enum family family = seen->command->family;
    seen->more_outputs = seen->more_outputs || writes_more(family, option);
    if (option->input && family == RUSTC) {
        seen->command->inputs++;
        take_source(seen, option->value, "rust");
    } else if (option->input && family == LINKER)
        seen->command->inputs++;
    else if (option->input)
        take_input(seen, option->value);
    else if (family == GCC)
        read_gcc_word(seen, option);
    else if (family == NVCC)
        read_nvcc_word(seen, option);
    else if (family == RUSTC)
        read_rustc_word(seen, option);
    else if (family == LINKER)
        read_linker_word(seen, option);
}

/* Copy `words` to `out` with response files in their places. */
static void expand(struct words *out, enum family family, char *const *words, int depth)
{
    for (char *const *at = words; *at;) {
        struct words inside = {0};
        struct option option = read_option(family, at);
        size_t taken = 1;
        if (depth < DEEPEST && family == NVCC && named(&option, "options-file", "optf") && option.value) {
            char *names = join(option.value, ""), *name;
            for (taken = option.words; (name = strsep(&names, ","));)
                (void)add_response_file(&inside, name);
        } else if (depth == DEEPEST || family == NVCC || at[0][0] != '@' || !add_response_file(&inside, at[0] + 1))
            add_word(out, at[0]);
        if (inside.count)
            expand(out, family, inside.at, depth + 1);
        at += taken;
    }
}

/* The file name of `path` with another suffix, in `folder` where one is given. */
static const char *default_object(const char *path, const char *folder, const char *suffix)
{
    const char *slash = strrchr(path, '/');
    char *stem = join(slash ? slash + 1 : path, "");
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem)
        *dot = 0;
    return folder ? join(join(folder, "/"), join(stem, suffix)) : join(stem, suffix);
}

static const char *object_of(const struct reading *seen)
{
    const struct command *command = seen->command;
    if (seen->no_object || seen->output || command->family == LINKER)
        return seen->no_object ? "" : seen->output ? seen->output : "a.out";
    if (command->family == RUSTC)
        return seen->crate ? join(join(seen->folder ? seen->folder : ".", "/"), seen->crate) : "";
    if (seen->suffix && command->sources)
        return default_object(command->source, seen->folder, seen->suffix);
    return seen->suffix || seen->links ? "" : "a.out";
}

/* What configure steps compile only to see whether it works: small, and too many to wait for each. */
static bool in_probe(const char *path)
{
    static const char *const parts[] = {"CMakeScratch", "CMakeTmp", "/CompilerId", "meson-private", "_cmake_try", "cmTC_"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(path, parts[i]))
            return true;
    return begins(path, "conftest.") || strstr(path, "/conftest.") || same(path, "/dev/null");
}

static enum action action_of(const struct reading *seen)
{
    const struct command *command = seen->command;
    char here[PATH_MAX];
    if (seen->pass || !command->inputs)
        return PASS;
    if (in_probe(command->source) || in_probe(command->object) || (getcwd(here, sizeof here) && in_probe(here)))
        return PASS;
    if (command->sources)
        return COMPILE;
    return seen->suffix ? PASS : LINK; /* told to compile, and nothing to compile: the compiler will say so */
}

static int slots_of(const struct reading *seen)
{
    const struct command *command = seen->command;
    int threads = seen->threads ? seen->threads : 1, split = seen->split ? seen->split : 1;
    if (command->family == GCC)
        return command->action == LINK ? threads : 1;
    if (threads > command->architectures && command->sources < 2)
        threads = command->architectures;
    return threads > split ? threads : split;
}

struct command understand(char *const *words, const char *root)
{
    struct command command = {.family = family_of(words[0]), .kind = "other", .source = "", .object = "", .slots = 1};
    struct reading seen = {.command = &command};
    struct words all = {0};
    const char *slash = strrchr(words[0], '/');
    if (command.family == UNKNOWN || command.family == CACHE)
        return command;
    seen.plus = strstr(slash ? slash : words[0], "++");
    expand(&all, command.family, words, 0);
    for (char *const *at = all.at + 1; *at;) {
        struct option option = read_option(command.family, at);
        read_word(&seen, &option);
        at += option.words;
    }
    command.object = object_of(&seen);
    command.action = action_of(&seen);
    command.architectures = seen.generated ? seen.generated : seen.named_codes ? seen.named_codes : 1;
    if (command.action == LINK)
        command.kind = "link";
    command.slots = command.sources > 1 ? 1 : slots_of(&seen);
    command.cacheable = command.action == COMPILE && seen.suffix && !seen.more_outputs && command.sources == 1 && command.inputs == 1 &&
                        command.object[0] && !command.reads_stdin && !same(command.object, "-") &&
                        (same(command.kind, "cu") || same(command.kind, "cxx") || same(command.kind, "c"));
    command.flags = digest_of(&command, all.at, root);
    return command;
}

/* The word with every -MMD that is handed to the preprocessor made -MD; itself where there is none. */
static char *without_user_headers(char *word)
{
    char *at = strstr(word, ",-MMD");
    if (!at || (at[5] && at[5] != ','))
        return word;
    char *changed = join(word, "");
    at = changed + (at - word) + 3;
    memmove(at, at + 1, strlen(at));
    return changed;
}

/* Append to `out` what becomes of one option; true where it isn't what it was. */
static bool rewrite(struct words *out, const struct command *command, const struct option *option, char *const *at)
{
    char *word = at[0];
    if (command->family == NVCC && option->separate && named(option, "compiler-options", "Xcompiler")) {
        add_word(out, join(join(word, "="), option->value));
        return true;
    }
    if (command->family == NVCC && named(option, "threads", "t") && command->architectures == 1 && command->sources == 1)
        return true;
    if (command->family == NVCC && named(option, "generate-nonsystem-dependencies-with-compile", "MMD"))
        word = begins(word, "--") ? "--generate-dependencies-with-compile" : "-MD";
    else if (command->family == GCC && same(word, "-MMD"))
        word = "-MD";
    else if (command->family == GCC && same(word, "--write-user-dependencies"))
        word = "--write-dependencies";
    else if (command->family == GCC && begins(word, "-Wp,"))
        word = without_user_headers(word);
    add_word(out, word);
    if (option->words == 2)
        add_word(out, at[1]);
    return word != at[0];
}

static bool rewrite_all(struct words *out, const struct command *command, char *const *words)
{
    bool changed = false;
    add_word(out, words[0]);
    for (char *const *at = words + 1; *at;) {
        struct option option = read_option(command->family, at);
        changed = rewrite(out, command, &option, at) || changed;
        at += option.words;
    }
    return changed;
}

static size_t length_of(char *const *words)
{
    size_t length = 0;
    for (; *words; words++)
        length += strlen(*words) + 1;
    return length;
}

char *const *for_cache(const struct command *command, char *const *words)
{
    struct words all = {0}, out = {0};
    expand(&all, command->family, words, 0);
    if (!rewrite_all(&out, command, all.at))
        return words;
    size_t length = length_of(out.at);
    return length > LONGEST_LINE && length > length_of(words) ? NULL : out.at; /* only a response file makes it longer */
}
