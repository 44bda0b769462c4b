#include "server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <sched.h>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace gate::broker {

namespace {

constexpr int packets_a_turn = 16;        /* of one client, then the next has its turn */
constexpr Millis silence = 30'000;        /* of a client that never said what it is */
constexpr Millis check_every = 5'000;     /* that the lock is still ours */
constexpr Millis state_every = 250;
constexpr int decisions_a_turn = 4;

int usable_cores()
{
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

int signal_descriptor()
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

Memory read_or_throw(const MemoryFile &file, const std::string &path)
{
    const auto memory = file.read();
    if (!memory)
        throw std::runtime_error(path + ": no MemTotal and MemAvailable in it");
    return *memory;
}

Settings settings_of(const Options &options)
{
    Settings settings;
    settings.cores = options.cores > 0 ? options.cores : usable_cores();
    if (options.pause > 0)
        settings.pause_limit = options.pause;
    return settings;
}

} // namespace

Millis clock_ms()
{
    timespec time = {};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Millis{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

Server::Server(const Options &given, const Runtime &where, int socket)
    : options(given), runtime(where), listener(socket), meminfo(given.meminfo),
      memory(read_or_throw(meminfo, given.meminfo)),
      reserve(given.reserve >= 0 ? std::min(given.reserve, memory.total) : default_reserve(memory.total)),
      groups(memory, reserve, given.cgroup_root), ledger(where.ledger())
{
    const Settings settings = settings_of(options);
    options.cores = settings.cores;
    policy = std::make_unique<Policy>(settings);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    signals = signal_descriptor();
    spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!options.tick_log.empty())
        tick_log = std::fopen(options.tick_log.c_str(), "ae");
    now = last_busy = last_check = clock_ms();
    watch(listener, EPOLLIN);
    watch(signals, EPOLLIN);
    inherit();
}

Server::~Server()
{
    for (auto &[id, unit] : units) /* what we stopped must not stay stopped */
        if (unit.running)
            signal(unit, SIGCONT, "thaw");
    connections.clear();
    for (const int fd : {epoll, signals, spare})
        if (fd >= 0)
            close(fd);
    if (tick_log)
        std::fclose(tick_log);
}

void Server::watch(int fd, std::uint32_t events)
{
    epoll_event event = {};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0 && errno == EEXIST)
        epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

void Server::run()
{
    std::array<epoll_event, 256> events;
    while (!stopping) {
        const int count = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), timeout());
        now = clock_ms();
        for (int at = 0; at < count; at++)
            handle(events[static_cast<std::size_t>(at)].data.fd, events[static_cast<std::size_t>(at)].events);
        sweep();
        close_overdue();
        watch_units();
        settle();
        tell_states();
        if (is_idle())
            stopping = true;
    }
}

void Server::handle(int fd, std::uint32_t events)
{
    if (fd == signals) {
        stopping = true;
        return;
    }
    if (fd == listener) {
        accept_all();
        return;
    }
    const auto found = connections.find(fd);
    if (found == connections.end())
        return;
    Connection &one = *found->second;
    if (events & EPOLLOUT) {
        one.flush();
        if (!one.waits())
            watch(fd, EPOLLIN);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_from(one);
}

void Server::accept_all()
{
    for (int turn = 0; turn < 256; turn++) {
        const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            connections.emplace(fd, std::make_unique<Connection>(fd, now));
            watch(fd, EPOLLIN);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE)
            accept_without_descriptors();
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

/* Out of descriptors: whoever comes is sent away instead of waking us for ever. */
void Server::accept_without_descriptors()
{
    if (spare < 0)
        return;
    close(spare);
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    errno = EMFILE;
}

void Server::read_from(Connection &one)
{
    for (int turn = 0; turn < packets_a_turn && !one.dead; turn++) {
        const Received got = receive(one.fd);
        if (got.kind == Received::Kind::nothing)
            return;
        const auto packet = got.kind == Received::Kind::message ? Packet::parse(got.text) : std::nullopt;
        if (packet)
            dispatch(one, *packet, got.passed);
        else
            one.dead = true;
        if (got.passed >= 0)
            close(got.passed);
    }
}

void Server::dispatch(Connection &one, const Packet &packet, int passed)
{
    using Role = Connection::Role;
    const std::string &verb = packet.verb();
    if (one.role == Role::unknown)
        one.role = verb == "unit" ? Role::launcher : verb == "build" ? Role::control : Role::unknown;
    if (one.role == Role::unknown)
        one.dead = true;
    else if (one.role == Role::launcher && verb == "unit")
        on_unit(one, packet);
    else if (one.role == Role::launcher && verb == "at")
        on_at(one, packet);
    else if (one.role == Role::launcher && verb == "end")
        on_end(one, packet);
    else if (one.role == Role::control && verb == "build")
        on_build(one, packet, passed);
    else if (one.role == Role::control && verb == "change")
        on_change(one, packet);
}

/* Clients that are gone, or as good as that. */
void Server::sweep()
{
    bool again = true;
    while (again) {
        again = false;
        for (auto at = connections.begin(); at != connections.end();) {
            Connection &one = *at->second;
            if (one.role == Connection::Role::unknown && now - one.since > silence)
                one.dead = true;
            if (!one.dead) {
                if (one.waits())
                    watch(one.fd, EPOLLIN | EPOLLOUT);
                ++at;
                continue;
            }
            const auto gone = std::move(at->second);
            at = connections.erase(at);
            launcher_gone(*gone);
            control_gone(*gone);
            again = true; /* telling others may have shown that they are gone too */
        }
    }
}

void Server::read_rooms()
{
    if (const auto read = meminfo.read())
        memory.available = std::min(read->available, memory.total);
    rooms[0] = {memory.available, reserve, memory.total - reserve};
    for (const auto &[id, room] : groups.rooms())
        rooms[id] = {room.available, room.reserve, room.total - room.reserve};
    for (const auto &[id, room] : rooms)
        policy->room(id, room);
}

void Server::settle()
{
    for (int turn = 0; turn < decisions_a_turn; turn++) {
        read_rooms();
        const std::vector<Action> actions = policy->decide(now);
        if (tick_log)
            log_tick(actions);
        for (const Action &action : actions)
            act(action);
        for (auto &[id, build] : builds)
            if (build.failed)
                fail_rest(build);
        sweep();
        if (actions.empty())
            return;
    }
}

/* t, available, used by units, running, waiting, actions: one line a decision. */
void Server::log_tick(const std::vector<Action> &actions)
{
    Bytes used = 0;
    int running = 0;
    for (const auto &[id, unit] : units) {
        used += unit.running ? unit.used : 0;
        running += unit.running ? 1 : 0;
    }
    std::fprintf(tick_log, "%lld\t%lld\t%lld\t%d\t%d\t%zu\n", static_cast<long long>(now),
                 static_cast<long long>(memory.available), static_cast<long long>(used), running,
                 static_cast<int>(units.size()) - running, actions.size());
    if (!actions.empty())
        std::fflush(tick_log);
}

/* Milliseconds until there is something to do though nobody speaks. */
int Server::timeout()
{
    Millis wait = connections.empty() ? std::min(check_every, options.idle) : 1000;
    if (!units.empty())
        wait = std::clamp<Millis>(policy->next(now), 1, state_every);
    for (const auto &[id, build] : builds) {
        if (build.until)
            wait = std::min(wait, build.until - now);
        if (build.control && (build.news || !units.empty()))
            wait = std::min(wait, build.told + state_every - now);
    }
    return static_cast<int>(std::clamp<Millis>(wait, 1, 5000));
}

bool Server::is_idle()
{
    if (!connections.empty() || !units.empty())
        last_busy = now;
    if (now - last_check >= check_every) {
        last_check = now;
        if (!runtime.still_ours())
            return true;
    }
    return now - last_busy >= options.idle;
}

} // namespace gate::broker
