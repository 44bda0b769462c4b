/* What a process and all below it use, and how often the kernel has killed for memory. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Resident bytes of `pid` and its descendants; 0 where it's gone. Pages that two of them share count twice, but a child that
 * still shares the whole memory of its parent (vfork) doesn't count. */
long long tree_bytes(pid_t pid);

/* The kernel's count of kills for memory: of this process's memory control group (version 2: memory.events, version 1:
 * memory.oom_control), or where that can't be read of the whole machine (/proc/vmstat). */
struct kills {
    long long count; /* -1: unknown */
    bool machine;    /* others' kills count too */
};

struct kills count_kills(void);

#define CURVE_POINTS 16

/* Resident bytes over time. At most 256 samples are kept; when they are full, each takes the larger of two. */
struct samples {
    struct {
        int ms;
        int mebibytes;
    } at[256];
    int count, every, pending;
};

void add_sample(struct samples *samples, long long ms, long long bytes);

/* Write the largest share of `peak`, in percent, of each sixteenth of `wall_ms`: 16 numbers with commas between, or "-" where
 * there are too few samples to tell. `out` has room for 80 bytes. */
void write_curve(const struct samples *samples, long long wall_ms, long long peak, char *out);
