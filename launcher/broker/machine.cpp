#include "machine.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

namespace gate {

namespace {

constexpr Bytes GiB = Bytes{1} << 30;

std::optional<std::string> read_open(int fd)
{
    std::string text(4096, '\0');
    std::size_t filled = 0;
    for (;;) {
        const ssize_t got = pread(fd, text.data() + filled, text.size() - filled, static_cast<off_t>(filled));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return std::nullopt;
        filled += static_cast<std::size_t>(got);
        if (got == 0 || filled >= 64 * 1024)
            break;
        if (filled == text.size())
            text.resize(text.size() * 2);
    }
    text.resize(filled);
    return text;
}

std::vector<pid_t> numbers(const std::string &text)
{
    std::vector<pid_t> found;
    const char *at = text.data(), *end = at + text.size();
    while (at < end) {
        pid_t pid = 0;
        const auto [after, error] = std::from_chars(at, end, pid);
        if (error == std::errc() && pid > 0)
            found.push_back(pid);
        at = std::max(after, at) + 1;
    }
    return found;
}

/* The numbers that name entries of a folder: processes of /proc, or threads of one. */
std::vector<pid_t> numbered(const std::string &folder)
{
    std::vector<pid_t> found;
    DIR *open = opendir(folder.c_str());
    if (!open)
        return found;
    while (const dirent *entry = readdir(open)) {
        pid_t pid = 0;
        const char *end = entry->d_name + std::strlen(entry->d_name);
        const auto [after, error] = std::from_chars(entry->d_name, end, pid);
        if (error == std::errc() && after == end)
            found.push_back(pid);
    }
    closedir(open);
    return found;
}

/* For kernels without /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN). */
std::vector<pid_t> children_by_search(pid_t parent)
{
    std::vector<pid_t> found;
    for (const pid_t pid : numbered("/proc")) {
        const auto kin = kinship(pid);
        if (kin && kin->parent == parent)
            found.push_back(pid);
    }
    return found;
}

} // namespace

std::optional<std::string> read_text(const std::string &path)
{
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return std::nullopt;
    auto text = read_open(fd);
    close(fd);
    return text;
}

std::optional<std::int64_t> field(const std::string &text, const std::string &name)
{
    for (std::size_t at = 0; at < text.size();) {
        std::size_t end = text.find('\n', at);
        end = end == std::string::npos ? text.size() : end;
        if (text.compare(at, name.size(), name) == 0 && at + name.size() < end && text[at + name.size()] == ' ') {
            const std::size_t digit = text.find_first_not_of(' ', at + name.size());
            std::int64_t value = 0;
            if (digit < end && std::from_chars(text.data() + digit, text.data() + end, value).ec == std::errc())
                return value;
            return std::nullopt;
        }
        at = end + 1;
    }
    return std::nullopt;
}

MemoryFile::MemoryFile(std::string where) : path(std::move(where))
{
    if (path == "/proc/meminfo")
        held = open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

MemoryFile::~MemoryFile()
{
    if (held >= 0)
        close(held);
}

std::optional<Memory> MemoryFile::read() const
{
    const auto text = held >= 0 ? read_open(held) : read_text(path);
    if (!text)
        return std::nullopt;
    const auto total = field(*text, "MemTotal:"), available = field(*text, "MemAvailable:");
    constexpr std::int64_t most = INT64_MAX / 4096;
    if (!total || !available || *total <= 0 || *total > most || *available < 0 || *available > most)
        return std::nullopt;
    return Memory{*total * 1024, *available * 1024};
}

Bytes default_reserve(Bytes total)
{
    return std::min(std::max(6 * GiB, total / 20), total / 4);
}

std::int64_t kernel_kills()
{
    const auto text = read_text("/proc/vmstat");
    return text ? field(*text, "oom_kill").value_or(0) : 0;
}

std::string boot_id()
{
    return read_text("/proc/sys/kernel/random/boot_id").value_or("").substr(0, 36);
}

std::optional<Kinship> kinship(pid_t pid)
{
    if (pid <= 0)
        return std::nullopt;
    const auto text = read_text("/proc/" + std::to_string(pid) + "/stat");
    const std::size_t name_end = text ? text->rfind(')') : std::string::npos;
    if (name_end == std::string::npos)
        return std::nullopt;
    Kinship found;
    unsigned long long started = 0;
    const char *rest = text->c_str() + name_end + 1;
    if (std::sscanf(rest, " %c %d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &found.state,
                    &found.parent, &found.group, &started) != 4)
        return std::nullopt;
    found.started = started;
    return found;
}

Process process(pid_t pid)
{
    const auto kin = kinship(pid);
    return kin ? Process{pid, kin->started} : Process{};
}

bool alive(const Process &one)
{
    const auto kin = kinship(one.pid);
    return kin && kin->started == one.started && kin->state != 'Z' && kin->state != 'X';
}

std::vector<pid_t> children(pid_t pid)
{
    static const bool listed = access("/proc/self/task", F_OK) == 0 &&
                               access(("/proc/self/task/" + std::to_string(getpid()) + "/children").c_str(), F_OK) == 0;
    if (pid <= 0)
        return {};
    if (!listed)
        return children_by_search(pid);
    std::vector<pid_t> found;
    const std::string folder = "/proc/" + std::to_string(pid) + "/task";
    for (const pid_t thread : numbered(folder)) {
        const auto text = read_text(folder + "/" + std::to_string(thread) + "/children");
        for (const pid_t child : numbers(text.value_or("")))
            found.push_back(child);
    }
    return found;
}

Process child_group(const Process &launcher)
{
    if (!alive(launcher))
        return {};
    for (const pid_t child : children(launcher.pid)) {
        const auto kin = kinship(child);
        if (kin && kin->parent == launcher.pid && kin->group == child)
            return {child, kin->started};
    }
    return {};
}

bool signal_children(const Process &launcher, int signal)
{
    if (!alive(launcher))
        return false;
    bool sent = false;
    for (const pid_t child : children(launcher.pid)) {
        const auto kin = kinship(child);
        if (kin && kin->parent == launcher.pid && kin->group == child && child != getpid())
            sent |= kill(-child, signal) == 0;
    }
    return sent;
}

bool signal_group(const Process &leader, int signal)
{
    if (leader.pid <= 1)
        return false;
    /* A group's number isn't given to a process while the group has members: another start under it means that it is gone. */
    const auto kin = kinship(leader.pid);
    if (kin && kin->started != leader.started)
        return false;
    return kill(-leader.pid, signal) == 0;
}

} // namespace gate
