"""Bringing an image to other machines: streamed over ssh into the Docker or Podman that is there, without a registry.

Each host is asked first what it has. An image that is there isn't sent, whatever it is called there; one for another machine
or without room for it isn't begun. Afterwards the host is asked again: what the name stands for has to be what was sent.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from builder import proc
from builder.errors import CheckRefused, HostError, SparkError, UsageError
from builder.image.there import UNCONNECTED, ask, fits, last_lines, ssh, unconnected
from builder.recipe.units import show_bytes
from builder.ui.beat import begin
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.image.engine import Engine, Image

__all__ = ["Failed", "Progress", "Shipped", "Told", "error", "hosts_of", "ship"]

#: What ssh takes for a host and no shell for anything else; it may not begin as an option does.
_HOST = re.compile(r"[A-Za-z0-9_\[][\w.:@%/\[\]-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How far one host is; bytes. `total` is the image's size, which the archive is near to."""

    host: str
    sent: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """`host` has the image in `engine`; `sent` bytes went there in `seconds`, none when it was `there` before."""

    host: str
    engine: str
    sent: int
    seconds: float
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """`host` doesn't have it, and why."""

    host: str
    error: SparkError


class _Stopped(Exception):  # no error of anybody: the caller was interrupted
    """Ends what the other threads do."""


def hosts_of(words: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts of `words`, each once; raise UsageError ``ship-host`` for what ssh would take for something else."""
    for word in words:
        if not _HOST.fullmatch(word):
            raise UsageError(
                "ship-host",
                f"{word!r} can't be the name of a host",
                help="as ssh knows it: spark2, user@spark2, ssh://user@spark2:2222, or a name of ~/.ssh/config",
            )
    return tuple(dict.fromkeys(words))


def ship(
    engine: Engine, tag: str, hosts: Sequence[str], *, env: Mapping[str, str], tell: Callable[[Told], None]
) -> tuple[Shipped | Failed, ...]:
    """Bring `tag` to all `hosts` at once and return how it went at each, in their order; one that fails holds no other up.

    `tell` is called by several threads. Raises UsageError ``ship-host``, ``image-missing``; what interrupts this thread ends
    all transfers.
    """
    hosts = hosts_of(hosts)
    image = engine.inspect(tag)
    work = _Work(engine, image, tag, env, tell)
    threads = [threading.Thread(target=work, args=(host,), name=f"ship {host}", daemon=True) for host in hosts]
    try:
        for thread in threads:
            begin(thread)
        for thread in threads:
            thread.join()
    except BaseException:
        work.stop.set()
        for thread in threads:
            thread.join(proc.GRACE_S)
        raise
    return tuple(work.outcome(host) for host in hosts)


class _Work:
    """What all threads share; called with a host it does all for that one."""

    def __init__(
        self, engine: Engine, image: Image, tag: str, env: Mapping[str, str], tell: Callable[[Told], None]
    ) -> None:
        self.stop = threading.Event()
        self._engine, self._image, self._tag, self._env, self._tell = engine, image, tag, env, tell
        self._found: dict[str, Shipped | BaseException] = {}

    def __call__(self, host: str) -> None:
        def on(sent: int) -> None:
            if self.stop.is_set():
                raise _Stopped
            self._tell(Told(host=host, sent=sent, total=self._image.size))

        try:
            self._found[host] = _bring(self._engine, self._image, self._tag, host, self._env, on)
        except BaseException as error:  # noqa: BLE001  # raised where the outcome is asked for
            self._found[host] = error

    def outcome(self, host: str) -> Shipped | Failed:
        """Return how it went; raise what is no fault of the host's."""
        found = self._found[host]
        if isinstance(found, SparkError):
            return Failed(host=host, error=found)
        if isinstance(found, BaseException):
            raise found
        return found


class Progress:
    """One line about all hosts out of what `ship` tells: bytes, rate, and how many are done."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write, self._clock, self._began = write, clock, clock()
        self._lock = threading.Lock()
        self._of: dict[str, Told] = {}

    def __call__(self, now: Told) -> None:
        """Take in how far a host is."""
        with self._lock:
            self._of[now.host] = now
            sent, total = (sum(getattr(one, name) for one in self._of.values()) for name in ("sent", "total"))
            rate = sent / max(self._clock() - self._began, 0.001)
            to = now.host if len(self._of) == 1 else f"{len(self._of)} hosts"
            self._write(f"to {to}: {show_bytes(sent)} of about {show_bytes(total)}, {show_bytes(int(rate))}/s")


def error(tag: str, outcomes: Sequence[Shipped | Failed]) -> SparkError | None:
    """Return the error for hosts that don't have `tag`: that of the one, or one for several; None when all have it."""
    failed = [one for one in outcomes if isinstance(one, Failed)]
    if len(failed) <= 1:
        return failed[0].error if failed else None
    return HostError(
        "ship",
        f"{len(failed)} of {len(outcomes)} hosts don't have {tag}",
        cause="\n".join(f"{one.error.summary}\n{one.error.cause}".strip() for one in failed),
        help="run the same again when the causes are mended: an image that is there isn't sent twice",
    )


def _bring(
    engine: Engine, image: Image, tag: str, host: str, env: Mapping[str, str], tell: Callable[[int], None]
) -> Shipped:
    there = ask(host, image.id, tag, env)
    fits(there, image, host)
    if there.image and there.image.same(image):
        return Shipped(host=host, engine=there.engine, sent=0, seconds=0.0, there=True)
    sent, began = 0, time.monotonic()

    def on(passed: int) -> None:
        nonlocal sent
        sent = passed
        tell(passed)

    source, sink = proc.piped(engine.save(tag), ssh(host, there.engine, "load"), env=env, tell=on)
    seconds = time.monotonic() - began
    if not sink.ok or source.code > 0:
        raise _cut_short(host, there.engine, source, sink, sent, image.size)
    now = ask(host, _loaded(sink.out) or image.id, tag, env)
    if now.image is None or not now.image.same(image):
        raise CheckRefused(
            "ship-image",
            f"{host} has another image as {tag} than was sent",
            cause=f"{image.id[:12]} was sent, {now.image.id[:12] if now.image else 'nothing'} is there",
            help="somebody else loads or builds the same name there; send it again",
        )
    return Shipped(host=host, engine=there.engine, sent=sent, seconds=seconds, there=False)


def _loaded(text: str) -> str:
    """Return what the engine calls the image that it loaded, in the words of every version."""
    found = re.findall(r"^Loaded image(?:\(s\)| ID)?: *(\S+)$", text, re.MULTILINE)
    return str(found[-1]).removeprefix("sha256:") if found else ""


def _cut_short(host: str, engine: str, source: proc.Finished, sink: proc.Finished, sent: int, total: int) -> HostError:
    how_far = f"after {show_bytes(sent)} of about {show_bytes(total)}"
    if sink.code == UNCONNECTED:
        return unconnected(host, sink.err, how_far)
    if source.code > 0:
        return HostError("ship-save", f"the image can't be read any more, {how_far}", cause=last_lines(source.err))
    return HostError(
        "ship-load",
        f"{engine} on {host} didn't take the image, {how_far}",
        cause=last_lines(sink.err or sink.out) or f"it ended with {sink.code}",
        run=(f"ssh {host} {engine} system df",),
    )
