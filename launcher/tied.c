#include "tied.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOREVER (-1LL)
#define GRACE_MS 5000  /* between SIGTERM and the end of a command that is to be swept up */
#define LINGER_MS 2000 /* for the last words of what the command left behind */
#define SWEEP_MS 4000  /* a process in the kernel's hands, as in a dead network mount, takes no SIGKILL */
#define LOOK_MS 20
#define PAUSE_MS 2

struct tied {
    pid_t command;
    bool ended;          /* the command */
    bool alone;          /* no child is left */
    int status;          /* the command's */
    sigset_t watched;    /* blocked, and taken one by one */
    struct stat outs[2]; /* the command's stdout and stderr */
};

static void refuse(const char *what) __attribute__((noreturn));

static void refuse(const char *what)
{
    fprintf(stderr, "spark-build-enter: %s: %s\n", what, strerror(errno));
    exit(2);
}

static long long now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* The next signal, or 0 when it is `limit`. */
static int next_signal(const struct tied *tied, long long limit)
{
    for (;;) {
        long long left = limit == FOREVER ? 1000000 : limit - now();
        if (left < 0)
            left = 0;
        const struct timespec time = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        int number = sigtimedwait(&tied->watched, NULL, &time);
        if (number > 0)
            return number;
        if (errno == EAGAIN && limit != FOREVER && now() >= limit)
            return 0;
    }
}

static void reap(struct tied *tied)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == tied->command) {
            tied->ended = true;
            tied->status = status;
        }
    tied->alone = pid < 0 && errno == ECHILD;
}

/* Visit this process's children until one visit says true; was there one? The kernel is asked whose child each process is,
 * so that no other is ever touched: until it is reaped, a child's number is nobody else's. */
static bool any_child(const struct tied *tied, bool (*visit)(const struct tied *, pid_t))
{
    DIR *folder = opendir("/proc");
    bool found = false;
    if (!folder)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(folder));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        siginfo_t state;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (waitid(P_PID, (id_t)pid, &state, WEXITED | WNOHANG | WNOWAIT) == 0)
            found = visit(tied, pid);
    }
    closedir(folder);
    return found;
}

static bool end(const struct tied *tied, pid_t pid)
{
    (void)tied;
    (void)kill(pid, SIGKILL);
    return false;
}

static bool name(const struct tied *tied, pid_t pid)
{
    (void)tied;
    fprintf(stderr, "spark-build-enter: process %d can't be ended\n", (int)pid);
    return false;
}

/* Does it still hold a pipe open that the command wrote to? */
static bool holds_output(const struct tied *tied, pid_t pid)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    bool found = false;
    if (!folder)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(folder));) {
        struct stat file;
        if (fstatat(dirfd(folder), entry->d_name, &file, 0) || !(S_ISFIFO(file.st_mode) || S_ISSOCK(file.st_mode)))
            continue;
        for (int at = 0; at < 2; at++)
            found |= file.st_dev == tied->outs[at].st_dev && file.st_ino == tied->outs[at].st_ino;
    }
    closedir(folder);
    return found;
}

/* Give what the command left behind the time for its last words, as long as it can say any. */
static void linger(struct tied *tied)
{
    const long long limit = now() + LINGER_MS;
    while (!tied->alone && now() < limit && any_child(tied, holds_output)) {
        int number = next_signal(tied, now() + LOOK_MS);
        reap(tied);
        if (number == SIGUSR1 || number == SIGTERM)
            return;
    }
}

/* End every descendant: the children of one that was killed become children of this process, and their turn comes. */
static void sweep_up(struct tied *tied)
{
    const long long limit = now() + SWEEP_MS;
    for (reap(tied); !tied->alone && now() < limit; reap(tied)) {
        (void)any_child(tied, end);
        (void)next_signal(tied, now() + PAUSE_MS);
    }
    if (!tied->alone)
        (void)any_child(tied, name);
}

static void end_group(void) __attribute__((noreturn));

static void end_group(void)
{
    (void)kill(0, SIGKILL);
    _exit(128 + SIGKILL);
}

/* Become like the command that ended: whoever waits sees its status, and its signal. */
static void end_like(int status) __attribute__((noreturn));

static void end_like(int status)
{
    if (WIFSIGNALED(status)) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none); /* the command has left its own, if any */
        sigset_t its;
        (void)sigemptyset(&its);
        (void)sigaddset(&its, WTERMSIG(status));
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        (void)sigprocmask(SIG_UNBLOCK, &its, NULL);
    }
    exit(WEXITSTATUS(status));
}

/* Wait for the command's end. SIGTERM goes to the whole group, the command's too, and only starts the clock here. */
static void attend(struct tied *tied, bool sweep) __attribute__((noreturn));

static void attend(struct tied *tied, bool sweep)
{
    long long limit = FOREVER;
    for (reap(tied); !tied->ended; reap(tied)) {
        int number = next_signal(tied, limit);
        if (number == SIGUSR1 && !sweep)
            end_group();
        if (number == SIGUSR1 || !number)
            break;
        if (number == SIGTERM && sweep && limit == FOREVER)
            limit = now() + GRACE_MS;
    }
    if (sweep) {
        if (tied->ended && limit == FOREVER)
            linger(tied);
        sweep_up(tied);
    }
    end_like(tied->status);
}

/* The bond is a signal that this process gets when its parent ends; a fork loses it, so the command alone would live on with
 * what it started. A plain bond holds the process group, which a daemon leaves by setsid(2). For a sweep this process is the
 * one to which the kernel gives every orphan among its descendants (PR_SET_CHILD_SUBREAPER), so none of them is out of reach.
 * What no process can do for itself: when this one is killed by SIGKILL, the command dies (a bond of its own, if it is
 * spark-build-enter), but a daemon lives on. Only a process namespace, where the kernel does the sweeping, has no such gap. */
void tie(pid_t parent, bool sweep)
{
    struct tied tied = {.status = SIGKILL}; /* unless the command says otherwise */
    sigset_t before;
    if (setpgid(0, 0) && errno != EPERM) /* a leader of a session has its group already */
        refuse("a process group");
    signal(SIGINT, SIG_IGN); /* they reach the whole group; whoever only waits must outlive them to tell the status */
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    (void)sigemptyset(&tied.watched);
    (void)sigaddset(&tied.watched, SIGCHLD);
    (void)sigaddset(&tied.watched, SIGUSR1);
    (void)sigaddset(&tied.watched, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &tied.watched, &before) || prctl(PR_SET_PDEATHSIG, SIGUSR1))
        refuse("a bond to the parent");
    if (getppid() != parent)
        end_group(); /* it ended before there was a bond */
    if (sweep && prctl(PR_SET_CHILD_SUBREAPER, 1))
        refuse("a hold on what the command starts");
    tied.command = fork();
    if (tied.command < 0)
        refuse("fork");
    if (!tied.command) {
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        return;
    }
    for (int at = 0; at < 2; at++)
        (void)fstat(at + 1, &tied.outs[at]);
    (void)close(0);
    (void)close(1);
    attend(&tied, sweep);
}
