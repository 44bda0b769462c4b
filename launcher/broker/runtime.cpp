#include "runtime.hpp"

#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <stdexcept>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine.hpp"

namespace gate {

namespace {

[[noreturn]] void fail(const std::string &what)
{
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

void make_folder(const std::string &folder)
{
    if (mkdir(folder.c_str(), 01777) == 0)
        (void)!chmod(folder.c_str(), 01777); /* whatever the umask is */
    struct stat what = {};
    if (lstat(folder.c_str(), &what) != 0)
        fail(folder);
    if (!S_ISDIR(what.st_mode)) {
        errno = ENOTDIR;
        fail(folder);
    }
}

int open_lock(const std::string &path)
{
    /* Without O_CREAT first: fs.protected_regular refuses it for a file of another user in a folder open to all. */
    for (int turn = 0; turn < 10; turn++) {
        const int there = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (there >= 0 || errno != ENOENT)
            return there;
        const int made = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (made >= 0)
            (void)!fchmod(made, 0666);
        if (made >= 0 || errno != EEXIST)
            return made;
    }
    return -1;
}

void touch(const std::string &path)
{
    utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
}

} // namespace

Runtime::Runtime(std::string where) : folder(std::move(where))
{
}

Runtime::~Runtime()
{
    if (held && !socket.empty()) {
        unlink(socket.c_str());
        if (lock_is_named())
            (void)!ftruncate(lock, 0);
    }
    if (listener >= 0)
        close(listener);
    if (lock >= 0)
        close(lock);
}

bool Runtime::acquire()
{
    make_folder(folder);
    for (int turn = 0; turn < 10; turn++) {
        lock = open_lock(file("broker.lock"));
        if (lock < 0)
            fail(file("broker.lock"));
        if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK)
                fail(file("broker.lock"));
            return false;
        }
        /* Removed between opening and locking: the lock of a file that nobody finds is worth nothing. */
        if (lock_is_named())
            return held = true;
        close(lock);
    }
    errno = EAGAIN;
    fail(file("broker.lock"));
}

bool Runtime::lock_is_named() const
{
    struct stat ours = {}, named = {};
    return fstat(lock, &ours) == 0 && lstat(file("broker.lock").c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

std::string Runtime::ledger() const { return file("ledger-" + std::to_string(geteuid())); }

bool Runtime::still_ours() const
{
    if (!lock_is_named())
        return false;
    touch(file("broker.lock"));
    touch(socket);
    touch(ledger());
    return true;
}

void Runtime::remove_stale() const
{
    const std::string start = "broker-" + std::to_string(geteuid()) + "-", end = ".sock";
    DIR *open = opendir(folder.c_str());
    if (!open)
        return;
    while (const dirent *entry = readdir(open)) {
        const std::string name = entry->d_name;
        if (name.size() > start.size() + end.size() && name.compare(0, start.size(), start) == 0 &&
            name.compare(name.size() - end.size(), end.size(), end) == 0)
            unlink(file(name).c_str());
    }
    closedir(open);
}

int Runtime::listen()
{
    remove_stale();
    const std::string name = "broker-" + std::to_string(geteuid()) + "-" + std::to_string(getpid()) + ".sock";
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    /* By way of /proc, since the folder's own path may be longer than an address can be. */
    const int place = open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    ("/proc/self/fd/" + std::to_string(place) + "/" + name).copy(address.sun_path, sizeof address.sun_path - 1);
    listener = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const bool bound = place >= 0 && listener >= 0 &&
                       bind(listener, reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0;
    const int number = errno;
    if (place >= 0)
        close(place);
    errno = number;
    if (!bound)
        fail(file(name));
    socket = file(name);
    if (chmod(socket.c_str(), 0666) != 0 || ::listen(listener, 1024) != 0)
        fail(socket);
    const std::string line = name + "\n";
    if (ftruncate(lock, 0) != 0 || pwrite(lock, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size()))
        fail(file("broker.lock"));
    return listener;
}

std::string Runtime::other() const
{
    for (int turn = 0; turn < 200; turn++) {
        std::string name = read_text(file("broker.lock")).value_or("");
        name = name.substr(0, name.find('\n'));
        struct stat what = {};
        if (!name.empty() && name.find('/') == std::string::npos && stat(file(name).c_str(), &what) == 0)
            return file(name);
        usleep(10'000);
    }
    return "";
}

} // namespace gate
