#include "groups.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace gate {

namespace {

constexpr Bytes MiB = Bytes{1} << 20;
constexpr Bytes no_limit = Bytes{1} << 60;
constexpr std::size_t most_known = 4096;

/* "max", or a number of bytes at the text's start; `no_limit` for all else. */
Bytes bytes_of(const std::optional<std::string> &text)
{
    Bytes value = 0;
    if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc())
        return no_limit;
    return std::clamp(value, Bytes{0}, no_limit);
}

/* Octal escapes of /proc/self/mountinfo: \040 is a blank. */
std::string unescaped(const std::string &word)
{
    std::string out;
    for (std::size_t at = 0; at < word.size(); at++) {
        const auto digit = [&](std::size_t n) { return at + n < word.size() && word[at + n] >= '0' && word[at + n] <= '7'; };
        if (word[at] == '\\' && digit(1) && digit(2) && digit(3)) {
            out += static_cast<char>((word[at + 1] - '0') * 64 + (word[at + 2] - '0') * 8 + (word[at + 3] - '0'));
            at += 3;
        } else {
            out += word[at];
        }
    }
    return out;
}

bool has_word(const std::string &list, const std::string &word)
{
    return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

/* The group of a process in one hierarchy, out of /proc/PID/cgroup: lines `number:controllers:/path`, cgroups(7). */
std::string group_in(const std::string &text, int version)
{
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos)
            continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (version == 2 ? controllers.empty() : has_word(controllers, "memory"))
            return line.substr(second + 1);
    }
    return "";
}

/* The group as it is named below the mount point; a group outside of what is mounted (another container's, or one above our
 * own namespace) gives the mount point itself, whose limit holds in any case. */
std::string below_mount(const std::string &group, const std::string &root)
{
    if (group.find("/..") != std::string::npos)
        return "/";
    if (root == "/")
        return group;
    if (group == root)
        return "/";
    if (group.compare(0, root.size() + 1, root + "/") == 0)
        return group.substr(root.size());
    return "/";
}

} // namespace

ControlGroups::ControlGroups(const Memory &machine, Bytes reserve, std::string fake_root)
    : machine_total(machine.total), machine_reserve(reserve), fake(std::move(fake_root))
{
    find_trees();
}

void ControlGroups::find_trees()
{
    if (!fake.empty()) {
        trees.push_back({2, fake, "/"});
        return;
    }
    /* mountinfo, proc_pid_mountinfo(5): id parent device root mount options [more ...] - type source options-of-the-file-system */
    std::istringstream lines(read_text("/proc/self/mountinfo").value_or(""));
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string id, parent, device, root, mount, word, type, source, options;
        words >> id >> parent >> device >> root >> mount;
        while (words >> word && word != "-")
            ;
        words >> type >> source >> options;
        if (type == "cgroup2")
            trees.push_back({2, unescaped(mount), unescaped(root)});
        else if (type == "cgroup" && has_word(options, "memory"))
            trees.push_back({1, unescaped(mount), unescaped(root)});
    }
}

Membership ControlGroups::around(pid_t pid, Millis now)
{
    Membership machine_only;
    machine_only.domains.push_back(0);
    const auto text = pid > 0 ? read_text("/proc/" + std::to_string(pid) + "/cgroup") : std::nullopt;
    if (!text)
        return machine_only;
    const auto found = known.find(*text);
    if (found != known.end() && found->second.until > now)
        return found->second.membership;
    Membership membership = machine_only;
    for (const Tree &tree : trees) {
        const std::string group = group_in(*text, tree.version);
        if (group.compare(0, 1, "/") == 0)
            add_limits(tree, below_mount(group, tree.root), membership);
    }
    if (known.size() >= most_known)
        known.clear();
    known[*text] = {membership, now + 2000};
    return membership;
}

void ControlGroups::add_limits(const Tree &tree, const std::string &group, Membership &membership)
{
    const std::string kills = tree.mount + group + (tree.version == 2 ? "/memory.events" : "/memory.oom_control");
    if (membership.kills.empty() && field(read_text(kills).value_or(""), "oom_kill"))
        membership.kills = kills;
    for (std::string at = group == "/" ? "" : group;; at.resize(at.rfind('/'))) {
        const std::string folder = tree.mount + at;
        if (limit(tree.version, folder) < machine_total)
            membership.domains.push_back(domain(tree, folder, at.empty() ? "/" : at));
        if (at.empty())
            break;
    }
}

DomainId ControlGroups::domain(const Tree &tree, const std::string &folder, const std::string &name)
{
    const auto [found, is_new] = by_folder.emplace(folder, static_cast<DomainId>(domains.size()) + 1);
    if (is_new)
        domains.push_back({tree.version, folder, "cgroup v" + std::to_string(tree.version) + " " + name});
    return found->second;
}

Bytes ControlGroups::limit(int version, const std::string &folder) const
{
    if (version == 1)
        return bytes_of(read_text(folder + "/memory.limit_in_bytes"));
    /* Above memory.high processes are slowed down to a crawl: for a compiler it is as good as the end. */
    return std::min(bytes_of(read_text(folder + "/memory.max")), bytes_of(read_text(folder + "/memory.high")));
}

Room ControlGroups::room(const Domain &one) const
{
    const Bytes most = limit(one.version, one.folder);
    if (most >= no_limit) /* lifted, or the group is gone */
        return {no_limit, 0, no_limit};
    const auto usage = read_text(one.folder + (one.version == 1 ? "/memory.usage_in_bytes" : "/memory.current"));
    const auto stat = read_text(one.folder + "/memory.stat").value_or("");
    const Bytes idle = field(stat, one.version == 1 ? "total_inactive_file" : "inactive_file").value_or(0);
    const Bytes used = usage ? std::max<Bytes>(0, bytes_of(usage) - std::max<Bytes>(0, idle)) : 0;
    const Bytes reserve = std::min(std::max(most / 25, 16 * MiB), machine_reserve);
    return {std::max<Bytes>(0, most - used), reserve, most};
}

std::vector<std::pair<DomainId, Room>> ControlGroups::rooms() const
{
    std::vector<std::pair<DomainId, Room>> found;
    found.reserve(domains.size());
    for (std::size_t at = 0; at < domains.size(); at++)
        found.emplace_back(static_cast<DomainId>(at) + 1, room(domains[at]));
    return found;
}

std::int64_t ControlGroups::kernel_kills(const Membership &membership) const
{
    if (!membership.kills.empty())
        if (const auto count = field(read_text(membership.kills).value_or(""), "oom_kill"))
            return *count;
    return gate::kernel_kills();
}

std::string ControlGroups::name(DomainId id) const
{
    const auto at = static_cast<std::size_t>(id) - 1;
    return id > 0 && at < domains.size() ? domains[at].name : "MemAvailable";
}

} // namespace gate
