#include "world.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "predict.hpp"

namespace gate {
namespace {

constexpr double rise_end = 0.30, hold_end = 0.45, tail = 0.35;
constexpr double to_die = 0.2;      /* seconds from SIGKILL to the memory's return */
constexpr double sample_gap = 0.1;  /* launchers tell their use so often */
constexpr double step = 0.05;       /* the true memory is looked at so often at least */

double shape(double progress, bool hold) {
    if (progress < rise_end)
        return progress / rise_end;
    return progress < hold_end || hold ? 1 : tail;
}

std::string curve_text(bool hold) {
    std::string text;
    for (int i = 0; i < Curve::points; ++i) {
        double most = 0;
        for (int part = 0; part < 8; ++part)
            most = std::max(most, shape((i + part / 8.0) / Curve::points, hold));
        most = std::max(most, shape((i + 1) / static_cast<double>(Curve::points) - 1e-9, hold));
        text += (i > 0 ? "," : "") + std::to_string(static_cast<int>(std::ceil(most * 100)));
    }
    return text;
}

struct Process {
    std::size_t work = 0;
    double progress = 0; /* seconds of work done */
    double dies = -1;    /* it was killed, and its memory comes back then */
    bool frozen = false, by_kernel = false;
};

struct World {
    const std::vector<Work> &units;
    const Scenario &scenario;
    Outcome outcome;
    Policy policy;
    Oracle oracle;
    std::mt19937 random;
    std::vector<Process> processes;
    std::vector<bool> finished, started;
    std::size_t asked = 0, left = 0;
    double now = 0, sampled = 0, ticked = 0, revised = 0;

    World(const std::vector<Work> &given, const Scenario &how)
        : units(given), scenario(how), policy(with_cores(how)), random(how.seed), finished(given.size()), started(given.size()),
          left(given.size()) {}

    static Settings with_cores(const Scenario &how) {
        Settings settings = how.settings;
        settings.cores = how.cores;
        return settings;
    }
    Identity who(std::size_t i) const {
        const Work &unit = units[i];
        const bool object = unit.name.size() > 2 && unit.name.compare(unit.name.size() - 2, 2, ".o") == 0;
        return {object ? "" : unit.name, object ? unit.name : "", unit.kind, ""};
    }
    Bytes used(const Process &process) const {
        const Work &unit = units[process.work];
        return static_cast<Bytes>(static_cast<double>(unit.peak) * shape(process.progress / unit.seconds, scenario.hold));
    }
    Bytes model(double at) const {
        const double part = std::clamp((at - scenario.model_at) / std::max(scenario.model_over, 1e-9), 0.0, 1.0);
        return scenario.model > 0 ? static_cast<Bytes>(part * static_cast<double>(scenario.model)) : 0;
    }
    Bytes all_used() const {
        Bytes sum = 0;
        for (const Process &process : processes)
            sum += used(process);
        return sum;
    }
    Millis millis() const { return static_cast<Millis>(std::llround(now * 1000)); }

    void remember();
    void ask();
    void room();
    void decide();
    void apply(const Action &);
    void settle_deaths();
    void end(std::size_t at, bool success, bool by_us, bool by_kernel);
    void finish_due();
    void look();
    void static_start();
    double next_event() const;
    void advance();
    void learn(std::size_t);
};

/* A history with holes and errors. */
void World::remember() {
    std::normal_distribution<double> normal(0, 1);
    std::uniform_real_distribution<double> uniform(0, 1);
    const auto error = [&] {
        return scenario.normal ? std::clamp(normal(random), -2.5, 2.5) : 2 * uniform(random) - 1;
    };
    const std::string curve = scenario.curve ? curve_text(scenario.hold) : "-";
    std::ostringstream lines;
    for (std::size_t i = 0; i < units.size(); ++i) {
        const bool known = uniform(random) < scenario.known;
        const double peak = 1 + scenario.noise_peak * error();
        const double time = 1 + scenario.noise_time * error();
        if (!known)
            continue;
        const Identity id = who(i);
        lines << "unit\t" << id.source << '\t' << id.object << '\t' << id.kind << "\t\t"
              << static_cast<Bytes>(static_cast<double>(units[i].peak) * peak) << '\t'
              << static_cast<Millis>(units[i].seconds * 1000 * time) << '\t' << curve << '\n';
    }
    std::istringstream in(lines.str());
    oracle.load(in);
}

void World::ask() {
    const std::size_t window = scenario.window > 0 ? static_cast<std::size_t>(scenario.window) : units.size();
    std::size_t open = asked - (units.size() - left);
    for (; asked < units.size() && open < window; ++asked, ++open)
        policy.request(asked + 1, 1, oracle.predict(who(asked)), 1, {0}, millis());
}

void World::room() {
    const Bytes all = scenario.ceiling + scenario.reserve;
    policy.room(0, {all - all_used() - model(now), scenario.reserve, all - scenario.reserve});
}

void World::apply(const Action &action) {
    if (action.kind == Action::fail) {
        outcome.failed = true;
        return;
    }
    const std::size_t work = static_cast<std::size_t>(action.unit) - 1;
    if (action.kind == Action::grant) {
        processes.push_back({work, 0, -1, false, false});
        return;
    }
    for (Process &process : processes) {
        if (process.work != work)
            continue;
        if (action.kind == Action::kill)
            process.dies = process.dies < 0 ? now + to_die : process.dies;
        else
            process.frozen = action.kind == Action::freeze;
    }
}

void World::decide() {
    room();
    for (const Action &action : policy.decide(millis()))
        apply(action);
    ticked = now;
}

/* What a unit took is known from then on, and of those like it that still wait more than before. */
void World::learn(std::size_t work) {
    Run run{units[work].peak, static_cast<Millis>(units[work].seconds * 1000), {}};
    oracle.learn(who(work), run);
    if (now < revised + 1 || scenario.known >= 1)
        return;
    revised = now;
    for (const View &view : policy.views(millis()))
        if (!view.running && view.attempt == 0 && view.prediction.basis > Basis::source)
            policy.revise(view.unit, oracle.predict(who(static_cast<std::size_t>(view.unit) - 1)));
}

void World::end(std::size_t at, bool success, bool by_us, bool by_kernel) {
    const Process process = processes[at];
    processes.erase(processes.begin() + static_cast<std::ptrdiff_t>(at));
    outcome.kills += by_us ? 1 : 0;
    outcome.kernel_kills += by_kernel ? 1 : 0;
    outcome.wasted += success ? 0 : process.progress;
    if (success) {
        finished[process.work] = true;
        --left;
    }
    if (scenario.jobs > 0) {
        outcome.died = outcome.died || by_kernel;
        return;
    }
    const Work &unit = units[process.work];
    const Bytes top = process.progress >= rise_end * unit.seconds ? unit.peak : used(process);
    const Verdict verdict = policy.ended(process.work + 1, {success, by_us, by_kernel, top}, millis());
    outcome.died = outcome.died || (!success && verdict == Verdict::done);
    outcome.failed = outcome.failed || verdict == Verdict::fail;
    if (success)
        learn(process.work);
    ask();
}

void World::finish_due() {
    for (std::size_t at = processes.size(); at-- > 0;) {
        const Process &process = processes[at];
        if (process.dies >= 0 && now >= process.dies - 1e-9)
            end(at, false, !process.by_kernel, process.by_kernel);
        else if (process.dies < 0 && process.progress >= units[process.work].seconds - 1e-6)
            end(at, true, false, false);
    }
}

/* The kernel's view: the truth, and a kill of the largest when nothing is left. */
void World::look() {
    const Bytes sum = all_used(), taken = model(now);
    outcome.most = std::max(outcome.most, sum);
    outcome.over = std::max(outcome.over, sum - std::max<Bytes>(0, scenario.ceiling - taken));
    if (sum + taken <= scenario.ceiling + scenario.reserve)
        return;
    const auto largest = std::max_element(processes.begin(), processes.end(), [&](const Process &one, const Process &other) {
        return (one.dies < 0 ? used(one) : -1) < (other.dies < 0 ? used(other) : -1);
    });
    if (largest == processes.end() || largest->dies >= 0)
        return;
    largest->dies = now + to_die;
    largest->by_kernel = true;
}

void World::static_start() {
    while (static_cast<int>(processes.size()) < scenario.jobs && asked < units.size())
        processes.push_back({asked++, 0, -1, false, false});
}

double World::next_event() const {
    double next = now + step;
    for (const Process &process : processes) {
        if (process.dies >= 0)
            next = std::min(next, process.dies);
        else if (!process.frozen)
            next = std::min(next, now + units[process.work].seconds - process.progress);
    }
    if (scenario.jobs == 0)
        next = std::min({next, sampled + sample_gap, ticked + static_cast<double>(policy.next(millis())) / 1000});
    return std::max(next, now + 0.001);
}

void World::advance() {
    const double next = next_event();
    for (Process &process : processes)
        if (!process.frozen && process.dies < 0)
            process.progress += next - now;
    now = next;
    look();
    const std::size_t before = processes.size();
    finish_due();
    if (scenario.jobs > 0) {
        static_start();
        return;
    }
    if (now >= sampled + sample_gap - 1e-9) {
        for (const Process &process : processes)
            policy.sample(process.work + 1, used(process), millis());
        sampled = now;
    }
    const bool due = now >= ticked + static_cast<double>(policy.next(millis())) / 1000 - 1e-9;
    if (due || processes.size() != before)
        decide();
}

/* Nobody can be faster: all work on all cores, all peaks for all their time under the ceiling, the longest unit. */
double bound(const std::vector<Work> &units, const Scenario &scenario) {
    double cpu = 0, memory = 0, longest = 0;
    for (const Work &unit : units) {
        cpu += unit.seconds;
        memory += unit.seconds * static_cast<double>(unit.peak);
        longest = std::max(longest, unit.seconds);
    }
    const double ceiling = static_cast<double>(scenario.ceiling), before = ceiling * scenario.model_at;
    double full = memory / ceiling;
    if (scenario.model > 0 && memory > before)
        full = scenario.model_at + (memory - before) / (ceiling - static_cast<double>(scenario.model));
    return std::max({cpu / scenario.cores, full, longest});
}

} // namespace

Outcome run(const std::vector<Work> &units, const Scenario &scenario) {
    World world(units, scenario);
    world.outcome.bound = bound(units, scenario);
    if (scenario.jobs > 0) {
        world.static_start();
    } else {
        Caps caps;
        caps.memory = scenario.cap ? scenario.ceiling : 0;
        world.policy.open_build(1, caps, 0);
        world.remember();
        world.ask();
        world.decide();
    }
    const double too_long = world.outcome.bound * 50 + 3600;
    while (world.left > 0 && !world.outcome.failed && !world.outcome.died && world.now < too_long)
        world.advance();
    world.outcome.failed = world.outcome.failed || world.now >= too_long;
    world.outcome.makespan = world.now;
    return world.outcome;
}

} // namespace gate
