/* spark-build-broker: shares the machine's memory out to the compilers of all builds.
 *
 *   spark-build-broker --folder DIR [--foreground] [--idle SECONDS] [--cores N] [--reserve BYTES] [--pause SECONDS]
 *                      [--meminfo FILE] [--cgroup-root DIR] [--tick-log FILE]
 *
 * --folder       the runtime folder: broker.lock, the socket, the ledger. Made (mode 1777) when it isn't there.
 * --foreground   stays with whoever started it; else it detaches once it listens.
 * --idle         ends after so long without a connection (60).
 * --cores        how many compilers may run at once (those that this process may use).
 * --reserve      memory left to everybody else (6 GiB or 5 % of all, at most a quarter).
 * --pause        so long a build may wait without memory for anybody before it ends (600).
 * --meminfo      read instead of /proc/meminfo, in its format: a test's machine.
 * --cgroup-root  a folder that stands for the version-2 control groups: a test's container.
 * --tick-log     appends a line a decision: time, available, used, running, waiting, actions.
 *
 * Prints the path of the socket once somebody listens there: this process, or the machine's broker that was there before.
 * Ends with 0 in both cases, 1 when the folder can't be used, 2 for a command line that it doesn't understand.
 */
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.hpp"
#include "server.hpp"

namespace {

using gate::broker::Options;

[[noreturn]] void usage()
{
    std::fputs("usage: spark-build-broker --folder DIR [--foreground] [--idle SECONDS] [--cores N] [--reserve BYTES]\n"
               "                          [--pause SECONDS] [--meminfo FILE] [--cgroup-root DIR] [--tick-log FILE]\n",
               stderr);
    std::exit(2);
}

long long whole(const char *word, long long most)
{
    char *end = nullptr;
    errno = 0;
    const long long value = std::strtoll(word, &end, 10);
    if (errno || end == word || *end || value < 0 || value > most)
        usage();
    return value;
}

/* Seconds with a fraction, as milliseconds. */
gate::Millis seconds(const char *word)
{
    char *end = nullptr;
    const double value = std::strtod(word, &end);
    if (end == word || *end || !(value >= 0 && value <= 1e9))
        usage();
    return static_cast<gate::Millis>(value * 1000);
}

Options parse(int argc, char **argv)
{
    Options options;
    for (int at = 1; at < argc; at++) {
        const std::string name = argv[at];
        if (name == "--foreground") {
            options.foreground = true;
            continue;
        }
        const char *value = at + 1 < argc ? argv[++at] : nullptr;
        if (!value)
            usage();
        else if (name == "--folder")
            options.folder = value;
        else if (name == "--idle")
            options.idle = seconds(value);
        else if (name == "--cores")
            options.cores = static_cast<int>(whole(value, 4096));
        else if (name == "--reserve")
            options.reserve = whole(value, LLONG_MAX / 4);
        else if (name == "--pause")
            options.pause = seconds(value);
        else if (name == "--meminfo")
            options.meminfo = value;
        else if (name == "--cgroup-root")
            options.cgroup_root = value;
        else if (name == "--tick-log")
            options.tick_log = value;
        else
            usage();
    }
    if (options.folder.empty())
        usage();
    return options;
}

[[maybe_unused]] bool may_lock_all()
{
    rlimit limit = {};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)
        return true;
    constexpr unsigned ipc_lock = 14; /* CAP_IPC_LOCK, capabilities(7) */
    const std::string status = gate::read_text("/proc/self/status").value_or("");
    const std::size_t at = status.find("CapEff:");
    const unsigned long long held = at == std::string::npos ? 0 : std::strtoull(status.c_str() + at + 7, nullptr, 16);
    return held >> ipc_lock & 1;
}

void write_word(const char *path, const char *word)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, word, std::strlen(word));
    close(fd);
}

/* It has to run when nothing else does. Each of these may be refused; it works without. */
void prefer_us()
{
    write_word("/proc/self/oom_score_adj", "0");
    write_word("/proc/self/oom_score_adj", "-500");
    if (getpriority(PRIO_PROCESS, 0) > -5)
        setpriority(PRIO_PROCESS, 0, -5);
    rlimit limit = {};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
#ifndef SPARK_BUILD_SANITIZE /* whose shadow memory is larger than any machine */
    if (may_lock_all())
        mlockall(MCL_CURRENT | MCL_FUTURE);
#endif
}

void say(int out, const std::string &line)
{
    (void)!write(out, (line + "\n").data(), line.size() + 1);
}

void leave_terminal()
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

int serve(const Options &options, int out)
{
    gate::Runtime runtime(options.folder);
    if (!runtime.acquire()) {
        const std::string socket = runtime.other();
        if (!socket.empty())
            say(out, socket);
        return 0;
    }
    const int listener = runtime.listen();
    gate::broker::Server server(options, runtime, listener);
    prefer_us();
    say(out, runtime.socket_path());
    if (!options.foreground) {
        close(out);
        leave_terminal();
    }
    server.run();
    return 0;
}

int guarded(const Options &options, int out)
{
    try {
        return serve(options, out);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "spark-build-broker: %s\n", error.what());
        return 1;
    }
}

/* What the broker says before it leaves us, passed on; then its status when it ended already, else 0. */
int hear(int in, pid_t child)
{
    char text[PATH_MAX];
    bool heard = false;
    for (ssize_t got; (got = read(in, text, sizeof text)) > 0 || (got < 0 && errno == EINTR);)
        if (got > 0) {
            (void)!write(STDOUT_FILENO, text, static_cast<std::size_t>(got));
            heard = true;
        }
    int status = 0;
    waitpid(child, &status, 0);
    const bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return heard || well ? 0 : 1;
}

/* Nothing of whoever started it stays: no terminal, no group, no folder, no parent. */
int detach(const Options &options)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return guarded(options, STDOUT_FILENO);
    const pid_t first = fork();
    if (first < 0)
        return 1;
    if (first > 0) {
        close(ends[1]);
        return hear(ends[0], first);
    }
    close(ends[0]);
    setsid();
    const pid_t second = fork();
    if (second != 0)
        _exit(second < 0 ? 1 : 0);
    (void)!chdir("/");
    return guarded(options, ends[1]);
}

} // namespace

int main(int argc, char **argv)
{
    Options options = parse(argc, argv);
    umask(022);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGHUP, SIG_IGN);
    if (options.foreground)
        return guarded(options, STDOUT_FILENO);
    for (std::string *path : {&options.folder, &options.meminfo, &options.cgroup_root, &options.tick_log})
        if (!path->empty() && (*path)[0] != '/') {
            char here[PATH_MAX];
            *path = std::string(getcwd(here, sizeof here) ? here : ".") + "/" + *path;
        }
    return detach(options);
}
