/* One unit from the question for memory to its last attempt. */
#pragma once

#include "unit.h"

#define EXIT_NO_MEMORY 75 /* the broker says that there is no room for it, now or ever */

/* Ask, wait, run, and run again for as long as the broker says; pass on the output of the last attempt. The status is that of
 * wait(2). Where no broker answers, the local semaphore decides. `object` may be "". */
int run_unit(const struct unit *unit, char *const *words, const char *object);

/* End as `status` says: by the same signal too. */
void end_like(int status) __attribute__((noreturn));

/* Run a command that isn't a compiler itself (the compile cache), and pass signals on to its process group; returns its status. */
int run_group(char *const *words);
