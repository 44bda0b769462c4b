#include "attempt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"
#include "words.h"

#define NICER 10
#define FIRST_MS 20 /* between two looks at the memory, at first */
#define LAST_MS 250
#define GROWTH (4 << 20)

/* So much is read of what a failed compiler said last. */
#define LAST_WORDS 16384

long long now_ms(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* A folder below TMPDIR. Its name is that of the unit, since compilers write paths of temporary files into debug information:
 * the same unit has the same path in every build. */
static void make_folder(struct attempt *attempt, const struct unit *unit)
{
    const char *base = getenv("TMPDIR");
    unsigned long long digest = DIGEST_START;
    mix(&digest, unit->source, strlen(unit->source));
    mix(&digest, unit->object, strlen(unit->object));
    for (int i = 0; i < 100; i++) {
        char again[8] = "";
        if (i)
            (void)snprintf(again, sizeof again, ".%d", i);
        int length = snprintf(attempt->folder, sizeof attempt->folder, "%s/sb-%016llx%s", base && base[0] ? base : "/tmp", digest, again);
        if (length < (int)sizeof attempt->folder && !mkdir(attempt->folder, 0700))
            return;
        if (errno != EEXIST)
            break;
    }
    attempt->folder[0] = 0;
}

static void remove_below(int place, const char *name)
{
    if (!unlinkat(place, name, 0) || !unlinkat(place, name, AT_REMOVEDIR))
        return;
    int file = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = file < 0 ? NULL : fdopendir(file);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (!same(entry->d_name, ".") && !same(entry->d_name, ".."))
            remove_below(dirfd(folder), entry->d_name);
    (void)closedir(folder);
    (void)unlinkat(place, name, AT_REMOVEDIR);
}

static void remove_folder(struct attempt *attempt)
{
    if (attempt->folder[0])
        remove_below(AT_FDCWD, attempt->folder);
    attempt->folder[0] = 0;
}

/* Holds back what the compiler says: on the disk, where it takes nobody's memory; it has no name, so it never is left there. */
static int open_output(const struct attempt *attempt)
{
    int file = attempt->folder[0] ? open(attempt->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
    return file < 0 ? memfd_create("output", MFD_CLOEXEC) : file;
}

/* The kernel should rather take a compiler than sshd, the broker or a model server. */
static void offer_to_kernel(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    ssize_t written = write(file, "900", 3);
    (void)written;
    (void)close(file);
}

static void run_child(const struct attempt *attempt, char *const *words, const struct inherited *inherited, pid_t parent)
    __attribute__((noreturn));

static void run_child(const struct attempt *attempt, char *const *words, const struct inherited *inherited, pid_t parent)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(125);
    offer_to_kernel();
    (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICER);
    if (attempt->out >= 0)
        (void)dup2(attempt->out, 1);
    if (attempt->err >= 0)
        (void)dup2(attempt->err, 2);
    if (attempt->folder[0])
        (void)setenv("TMPDIR", attempt->folder, 1);
    (void)sigaction(SIGPIPE, &inherited->broken_pipe, NULL);
    (void)sigprocmask(SIG_SETMASK, &inherited->mask, NULL);
    execute(words);
    dprintf(2, "spark-build-launch: %s: %s\n", words[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

bool start_attempt(struct attempt *attempt, const struct unit *unit, char *const *words, const char *object,
                   const struct inherited *inherited)
{
    pid_t parent = getpid();
    memset(attempt, 0, sizeof *attempt);
    attempt->existed = object[0] && !stat(object, &attempt->before);
    attempt->kills = count_kills();
    make_folder(attempt, unit);
    attempt->out = open_output(attempt);
    attempt->err = open_output(attempt);
    attempt->started = now_ms();
    attempt->period = FIRST_MS;
    attempt->next_sample = attempt->started + FIRST_MS;
    attempt->child = fork();
    if (!attempt->child)
        run_child(attempt, words, inherited, parent);
    if (attempt->child < 0) {
        attempt->child = 0;
        remove_folder(attempt);
        forget(attempt);
        return false;
    }
    (void)setpgid(attempt->child, attempt->child); /* both do: whoever comes first */
    return true;
}

void look(struct attempt *attempt)
{
    long long now = now_ms(), used = tree_bytes(attempt->child), change = used - attempt->used;
    if (used) {
        bool moves = change > GROWTH || -change > GROWTH;
        attempt->period = moves ? attempt->period / 2 : attempt->period * 5 / 4;
        add_sample(&attempt->samples, now - attempt->started - attempt->frozen_ms, used);
        attempt->used = used;
    }
    if (attempt->period < FIRST_MS || attempt->period > LAST_MS)
        attempt->period = attempt->period < FIRST_MS ? FIRST_MS : LAST_MS;
    if (used > attempt->peak)
        attempt->peak = used;
    attempt->next_sample = now + attempt->period;
}

void signal_attempt(struct attempt *attempt, int number)
{
    if (attempt->child)
        (void)kill(-attempt->child, number);
}

void freeze(struct attempt *attempt, bool on)
{
    if (!attempt->child || attempt->frozen == on)
        return;
    signal_attempt(attempt, on ? SIGSTOP : SIGCONT);
    if (on)
        attempt->frozen_since = now_ms();
    else
        attempt->frozen_ms += now_ms() - attempt->frozen_since;
    attempt->frozen = on;
}

/* Does the end of what was said tell of a compiler's part that was killed? gcc, nvcc, clang and collect2 say so in these words. */
static bool tells_of_a_kill(int file)
{
    static const char *const signs[] = {"Killed", "signal 9"};
    struct stat status;
    bool found = false;
    if (file < 0 || fstat(file, &status) || !status.st_size)
        return false;
    char *text = need(LAST_WORDS);
    ssize_t length = pread(file, text, LAST_WORDS, status.st_size > LAST_WORDS ? status.st_size - LAST_WORDS : 0);
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        found = found || (length > 0 && memmem(text, (size_t)length, signs[i], strlen(signs[i])));
    free(text);
    return found;
}

/* Was it the kernel, for memory? Exit codes don't tell: g++ answers 1 when its cc1plus is killed. Another unit's kill in the
 * same group can be mistaken for one of this failed unit; that costs one more run. */
static bool killed_for_memory(const struct attempt *attempt, const struct report *report)
{
    if (attempt->ordered || (!report->code && !report->signal))
        return false;
    if (report->signal == SIGKILL || report->code == 128 + SIGKILL)
        return true;
    struct kills after = count_kills();
    if (after.count < 0 || attempt->kills.count < 0)
        return tells_of_a_kill(attempt->err);
    if (after.count <= attempt->kills.count)
        return false;
    return !after.machine || tells_of_a_kill(attempt->err);
}

/* What a failed compiler has written must not be taken for an object. One that it never touched stays. */
static void remove_partial(const struct attempt *attempt, const char *object)
{
    struct stat after;
    if (!object[0] || stat(object, &after) || !S_ISREG(after.st_mode))
        return;
    const struct stat *before = &attempt->before;
    bool untouched = attempt->existed && before->st_dev == after.st_dev && before->st_ino == after.st_ino &&
                     before->st_size == after.st_size && before->st_mtim.tv_sec == after.st_mtim.tv_sec &&
                     before->st_mtim.tv_nsec == after.st_mtim.tv_nsec;
    if (!untouched)
        (void)unlink(object);
}

static void fill(struct report *report, const struct attempt *attempt, int status, const struct rusage *used)
{
    report->code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    report->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    report->largest = used->ru_maxrss * 1024LL;
    report->peak = attempt->peak > report->largest ? attempt->peak : report->largest;
    report->wall_ms = now_ms() - attempt->started - attempt->frozen_ms;
    report->cpu_ms = (used->ru_utime.tv_sec + used->ru_stime.tv_sec) * 1000LL + (used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1000;
    report->killed = killed_for_memory(attempt, report);
    write_curve(&attempt->samples, report->wall_ms, report->peak, report->curve);
}

bool reap_attempt(struct attempt *attempt, const char *object, struct report *report, int *status)
{
    siginfo_t ended = {0};
    struct rusage used;
    if (waitid(P_PID, (id_t)attempt->child, &ended, WEXITED | WNOHANG | WNOWAIT) || !ended.si_pid)
        return false;
    freeze(attempt, false);
    signal_attempt(attempt, SIGKILL); /* while the leader's number is still its own */
    while (wait4(attempt->child, status, 0, &used) < 0)
        if (errno != EINTR)
            return false;
    fill(report, attempt, *status, &used);
    attempt->child = 0;
    remove_folder(attempt);
    if (*status)
        remove_partial(attempt, object);
    return true;
}

/* Without a kernel that copies to such a file; `at` is where to go on. */
static bool copy_some(int from, int to, off_t *at)
{
    char text[4096];
    ssize_t got = pread(from, text, sizeof text, *at), written;
    if (got <= 0)
        return false;
    written = write(to, text, (size_t)got);
    if (written > 0)
        *at += written;
    return written > 0;
}

static void copy_out(int from, int to)
{
    struct stat status;
    off_t at = 0;
    if (from < 0 || fstat(from, &status))
        return;
    while (at < status.st_size) {
        ssize_t sent = sendfile(to, from, &at, (size_t)(status.st_size - at));
        if (sent > 0 || (sent < 0 && errno == EINTR))
            continue;
        if (sent < 0 && errno == EINVAL && copy_some(from, to, &at))
            continue;
        if (errno != EAGAIN)
            return; /* nobody reads it any more */
        struct pollfd ready = {.fd = to, .events = POLLOUT};
        (void)poll(&ready, 1, -1);
    }
}

void replay(struct attempt *attempt)
{
    copy_out(attempt->out, 1);
    copy_out(attempt->err, 2);
    forget(attempt);
}

void forget(struct attempt *attempt)
{
    if (attempt->out >= 0)
        (void)close(attempt->out);
    if (attempt->err >= 0)
        (void)close(attempt->err);
    attempt->out = attempt->err = -1;
}
