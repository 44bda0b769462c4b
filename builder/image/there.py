"""The other side of ``ship``: a machine that is asked over ssh what it has.

ssh(1) is the user's own, with its configuration, keys and agent. It can ask nothing (``BatchMode``), since several hosts are
served at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import proc
from builder.errors import HostError
from builder.image.words import image_of, named
from builder.recipe.units import show_bytes
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.image.engine import Image

__all__ = ["UNCONNECTED", "There", "ask", "fits", "last_lines", "ssh", "unconnected"]

#: Seconds for a connection, and for a question on the other side: a daemon there may just be starting.
_CONNECT_S, _QUESTION_S = 15, 120.0

#: A connection on which nothing comes back for a minute is broken.
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(_CONNECT_S),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}

#: What ssh(1) itself ends with when it can't connect, or isn't connected any more.
UNCONNECTED = 255

#: An unpacked image is a little larger than its layers, and a disk that is full to the last byte helps nobody.
_ROOM = 1.05

#: Before this line may stand what the other side's shell says to everybody.
_MARK = "spark-build-ship"

#: What a POSIX shell reads from stdin there. An image `$1`, where there is one, gets the name `$2`.
_SCRIPT = """
asked() {
  engine= ; said=
  for one in docker podman; do
    if ! command -v $one >/dev/null 2>&1; then said="$said$one: not installed; "
    elif why=$($one image ls -q 2>&1 >/dev/null); then engine=$one; break
    else said="$said$one: $why; "; fi
  done
  echo "$3"
  echo "engine $engine"
  echo "said $said" | tr '\\n' ' '; echo
  echo "machine $(uname -m)"
  [ -n "$engine" ] || return 0
  case $engine in
    docker) place=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) ;;
    podman) place=$(podman info --format '{{.Store.GraphRoot}}' 2>/dev/null) ;;
  esac
  echo "room $(df -Pk "$place" 2>/dev/null | tail -n 1)"
  $engine tag "$1" "$2" >/dev/null 2>&1 || true
  echo image
  $engine image inspect "$2" 2>/dev/null || true
}
asked "$@" </dev/null
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What a host said: its engine, or why it has none; room in bytes where that is known; what has the image's name."""

    engine: str
    said: str
    machine: str
    room: int | None
    image: Image | None


def ssh(host: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs `words` on `host`."""
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    return ("ssh", *options, "--", host, *words)


def ask(host: str, known: str, tag: str, env: Mapping[str, str]) -> There:
    """Return what a host says; raise HostError ``ship-connection``, ``ship-shell``."""
    words = ("sh", "-s", "--", named(known), named(tag), _MARK)
    done = proc.capture(ssh(host, *words), env=env, stdin=_SCRIPT.encode(), timeout_s=_QUESTION_S)
    if done.code == UNCONNECTED:
        raise unconnected(host, done.err)
    _, mark, answer = done.out.partition(f"{_MARK}\n")
    if not mark:
        raise HostError(
            "ship-shell",
            f"{host} gives no shell",
            cause=last_lines(done.err) or f"ssh ended with {done.code}",
            help="the account there needs a shell that runs `sh -s`",
            run=(f"ssh {host} sh -c true",),
        )
    about, _, inspected = answer.partition("image\n")
    rows = dict(line.split(" ", 1) for line in about.splitlines() if " " in line)
    return There(
        engine=rows.get("engine", "").strip(),
        said=rows.get("said", "").strip(" ;"),
        machine=rows.get("machine", "").strip(),
        room=_room(rows.get("room", "")),
        image=image_of(inspected, tag) if "{" in inspected else None,  # without one, Docker prints an empty list
    )


def _room(row: str) -> int | None:
    """Return the bytes that df(1) says are free: the fourth column of POSIX, in KiB."""
    columns = row.split()
    return int(columns[3]) << 10 if len(columns) > 4 and columns[3].isdigit() else None  # noqa: PLR2004  # as above


def fits(there: There, image: Image, host: str) -> None:
    """Refuse a host that can't run or hold the image."""
    if not there.engine:
        raise HostError(
            "ship-engine",
            f"{host} has no engine that loads images",
            cause=there.said,
            help="install Docker or Podman there; for Docker the account has to be in the group docker",
            run=(f"ssh {host} docker version",),
        )
    if there.machine != image.machine:
        raise HostError(
            "ship-machine",
            f"{host} is {there.machine}, the image is for {image.machine}",
            help="build it for that machine: spark-build image --platform",
        )
    if there.image is None or not there.image.same(image):
        need = int(image.size * _ROOM)
        if there.room is not None and there.room < need:
            raise HostError(
                "ship-disk",
                f"{host} has room for {show_bytes(there.room)}, the image needs {show_bytes(need)}",
                help="remove images there that nobody uses",
                run=(f"ssh {host} {there.engine} image prune",),
            )


def unconnected(host: str, said: str, how_far: str = "") -> HostError:
    """Return the error for a connection that there isn't, or that ended when it was `how_far`."""
    return HostError(
        "ship-connection",
        f"the connection to {host} broke {how_far}" if how_far else f"{host} can't be reached by ssh",
        cause=last_lines(said),
        help="ssh may ask nothing here: the host's key has to be known, and yours in an agent or without a passphrase",
        run=(f"ssh -o BatchMode=yes {host} true",),
    )


def last_lines(text: str) -> str:
    """Return the end of what a program said."""
    return "\n".join(text.strip().splitlines()[-3:])
