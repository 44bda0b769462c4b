"""A build's place at the gate: opened before its first compiler, closed after its last one.

A thread reads what the broker tells, keeps what units took, and passes it on as events. The build never depends on it: a
broker that dies is started again while the launchers go on with what runs, and where none can be had the build goes on with
the launchers' own limit.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.events import Note
from builder.gate import packets, place, seeds, verdicts
from builder.gate.history import History
from builder.gate.tally import Tally
from builder.recipe.units import parse_bytes
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from builder.errors import MemoryStopped
    from builder.events import Event, Sink
    from builder.gate.seeds import Seed
    from builder.gate.tally import Summary
    from builder.recipe.model import Resources

__all__ = ["Guarded", "Session", "Terms", "build_id", "expected", "opened"]

#: The environment variables of `Session.env`.
GATE, BUILD = "SPARK_BUILD_GATE", "SPARK_BUILD_BUILD"

_ANSWER_S = 5.0
_QUIET_S = 0.05
_DRAIN_S = 1.0
_SCREEN_S = 0.25
_RETRY_S = (0.0, 0.1, 0.5, 2.0, 5.0)
_UNKNOWN_CU = 4 << 30


class Guarded:
    """A sink for several threads: events go to `sink` one at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        """Pass `event` on when no other thread does so."""
        with self._lock:
            self._sink.emit(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a build brings to the gate.

    `build` is its id, see `build_id`. `recipe_folders` may hold seeds, weakest first; `hints` and `plain` are those of
    `expected`. Caps are 0 for none. `hits` tells the compile cache's hits so far; it is asked at most once a second.
    `resume` is what to type when memory stopped the build. `clock` gives seconds since 1970. `env` may name the runtime
    folder; `broker` is the program, when it isn't the installed one, `options` are more words for it.
    """

    recipe: str
    build: str
    history: Path
    sink: Sink
    clock: Callable[[], float]
    version: str = ""
    toolchain: str = ""
    recipe_folders: Sequence[Path] = ()
    hints: Sequence[tuple[str, int]] = ()
    plain: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int = 0
    reserve_bytes: int = 0
    jobs: int = 0
    weight: int = 1
    hang_ms: int = 0
    pause_ms: int = 0
    hits: Callable[[], int] = lambda: 0
    resume: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    broker: Path | None = None
    options: tuple[str, ...] = ()


def build_id(fingerprint: str, attempt: int) -> str:
    """Return an id for one attempt, another one each time: a fingerprint may be built in two wheelhouses at once.

    What all attempts at a fingerprint share is its start, up to the last dash.
    """
    return f"{fingerprint[:12]}-{attempt}.{os.urandom(4).hex()}"


def expected(resources: Resources) -> tuple[tuple[tuple[str, int], ...], dict[str, int]]:
    """Return a recipe's hints, and its ordinary unit by kind, in bytes. A .cu that nobody knows is never an ordinary one."""
    ordinary = parse_bytes(resources.mem_per_job)
    plain = dict.fromkeys(("cxx", "c", "rust", "other"), ordinary)
    plain |= {"cu": max(ordinary, _UNKNOWN_CU), "link": parse_bytes(resources.link_mem)}
    return tuple((one.match, parse_bytes(one.mem)) for one in resources.classes), plain


@contextlib.contextmanager
def opened(terms: Terms) -> Iterator[Session]:
    """Give a build its place at the gate; at the end of the block the place is given up, and the summary stands.

    Where there is no gate to be had, a warning says why, and the session does nothing. While it is open, other threads emit
    through `Session.sink`. Raises what the sink raised in the thread, when nothing else was raised.
    """
    session = Session(terms)
    session.open()
    try:
        yield session
    except BaseException:
        session.close()
        raise
    session.close()
    if session.failure is not None:
        raise session.failure


class Session:
    """An open place at the gate, see `opened`."""

    def __init__(self, terms: Terms) -> None:
        self.sink = terms.sink if isinstance(terms.sink, Guarded) else Guarded(terms.sink)
        self.failure: OSError | ValueError | None = None
        self._terms = terms
        self._history = History(terms.history, sink=self.sink, clock=terms.clock)
        self._seeds: tuple[Seed, ...] = ()
        self._caps: dict[str, int] = {"jobs": terms.jobs, "memory": terms.memory_bytes, "paused": 0}
        self._folder: Path | None = None
        self._line: socket.socket | None = None
        self._lock = threading.Lock()
        self._tally = Tally(hits=terms.hits)
        self._stopped: MemoryStopped | None = None
        self._told_lost = False
        self._closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """The variables that lead the launchers here; without a gate only the build's id."""
        gate = {GATE: str(self._folder)} if self._folder else {}
        return gate | {BUILD: self._terms.build}

    @property
    def folder(self) -> Path | None:
        """The broker's runtime folder; None where there is no gate."""
        return self._folder

    @property
    def stopped(self) -> MemoryStopped | None:
        """Why the memory policy ended the build; None while it didn't."""
        return self._stopped

    @property
    def summary(self) -> Summary:
        """What the gate did for this build so far; all of it once the session is closed."""
        with self._lock:
            return self._tally.summary()

    def progress(self, done: int, total: int) -> None:
        """Note what the build tool says of its progress; screens get it with the next state, or now if none came lately."""
        with self._lock:
            self._tally.progress(done, total)
            state = self._tally.overdue(time.monotonic(), _SCREEN_S)
        if state is not None:
            self._emit(state)

    def change(self, *, jobs: int | None = None, memory_bytes: int | None = None, paused: bool | None = None) -> None:
        """Change the build's caps, 0 for none, or stop it from starting anything more for a while."""
        asked = {"jobs": jobs, "memory": memory_bytes, "paused": None if paused is None else int(paused)}
        told = {key: value for key, value in asked.items() if value is not None}
        with self._lock:
            self._caps |= told
            if self._line is not None and told:
                with contextlib.suppress(OSError):  # gone: the next one gets the caps when the build is opened there
                    self._line.send(packets.message("change", told))

    def open(self) -> None:
        """Open the build at the broker, started when there is none; or say why that can't be."""
        terms = self._terms
        self._seeds = seeds.find(terms.recipe, terms.recipe_folders, self.sink)
        self._tally.expect(self._history.estimate(terms.recipe, seeds=self._seeds).times)
        try:
            self._folder = place.folder(terms.env)
            self._connect()
        except HostError as error:
            self._folder = None
            text = f"no memory gate: {error.summary} ({error.cause}); compilers run few at a time instead"
            self._emit(Note(level="warning", text=text))
            return
        self._thread = threading.Thread(target=self._listen, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take what the broker has still to tell, and leave it."""
        self._closing.set()
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        with self._lock:
            if self._line is not None:
                self._line.close()
            self._line = None
        self._history.close()
        os.close(self._wake)

    def _connect(self) -> None:
        """Leave the build open at a broker; raise HostError when there is none, or none that takes it."""
        assert self._folder is not None  # noqa: S101  # set before
        line = place.reach(self._folder, file=self._terms.broker, options=self._terms.options)
        try:
            line.settimeout(_ANSWER_S)
            self._ask(line)
            verb, fields = packets.answer(line.recv(packets.LARGEST))
        except OSError as error:
            line.close()
            raise HostError("gate-silent", "the gate's broker doesn't answer", cause=str(error)) from error
        if verb != "open":
            line.close()
            cause = fields.get("text") or verb or "it closed the connection"
            raise HostError("gate-refused", "the gate's broker doesn't take this build", cause=cause)
        with self._lock:
            self._line = line
            self._tally.opened(fields)

    def _ask(self, line: socket.socket) -> None:
        terms = self._terms
        with self._lock:
            caps = dict(self._caps)
        fields = {
            "id": terms.build,
            "memory": caps["memory"],
            "reserve": terms.reserve_bytes,
            "jobs": caps["jobs"],
            "weight": terms.weight,
            "hang": terms.hang_ms,
            "pause": terms.pause_ms,
        }
        known = self._history.predictions(
            terms.recipe,
            hints=terms.hints,
            plain=terms.plain,
            seeds=self._seeds,
            toolchain=terms.toolchain,
            first=self._history.failed(terms.build.rpartition("-")[0] + "-"),
        )
        with _file(known) as descriptor:
            socket.send_fds(line, [packets.message("build", fields)], [descriptor])
        if caps["paused"]:
            line.send(packets.message("change", {"paused": 1}))

    def _listen(self) -> None:
        """Take packets until the session is closed and nothing more comes; open the build again when the broker is lost."""
        until: float | None = None
        while True:
            line = self._line
            if line is None:
                if not self._reopen():
                    return
                continue
            if self._closing.is_set():
                until = until or time.monotonic() + _DRAIN_S
            inputs: list[socket.socket | int] = [line] if until else [line, self._wake]
            ready, _out, _bad = select.select(inputs, [], [], _QUIET_S if until else None)
            if until and (line not in ready or time.monotonic() > until):
                return
            if line in ready and not self._take(line):
                with self._lock:
                    line.close()
                    self._line = None

    def _take(self, line: socket.socket) -> bool:
        """Take one packet; whether the broker is still there."""
        try:
            packet = line.recv(packets.LARGEST)
        except OSError:
            return False
        if packet:
            self._heed(*packets.parse(packet))
        return bool(packet)

    def _reopen(self) -> bool:
        """Open the build at a new broker, however long that takes; False when the session is closed before that."""
        for number in range(1 << 30):
            wait = _RETRY_S[min(number, len(_RETRY_S) - 1)]
            if self._closing.is_set() or self._closing.wait(wait):
                return False
            try:
                self._connect()
            except HostError as error:
                if number == len(_RETRY_S):
                    self._note(f"the gate's broker can't be started again: {error.summary} ({error.cause})")
            else:
                self._note("the gate's broker was lost; another one has taken over, and the build goes on")
                return True
        return False

    def _note(self, text: str) -> None:
        """Tell once that the broker was lost."""
        if not self._told_lost:
            self._told_lost = True
            self._emit(Note(level="warning", text=text))

    def _heed(self, what: str, raw: Mapping[str, Any]) -> None:
        if what == "state":
            with self._lock:
                state = self._tally.state(raw, time.monotonic())
            self._emit(state)
        elif what == "unit":
            self._end(raw)
        elif what == "requeue":
            event = packets.requeue_of(raw)
            with self._lock:
                self._tally.requeued(event)
            self._emit(event)
        elif what == "hung":
            self._emit(Note(level="warning", text=verdicts.hung(raw)))
        elif what == "fail" and self._stopped is None:
            self._stopped = verdicts.stopped(raw, self._terms.resume)

    def _end(self, raw: Mapping[str, Any]) -> None:
        terms = self._terms
        run = packets.run_of(
            raw,
            recipe=terms.recipe,
            toolchain=terms.toolchain,
            version=terms.version,
            build=terms.build,
            time=int(terms.clock()),
        )
        if run.unit.source or run.unit.object:
            self._history.record(run)
        event = packets.end_of(raw)
        with self._lock:
            self._tally.ended(run, event, time.monotonic())
        self._emit(event)

    def _emit(self, event: Event) -> None:
        """Pass an event on. A screen or a file that fails is told at the end: the thread has to go on reading."""
        try:
            self.sink.emit(event)
        except (OSError, ValueError) as error:
            self.failure = self.failure or error


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[int]:
    """Give a descriptor of a file without a name that holds `data`, at its start."""
    descriptor = os.memfd_create("spark-build-predictions", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
