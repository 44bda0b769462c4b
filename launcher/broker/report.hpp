/* What a control is told, as JSON. Pure: values in, text out. */
#pragma once

#include <string>
#include <vector>

#include "book.hpp"

namespace gate::broker {

/* One running unit beside what the policy says of it. */
struct Shown {
    const Unit *unit;
    const View *view;
};

struct State {
    const Build *build;
    Bound bound;
    Sums own, others;
    int cores = 1;
    Millis now = 0;
    std::vector<Shown> running;
};

std::string state_text(State state);

struct Ended {
    bool success = false;
    int code = 0, signal = 0;
    Bytes peak = 0, largest = 0;
    Millis wall = 0, cpu = 0;
    std::string curve; /* "" unknown */
    Bytes available = 0;
};

std::string unit_text(const Unit &, const Ended &);
std::string requeue_text(const Unit &, bool by_us, Bytes used, Bytes next);
std::string hung_text(const Unit &, Millis now);
std::string fail_text(const std::string &text, const Unit *, Bytes total);

std::string basis_word(Basis);

} // namespace gate::broker
