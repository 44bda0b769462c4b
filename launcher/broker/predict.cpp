/* What a unit will need. Peaks are a matter of the source and the compiler, and hardly differ between machines; times are a
 * machine's own, so what was seen in this build tells how much the times of the rest are off. */
#include "predict.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <deque>
#include <set>
#include <set>
#include <unordered_map>
#include <utility>

namespace gate {
namespace {

constexpr std::size_t remembered = 3; /* runs of one unit */
constexpr double own_margin = 1.05;   /* the spread between runs of the same unit is below */
constexpr double quantile = 0.75;     /* of the peaks of a family or folder */
constexpr std::size_t enough = 3;     /* units of a folder that tell of another */
constexpr int enough_runs = 3;        /* that tell of the machine's speed */
constexpr Bytes mib = 1024 * 1024;
constexpr Bytes unknown_cuda = 4096 * mib; /* of 60 kernels, half was below a tenth of it, and the worst at twice */

const std::set<std::string_view> element_types = {
    "fp64",  "fp32",  "fp16",    "fp8",      "fp6",         "fp4",    "bf16",   "f64",     "f32",    "f16",  "half",
    "float", "double", "float16", "bfloat16", "bfloat",      "e4m3",   "e4m3fn", "fe4m3fn", "e5m2",   "e2m1", "e8m0",
    "int8",  "int4",  "uint8",   "uint4",    "i8",          "s8",     "u8",     "u4",      "u4b8",   "u8b128", "fe2m1f",
    "nvfp4", "mxfp4", "mxfp8",   "fe8m0fnu", "nv_bfloat16", "float8", "float4", "tf32",    "int16",
};

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

std::string folder_of(std::string_view path) {
    const auto slash = path.rfind('/');
    return std::string(slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash));
}

std::vector<std::string_view> split(std::string_view line, char by) {
    std::vector<std::string_view> parts;
    for (std::size_t from = 0;;) {
        const auto to = line.find(by, from);
        parts.push_back(line.substr(from, to == std::string_view::npos ? to : to - from));
        if (to == std::string_view::npos)
            return parts;
        from = to + 1;
    }
}

bool number(std::string_view text, std::int64_t &value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value >= 0;
}

bool read_curve(std::string_view text, Curve &curve) {
    if (text == "-" || text.empty())
        return true;
    const auto parts = split(text, ',');
    if (parts.size() != Curve::points)
        return false;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        std::int64_t share = 0;
        if (!number(parts[i], share) || share > 100)
            return false;
        curve.share[i] = static_cast<std::uint8_t>(share);
    }
    curve.known = true;
    return true;
}

/* The last runs of one unit with the same flags. */
struct Past {
    Identity who;
    std::deque<Run> runs;
    bool here = false; /* seen in this build: its times need no correction */

    Bytes peak() const {
        Bytes most = 0;
        for (const Run &run : runs)
            most = std::max(most, run.peak);
        return most;
    }
    double time() const {
        double sum = 0;
        int known = 0;
        for (const Run &run : runs) {
            sum += static_cast<double>(run.time);
            known += run.time > 0 ? 1 : 0;
        }
        return known > 0 ? sum / known : 0;
    }
};

using Group = std::vector<const Past *>;

Curve highest(const Group &group) {
    Curve all;
    for (const Past *past : group)
        for (const Run &run : past->runs) {
            if (!run.curve.known)
                continue;
            all.known = true;
            for (std::size_t i = 0; i < all.share.size(); ++i)
                all.share[i] = std::max(all.share[i], run.curve.share[i]);
        }
    return all;
}

Bytes at_quantile(const Group &group) {
    std::vector<Bytes> peaks;
    for (const Past *past : group)
        peaks.push_back(past->peak());
    const std::size_t rank = static_cast<std::size_t>(quantile * static_cast<double>(peaks.size() - 1) + 0.999);
    std::nth_element(peaks.begin(), peaks.begin() + static_cast<std::ptrdiff_t>(rank), peaks.end());
    return peaks[rank];
}

Bytes at_most(const Group &group) {
    Bytes most = 0;
    for (const Past *past : group)
        most = std::max(most, past->peak());
    return most;
}

std::string joined(const Identity &unit, bool flags) {
    return unit.source + '\n' + unit.object + (flags ? '\n' + unit.flags : std::string());
}

} // namespace

std::string masked(std::string_view name, bool numbers) {
    std::string out;
    for (std::size_t at = 0; at < name.size();) {
        if (!is_word(name[at])) {
            out += name[at++];
            continue;
        }
        std::size_t end = at;
        while (end < name.size() && is_word(name[end]))
            ++end;
        const std::string_view word = name.substr(at, end - at);
        if (element_types.count(word) > 0)
            out += '*';
        else
            out += word;
        at = end;
    }
    if (!numbers)
        return out;
    std::string plain;
    for (char c : out)
        if (c < '0' || c > '9')
            plain += c;
        else if (plain.empty() || plain.back() != '#')
            plain += '#';
    return plain;
}

struct Oracle::State {
    using Index = std::unordered_map<std::string, Group>;

    std::unordered_map<std::string, std::unique_ptr<Past>> exact; /* by source, object and flags */
    Index units, sources, objects, twins, families, folders;
    std::vector<std::pair<std::string, Bytes>> hints;
    std::unordered_map<std::string, Bytes> plain;
    std::set<std::pair<std::string, std::string>> firsts; /* by source and object */
    double seen_time = 0, predicted_time = 0; /* of units with a history, in this build */
    int seen = 0;

    void record(const Identity &who, const Run &run, bool here);
    double speed() const;
    double time_of(const Group &group) const;
    Prediction from(const Group &group, Basis basis) const;
    const Group *find(const Index &index, const Identity &who, const std::string &source, const std::string &object) const;
    const Group *by_one_name(const Identity &who) const;
    Prediction nearest(const Identity &who) const;
    Prediction without_history(const Identity &who) const;
};

void Oracle::State::record(const Identity &who, const Run &run, bool here) {
    auto &past = exact[joined(who, true)];
    if (past == nullptr) {
        past = std::make_unique<Past>();
        past->who = who;
        units[joined(who, false)].push_back(past.get());
        for (const std::string *name : {&who.source, &who.object}) {
            if (name->empty())
                continue;
            (name == &who.source ? sources : objects)[*name].push_back(past.get());
            twins[who.kind + '\n' + masked(*name, false)].push_back(past.get());
            families[who.kind + '\n' + masked(*name, true)].push_back(past.get());
            folders[who.kind + '\n' + folder_of(*name)].push_back(past.get());
        }
    }
    if (here && !past->here) /* times of other days, of other machines perhaps, say less than one of today */
        for (Run &old : past->runs)
            old.time = 0;
    past->here = past->here || here;
    past->runs.push_back(run);
    if (past->runs.size() > remembered)
        past->runs.pop_front();
}

/* How much longer units take here than was predicted. */
double Oracle::State::speed() const {
    if (seen < enough_runs || predicted_time <= 0)
        return 1;
    return std::min(std::max(seen_time / predicted_time, 0.2), 5.0);
}

double Oracle::State::time_of(const Group &group) const {
    double sum = 0;
    int known = 0;
    for (const Past *past : group) {
        const double time = past->time();
        sum += past->here ? time : time * speed();
        known += time > 0 ? 1 : 0;
    }
    return known > 0 ? sum / known : 0;
}

Prediction Oracle::State::from(const Group &group, Basis basis) const {
    Prediction found;
    found.basis = basis;
    found.time = static_cast<Millis>(time_of(group));
    for (const Past *past : group)
        found.samples += static_cast<int>(past->runs.size());
    if (basis <= Basis::source)
        found.peak = static_cast<Bytes>(own_margin * static_cast<double>(at_most(group)));
    else
        found.peak = basis == Basis::twin ? at_most(group) : at_quantile(group);
    if (basis <= Basis::twin)
        found.curve = highest(group);
    return found;
}

/* By the source's name, else by the object's. */
const Group *Oracle::State::find(const Index &index, const Identity &who, const std::string &source,
                                 const std::string &object) const {
    for (const std::string *name : {&source, &object}) {
        if (name->empty())
            continue;
        const auto found = index.find(who.kind + '\n' + *name);
        if (found != index.end())
            return &found->second;
    }
    return nullptr;
}

/* One source may be compiled into many modules, and short object names may meet by chance: the name that says more counts. */
const Group *Oracle::State::by_one_name(const Identity &who) const {
    const auto source = sources.find(who.source), object = objects.find(who.object);
    if (source == sources.end())
        return object == objects.end() ? nullptr : &object->second;
    return object != objects.end() && object->second.size() < source->second.size() ? &object->second : &source->second;
}

Prediction Oracle::State::without_history(const Identity &who) const {
    Prediction guess;
    guess.basis = Basis::hint;
    for (const auto &[pattern, bytes] : hints)
        if (::fnmatch(pattern.c_str(), who.source.c_str(), 0) == 0)
            guess.peak = bytes;
    if (guess.peak > 0)
        return guess;
    const auto found = plain.find(who.kind);
    guess.basis = found != plain.end() ? Basis::kind : Basis::fallback;
    const Bytes ordinary = found != plain.end() ? found->second : (who.kind == "c" ? 512 * mib : 1536 * mib);
    guess.peak = who.kind == "cu" ? std::max(ordinary, unknown_cuda) : ordinary;
    return guess;
}

Oracle::Oracle() : state(std::make_unique<State>()) {}
Oracle::~Oracle() = default;
Oracle::Oracle(Oracle &&) noexcept = default;

int Oracle::load(std::istream &lines) {
    int taken = 0;
    for (std::string line; std::getline(lines, line);) {
        const auto parts = split(line, '\t');
        std::int64_t peak = 0, time = 0;
        Run run;
        if (parts[0] == "unit" && parts.size() == 8 && number(parts[5], peak) && number(parts[6], time) &&
            read_curve(parts[7], run.curve) && (!parts[1].empty() || !parts[2].empty())) {
            run.peak = peak;
            run.time = time;
            state->record({std::string(parts[1]), std::string(parts[2]), std::string(parts[3]), std::string(parts[4])}, run,
                          false);
        } else if (parts[0] == "hint" && parts.size() == 3 && number(parts[2], peak)) {
            state->hints.emplace_back(parts[1], peak);
        } else if (parts[0] == "first" && parts.size() == 3) {
            state->firsts.emplace(parts[1], parts[2]);
        } else if (parts[0] == "plain" && parts.size() == 3 && number(parts[2], peak)) {
            state->plain[std::string(parts[1])] = peak;
        } else {
            continue;
        }
        ++taken;
    }
    return taken;
}

Prediction Oracle::predict(const Identity &who) const {
    Prediction found = state->nearest(who);
    found.first = state->firsts.count({who.source, who.object}) > 0;
    return found;
}

Prediction Oracle::State::nearest(const Identity &who) const {
    const auto same = exact.find(joined(who, true));
    if (same != exact.end())
        return from({same->second.get()}, Basis::flags);
    const auto unit = units.find(joined(who, false));
    if (unit != units.end())
        return from(unit->second, Basis::unit);
    if (const Group *alone = by_one_name(who); alone != nullptr)
        return from(*alone, Basis::source);
    const Group *group = find(twins, who, masked(who.source, false), masked(who.object, false));
    if (group != nullptr)
        return from(*group, Basis::twin);
    group = find(families, who, masked(who.source, true), masked(who.object, true));
    if (group != nullptr)
        return from(*group, Basis::family);
    group = find(folders, who, folder_of(who.source), folder_of(who.object));
    if (group != nullptr && group->size() >= enough)
        return from(*group, Basis::folder);
    return without_history(who);
}

void Oracle::learn(const Identity &who, const Run &run) {
    const auto past = state->exact.find(joined(who, true));
    const bool first = past == state->exact.end() || !past->second->here;
    const Prediction before = first ? predict(who) : Prediction{};
    if (first && before.basis <= Basis::source && before.samples > 0 && before.time > 0 && run.time > 0) {
        state->predicted_time += static_cast<double>(before.time) / state->speed();
        state->seen_time += static_cast<double>(run.time);
        state->seen += 1;
    }
    state->record(who, run, true);
}

} // namespace gate
