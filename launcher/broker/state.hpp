/* What the policy remembers; shared by its parts: policy.cpp (events), promise.cpp (what is kept for whom),
 * admit.cpp (who starts), guard.cpp (who is stopped). Nothing else includes this. */
#pragma once

#include <algorithm>
#include <array>
#include <limits>

#include "policy.hpp"

namespace gate {

constexpr Millis never = -1;
constexpr Bytes unlimited = std::numeric_limits<Bytes>::max() / 4;
constexpr double raise = 1.2;           /* an outgrown promise becomes so much of what is used */
constexpr double history_margin = 1.05; /* that the oracle puts on a unit's own peak */

struct Unit {
    UnitId id = 0;
    BuildId build = 0;
    Prediction prediction;
    int slots = 1;
    std::vector<DomainId> domains; /* the build's own cap among them, if it has one */
    bool running = false, dying = false, frozen = false, alone = false;
    bool bare = false; /* its curve is no longer believed */
    bool told = false; /* that its build has failed */
    int attempt = 0, strikes = 0, own_kills = 0, kernel_kills = 0;
    Millis asked = 0, started = 0, first_start = never, killed = never, froze = never;
    Bytes need = 0;     /* what the next attempt is promised at its start */
    Bytes reserved = 0; /* what is promised to it now */
    Bytes used = 0, top = 0;
    std::size_t tight = 0; /* the span in which it found no room */
    Bytes left = 0;     /* what was available when it was frozen */
    double time = 0;  /* predicted, else guessed from what waits beside it */
    double mean = 0;  /* bytes that its promise holds on average over its life */
    double key = 0;   /* its place in the queue: large first */
    Millis blocked = never, due = never; /* as a blocked head: since when, and when it was to start */
    int bypasses = 0;
    bool guess() const { return prediction.basis > Basis::source; }
};

/* Spans of time from now on, short ones first; the last has no end. */
constexpr std::size_t spans = 56;

/* How a unit will go on, as far as is known. */
struct Outlook {
    double age = 0, end = 0; /* milliseconds: since its start, and until its end at the latest */
    Bytes promised = 0;
    int point = 0;           /* of its curve that it has reached, at least */
    bool followed = false;   /* by its curve */
};

struct Domain {
    Room room;
    bool known = false, cap = false;
    bool stale = false;    /* something ended since the room was read */
    bool fresh = false;    /* the room was read since the last decision */
    double growth = 0;     /* bytes a millisecond that vanish, decaying */
    Bytes before = 0;      /* what was available then */
    Millis read = never;
    /* of the units that run here, at this decision */
    Bytes outstanding = 0, used = 0, coming = 0;
    int running = 0;
    int moving = 0;     /* of them: neither stopped nor dying */
    bool taken = false; /* by a unit that has to be alone */
    std::array<Bytes, spans> later{}; /* the most that they will hold in each span, as far as predictions say */
    Bytes spare() const { return room.available - room.reserve - outstanding; }
    Bytes budget() const { return room.available - room.reserve + used; }
    Bytes low() const { return room.reserve / 2; }
    Bytes floor() const { return room.reserve / 4; }
};

struct Build {
    BuildId id = 0;
    Caps caps;
    bool paused = false, failed = false, told = false, dirty = true;
    DomainId cap = 0; /* its own domain, negative; 0: none */
    double share = 0; /* GiB-seconds over weight that it has had ... */
    double ahead = 0; /* ... and that what runs will still take: who has least of both goes first */
    int slots = 0, running = 0;
    Millis starved = never; /* since when it lacks memory: it waited, and nothing that it could wait for got on */
    Millis eased = never;   /* since when there is memory for all that is promised */
    std::string text;
    UnitId culprit = 0;
    Unit *head = nullptr;          /* it waits for memory that others could take */
    std::vector<Unit *> waiting;   /* by key, largest first */
    std::vector<Bytes> needs;      /* of them, smallest first */
    double work = 0, held = 0;     /* of them: milliseconds x slots, bytes x milliseconds */
    double longest = 0, guessed = 0; /* times: the longest predicted so far; a rather long one for who has none */
    double per_core = 0;           /* the memory a core that the keys were made for */
};

/* Where a blocked head stands: what may pass without delaying it. */
struct Shadow {
    Unit *head = nullptr;
    std::vector<DomainId> where;
    Millis start = 0;  /* it could start then, if predictions hold */
    Bytes extra = 0;   /* memory that it would leave even then */
    bool helps = true; /* our units' ends would free enough for it */
};

struct Policy::State {
    explicit State(Settings given) : settings(given) {}

    Settings settings;
    std::map<UnitId, Unit> units;
    std::map<BuildId, Build> builds;
    std::map<DomainId, Domain> domains;
    std::vector<Unit *> running; /* by first start, the oldest first */
    DomainId next_cap = -1;
    int taken_cores = 0;
    bool curves = false; /* some unit came with one */
    Millis last = never;

    /* policy.cpp */
    Unit &enter(UnitId, BuildId, const Prediction &, int, const std::vector<DomainId> &, Millis now);
    void set_cap(Build &, Bytes memory);
    void start(Unit &, Millis now);
    void stop(Unit &);
    void remove(UnitId);
    void wait(Unit &, Millis now);
    void fail(Build &, const Unit *, std::string text);
    void settle(Millis now);
    Bytes total(const Unit &) const;
    void tell(std::vector<Action> &);

    /* promise.cpp */
    Bytes promise(const Unit &, Millis now) const;
    Bytes counted(const Unit &, Millis now) const;
    Outlook outlook(const Unit &, Millis now) const;
    Bytes held(const Unit &, const Outlook &, std::size_t span) const;
    bool passes(const Unit &, const Outlook &, const Domain &, Bytes budget, std::size_t span) const;
    bool is_free_for(Unit &, const Outlook &, const Domain &, Bytes budget) const;
    void foresee(const Unit &, Millis now);

    /* admit.cpp */
    void admit(Millis now, std::vector<Action> &);
    void sort(Build &);
    bool fits(Unit &, const Build &, Millis now) const;
    bool fits_in_time(Unit &, const Build &, Millis now) const;
    Bytes wish(DomainId, const Build &) const;
    Bytes spare(const Unit &, const Build &) const;
    Shadow shadow(Unit &head, Millis now) const;
    bool may_pass(const Unit &, const Shadow &, Millis now) const;
    Unit *choose(Build &, std::vector<Shadow> &, Millis now);
    bool force(Build &, Millis now, std::vector<Action> &);
    void ease(Build &, Millis now);
    void starve(Build &, const Unit &first, Millis now);
    void grant(Unit &, Build &, Millis now, std::vector<Action> &);
    bool oversized(Build &);

    /* guard.cpp */
    void guard(Millis now, std::vector<Action> &);
    void relieve(DomainId, Domain &, Millis now, std::vector<Action> &);
    void brake(DomainId, Domain &, Millis now, std::vector<Action> &);
    void thaw(std::vector<Action> &);
    void kill(Unit &, Millis now, std::vector<Action> &);
};

/* GiB-seconds over weight that a running unit will still take. */
double owed(const Unit &, const Build &, Millis now);

/* It needs more than was predicted. */
bool is_outgrown(const Unit &);

inline bool within(const Unit &unit, DomainId domain) {
    return std::find(unit.domains.begin(), unit.domains.end(), domain) != unit.domains.end();
}

} // namespace gate
