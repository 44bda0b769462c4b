#include "unit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "words.h"

/* Cut to the room, on one line. */
static void set(char *field, size_t room, const char *text)
{
    size_t length = strnlen(text, room - 1);
    for (size_t i = 0; i < length; i++)
        field[i] = text[i] == '\n' || text[i] == '\r' ? '?' : text[i];
    field[length] = 0;
}

/* Make `path` absolute, without "." and ".." parts. Links aren't followed: they belong to the tree that names are kept for. */
static void clean_path(char out[PATH_MAX], const char *path)
{
    char whole[2 * PATH_MAX], here[PATH_MAX], *rest = whole, *part;
    size_t length = 0;
    if (path[0] == '/' || !getcwd(here, sizeof here))
        here[0] = 0;
    (void)snprintf(whole, sizeof whole, "%s/%s", here, path);
    out[0] = 0;
    while ((part = strsep(&rest, "/"))) {
        if (!part[0] || same(part, "."))
            continue;
        if (same(part, "..")) {
            char *slash = strrchr(out, '/');
            length = slash ? (size_t)(slash - out) : 0;
        } else if (length + strlen(part) + 2 < PATH_MAX)
            length += (size_t)snprintf(out + length, PATH_MAX - length, "/%s", part);
        out[length] = 0;
    }
}

/* What of `path` lies below `folder`; NULL where it doesn't. */
static const char *below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return length && begins(path, folder) && path[length] == '/' ? path + length + 1 : NULL;
}

static void set_source(struct unit *unit, const char *source, const char *root)
{
    char path[PATH_MAX], top[PATH_MAX];
    const char *inside = NULL;
    if (!source[0] || same(source, "-")) {
        set(unit->source, sizeof unit->source, source);
        return;
    }
    clean_path(path, source);
    if (root && !(inside = below(path, root)) && realpath(root, top))
        inside = below(path, top);
    if (inside && begins(inside, "src/"))
        inside += 4;
    set(unit->source, sizeof unit->source, inside ? inside : path);
}

static void set_object(struct unit *unit, const char *object)
{
    char path[PATH_MAX];
    if (!object[0])
        return;
    clean_path(path, object);
    const char *last = strrchr(path, '/');
    while (last && last > path && last[-1] != '/')
        last--;
    set(unit->object, sizeof unit->object, last ? last : path);
}

static void set_command(struct unit *unit, char *const *words)
{
    size_t length = 0;
    for (; *words && length < sizeof unit->command - 1; words++)
        length += (size_t)snprintf(unit->command + length, sizeof unit->command - length, "%s%s", length ? " " : "", *words);
    set(unit->command, 301, unit->command);
}

void describe(struct unit *unit, const struct command *command, char *const *words, const char *root)
{
    const char *shown = command->source[0] ? command->source : command->object, *slash = strrchr(shown, '/');
    memset(unit, 0, sizeof *unit);
    set(unit->kind, sizeof unit->kind, command->kind);
    set_source(unit, command->source, root);
    set_object(unit, command->object);
    if (same(command->kind, "rust") && command->object[0]) /* every crate's source is lib.rs */
        slash = strrchr(shown = command->object, '/');
    set(unit->name, sizeof unit->name, slash ? slash + 1 : shown);
    (void)snprintf(unit->flags, sizeof unit->flags, "%016llx", command->flags);
    set_command(unit, words);
    unit->slots = command->slots;
    unit->once = command->reads_stdin;
}

const char *unit_text(const struct unit *unit)
{
    static char text[sizeof *unit + 64];
    (void)snprintf(text, sizeof text, "%s\n%s\n%s\n%s\n%s\n%d\n", unit->kind, unit->source, unit->object, unit->flags, unit->name,
                   unit->slots);
    return text;
}

bool read_unit(struct unit *unit, const char *text)
{
    struct {
        char *field;
        size_t room;
    } fields[] = {
        {unit->kind, sizeof unit->kind},   {unit->source, sizeof unit->source}, {unit->object, sizeof unit->object},
        {unit->flags, sizeof unit->flags}, {unit->name, sizeof unit->name},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *end = strchr(text, '\n');
        if (!end || (size_t)(end - text) >= fields[i].room)
            return false;
        memcpy(fields[i].field, text, (size_t)(end - text));
        fields[i].field[end - text] = 0;
        text = end + 1;
    }
    unit->slots = atoi(text);
    return unit->slots > 0;
}
