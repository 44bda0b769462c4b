/* The machine as /proc tells it: its memory, and the processes of a launcher. */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "policy.hpp"

namespace gate {

/* The text of a small file, up to 64 KiB; nothing when it can't be read. */
std::optional<std::string> read_text(const std::string &path);

/* The number after `name` in lines `name number ...` (a colon behind the name belongs to it); nothing where there is none. */
std::optional<std::int64_t> field(const std::string &text, const std::string &name);

struct Memory {
    Bytes total = 0, available = 0;
};

/* Reads MemTotal and MemAvailable. The file stays open: when descriptors run out, the guard must still see. */
class MemoryFile {
  public:
    explicit MemoryFile(std::string path); /* in the format of proc_meminfo(5); not "/proc/meminfo": opened anew each time */
    ~MemoryFile();
    MemoryFile(const MemoryFile &) = delete;
    MemoryFile &operator=(const MemoryFile &) = delete;

    std::optional<Memory> read() const;

  private:
    std::string path;
    int held = -1;
};

/* What is left to everybody else unless told otherwise: 6 GiB or 5 % of all, but never more than a quarter. */
Bytes default_reserve(Bytes total);

/* Processes that the kernel killed for memory since the machine's start, everywhere. */
std::int64_t kernel_kills();

std::string boot_id();

/* A process, told from later ones with the same number by its start. `pid` 0: none, or one that can't be seen from here. */
struct Process {
    pid_t pid = 0;
    std::uint64_t started = 0; /* clock ticks since boot */
};

struct Kinship {
    pid_t parent = 0, group = 0;
    std::uint64_t started = 0;
    char state = '?'; /* proc_pid_stat(5) */
};

std::optional<Kinship> kinship(pid_t pid);
Process process(pid_t pid);
bool alive(const Process &);
std::vector<pid_t> children(pid_t pid);

/* The leader of the process group in which a child of `launcher` runs; pid 0 when it has no such child. */
Process child_group(const Process &launcher);

/* Sends `signal` to the process groups that children of `launcher` lead; a launcher gives its compiler one. Each is looked at
 * just before: a number that was given to another process since is left alone. True when anything was sent. */
bool signal_children(const Process &launcher, int signal);

/* Sends `signal` to the process group that `leader` led, whether or not its leader still lives. */
bool signal_group(const Process &leader, int signal);

} // namespace gate
