/* The broker: carries what clients say to the policy, and what the policy decides to them. One thread, one loop. */
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "book.hpp"
#include "message.hpp"
#include "report.hpp"
#include "runtime.hpp"

namespace gate::broker {

struct Options {
    std::string folder;
    Millis idle = 60'000;
    int cores = 0;      /* 0: those that we may run on */
    Bytes reserve = -1; /* below 0: default_reserve() */
    Millis pause = 0;   /* 0: the policy's own limit */
    std::string meminfo = "/proc/meminfo";
    std::string cgroup_root; /* a fake version-2 tree, for tests */
    std::string tick_log;
    bool foreground = false;
};

class Server {
  public:
    /* Takes over from a broker before this one: its leases are promises until their launchers are back. Throws
     * std::runtime_error when memory can't be read. */
    Server(const Options &, const Runtime &, int listener);
    ~Server();
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;

    /* Serves until nobody is connected for the idle time, a SIGTERM or SIGINT, or the lock's loss. */
    void run();

  private:
    /* server.cpp: the loop */
    void watch(int fd, std::uint32_t events);
    void handle(int fd, std::uint32_t events);
    void accept_all();
    void accept_without_descriptors();
    void read_from(Connection &);
    void dispatch(Connection &, const Packet &, int passed);
    void sweep();
    void settle();
    void read_rooms();
    void log_tick(const std::vector<Action> &);
    int timeout();
    bool is_idle();

    /* launchers.cpp: units */
    void on_unit(Connection &, const Packet &);
    void on_at(Connection &, const Packet &);
    void on_end(Connection &, const Packet &);
    void go_on(Unit &, const Packet &);
    void adopt_held(Unit &, const Packet &);
    void take_back(const Process &launcher);
    void finish(Unit &, const Ended &, bool final);
    void revise(const Build &);
    void learn(const Unit &, const Ended &);
    Ending judged(Unit &, const Packet &, Bytes peak);
    void saw(Unit &, Bytes used);
    void launcher_gone(Connection &);
    void forget(UnitId);
    void fail_unit(UnitId, const std::string &text);
    void watch_units();
    void look_for_group(Unit &);
    Lease lease(const Unit &) const;
    void inherit();

    /* actions.cpp: what the policy decided */
    void act(const Action &);
    void grant(Unit &, const Action &);
    void kill(Unit &);
    void signal(Unit &, int number, const char *verb);
    void fail(const Action &);
    void fail_rest(Build &);

    /* builds.cpp: controls */
    Build &build_of(uid_t user, const std::string &word);
    void on_build(Connection &, const Packet &, int passed);
    void on_change(Connection &, const Packet &);
    void repredict(Build &);
    void control_gone(Connection &);
    void close_build(BuildId, const std::string &text);
    void close_overdue();
    void tell_states();
    Bound bound(const Build &) const;
    Bound bound_of(DomainId, const std::vector<View> &) const;
    void tell(const Build &, std::string text);

    Options options;
    const Runtime &runtime;
    const int listener;
    int epoll = -1, signals = -1, spare = -1;
    std::FILE *tick_log = nullptr;
    MemoryFile meminfo;
    Memory memory;
    Bytes reserve = 0;
    ControlGroups groups;
    std::map<DomainId, Room> rooms;
    Ledger ledger;
    std::unique_ptr<Policy> policy;
    std::unordered_map<int, std::unique_ptr<Connection>> connections;
    std::map<UnitId, Unit> units;
    std::map<BuildId, Build> builds;
    std::map<std::pair<uid_t, std::string>, BuildId> by_word;
    UnitId next_unit = 1;
    BuildId next_build = 1;
    Millis now = 0, last_busy = 0, last_check = 0;
    bool stopping = false;
};

/* CLOCK_MONOTONIC. */
Millis clock_ms();

} // namespace gate::broker
