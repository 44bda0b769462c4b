"""Where the broker lives, reaching it, and starting it.

``/run/spark-build``, where an admin made it or a container mounts it, is one for the whole machine: all users and containers
that see it share one broker. Else it is ``/tmp/spark-build-gate-<uid>``, one for all builds of a user. Its ``broker.lock``
is held by the broker that lives and holds the name of its socket.

Whoever can write the folder can be the broker: see what is compiled, let everything start at once, and end builds. So only
the user and root may own it; users who are let into one that root made have to trust each other that far.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LOCK", "PROGRAM", "VARIABLE", "connect", "folder", "program", "reach", "start"]

PROGRAM = "spark-build-broker"

#: Names another runtime folder.
VARIABLE = "SPARK_BUILD_GATE_DIR"

LOCK = "broker.lock"

MADE_BY_ADMIN = Path("/run/spark-build")
MADE_ON_DEMAND = "/tmp/spark-build-gate-{uid}"  # noqa: S108  # mode 0700, and its owner is looked at

_SOCKET = re.compile(r"broker-\d+-\d+\.sock")

#: A socket's whole path has to fit into 107 bytes (unix(7)); this leaves room for its name.
_LONGEST = 80

#: How long a broker has to start, and how often it is looked for meanwhile.
START_S = 10.0
_LOOK_S = 0.02


def folder(env: Mapping[str, str]) -> Path:
    """Return the runtime folder, made when it wasn't there.

    Raises HostError ``gate-folder`` when there is none that this user can write, or when it is somebody's trap.
    """
    if named := env.get(VARIABLE):
        place = Path(named)
        if not place.is_absolute():
            raise _no_folder(place, f"{VARIABLE} has to be an absolute path")
        return _made(place, mode=0o700)
    if MADE_BY_ADMIN.is_dir() and os.access(MADE_BY_ADMIN, os.W_OK | os.X_OK):
        return _made(MADE_BY_ADMIN, mode=0o755)
    return _made(Path(MADE_ON_DEMAND.format(uid=os.geteuid())), mode=0o700)


def _made(place: Path, *, mode: int) -> Path:
    if len(os.fsencode(place)) > _LONGEST:
        raise _no_folder(place, f"a socket's path has to be short: at most {_LONGEST} bytes for the folder")
    try:
        place.mkdir(mode=0o700)
        place.chmod(mode)  # whatever the umask
    except FileExistsError:
        pass
    except OSError as error:
        raise _no_folder(place, str(error)) from error
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _no_folder(place, "it is no folder")
    if found.st_uid not in {0, os.geteuid()}:
        raise _no_folder(place, f"it belongs to user {found.st_uid}, who could stop your builds")
    others = found.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    if others and not found.st_mode & stat.S_ISVTX:
        raise _no_folder(place, f"mode {stat.S_IMODE(found.st_mode):o}: everybody may remove what is in it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _no_folder(place, "it can't be written")
    return place


def _no_folder(place: Path, cause: str) -> HostError:
    return HostError(
        "gate-folder",
        f"{place} can't hold the gate's socket",
        cause=cause,
        help=f"let an admin make {MADE_BY_ADMIN} (mode 1777), or name a short folder of your own by {VARIABLE}",
        run=(f"ls -ld {place}", f"sudo install -d -m 1777 {MADE_BY_ADMIN}"),
    )


def program() -> Path | None:
    """Return the broker's program, which is installed beside this Python; None when it is lost."""
    found = proc.installed(PROGRAM)
    return Path(found) if found else None


def connect(place: Path) -> socket.socket | None:
    """Return a connection to the broker that lives in `place`, or None when none does."""
    try:
        name = _first_line(place / LOCK)
    except (OSError, UnicodeDecodeError):
        return None
    if not _SOCKET.fullmatch(name):  # just being written, or not the broker's
        return None
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        line.connect(str(place / name))
    except OSError:
        line.close()
        return None
    return line


def _first_line(file: Path) -> str:
    """Return a short file's text; a pipe or a device that somebody put there is none."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256).decode().strip() if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
    finally:
        os.close(descriptor)


def start(place: Path, *, file: Path | None = None, options: Sequence[str] = ()) -> None:
    """Leave a broker running in `place`, ours or one that somebody started at the same moment.

    It detaches itself and outlives this process. Raises HostError ``gate-lost`` when the program (`file`, else the installed
    one) is missing, ``gate-start`` when it doesn't start.
    """
    file = file or program()
    if file is None or not os.access(file, os.X_OK):
        raise HostError(
            "gate-lost",
            f"the program {file or PROGRAM} isn't there",
            cause="it is installed with spark-build, beside its Python",
            help="install spark-build again",
            run=("spark-build doctor",),
        )
    words = (str(file), "--folder", str(place), *options)
    # Its own memory is measured by nobody's environment, and no folder of ours is kept busy.
    done = proc.capture(words, env={"PATH": os.defpath, "LANG": "C.UTF-8"}, cwd=Path("/"), timeout_s=START_S)
    if not done.ok and not _alive(place):
        raise HostError(
            "gate-start",
            "the gate's broker doesn't start",
            cause=(done.err or done.out).strip() or f"ended with {done.code}",
            run=(" ".join((str(file), "--folder", str(place), "--foreground")),),
        )


def reach(place: Path, *, file: Path | None = None, options: Sequence[str] = ()) -> socket.socket:
    """Return a connection to the broker in `place`, started when none lives; raise HostError as `start` does."""
    if line := connect(place):
        return line
    start(place, file=file, options=options)
    limit = time.monotonic() + START_S
    while True:
        if line := connect(place):
            return line
        if time.monotonic() > limit:
            raise HostError(
                "gate-start",
                "the gate's broker started and can't be reached",
                cause=f"{place / LOCK} names no socket that answers",
                run=(f"ls -l {place}",),
            )
        time.sleep(_LOOK_S)


def _alive(place: Path) -> bool:
    """Whether a broker answers; another process may have started one a moment before ours."""
    limit = time.monotonic() + 1.0
    while time.monotonic() < limit:
        if line := connect(place):
            with contextlib.closing(line):
                return True
        time.sleep(_LOOK_S)
    return False
