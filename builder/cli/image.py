"""``spark-build image``: the image that serves, out of wheels that are pinned by hash, built without a network."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from typing import TYPE_CHECKING

from builder.cli.session import opened
from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from builder.bundle.target import Target
    from builder.cli.app import App
    from builder.cli.image_made import Plan
    from builder.image.engine import Engine
    from builder.image.final import Built
    from builder.image.settings import Settings
    from builder.image.ship import Failed, Shipped
    from builder.pipeline.world import World

EXAMPLES = """\
examples:
  spark-build image vllm -t vllm:1                          for a GB10: resolved, fetched, built, checked
  spark-build image vllm -t vllm:1 --dry-run                the files that it would be built from; nothing is fetched
  spark-build image stack.toml -t team/vllm:1               exactly what the stack's channel lists, and what it needs
  spark-build image --bundle stick/vllm -t vllm:1           from a bundle, behind the gap: --base has to be there
  spark-build image vllm -t vllm:1 --compose --model Qwen/Qwen3-8B      and compose.yaml for a server
  spark-build image vllm -t vllm:1 --to spark-2 spark-3     and on other machines, over ssh
  spark-build image vllm --write folder                     the folder to build from, for an engine somewhere else

Wheels of ours are taken first and alone, as for `bundle export`; all are pinned by hash. What the base lacks (compilers,
headers) is installed by its distribution, into an image of its own; the rest is built with the network cut, and called TAG
only when `doctor --env` and `audit --env` found nothing wrong inside. docker with BuildKit, podman or buildah: whichever
is there. docs/images.md has all of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    from builder.bundle import JOBS  # noqa: PLC0415
    from builder.bundle.target import GB10, PYTHON  # noqa: PLC0415
    from builder.image.bases import FINAL  # noqa: PLC0415

    parser.epilog = EXAMPLES
    parser.add_argument(
        "name",
        nargs="*",
        metavar="NAME",
        help="what it holds, as pip takes it (vllm, 'torch>=2.14'), or a stack's STACK.toml",
    )
    parser.add_argument("-t", "--tag", metavar="TAG", help="what the image is called")
    add = parser.add_argument_group("what is in it").add_argument
    add("--bundle", metavar="DIR", help="a bundle that is here already, instead of names")
    add("--signers", metavar="FILE", help="with --bundle: who may have signed it (default: signing.signers)")
    base = FINAL.partition("@")[0]
    add("--base", metavar="IMAGE", default=FINAL, help=f"what it begins with (default: {base}, by its digest)")
    add("--platform", metavar="PLATFORM", help=f"of the target, with its glibc (default: {GB10})")
    add("--target-python", metavar="X.Y", help=f"Python of the target (default: {PYTHON})")
    add("--capability", metavar="C", default="12.1", help="of the target's GPU (default: 12.1, a GB10)")
    add("--channel", metavar="NAME", help="whose wheels of ours are taken (default: local, all that was built here)")
    add("--public", metavar="NAME", action="append", default=[], help="take this one from the index, not from us")
    add("--allow-older", action="store_true", help="take an older release where something holds the newest back")
    add("--env", metavar="K=V", action="append", default=[], help="a variable of the image; may be repeated")
    add("--apt", metavar="PKG", action="append", default=[], help="a package of the distribution; may be repeated")
    add("--accept", metavar="ID=REASON", action="append", default=[], help="let this finding of the audit pass")
    add = parser.add_argument_group("how").add_argument
    add("--engine", metavar="ENGINE", help="docker, podman or buildah (default: the first of them that works here)")
    add("--renew", action="store_true", help="ask the distribution once more for its newest packages")
    add("--dry-run", action="store_true", help="only print the files; nothing is fetched, written or built")
    add("--write", metavar="DIR", help="only write the folder that it is built from")
    add("-j", "--jobs", metavar="N", type=int, default=JOBS, help=f"downloads at once (default: {JOBS})")
    add("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add = parser.add_argument_group("and then").add_argument
    add("--compose", metavar="FILE", nargs="?", const="compose.yaml", help="write a server's file (compose.yaml)")
    add("--model", metavar="MODEL", help="with --compose: what it serves, a name of Hugging Face or a folder")
    add("--to", metavar="HOST", nargs="+", action="extend", default=[], help="load it on other machines, over ssh")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Build the image and print its name, or only print or write what it would be built from."""
    from builder.cli import image_made  # noqa: PLC0415

    _check(args)
    image_made.asked(args, app)  # mistakes are told before anything is resolved
    _check_compose(args, app)
    target = image_made.target(args, app)
    engine = None if args.dry_run or args.write else _engine(args, target, app)
    with opened(args, app) as world:
        if args.dry_run:
            return _show_files(image_made.planned(args, app, world, target), args, app)
        with _folder(args, app, world) as folder:
            settings = image_made.filled(folder, args, app, world, target)
            if engine is None:
                return _written(folder, settings, args, app)
            built = image_made.built(engine, folder, settings, args, app)
    return _show(built, settings, engine, args, app)


def _check(args: argparse.Namespace) -> None:
    """Raise UsageError for words that don't go together."""
    if bool(args.name) == bool(args.bundle):
        raise UsageError(
            "usage" if args.name else "nothing-asked",
            "names and --bundle don't go together" if args.name else "the image would hold nothing",
            help="name packages, a stack's file, or a bundle by --bundle",
            run=("spark-build image vllm -t vllm:1", "spark-build image --bundle DIR -t vllm:1"),
        )
    if not args.tag and not args.dry_run and not args.write:
        raise UsageError("usage", "the image has no name yet", run=(_again(args, "-t", "vllm:1"),))
    if args.tag:
        from builder.image import words  # noqa: PLC0415

        words.new_name(args.tag)
    of_names = ("--platform", "--target-python", "--channel", "--public", "--allow-older")
    given = [word for word in of_names if getattr(args, word[2:].replace("-", "_"))]
    if args.bundle and given:
        raise UsageError("usage", f"--bundle and {given[0]} don't go together", help="a bundle is resolved already")
    if args.model and not args.compose:
        raise UsageError("usage", "--model is for the compose file", run=(_again(args, "--compose"),))
    if args.to and (args.dry_run or args.write):
        raise UsageError("usage", "--to sends an image that was built", help="leave out --dry-run and --write")
    if args.to:
        from builder.image import ship  # noqa: PLC0415

        ship.hosts_of(args.to)
    if args.dry_run and args.write:
        raise UsageError("usage", "--dry-run and --write don't go together", help="one prints, the other writes")


def _check_compose(args: argparse.Namespace, app: App) -> None:
    """Raise UsageError ``compose-exists`` where a file would be written over that isn't ours, ``compose-model``."""
    from builder.image import compose  # noqa: PLC0415

    if not args.compose:
        return
    compose.text(args.tag or "TAG", model=args.model, room=None, cwd=app.cwd)
    if args.dry_run:
        return
    from builder.bundle import layout  # noqa: PLC0415
    from builder.image import context  # noqa: PLC0415

    file = app.cwd / args.write / context.COMPOSE if args.write else app.cwd / args.compose
    if args.write and not file.parent.is_dir():
        return
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else "is in no folder that there is"
        raise UsageError("compose-place", f"{file} {why}", help="name a file", run=(_again(args, "--compose"),))
    with layout.landing(file.parent):
        if file.exists() and not compose.is_as_written(file.read_bytes()):
            raise UsageError(
                "compose-exists",
                f"{file} is there already, and isn't as it was written here",
                help="move it, or name another file",
                run=(shlex.join(["mv", str(file), f"{file}.old"]), _again(args, "--compose", "spark.yaml")),
            )
        with tempfile.TemporaryFile(dir=file.parent):  # before hours of work
            pass


def _again(args: argparse.Namespace, *more: str) -> str:
    """Return the command line, as far as it says what is in the image."""
    words = [*args.name, *(["--bundle", args.bundle] if args.bundle else []), *(["-t", args.tag] if args.tag else [])]
    return shlex.join(["spark-build", "image", *words, *more])


def _engine(args: argparse.Namespace, target: Target, app: App) -> Engine:
    """Return what builds; before anything is fetched it is sure that it can."""
    from builder.image import engines, final  # noqa: PLC0415

    engine = engines.find(app.env, args.engine, tell=lambda line: print(line, file=app.stderr))
    final.check_machine(target.machine, engine.machine)
    return engine


@contextlib.contextmanager
def _folder(args: argparse.Namespace, app: App, world: World) -> Iterator[Path]:
    """Give the folder to build from: the one that is asked for, or one that goes, where links into the cache can be."""
    from builder.image import context  # noqa: PLC0415

    if args.write:
        context.claim(app.cwd / args.write)
        yield (app.cwd / args.write).resolve()
        return
    with context.scratch(world.config.sources) as folder:
        yield folder


def _written(folder: Path, settings: Settings, args: argparse.Namespace, app: App) -> int:
    """Write the folder and say how it is built by hand."""
    from builder.cli import image_made  # noqa: PLC0415
    from builder.image import context, dockerfile  # noqa: PLC0415

    context.bring_tool(folder)
    context.write(folder, image_made.texts(folder, settings, image_made.compose(settings, args, app)))
    tag = context.system_tag(settings)
    if args.json:
        app.print_json({"written": {"path": str(folder), "system": tag, "base": settings.base}})
        return 0
    app.print(str(folder))
    where = shlex.quote(str(folder))
    app.stderr.write(
        f"there: docker build -f {where}/{dockerfile.SYSTEM} -t {tag} {where}\n"
        f"       docker build --network none -t {shlex.quote(args.tag or 'TAG')} {where}\n"
    )
    return 0


def _show_files(plan: Plan, args: argparse.Namespace, app: App) -> int:
    from builder.cli import image_made  # noqa: PLC0415
    from builder.image import context  # noqa: PLC0415

    text = image_made.compose(plan.settings, args, app)
    texts = context.files(plan.settings, signed=plan.signed, statements=plan.ours, compose=text)
    if args.json:
        app.print_json({"files": texts, "unread": list(plan.unread)})
        return 0
    for name, text in texts.items():
        app.print(f"==> {name} <==\n{text}")
    if plan.unread:
        count, some = len(plan.unread), ", ".join(plan.unread[:3])
        app.stderr.write(
            f"{count} wheel{'s' if count > 1 else ''} would be fetched ({some}{', …' if count > 3 else ''});"  # noqa: PLR2004
            " a ptxas or nvcc in them may change variables\n"
        )
    return 0


def _show(built: Built, settings: Settings, engine: Engine, args: argparse.Namespace, app: App) -> int:
    """Send the image where it is wanted, and print what there is."""
    from builder.cli import image_made  # noqa: PLC0415
    from builder.image.ship import Shipped  # noqa: PLC0415
    from builder.recipe.units import show_bytes  # noqa: PLC0415

    image = built.image
    text = f"{show_bytes(image.size)}, id {image.id[:12]}, built and checked by {engine.name} {engine.version}"
    app.stderr.write(f"{text}\n")
    outcomes, error = image_made.shipped(engine, args, app)
    if args.json:
        told = {
            "tag": built.tag,
            "id": image.id,
            "bytes": image.size,
            "machine": image.machine,
            "engine": engine.name,
            "base": settings.base,
            "system": built.system,
            "manifest": settings.labels.get("spark-build.manifest.sha256", ""),
            "compose": args.compose or "",
            "hosts": [_row(one) for one in outcomes],
        }
        app.print_json({"image": told})
        return error.exit_code if error else 0
    app.print(built.tag)
    for one in outcomes:
        if isinstance(one, Shipped):  # the error tells the others
            app.stderr.write(f"{_sent(one)}\n")
    if error:
        app.stdout.flush()
        raise error
    if args.compose:
        # Each looks into its own store.
        program = "docker compose" if engine.name == "docker" else "podman-compose"
        app.stderr.write(f"{program} -f {shlex.quote(args.compose)} up -d\n")
    return 0


def _row(one: Shipped | Failed) -> dict[str, object]:
    from builder.image.ship import Failed  # noqa: PLC0415

    if isinstance(one, Failed):
        return {"host": one.host, "error": one.error.as_json()}
    return {
        "host": one.host,
        "engine": one.engine,
        "sent": one.sent,
        "seconds": round(one.seconds, 3),
        "there": one.there,
    }


def _sent(one: Shipped) -> str:
    from builder.recipe.units import show_bytes, show_seconds  # noqa: PLC0415

    sent = f"{show_bytes(one.sent)} in {show_seconds(one.seconds)}"
    return f"{one.host}: {'was there' if one.there else sent}, {one.engine}"
