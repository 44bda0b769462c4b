/* What is kept for a running unit: along its curve, else its peak. And what it will hold when: two units whose peaks come one
 * after the other may run together. */
#include <cmath>

#include "state.hpp"

namespace gate {
namespace {

constexpr double seen_share = 0.85;   /* of the predicted peak: it was reached, so the curve is where it says */
constexpr double late = 1.25;         /* a unit whose peak wasn't seen is taken to be this much slower than predicted */
constexpr double settled_share = 0.3; /* of its time: until then its peak may still coincide with those started with it */
constexpr Millis settled_time = 30'000; /* the same where the time is unknown */
constexpr double middle = 0.6;      /* of its time: few units have their peak later than that */
constexpr double come_down = 0.9;   /* of its largest use: it has let go of some */

constexpr double slack = 1.15;      /* a unit may be so much faster or slower than predicted, and still be foreseen */
constexpr double endless = 1e15;
constexpr double first_span = 200, wider = 1.2; /* milliseconds; each span is so much longer than the one before */

/* The largest share between two points, both counted, in percent. */
int most(const Curve &curve, int from, int to) {
    const int first = std::clamp(from, 0, Curve::points - 1), last = std::clamp(to, first, Curve::points - 1);
    return *std::max_element(curve.share.begin() + first, curve.share.begin() + last + 1);
}

Bytes between(const Prediction &prediction, int from, int to, double margin) {
    const double peak = static_cast<double>(prediction.peak);
    const double seen = prediction.basis > Basis::source ? peak : peak / history_margin; /* one margin is enough */
    return static_cast<Bytes>(std::min(peak, seen * most(prediction.curve, from, to) / 100.0 * margin));
}

/* The most from a point on. */
Bytes along(const Prediction &prediction, int from, double margin) {
    return between(prediction, from, Curve::points - 1, margin);
}

/* Past the last point at which the curve is higher than what is seen now, if that is near enough to be a matter of speed. */
int descended(const Unit &unit, int point, double progress) {
    const int farthest = std::min(static_cast<int>(progress * late * Curve::points) + 1, Curve::points - 1);
    for (int later = farthest; later > point; --later) {
        const Bytes here = along(unit.prediction, later, 1.0), before = along(unit.prediction, later - 1, 1.0);
        if (here < before && static_cast<double>(unit.used) < (static_cast<double>(here) + static_cast<double>(before)) / 2)
            return later;
    }
    return point;
}

/* Where it is on its curve, at least. */
int reached(const Unit &unit, Millis now) {
    double progress = static_cast<double>(now - unit.started) / static_cast<double>(unit.prediction.time);
    const bool seen = static_cast<double>(unit.top) >= seen_share * static_cast<double>(unit.prediction.peak);
    if (!seen)
        progress /= late;
    const int point = static_cast<int>(std::min(progress, 1.0) * Curve::points);
    return seen ? descended(unit, point, progress) : point;
}

/* Where it is on its curve in so many milliseconds, at most. */
int fast(const Outlook &out, const Prediction &prediction, double when) {
    const double progress = (out.age + when) / static_cast<double>(prediction.time) * slack;
    return static_cast<int>(std::min(progress, 1.0) * Curve::points);
}

/* When spans begin, in milliseconds from now. */
using Edges = std::array<double, spans + 1>;
const Edges &edges() {
    static const Edges made = [] {
        Edges all{};
        for (std::size_t at = 1; at < all.size(); ++at)
            all[at] = first_span * std::pow(wider, static_cast<double>(at - 1));
        all.back() = endless;
        return all;
    }();
    return made;
}

} // namespace

bool is_outgrown(const Unit &unit) { return unit.top > unit.prediction.peak; }

/* What has to be kept for a running unit. By its curve that is the largest use still to come. Memory that it holds already
 * can't be given to others whatever is promised, so a unit that is late with letting go costs nothing; one that is late with
 * its peak would, so the curve is only followed past the peak once the peak was seen, or well after its time. One that is
 * early is seen to have come down. Without a curve, one that is well past the middle of its time and far below its promise
 * was predicted too high. */
Bytes Policy::State::promise(const Unit &unit, Millis now) const {
    const Prediction &prediction = unit.prediction;
    const Bytes held = std::max(unit.reserved, unit.used);
    if (prediction.time <= 0 || unit.alone || unit.top == 0)
        return held;
    const double progress = static_cast<double>(now - unit.started) / static_cast<double>(prediction.time);
    if (!prediction.curve.known || unit.bare || is_outgrown(unit)) {
        const bool past = progress > middle && static_cast<double>(unit.used) < come_down * static_cast<double>(unit.top);
        const double top = static_cast<double>(unit.top) * (past ? history_margin : raise);
        return progress > middle ? std::max(std::min(held, static_cast<Bytes>(top)), unit.used) : held;
    }
    const Bytes to_come = along(prediction, reached(unit, now), settings.curve_margin);
    return unit.used > to_come ? std::max(unit.used, prediction.peak) : to_come;
}

double owed(const Unit &unit, const Build &build, Millis now) {
    const double left = std::max(0.0, unit.time - static_cast<double>(now - unit.started));
    return static_cast<double>(unit.reserved) / 1073741824.0 * left / 1000.0 / build.caps.weight;
}

/* Peaks of units that were started together come together, later ones hardly ever: only promises that rest on a peak, of
 * units past their start, are counted lower than they are. */
Bytes Policy::State::counted(const Unit &unit, Millis now) const {
    const bool curve = unit.prediction.curve.known && unit.prediction.time > 0 && !unit.bare;
    const Millis settled = unit.prediction.time > 0
                               ? static_cast<Millis>(settled_share * static_cast<double>(unit.prediction.time))
                               : settled_time;
    if (curve || unit.alone || now - unit.started < settled)
        return unit.reserved;
    return static_cast<Bytes>(static_cast<double>(unit.reserved) / settings.overcommit);
}

/* A unit, running or to be started now, as `held` needs it. Its curve is followed as long as it does so itself; one that is
 * ahead of it, or above, holds its promise until it has ended. */
Outlook Policy::State::outlook(const Unit &unit, Millis now) const {
    const Prediction &prediction = unit.prediction;
    const double time = static_cast<double>(prediction.time);
    Outlook out;
    out.age = unit.running ? static_cast<double>(now - unit.started) : 0;
    out.promised = unit.running ? std::max(counted(unit, now), unit.used) : unit.need;
    out.end = time > 0 && !unit.alone ? std::max(time * slack - out.age, time / 8) : endless;
    if (time <= 0 || unit.alone || !prediction.curve.known || unit.bare || is_outgrown(unit))
        return out;
    out.point = unit.running ? reached(unit, now) : 0;
    const Bytes here = between(prediction, out.point, fast(out, prediction, first_span), settings.curve_margin);
    const bool above = unit.running && unit.reserved > along(prediction, out.point, settings.curve_margin);
    out.followed = !above && unit.used <= here;
    return out;
}

/* The most that it will hold in a span. */
Bytes Policy::State::held(const Unit &unit, const Outlook &out, std::size_t span) const {
    const double from = edges()[span], to = edges()[span + 1];
    if (from >= out.end)
        return 0;
    if (!out.followed)
        return out.promised;
    const double life = static_cast<double>(unit.prediction.time) * slack;
    const int first = out.point + static_cast<int>(std::min(from / life, 1.0) * Curve::points);
    const Bytes bytes = between(unit.prediction, first, fast(out, unit.prediction, to), settings.curve_margin);
    return span == 0 ? std::max(unit.used, bytes) : bytes;
}

void Policy::State::foresee(const Unit &unit, Millis now) {
    if (!curves)
        return; /* nobody asks */
    const Outlook out = outlook(unit, now);
    for (std::size_t span = 0; span < spans && edges()[span] < out.end; ++span) {
        const Bytes bytes = held(unit, out, span);
        for (DomainId id : unit.domains)
            domains[id].later[span] += bytes;
    }
}

bool Policy::State::passes(const Unit &unit, const Outlook &out, const Domain &domain, Bytes budget, std::size_t span) const {
    const Bytes own = held(unit, out, span);
    return own == 0 || domain.later[span] + own <= budget;
}

/* Where it didn't fit last time is where it won't this time either, mostly. */
bool Policy::State::is_free_for(Unit &unit, const Outlook &out, const Domain &domain, Bytes budget) const {
    if (!passes(unit, out, domain, budget, unit.tight))
        return false;
    for (std::size_t span = 0; span < spans && edges()[span] < out.end; ++span)
        if (!passes(unit, out, domain, budget, span)) {
            unit.tight = span;
            return false;
        }
    return true;
}

} // namespace gate
