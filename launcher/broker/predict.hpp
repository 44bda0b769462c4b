/* What a unit will need, from what it and its like needed before. Values in, values out. */
#pragma once

#include <istream>
#include <memory>
#include <string>
#include <string_view>

#include "policy.hpp"

namespace gate {

/* Who a unit is. `source` is relative to the source tree; `object` is the object's last two path parts; `kind` is one of
 * cu, cxx, c, rust, link, other; `flags` is a digest of the options that change what the compiler does. */
struct Identity {
    std::string source, object, kind, flags;
};

/* What one run of a unit took. */
struct Run {
    Bytes peak = 0;
    Millis time = 0;
    Curve curve;
};

/* Fall-backs, best first (Basis): the unit with these flags; the unit; its source or its object alone; its twins (the same
 * name with another element type); its family (with other numbers too); its folder and kind; a hint of the recipe; its kind;
 * 4 GiB for a .cu, the recipe's ordinary unit for others. */
class Oracle {
  public:
    Oracle();
    ~Oracle();
    Oracle(Oracle &&) noexcept;

    /* Lines, tab-separated:
     *   unit  SOURCE  OBJECT  KIND  FLAGS  PEAK_BYTES  MILLIS  CURVE     CURVE: 16 numbers in percent, comma-separated, or -
     *   hint  PATTERN  BYTES                                           a shell pattern on the source; the last match counts
     *   first SOURCE  OBJECT                                           it goes before all others
 *   plain KIND  BYTES                                              the recipe's ordinary unit of that kind
     * SOURCE, OBJECT and FLAGS may be empty. Times are already those of this machine. Lines that aren't understood are
     * passed over; returns how many were taken. */
    int load(std::istream &lines);

    Prediction predict(const Identity &) const;
    void learn(const Identity &, const Run &);

  private:
    struct State;
    std::unique_ptr<State> state;
};

/* The name with element types masked (fp16, bf16, e4m3, half, ...); `numbers` masks numbers too. Causal and the like stay:
 * they change what a unit costs. */
std::string masked(std::string_view name, bool numbers);

} // namespace gate
