/* The promises of a broker, in a file that outlives it: the next one counts what still runs before it grants anything. */
#pragma once

#include <string>
#include <vector>

#include "machine.hpp"
#include "policy.hpp"

namespace gate {

struct Lease {
    Process launcher; /* which asked */
    Process group;    /* leader of the compiler's process group, once known */
    std::uint32_t user = 0;
    Bytes reserved = 0;
    int slots = 1;
    int attempt = 1;
    std::string build; /* its word, at most 63 bytes */
};

class Ledger {
  public:
    /* Opens or makes the file. Where that can't be done, nothing is kept and all else works. */
    explicit Ledger(const std::string &path);
    ~Ledger();
    Ledger(const Ledger &) = delete;
    Ledger &operator=(const Ledger &) = delete;

    /* What the broker before this one had promised since this boot; then the file is empty. */
    std::vector<Lease> inherit();

    /* The slot in which the lease stands from now on; -1 when it couldn't be kept. */
    int enter(const Lease &);
    void change(int slot, const Lease &);
    void strike(int slot);

  private:
    bool write(int slot, const Lease *) const;

    int fd = -1;
    std::vector<int> free_slots;
    int used_slots = 0;
};

} // namespace gate
