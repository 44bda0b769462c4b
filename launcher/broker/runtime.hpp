/* The runtime folder: the lock that makes a broker the only one of its machine, and the socket in it. */
#pragma once

#include <string>

namespace gate {

class Runtime {
  public:
    explicit Runtime(std::string folder);
    ~Runtime(); /* the socket is gone, the lock free */
    Runtime(const Runtime &) = delete;
    Runtime &operator=(const Runtime &) = delete;

    /* True when this process is the broker from now on; false when another is. Makes the folder (mode 1777) when it isn't
     * there. Throws std::runtime_error when the folder can't be used. */
    bool acquire();

    /* The listening socket, others of this user removed, its name in the lock file. Throws std::runtime_error. */
    int listen();

    /* Where the broker that holds the lock listens; "" when it doesn't say so within two seconds. */
    std::string other() const;

    /* False when somebody removed or replaced the lock file: then another broker may be there. Keeps our files fresh for
     * those who clear old ones away. */
    bool still_ours() const;

    std::string file(const std::string &name) const { return folder + "/" + name; }
    std::string ledger() const; /* this user's own: it says what may be killed */
    const std::string &socket_path() const { return socket; }

  private:
    bool lock_is_named() const;
    void remove_stale() const;

    std::string folder, socket;
    int lock = -1, listener = -1;
    bool held = false;
};

} // namespace gate
