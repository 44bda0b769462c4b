#include "connection.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

#include "message.hpp"

namespace gate {

namespace {

constexpr std::size_t launcher_queue = 64;
constexpr std::size_t control_queue = 8192;

void keep_first(const cmsghdr *part, int &passed)
{
    const std::size_t bytes = part->cmsg_len - CMSG_LEN(0);
    for (std::size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
        if (passed < 0)
            passed = fd;
        else
            close(fd);
    }
}

} // namespace

Connection::Connection(int socket, Millis now) : fd(socket), since(now)
{
    ucred who = {};
    socklen_t size = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return;
    user = who.uid;
    peer = process(who.pid); /* 0 when it lives in a process namespace that isn't below ours */
}

Connection::~Connection()
{
    close(fd);
}

Connection::Sent Connection::try_send(std::string_view text) const
{
    for (;;) {
        if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return Sent::yes;
        if (errno == EINTR)
            continue;
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? Sent::later : Sent::never;
    }
}

void Connection::send(std::string text)
{
    if (dead)
        return;
    const Sent sent = outbox.empty() ? try_send(text) : Sent::later;
    if (sent == Sent::later) {
        const std::size_t most = role == Role::control ? control_queue : launcher_queue;
        if (outbox.size() < most)
            outbox.push_back(std::move(text));
        else
            dead = role != Role::control;
    } else if (sent == Sent::never) {
        dead = errno != EMSGSIZE;
    }
}

void Connection::send_if_idle(std::string text)
{
    if (!dead && outbox.empty())
        dead = try_send(text) == Sent::never && errno != EMSGSIZE;
}

void Connection::flush()
{
    while (!dead && !outbox.empty()) {
        const Sent sent = try_send(outbox.front());
        if (sent == Sent::later)
            return;
        dead = sent == Sent::never && errno != EMSGSIZE;
        outbox.pop_front();
    }
}

Received receive(int socket)
{
    static std::array<char, largest_packet> text;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(16 * sizeof(int))> extra = {};
    iovec part = {text.data(), text.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = extra.data();
    message.msg_controllen = extra.size();
    Received found;
    const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
        const bool again = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        found.kind = again ? Received::Kind::nothing : Received::Kind::closed;
        return found;
    }
    for (cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one))
        if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_RIGHTS)
            keep_first(one, found.passed);
    if (message.msg_flags & MSG_TRUNC)
        found.kind = Received::Kind::unusable;
    else
        found.kind = got == 0 ? Received::Kind::closed : Received::Kind::message;
    found.text = {text.data(), static_cast<std::size_t>(got)};
    return found;
}

} // namespace gate
