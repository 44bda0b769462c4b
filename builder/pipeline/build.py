"""From a plan to wheels in the wheelhouse: one lock, one workspace, phases in order, one publish."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from builder import buildenv, events, index, patches, source, torchguard
from builder.errors import BuildFailed, CheckRefused, Interrupted
from builder.executor import environment, hooks, isolation, workspace
from builder.pipeline import advice, finish, gated, locking, proof, resolve, shared
from builder.pipeline import evaluate as evaluation
from builder.pipeline.attempt import AskedForMore, phase, recorded
from builder.recipe.interpolate import expand
from builder.recipe.units import parse_seconds, show_bytes
from builder.source.mirror import insteadof
from builder.stages import Built
from builder.wheelhouse import missed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder import stages
    from builder.events import Sink
    from builder.pipeline.attempt import Attempt
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.gated import Gate
    from builder.pipeline.world import World
    from builder.recipe.model import Output

__all__ = ["bench_of", "build", "environment_of", "give_nested", "make"]

#: How often a backend may ask for more requirements before this is called a loop.
ROUNDS = 3


def build(one: Evaluation, world: World) -> tuple[Evaluation, tuple[stages.Stored, ...]]:
    """Build what the plan misses, publish all of it at once, and return every wheel of the plan.

    The evaluation comes back too: it is another one where the backend asked for requirements that nobody had named, since
    they belong to the inputs. Waits while another process builds the same fingerprint, and then takes its wheels.

    Raises BuildFailed, CheckRefused, HostError, SourceError, PatchDrift or Interrupted; the workspace is kept then.
    """
    for _round in range(ROUNDS):
        try:
            with advice.exact(one.request, world):
                return one, _build_once(one, world)
        except AskedForMore:
            if one.request.locked:
                wanted = [text for output in one.outputs for text in resolve.dynamic(world, one.lock_keys[output.name])]
                raise locking.incomplete(one, wanted) from None
            one = evaluation.evaluate(one.request, world)
    summary = f"the backend of {one.plan.recipe} asks for other requirements each time"
    raise BuildFailed("requires-loop", summary, help="name them in build.requires-add of the recipe")


def _build_once(one: Evaluation, world: World) -> tuple[stages.Stored, ...]:
    house, plan = world.house, one.plan
    fingerprint = plan.inputs.fingerprint
    finish.signer(world)  # a key that can't sign, and a script that isn't there, are told now, not after the build
    proof.scripts(one, world)
    if one.nested and one.request.offline:  # what is missing is told before anything is laid out
        from builder.source import nested  # noqa: PLC0415  # few recipes have any

        nested.fetch(one.nested, world.sources(offline=True, recipe=plan.recipe))
    level = isolation.probe(world.env, wanted=world.isolation(one.request.isolation))
    if level.level == "seccomp":
        text = f"no namespaces here ({level.reason}): the network is cut by a filter, the build's path isn't fixed"
        world.sink.emit(events.Note(level="warning", text=text))
    with contextlib.ExitStack() as held:
        waiting = _waiting(world.sink, f"the same build of {plan.recipe}")
        held.enter_context(house.build_lock(fingerprint, on_wait=waiting))
        if not level.fixed_path:
            waiting = _waiting(world.sink, f"another build of {plan.recipe} (no fixed path here)")
            held.enter_context(house.build_lock(f"recipe-{plan.recipe}", on_wait=waiting))
        names = {output.name for output in one.outputs}
        found = tuple(wheel for wheel in house.find(fingerprint) if wheel.output in names)
        if not one.request.force and len(found) == len(names):
            text = f"{plan.recipe} {fingerprint[:10]}: another process has built it meanwhile"
            world.sink.emit(events.Note(level="info", text=text))
            proof.renew(one, world, found)
            return found
        _refuse_withheld(one, world, found)
        asked = shared.is_asked(one, world)
        if not asked:
            workspace.require_space(world.builds, plan.disk_bytes)
        space = workspace.open_tree(
            world.builds, fingerprint, plan.recipe, fixed=level.fixed_path, fresh=one.request.force
        )
        with recorded(one, world, space, level) as attempt:
            try:
                stored = shared.take(attempt) if asked else ()
                if not stored:
                    workspace.require_space(world.builds, plan.disk_bytes)
                    stored = _perform(attempt)
            except Interrupted as error:
                error.kept()
                raise
        workspace.finish(space)
        return stored


def _refuse_withheld(one: Evaluation, world: World, found: Sequence[stages.Stored]) -> None:
    """Raise CheckRefused ``wheel-withheld`` where what would be built is here, and isn't to be offered any more."""
    plan, names = one.plan, {output.name for output in one.outputs}
    mine = [wheel for wheel in missed.newest(world.house, plan.inputs.fingerprint, found) if wheel.output in names]
    if files := [wheel for wheel in mine if missed.withheld(world.house, wheel)]:
        raise CheckRefused(
            "wheel-withheld",
            f"{plan.recipe} {plan.inputs.fingerprint[:10]} is in the wheelhouse and withheld; it isn't built once more",
            cause="\n".join(missed.told(world.house, wheel) for wheel in files),
            help="the same inputs give the same wheel: change them, or offer it again (yank --undo, quarantine --release)",
            run=tuple(f"spark-build wheels show {wheel.filename}" for wheel in files),
        )


def _waiting(sink: Sink, what: str) -> Callable[[str], None]:
    return lambda holder: sink.emit(events.Waiting(what=what, holder=holder))


def _perform(attempt: Attempt) -> tuple[stages.Stored, ...]:
    wheels = make(attempt)
    with phase(attempt, "audit") as text:
        text.append(proof.prove(attempt, wheels))
    return _publish(attempt, wheels)


def make(attempt: Attempt, *, name: str | None = None) -> list[stages.Wheel]:
    """Return the labelled wheels of an attempt, packed and neither judged nor published.

    `name` is the label of an earlier build that they are to be compared with. Raises what `build` raises for a build that
    fails.
    """
    one = attempt.one
    _prepare_tree(attempt)
    give_nested(attempt)
    built = []
    for output, lock in zip(one.outputs, one.locks, strict=True):
        built.append(_at_hand(attempt, output) or _build_output(attempt, output, lock))
    with phase(attempt, "pack") as text:
        wheels = finish.pack_all(attempt, built, name=name)
        text.extend(f"{wheel.version}, {show_bytes(wheel.size)}" for wheel in wheels)
    return wheels


def _publish(attempt: Attempt, wheels: Sequence[stages.Wheel]) -> tuple[stages.Stored, ...]:
    plan, house = attempt.one.plan, attempt.world.house
    with phase(attempt, "publish") as text:
        stored = house.publish(
            wheels,
            fingerprint=plan.inputs.fingerprint,
            recipe=plan.recipe,
            inputs=plan.inputs.document,
            provenance=finish.provenance(attempt, wheels),
            sign=finish.signer(attempt.world),
        )
        proof.keep(attempt, stored)
        index.refresh(house)
        text.append(f"in {house.root}")
    for wheel in stored:
        attempt.sink.emit(
            events.Stored(output=wheel.output, path=str(wheel.path), sha256=wheel.sha256, size=wheel.size)
        )
    return stored


def _prepare_tree(attempt: Attempt) -> None:
    """Leave the pinned, patched tree in the workspace; one that is there from an earlier attempt is taken as it is."""
    one, space = attempt.one, attempt.space
    if workspace.done(space, "patch"):
        if names := workspace.changed(space):
            _restore_tree(attempt, names)
        return
    with phase(attempt, "fetch") as text:
        fetched = _lay_out(attempt, space.src)
        text.append(f"{show_bytes(fetched)} fetched" if fetched else "at hand")
    with phase(attempt, "patch") as text:
        patches.apply(one.patches, space.src, env=attempt.world.env)
        text.append(", ".join(patch.id for patch in one.patches) or "none")
        workspace.note_tree(space)
        workspace.mark(space, "patch")


def give_nested(attempt: Attempt) -> None:
    """Lay what the tree would download where the build looks for it; `attempt.given` gets the variables that say so."""
    one, space = attempt.one, attempt.space
    if not one.nested:
        return
    from builder.source import given, nested  # noqa: PLC0415  # few recipes have any

    sources = attempt.world.sources(offline=one.request.offline, recipe=one.plan.recipe)
    with phase(attempt, "fetch") as text:
        fetched = sum(nested.fetch(one.nested, sources, read=lambda path: (space.src / path).read_bytes()).values())
        attempt.given.update(given.lay_out(one.nested, space, sources, src=space.src))
        text.append(f"{len(one.nested)} given, {f'{show_bytes(fetched)} fetched' if fetched else 'all at hand'}")


def _lay_out(attempt: Attempt, dest: Path) -> int:
    """Leave the pinned tree at `dest`, without patches, and return how many bytes had to be fetched for it."""
    one = attempt.one
    sources = attempt.world.sources(offline=one.request.offline, recipe=one.plan.recipe)
    fetched = source.fetch(one.plan.pin, sources)
    shutil.rmtree(dest, ignore_errors=True)
    source.materialize(one.plan.pin, dest, sources)
    return fetched


def _restore_tree(attempt: Attempt, names: Sequence[str]) -> None:
    """Put back what was changed in a kept tree: its wheel goes by the fingerprint of the source as pinned and patched."""
    one, space = attempt.one, attempt.space
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    text = f"src/{names[0]}{more} in the kept tree isn't as it was laid out: put back; `patch save` keeps a change"
    attempt.sink.emit(events.Note(level="warning", text=text))
    fresh = space.root / "fresh"
    with phase(attempt, "fetch") as told:
        _lay_out(attempt, fresh)
        patches.apply(one.patches, fresh, env=attempt.world.env)
        workspace.restore(space, fresh, names)
        shutil.rmtree(fresh)
        told.append(f"{len(names)} files put back")


def _at_hand(attempt: Attempt, output: Output) -> Built | None:
    """Return what an earlier attempt finished of this output, so that a kill in pack or publish costs no build."""
    wheels = sorted((attempt.space.dist / output.name).glob("*.whl"))
    if len(wheels) == 1 and workspace.done(attempt.space, f"built-{output.name}"):
        return Built(output=output.name, path=wheels[0], peak_bytes=0)
    return None


def _build_output(attempt: Attempt, output: Output, lock: stages.EnvLock) -> Built:
    _prepare_environment(attempt, lock)
    space, env = attempt.space, environment_of(attempt, output)
    with phase(attempt, "build", output.name, log=True) as text:
        with workspace.log_span(space, output.name), gated.opened(attempt, output, env) as gate:
            built = _call_backend(attempt, output, lock, bench_of(attempt, output, {**env, **gate.variables}, gate))
        workspace.unmark(space, "building")
        workspace.mark(space, f"built-{output.name}")
        attempt.accounts[output.name] = account = gated.account(gate, built)
        text.append(built.path.name)
        text.extend(gated.told(account))
    return built


def _call_backend(attempt: Attempt, output: Output, lock: stages.EnvLock, bench: hooks.Bench) -> Built:
    one = attempt.one
    workspace.mark(attempt.space, "building")
    known = resolve.dynamic(attempt.world, one.lock_keys[output.name])
    missing = [want for want in hooks.dynamic_requires(bench, lock) if want not in known]
    if missing:
        resolve.remember_dynamic(attempt.world, one.lock_keys[output.name], missing)
        note = f"{output.name}: the backend asks for {', '.join(missing)} too; locked with the rest"
        attempt.sink.emit(events.Note(level="info", text=note))
        raise AskedForMore
    return hooks.build_wheel(bench)


def _prepare_environment(attempt: Attempt, lock: stages.EnvLock) -> None:
    """Leave the locked build environment of one output in the workspace."""
    one, world, space = attempt.one, attempt.world, attempt.space
    wheels = [wheel.path for other in one.depends for wheel in world.house.find(other.plan.inputs.fingerprint)]
    with phase(attempt, "env", lock.output, log=True) as text:
        buildenv.create(
            lock,
            space.venv / lock.output,
            python=one.plan.host.interpreter.path,
            index_url=world.config.index_url,
            env=world.uv_env,
            offline=one.request.offline,
            log=space.logs / "env.log",
            on_line=lambda line: attempt.sink.emit(events.Printed(phase="env", text=line)),
            wheels=wheels,
            torch=one.torch,
            recipe=one.plan.recipe,
        )
        if one.loaded.recipe.system.cuda:
            torchguard.require_cuda(one.torch, space.venv / lock.output, recipe=one.plan.recipe)
        text.append(f"{len(lock.packages)} packages from the lock")


def environment_of(attempt: Attempt, output: Output) -> dict[str, str]:
    """Return the build's variables, as they are without the gate."""
    one, space, plan = attempt.one, attempt.space, attempt.one.plan
    recipe, version = one.loaded.recipe, one.loaded.recipe.version
    wanted = {
        **recipe.build.env,
        **output.env,
        **({version.env: version.value or "${label}"} if version.env else {}),
        **attempt.world.config.build.get("env", {}),
        **one.request.env,
    }
    mirrors = insteadof(attempt.world.sources(offline=True, recipe=plan.recipe))
    made = mirrors | environment.make(
        space,
        output=output.name,
        wanted=wanted,
        values=_values(one, space),
        jobs=plan.jobs,
        jobs_env=recipe.build.jobs_env,
        epoch=finish.epoch_of(plan.pin),
        host=plan.host,
    )
    if not attempt.given:
        return made
    from builder.source import given  # noqa: PLC0415  # few recipes have any

    return given.merged(made, attempt.given)


def bench_of(attempt: Attempt, output: Output, env: Mapping[str, str], gate: Gate) -> hooks.Bench:
    """Return where and how the hooks of one output run."""
    one, space = attempt.one, attempt.space
    limit = one.loaded.recipe.resources.build_timeout
    return hooks.Bench(
        space=space,
        output=output.name,
        subdir=output.path,
        env=env,
        isolation=attempt.level,
        log=space.logs / "build.log",
        sink=gate.sink,
        recipe=one.plan.recipe,
        heard=gate.heard,
        units=gate.units,
        nested=one.nested,
        config_settings=_settings(attempt, output),
        timeout_s=parse_seconds(limit) if limit else None,
    )


def _settings(attempt: Attempt, output: Output) -> dict[str, str | list[str]]:
    """Return the PEP 517 config settings with their ``${...}`` filled in."""
    values = _values(attempt.one, attempt.space)
    return {
        key: expand(value, values) if isinstance(value, str) else [expand(text, values) for text in value]
        for key, value in {**attempt.one.loaded.recipe.build.config_settings, **output.config_settings}.items()
    }


def _values(one: Evaluation, space: stages.Workspace) -> dict[str, str]:
    """Return what ``${...}`` may name."""
    plan = one.plan
    return {
        "arch": " ".join(one.arch),
        "cuda": plan.host.cuda.version if plan.host.cuda else "",
        "torch": one.torch.version if one.torch else "",
        "version": plan.pin.version or "",
        "commit": plan.pin.commit or "",
        "label": plan.label,
        "src": str(space.inside / "src"),
        "jobs": str(plan.jobs),
        "modules": ",".join(one.loaded.recipe.build.modules),
    }
