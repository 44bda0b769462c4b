"""A build under the gate: its place at the broker, its compile cache, and the environment that leads compilers to both."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.events import Note, UnitEnded
from builder.gate import ccache, hooks, relay, session
from builder.gate.history import History
from builder.pipeline.attempt import Account
from builder.recipe import find
from builder.recipe.units import parse_bytes, parse_seconds, show_bytes, show_seconds
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.events import Event, Sink
    from builder.gate.session import Session
    from builder.pipeline.attempt import Attempt
    from builder.pipeline.world import World
    from builder.recipe.model import Output
    from builder.stages import Built

__all__ = ["Gate", "account", "history", "opened", "told"]

#: What units took, in the wheelhouse.
_HISTORY = "units.sqlite3"

#: ninja and CMake's other generators say how far they are.
_EDGES = re.compile(r"\[\s*(\d+)/(\d+)\]")
_PERCENT = re.compile(r"\[\s*(\d+)%\]")

#: How long the record of a failed unit is waited for.
_RECORD_S = 0.5

#: What a saving has to be, so that it is told: a build of a few seconds has none worth a line.
_WORTH_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """An open place at the gate. `ended` takes what units the build ended."""

    session: Session
    variables: Mapping[str, str]
    log: Path
    ended: list[UnitEnded]

    @property
    def sink(self) -> Sink:
        """Where the build's own events go, since another thread emits, too."""
        return self.session.sink

    def units(self) -> Sequence[UnitEnded]:
        """Return the units that ended so far; waits a moment for a failed one, whose record may be on its way."""
        limit = time.monotonic() + _RECORD_S
        while all(unit.ok for unit in self.ended) and time.monotonic() < limit:
            time.sleep(0.02)
        return tuple(self.ended)

    def heard(self, text: str) -> None:
        """Take a line that the build printed: how far the build tool is."""
        if found := _EDGES.match(text):
            self.session.progress(int(found[1]), int(found[2]))
        elif found := _PERCENT.match(text):
            self.session.progress(int(found[1]), 100)


class Noting:
    """A sink that passes all on to `sink` and keeps the units that ended."""

    def __init__(self, sink: Sink) -> None:
        self.ended: list[UnitEnded] = []
        self._sink = sink

    def emit(self, event: Event) -> None:
        """Pass `event` on."""
        if isinstance(event, UnitEnded):
            self.ended.append(event)
        self._sink.emit(event)


@contextlib.contextmanager
def opened(attempt: Attempt, output: Output, env: Mapping[str, str]) -> Iterator[Gate]:
    """Give one output's build its place at the gate; `env` is its environment as it would be without one.

    Raises MemoryStopped at the end of the block when the memory policy ended the build, whatever the block raised.
    """
    one, world, space = attempt.one, attempt.world, attempt.space
    log = space.logs / f"ccache-{output.name}.log"
    with contextlib.ExitStack() as held:
        cache, program = _cache(attempt, log, held)
        noting = Noting(attempt.sink)
        place = held.enter_context(session.opened(_terms(attempt, noting, log)))
        world.controls.target = place
        held.callback(setattr, world.controls, "target", None)
        links = space.root / "gate"
        names = hooks.compilers([Path(folder) for folder in _outside(env["PATH"], attempt)])
        hooks.make_links(links, Path(sysconfig.get_path("scripts")) / hooks.PROGRAM, names)
        recipe = one.loaded.recipe
        wanted = {**recipe.build.env, **output.env, **world.config.build.get("env", {}), **one.request.env}
        terms = hooks.Terms(
            gate=place.folder or space.inside / "gate",
            build=place.env[session.BUILD],
            root=space.inside,
            links=space.inside / "gate",
            env=env,
            cores=one.plan.host.cores,
            slots=hooks.fallback_slots(one.plan.host.memory_bytes, one.plan.jobs),
            hook=recipe.build.hook,
            jobs_env=[name for name in recipe.build.jobs_env if name not in wanted],
            ccache=program,
            cache=cache,
        )
        try:
            yield Gate(session=place, variables=hooks.variables(terms), log=log, ended=noting.ended)
        except BaseException:
            if place.stopped is not None:
                raise place.stopped from None
            raise
        if place.stopped is not None:
            raise place.stopped


def _terms(attempt: Attempt, sink: Sink, log: Path) -> session.Terms:
    one, world = attempt.one, attempt.world
    resources, config = one.loaded.recipe.resources, world.config.build
    hints, plain = session.expected(resources)
    fingerprint = one.plan.inputs.fingerprint
    return session.Terms(
        recipe=one.plan.recipe,
        build=session.build_id(fingerprint, attempt.space.attempt),
        history=world.house.root / _HISTORY,
        sink=sink,
        clock=world.clock,
        version=one.plan.pin.version or one.plan.pin.commit or "",
        toolchain=ccache.namespace(one.plan.host, one.torch),
        recipe_folders=[layer.recipes for layer in find.folders(world.config.recipe_layers)],
        hints=hints,
        plain=plain,
        memory_bytes=one.request.memory_bytes or _size(config.get("memory")),
        reserve_bytes=one.request.reserve_bytes or _size(config.get("reserve")),
        jobs=one.plan.jobs,
        hang_ms=1000 * parse_seconds(resources.unit_timeout) if resources.unit_timeout else 0,
        hits=lambda: ccache.statistics(log).hits,
        resume=(f"spark-build resume {fingerprint[:10]}",),
        env=world.env,
    )


def _size(text: str | None) -> int:
    return parse_bytes(text) if text else 0


def _outside(path: str, attempt: Attempt) -> list[str]:
    """Return the folders of PATH as they are seen outside the build."""
    inside, root = str(attempt.space.inside), str(attempt.space.root)
    return [
        root + folder[len(inside) :] if folder.startswith(inside + "/") else folder for folder in path.split(os.pathsep)
    ]


def _cache(attempt: Attempt, log: Path, held: contextlib.ExitStack) -> tuple[Mapping[str, str], Path | None]:
    """Return the compile cache's variables and program; None where there is to be none."""
    one, world, space = attempt.one, attempt.world, attempt.space
    config = world.config.compile_cache
    choice = ccache.choose(one.request.compile_cache or config.get("url"))
    if choice.off:
        return {}, None
    try:
        program = ccache.program()
    except HostError as error:
        attempt.sink.emit(Note(level="warning", text=f"no compile cache: {error.summary}"))
        return {}, None
    if program is None:
        attempt.sink.emit(Note(level="warning", text="no compile cache: ccache isn't installed beside spark-build"))
        return {}, None
    folder = Path(config["path"]).expanduser() if "path" in config else world.config.sources / "ccache"
    if trouble := _unusable(folder):
        attempt.sink.emit(Note(level="warning", text=f"no compile cache: {trouble}"))
        return {}, None
    remote = _remote(attempt, choice.url, held) if choice.url else None
    settings = ccache.Settings(
        folder=folder.resolve(),
        namespace=ccache.namespace(one.plan.host, one.torch),
        root=space.inside,
        fixed=attempt.level.fixed_path,
        launcher=space.inside / "gate" / hooks.PROGRAM,
        log=space.inside / log.relative_to(space.root),
        max_bytes=parse_bytes(config["size"]) if "size" in config else ccache.MAX_BYTES,
        remote=remote,
    )
    return ccache.variables(settings), program


def _unusable(folder: Path) -> str:
    """Return why nothing can be kept in `folder`, which is made; empty when it can: a cache that fails, fails compiles."""
    try:
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "tmp"):
            return ""
    except OSError as error:
        return f"{folder}: {error.strerror or error}"


def _remote(attempt: Attempt, url: str, held: contextlib.ExitStack) -> str:
    """Return where ccache finds the shared store while the build runs."""
    if url.startswith("file:"):
        return url
    space, token = attempt.space, attempt.world.env.get("SPARK_BUILD_CACHE_TOKEN")
    passing = held.enter_context(relay.Relay(url, root=space.root, inside=space.inside, token=token))
    held.callback(_tell_failed, passing, attempt.sink)
    return passing.storage


def _tell_failed(passing: relay.Relay, sink: Sink) -> None:
    """Say at the end that the shared store didn't do its part; the build did without."""
    served = passing.served()
    if served.failed:
        text = f"the shared compile cache failed {served.failed} times: {served.reason}"
        sink.emit(Note(level="warning", text=text))


def history(world: World) -> History:
    """Return what units took, as the wheelhouse has it."""
    return History(world.house.root / _HISTORY, sink=world.sink, clock=world.clock)


def account(gate: Gate, built: Built) -> Account:
    """Return what the gate did for an output, once its place is given up."""
    summary = gate.session.summary
    return Account(
        gate=summary, cache=ccache.statistics(gate.log), peak_bytes=max(summary.peak_bytes, built.peak_bytes)
    )


def told(account: Account) -> list[str]:
    """Return what is worth saying of it at the end of a build."""
    summary, parts = account.gate, []
    if summary.units:
        parts.append(f"{summary.units} unit{'s' if summary.units > 1 else ''}")
    if account.cache.hits:
        parts.append(f"{account.cache.hits} from the compile cache")
    if summary.peak_bytes:
        parts.append(f"peak {show_bytes(summary.peak_bytes)}")
    if summary.requeues or summary.kernel_kills:
        parts.append(f"{summary.requeues + summary.kernel_kills} run again for memory")
    if summary.waited_s >= 1:
        parts.append(f"waited {show_seconds(summary.waited_s)} for memory")
    if summary.saved_s >= _WORTH_S:
        parts.append(f"MAX_JOBS=4 would have taken {show_seconds(summary.saved_s)} more")
    return parts
