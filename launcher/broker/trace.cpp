#include "trace.hpp"

#include <algorithm>
#include <chrono>
#include <sstream>

#include "policy.hpp"
#include "predict.hpp"

namespace gate {
namespace {

constexpr Bytes mib = 1024 * 1024;
const char *const basis_names[] = {"flags", "unit", "source", "twin", "family", "folder", "hint", "kind", "fallback"};
const char *const action_names[] = {"grant", "kill", "freeze", "thaw", "fail"};
const char *const verdict_names[] = {"done", "again", "fail"};

Basis basis_named(const std::string &name) {
    for (int i = 0; i < 9; ++i)
        if (name == basis_names[i])
            return static_cast<Basis>(i);
    return Basis::fallback;
}

Curve read_curve(const std::string &text) {
    Curve curve;
    std::istringstream parts(text);
    std::string part;
    for (std::size_t i = 0; i < curve.share.size() && std::getline(parts, part, ','); ++i) {
        curve.share[i] = static_cast<std::uint8_t>(std::stoi(part));
        curve.known = true;
    }
    return curve;
}

Prediction read_prediction(std::istream &line) {
    Prediction prediction;
    std::string basis;
    Bytes peak = 0;
    line >> peak >> prediction.time >> basis;
    prediction.peak = peak * mib;
    prediction.basis = basis_named(basis);
    return prediction;
}

struct Extras {
    int slots = 1;
    std::vector<DomainId> domains{0};
};

Extras read_extras(std::istream &line, Prediction &prediction) {
    Extras extras;
    for (std::string key, value; line >> key >> value;) {
        if (key == "slots")
            extras.slots = std::stoi(value);
        if (key == "curve")
            prediction.curve = read_curve(value);
        if (key != "domains")
            continue;
        extras.domains.clear();
        std::istringstream parts(value);
        for (std::string part; std::getline(parts, part, ',');)
            extras.domains.push_back(std::stoi(part));
    }
    return extras;
}

struct Player {
    Settings settings;
    std::unique_ptr<Policy> policy;
    std::ostream &out;

    Policy &get() {
        if (policy == nullptr)
            policy = std::make_unique<Policy>(settings);
        return *policy;
    }
    bool set(std::istream &line);
    void caps(std::istream &line, bool open, Millis now);
    void decide(Millis now);
    void views(Millis now);
    bool unit(const std::string &verb, std::istream &line, Millis now);
    bool event(const std::string &verb, std::istream &line, Millis now);
};

bool Player::set(std::istream &line) {
    std::string name;
    double value = 0;
    line >> name >> value;
    const auto whole = static_cast<Millis>(value);
    if (name == "cores")
        settings.cores = static_cast<int>(whole);
    else if (name == "overcommit")
        settings.overcommit = value;
    else if (name == "bypasses")
        settings.bypasses = static_cast<int>(whole);
    else if (name == "patience")
        settings.patience = whole;
    else if (name == "pause_limit")
        settings.pause_limit = whole;
    else if (name == "grace")
        settings.grace = whole;
    else
        return false;
    return true;
}

void Player::caps(std::istream &line, bool open, Millis now) {
    BuildId build = 0;
    line >> build;
    Caps caps;
    bool paused = false;
    double value = 0;
    for (std::string key; line >> key >> value;) {
        if (key == "memory")
            caps.memory = static_cast<Bytes>(value) * mib;
        if (key == "jobs")
            caps.jobs = static_cast<int>(value);
        if (key == "reserve")
            caps.reserve = static_cast<Bytes>(value) * mib;
        if (key == "weight")
            caps.weight = value;
        if (key == "paused")
            paused = value > 0;
    }
    if (open)
        get().open_build(build, caps, now);
    else
        get().change_build(build, caps, paused);
}

void Player::decide(Millis now) {
    for (const Action &action : get().decide(now)) {
        out << now << ' ' << action_names[action.kind] << ' ' << action.unit;
        if (action.kind == Action::grant)
            out << ' ' << action.bytes / mib << ' ' << action.attempt << (action.alone ? " alone" : "");
        if (action.kind == Action::fail)
            out << ' ' << action.build << ' ' << action.text;
        out << '\n';
    }
}

void Player::views(Millis now) {
    for (const View &view : get().views(now))
        out << now << " view " << view.unit << ' ' << (view.running ? "running" : "waiting") << (view.frozen ? " frozen" : "")
            << ' ' << view.reserved / mib << ' ' << view.used / mib << ' ' << view.attempt << '\n';
}

bool Player::unit(const std::string &verb, std::istream &line, Millis now) {
    UnitId id = 0;
    BuildId build = 0;
    line >> id;
    if (verb != "revise")
        line >> build;
    Prediction prediction = read_prediction(line);
    Bytes reserved = 0;
    Millis started = 0;
    if (verb == "adopt")
        line >> reserved >> started;
    const Extras extras = read_extras(line, prediction);
    if (verb == "request")
        get().request(id, build, prediction, extras.slots, extras.domains, now);
    else if (verb == "adopt")
        get().adopt(id, build, prediction, extras.slots, extras.domains, reserved * mib, started, now);
    else
        get().revise(id, prediction);
    return true;
}

bool Player::event(const std::string &verb, std::istream &line, Millis now) {
    UnitId id = 0;
    Bytes size = 0;
    std::string how;
    if (verb == "room") {
        DomainId domain = 0;
        Room room;
        line >> domain >> room.available >> room.reserve >> room.total;
        get().room(domain, {room.available * mib, room.reserve * mib, room.total * mib});
    } else if (verb == "open" || verb == "change") {
        caps(line, verb == "open", now);
    } else if (verb == "request" || verb == "adopt" || verb == "revise") {
        return unit(verb, line, now);
    } else if (verb == "close") {
        line >> id;
        get().close_build(id);
    } else if (verb == "sample") {
        line >> id >> size;
        get().sample(id, size * mib, now);
    } else if (verb == "ended") {
        line >> id >> how >> size;
        const Verdict verdict = get().ended(id, {how == "success", how == "us", how == "kernel", size * mib}, now);
        out << now << " verdict " << id << ' ' << verdict_names[static_cast<int>(verdict)] << '\n';
    } else if (verb == "gone") {
        line >> id;
        get().gone(id);
    } else if (verb == "decide") {
        decide(now);
    } else if (verb == "next") {
        out << now << " next " << get().next(now) << '\n';
    } else if (verb == "views") {
        views(now);
    } else {
        return false;
    }
    return true;
}

} // namespace

int play(std::istream &events, std::ostream &decisions) {
    Player player{{}, nullptr, decisions};
    for (std::string text; std::getline(events, text);) {
        if (text.empty() || text[0] == '#')
            continue;
        std::istringstream line(text);
        std::string first, verb;
        line >> first;
        bool understood = false;
        if (first == "set") {
            understood = player.set(line);
        } else {
            line >> verb;
            understood = player.event(verb, line, std::atoll(first.c_str()));
        }
        decisions.flush();
        if (understood)
            continue;
        decisions << "not understood: " << text << '\n';
        return 2;
    }
    return 0;
}

int foretell(std::istream &questions, std::ostream &answers) {
    Oracle oracle;
    for (std::string text; std::getline(questions, text);) {
        std::vector<std::string> part;
        std::istringstream line(text);
        for (std::string one; std::getline(line, one, '\t');)
            part.push_back(one);
        part.resize(8);
        const Identity who{part[1], part[2], part[3], part[4]};
        if (part[0] == "ask") {
            const Prediction found = oracle.predict(who);
            answers << found.peak << ' ' << found.time << ' ' << basis_names[static_cast<int>(found.basis)] << ' '
                    << found.samples << ' ';
            for (std::size_t i = 0; found.curve.known && i < found.curve.share.size(); ++i)
                answers << (i > 0 ? "," : "") << static_cast<int>(found.curve.share[i]);
            answers << (found.curve.known ? "" : "-") << '\n';
        } else if (part[0] == "learn") {
            oracle.learn(who, {std::atoll(part[5].c_str()), std::atoll(part[6].c_str()),
                               part[7] == "-" || part[7].empty() ? Curve{} : read_curve(part[7])});
        } else if (part[0] == "mask") {
            answers << masked(part[1], part[2] == "1") << '\n';
        } else {
            std::istringstream one(text + '\n');
            answers << "taken " << oracle.load(one) << '\n';
        }
        answers.flush();
    }
    return 0;
}

int measure_decisions(std::ostream &out) {
    constexpr UnitId waiting = 500, running = 64;
    constexpr int rounds = 4000;
    Settings settings;
    settings.cores = static_cast<int>(running);
    Policy policy(settings);
    policy.open_build(1, {}, 0);
    policy.open_build(2, {}, 0);
    policy.room(0, {400'000 * mib, 6'000 * mib, 400'000 * mib});
    std::vector<UnitId> active;
    std::vector<double> micros;
    UnitId next = 1;
    Millis now = 0;
    const auto ask = [&] {
        Prediction prediction;
        prediction.peak = static_cast<Bytes>(400 + (next * 7919) % 8000) * mib;
        prediction.time = static_cast<Millis>(3000 + (next * 104729) % 400'000);
        prediction.basis = Basis::flags;
        prediction.curve.known = next % 2 == 0;
        prediction.curve.share.fill(80);
        policy.request(next, 1 + next % 2, prediction, 1, {0}, now);
        ++next;
    };
    for (UnitId i = 0; i < waiting + running; ++i)
        ask();
    for (int round = 0; round < rounds; ++round) {
        now += 50;
        if (active.size() >= running) { /* one ends, one comes */
            policy.ended(active.front(), {true, false, false, 0}, now);
            active.erase(active.begin());
            ask();
        }
        for (UnitId unit : active)
            policy.sample(unit, static_cast<Bytes>(unit % 4000) * mib, now);
        policy.room(0, {(400'000 - static_cast<Bytes>(active.size()) * 1'500) * mib, 6'000 * mib, 400'000 * mib});
        const auto before = std::chrono::steady_clock::now();
        const std::vector<Action> actions = policy.decide(now);
        micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - before).count());
        for (const Action &action : actions)
            if (action.kind == Action::grant)
                active.push_back(action.unit);
    }
    std::sort(micros.begin(), micros.end());
    out << "running " << active.size() << " median_us " << micros[micros.size() / 2] << " p99_us "
        << micros[micros.size() * 99 / 100] << " max_us " << micros.back() << '\n';
    return 0;
}

} // namespace gate
