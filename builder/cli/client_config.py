"""``spark-build index client-config``: what clients need so that they take our projects from our index only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.config import Config
    from builder.index.clients import Index
    from builder.index.view import View
    from builder.wheelhouse import Wheelhouse

SUMMARY = "write what keeps clients on this index: for uv, pip, and locks with hashes"
EXAMPLES = """\
Anybody may publish any name on a public index. pip takes the highest version of all indexes that it knows, uv the
first index that has the name; what is written here ties our names to our index, and locks tie them to their bytes.
No file holds a token: in a project uv takes it from UV_INDEX_<NAME>_USERNAME and _PASSWORD, uv pip and pip from ~/.netrc.

examples:
  spark-build index client-config --format uv                     tables for a project's pyproject.toml
  spark-build index client-config --channel team/stable --url https://wheels.example/ --output client
  spark-build index client-config --format pylock --url file:///media/stick/wheels/simple/ --relative \\
      --output /media/stick                                       a lock that travels with the wheels"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--url",
        metavar="URL",
        help="where clients find the index: its simple/ folder, or the whole server or export (default: index.public-url "
        "of the configuration, else the wheelhouse's own index of files)",
    )
    parser.add_argument("--channel", metavar="NAME", default="local", help="whose projects (default: local)")
    parser.add_argument(
        "--format",
        choices=("uv", "pip", "requirements", "pylock", "all"),
        default="all",
        help="tables for pyproject.toml, pip.conf, pinned requirements with hashes, a PEP 751 lock (default: all)",
    )
    parser.add_argument(
        "--project", metavar="NAME", action="append", default=[], help="only this project; may be repeated"
    )
    parser.add_argument("--output", metavar="DIR", help="write files there (default: print them)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files there that somebody changed, or wrote by another command",
    )
    parser.add_argument(
        "--relative", action="store_true", help="let the lock name wheels of a file:// index by their path from it"
    )
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Write or print the files."""
    from builder.index import clients, view  # noqa: PLC0415
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    config = app.config()
    superseded = config.index.get("superseded", "hide")
    reserve = config.index.get("reserve", ())
    with Wheelhouse.open(config.wheelhouse, clock=app.clock, create=False) as house:
        shown = view.read(house, args.channel, superseded=superseded, reserve=reserve)
        index = clients.Index.at(_url(args, config, house), args.channel)
        names = _names(args.project, shown, house)
        pinned_by = _pinned_by(house, config, names)
    chosen = clients.choose((shown.projects[name] for name in names), pinned_by)
    output = app.cwd / args.output if args.output else None
    texts: dict[str, Callable[[], str]] = {
        "uv": lambda: clients.uv_project(index, names, chosen),
        "pip": lambda: clients.pip_conf(index),
        "requirements": lambda: clients.requirements(index, chosen),
        "pylock": lambda: clients.pylock(index, chosen, paths_from=_paths_from(args, index, output)),
    }
    command = _command(args)
    wanted = {
        clients.FILES[each]: clients.sealed(make(), command)
        for each, make in texts.items()
        if args.format in {each, "all"}
    }
    if output is not None:
        if not args.overwrite:
            _check_ours(output, wanted, command)
        _write(output, wanted)
    if args.json:
        told = {"name": index.name, "url": index.url, "channel": args.channel, "files": wanted}
        versions = {one.project: one.version for one in chosen}
        more = {"environment": clients.environment(index), "projects": versions}
        app.print_json({"client_config": told | more | {"output": str(output) if output else None}})
        return 0
    for name, text in wanted.items():
        if output is not None:
            app.print(str(output / name))
        else:
            app.stdout.write(f"# --- {name}\n{text}\n" if len(wanted) > 1 else text)
    _explain(app, args.channel, index, [name for name in names if not any(one.project == name for one in chosen)])
    return 0


def _url(args: argparse.Namespace, config: Config, house: Wheelhouse) -> str:
    if named := args.url or config.index.get("public-url"):
        return str(named)
    if args.channel == "local":
        from builder.index import index_url, refresh  # noqa: PLC0415

        refresh(house)
        return index_url(house)
    from builder.errors import UsageError  # noqa: PLC0415

    raise UsageError(
        "index-url",
        f"nobody said where clients find the channel {args.channel}",
        cause="the wheelhouse's own index of files lists `local`; other channels are served or exported",
        help="say it by --url, or once and for all by index.public-url in the configuration",
        run=(
            f"spark-build index export wheels --channel {args.channel}",
            f"spark-build index client-config --channel {args.channel} --url http://127.0.0.1:8377/",
        ),
    )


def _names(asked: Sequence[str], shown: View, house: Wheelhouse) -> list[str]:
    """Return the projects that are meant: those that were asked for, or all names of the channel.

    A reserved name and one that no channel lists any more are every channel's.
    """
    from difflib import get_close_matches  # noqa: PLC0415

    from builder.errors import UsageError  # noqa: PLC0415
    from builder.index import listing  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415

    names = list(dict.fromkeys(normalised(name) for name in asked))
    if not names:
        others = {name for channel in listing.channels(house) for name in listing.projects(house, channel)}
        names = sorted({*shown.names, *(name for name in shown.projects if name not in others)})
    if missing := [name for name in names if name not in shown.projects]:
        known = get_close_matches(missing[0], shown.names) or shown.names[:10]
        more = " and more" if len(known) < len(shown.names) else ""
        raise UsageError(
            "project-missing",
            f"the index has no project {missing[0]}",
            cause=f"channel {shown.channel} has: {', '.join(known) or 'none'}{more}",
            run=(f"spark-build wheels list --channel {shown.channel}",),
        )
    return names


def _pinned_by(house: Wheelhouse, config: Config, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return, by project, the projects that its recipe says pin another version of it."""
    from builder.errors import RecipeError, UsageError  # noqa: PLC0415
    from builder.recipe.find import folders  # noqa: PLC0415
    from builder.recipe.load import load  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415

    recipes = {wheel.recipe for wheel in house.list_wheels() if wheel.project in names and wheel.recipe}
    found: dict[str, Sequence[str]] = {}
    for name in sorted(recipes):
        try:
            outputs = load(name, folders(config.recipe_layers)).recipe.output
        except (RecipeError, UsageError):  # it was there when the wheel was built, and is no more, or is being changed
            continue
        found |= {normalised(output.name): output.pinned_by for output in outputs if output.pinned_by}
    return found


def _paths_from(args: argparse.Namespace, index: Index, output: Path | None) -> str | None:
    from builder.errors import UsageError  # noqa: PLC0415

    if not args.relative:
        return None
    if not index.url.startswith("file:") or output is None:
        raise UsageError(
            "usage",
            "--relative takes a file:// index, and --output: the lock's folder, from which the paths go",
            cause=f"the index is {index.url}",
        )
    return str(output.resolve())


def _check_ours(output: Path, names: Iterable[str], command: str) -> None:
    """Raise UsageError ``output-taken`` when a file is there that isn't as an earlier run left it."""
    from builder.errors import HostError, UsageError  # noqa: PLC0415
    from builder.index import clients  # noqa: PLC0415

    for name in names:
        try:
            if not clients.is_sealed((output / name).read_bytes().decode(errors="replace")):
                raise UsageError(
                    "output-taken",
                    f"{output / name} was changed since it was written, or is somebody else's",
                    help="write to another folder and take over what you need, or replace it by --overwrite",
                    run=(f"{command} --output client",),
                )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError("unwritable", f"{output / name} can't be replaced", cause=str(error)) from error


def _write(output: Path, texts: Mapping[str, str]) -> None:
    from builder import durable  # noqa: PLC0415
    from builder.errors import HostError  # noqa: PLC0415

    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            new = output / f".{name}.new"
            durable.write_synced(new, text.encode())
            new.replace(output / name)
    except OSError as error:
        raise HostError("unwritable", f"{output} can't be written", cause=str(error)) from error


def _command(args: argparse.Namespace) -> str:
    from shlex import join  # noqa: PLC0415

    words = ["spark-build", "index", "client-config", "--format", args.format, "--channel", args.channel]
    words += ["--url", args.url] if args.url else []
    return join([*words, *(word for name in args.project for word in ("--project", name))])


def _explain(app: App, channel: str, index: Index, without: Sequence[str]) -> None:
    from urllib.parse import urlsplit  # noqa: PLC0415

    from builder.index import clients  # noqa: PLC0415

    if index.host and not index.is_loopback:
        names = " and ".join(clients.environment(index))
        app.stderr.write(f"a token, where the server wants one: {names} for uv in a project, else ~/.netrc:\n")
        app.stderr.write(f"  machine {urlsplit(index.url).hostname} login __token__ password TOKEN\n")
    if index.is_plain:
        app.stderr.write(f"warning: {index.url} has no TLS: pip refuses it, and wheels can be changed on the way\n")
    if index.host and channel != "local" and not index.url.endswith(f"/{channel}/simple/"):
        app.stderr.write(
            f"note: {index.url} is taken for pages of {channel} alone; of a server give the URL above simple/\n"
        )
    if index.folder and not (index.folder / "files").is_dir():
        app.stderr.write(f"warning: no index lies at {index.folder} now: `spark-build index export` makes one\n")
    if without:
        app.stderr.write(f"no wheel is offered of {', '.join(without)}: tied to this index all the same\n")
