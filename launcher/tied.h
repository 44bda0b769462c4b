/* A command that ends with whoever started it, and, when that is asked for, all that came of it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Fork, and return in the child, which is to become the command; this process stays, passes on the command's end as its own,
 * and ends the process group when `parent`, which has to be its parent, ends. With `sweep` nothing that descends from the
 * command outlives it, whatever session or group it went to. Ends with 2 and a line on stderr when that can't be had. */
void tie(pid_t parent, bool sweep);
