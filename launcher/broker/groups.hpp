/* Control groups that bound the memory of clients, versions 1 and 2: each with a limit is a domain of the policy. */
#pragma once

#include <map>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "machine.hpp"
#include "policy.hpp"

namespace gate {

/* Where a process stands. */
struct Membership {
    std::vector<DomainId> domains; /* the machine (0) first, then the innermost group with a limit, then those around it */
    std::string kills;             /* the file that counts the kernel's kills of this group; "" where there is none */
};

class ControlGroups {
  public:
    /* `fake_root`: a folder that stands for the mounted version-2 tree, for tests; "" is the machine's own. */
    ControlGroups(const Memory &machine, Bytes machine_reserve, std::string fake_root);

    /* Those around a process, by /proc/PID/cgroup; only the machine when it can't be seen. Remembered for two seconds: limits
     * may be set later. */
    Membership around(pid_t pid, Millis now);

    /* The rooms of all domains but the machine's, read now. available = limit - (usage - inactive file pages). */
    std::vector<std::pair<DomainId, Room>> rooms() const;

    /* How often the kernel killed for memory in this group; of the whole machine where the group doesn't tell. */
    std::int64_t kernel_kills(const Membership &) const;

    /* "cgroup v1 /x"; "MemAvailable" for the machine. */
    std::string name(DomainId) const;

  private:
    struct Tree { /* one mounted hierarchy */
        int version = 0;
        std::string mount; /* where it is mounted */
        std::string root;  /* which group is mounted there */
    };
    struct Domain {
        int version = 0;
        std::string folder, name;
    };
    struct Known {
        Membership membership;
        Millis until = 0;
    };

    void find_trees();
    void add_limits(const Tree &, const std::string &group, Membership &);
    DomainId domain(const Tree &, const std::string &folder, const std::string &name);
    Room room(const Domain &) const;
    Bytes limit(int version, const std::string &folder) const;

    Bytes machine_total, machine_reserve;
    std::string fake;
    std::vector<Tree> trees;
    std::vector<Domain> domains; /* number DomainId - 1 */
    std::map<std::string, DomainId> by_folder;
    std::map<std::string, Known> known; /* by the text of /proc/PID/cgroup */
};

} // namespace gate
