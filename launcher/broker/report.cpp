#include "report.hpp"

#include <algorithm>

#include "message.hpp"

namespace gate::broker {

namespace {

constexpr std::size_t shown_at_most = 12;

std::string running_text(const Shown &one, Millis now)
{
    const Unit &unit = *one.unit;
    return Json()
        .text("name", unit.name)
        .text("kind", unit.identity.kind)
        .number("used", unit.used)
        .number("reserved", one.view->reserved)
        .number("since_ms", now - unit.since)
        .number("last_ms", unit.prediction.time)
        .number("peak", unit.prediction.peak)
        .text("basis", basis_word(unit.prediction.basis))
        .number("attempt", unit.attempt)
        .flag("frozen", one.view->frozen)
        .flag("alone", one.view->alone)
        .close();
}

std::string heaviest(std::vector<Shown> running, Millis now)
{
    const auto weight = [](const Shown &one) { return std::max(one.unit->used, one.view->reserved); };
    std::sort(running.begin(), running.end(), [&](const Shown &one, const Shown &other) {
        return std::pair(weight(other), one.unit->id) < std::pair(weight(one), other.unit->id);
    });
    running.resize(std::min(running.size(), shown_at_most));
    std::string list = "[";
    for (const Shown &one : running)
        list += (list.size() > 1 ? ", " : "") + running_text(one, now);
    return list + "]";
}

/* What keeps more from running. */
const char *bound_word(const State &state, int cap)
{
    if (state.own.frozen > 0 || state.bound.available < state.bound.reserve / 2)
        return "pressure";
    if (state.own.waiting == 0)
        return "idle";
    const bool all_busy = state.own.slots + state.others.slots >= state.cores;
    return state.own.slots >= cap || all_busy ? "cpu" : "memory";
}

} // namespace

Bytes Bound::ceiling() const
{
    return std::max<Bytes>(0, available - reserve + used);
}

Bytes Bound::room() const
{
    return std::max<Bytes>(0, available - reserve - promised);
}

std::string basis_word(Basis basis)
{
    switch (basis) {
    case Basis::flags: return "flags";
    case Basis::unit: return "unit";
    case Basis::source: return "source";
    case Basis::twin: return "twin";
    case Basis::family: return "family";
    case Basis::folder: return "folder";
    case Basis::hint: return "hint";
    case Basis::kind: return "kind";
    case Basis::fallback: break;
    }
    return "fallback";
}

std::string state_text(State state)
{
    const Build &build = *state.build;
    const int cap = build.caps.jobs > 0 ? std::min(build.caps.jobs, state.cores) : state.cores;
    Json out;
    out.number("t", state.now)
        .text("basis", state.bound.basis)
        .number("available", state.bound.available)
        .number("reserve", state.bound.reserve)
        .number("total", state.bound.total)
        .number("used", state.own.used)
        .number("promised", state.own.promised)
        .number("ceiling", state.bound.ceiling())
        .number("room", state.bound.room())
        .number("jobs", state.own.running)
        .number("slots", cap)
        .number("waiting", state.own.waiting)
        .flag("paused", build.paused)
        .text("bound", bound_word(state, cap))
        .number("others", state.others.used)
        .raw("running", heaviest(std::move(state.running), state.now))
        .number("kills", build.kills)
        .number("kernel_kills", build.kernel_kills)
        .number("frozen", state.own.frozen);
    return wrapped("state", out);
}

std::string unit_text(const Unit &unit, const Ended &end)
{
    Json out;
    out.text("name", unit.name)
        .text("source", unit.identity.source)
        .text("object", unit.identity.object)
        .text("kind", unit.identity.kind)
        .text("flags", unit.identity.flags)
        .flag("ok", end.success)
        .number("code", end.code)
        .number("signal", end.signal)
        .number("attempt", unit.attempt)
        .number("attempts_us", unit.by_us)
        .number("attempts_kernel", unit.by_kernel)
        .number("peak", end.peak)
        .number("largest", end.largest)
        .number("reserved", unit.reserved)
        .text("basis", basis_word(unit.prediction.basis))
        .number("wall_ms", end.wall)
        .number("cpu_ms", end.cpu)
        .number("wait_ms", unit.waited)
        .raw("curve", end.curve.empty() ? "null" : json_string(end.curve))
        .number("beside", unit.beside)
        .number("available_at_end", end.available);
    return wrapped("unit", out);
}

std::string requeue_text(const Unit &unit, bool by_us, Bytes used, Bytes next)
{
    Json out;
    out.text("name", unit.name).text("why", by_us ? "us" : "kernel").number("used", used).number("next", next);
    return wrapped("requeue", out);
}

std::string hung_text(const Unit &unit, Millis now)
{
    Json out;
    out.text("name", unit.name)
        .text("command", unit.command)
        .number("since_ms", now - unit.since)
        .number("used", unit.used);
    return wrapped("hung", out);
}

std::string fail_text(const std::string &text, const Unit *unit, Bytes total)
{
    Json out;
    out.text("text", text)
        .text("unit", unit ? unit->name : "")
        .number("peak", unit ? std::max(unit->peak, unit->prediction.peak) : 0)
        .number("total", total);
    return wrapped("fail", out);
}

} // namespace gate::broker
