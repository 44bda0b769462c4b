/* What the broker knows of builds and units beyond what the policy does: who they are, and what happened to them. */
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "connection.hpp"
#include "groups.hpp"
#include "ledger.hpp"
#include "policy.hpp"
#include "predict.hpp"

/* A namespace of its own: the policy has units and builds too, of another shape. */
namespace gate::broker {

struct Unit {
    UnitId id = 0;
    BuildId build = 0;
    Connection *client = nullptr; /* none: inherited from the broker before this one, its launcher hasn't come back yet */
    Process launcher;
    Identity identity;
    std::string name, command;
    int slots = 1;
    bool can_repeat = true;
    Membership membership;
    Prediction prediction;

    bool running = false;
    bool shot = false;      /* we killed this attempt */
    int attempt = 0, by_us = 0, by_kernel = 0;
    Bytes reserved = 0;     /* at the start of this attempt */
    Bytes used = 0, peak = 0;
    int beside = 0;         /* how many others ran at its peak */
    Millis since = 0;       /* this attempt's start, or that of waiting */
    Millis waited = 0;      /* before this attempt */
    std::int64_t kills_before = 0;
    bool told_hung = false;
    Process group;          /* leader of its compiler's process group, once seen */
    int looks = 0;          /* how often we looked for it */
    int slot = -1;          /* in the ledger */
    Millis until = 0;       /* without a client: forgotten then */
};

struct Build {
    BuildId id = 0;
    std::string word;
    uid_t user = 0;
    Connection *control = nullptr;
    std::vector<DomainId> around; /* its control */
    std::unique_ptr<Oracle> oracle = std::make_unique<Oracle>();
    Caps caps;
    bool paused = false;
    Millis hang = 0;  /* 0: never asked */
    Millis until = 0; /* without a control: closed then; 0: never */
    int kills = 0, kernel_kills = 0;
    bool failed = false;
    std::string failure;
    Millis revise_at = 0; /* what waits isn't guessed anew before that */
    Millis told = 0;    /* when the control got the last state */
    bool news = true;   /* it should get one though nothing runs */
};

/* The memory that bounds a build most, as screens show it. */
struct Bound {
    std::string basis; /* "MemAvailable", "cgroup v1 /x", "--memory" */
    Bytes available = 0, reserve = 0, total = 0;
    Bytes used = 0, promised = 0; /* by all units that it bounds */
    Bytes ceiling() const;        /* what our units may hold together, now */
    Bytes room() const;           /* what could be promised still */
};

/* Sums over units of one build, or of all others. */
struct Sums {
    Bytes used = 0, promised = 0;
    int running = 0, waiting = 0, frozen = 0, slots = 0;
};

} // namespace gate::broker
