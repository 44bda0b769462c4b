/* A machine that doesn't exist: cores, memory, a model that is loaded in the middle, and units with a true memory curve. */
#pragma once

#include <string>
#include <vector>

#include "policy.hpp"

namespace gate {

struct Work {
    std::string name, kind;
    double seconds = 0;
    Bytes peak = 0;
};

struct Scenario {
    int cores = 20;
    Bytes ceiling = 0;         /* what all units together may use */
    Bytes reserve = 0;         /* beyond it: the machine's */
    int jobs = 0;              /* static -j in file order; 0: our policy */
    bool cap = true;           /* the ceiling is given as --memory, else it is the machine's */
    bool hold = false;         /* units hold their peak to the end, instead of falling to 35 % */
    bool curve = false;        /* our policy knows the curves */
    double known = 1;          /* share of the units with a history */
    double noise_peak = 0, noise_time = 0; /* what history says is off by up to so much, relative */
    bool normal = false; /* that is the standard deviation instead, cut at 2.5 of them */
    Bytes model = 0;           /* taken by another program ... */
    double model_at = 0, model_over = 40; /* ... from then on, within so many seconds */
    int window = 0;            /* so many units are asked for at once; 0: all */
    unsigned seed = 1;
    Settings settings;
};

struct Outcome {
    double makespan = 0, bound = 0; /* seconds */
    Bytes most = 0;                 /* true use by units */
    Bytes over = 0;                 /* the most by which it was above what the ceiling was at that time */
    double wasted = 0;              /* seconds of work that was killed */
    int kills = 0, kernel_kills = 0;
    bool died = false;   /* the kernel killed one, and nobody ran it again */
    bool failed = false; /* exit 7 */
};

Outcome run(const std::vector<Work> &, const Scenario &);

} // namespace gate
