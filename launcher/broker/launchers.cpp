/* What launchers say, and what becomes of their units. */
#include <algorithm>
#include <charconv>
#include <csignal>

#include "server.hpp"

namespace gate::broker {

namespace {

constexpr Bytes most_bytes = Bytes{1} << 50;
constexpr Millis most_millis = Millis{1} << 40;
constexpr Millis inherited_for = 2'000;  /* a launcher comes back sooner, or never */
constexpr Millis control_within = 5'000; /* after launchers that ran without us */
constexpr Millis revise_every = 1'000;   /* guesses about what waits */
constexpr int most_looks = 40;

std::string word_of(const Packet &packet)
{
    const std::string word = packet.text("build", 63);
    return word.empty() ? "-" : word;
}

std::string kind_of(const std::string &word)
{
    static const char *const kinds[] = {"cu", "cxx", "c", "rust", "link"};
    const auto *found = std::find(std::begin(kinds), std::end(kinds), word);
    return found == std::end(kinds) ? "other" : *found;
}

/* Sixteen percentages, comma-separated; an unknown curve for all else. */
Curve curve_of(const std::string &text)
{
    Curve curve;
    const char *at = text.data(), *end = at + text.size();
    for (std::size_t point = 0; point < Curve::points; point++) {
        unsigned value = 0;
        const auto [after, error] = std::from_chars(at, end, value);
        const bool last = point + 1 == Curve::points;
        if (error != std::errc() || value > 100 || (last ? after != end : after == end || *after != ','))
            return Curve();
        curve.share[point] = static_cast<std::uint8_t>(value);
        at = after + (last ? 0 : 1);
    }
    curve.known = true;
    return curve;
}

Ended ended_of(const Packet &packet)
{
    Ended end;
    end.code = static_cast<int>(packet.number("code", 0, 255, 0));
    end.signal = static_cast<int>(packet.number("signal", 0, 64, 0));
    end.success = packet.has("code") && end.code == 0 && end.signal == 0;
    end.largest = packet.number("largest", 0, most_bytes, 0);
    end.peak = std::max(packet.number("peak", 0, most_bytes, 0), end.largest);
    end.wall = packet.number("wall", 0, most_millis, 0);
    end.cpu = packet.number("cpu", 0, most_millis, 0);
    const std::string curve = packet.text("curve", 80);
    if (curve_of(curve).known)
        end.curve = curve;
    return end;
}

} // namespace

void Server::on_unit(Connection &one, const Packet &packet)
{
    if (one.unit != 0) {
        one.dead = true;
        return;
    }
    Build &build = build_of(one.user, word_of(packet));
    take_back(one.peer);
    if (build.failed) {
        one.send(gate::packet("fail", {{"text", build.failure}}));
        return;
    }
    Unit unit;
    unit.id = next_unit++;
    unit.build = build.id;
    unit.client = &one;
    unit.launcher = one.peer;
    unit.identity = {packet.text("source"), packet.text("object"), kind_of(packet.text("kind")), packet.text("flags")};
    unit.name = packet.text("name");
    unit.command = packet.text("command");
    unit.slots = static_cast<int>(packet.number("slots", 1, 1024, 1));
    unit.can_repeat = packet.number("retry", 0, 1, 1) == 1;
    unit.membership = groups.around(one.peer.pid, now);
    unit.prediction = build.oracle->predict(unit.identity);
    unit.since = now;
    one.unit = unit.id;
    go_on(units.emplace(unit.id, std::move(unit)).first->second, packet);
    build.news = true;
}

/* It waits from now on, or runs already since the time of a broker before this one. */
void Server::go_on(Unit &unit, const Packet &packet)
{
    if (packet.number("held", 0, most_bytes, 0) > 0) {
        adopt_held(unit, packet);
        return;
    }
    unit.attempt = static_cast<int>(packet.number("attempt", 0, 1'000'000, 0));
    policy->request(unit.id, unit.build, unit.prediction, unit.slots, unit.membership.domains, now);
}

void Server::adopt_held(Unit &unit, const Packet &packet)
{
    unit.running = true;
    unit.reserved = packet.number("held", 1, most_bytes, 1);
    unit.attempt = static_cast<int>(packet.number("attempt", 1, 1'000'000, 1));
    unit.since = now - std::min(packet.number("started", 0, most_millis, 0), now);
    unit.kills_before = groups.kernel_kills(unit.membership);
    policy->adopt(unit.id, unit.build, unit.prediction, unit.slots, unit.membership.domains, unit.reserved, unit.since, now);
    look_for_group(unit);
    unit.slot = ledger.enter(lease(unit));
    saw(unit, packet.number("used", 0, most_bytes, 0));
    signal(unit, SIGCONT, "thaw"); /* the broker before us may have stopped it */
    Build &build = builds.at(unit.build);
    if (!build.control && !build.until)
        build.until = now + control_within;
}

/* The launcher of an inherited lease is back, and says itself what it holds. */
void Server::take_back(const Process &launcher)
{
    for (auto at = units.begin(); at != units.end();) {
        const Unit &unit = (at++)->second;
        if (!unit.client && launcher.pid > 0 && unit.launcher.pid == launcher.pid &&
            unit.launcher.started == launcher.started)
            forget(unit.id);
    }
}

void Server::saw(Unit &unit, Bytes used)
{
    unit.used = used;
    if (used > unit.peak) {
        unit.peak = used;
        unit.beside = -1;
        for (const auto &[id, other] : units)
            unit.beside += other.running ? 1 : 0;
    }
    policy->sample(unit.id, used, now);
}

void Server::on_at(Connection &one, const Packet &packet)
{
    const auto found = units.find(one.unit);
    if (found != units.end() && found->second.running)
        saw(found->second, packet.number("used", 0, most_bytes, 0));
}

/* How an attempt ended: by itself, by us, or by the kernel. */
Ending Server::judged(Unit &unit, const Packet &packet, Bytes peak)
{
    const Ended end = ended_of(packet);
    Ending ending;
    ending.success = end.success;
    ending.by_us = unit.shot;
    ending.peak = peak;
    if (!end.success && !unit.shot)
        ending.by_kernel = packet.number("killed", 0, 1, 0) == 1 || end.signal == SIGKILL || end.code == 128 + SIGKILL ||
                           groups.kernel_kills(unit.membership) > unit.kills_before;
    return ending;
}

void Server::on_end(Connection &one, const Packet &packet)
{
    const auto found = units.find(one.unit);
    if (found == units.end() || !found->second.running)
        return;
    Unit &unit = found->second;
    Build &build = builds.at(unit.build);
    Ended end = ended_of(packet);
    end.peak = std::max(end.peak, unit.peak);
    end.available = memory.available;
    const Ending ending = judged(unit, packet, end.peak);
    unit.peak = end.peak;
    unit.running = unit.shot = false;
    ledger.strike(unit.slot);
    unit.slot = -1;
    const bool killed_by_us = ending.by_us && !ending.success;
    unit.by_us += killed_by_us ? 1 : 0;
    unit.by_kernel += ending.by_kernel ? 1 : 0;
    build.kernel_kills += ending.by_kernel ? 1 : 0;
    build.news = true;
    const Verdict verdict = policy->ended(unit.id, ending, now);
    if (verdict == Verdict::done || (verdict == Verdict::again && !unit.can_repeat)) {
        finish(unit, end, true);
    } else if (verdict == Verdict::again) {
        finish(unit, end, false);
        Bytes next = unit.prediction.peak;
        for (const View &view : policy->views(now))
            next = view.unit == unit.id ? view.reserved : next;
        tell(build, requeue_text(unit, killed_by_us, end.peak, next));
        unit.used = unit.peak = 0;
    } /* Verdict::fail: the policy's next decision says why */
}

/* `final`: the result is the build tool's; else it waits for another grant. */
void Server::finish(Unit &unit, const Ended &end, bool final)
{
    if (!final) {
        unit.waited = 0;
        unit.since = now;
        unit.looks = 0;
        unit.group = {};
        unit.told_hung = false;
        unit.client->send(packet("again"));
        return;
    }
    learn(unit, end);
    tell(builds.at(unit.build), unit_text(unit, end));
    unit.client->send(packet("done"));
    forget(unit.id);
}

void Server::learn(const Unit &unit, const Ended &end)
{
    if (!end.success || end.peak <= 0)
        return;
    Build &build = builds.at(unit.build);
    build.oracle->learn(unit.identity, {end.peak, end.wall, curve_of(end.curve)});
    if (now < build.revise_at)
        return;
    build.revise_at = now + revise_every;
    revise(build);
}

/* What waits and was only guessed may be like what ended since. */
void Server::revise(const Build &build)
{
    for (auto &[id, unit] : units) {
        if (unit.build != build.id || unit.running || unit.attempt > 0 || unit.prediction.basis <= Basis::source)
            continue;
        unit.prediction = build.oracle->predict(unit.identity);
        policy->revise(id, unit.prediction);
    }
}

/* Nothing of the unit is counted any more. */
void Server::forget(UnitId id)
{
    const auto found = units.find(id);
    if (found == units.end())
        return;
    ledger.strike(found->second.slot);
    if (found->second.client)
        found->second.client->unit = 0;
    policy->gone(id);
    units.erase(found);
}

void Server::launcher_gone(Connection &one)
{
    const auto found = units.find(one.unit);
    if (found == units.end())
        return;
    Unit &unit = found->second;
    if (unit.running) {
        signal_children(unit.launcher, SIGKILL);
        signal_group(unit.group, SIGKILL);
    }
    builds.at(unit.build).news = true;
    forget(unit.id);
}

void Server::fail_unit(UnitId id, const std::string &text)
{
    const auto found = units.find(id);
    if (found == units.end())
        return;
    Unit &unit = found->second;
    if (unit.client)
        unit.client->send(packet("fail", {{"text", text}}));
    if (unit.running) {
        signal_children(unit.launcher, SIGKILL);
        signal_group(unit.group, SIGKILL);
    }
    forget(id);
}

void Server::look_for_group(Unit &unit)
{
    if (unit.group.pid > 0 || unit.looks >= most_looks || unit.launcher.pid <= 0)
        return;
    unit.looks++;
    unit.group = child_group(unit.launcher);
    if (unit.group.pid > 0)
        ledger.change(unit.slot, lease(unit));
}

/* What happens to units by time alone. */
void Server::watch_units()
{
    std::vector<UnitId> lost;
    for (auto &[id, unit] : units) {
        if (!unit.running)
            continue;
        look_for_group(unit);
        Build &build = builds.at(unit.build);
        if (!unit.client && (now >= unit.until || !alive(unit.launcher)))
            lost.push_back(id);
        if (build.hang > 0 && !unit.told_hung && now - unit.since >= build.hang) {
            unit.told_hung = true;
            tell(build, hung_text(unit, now));
        }
    }
    for (const UnitId id : lost) {
        const Unit &unit = units.at(id);
        if (!alive(unit.launcher))
            signal_group(unit.group, SIGKILL); /* nobody waits for it, and nobody counts what it takes */
        forget(id);
    }
}

Lease Server::lease(const Unit &unit) const
{
    const Build &build = builds.at(unit.build);
    return {unit.launcher, unit.group, build.user, unit.reserved, unit.slots, unit.attempt, build.word};
}

void Server::inherit()
{
    for (const Lease &lease : ledger.inherit()) {
        if (!alive(lease.launcher)) {
            signal_group(lease.group, SIGKILL);
            continue;
        }
        Unit unit;
        unit.id = next_unit++;
        unit.build = build_of(lease.user, lease.build).id;
        unit.launcher = lease.launcher;
        unit.group = lease.group;
        unit.name = "(from before)";
        unit.slots = lease.slots;
        unit.attempt = lease.attempt;
        unit.reserved = lease.reserved;
        unit.running = true;
        unit.membership = groups.around(lease.launcher.pid, now);
        unit.prediction.peak = lease.reserved;
        unit.since = now;
        unit.until = now + inherited_for;
        Build &build = builds.at(unit.build);
        build.until = now + control_within;
        unit.slot = ledger.enter(lease);
        policy->adopt(unit.id, unit.build, unit.prediction, unit.slots, unit.membership.domains, unit.reserved, now, now);
        const Unit &kept = units.emplace(unit.id, std::move(unit)).first->second;
        signal_children(kept.launcher, SIGCONT);
    }
}

} // namespace gate::broker
