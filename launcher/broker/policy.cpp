/* Events: what happened to units and rooms. */
#include "policy.hpp"

#include <cmath>
#include <cstdio>
#include <utility>

#include "state.hpp"

namespace gate {
namespace {

constexpr double first_retry = 1.5, next_retry = 1.6;
constexpr double fastest = 4.0 * 1073741824.0 / 1000; /* bytes a millisecond that a core can take: more is a jump, no rate */
constexpr int alone_after = 3; /* strikes */
constexpr int patient = 4;     /* own kills of a unit that did nothing wrong, before it waits for more room each time */

std::string gib(Bytes bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / 1073741824.0);
    return text;
}

} // namespace

void Policy::State::settle(Millis now) {
    const double passed = last == never ? 0 : static_cast<double>(now - last) / 1000.0;
    last = now;
    for (auto &[id, domain] : domains) {
        domain.outstanding = domain.used = domain.coming = 0;
        domain.running = domain.moving = 0;
        domain.taken = false;
        domain.later.fill(0);
    }
    for (auto &[id, build] : builds)
        build.ahead = 0;
    for (Unit *unit : running) {
        Build &build = builds.at(unit->build);
        build.share += static_cast<double>(std::max(unit->reserved, unit->used)) / 1073741824.0 * passed / build.caps.weight;
        unit->reserved = promise(*unit, now);
        build.ahead += owed(*unit, build, now);
        const Bytes open = unit->dying ? 0 : std::max<Bytes>(0, counted(*unit, now) - unit->used);
        const bool comes = unit->dying && now - unit->killed < settings.grace;
        for (DomainId id : unit->domains) {
            Domain &domain = domains[id];
            domain.outstanding += open;
            domain.used += unit->used;
            domain.coming += comes ? unit->used : 0;
            domain.running += 1;
            domain.moving += unit->dying || unit->frozen ? 0 : 1;
            domain.taken = domain.taken || unit->alone;
        }
        foresee(*unit, now);
    }
    for (auto &[id, domain] : domains)
        if (domain.cap) {
            domain.room.available = domain.room.total - domain.used;
            domain.fresh = true;
        }
    for (auto &[id, domain] : domains) {
        if (!domain.fresh)
            continue;
        /* Samples of many units come within the same millisecond: over less than their interval a rate is noise. */
        constexpr double window = 100;
        const double gap = domain.read == never ? 0 : static_cast<double>(now - domain.read);
        if (gap >= window) {
            const double rate = static_cast<double>(domain.before - domain.room.available) / gap;
            domain.growth = std::max(std::min(rate, fastest * settings.cores), domain.growth * std::exp(-gap / 500.0));
        }
        if (gap >= window || domain.read == never) {
            domain.before = domain.room.available;
            domain.read = now;
        }
        domain.fresh = false;
    }
}

Bytes Policy::State::total(const Unit &unit) const {
    Bytes least = unlimited;
    for (DomainId id : unit.domains) {
        const auto found = domains.find(id);
        if (found != domains.end() && (found->second.known || found->second.cap))
            least = std::min(least, std::max<Bytes>(0, found->second.room.total - wish(id, builds.at(unit.build))));
    }
    return least;
}

void Policy::State::set_cap(Build &build, Bytes memory) {
    const DomainId old = build.cap;
    if (old != 0 && memory <= 0) {
        for (auto &[id, unit] : units)
            unit.domains.erase(std::remove(unit.domains.begin(), unit.domains.end(), old), unit.domains.end());
        domains.erase(old);
        build.cap = 0;
    }
    if (memory <= 0)
        return;
    if (old == 0) {
        build.cap = next_cap--;
        for (auto &[id, unit] : units)
            if (unit.build == build.id)
                unit.domains.push_back(build.cap);
    }
    Domain &domain = domains[build.cap];
    domain.cap = domain.known = true;
    domain.room.total = memory;
}

Unit &Policy::State::enter(UnitId id, BuildId build_id, const Prediction &prediction, int slots,
                           const std::vector<DomainId> &names, Millis now) {
    Build &build = builds[build_id];
    build.id = build_id;
    double least = -1;
    bool busy = false;
    for (const auto &[other_id, other] : builds) {
        const bool active = other.running > 0 || !other.waiting.empty();
        if (other_id == build_id)
            busy = active;
        else if (active)
            least = least < 0 ? other.share : std::min(least, other.share);
    }
    if (!busy && least >= 0) /* time that it didn't want is not saved up */
        build.share = std::max(build.share, least);
    Unit &unit = units[id];
    unit.id = id;
    unit.build = build_id;
    unit.prediction = prediction;
    curves = curves || prediction.curve.known;
    unit.slots = std::min(std::max(slots, 1), settings.cores);
    unit.domains = names;
    if (build.cap != 0)
        unit.domains.push_back(build.cap);
    unit.asked = now;
    unit.need = std::max<Bytes>(prediction.peak, 1);
    build.longest = std::max(build.longest, static_cast<double>(prediction.time));
    return unit;
}

void Policy::State::wait(Unit &unit, Millis now) {
    unit.running = unit.dying = unit.frozen = false;
    unit.blocked = unit.due = unit.killed = unit.froze = never;
    unit.bypasses = 0;
    unit.used = unit.top = unit.reserved = 0;
    unit.asked = now;
    Build &build = builds.at(unit.build);
    build.waiting.push_back(&unit);
    build.dirty = true;
}

void Policy::State::start(Unit &unit, Millis now) {
    unit.running = true;
    unit.started = now;
    unit.attempt += 1;
    if (unit.first_start == never)
        unit.first_start = now;
    const auto older = [](const Unit *one, const Unit *other) {
        return std::pair(one->first_start, one->id) < std::pair(other->first_start, other->id);
    };
    running.insert(std::upper_bound(running.begin(), running.end(), &unit, older), &unit);
    taken_cores += unit.slots;
    builds.at(unit.build).slots += unit.slots;
    builds.at(unit.build).running += 1;
}

void Policy::State::stop(Unit &unit) {
    Build &build = builds.at(unit.build);
    if (unit.running) {
        running.erase(std::remove(running.begin(), running.end(), &unit), running.end());
        taken_cores -= unit.slots;
        build.slots -= unit.slots;
        build.running -= 1;
        unit.running = false;
        for (DomainId id : unit.domains)
            domains[id].stale = !domains[id].cap;
        return;
    }
    build.head = build.head == &unit ? nullptr : build.head;
    build.waiting.erase(std::remove(build.waiting.begin(), build.waiting.end(), &unit), build.waiting.end());
    build.dirty = true;
}

void Policy::State::remove(UnitId id) {
    const auto found = units.find(id);
    if (found == units.end())
        return;
    stop(found->second);
    units.erase(found);
}

void Policy::State::fail(Build &build, const Unit *unit, std::string text) {
    if (build.failed)
        return;
    build.failed = true;
    build.text = std::move(text);
    build.culprit = unit != nullptr ? unit->id : 0;
}

/* Everybody of a failed build hears it, once. */
void Policy::State::tell(std::vector<Action> &actions) {
    for (auto &[build_id, build] : builds) {
        if (!build.failed)
            continue;
        if (!build.told)
            actions.push_back({Action::fail, build.culprit, build_id, 0, 0, false, build.text});
        build.told = true;
        for (auto &[id, unit] : units)
            if (unit.build == build_id && !unit.told && id != build.culprit) {
                actions.push_back({Action::fail, id, build_id, 0, 0, false, build.text});
                unit.told = true;
            }
    }
}

Policy::Policy(Settings settings) : state(std::make_unique<State>(settings)) {}
Policy::~Policy() = default;

void Policy::open_build(BuildId id, const Caps &caps, Millis) {
    Build &build = state->builds[id];
    build.id = id;
    change_build(id, caps, build.paused);
}

void Policy::change_build(BuildId id, const Caps &caps, bool paused) {
    const auto found = state->builds.find(id);
    if (found == state->builds.end())
        return;
    Build &build = found->second;
    build.caps = caps;
    build.caps.weight = caps.weight > 0 ? caps.weight : 1;
    build.paused = paused;
    build.starved = build.eased = never;
    build.dirty = true;
    state->set_cap(build, caps.memory);
}

void Policy::close_build(BuildId id) {
    const auto found = state->builds.find(id);
    if (found == state->builds.end())
        return;
    std::vector<UnitId> gone_with_it;
    for (const auto &[unit_id, unit] : state->units)
        if (unit.build == id)
            gone_with_it.push_back(unit_id);
    for (UnitId unit_id : gone_with_it)
        state->remove(unit_id);
    if (found->second.cap != 0)
        state->domains.erase(found->second.cap);
    state->builds.erase(found);
}

void Policy::request(UnitId id, BuildId build, const Prediction &prediction, int slots, const std::vector<DomainId> &domains,
                     Millis now) {
    state->wait(state->enter(id, build, prediction, slots, domains, now), now);
}

void Policy::adopt(UnitId id, BuildId build, const Prediction &prediction, int slots, const std::vector<DomainId> &domains,
                   Bytes reserved, Millis started, Millis now) {
    Unit &unit = state->enter(id, build, prediction, slots, domains, now);
    unit.need = unit.reserved = std::max<Bytes>(reserved, 1);
    state->start(unit, started);
}

void Policy::sample(UnitId id, Bytes used, Millis) {
    const auto found = state->units.find(id);
    if (found == state->units.end() || !found->second.running)
        return;
    Unit &unit = found->second;
    unit.used = used;
    unit.top = std::max(unit.top, used);
    if (used > unit.reserved && is_outgrown(unit))
        unit.reserved = static_cast<Bytes>(raise * static_cast<double>(used));
}

void Policy::revise(UnitId id, const Prediction &prediction) {
    const auto found = state->units.find(id);
    if (found == state->units.end() || found->second.running || found->second.attempt > 0)
        return;
    found->second.prediction = prediction;
    state->curves = state->curves || prediction.curve.known;
    found->second.need = std::max<Bytes>(prediction.peak, 1);
    found->second.alone = false;
    state->builds.at(found->second.build).dirty = true;
}

Verdict Policy::ended(UnitId id, const Ending &ending, Millis now) {
    const auto found = state->units.find(id);
    if (found == state->units.end())
        return Verdict::done;
    Unit &unit = found->second;
    Build &build = state->builds.at(unit.build);
    const Bytes used = std::max(ending.peak, unit.top);
    const bool ours = ending.by_us && !ending.success, kernel = ending.by_kernel && !ending.success && !ours;
    unit.kernel_kills += kernel ? 1 : 0;
    if (build.failed || (!ours && !kernel) || (kernel && unit.kernel_kills >= state->settings.kernel_kills)) {
        const bool failed = build.failed && !ending.success;
        for (auto &[other_id, other] : state->builds) /* something got done */
            other.starved = never;
        state->remove(id);
        return failed ? Verdict::fail : Verdict::done;
    }
    state->stop(unit);
    if (ours && used > state->total(unit)) {
        state->fail(build, &unit,
                    "needs more than " + gib(used) + ", and at most " + gib(state->total(unit)) + " can ever be had here");
        return Verdict::fail;
    }
    /* Who was stopped only for being the youngest has done nothing that a larger promise would mend. */
    unit.own_kills += ours ? 1 : 0;
    unit.strikes += kernel || used > unit.need ? 1 : 0;
    const double grown = first_retry * static_cast<double>(used);
    const bool too_often = ours && unit.own_kills >= patient;
    const double again = unit.strikes >= 2 || too_often ? next_retry * static_cast<double>(unit.need) : 0;
    unit.need = std::max({unit.need, static_cast<Bytes>(grown), static_cast<Bytes>(again)});
    unit.need = std::min(unit.need, state->total(unit));
    unit.bare = unit.bare || unit.strikes > 0 || too_often;
    unit.alone = unit.alone || unit.strikes >= alone_after;
    state->wait(unit, now);
    return Verdict::again;
}

void Policy::gone(UnitId id) { state->remove(id); }

void Policy::room(DomainId id, const Room &room) {
    Domain &domain = state->domains[id];
    domain.room = room;
    domain.known = domain.fresh = true;
    domain.stale = false;
}

std::vector<Action> Policy::decide(Millis now) {
    std::vector<Action> actions;
    state->settle(now);
    state->guard(now, actions);
    state->admit(now, actions);
    state->tell(actions);
    return actions;
}

std::vector<View> Policy::views(Millis now) const {
    std::vector<View> all;
    for (const auto &[id, unit] : state->units) {
        const Bytes reserved = unit.running ? state->promise(unit, now) : unit.need;
        all.push_back({id, unit.build, unit.running, unit.frozen, unit.alone, unit.attempt, reserved, unit.used,
                       unit.running ? unit.started : unit.asked, unit.prediction});
    }
    return all;
}

} // namespace gate
