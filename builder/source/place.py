"""Where sources are kept and how the outside is reached."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from _thread import get_native_id  # `threading` is felt at every start
from typing import TYPE_CHECKING

from builder.errors import HostError, scrubbed
from builder.events import Waiting
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.events import Sink

__all__ = ["Sources", "locked", "refusals", "revealed", "without_credentials", "without_login", "write_atomic"]

#: URLs that were shown without their secrets, and as they were given: what is asked later in this process needs them.
_GIVEN: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`root` holds bare mirrors (``git/``), archives by digest (``files/``) and what is known of releases (``sdists/``).

    `mirrors` maps URL prefixes to what is asked instead, longest first. `recipe` is the word that commands in error texts
    name.
    """

    root: Path
    mirrors: tuple[tuple[str, str], ...]
    index_url: str | None
    offline: bool
    env: Mapping[str, str]
    clock: Callable[[], float]
    sink: Sink
    recipe: str = "NAME"

    def mirrored(self, url: str) -> str:
        """Return what is asked for `url`: its mirror where one is configured. A folder becomes a ``file:`` URL.

        Credentials in `url` are for its own host, and never sent to a mirror.
        """
        plain = without_credentials(url)
        for prefix, to in self.mirrors:
            if _repository(plain) == _repository(prefix):
                return _located(to)
            stem = prefix if prefix.endswith(("/", ":")) else prefix + "/"
            if plain.startswith(stem):
                return _located(f"{to.rstrip('/')}/{plain.removeprefix(stem)}")
        return url


def _repository(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def _located(target: str) -> str:
    """Return `target` as a URL; for a folder that lacks (or has) ``.git`` in its name, the one that is there."""
    if not target.startswith("/"):
        return target
    from urllib.parse import quote, unquote  # noqa: PLC0415

    plain = unquote(target)
    for path in (plain, plain.removesuffix(".git"), plain + ".git"):
        if os.path.exists(path):  # noqa: PTH110  # text in, text out
            return "file://" + quote(path)
    return "file://" + quote(plain)


def without_credentials(url: str) -> str:
    """Return `url` without its secrets, as it may be shown and kept."""
    shown = scrubbed(without_login(url))
    if shown != url:
        _GIVEN[shown] = url
    return shown


def revealed(shown: str) -> str:
    """Return the URL as it was given to this process, for a request; never to be shown or kept."""
    return _GIVEN.get(shown, shown)


def without_login(url: str) -> str:
    """Return `url` without the login before its host; an SSH user is none (``ssh://git@host``)."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    kept = user.partition(":")[0] + at if scheme == "ssh" else ""
    return f"{scheme}://{kept}{name}{slash}{path}"


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside and rename, so that no reader ever sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{get_native_id()}")
    beside.write_bytes(data)
    beside.replace(path)


@contextlib.contextmanager
def locked(path: Path, sources: Sources, *, what: str) -> Iterator[int]:
    """Hold the lock file `path`, and yield it for a child to hold, too; the sink is told when another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sources.sink.emit(Waiting(what=what, holder="another fetch"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what a file system refuses into HostError ``unwritable`` or ``disk-full``."""
    try:
        yield
    except OSError as error:
        place = error.filename or "the sources' folder"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            summary = f"no space left at {place}"
            raise HostError("disk-full", summary, cause=str(error), run=("spark-build gc",)) from error
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise HostError(
            "unwritable",
            f"{place} can't be used",
            cause=str(error),
            help="[sources] cache in the configuration names another folder for sources",
            run=(f"ls -ld {place}",) if error.filename else (),
        ) from error
