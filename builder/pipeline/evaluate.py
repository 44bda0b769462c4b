"""From a request to a plan. Asks the remote where a ref can move; builds nothing, unpacks nothing."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder import host, inputs, plan, source, torchguard
from builder.errors import Interrupted, SparkError, UsageError
from builder.events import Note, PhaseEnded, PhaseStarted, SourcePinned
from builder.host import floors, jobs
from builder.pipeline import advice, resolve
from builder.pipeline.resolve import Basis
from builder.pipeline.select import Facts, choose_source, select_outputs
from builder.recipe import conditions, find, load
from builder.recipe.interpolate import expand
from builder.recipe.units import parse_bytes
from builder.stages import Target, Torch
from builder.values import dataclass, replace
from builder.wheel import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder import patches
    from builder.events import PhaseName, Status
    from builder.host import Machine
    from builder.pipeline.world import World
    from builder.recipe.model import Loaded, Output, System
    from builder.stages import EnvLock, Host, Nested, Pin, Request

__all__ = ["DEFAULT_ARCH", "Evaluation", "Purpose", "evaluate", "evaluate_all", "told"]

#: Why something is evaluated. A plan downloads no sources, and a fetch needs no compilers.
Purpose = Literal["plan", "fetch", "build"]

#: A path in a variable's value, also behind a compiler's flag: ``-I/opt/x``, ``@/opt/flags``.
_PATH = re.compile(r"(?:-[A-Za-z]+|@)?/*(/[^/].*)")

#: Folders of the system as a whole: nobody put them in place, and their digest would take minutes.
_SYSTEM = frozenset(
    f"{root}{name}" for root in ("", "/usr") for name in ("/bin", "/lib", "/lib64", "/include", "/share")
)
_SYSTEM |= {"/usr", "/etc", "/dev", "/proc", "/sys", "/usr/local", "/opt", "/home", "/root", "/var", "/srv"}

#: The user's word for GB10.
DEFAULT_ARCH = "12.1a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A plan with what building it needs."""

    request: Request
    loaded: Loaded
    plan: plan.Plan
    outputs: tuple[Output, ...]
    patches: tuple[patches.Candidate, ...]
    locks: tuple[EnvLock, ...]
    lock_keys: Mapping[str, str]
    arch: tuple[str, ...]
    torch: Torch | None
    nested: tuple[Nested, ...] = ()
    depends: tuple[Evaluation, ...] = ()


def evaluate_all(
    requests: Sequence[Request],
    world: World,
    *,
    purpose: Purpose = "build",
    failed: list[SparkError] | None = None,
) -> tuple[Evaluation, ...]:
    """Return an evaluation for each request, in an order in which what is built on comes first.

    With `failed`, a request that can't be planned adds its error there, and the others go on.
    """
    done: dict[str, Evaluation] = {}
    with host.Machine(env=world.env, cache=world.cache) as machine:
        known: dict[str, Evaluation] = {}
        for request in requests:
            try:
                with advice.exact(request, world):
                    one = _evaluate(request, world, machine, known, purpose)
                done.setdefault(request.recipe, one)
                if any(other.below.get(request.recipe) == request for other in requests):
                    known.setdefault(request.recipe, one)
            except SparkError as error:
                if failed is None or isinstance(error, Interrupted):
                    raise
                failed.append(error)
                text = f"{request.recipe}: {error.summary} ({error.code}); going on with the others"
                world.sink.emit(Note(level="warning", text=text))
    ordered: dict[str, Evaluation] = {}

    def add(one: Evaluation) -> None:
        for other in one.depends:
            add(other)
        ordered.setdefault(one.plan.recipe, one)

    for one in done.values():
        add(one)
    return tuple(ordered.values())


def evaluate(request: Request, world: World, *, purpose: Purpose = "build") -> Evaluation:
    """Return the plan for `request` and everything that was found out for it.

    Raises RecipeError, SourceError, HostError or PatchDrift. Remembers in the wheelhouse what was resolved, so that the
    next evaluation of the same source asks nobody; `--relock` asks again.
    """
    with host.Machine(env=world.env, cache=world.cache) as machine, advice.exact(request, world):
        return _evaluate(request, world, machine, {}, purpose)


def _evaluate(
    request: Request, world: World, machine: Machine, known: dict[str, Evaluation], purpose: Purpose
) -> Evaluation:
    """Evaluate on `machine`. `known` holds what was built on before, by recipe: all of it is asked for with equal words."""
    folders = find.folders(world.config.recipe_layers)
    loaded = load.load(request.recipe, folders, settings=request.settings, stack=world.stack, variants=request.variants)
    recipe = loaded.recipe
    depends = tuple(_built_on(name, request, world, machine, known, purpose) for name in recipe.builds_on)
    sources = world.sources(offline=request.offline, recipe=recipe.name)
    chosen = choose_source(loaded, request)
    with told(world, "host", recipe.name):
        found = machine.probe(_system(loaded, request), python=_python(request, world), cuda=request.cuda)
    if purpose == "build":  # a compiler that is too old is told before anything is fetched
        floors.require(recipe.system, found)
    with told(world, "pin", recipe.name):
        if request.pinned:
            pin = source.held(request.pinned, chosen, request)
        else:
            pin = source.pin(chosen, request, sources, recipe=recipe.name, base=loaded.path.parent)
    world.sink.emit(_pinned(recipe.name, pin, world.clock()))
    arch = request.arch or DEFAULT_ARCH
    torch = _torch(loaded, request, found, world)
    facts = Facts(
        pin=pin,
        sources=sources,
        arch=arch,
        cuda=found.cuda.version if found.cuda else None,
        torch=torch.version if torch else None,
    )
    outputs = select_outputs(loaded, request, facts)
    effective = conditions.effective_arch(recipe, facts)  # a refused one asks nobody for nested sources
    basis = Basis(
        loaded=loaded,
        request=request,
        world=world,
        pin=pin,
        host=found,
        torch=torch,
        facts=facts,
        sources=sources,
        provided=tuple(output.name for one in depends for output in one.outputs),
    )
    with told(world, "lock", recipe.name):
        candidates, applied, said = resolve.applied(basis, outputs)
        nested = resolve.nested(basis, candidates, machine, bring=purpose != "plan")
        locks, keys = resolve.locks(basis, outputs, candidates)
    target = Target(
        machine=found.machine,
        arch=arch,
        cuda=found.cuda.version if found.cuda else None,
        python=found.interpreter.tag,
        glibc=found.libc,
    )
    collected = inputs.collect(
        recipe=recipe,
        outputs=[output.name for output in outputs],
        pin=pin,
        patches=applied,
        target=target,
        arch=effective,
        host=found,
        locks=locks,
        torch=torch.identity() if torch else None,
        env={**world.config.build.get("env", {}), **request.env},
        paths=_named_paths(loaded, request, world, machine),
        builds_on={one.plan.recipe: one.plan.inputs.fingerprint for one in depends},
        nested=nested,
    )
    made = _plan(basis, collected, [output.name for output in outputs])
    if said:
        made = replace(made, retired=said)
        for text in said if purpose == "build" else ():
            world.sink.emit(Note(level="warning", text=f"{recipe.name}: patch {text}"))
    if made.misses:
        from builder.pipeline import modules  # noqa: PLC0415  # not on the hit path

        listed = modules.lines(loaded, outputs, [one.recipes for one in folders], world.sink)
        lacking = _lacking(nested, sources) if purpose == "plan" else ()  # a fetch and a build look for themselves
        made = replace(made, nested=nested, lacking=lacking, advice=_advice(basis), modules=listed)
    return Evaluation(
        request=request,
        loaded=loaded,
        plan=made,
        outputs=outputs,
        patches=candidates,
        locks=locks,
        lock_keys=keys,
        arch=effective,
        torch=torch,
        nested=nested,
        depends=depends,
    )


def _system(loaded: Loaded, request: Request) -> System:
    """Return what the machine has to offer: also what works on the wheel after the build."""
    system = loaded.recipe.system
    if request.cuda and not system.cuda:
        raise UsageError("cuda-unused", f"--cuda: the recipe {loaded.recipe.name} builds without a CUDA toolkit")
    return replace(system, tools=(*system.tools, "strip")) if loaded.recipe.build.strip != "none" else system


def _named_paths(loaded: Loaded, request: Request, world: World, machine: Machine) -> dict[str, str]:
    """Return the digests of what variables name by absolute path: somebody put it in place, so its bytes count."""
    build = loaded.recipe.build
    outputs = [value for output in loaded.recipe.output for value in output.env.values()]
    values = [*build.env.values(), *outputs, *world.config.build.get("env", {}).values(), *request.env.values()]
    words = (word for value in values for word in re.split(r"[\s:;,='\"]+", value))
    paths = {Path(found[1]) for word in words if (found := _PATH.fullmatch(word)) and found[1] not in _SYSTEM}
    return {str(path): machine.digest(path) for path in sorted(paths) if path.is_file() or path.is_dir()}


@contextlib.contextmanager
def told(world: World, name: PhaseName, recipe: str) -> Iterator[None]:
    """Let the screen show what may take long where there is no attempt that keeps events."""
    world.sink.emit(PhaseStarted(phase=name, output=recipe))
    started = time.monotonic()
    status: Status = "failed"
    try:
        yield
        status = "ok"
    except Interrupted:
        status = "interrupted"
        raise
    finally:
        elapsed = int((time.monotonic() - started) * 1000)
        world.sink.emit(PhaseEnded(phase=name, output=recipe, status=status, ms=elapsed))


def _built_on(  # what evaluating it takes
    name: str, request: Request, world: World, machine: Machine, known: dict[str, Evaluation], purpose: Purpose
) -> Evaluation:
    if name not in known:
        beneath = replace(
            request.beneath(name), python=request.python, arch=request.arch, cuda=request.cuda, below=request.below
        )
        wanted = request.below.get(name) or beneath
        with advice.exact(wanted, world):
            known[name] = _evaluate(wanted, world, machine, known, purpose)
    return known[name]


def _pinned(recipe: str, pin: Pin, now: float) -> SourcePinned:
    name = pin.ref or pin.version or pin.url
    text = f"{name} = {pin.commit[:12]}" if pin.commit else f"{pin.filename or name}"
    if pin.submodules:
        text += f" + {len(pin.submodules)} submodules"
    if pin.pulls:
        text += "".join(f" + PR {pull.number}" for pull in pin.pulls)
    age = max(0, int(now - pin.asked_at)) if pin.stale and pin.asked_at else None
    return SourcePinned(recipe=recipe, text=text, commit=pin.commit, stale_s=age)


def _python(request: Request, world: World) -> str | None:
    return request.python or world.config.build.get("python")


def _torch(loaded: Loaded, request: Request, found: Host, world: World) -> Torch | None:
    build = loaded.recipe.build
    if build.torch == "none":
        if request.torch:
            raise UsageError(
                "torch-unused",
                f"--torch: the recipe {loaded.recipe.name} builds without torch",
                run=(f"spark-build recipe {loaded.recipe.name}",),
            )
        return None
    asked = request.torch or (build.torch_version if build.torch == "pinned" else "existing")
    if asked is None:
        raise UsageError(
            "torch-unpinned",
            f"the recipe {loaded.recipe.name} needs a torch version",
            help="name one, or an interpreter that has torch",
            run=(f"spark-build recipe {loaded.recipe.name} --torch 2.14.0",),
        )
    if asked[:1].isdigit():
        return Torch(version=asked)
    python = found.interpreter.path if asked == "existing" else asked
    from builder import buildenv  # noqa: PLC0415  # most recipes build without torch

    torch = buildenv.existing_torch(python, world.env, tag=found.interpreter.tag)
    if torch is None:
        raise UsageError("torch-missing", f"no torch in {python}", run=(f"{python} -m pip install torch",))
    if loaded.recipe.system.cuda:
        torchguard.require_cuda(torch, torch.folder or Path(), recipe=loaded.recipe.name)
    return torch


def _plan(basis: Basis, collected: inputs.Inputs, names: Sequence[str]) -> plan.Plan:
    recipe, request, house = basis.loaded.recipe, basis.request, basis.world.house
    stored = house.find(collected.fingerprint)
    missing = request.force or not set(names) <= {wheel.output for wheel in stored}
    return plan.make(
        inputs=collected,
        pin=basis.pin,
        host=basis.host,
        label=label.make(house.first_planned(collected.fingerprint), collected.fingerprint),
        outputs=names,
        stored=stored,
        known=house.known(recipe.name) if missing else (),
        lost=house.lost(collected.fingerprint, stored) if missing else (),
        jobs=jobs.jobs(
            recipe.resources,
            cores=basis.host.cores,
            asked=request.jobs or basis.world.config.build.get("jobs"),
        ),
        estimate_s=_estimate(house.root, recipe.name, names) if missing else None,
        disk_bytes=parse_bytes(recipe.resources.disk) if missing else 0,
        force=request.force,
    )


def _lacking(nested: Sequence[Nested], sources: source.Sources) -> tuple[str, ...]:
    if not nested:
        return ()
    from builder.source.nested import missing  # noqa: PLC0415  # few recipes have any

    return tuple(one.id for one in missing(nested, sources))


def _advice(basis: Basis) -> tuple[tuple[str, str], ...]:
    """Return what stands against building this, each with a command: what this machine lacks, what the recipe advises."""
    lacks = floors.check(basis.loaded.recipe.system, basis.host)
    unfit = [(f"not on this machine: {one.name} {one.wanted} is needed, {one.found} is here", one.run) for one in lacks]
    values = {"version": basis.pin.version or "", "commit": basis.pin.commit or ""}
    told = [one for one in basis.loaded.recipe.about.advice if conditions.holds(one.when, basis.facts)]
    return (*unfit, *((one.text, expand(one.run or "", values)) for one in told))


def _estimate(wheelhouse: Path, recipe: str, outputs: Sequence[str]) -> int | None:
    from builder.pipeline import builds  # noqa: PLC0415  # not on the hit path

    return builds.estimate(wheelhouse, recipe, outputs)
