#include "gate.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "words.h"

/* How long a broker that lives may be too busy to take a message. */
#define PATIENCE_S 5

#define LARGEST_PACKET 2048
#define MOST_LOCKS 1024
#define LONGEST_LOCK 64

/* A broker's file holds one name. Anything else there, like a pipe that nobody writes to, isn't worth a wait. */
static bool is_lock(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_size <= LONGEST_LOCK;
}

/* The name of the socket in the folder; its broker may have died since. */
static bool read_name(int folder, char name[LONGEST_LOCK + 1])
{
    struct stat status;
    ssize_t length = 0;
    int file = openat(folder, "broker.lock", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
    if (file < 0)
        return false;
    if (!fstat(file, &status) && is_lock(&status))
        length = read(file, name, LONGEST_LOCK);
    (void)close(file);
    if (length <= 0)
        return false;
    name[length] = 0;
    name[strcspn(name, "\n")] = 0;
    return name[0] && !strchr(name, '/');
}

bool gate_used(const char *folder)
{
    struct stat status;
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/broker.lock", folder);
    return length < (int)sizeof path && !lstat(path, &status) && is_lock(&status);
}

int gate_connect(const char *folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    char name[LONGEST_LOCK + 1];
    int place = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC), gate = -1;
    if (place < 0)
        return -1;
    /* By way of /proc, since the folder's own path may be longer than an address can be. */
    if (read_name(place, name) && (gate = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) >= 0) {
        (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", place, name);
        (void)setsockopt(gate, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(gate, (const struct sockaddr *)&address, sizeof address)) {
            (void)close(gate);
            gate = -1;
        }
    }
    (void)close(place);
    return gate;
}

static bool tell(int gate, const char *text, int length, int flags)
{
    if (length < 0 || length >= LARGEST_PACKET)
        length = LARGEST_PACKET - 1;
    while (send(gate, text, (size_t)length, MSG_NOSIGNAL | flags) < 0)
        if (errno != EINTR)
            return (errno == EAGAIN || errno == EWOULDBLOCK) && flags;
    return true;
}

bool tell_unit(int gate, const struct unit *unit, const char *build, const struct held *held)
{
    char text[LARGEST_PACKET];
    int length = snprintf(text, sizeof text,
                          "unit\nbuild %s\nkind %s\nsource %s\nobject %s\nflags %s\nname %s\nslots %d\nretry %d\ncommand %s\n", build,
                          unit->kind, unit->source, unit->object, unit->flags, unit->name, unit->slots, !unit->once, unit->command);
    if (held->running && length > 0 && length < LARGEST_PACKET)
        length += snprintf(text + length, sizeof text - (size_t)length, "held %lld\nattempt %d\nstarted %lld\nused %lld\n", held->bytes,
                           held->attempt, held->started_ms_ago, held->used);
    return tell(gate, text, length, 0);
}

bool tell_use(int gate, long long used)
{
    char text[64];
    return tell(gate, text, snprintf(text, sizeof text, "at\nused %lld\n", used), MSG_DONTWAIT);
}

bool tell_end(int gate, const struct report *report)
{
    char text[512];
    int length = snprintf(text, sizeof text,
                          "end\ncode %d\nsignal %d\nlargest %lld\npeak %lld\nwall %lld\ncpu %lld\nkilled %d\ncurve %s\n", report->code,
                          report->signal, report->largest, report->peak, report->wall_ms, report->cpu_ms, report->killed, report->curve);
    return tell(gate, text, length, 0);
}

static enum verb verb_of(const char *word)
{
    static const char *const verbs[] = {"go", "kill", "freeze", "thaw", "again", "done", "fail"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (same(word, verbs[i]))
            return (enum verb)(GO + i);
    return NOTHING; /* of a later broker */
}

static void read_line(struct message *message, const char *line)
{
    const char *blank = strchr(line, ' '), *value = blank ? blank + 1 : "";
    if (begins(line, "bytes "))
        message->bytes = atoll(value);
    else if (begins(line, "attempt "))
        message->attempt = atoi(value);
    else if (begins(line, "alone "))
        message->alone = atoi(value) != 0;
    else if (begins(line, "text "))
        (void)snprintf(message->text, sizeof message->text, "%s", value);
}

struct message hear(int gate)
{
    struct message message = {.verb = NOTHING};
    char text[LARGEST_PACKET], *rest = text, *line;
    ssize_t length;
    do
        length = recv(gate, text, sizeof text - 1, MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return message;
    if (length <= 0) {
        message.verb = LOST;
        return message;
    }
    text[length] = 0;
    if ((line = strsep(&rest, "\n")))
        message.verb = verb_of(line);
    while ((line = strsep(&rest, "\n")))
        read_line(&message, line);
    return message;
}

/* "N", or "BYTES N": how many may run at once. */
static int count_slots(void)
{
    const char *text = getenv("SPARK_BUILD_FALLBACK"), *last = text ? strrchr(text, ' ') : NULL;
    int count = text ? atoi(last ? last + 1 : text) : 1;
    return count < 1 ? 1 : count > MOST_LOCKS ? MOST_LOCKS : count;
}

int take_slot(void)
{
    const char *folder = getenv("SPARK_BUILD_SLOTS");
    char path[PATH_MAX];
    int count = count_slots(), opened = 0;
    for (int i = 0; folder && i < count; i++) {
        (void)snprintf(path, sizeof path, "%s/slot.%d", folder, i);
        int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (file < 0)
            continue;
        if (!flock(file, LOCK_EX | LOCK_NB))
            return file;
        opened++;
        (void)close(file);
    }
    return opened ? -1 : -2;
}
