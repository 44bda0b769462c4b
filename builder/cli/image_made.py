"""What ``spark-build image`` builds from: wheels, settings, files; and the building itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.bundle.export import Planned
    from builder.bundle.target import Target
    from builder.bundle.verify import Verified
    from builder.cli.app import App
    from builder.errors import SparkError
    from builder.image.asked_for import Asked
    from builder.image.engine import Engine
    from builder.image.final import Built
    from builder.image.settings import Closure, Settings
    from builder.image.ship import Failed, Shipped
    from builder.image.wheels import Held
    from builder.pipeline.world import World

__all__ = ["Plan", "asked", "built", "compose", "filled", "planned", "shipped", "target", "texts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an image would be; `unread` are projects whose wheels aren't at hand. `ours`: some wheel was built by us."""

    settings: Settings
    unread: tuple[str, ...]
    signed: bool
    ours: bool


def target(args: argparse.Namespace, app: App) -> Target:
    """Return what the image is for: what its bundle is for, or what the command line says."""
    from builder.bundle import manifest  # noqa: PLC0415
    from builder.bundle import target as targets  # noqa: PLC0415

    if args.bundle:
        return _of(manifest.load(app.cwd / args.bundle)[0].target)
    return targets.parse(args.platform or targets.GB10, args.target_python or targets.PYTHON)


def _of(about: Any) -> Target:  # noqa: ANN401  # a manifest's table
    from builder.bundle import target as targets  # noqa: PLC0415

    return targets.parse(str(about["platform"]), str(about["python"]))


def planned(args: argparse.Namespace, app: App, world: World, wanted: Target) -> Plan:
    """Return what the image would be; nothing is fetched for that but what the resolver asks."""
    from builder.bundle import download  # noqa: PLC0415
    from builder.bundle.target import cuda_of, driver_of  # noqa: PLC0415
    from builder.image import settings, wheels  # noqa: PLC0415

    if args.bundle:
        here = app.cwd / args.bundle
        _verified(here, args, app)
        closure, held = _read(here)
        return Plan(
            settings=_settings(closure, held, args, app, world),
            unread=held.unread,
            signed=_is_signed(here),
            ours=_has_statements(here),
        )
    plan = _resolved(args, app, world, wanted)
    sources = world.sources(offline=False, recipe="NAME")
    pieces = plan.closure.pieces
    packages = {one.project: one.version for one in pieces}
    cuda = cuda_of(packages.items())
    closure = settings.Closure(
        target=wanted,
        packages=packages,
        asked=plan.requirements,
        needs=tuple(one.id for one in plan.known.needs(packages)),
        env=plan.known.env(packages),
        cuda=cuda,
        driver=driver_of(cuda),
    )
    mine = plan.ours.wheels
    held = wheels.read(
        (one.project, mine[one.sha256].path if one.sha256 in mine else download.place_of(one, sources))
        for one in pieces
    )
    return Plan(
        settings=_settings(closure, held, args, app, world),
        unread=held.unread,
        signed=world.config.signing_key is not None,
        ours=any(one.sha256 in plan.ours.wheels for one in pieces),
    )


def _resolved(args: argparse.Namespace, app: App, world: World, wanted: Target) -> Planned:
    from builder.cli import bundle  # noqa: PLC0415
    from builder.image import compose as composes  # noqa: PLC0415

    stacks = [name for name in args.name if name.endswith(".toml")]
    if len(stacks) > 1:
        raise UsageError("usage", "an image is of one stack", help="name one STACK.toml, and packages besides")
    args.requirements, args.stack, args.folder = [], stacks[0] if stacks else None, "DIR"
    args.name = [name for name in args.name if name not in stacks]
    made = bundle.resolved(args, app, world, wanted)
    bundle.warn(made, app)
    if args.compose:
        composes.check({one.project for one in made.closure.pieces})  # before hours of downloading
    return made


def filled(folder: Path, args: argparse.Namespace, app: App, world: World, wanted: Target) -> Settings:
    """Leave the bundle in the context `folder`, and return what the image is."""
    from builder import signature  # noqa: PLC0415
    from builder.bundle import export, layout  # noqa: PLC0415
    from builder.cli import bundle  # noqa: PLC0415
    from builder.image import context  # noqa: PLC0415
    from builder.ui.waiting import waiting  # noqa: PLC0415

    dest = folder / context.BUNDLE
    if args.bundle:
        verified = _verified(app.cwd / args.bundle, args, app)
        with waiting(app.stderr, app.env, app.clock, f"copying {verified.path.name}"):  # where links can't be
            context.carry(verified, dest)
        return _settings(*_read(dest), args, app, world)
    sign = signature.signer(world.config.signing_key, env=app.env)
    plan = _resolved(args, app, world, wanted)
    sources = world.sources(offline=False, recipe="NAME")
    layout.claim(dest)
    with bundle.fetching(app) as tell:
        progress = export.bring(plan, sources, jobs=max(1, args.jobs), tell=tell)
    with bundle.writing(app) as write:
        export.make(plan, dest, sources, sign=sign, progress=progress, tell=write)
    return _settings(*_read(dest), args, app, world)


def _verified(source: Path, args: argparse.Namespace, app: App) -> Verified:
    """Return a bundle that somebody brought here; all of it is read first, since its own script is run."""
    from builder.bundle import verify  # noqa: PLC0415
    from builder.ui.waiting import waiting  # noqa: PLC0415

    signers = app.cwd / args.signers if args.signers else app.config().signers
    with waiting(app.stderr, app.env, app.clock, f"reading {source.name}"):
        return verify.verify(source, signers=signers, env=app.env)


def _read(folder: Path) -> tuple[Closure, Held]:
    """Return what the bundle in `folder` is, by its manifest and by its wheels."""
    from builder.bundle import manifest  # noqa: PLC0415
    from builder.image import settings, wheels  # noqa: PLC0415

    found, data = manifest.load(folder)
    closure = settings.of_document(json.loads(data), manifest.identity(data), _of(found.target))
    return closure, wheels.read((str(one["project"]), folder / str(one["path"])) for one in found.wheels)


def _settings(closure: Closure, held: Held, args: argparse.Namespace, app: App, world: World) -> Settings:
    from builder.image import compose as composes  # noqa: PLC0415
    from builder.image import final, settings  # noqa: PLC0415
    from builder.recipe import find  # noqa: PLC0415

    if args.compose:
        composes.check(closure.packages)
    peak = final.peak_bytes(closure.packages, find.folders(world.config.recipe_layers), world.sink)
    return settings.reckon(closure, held, asked(args, app, peak))


def asked(args: argparse.Namespace, app: App, peak: int = 0) -> Asked:
    """Return what the command line says of the image. Raises UsageError as `asked_for.check` does, and for ``--accept``."""
    from builder.audit.target import Capability  # noqa: PLC0415
    from builder.image import asked_for  # noqa: PLC0415
    from builder.pipeline import judged  # noqa: PLC0415

    judged.accepted(args.accept)
    pairs = [word.partition("=") for word in args.env]
    if lone := next((name for name, equals, _value in pairs if not equals), None):
        raise UsageError("image-env", f"{lone!r} is no variable", help="wanted NAME=VALUE")
    made = asked_for.Asked(
        base=args.base,
        capability=Capability.parse(args.capability),
        env={name: value for name, _equals, value in pairs},
        apt=tuple(args.apt),
        accept=tuple(args.accept),
        peak_bytes=peak,
        epoch=asked_for.epoch_of(app.env.get("SOURCE_DATE_EPOCH", "")),
    )
    asked_for.check(made)
    return made


def texts(folder: Path, settings: Settings, text: str = "") -> dict[str, str]:
    """Return the files beside the bundle in the context `folder`; `text` is that of the compose file."""
    from builder.image import context  # noqa: PLC0415

    bundle = folder / context.BUNDLE
    return context.files(settings, signed=_is_signed(bundle), statements=_has_statements(bundle), compose=text)


def _is_signed(bundle: Path) -> bool:
    from builder.bundle import manifest  # noqa: PLC0415

    return (bundle / manifest.SIGNATURE).exists()


def _has_statements(bundle: Path) -> bool:
    return next(bundle.glob("files/*/*.provenance.json"), None) is not None


def compose(settings: Settings, args: argparse.Namespace, app: App) -> str:
    """Return the compose file that was asked for; empty where none was."""
    from builder.image import compose as composes  # noqa: PLC0415

    if not args.compose:
        return ""
    return composes.text(args.tag or "TAG", model=args.model, room=settings.room, cwd=app.cwd)


def built(engine: Engine, folder: Path, settings: Settings, args: argparse.Namespace, app: App) -> Built:
    """Build the image from the context `folder`, and write the compose file that goes with it."""
    from builder import durable  # noqa: PLC0415
    from builder.bundle import layout  # noqa: PLC0415
    from builder.image import context, final  # noqa: PLC0415
    from builder.ui.waiting import waiting  # noqa: PLC0415

    text = compose(settings, args, app)
    context.bring_tool(folder)
    context.write(folder, texts(folder, settings))
    with waiting(app.stderr, app.env, app.clock, "building the system") as tell:
        final.system(engine, folder, settings, tell, renew=args.renew)
    with waiting(app.stderr, app.env, app.clock, "building the image") as tell:
        settings = final.described(settings, final.base_digest(engine, settings.base))
        context.write(folder, texts(folder, settings))
        made = final.build(engine, folder, settings, args.tag, tell)
    if text:
        file = app.cwd / args.compose
        with layout.landing(file):
            durable.replace_synced(file, text.encode())
    return made


def shipped(
    engine: Engine, args: argparse.Namespace, app: App
) -> tuple[tuple[Shipped | Failed, ...], SparkError | None]:
    """Load the image on the machines that were named; return how it went at each, and what is wrong with any."""
    from builder.image import ship  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    if not args.to:
        return (), None
    with shown.progress(app.stderr, app.env, app.clock) as write:
        tell = ship.Progress(write, app.clock)
        outcomes = ship.ship(engine, args.tag, ship.hosts_of(args.to), env=app.env, tell=tell)
    return outcomes, ship.error(args.tag, outcomes)
