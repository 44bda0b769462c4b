/* The policy of the gate: who may start, who is stopped. Values in, decisions out: no clock, no files, no sockets, so that
 * recorded traces and the simulator test exactly what runs on a machine. Times are milliseconds of any one clock. */
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace gate {

using Bytes = std::int64_t;
using Millis = std::int64_t;
using UnitId = std::uint64_t;
using BuildId = std::uint64_t;
using DomainId = int; /* 0 is the machine; others are control groups that the server knows */

/* Where a prediction comes from, best first. Below `source` nothing of the very unit is known. */
enum class Basis { flags, unit, source, twin, family, folder, hint, kind, fallback };

/* Resident memory over a unit's life: `share[i]` is the largest in the i-th sixteenth of its time, in percent of the peak. */
struct Curve {
    static constexpr int points = 16;
    std::array<std::uint8_t, points> share{};
    bool known = false;
};

struct Prediction {
    Bytes peak = 0;
    Millis time = 0; /* 0: unknown */
    Curve curve;
    Basis basis = Basis::fallback;
    int samples = 0; /* how many runs this rests on */
    bool first = false; /* it failed last time: whoever mended it wants to know first */
};

/* Everything here has a default that is good for a real machine; the simulator and tests try others. */
struct Settings {
    int cores = 1;
    double overcommit = 1.15;      /* of promises that rest on peaks: peaks don't coincide */
    double curve_margin = 1.10;    /* on what a curve says is still to come */
    int bypasses = 20;             /* so many may overtake a blocked head */
    Millis patience = 60'000;      /* or for so long */
    Millis pause_limit = 600'000;  /* without memory for anybody: exit 7 */
    Millis grace = 2'000;          /* between one victim and the next, unless its memory is back before */
    int kernel_kills = 4;          /* of one unit; own kills don't count */
};

/* Memory that somebody gives: the machine, or a control group around a build. */
struct Room {
    Bytes available = 0; /* what could be taken now */
    Bytes reserve = 0;   /* of it, left to everybody else */
    Bytes total = 0;     /* what could ever be taken if nobody else used any, without the reserve */
};

/* Caps of one build; 0 is none. They lower what it may use, and never switch the gate off. */
struct Caps {
    Bytes memory = 0;
    int jobs = 0;
    Bytes reserve = 0; /* the machine's reserve as this build wants it, where larger */
    double weight = 1;
};

struct Action {
    enum Kind {
        grant,  /* start `unit` (attempt counts from 1); `bytes` is its reservation; `alone` when nothing else may run */
        kill,   /* SIGKILL its process group; it comes back as `ended` with `killed` */
        freeze, /* SIGSTOP its group */
        thaw,   /* SIGCONT */
        fail,   /* end `build` with exit 7. First for `unit`, the one that can't be run: `text` says how much it needs and what has
             * to be freed, to be put behind its name; then once for each other unit of the build */
    };
    Kind kind;
    UnitId unit = 0;
    BuildId build = 0;
    Bytes bytes = 0;
    int attempt = 0;
    bool alone = false;
    std::string text;
};

struct Ending {
    bool success = false;
    bool by_us = false;     /* after an Action::kill */
    bool by_kernel = false; /* a count of kernel kills rose meanwhile, or SIGKILL came from nowhere */
    Bytes peak = 0;         /* the largest sum of its processes that was seen */
};

enum class Verdict {
    done,  /* tell the result to whoever waits */
    again, /* it waits for another grant; `granted` comes as an Action */
    fail,  /* too large for this machine: the build ends with exit 7 */
};

/* One unit that waits or runs, as screens show it. */
struct View {
    UnitId unit;
    BuildId build;
    bool running;
    bool frozen;
    bool alone;
    int attempt;
    Bytes reserved; /* what is still promised to it now */
    Bytes used;
    Millis since; /* start of this attempt, or of waiting */
    Prediction prediction;
};

class Policy {
  public:
    explicit Policy(Settings settings);
    ~Policy();
    Policy(const Policy &) = delete;
    Policy &operator=(const Policy &) = delete;

    void open_build(BuildId, const Caps &, Millis now);
    void change_build(BuildId, const Caps &, bool paused);
    void close_build(BuildId); /* its units are gone too */

    /* A unit wants to run. `domains` names all that bound it, 0 among them; `slots` is how many cores it takes. */
    void request(UnitId, BuildId, const Prediction &, int slots, const std::vector<DomainId> &domains, Millis now);
    /* A unit that runs already, told by its launcher to a broker that was started anew. */
    void adopt(UnitId, BuildId, const Prediction &, int slots, const std::vector<DomainId> &domains, Bytes reserved,
               Millis started, Millis now);
    void sample(UnitId, Bytes used, Millis now);
    /* More is known of a unit that waits for its first start, since others of its kind have ended. Others: nothing happens. */
    void revise(UnitId, const Prediction &);
    Verdict ended(UnitId, const Ending &, Millis now);
    void gone(UnitId); /* whoever asked has died: nothing of it runs or waits any more */

    void room(DomainId, const Room &);

    /* What has to be done now. Call after every change and at every tick. */
    std::vector<Action> decide(Millis now);

    /* Milliseconds until `decide` should be called again even if nothing happens: short where memory is short. */
    Millis next(Millis now) const;

    std::vector<View> views(Millis now) const;

  private:
    struct State;
    std::unique_ptr<State> state;
};

} // namespace gate
