/* Who starts, and in which order.
 *
 * Two things run out: cores and memory. The bound on a build is the larger of both totals and of its longest unit, so
 *   - units are ordered by the share of the scarcer thing that they take, times their time: where memory is short that is
 *     memory x time, where it isn't it is plain longest-first;
 *   - but the largest first, and nothing else, fills memory with a few units and leaves cores idle, and later the small ones
 *     keep all cores busy and leave memory idle (FlashInfer: 60 units of 4 to 8 GiB, 2,300 of a half). So the mixture that
 *     runs is kept like the mixture that waits: as many units at once as the average waiting unit would allow, and a large
 *     one starts only if the smallest of the others still find room on the cores that this number asks for. Where memory is
 *     the bound, the number is small and this is plain memory x time.
 * A unit that finds no room becomes its build's head. What passes it without delaying it (it ends before the head could start,
 * or leaves enough room for it even then) is free to; the rest is bounded by a count and a time, and nothing passes a head
 * that wasn't started long after it should have been. */
#include <cmath>
#include <cstdio>

#include "state.hpp"

namespace gate {
namespace {

constexpr double guess_share = 0.95; /* which of the known times an unknown one is taken to have */
constexpr double mistrust = 1.25;    /* predicted times may be short by so much */
constexpr int overdue = 10;          /* patiences after a head should have started, nothing passes it any more */
constexpr Millis relief = 5'000;     /* memory that is there for so long has come back */
constexpr double drift = 1.1;        /* keys are made anew when the memory a core changes by more */

std::string gib(Bytes bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / 1073741824.0);
    return text;
}

/* Bytes that a promise holds on average over the unit's life. */
double mean_of(const Unit &unit) {
    const Curve &curve = unit.prediction.curve;
    if (!curve.known || unit.bare)
        return static_cast<double>(unit.need);
    double sum = 0;
    int most = 0;
    for (int i = Curve::points - 1; i >= 0; --i) {
        most = std::max<int>(most, curve.share[static_cast<std::size_t>(i)]);
        sum += most;
    }
    return static_cast<double>(unit.need) * sum / (100.0 * Curve::points);
}

/* The time that units without one are taken to have: rather long. */
double guess_time(const std::vector<Unit *> &waiting) {
    std::vector<double> known;
    for (const Unit *unit : waiting)
        if (unit->prediction.time > 0)
            known.push_back(static_cast<double>(unit->prediction.time));
    if (known.empty())
        return 60'000;
    const auto at = known.begin() + static_cast<std::ptrdiff_t>(guess_share * static_cast<double>(known.size() - 1));
    std::nth_element(known.begin(), at, known.end());
    return *at;
}

/* The time that a unit's place in the queue is made from. A long unit that starts last is what hurts (one kernel of vLLM takes
 * 15 minutes, its neighbours less than one), and a short one that starts first costs nothing: so what nothing is known of
 * counts as the longest of all, and a time that is only its neighbours' as a long one. */
double place(const Unit &unit, const Build &build) {
    if (unit.prediction.time <= 0)
        return std::max(build.longest, build.guessed);
    return unit.prediction.basis >= Basis::family ? std::max(unit.time, build.guessed) : unit.time;
}

bool apart(const Unit &unit, const Shadow &shadow) {
    return std::none_of(shadow.where.begin(), shadow.where.end(), [&](DomainId id) { return within(unit, id); });
}

/* It doesn't delay the head, as far as predictions say. */
bool harmless(const Unit &unit, const Shadow &shadow, Millis now) {
    if (apart(unit, shadow) || !shadow.helps || unit.need <= shadow.extra)
        return true;
    return unit.prediction.time > 0 && now + static_cast<Millis>(unit.time * mistrust) <= shadow.start;
}

} // namespace

void Policy::State::sort(Build &build) {
    const Domain &machine = domains[0];
    Bytes budget = std::max<Bytes>(machine.budget() - wish(0, build), 1);
    if (build.cap != 0)
        budget = std::min(budget, domains[build.cap].room.total);
    const double per_core = static_cast<double>(budget) / settings.cores;
    const bool same = per_core < build.per_core * drift && per_core * drift > build.per_core;
    if (!build.dirty && same)
        return;
    build.dirty = false;
    build.per_core = per_core;
    build.needs.clear();
    build.work = build.held = 0;
    build.guessed = std::max(build.guessed, guess_time(build.waiting));
    for (Unit *unit : build.waiting) {
        const double time = static_cast<double>(unit->prediction.time);
        unit->time = time > 0 ? time : build.guessed;
        unit->mean = mean_of(*unit);
        unit->key = place(*unit, build) * std::max(unit->mean / per_core, static_cast<double>(unit->slots));
        build.needs.push_back(unit->need);
        build.work += unit->time * unit->slots;
        build.held += unit->time * unit->mean;
    }
    std::sort(build.needs.begin(), build.needs.end());
    std::sort(build.waiting.begin(), build.waiting.end(), [](const Unit *one, const Unit *other) {
        if (one->prediction.first != other->prediction.first)
            return one->prediction.first;
        return one->key != other->key ? one->key > other->key : one->id < other->id;
    });
}

/* What a build wants to be left of a domain beyond its reserve. */
Bytes Policy::State::wish(DomainId id, const Build &build) const {
    const auto found = domains.find(id);
    const bool known = id == 0 && found != domains.end() && found->second.known;
    return known ? std::max<Bytes>(0, build.caps.reserve - found->second.room.reserve) : 0;
}

/* The least that any of its domains has left. */
Bytes Policy::State::spare(const Unit &unit, const Build &build) const {
    Bytes least = unlimited;
    for (DomainId id : unit.domains) {
        const auto found = domains.find(id);
        if (found == domains.end() || !found->second.known)
            continue;
        const Domain &domain = found->second;
        const bool shut = domain.taken || (unit.alone && domain.running > 0);
        least = std::min(least, shut ? -1 : domain.spare() - wish(id, build));
    }
    return least;
}

/* By the time of its peak others have ended, or are past theirs. */
bool Policy::State::fits_in_time(Unit &unit, const Build &build, Millis now) const {
    if (!unit.prediction.curve.known || unit.prediction.time <= 0 || unit.guess() || unit.bare || unit.alone)
        return false;
    const Outlook out = outlook(unit, now);
    for (DomainId id : unit.domains) {
        const auto found = domains.find(id);
        if (found == domains.end() || !found->second.known)
            continue;
        const Domain &domain = found->second;
        if (domain.taken)
            return false;
        if (!is_free_for(unit, out, domain, domain.budget() - wish(id, build)))
            return false;
    }
    return true;
}

bool Policy::State::fits(Unit &unit, const Build &build, Millis now) const {
    return unit.need <= spare(unit, build) || fits_in_time(unit, build, now);
}

/* Goes through the ends of what runs, in their predicted order, until the head would fit. */
Shadow Policy::State::shadow(Unit &head, Millis now) const {
    Shadow shadow;
    shadow.head = &head;
    const Build &build = builds.at(head.build);
    Bytes lacking = 0;
    for (DomainId id : head.domains) {
        const auto found = domains.find(id);
        if (found == domains.end() || !found->second.known)
            continue;
        const Domain &domain = found->second;
        const Bytes kept = wish(id, build);
        if (head.need <= domain.spare() - kept && !domain.taken && !(head.alone && domain.running > 0))
            continue;
        shadow.where.push_back(id);
        lacking = std::max(lacking, head.need - domain.spare() + kept);
        shadow.helps = shadow.helps && head.need <= domain.budget() - kept;
    }
    std::vector<std::pair<Millis, Bytes>> ends;
    for (const Unit *unit : running) {
        const bool counts = std::any_of(shadow.where.begin(), shadow.where.end(),
                                        [&](DomainId id) { return within(*unit, id); });
        if (!counts)
            continue;
        const Millis end = unit->started + static_cast<Millis>(unit->time);
        ends.emplace_back(std::max(end, now + static_cast<Millis>(unit->time / 8)), std::max(counted(*unit, now), unit->used));
    }
    std::sort(ends.begin(), ends.end());
    shadow.start = now;
    for (const auto &[end, bytes] : ends) {
        if (lacking <= 0 && !head.alone)
            break;
        shadow.start = end;
        lacking -= bytes;
    }
    shadow.extra = head.alone ? 0 : -lacking;
    return shadow;
}

bool Policy::State::may_pass(const Unit &unit, const Shadow &shadow, Millis now) const {
    const Unit &head = *shadow.head;
    if (apart(unit, shadow) || !shadow.helps)
        return true;
    if (now > head.due + overdue * settings.patience)
        return false;
    if (harmless(unit, shadow, now))
        return true;
    return head.bypasses < settings.bypasses && now - head.blocked < settings.patience;
}

/* The next unit of a build. The first that finds no room becomes its head, and stays it until it has started, whatever comes
 * before it in the queue: else those would take what is kept free for it. */
Unit *Policy::State::choose(Build &build, std::vector<Shadow> &heads, Millis now) {
    int free = settings.cores - taken_cores;
    if (build.caps.jobs > 0)
        free = std::min(free, build.running == 0 ? free : build.caps.jobs - build.slots);
    if (free <= 0 || build.waiting.empty())
        return nullptr;
    sort(build);
    const double average = build.held / std::max(build.work, 1.0);
    const double at_once = build.per_core * settings.cores / std::max(average, 1.0);
    const int wanted = std::min(free, static_cast<int>(std::lround(at_once)) - build.slots);
    Bytes others = 0;
    for (int i = 0; i + 1 < wanted && i < static_cast<int>(build.needs.size()); ++i)
        others += build.needs[static_cast<std::size_t>(i)];
    if (build.head != nullptr && build.head->slots <= free) {
        if (fits(*build.head, build, now))
            return build.head;
        heads.push_back(shadow(*build.head, now));
    }
    Unit *second = nullptr;
    for (Unit *unit : build.waiting) {
        const Bytes room = spare(*unit, build);
        if (unit->slots > free || unit == build.head)
            continue;
        if (unit->need > room && !fits_in_time(*unit, build, now)) {
            if (build.head == nullptr) {
                build.head = unit;
                heads.push_back(shadow(*unit, now));
                unit->blocked = now;
                unit->due = heads.back().start;
            }
            if (room < build.needs.front() && !curves)
                break;
            continue;
        }
        const bool free_to = std::all_of(heads.begin(), heads.end(), [&](const Shadow &h) { return may_pass(*unit, h, now); });
        if (!free_to)
            continue;
        if (unit->need <= room - others)
            return unit;
        second = second == nullptr ? unit : second;
    }
    return second;
}

void Policy::State::grant(Unit &unit, Build &build, Millis now, std::vector<Action> &actions) {
    build.waiting.erase(std::find(build.waiting.begin(), build.waiting.end(), &unit));
    build.needs.erase(std::lower_bound(build.needs.begin(), build.needs.end(), unit.need));
    build.work -= unit.time * unit.slots;
    build.held -= unit.time * unit.mean;
    build.head = build.head == &unit ? nullptr : build.head;
    unit.reserved = unit.need;
    start(unit, now);
    build.ahead += owed(unit, build, now);
    foresee(unit, now);
    for (DomainId id : unit.domains) {
        Domain &domain = domains[id];
        domain.outstanding += unit.need;
        domain.running += 1;
        domain.moving += 1;
        domain.taken = domain.taken || unit.alone;
    }
    actions.push_back({Action::grant, unit.id, unit.build, unit.need, unit.attempt, unit.alone, {}});
}

/* Units that can never fit. What their own history says is believed; a guess is cut down to what there is, and runs alone. */
bool Policy::State::oversized(Build &build) {
    for (Unit *unit : build.waiting) {
        const Bytes most = total(*unit);
        if (unit->need <= most)
            continue;
        const double peak = static_cast<double>(unit->need) / (unit->strikes > 0 ? 1 : history_margin);
        const bool nothing = most <= 0 && build.caps.reserve > 0;
        if (nothing || (!unit->guess() && unit->strikes == 0 && peak > static_cast<double>(most))) {
            fail(build, unit,
                 "needs " + gib(static_cast<Bytes>(peak)) + ", and at most " + gib(most) + " can ever be had here: " +
                     gib(static_cast<Bytes>(peak) - most) + " more have to be freed, or allowed by --memory and --reserve");
            return true;
        }
        unit->need = most;
        unit->alone = true;
        build.dirty = true;
    }
    return false;
}

/* Nothing gets on where this build's first unit has to: a guess starts at once while there is any room above the reserve; what
 * is known not to fit waits, for a bounded time. */
bool Policy::State::force(Build &build, Millis now, std::vector<Action> &actions) {
    if (build.caps.jobs > 0 && build.running > 0 && build.slots >= build.caps.jobs)
        return false; /* its own cap keeps it waiting */
    sort(build); /* `choose` may have had no reason to */
    const Unit *first = nullptr;
    for (Unit *unit : build.waiting) {
        bool stuck = true, idle = settings.cores > taken_cores, above = true;
        for (DomainId id : unit->domains) {
            const Domain &domain = domains[id];
            if (!domain.known)
                continue;
            /* Who was only stopped by us may share: the guard sees it in time. */
            const bool shut = domain.taken || (unit->alone && unit->kernel_kills > 0 && domain.running > 0);
            const Bytes kept = wish(id, build);
            const bool fits_here = unit->need <= domain.spare() - kept && !shut;
            stuck = stuck && (fits_here || domain.moving == 0);
            idle = idle && (fits_here || domain.running == 0);
            above = above && domain.room.available > domain.room.reserve + kept;
        }
        if (!stuck)
            return false; /* something runs in the way, so its end will bring a change */
        first = first == nullptr ? unit : first;
        if (above && idle && unit->guess()) {
            starve(build, *first, now);
            if (!build.failed)
                grant(*unit, build, now, actions);
            return !build.failed;
        }
    }
    if (first != nullptr && settings.cores > taken_cores)
        starve(build, *first, now);
    return false;
}

/* A start is no relief, as what starts may be stopped again: only an end is, or memory that stays (`ease`). */
void Policy::State::starve(Build &build, const Unit &first, Millis now) {
    if (build.starved == never)
        build.starved = now;
    build.eased = never;
    if (now - build.starved < settings.pause_limit)
        return;
    const Bytes room = std::max<Bytes>(spare(first, build), 0);
    /* Who was stopped too often waits for more than it needs itself. */
    const Bytes own = std::min(first.need, std::max<Bytes>(first.prediction.peak, 1));
    const Bytes need = first.strikes == 0 && own > room ? own : first.need;
    fail(build, &first,
         "needs " + gib(need) + " and for " + std::to_string((now - build.starved) / 1000) + " s there were only " +
             gib(room) + ": " + gib(need - room) + " have to be freed by other programs");
}

/* There is memory again for what runs, and has been for a while. */
void Policy::State::ease(Build &build, Millis now) {
    if (build.starved == never)
        return;
    bool moves = false, short_of = false;
    for (const Unit *unit : running) {
        moves = moves || (unit->build == build.id && !unit->frozen && !unit->dying);
        for (DomainId id : unit->domains)
            short_of = short_of || (unit->build == build.id && domains[id].known && domains[id].spare() < wish(id, build));
    }
    if (!moves || short_of)
        build.eased = never;
    else if (build.eased == never)
        build.eased = now;
    else if (now - build.eased >= relief)
        build.starved = build.eased = never;
}

void Policy::State::admit(Millis now, std::vector<Action> &actions) {
    std::vector<Build *> order;
    for (auto &[id, build] : builds)
        if (!build.paused && !build.failed && !build.waiting.empty() && !oversized(build))
            order.push_back(&build);
    if (order.empty() || !domains[0].known)
        return;
    const auto least = [](const Build *one, const Build *other) {
        return one->share + one->ahead < other->share + other->ahead;
    };
    bool again = true;
    while (again) {
        again = false;
        std::stable_sort(order.begin(), order.end(), least);
        std::vector<Shadow> heads;
        for (Build *build : order) {
            if (build->waiting.empty())
                continue;
            Unit *unit = choose(*build, heads, now);
            if (unit == nullptr)
                continue;
            for (Shadow &shadow : heads)
                if (!harmless(*unit, shadow, now))
                    shadow.head->bypasses += 1;
            grant(*unit, *build, now, actions);
            again = true;
            break;
        }
    }
    for (Build *build : order) {
        ease(*build, now);
        if (!build->waiting.empty())
            force(*build, now, actions);
    }
}

} // namespace gate
