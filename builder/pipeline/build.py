"""From a plan to wheels in the wheelhouse: one lock, one workspace, phases in order, one publish."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder import buildenv, digest, history, patches, source
from builder.errors import BuildFailed, Interrupted, SparkError
from builder.events import (
    BuildEnded,
    BuildStarted,
    JsonLines,
    Note,
    PhaseEnded,
    PhaseStarted,
    Printed,
    Stored,
    Tee,
    Waiting,
)
from builder.executor import environment, isolation, run, workspace
from builder.pipeline import evaluate as evaluation
from builder.pipeline import resolve
from builder.recipe.units import parse_seconds
from builder.wheel import label, pack, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder import stages
    from builder.events import PhaseName, Sink
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.recipe.model import Output

__all__ = ["build"]

#: How often a backend may ask for more requirements before this is called a loop.
ROUNDS = 3


class _AskedForMore(Exception):  # a turn of the loop, not an error
    """The backend wants requirements that the lock doesn't hold; they are remembered by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One attempt at one evaluation."""

    one: Evaluation
    world: World
    space: stages.Workspace
    sink: Sink
    level: isolation.Isolation


def build(one: Evaluation, world: World, *, force: bool = False) -> tuple[Evaluation, tuple[stages.Stored, ...]]:
    """Build what the plan misses, publish all of it at once, and return every wheel of the plan.

    The evaluation comes back too: it is another one where the backend asked for requirements that nobody had named, since
    they belong to the inputs. Waits while another process builds the same fingerprint, and then takes its wheels.

    Raises BuildFailed, CheckRefused, HostError, SourceError, PatchDrift or Interrupted; the workspace is kept then.
    """
    for _round in range(ROUNDS):
        try:
            return one, _build_once(one, world, force=force)
        except _AskedForMore:
            one = evaluation.evaluate(one.request, world)
    summary = f"the backend of {one.plan.recipe} asks for other requirements each time"
    raise BuildFailed("requires-loop", summary, help="name them in build.requires-add of the recipe")


def _build_once(one: Evaluation, world: World, *, force: bool) -> tuple[stages.Stored, ...]:
    house, plan = world.house, one.plan
    fingerprint = plan.inputs.fingerprint
    level = isolation.probe(world.env, cache=world.cache, wanted=one.request.isolation)
    with contextlib.ExitStack() as held:
        held.enter_context(
            house.build_lock(fingerprint, on_wait=_waiting(world.sink, f"the same build of {plan.recipe}"))
        )
        if not level.fixed_path:
            on_wait = _waiting(world.sink, f"another build of {plan.recipe} (no fixed path here)")
            held.enter_context(house.recipe_lock(plan.recipe, on_wait=on_wait))
        names = {output.name for output in one.outputs}
        found = tuple(wheel for wheel in house.find(fingerprint) if wheel.output in names)
        if not force and len(found) == len(names):
            return found
        workspace.require_space(world.builds, plan.disk_bytes)
        space = workspace.open(world.builds, fingerprint, plan.recipe, fixed=level.fixed_path)
        with _recorded(one, world, space, level) as attempt:
            return _perform(attempt, force=force)


def _waiting(sink: Sink, what: str):  # noqa: ANN202  # a callback
    return lambda holder: sink.emit(Waiting(what=what, holder=holder))


@contextlib.contextmanager
def _recorded(one: Evaluation, world: World, space: stages.Workspace, level: isolation.Isolation) -> Iterator[_Run]:
    """Keep the events of an attempt in its workspace, and its end in the history."""
    plan, started = one.plan, time.monotonic()
    space.logs.mkdir(parents=True, exist_ok=True)
    (space.logs / "inputs.json").write_bytes(digest.canonical_json(dict(plan.inputs.document)))
    with (space.logs / "events.jsonl").open("a") as stream:
        lines = JsonLines(stream, build=plan.inputs.fingerprint[:12], clock=world.clock)
        sink = Tee(lines, world.sink)
        sink.emit(
            BuildStarted(
                recipe=plan.recipe,
                version=plan.pin.version or "",
                fingerprint=plan.inputs.fingerprint,
                label=plan.label,
                outputs=plan.misses,
                attempt=space.attempt,
                isolation=level.level,
            )
        )
        status, code, summary = "failed", "bug", ""
        try:
            yield _Run(one=one, world=world, space=space, sink=sink, level=level)
            status, code = "ok", None
        except _AskedForMore:
            status, code, summary = "interrupted", None, "planned again with what the backend asked for"
            raise
        except SparkError as error:
            status, code, summary = (
                "interrupted" if isinstance(error, Interrupted) else "failed",
                error.code,
                error.summary,
            )
            raise
        finally:
            elapsed = int((time.monotonic() - started) * 1000)
            sink.emit(BuildEnded(status=status, ms=elapsed, code=code, summary=summary))
            shutil.rmtree(space.root / "tmp", ignore_errors=True)


@contextlib.contextmanager
def _phase(attempt: _Run, name: PhaseName, output: str | None = None, *, log: bool = False) -> Iterator[list[str]]:
    """Emit the phase's start and end; what is appended to the list becomes the end's text."""
    path = str(attempt.space.logs / f"{name}.log") if log else None
    attempt.sink.emit(PhaseStarted(phase=name, output=output, log=path))
    started, text, status = time.monotonic(), [], "failed"
    try:
        yield text
        status = "ok"
    except Interrupted:
        status = "interrupted"
        raise
    finally:
        elapsed = int((time.monotonic() - started) * 1000)
        attempt.sink.emit(PhaseEnded(phase=name, output=output, status=status, ms=elapsed, text="; ".join(text)))
        if name == "build":
            past = history.Past(
                recipe=attempt.one.plan.recipe,
                output=output or "",
                phase=name,
                ms=elapsed,
                peak_bytes=None,
                status=status,
                when=attempt.world.clock(),
                fingerprint=attempt.one.plan.inputs.fingerprint,
                host=attempt.one.plan.host.machine,
            )
            history.record(attempt.world.house.root / "history.sqlite3", past)


def _perform(attempt: _Run, *, force: bool) -> tuple[stages.Stored, ...]:
    one, world, space = attempt.one, attempt.world, attempt.space
    _prepare_tree(attempt)
    built = []
    for output, lock in zip(one.outputs, one.locks, strict=True):
        _prepare_environment(attempt, lock)
        built.append(_build_output(attempt, output, lock))
    wheels = _finish(attempt, built)
    with _phase(attempt, "audit") as text:
        for wheel in wheels:
            read.check(wheel.path)
        text.append(f"{len(wheels)} wheel(s): RECORD, names and paths hold")
    with _phase(attempt, "publish") as text:
        stored = world.house.publish(
            wheels,
            fingerprint=one.plan.inputs.fingerprint,
            recipe=one.plan.recipe,
            inputs=one.plan.inputs.document,
            provenance=_provenance(attempt, wheels),
        )
        text.append(", ".join(wheel.filename for wheel in stored))
    for wheel in stored:
        attempt.sink.emit(Stored(output=wheel.output, path=str(wheel.path), sha256=wheel.sha256, size=wheel.size))
    workspace.finish(space)
    return stored


def _prepare_tree(attempt: _Run) -> None:
    """Leave the pinned, patched tree in the workspace; one that is there from an earlier attempt is taken as it is."""
    one, space = attempt.one, attempt.space
    if workspace.done(space, "patch"):
        return
    sources = attempt.world.sources(offline=one.request.offline)
    with _phase(attempt, "fetch") as text:
        fetched = source.fetch(one.plan.pin, sources)
        text.append(f"{fetched} bytes" if fetched else "at hand")
        shutil.rmtree(space.src, ignore_errors=True)
        source.materialize(one.plan.pin, space.src, sources)
    with _phase(attempt, "patch") as text:
        patches.apply(one.patches, space.src, env=attempt.world.env)
        text.append(", ".join(patch.id for patch in one.patches) or "none")
        workspace.mark(space, "patch")


def _prepare_environment(attempt: _Run, lock: stages.EnvLock) -> None:
    """Leave the locked build environment of one output in the workspace."""
    one, world, space = attempt.one, attempt.world, attempt.space
    with _phase(attempt, "env", lock.output, log=True) as text:
        buildenv.create(
            lock,
            space.venv / lock.output,
            inside=space.inside / "venv" / lock.output,
            python=one.plan.host.interpreter.path,
            index_url=world.config.index_url,
            env=world.env,
            offline=one.request.offline,
            log=space.logs / "env.log",
            on_line=lambda line: attempt.sink.emit(Printed(phase="env", text=line)),
        )
        text.append(f"{len(lock.packages)} packages from the lock")


def _build_output(attempt: _Run, output: Output, lock: stages.EnvLock) -> stages.Built:
    one, space, plan = attempt.one, attempt.space, attempt.one.plan
    recipe = one.loaded.recipe
    env = environment.make(
        space,
        output=output.name,
        recipe_env={
            **recipe.build.env,
            **output.env,
            **_version_env(one),
            **attempt.world.config.build.get("env", {}),
            **one.request.env,
        },
        values=_values(one, space),
        jobs=plan.jobs,
        jobs_env=recipe.build.jobs_env,
        epoch=_epoch(plan.pin.time),
        cuda_home=plan.host.cuda.path if plan.host.cuda else None,
    )
    with _phase(attempt, "build", output.name, log=True):
        missing = run.dynamic_requires(
            space, output=output.name, subdir=output.path, env=env, isolation=attempt.level, lock=lock
        )
        if missing:
            _remember_requires(attempt, output.name, missing)
        return run.build_output(
            space,
            output=output.name,
            subdir=output.path,
            config_settings={**recipe.build.config_settings, **output.config_settings},
            env=env,
            isolation=attempt.level,
            log=space.logs / "build.log",
            sink=attempt.sink,
            timeout_s=parse_seconds(recipe.resources.build_timeout) if recipe.resources.build_timeout else None,
        )


def _remember_requires(attempt: _Run, output: str, missing: tuple[str, ...]) -> None:
    resolve.remember_dynamic(attempt.world, attempt.one.lock_keys[output], missing)
    text = f"{output}: the backend asks for {', '.join(missing)} too; locked with the rest"
    attempt.sink.emit(Note(level="info", text=text))
    raise _AskedForMore


def _values(one: Evaluation, space: stages.Workspace) -> dict[str, str]:
    """Return what ``${...}`` may name."""
    plan = one.plan
    return {
        "arch": " ".join(one.arch),
        "cuda": plan.host.cuda.version if plan.host.cuda else "",
        "torch": str(one.torch["version"]) if one.torch else "",
        "version": plan.pin.version or "",
        "commit": plan.pin.commit or "",
        "label": plan.label,
        "src": str(space.inside / "src"),
        "jobs": str(plan.jobs),
    }


def _version_env(one: Evaluation) -> dict[str, str]:
    version = one.loaded.recipe.version
    return {version.env: version.value or "${label}"} if version.env else {}


def _epoch(pinned: int) -> int:
    """Return SOURCE_DATE_EPOCH: the source's time, but a zip can't hold anything before 1980."""
    return max(pinned, 315532800)


def _finish(attempt: _Run, built: list[stages.Built]) -> list[stages.Wheel]:
    """Label, strip and pack; give a rebuild with other bits under a name that is taken a label of its own."""
    one, space, house = attempt.one, attempt.space, attempt.world.house
    plan, recipe = one.plan, one.loaded.recipe
    with _phase(attempt, "pack") as text:
        revision = 0
        while True:
            name = label.make(house.first_planned(plan.inputs.fingerprint), plan.inputs.fingerprint, revision=revision)
            siblings = {item.output: label.labelled(read.inspect(item.path).version, name) for item in built}
            wheels = []
            for item in built:
                output = next(output for output in one.outputs if output.name == item.output)
                wheels.append(
                    pack.finish(
                        item,
                        dest=space.root / "wheels",
                        label=name,
                        siblings=siblings,
                        version_module=output.version_module or recipe.version.module,
                        strip=recipe.build.strip,
                        epoch=_epoch(plan.pin.time),
                        extra_files={"spark-build/inputs.json": digest.canonical_json(dict(plan.inputs.document))},
                        expected=item.output,
                        env=attempt.world.env,
                        scratch=space.root / "tmp",
                    )
                )
            if not any(house.taken(wheel.filename, wheel.sha256) for wheel in wheels):
                break
            revision = max(2, revision + 1)
        text.append(f"{name}; {', '.join(f'{wheel.size} bytes' for wheel in wheels)}")
        return wheels


def _provenance(attempt: _Run, wheels: list[stages.Wheel]) -> dict[str, object]:
    """Return what was true of this run and isn't part of the wheel: times, host, isolation."""
    one, plan, host = attempt.one, attempt.one.plan, attempt.one.plan.host
    return {
        "version": 1,
        "subjects": [{"name": wheel.filename, "sha256": wheel.sha256} for wheel in wheels],
        "recipe": plan.recipe,
        "fingerprint": plan.inputs.fingerprint,
        "label": plan.label,
        "source": {"url": plan.pin.url, "ref": plan.pin.ref, **plan.pin.identity()},
        "built": int(attempt.world.clock()),
        "attempt": attempt.space.attempt,
        "isolation": {"level": attempt.level.level, "path": str(attempt.space.inside), "why": attempt.level.reason},
        "host": {"machine": host.machine, "cores": host.cores, "memory": host.memory_bytes},
        "jobs": plan.jobs,
        "compressor": pack.compressor(),
        "recipe-file": one.loaded.path.name,
    }
