/* The launcher's end of the broker's socket, and the semaphore for when there is no broker. */
#pragma once

#include <stdbool.h>

#include "unit.h"

#define ATTEMPTS 4 /* a unit that the kernel kills so often fails */

/* What the broker says. LOST: the connection is gone; NOTHING: no whole message is there. */
enum verb { NOTHING, LOST, GO, KILL, FREEZE, THAW, AGAIN, DONE, FAIL };

struct message {
    enum verb verb;
    long long bytes;
    int attempt;
    bool alone;
    char text[512];
};

/* A compiler that runs while there is nobody to report to; all zero before the first one. */
struct held {
    bool running;
    long long bytes, used;
    int attempt;
    long long started_ms_ago;
};

/* How an attempt ended. */
struct report {
    int code, signal;
    long long largest, peak, wall_ms, cpu_ms;
    bool killed;
    char curve[80];
};

/* Connect to the broker that holds `<folder>/broker.lock`; -1 where none answers. Doesn't wait for one. */
int gate_connect(const char *folder);

/* Was there ever a broker in `folder`? */
bool gate_used(const char *folder);

/* Each returns false when the broker is gone. `tell_use` may drop its message when the broker is behind. */
bool tell_unit(int gate, const struct unit *unit, const char *build, const struct held *held);
bool tell_use(int gate, long long used);
bool tell_end(int gate, const struct report *report);

struct message hear(int gate);

/* Take one of the slots of the local semaphore (SPARK_BUILD_FALLBACK, SPARK_BUILD_SLOTS); -1 when all are taken, -2 where there
 * can't be any. It is given back when the file is closed. */
int take_slot(void);
