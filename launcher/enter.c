/* spark-build-enter: runs one command in a room of its own.
 *
 *   spark-build-enter [--namespaces] [--seccomp] [--bind DIR NAME] [--chdir DIR] -- COMMAND [ARG ...]
 *   spark-build-enter --namespaces --probe
 *   spark-build-enter --tied PID [--sweep] -- COMMAND [ARG ...]
 *
 * --namespaces  a mount, network, process and (for plain users) user namespace. The root is a read-only tmpfs into which
 *               every top-level folder of the machine is bound; loopback is the only interface; when this process or its
 *               parent dies, everything inside dies with it.
 * --bind        DIR appears at /sb/NAME, so that a build sees the same path for every tree (nvcc hashes absolute paths into
 *               symbols). Nothing is left on the machine's own root.
 * --seccomp     no namespace can be had: refuses internet sockets by a filter that needs no rights.
 * --tied        runs the command in a process group that ends with the process PID, which started this program: whatever it
 *               started in turn is killed when that one is. First, and with no other option but --sweep; ends as the command
 *               ended, by its signal too.
 * --sweep       also what left that group, like a daemon, is killed: when the command has ended (whoever still holds its output
 *               open has 2 s for the last words), when PID has, 5 s after SIGTERM at the latest, and at once by SIGUSR1.
 *               Without --namespaces nothing else holds daemons, so a build runs as `--tied PID --sweep -- spark-build-enter ...`.
 * --probe       sets everything up and ends with 0, or says in one line what can't be had and ends with 2.
 *
 * The exit status is the command's, or 128 + its signal; 2 when the room can't be made; 127 when there is no such command.
 */
#include "tied.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "the socket filter knows x86_64 and aarch64"
#endif

/* Calls of the x32 ABI have this bit; they would pass a filter that only knows the 64-bit numbers. */
#define X32_BIT 0x40000000u

struct options {
    bool namespaces, seccomp, probe, sweep;
    const char *bind_from, *bind_name, *chdir_to;
    pid_t tied;
    char **command;
};

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
    int number = errno;
    va_list words;
    fputs("spark-build-enter: ", stderr);
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fprintf(stderr, ": %s\n", strerror(number));
    exit(2);
}

static void usage(void) __attribute__((noreturn));

static void usage(void)
{
    fputs("usage: spark-build-enter [--namespaces] [--seccomp] [--bind DIR NAME] [--chdir DIR] (--probe | -- COMMAND ...)\n"
          "       spark-build-enter --tied PID [--sweep] -- COMMAND ...\n",
          stderr);
    exit(2);
}

static struct options parse(int argc, char **argv)
{
    struct options found = {0};
    int at = 1;
    for (; at < argc; at++) {
        if (!strcmp(argv[at], "--namespaces"))
            found.namespaces = true;
        else if (!strcmp(argv[at], "--seccomp"))
            found.seccomp = true;
        else if (!strcmp(argv[at], "--probe"))
            found.probe = true;
        else if (!strcmp(argv[at], "--sweep"))
            found.sweep = true;
        else if (!strcmp(argv[at], "--tied") && at + 1 < argc) {
            char *end;
            long number = strtol(argv[++at], &end, 10);
            if (*end || number <= 0 || (pid_t)number != number)
                usage();
            found.tied = (pid_t)number;
        } else if (!strcmp(argv[at], "--bind") && at + 2 < argc) {
            found.bind_from = argv[++at];
            found.bind_name = argv[++at];
        } else if (!strcmp(argv[at], "--chdir") && at + 1 < argc)
            found.chdir_to = argv[++at];
        else if (!strcmp(argv[at], "--")) {
            at++;
            break;
        } else
            usage();
    }
    found.command = argv + at;
    if (!found.probe && !found.command[0])
        usage();
    if (found.tied ? found.probe || at != 4 + found.sweep || strcmp(argv[1], "--tied") : found.sweep)
        usage();
    if (found.bind_name && (!found.namespaces || !found.bind_name[0] || strchr(found.bind_name, '/') || found.bind_name[0] == '.'))
        usage();
    return found;
}

/* Join into a buffer that is large enough for every path here, or end. */
static void join(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void join(char *out, size_t size, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    int length = vsnprintf(out, size, format, words);
    va_end(words);
    if (length < 0 || (size_t)length >= size) {
        errno = ENAMETOOLONG;
        fail("a path");
    }
}

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        fail("%s", path);
    if (write(file, text, strlen(text)) != (ssize_t)strlen(text))
        fail("%s", path);
    close(file);
}

/* Leave the machine's namespaces. Root may do so by right; everybody else, and root in a container, by a user namespace. */
static void leave(void)
{
    const int wanted = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC;
    uid_t user = geteuid();
    gid_t group = getegid();
    if (user == 0 && unshare(wanted) == 0)
        return;
    if (unshare(wanted | CLONE_NEWUSER))
        fail("namespaces are refused");
    char map[64];
    write_file("/proc/self/setgroups", "deny");
    join(map, sizeof map, "%u %u 1\n", user, user);
    write_file("/proc/self/uid_map", map);
    join(map, sizeof map, "%u %u 1\n", group, group);
    write_file("/proc/self/gid_map", map);
}

static void raise_loopback(void)
{
    int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (handle < 0 || ioctl(handle, SIOCSIFFLAGS, &request))
        fail("the loopback interface");
    close(handle);
}

/* Make `to` the same thing as `from`: a link, or a bind mount of a file or a folder with all that is mounted below it. */
static void mirror(const char *from, const char *to)
{
    struct stat status;
    if (lstat(from, &status))
        return; /* gone since the folder was read */
    if (S_ISLNK(status.st_mode)) {
        char target[4096];
        ssize_t length = readlink(from, target, sizeof target - 1);
        if (length < 0)
            return;
        target[length] = 0;
        if (symlink(target, to))
            fail("%s", to);
        return;
    }
    if (S_ISDIR(status.st_mode)) {
        if (mkdir(to, 0755) && errno != EEXIST)
            fail("%s", to);
    } else if (S_ISREG(status.st_mode)) {
        int file = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (file < 0)
            fail("%s", to);
        close(file);
    } else
        return;
    if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) && errno != EACCES)
        fail("binding %s", to);
}

/* A fresh root with everything of the old one, and the build's tree at /sb/NAME. */
static void make_root(const struct options *asked)
{
    static const char base[] = "/tmp"; /* any folder that is there: only until the pivot */
    char from[4096], to[4096];
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        fail("the mount tree");
    if (mount("spark-build", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m"))
        fail("a tmpfs on %s", base);
    join(to, sizeof to, "%s/.old", base);
    if (mkdir(to, 0755) || syscall(SYS_pivot_root, base, to) || chdir("/"))
        fail("a root of its own");
    DIR *folder = opendir("/.old");
    if (!folder)
        fail("the old root");
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "sb"))
            continue;
        join(from, sizeof from, "/.old/%s", entry->d_name);
        join(to, sizeof to, "/%s", entry->d_name);
        mirror(from, to);
    }
    closedir(folder);
    if (asked->bind_name) {
        join(from, sizeof from, "/.old%s", asked->bind_from);
        join(to, sizeof to, "/sb/%s", asked->bind_name);
        if (mkdir("/sb", 0755) || mkdir(to, 0755))
            fail("%s", to);
        if (mount(from, to, NULL, MS_BIND | MS_REC, NULL))
            fail("binding %s to %s", asked->bind_from, to);
    }
    /* The old one may be refused where /proc is masked, as in some containers; the machine's own then stays visible. */
    (void)mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (mount(NULL, "/.old", NULL, MS_REC | MS_PRIVATE, NULL) || umount2("/.old", MNT_DETACH))
        fail("the old root");
    (void)rmdir("/.old");
    (void)mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
}

/* Internet, packet and vsock sockets fail with EACCES, so do calls of a foreign ABI and io_uring, which could make sockets
 * unseen. Unix sockets and socket pairs work. Format: seccomp(2). */
static void cut_sockets(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = (unsigned short)(sizeof program / sizeof program[0]), .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0))
        fail("the socket filter");
}

static void run(const struct options *asked) __attribute__((noreturn));

static void run(const struct options *asked)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    if (asked->seccomp)
        cut_sockets();
    if (asked->chdir_to && chdir(asked->chdir_to))
        fail("%s", asked->chdir_to);
    execvp(asked->command[0], asked->command);
    fprintf(stderr, "spark-build-enter: %s: %s\n", asked->command[0], strerror(errno));
    exit(127);
}

/* Wait for `child`, and for whatever else is orphaned to this process; return the child's exit status. */
static int reap(pid_t child)
{
    int status;
    for (;;) {
        pid_t ended = wait(&status);
        if (ended < 0 && errno == EINTR)
            continue;
        if (ended < 0)
            fail("waiting");
        if (ended == child)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

/* The build's signals reach the whole process group; whoever only waits must outlive them to tell the status. */
static void stay(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static pid_t start(void)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    return child;
}

int main(int argc, char **argv)
{
    struct options asked = parse(argc, argv);
    if (asked.tied) {
        tie(asked.tied, asked.sweep);
        run(&asked);
    }
    umask(022);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fail("a bond to the parent");
    if (!asked.namespaces) {
        if (asked.probe) {
            if (asked.seccomp)
                cut_sockets();
            return 0;
        }
        run(&asked);
    }
    leave();
    pid_t init = start();
    if (init) {
        stay();
        return reap(init);
    }
    /* From here on this is process 1 of its namespace: when it ends, the kernel kills all others in there. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fail("a bond to the parent");
    make_root(&asked);
    raise_loopback();
    if (asked.probe)
        return 0;
    pid_t work = start();
    if (!work)
        run(&asked);
    stay();
    return reap(work);
}
