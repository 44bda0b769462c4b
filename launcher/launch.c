/* spark-build-launch: stands before a compiler or a linker, and runs it when there is memory for it.
 *
 *   spark-build-launch COMMAND [ARG ...]
 *   NAME [ARG ...]                              started by a link of that name: the next such program on PATH
 *   spark-build-launch --explain COMMAND ...    says what it makes of a command, and runs nothing
 *
 * What makes no object (a version question, -E, -M, a configure step's probe, an unknown program) is run at once, as if this
 * program weren't there. So is everything below a compiler that asked already, and everything where SPARK_BUILD_GATE is unset.
 * Else the broker in that folder is asked for memory, and the compiler runs when it says so: niced, first in line for the
 * kernel's own kills, in a process group and a TMPDIR of its own. An attempt that was killed for memory is forgotten, output
 * and partial object too, and made again. The exit status is that of the last attempt, by its signal too; 75 where the broker
 * says that there is no memory for it. An object is on the disk before success is reported.
 *
 * Where SPARK_BUILD_CCACHE names a compile cache, that is started first, with this program as its prefix: so a hit asks nobody,
 * and what is asked for, measured and run again is the compiler alone.
 *
 * Environment: SPARK_BUILD_GATE, _BUILD, _ROOT, _CCACHE, _LINKS, _FALLBACK, _SLOTS by the build; _STAGE and _UNIT by itself. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arguments.h"
#include "run.h"
#include "unit.h"
#include "words.h"

#define SELF "spark-build-launch"

static const char usage[] = "usage: " SELF " COMMAND [ARG ...]\n       " SELF " --explain COMMAND [ARG ...]\n";

/* This very program, under whatever name? */
static bool is_self(const char *path)
{
    struct stat self, other;
    return !stat("/proc/self/exe", &self) && !stat(path, &other) && self.st_dev == other.st_dev && self.st_ino == other.st_ino;
}

static bool can_run(const char *path)
{
    struct stat status;
    return !stat(path, &status) && S_ISREG(status.st_mode) && !access(path, X_OK);
}

/* The next program of this name on PATH that isn't a link to this one; NULL where there is none. */
static char *search(const char *name)
{
    const char *given = getenv("PATH"), *links = getenv("SPARK_BUILD_LINKS");
    char *folders = join(given ? given : "/usr/bin:/bin", ""), *folder;
    while ((folder = strsep(&folders, ":"))) {
        if (links && same(folder, links))
            continue;
        char *path = join(join(folder[0] ? folder : ".", "/"), name);
        if (can_run(path) && !is_self(path))
            return path;
    }
    return NULL;
}

/* The path of the real program: a link to this one stands for the next of its name. `word` itself where none is found. */
static char *resolve(char *word)
{
    const char *slash = strrchr(word, '/');
    if (slash && !is_self(word))
        return word;
    char *found = search(slash ? slash + 1 : word);
    return found ? found : word;
}

static void become(char *const *words) __attribute__((noreturn));

static void become(char *const *words)
{
    errno = ENOENT;
    if (strchr(words[0], '/') && !is_self(words[0])) /* a name that only links have: it would start itself for ever */
        execute(words);
    (void)fprintf(stderr, SELF ": %s: %s\n", words[0], strerror(errno));
    exit(errno == ENOENT ? 127 : 126);
}

/* All that is started below must neither ask again nor be cached again. */
static void mark_nested(void)
{
    (void)setenv("SPARK_BUILD_STAGE", "nested", 1);
    (void)unsetenv("SPARK_BUILD_UNIT");
    (void)unsetenv("CCACHE_PREFIX");
    if (getenv("SPARK_BUILD_CCACHE"))
        (void)setenv("CCACHE_DISABLE", "1", 1);
}

/* Success is told only of what a power cut can't take away. The folder is synced for a new name in it. */
static void settle(const char *object, bool existed)
{
    int file = object[0] ? open(object, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    struct stat status;
    if (file < 0)
        return;
    if (!fstat(file, &status) && S_ISREG(status.st_mode)) {
        (void)fsync(file);
        if (!existed) {
            char *folder = join(object, "");
            char *slash = strrchr(folder, '/');
            if (slash)
                *slash = 0;
            int place = open(!slash ? "." : slash == folder ? "/" : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (place >= 0) {
                (void)fsync(place);
                (void)close(place);
            }
        }
    }
    (void)close(file);
}

/* The file that the compiler writes itself; a crate's name isn't one. */
static const char *file_of(const struct command *command)
{
    return command->family == RUSTC ? "" : command->object;
}

/* This program's own path for the cache, which cuts its prefix at blanks; NULL where it can't be told so. */
static const char *own_path(void)
{
    static char path[PATH_MAX];
    const char *links = getenv("SPARK_BUILD_LINKS");
    if (links && !strchr(links, ' ')) {
        (void)snprintf(path, sizeof path, "%s/" SELF, links);
        if (is_self(path))
            return path;
    }
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0 && !strchr(path, ' ') ? path : NULL;
}

/* The cache, when it is there and would do something for this command; else NULL. */
static char *cache_for(const struct command *command)
{
    char *cache = getenv("SPARK_BUILD_CCACHE");
    return cache && cache[0] && command->cacheable && can_run(cache) && own_path() ? cache : NULL;
}

static int run_cached(char *cache, const struct unit *unit, char *const *words)
{
    struct words whole = {0};
    add_word(&whole, cache);
    for (; *words; words++)
        add_word(&whole, *words);
    (void)setenv("SPARK_BUILD_STAGE", "inner", 1);
    (void)setenv("SPARK_BUILD_UNIT", unit_text(unit), 1);
    (void)setenv("CCACHE_PREFIX", own_path(), 1);
    (void)unsetenv("CCACHE_DISABLE"); /* that is for a ccache which a project finds by itself */
    return run_group(whole.at);
}

static void finish(const char *object, bool existed, int status) __attribute__((noreturn));

static void finish(const char *object, bool existed, int status)
{
    if (!status)
        settle(object, existed);
    end_like(status);
}

static void run_outer(const struct command *command, char *const *words) __attribute__((noreturn));

static void run_outer(const struct command *command, char *const *words)
{
    struct unit unit;
    const char *object = file_of(command);
    bool existed = object[0] && !access(object, F_OK);
    char *cache = cache_for(command);
    describe(&unit, command, words, getenv("SPARK_BUILD_ROOT"));
    char *const *rewritten = cache ? for_cache(command, words) : NULL;
    if (rewritten)
        finish(object, existed, run_cached(cache, &unit, rewritten));
    mark_nested();
    finish(object, existed, run_unit(&unit, words, object));
}

/* As the cache's prefix. The unit is who it was before the cache changed its words. */
static void run_inner(const struct command *command, char *const *words) __attribute__((noreturn));

static void run_inner(const struct command *command, char *const *words)
{
    struct unit unit, told = {0};
    const char *text = getenv("SPARK_BUILD_UNIT");
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    describe(&unit, command, words, getenv("SPARK_BUILD_ROOT"));
    if (text && read_unit(&told, text)) {
        memcpy(told.command, unit.command, sizeof told.command);
        told.once = unit.once;
        unit = told;
    }
    mark_nested();
    end_like(run_unit(&unit, words, file_of(command)));
}

static void print_quoted(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=+:,@%";
    if (word[0] && strspn(word, plain) == strlen(word)) {
        (void)fputs(word, stdout);
        return;
    }
    (void)putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            (void)fputs("'\\''", stdout);
        else
            (void)putchar(*word);
    (void)putchar('\'');
}

static int explain(const struct command *command, char *const *words)
{
    static const char *const actions[] = {"run at once", "compile", "link"};
    struct unit unit;
    char *const *cached = command->cacheable ? for_cache(command, words) : NULL, *const *shown = cached ? cached : words;
    describe(&unit, command, words, getenv("SPARK_BUILD_ROOT"));
    (void)printf("action %s\nkind %s\nsource %s\nobject %s\nname %s\nflags %s\nslots %d\nretry %d\ncache %s\nunit-object %s\ncommand",
                 actions[command->action], unit.kind, unit.source, command->object, unit.name, unit.flags, unit.slots, !unit.once,
                 cached ? "yes" : "no", unit.object);
    for (; *shown; shown++) {
        (void)putchar(' ');
        print_quoted(*shown);
    }
    (void)putchar('\n');
    return fflush(stdout) ? 1 : 0;
}

/* The command that was meant, with the path of the real program first. */
static char **command_of(int argc, char **argv, bool *explains)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    char **words = argv;
    if (begins(name, SELF)) {
        words = argv + 1;
        *explains = argc > 1 && same(argv[1], "--explain");
        words += *explains;
        if (argc < 2 || !words[0] || same(words[0], "--help")) {
            (void)fputs(usage, words[0] ? stdout : stderr);
            exit(words[0] ? 0 : 2);
        }
    }
    if (!*explains)
        words[0] = resolve(words == argv ? join(name, "") : words[0]);
    /* Before a compiler another cache has nothing to do where there is ours. */
    if (words[1] && family_of(words[0]) == CACHE && family_of(words[1]) != UNKNOWN && getenv("SPARK_BUILD_CCACHE")) {
        words++;
        if (!*explains)
            words[0] = resolve(words[0]);
    }
    return words;
}

/* Three of them must not be lent to files that are opened here. */
static void open_standard_files(void)
{
    int file;
    do
        file = open("/dev/null", O_RDWR);
    while (file >= 0 && file < 3);
    if (file >= 0)
        (void)close(file);
}

int main(int argc, char **argv)
{
    const char *stage = getenv("SPARK_BUILD_STAGE");
    bool explains = false;
    if (argc < 1)
        return 2;
    char **words = command_of(argc, argv, &explains);
    if (!explains && (!getenv("SPARK_BUILD_GATE") || (stage && same(stage, "nested"))))
        become(words);
    char **compiler = words[1] && family_of(words[0]) == CACHE ? words + 1 : words;
    struct command command = understand(compiler, getenv("SPARK_BUILD_ROOT"));
    if (explains)
        return explain(&command, compiler);
    if (command.action == PASS) {
        if (command.family != UNKNOWN && command.family != CACHE)
            mark_nested();
        become(words);
    }
    if (command.reads_stdin && isatty(0))
        become(words); /* in a group of its own it couldn't read the terminal */
    open_standard_files();
    if (compiler != words)
        command.cacheable = false;
    if (stage && same(stage, "inner"))
        run_inner(&command, words);
    run_outer(&command, words);
}
