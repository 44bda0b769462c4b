/* What the policy decided, done. */
#include <csignal>

#include "server.hpp"

namespace gate::broker {

void Server::act(const Action &action)
{
    if (action.kind == Action::fail) {
        fail(action);
        return;
    }
    const auto found = units.find(action.unit);
    if (found == units.end())
        return;
    Unit &unit = found->second;
    switch (action.kind) {
    case Action::grant: grant(unit, action); break;
    case Action::kill: kill(unit); break;
    case Action::freeze: signal(unit, SIGSTOP, "freeze"); break;
    case Action::thaw: signal(unit, SIGCONT, "thaw"); break;
    case Action::fail: break;
    }
    builds.at(action.unit ? unit.build : action.build).news = true;
}

void Server::grant(Unit &unit, const Action &action)
{
    if (!unit.client || unit.client->dead)
        return; /* it is swept in this very round */
    unit.running = true;
    unit.shot = false;
    unit.attempt++;
    unit.waited += now - unit.since;
    unit.since = now;
    unit.reserved = action.bytes;
    unit.used = unit.peak = 0;
    unit.beside = 0;
    unit.kills_before = groups.kernel_kills(unit.membership);
    unit.slot = ledger.enter(lease(unit)); /* before it is told: a promise must outlive us */
    unit.client->send(packet("go", {{"bytes", std::to_string(action.bytes)},
                                    {"attempt", std::to_string(unit.attempt)},
                                    {"alone", action.alone ? "1" : "0"}}));
}

void Server::kill(Unit &unit)
{
    if (!unit.running)
        return;
    unit.shot = true;
    builds.at(unit.build).kills++;
    signal(unit, SIGKILL, "kill");
    if (!unit.client)
        forget(unit.id);
}

/* By ourselves where we may, since a launcher may be slow when memory is short, and by its launcher in any case. */
void Server::signal(Unit &unit, int number, const char *verb)
{
    signal_children(unit.launcher, number);
    if (unit.client)
        unit.client->send(packet(verb));
}

void Server::fail(const Action &action)
{
    const auto found = builds.find(action.build);
    if (found == builds.end())
        return;
    Build &build = found->second;
    const auto culprit = units.find(action.unit);
    const Unit *unit = culprit == units.end() ? nullptr : &culprit->second;
    if (!build.failed) {
        build.failed = true;
        build.failure = unit ? unit->name + " " + action.text : action.text;
        tell(build, fail_text(build.failure, unit, bound(build).total));
    }
    if (unit)
        fail_unit(unit->id, build.failure);
}

/* Those that came since, or that the policy didn't name. */
void Server::fail_rest(Build &build)
{
    std::vector<UnitId> rest;
    for (const auto &[id, unit] : units)
        if (unit.build == build.id)
            rest.push_back(id);
    for (const UnitId id : rest)
        fail_unit(id, build.failure);
}

} // namespace gate::broker
