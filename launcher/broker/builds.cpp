/* What controls say, and what they are told. */
#include <algorithm>
#include <array>
#include <cerrno>
#include <istream>
#include <streambuf>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "server.hpp"

namespace gate::broker {

namespace {

constexpr Bytes most_bytes = Bytes{1} << 50;
constexpr Bytes most_predictions = Bytes{64} << 20;
constexpr Millis state_every = 250;

/* A file's text, read in pieces from its start, at most 64 MiB of it. */
class Pieces : public std::streambuf {
  public:
    explicit Pieces(int file) : fd(file) {}

  private:
    int_type underflow() override
    {
        const auto room = static_cast<std::size_t>(std::min<Bytes>(most_predictions - offset, Bytes{sizeof piece}));
        const ssize_t got = room > 0 ? pread(fd, piece.data(), room, offset) : 0;
        if (got <= 0)
            return traits_type::eof();
        offset += got;
        setg(piece.data(), piece.data(), piece.data() + got);
        return traits_type::to_int_type(piece[0]);
    }

    int fd;
    off_t offset = 0;
    std::array<char, 65536> piece;
};

/* A file whose reading can't hang: not a pipe, not one that another process or machine serves (magic numbers of
 * linux/magic.h; CIFS and 9p from their sources). */
bool reads_at_once(int fd)
{
    struct stat what = {};
    struct statfs where = {};
    if (fstat(fd, &what) != 0 || !S_ISREG(what.st_mode) || fstatfs(fd, &where) != 0)
        return false;
    for (const long slow : {0x65735546L, 0x6969L, 0xFF534D42L, 0xFE534D42L, 0x01021997L, 0x00c36400L})
        if (static_cast<unsigned long>(where.f_type) == static_cast<unsigned long>(slow))
            return false;
    return true;
}

Caps caps_of(const Packet &packet, Caps caps)
{
    caps.memory = packet.number("memory", 0, most_bytes, caps.memory);
    caps.jobs = static_cast<int>(packet.number("jobs", 0, 4096, caps.jobs));
    caps.reserve = packet.number("reserve", 0, most_bytes, caps.reserve);
    caps.weight = static_cast<double>(packet.number("weight", 1, 1000, static_cast<std::int64_t>(caps.weight)));
    return caps;
}

void add(Sums &sums, const Unit &unit, const View &view)
{
    sums.waiting += view.running ? 0 : 1;
    if (!view.running)
        return;
    sums.running++;
    sums.slots += unit.slots;
    sums.used += unit.used;
    sums.promised += std::max<Bytes>(0, view.reserved - unit.used);
    sums.frozen += view.frozen ? 1 : 0;
}

} // namespace

/* The build of that word, opened when nobody did: with no caps and no history. Users don't meet in one build. */
Build &Server::build_of(uid_t user, const std::string &word)
{
    const auto [found, is_new] = by_word.emplace(std::pair(user, word), next_build);
    if (is_new) {
        Build &build = builds[next_build];
        build.id = next_build++;
        build.word = word;
        build.user = user;
        policy->open_build(build.id, build.caps, now);
    }
    return builds.at(found->second);
}

void Server::on_build(Connection &one, const Packet &packet, int passed)
{
    const std::string word = packet.text("id", 63);
    if (one.build != 0 || word.empty()) {
        one.dead = true;
        return;
    }
    Build &build = build_of(one.user, word);
    if (build.control) { /* it comes anew before its old connection was seen to be gone */
        build.control->build = 0;
        build.control->dead = true;
    }
    build.control = &one;
    build.until = 0;
    build.caps = caps_of(packet, Caps());
    build.hang = packet.number("hang", 0, Millis{1} << 40, 0);
    build.news = true;
    one.build = build.id;
    build.around = groups.around(one.peer.pid, now).domains;
    if (passed >= 0 && reads_at_once(passed)) {
        Pieces pieces(passed);
        std::istream lines(&pieces);
        build.oracle = std::make_unique<Oracle>();
        build.oracle->load(lines);
    }
    policy->change_build(build.id, build.caps, build.paused);
    repredict(build);
    read_rooms();
    const Bound at = bound(build);
    one.send(gate::packet("open", {{"cores", std::to_string(options.cores)},
                                   {"total", std::to_string(at.total)},
                                   {"room", std::to_string(at.room())},
                                   {"basis", at.basis}}));
}

/* Launchers that came before their control waited without its history. */
void Server::repredict(Build &build)
{
    for (auto &[id, unit] : units)
        if (unit.build == build.id && !unit.running && unit.attempt == 0) {
            policy->gone(id);
            unit.prediction = build.oracle->predict(unit.identity);
            policy->request(id, build.id, unit.prediction, unit.slots, unit.membership.domains, unit.since);
        }
}

void Server::on_change(Connection &one, const Packet &packet)
{
    const auto found = builds.find(one.build);
    if (found == builds.end())
        return;
    Build &build = found->second;
    build.caps.memory = packet.number("memory", 0, most_bytes, build.caps.memory);
    build.caps.jobs = static_cast<int>(packet.number("jobs", 0, 4096, build.caps.jobs));
    build.paused = packet.number("paused", 0, 1, build.paused ? 1 : 0) == 1;
    build.news = true;
    build.told = 0;
    policy->change_build(build.id, build.caps, build.paused);
}

void Server::control_gone(Connection &one)
{
    const auto found = builds.find(one.build);
    if (found != builds.end() && found->second.control == &one)
        close_build(one.build, "the build has ended");
}

void Server::close_build(BuildId id, const std::string &text)
{
    Build &build = builds.at(id);
    build.control = nullptr;
    build.failed = true;
    build.failure = text;
    fail_rest(build);
    policy->close_build(id);
    by_word.erase({build.user, build.word});
    builds.erase(id);
}

/* Builds whose control didn't come back, and those that nobody opened and nobody uses. */
void Server::close_overdue()
{
    std::vector<std::pair<BuildId, std::string>> over;
    for (const auto &[id, build] : builds) {
        const bool used = std::any_of(units.begin(), units.end(), [&, key = id](const auto &one) {
            return one.second.build == key;
        });
        if (build.until && now >= build.until)
            over.emplace_back(id, "the build that this belongs to is gone");
        else if (!build.control && !build.until && !used)
            over.emplace_back(id, "");
    }
    for (const auto &[id, text] : over)
        close_build(id, text);
}

void Server::tell(const Build &build, std::string text)
{
    if (build.control)
        build.control->send(std::move(text));
}

Bound Server::bound_of(DomainId id, const std::vector<View> &views) const
{
    Bound at;
    const auto room = rooms.find(id);
    if (room == rooms.end())
        return at;
    at.basis = groups.name(id);
    at.available = room->second.available;
    at.reserve = room->second.reserve;
    at.total = room->second.total + room->second.reserve;
    for (const View &view : views) {
        const auto found = units.find(view.unit);
        if (!view.running || found == units.end())
            continue;
        const std::vector<DomainId> &domains = found->second.membership.domains;
        if (std::find(domains.begin(), domains.end(), id) == domains.end())
            continue;
        at.used += found->second.used;
        at.promised += std::max<Bytes>(0, view.reserved - found->second.used);
    }
    return at;
}

/* The tightest of the machine, the groups around its control and its units, and its own cap. */
Bound Server::bound(const Build &build) const
{
    const std::vector<View> views = policy->views(now);
    std::vector<DomainId> around = {0};
    Bound cap;
    for (const auto &[id, unit] : units) {
        if (unit.build != build.id)
            continue;
        around.insert(around.end(), unit.membership.domains.begin(), unit.membership.domains.end());
        cap.used += unit.running ? unit.used : 0;
    }
    if (build.control)
        around.insert(around.end(), build.around.begin(), build.around.end());
    std::sort(around.begin(), around.end());
    around.erase(std::unique(around.begin(), around.end()), around.end());
    Bound tightest = bound_of(0, views);
    tightest.reserve = std::max(tightest.reserve, build.caps.reserve);
    for (const DomainId id : around) {
        const Bound other = bound_of(id, views);
        if (!other.basis.empty() && other.ceiling() < tightest.ceiling())
            tightest = other;
    }
    if (build.caps.memory > 0 && build.caps.memory < tightest.ceiling()) {
        for (const View &view : views)
            if (view.running && view.build == build.id)
                cap.promised += std::max<Bytes>(0, view.reserved - view.used);
        cap.basis = "--memory";
        cap.total = build.caps.memory;
        cap.available = build.caps.memory - cap.used;
        return cap;
    }
    return tightest;
}

/* Four times a second while something runs or waits, and when something changed. */
void Server::tell_states()
{
    std::vector<View> views;
    for (auto &[id, build] : builds) {
        if (!build.control || now - build.told < state_every || !(build.news || !units.empty()))
            continue;
        if (views.empty())
            views = policy->views(now);
        State state;
        state.build = &build;
        state.bound = bound(build);
        state.cores = options.cores;
        state.now = now;
        for (const View &view : views) {
            const auto found = units.find(view.unit);
            if (found == units.end())
                continue;
            add(view.build == id ? state.own : state.others, found->second, view);
            if (view.build == id && view.running)
                state.running.push_back({&found->second, &view});
        }
        build.control->send_if_idle(state_text(std::move(state)));
        build.told = now;
        build.news = false;
    }
}

} // namespace gate::broker
