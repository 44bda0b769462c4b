#include "run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attempt.h"
#include "words.h"

#define RECONNECT_MS 100
#define ALONE_MS 2000 /* without a broker, before the local semaphore decides */
#define TELL_MS 100   /* between two messages on memory, at least */
#define TELL_CHANGE (4 << 20)

enum state { WAITS, RUNS, ENDED };

struct run {
    const struct unit *unit;
    char *const *words;
    const char *object, *folder, *build;
    enum state state;
    struct attempt attempt;
    struct inherited inherited;
    struct report report;
    int status;
    int gate, signals, slot;
    int number, kills; /* attempts, and those that the kernel ended */
    bool stopped;      /* by a signal to us: what comes of it counts */
    long long granted, told, told_at, lost_at, next_try;
};

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT};

/* Those to be passed on, and SIGCHLD. What this process was told to ignore stays ignored. */
static sigset_t block_signals(struct inherited *inherited)
{
    sigset_t set;
    struct sigaction old;
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
        if (!sigaction(passed_on[i], NULL, &old) && old.sa_handler != SIG_IGN)
            (void)sigaddset(&set, passed_on[i]);
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, it would take the status away */
    (void)sigaction(SIGPIPE, &ignore, &inherited->broken_pipe);
    (void)sigprocmask(SIG_BLOCK, &set, &inherited->mask);
    return set;
}

void end_like(int status)
{
    if (WIFSIGNALED(status)) {
        const struct rlimit none = {0, 0};
        sigset_t all;
        (void)setrlimit(RLIMIT_CORE, &none); /* the compiler has left its own, if any */
        (void)signal(WTERMSIG(status), SIG_DFL);
        (void)sigfillset(&all);
        (void)raise(WTERMSIG(status));
        (void)sigprocmask(SIG_UNBLOCK, &all, NULL);
    }
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void lose(struct run *run)
{
    if (run->gate >= 0)
        (void)close(run->gate);
    run->gate = -1;
    run->lost_at = now_ms();
    run->next_try = run->lost_at + RECONNECT_MS;
    if (run->state == RUNS) { /* nobody would ever thaw it; the broker may have stopped it before it said so */
        freeze(&run->attempt, false);
        signal_attempt(&run->attempt, SIGCONT);
    }
}

static void ask(struct run *run)
{
    struct held held = {0};
    run->gate = gate_connect(run->folder);
    run->next_try = now_ms() + RECONNECT_MS;
    if (run->state == RUNS) {
        held.running = true;
        held.bytes = run->granted > 0 ? run->granted : run->attempt.used;
        held.used = run->attempt.used;
        held.attempt = run->number;
        held.started_ms_ago = now_ms() - run->attempt.started;
    }
    if (run->gate >= 0 && !tell_unit(run->gate, run->unit, run->build, &held)) {
        (void)close(run->gate);
        run->gate = -1;
    }
}

static void start(struct run *run)
{
    if (!start_attempt(&run->attempt, run->unit, run->words, run->object, &run->inherited)) {
        (void)fprintf(stderr, "spark-build: no process for a compiler: %s\n", strerror(errno));
        _exit(71);
    }
    run->state = RUNS;
    run->told = 0;
}

/* No broker: a semaphore that all launchers of this build share stands in for it. One that never was won't come back. */
static void try_alone(struct run *run)
{
    if (now_ms() - run->lost_at < ALONE_MS && gate_used(run->folder))
        return;
    run->slot = take_slot();
    if (run->slot == -1)
        return;
    run->number++;
    run->granted = 0;
    start(run);
}

static void leave_slot(struct run *run)
{
    if (run->slot >= 0)
        (void)close(run->slot);
    run->slot = -1;
}

/* Names of files are in such a text; what a terminal would take for an order isn't passed on. */
static void print_line(const char *text)
{
    (void)fputs("spark-build: ", stderr);
    for (; *text; text++)
        (void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, stderr);
    (void)fputc('\n', stderr);
}

static void give_up(struct run *run, const char *text) __attribute__((noreturn));

static void give_up(struct run *run, const char *text)
{
    if (run->attempt.child) {
        run->attempt.ordered = true;
        freeze(&run->attempt, false);
        signal_attempt(&run->attempt, SIGKILL);
        while (!reap_attempt(&run->attempt, run->object, &run->report, &run->status))
            (void)poll(NULL, 0, 1);
    }
    print_line(text);
    _exit(EXIT_NO_MEMORY);
}

static void wait_again(struct run *run)
{
    forget(&run->attempt);
    run->state = WAITS;
}

static void obey(struct run *run, const struct message *message)
{
    if (message->verb == LOST)
        lose(run);
    else if (message->verb == FAIL)
        give_up(run, message->text);
    else if (message->verb == GO && run->state == WAITS) {
        run->granted = message->bytes;
        run->number = message->attempt > 0 ? message->attempt : run->number + 1;
        start(run);
    } else if (message->verb == KILL && run->state == RUNS) {
        run->attempt.ordered = true;
        signal_attempt(&run->attempt, SIGKILL);
    } else if ((message->verb == FREEZE || message->verb == THAW) && run->state == RUNS)
        freeze(&run->attempt, message->verb == FREEZE);
    else if (message->verb == AGAIN && run->state == ENDED)
        wait_again(run);
}

/* True when the broker has said that the last attempt counts. */
static bool listen_to(struct run *run)
{
    while (run->gate >= 0) {
        struct message message = hear(run->gate);
        if (message.verb == DONE && run->state == ENDED)
            return true;
        obey(run, &message);
        if (message.verb == NOTHING)
            break;
    }
    return false;
}

/* Without a broker to ask, the rule is its own: an attempt that the kernel or the broker killed doesn't count. */
static bool counts(struct run *run)
{
    bool failed = run->status != 0;
    if (run->stopped || !failed || run->unit->once)
        return true;
    if (run->attempt.ordered)
        return false;
    return !run->report.killed || run->kills >= ATTEMPTS;
}

/* Stop as the terminal or a debugger asked, with all below; go on when told. */
static void suspend(struct run *run)
{
    signal_attempt(&run->attempt, SIGTSTP);
    (void)raise(SIGSTOP);
    if (!run->attempt.frozen)
        signal_attempt(&run->attempt, SIGCONT);
}

static void take_signal(struct run *run, int number)
{
    if (number == SIGCHLD)
        return;
    if (number == SIGTSTP)
        suspend(run);
    else if (number == SIGCONT) {
        if (!run->attempt.frozen)
            signal_attempt(&run->attempt, SIGCONT);
    } else if (run->state != RUNS)
        end_like(number); /* the status of an end by that signal */
    else {
        run->stopped = true;
        freeze(&run->attempt, false); /* else it couldn't end */
        signal_attempt(&run->attempt, number);
    }
}

static void read_signals(struct run *run)
{
    struct signalfd_siginfo told;
    while (read(run->signals, &told, sizeof told) == sizeof told)
        take_signal(run, (int)told.ssi_signo);
}

static void tell_changes(struct run *run)
{
    long long change = run->attempt.used - run->told, now = now_ms();
    change = change < 0 ? -change : change;
    if (run->gate < 0 || now - run->told_at < TELL_MS || (change <= TELL_CHANGE && change * 100 <= run->told * 3))
        return;
    if (!tell_use(run->gate, run->attempt.used)) {
        lose(run);
        return;
    }
    run->told = run->attempt.used;
    run->told_at = now;
}

/* After the compiler has ended: true when that is the result. */
static bool conclude(struct run *run)
{
    leave_slot(run);
    run->kills += run->report.killed;
    run->state = ENDED;
    if (run->stopped)
        return true;
    if (run->gate >= 0 && !tell_end(run->gate, &run->report))
        lose(run);
    return false;
}

static int timeout_of(const struct run *run)
{
    long long now = now_ms(), until = -1;
    if (run->state == RUNS)
        until = run->attempt.next_sample;
    if (run->gate < 0 && (until < 0 || run->next_try < until))
        until = run->next_try;
    return until < 0 ? -1 : until > now ? (int)(until - now) : 0;
}

/* One round; true when the last attempt is the result. */
static bool step(struct run *run)
{
    struct pollfd files[2] = {{.fd = run->signals, .events = POLLIN}, {.fd = run->gate, .events = POLLIN}};
    if (run->state == ENDED && run->gate < 0) {
        if (counts(run))
            return true;
        wait_again(run);
    }
    (void)poll(files, 2, timeout_of(run));
    read_signals(run);
    if (listen_to(run))
        return true;
    if (run->state == RUNS && reap_attempt(&run->attempt, run->object, &run->report, &run->status))
        return conclude(run);
    if (run->state == RUNS && now_ms() >= run->attempt.next_sample) {
        look(&run->attempt);
        tell_changes(run);
    }
    if (run->gate < 0 && now_ms() >= run->next_try) {
        ask(run);
        if (run->gate < 0 && run->state == WAITS)
            try_alone(run);
    }
    return false;
}

int run_unit(const struct unit *unit, char *const *words, const char *object)
{
    static struct run run;
    const char *build = getenv("SPARK_BUILD_BUILD");
    run = (struct run){.unit = unit, .words = words, .object = object, .gate = -1, .slot = -1};
    run.folder = getenv("SPARK_BUILD_GATE");
    run.build = build ? build : "-";
    run.attempt.out = run.attempt.err = -1;
    sigset_t set = block_signals(&run.inherited);
    run.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    run.lost_at = now_ms();
    while (!step(&run))
        continue;
    replay(&run.attempt);
    if (run.gate >= 0)
        (void)close(run.gate);
    return run.status;
}

static int wait_for_group(pid_t child, const sigset_t *set)
{
    int status;
    for (;;) {
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            return status;
        int number = sigwaitinfo(set, NULL);
        if (number <= 0 || number == SIGCHLD)
            continue;
        (void)kill(-child, number);
        if (number == SIGTSTP) {
            (void)raise(SIGSTOP);
            (void)kill(-child, SIGCONT);
        }
    }
}

int run_group(char *const *words)
{
    struct inherited inherited;
    sigset_t set = block_signals(&inherited);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return 71 << 8;
    if (!child) {
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)sigaction(SIGPIPE, &inherited.broken_pipe, NULL);
        (void)sigprocmask(SIG_SETMASK, &inherited.mask, NULL);
        if (getppid() != parent)
            _exit(125);
        execute(words);
        dprintf(2, "spark-build-launch: %s: %s\n", words[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    (void)setpgid(child, child);
    return wait_for_group(child, &set);
}
