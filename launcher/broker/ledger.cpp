#include "ledger.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gate {

namespace {

constexpr std::uint32_t mark = 0x53424c32; /* changes with the layout below */
constexpr int most_slots = 4096;

/* One slot, of fixed size: written by one call, so that a broker killed at any moment leaves old or new. */
struct Record {
    std::uint32_t mark;
    std::int32_t launcher, group;
    std::uint32_t user;
    std::uint64_t launcher_started, group_started;
    std::int64_t reserved;
    std::int32_t slots, attempt;
    char build[64];
    char unused[16];
};
static_assert(sizeof(Record) == 128, "the file's layout");

struct Header {
    std::uint32_t mark;
    char boot[60];
    char unused[64];
};
static_assert(sizeof(Header) == sizeof(Record), "the header takes the first slot");

/* Without O_CREAT first: fs.protected_regular refuses it for a file of another user in a folder open to all. */
int open_ledger(const std::string &path)
{
    const int there = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return there >= 0 ? there : open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* What it says is killed: only the user who runs this broker may have written it. */
bool is_ours(int fd)
{
    struct stat what = {};
    return fstat(fd, &what) == 0 && S_ISREG(what.st_mode) && what.st_uid == geteuid() && (what.st_mode & 022) == 0;
}

Header header()
{
    Header now = {};
    now.mark = mark;
    boot_id().copy(now.boot, sizeof now.boot - 1);
    return now;
}

bool sane(const Record &one)
{
    return one.mark == mark && one.launcher > 1 && one.group >= 0 && one.reserved >= 0 &&
           one.reserved < (Bytes{1} << 50) && one.slots >= 1 && one.slots <= 1024 && one.attempt >= 1 &&
           one.attempt <= 1'000'000;
}

Lease lease_of(const Record &one)
{
    Lease lease;
    lease.launcher = {one.launcher, one.launcher_started};
    lease.group = {one.group, one.group_started};
    lease.user = one.user;
    lease.reserved = one.reserved;
    lease.slots = one.slots;
    lease.attempt = one.attempt;
    lease.build.assign(one.build, strnlen(one.build, sizeof one.build - 1));
    return lease;
}

Record record_of(const Lease &lease)
{
    Record one = {};
    one.mark = mark;
    one.launcher = lease.launcher.pid;
    one.launcher_started = lease.launcher.started;
    one.group = lease.group.pid;
    one.group_started = lease.group.started;
    one.user = lease.user;
    one.reserved = lease.reserved;
    one.slots = lease.slots;
    one.attempt = lease.attempt;
    lease.build.copy(one.build, sizeof one.build - 1);
    return one;
}

} // namespace

Ledger::Ledger(const std::string &path) : fd(open_ledger(path))
{
    if (fd >= 0 && !is_ours(fd)) {
        close(fd);
        fd = -1;
    }
}

Ledger::~Ledger()
{
    if (fd >= 0)
        close(fd);
}

std::vector<Lease> Ledger::inherit()
{
    std::vector<Lease> found;
    if (fd < 0)
        return found;
    const Header now = header();
    Header then = {};
    const bool ours = pread(fd, &then, sizeof then, 0) == sizeof then && std::memcmp(&then, &now, sizeof now) == 0;
    Record one = {};
    for (int slot = 1; ours && slot <= most_slots; slot++) {
        if (pread(fd, &one, sizeof one, static_cast<off_t>(sizeof one) * slot) != sizeof one)
            break;
        if (sane(one))
            found.push_back(lease_of(one));
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, &now, sizeof now, 0) != sizeof now) {
        close(fd);
        fd = -1;
    }
    return found;
}

int Ledger::enter(const Lease &lease)
{
    int slot = -1;
    if (!free_slots.empty()) {
        slot = free_slots.back();
        free_slots.pop_back();
    } else if (used_slots < most_slots) {
        slot = ++used_slots;
    }
    if (slot > 0)
        write(slot, &lease);
    return slot;
}

void Ledger::change(int slot, const Lease &lease)
{
    if (slot > 0)
        write(slot, &lease);
}

void Ledger::strike(int slot)
{
    if (slot <= 0)
        return;
    write(slot, nullptr);
    free_slots.push_back(slot);
}

bool Ledger::write(int slot, const Lease *lease) const
{
    const Record one = lease ? record_of(*lease) : Record{};
    return fd >= 0 && pwrite(fd, &one, sizeof one, static_cast<off_t>(sizeof one) * slot) == sizeof one;
}

} // namespace gate
