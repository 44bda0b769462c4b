/* One run of a compiler: in a process group and a temporary folder of its own, its output kept back until it is known to count. */
#pragma once

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "gate.h"
#include "tree.h"

struct attempt {
    pid_t child; /* 0: nothing runs */
    int out, err;
    char folder[PATH_MAX];
    bool existed;
    struct stat before; /* the object, before */
    struct kills kills;
    bool ordered; /* killed by order of the broker */
    bool frozen;
    long long started, frozen_since, frozen_ms;
    long long used, peak, next_sample;
    int period;
    struct samples samples;
};

/* Everything that was different in this process and has to be as it was for the compiler. */
struct inherited {
    sigset_t mask;
    struct sigaction broken_pipe;
};

long long now_ms(void);

/* Run `words`; false when no process can be made. `unit` only names the folder; `object` may be "". */
bool start_attempt(struct attempt *attempt, const struct unit *unit, char *const *words, const char *object,
                   const struct inherited *inherited);

/* Look at the memory of the process tree; sets `used` and `next_sample`. */
void look(struct attempt *attempt);

void signal_attempt(struct attempt *attempt, int number);
void freeze(struct attempt *attempt, bool on);

/* When the compiler has ended: true, with `report` and the status of wait(2). Nothing of its group runs any more, its folder is
 * gone, and so is what it wrote of the object, unless it succeeded. */
bool reap_attempt(struct attempt *attempt, const char *object, struct report *report, int *status);

/* Write what it said to this process's stdout and stderr, or forget it. */
void replay(struct attempt *attempt);
void forget(struct attempt *attempt);
