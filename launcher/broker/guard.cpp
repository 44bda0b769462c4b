/* Who is stopped. Above everything: the machine stays usable. Below the low-water mark the youngest goes, one after the other,
 * each after its predecessor's memory has come back; the oldest is spared, so something always gets done. Below the hard
 * floor there is no time for turns: as many go as are needed, and the oldest is stopped, then killed too. A build's own cap
 * is guarded in the same way; there is nobody to protect below it, so it has no floor. */
#include <cmath>

#include "state.hpp"

namespace gate {
namespace {

constexpr Millis shortest = 5, longest = 250;
constexpr Millis ahead = 250;    /* samples of a build's own use are that old at worst: its growth is looked ahead */
constexpr Millis reaction = 40;  /* until a kill gives memory back, the rest of it vanishes as before */
constexpr Millis moment = 300;   /* below the floor the oldest may stay frozen for that long ... */
constexpr int frozen_graces = 10; /* ... and above it for so many graces, before it goes too */

bool falls_short(const Domain &domain, Bytes mark, bool count_coming) {
    const auto growth = static_cast<Bytes>(domain.growth * static_cast<double>(domain.cap ? ahead : reaction));
    return domain.room.available - growth + (count_coming ? domain.coming : 0) < mark;
}

} // namespace

void Policy::State::kill(Unit &unit, Millis now, std::vector<Action> &actions) {
    unit.dying = true;
    unit.killed = now;
    for (DomainId id : unit.domains)
        domains[id].coming += unit.used;
    actions.push_back({Action::kill, unit.id, unit.build, 0, unit.attempt, unit.alone, {}});
}

void Policy::State::relieve(DomainId id, Domain &domain, Millis now, std::vector<Action> &actions) {
    const bool urgent = !domain.cap && falls_short(domain, domain.floor(), false);
    const Unit *oldest = nullptr;
    for (const Unit *unit : running)
        if (oldest == nullptr && within(*unit, id))
            oldest = unit;
    bool waits = false; /* for a victim's memory */
    for (const Unit *unit : running)
        waits = waits || (unit->dying && within(*unit, id) && now - unit->killed < settings.grace);
    for (auto at = running.rbegin(); at != running.rend(); ++at) {
        Unit &unit = **at;
        if (!falls_short(domain, domain.low(), true) || (waits && !urgent))
            return;
        const bool alone_over = domain.cap && domain.running == 1 && domain.room.available < 0;
        if (unit.dying || !within(unit, id) || (&unit == oldest && !alone_over))
            continue;
        kill(unit, now, actions);
        waits = true;
    }
}

void Policy::State::brake(DomainId id, Domain &domain, Millis now, std::vector<Action> &actions) {
    Unit *oldest = nullptr;
    bool others = false;
    for (Unit *unit : running) {
        if (!within(*unit, id))
            continue;
        if (oldest == nullptr)
            oldest = unit;
        else
            others = others || !unit->dying || now - unit->killed < settings.grace;
    }
    if (oldest == nullptr || oldest->dying)
        return;
    const bool below = falls_short(domain, domain.floor(), false);
    if (below && !oldest->frozen) {
        oldest->frozen = true;
        oldest->froze = now;
        oldest->left = domain.room.available;
        actions.push_back({Action::freeze, oldest->id, oldest->build, 0, oldest->attempt, oldest->alone, {}});
        return;
    }
    if (!oldest->frozen)
        return;
    /* It is stopped, so it is others that take what is left: there is no time to wait for them. */
    const bool falling = below && domain.room.available < std::max(domain.floor() / 2, oldest->left - domain.floor() / 4);
    const Millis frozen_for = now - oldest->froze;
    const bool long_enough = (below && frozen_for >= moment) || frozen_for >= frozen_graces * settings.grace;
    if ((!others && long_enough && falls_short(domain, domain.low(), true)) || falling)
        kill(*oldest, now, actions);
}

void Policy::State::thaw(std::vector<Action> &actions) {
    for (Unit *unit : running) {
        const bool above = std::all_of(unit->domains.begin(), unit->domains.end(), [&](DomainId id) {
            const Domain &domain = domains[id];
            return domain.cap || !domain.known || !falls_short(domain, domain.low(), false);
        });
        if (!unit->frozen || unit->dying || !above)
            continue;
        unit->frozen = false;
        unit->froze = never;
        actions.push_back({Action::thaw, unit->id, unit->build, 0, unit->attempt, unit->alone, {}});
    }
}

void Policy::State::guard(Millis now, std::vector<Action> &actions) {
    for (auto &[id, domain] : domains) {
        if (!domain.known || domain.stale)
            continue;
        relieve(id, domain, now, actions);
        if (!domain.cap)
            brake(id, domain, now, actions);
    }
    thaw(actions);
}

Millis Policy::next(Millis) const {
    double wait = static_cast<double>(longest);
    for (const auto &[id, domain] : state->domains) {
        if (domain.running == 0 || !domain.known)
            continue;
        const double headroom = static_cast<double>(domain.room.available - domain.low());
        if (headroom <= 0)
            return shortest;
        if (domain.growth > 0)
            wait = std::min(wait, headroom / domain.growth / 4);
    }
    return std::max(shortest, static_cast<Millis>(wait));
}

} // namespace gate
