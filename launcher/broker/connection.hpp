/* One client's end of the socket: what came, what couldn't be sent yet. */
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <sys/types.h>

#include "machine.hpp"
#include "policy.hpp"

namespace gate {

class Connection {
  public:
    enum class Role { unknown, launcher, control };

    Connection(int socket, Millis now); /* takes the socket; asks the kernel who is at its other end */
    ~Connection();
    Connection(const Connection &) = delete;
    Connection &operator=(const Connection &) = delete;

    const int fd;
    const Millis since;
    Process peer;
    uid_t user = static_cast<uid_t>(-1);
    Role role = Role::unknown;
    bool dead = false; /* is closed at the end of this round */
    UnitId unit = 0;   /* a launcher's, while it waits or runs */
    BuildId build = 0; /* a control's */

    /* Sends now, or later when the client is slow. A launcher that doesn't read 64 messages is given up; a control that
     * doesn't read `most_queued` loses what comes after. */
    void send(std::string text);

    /* Sends unless something waits already: for what the next one of its kind replaces. */
    void send_if_idle(std::string text);

    /* Sends what waits, as far as the client takes it. */
    void flush();
    bool waits() const { return !outbox.empty(); }

  private:
    enum class Sent { yes, later, never };

    Sent try_send(std::string_view text) const;

    std::deque<std::string> outbox;
};

/* What recvmsg gave. */
struct Received {
    enum class Kind { message, nothing, closed, unusable };

    Kind kind = Kind::nothing;
    std::string_view text; /* valid until the next call */
    int passed = -1;       /* a descriptor that came along; the receiver closes it */
};

/* The next packet. Descriptors beyond the first are closed. */
Received receive(int socket);

} // namespace gate
