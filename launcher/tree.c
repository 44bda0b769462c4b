#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "words.h"

#define DEEPEST 32
#define FEWEST_SAMPLES 4

struct use {
    long long size, resident; /* pages */
};

/* The start of a file, ended with 0; false where it can't be read. */
static bool read_start(const char *path, char *text, size_t room)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = read(file, text, room - 1);
    (void)close(file);
    text[length > 0 ? length : 0] = 0;
    return length > 0;
}

static long long pages_below(pid_t pid, struct use parent, int depth);

/* Of the children that one thread has; format: proc_tid_children(5). */
static long long pages_of_children(pid_t pid, const char *thread, struct use parent, int depth)
{
    char path[64], text[1024], *end;
    long long pages = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", pid, thread);
    if (!read_start(path, text, sizeof text))
        return 0;
    for (char *at = text; *at; at = end) {
        long child = strtol(at, &end, 10);
        if (end == at)
            break;
        pages += pages_below((pid_t)child, parent, depth + 1);
        end += strspn(end, " \n");
    }
    return pages;
}

static long long pages_of_threads(pid_t pid, struct use own, int depth)
{
    _Alignas(8) char entries[1024];
    char path[64];
    long long pages = 0;
    long got;
    (void)snprintf(path, sizeof path, "/proc/%d/task", pid);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return 0;
    /* Not by readdir(3), which takes 32 KiB for each of hundreds of launchers. */
    while ((got = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0)
        for (long at = 0; at < got;) {
            unsigned short length;
            const char *name = entries + at + offsetof(struct dirent64, d_name);
            memcpy(&length, entries + at + offsetof(struct dirent64, d_reclen), sizeof length);
            if (name[0] != '.')
                pages += pages_of_children(pid, name, own, depth);
            at += length;
        }
    (void)close(folder);
    return pages;
}

static long long pages_below(pid_t pid, struct use parent, int depth)
{
    char path[64], text[128];
    struct use own = {0, 0};
    (void)snprintf(path, sizeof path, "/proc/%d/statm", pid);
    if (depth > DEEPEST || !read_start(path, text, sizeof text) || sscanf(text, "%lld %lld", &own.size, &own.resident) != 2)
        return 0;
    bool shared = own.size == parent.size && own.resident == parent.resident;
    return (shared ? 0 : own.resident) + pages_of_threads(pid, own, depth);
}

long long tree_bytes(pid_t pid)
{
    const struct use nothing = {-1, -1};
    return pages_below(pid, nothing, 0) * sysconf(_SC_PAGESIZE);
}

/* The number behind `key` in a file of "key number" lines; -1 where there is none. */
static long long number_in(const char *path, const char *key)
{
    char text[16384]; /* /proc/vmstat is the longest */
    size_t length = strlen(key);
    if (!read_start(path, text, sizeof text))
        return -1;
    for (const char *at = text; (at = strstr(at, key)); at += length)
        if ((at == text || at[-1] == '\n') && at[length] == ' ')
            return atoll(at + length);
    return -1;
}

/* `line` is one of /proc/self/cgroup: "number:controllers:path". */
static long long kills_of_group(char *line)
{
    static const char *const tops[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"};
    char *group, path[1024];
    long long count = -1;
    (void)strsep(&line, ":");
    const char *controllers = line ? strsep(&line, ":") : NULL;
    if (!controllers || !(group = line))
        return -1;
    bool first_version = controllers[0];
    if (first_version && !strstr(controllers, "memory"))
        return -1;
    for (size_t top = first_version ? 2 : 0; top < (first_version ? 3u : 2u) && count < 0; top++)
        for (int whole = 1; whole >= 0 && count < 0; whole--) { /* in a container the group itself may be mounted there */
            (void)snprintf(path, sizeof path, "%s%s/%s", tops[top], whole ? group : "",
                           first_version ? "memory.oom_control" : "memory.events");
            count = number_in(path, "oom_kill");
        }
    return count;
}

struct kills count_kills(void)
{
    struct kills kills = {.count = -1};
    char text[4096], *rest = text, *line;
    if (read_start("/proc/self/cgroup", text, sizeof text))
        while (kills.count < 0 && (line = strsep(&rest, "\n")))
            kills.count = kills_of_group(line);
    if (kills.count < 0) {
        kills.machine = true;
        kills.count = number_in("/proc/vmstat", "oom_kill");
    }
    return kills;
}

static void thin(struct samples *samples)
{
    for (int i = 0; i < samples->count / 2; i++) {
        int larger = samples->at[2 * i].mebibytes > samples->at[2 * i + 1].mebibytes ? 2 * i : 2 * i + 1;
        samples->at[i] = samples->at[larger];
    }
    samples->count /= 2;
    samples->every *= 2;
}

void add_sample(struct samples *samples, long long ms, long long bytes)
{
    const int most = sizeof samples->at / sizeof *samples->at;
    int mebibytes = (int)(bytes >> 20);
    if (!samples->every)
        samples->every = 1;
    if (samples->pending && samples->pending < samples->every) {
        if (mebibytes > samples->at[samples->count - 1].mebibytes) {
            samples->at[samples->count - 1].ms = (int)ms;
            samples->at[samples->count - 1].mebibytes = mebibytes;
        }
        samples->pending++;
        return;
    }
    if (samples->count == most)
        thin(samples);
    samples->at[samples->count].ms = (int)ms;
    samples->at[samples->count++].mebibytes = mebibytes;
    samples->pending = 1;
}

void write_curve(const struct samples *samples, long long wall_ms, long long peak, char *out)
{
    int share[CURVE_POINTS], length = 0;
    (void)snprintf(out, 80, "-");
    if (samples->count < FEWEST_SAMPLES || wall_ms <= 0 || peak <= 0)
        return;
    for (int i = 0; i < CURVE_POINTS; i++)
        share[i] = -1;
    for (int i = 0; i < samples->count; i++) {
        long long window = samples->at[i].ms * (long long)CURVE_POINTS / wall_ms;
        long long percent = (((long long)samples->at[i].mebibytes << 20) * 100 + peak - 1) / peak;
        int *here = &share[window >= CURVE_POINTS ? CURVE_POINTS - 1 : window];
        if (percent > *here)
            *here = percent > 100 ? 100 : (int)percent;
    }
    /* Between two samples it may have been as high as the higher one. */
    for (int i = 0; i < CURVE_POINTS; i++) {
        int before = i ? share[i - 1] : 0, after = i;
        while (share[i] < 0 && after < CURVE_POINTS - 1 && share[after] < 0)
            after++;
        if (share[i] < 0)
            share[i] = share[after] > before ? share[after] : before;
        length += snprintf(out + length, 80 - (size_t)length, "%s%d", i ? "," : "", share[i]);
    }
}
