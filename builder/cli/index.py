"""``spark-build index``: the wheelhouse as a package index: served, as a tree of files, and what its clients need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from builder.cli import client_config, serve, token
from builder.cli.request import add_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from builder.cli.app import App
    from builder.config import Config
    from builder.events import Event
    from builder.index import Exported
    from builder.wheelhouse import Wheelhouse

EXAMPLES = """\
examples:
  spark-build index serve                                     an index over HTTP, for this machine
  spark-build index token new ci --scope publish              who may publish there
  spark-build index client-config --format uv                 what a project's pyproject.toml needs
  spark-build index export /srv/wheels --all                  a tree of files, for nginx or any web server"""

EXPORT = """\
The folder must be new, empty or an earlier export: what is no longer listed is taken away, and what was right
already isn't touched. Wheels are hard links where the file system is the same, else copies whose sha256 is
checked. A channel's pages change in one step; a run that is killed leaves the old ones or the new ones.

Builds that a later one replaced aren't on pages and stay in files/, since locks name them; --no-superseded
leaves them out, which keeps a stick small. nginx.conf in the folder makes nginx answer as `index serve` does.

examples:
  spark-build index export /srv/wheels --all                  every channel, each at <channel>/simple/
  spark-build index export /media/stick/wheels --channel team/stable --no-superseded
  uv pip install --default-index file:///media/stick/wheels/simple flashinfer-python --no-deps"""

#: How often bytes are told, in seconds.
_PERIOD_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its verbs."""
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=summary, description=summary, formatter_class=parser.formatter_class)

    serve.add_arguments(verb("serve", serve.SUMMARY))
    token.add_arguments(verb("token", token.SUMMARY))
    _add_export(verb("export", "write channels as a tree of files that pip and uv install from"))
    client_config.add_arguments(verb("client-config", client_config.SUMMARY))


def _add_export(export: argparse.ArgumentParser) -> None:
    export.description = (
        "Write a channel, or all of them, as a tree of files: pages, JSON, wheels, METADATA, pages for people. Clients "
        "install from it over file://, or from any web server."
    )
    export.epilog = EXPORT
    export.add_argument("folder", metavar="DIR", help="a new or empty folder, or an earlier export")
    which = export.add_mutually_exclusive_group()
    which.add_argument("--channel", default="local", help="what to list (default: local, all that was built here)")
    which.add_argument("--all", action="store_true", help="every channel, laid out as a server does")
    export.add_argument("--no-superseded", action="store_true", help="leave out wheels that no page names any more")
    export.add_argument("--no-pages", action="store_true", help="leave out the pages for people")
    export.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    export.add_argument("--json", action="store_true", help="print the result as JSON")
    add_progress(export)


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the verb says."""
    verbs: dict[str, Callable[[argparse.Namespace, App], int]] = {
        "serve": serve.run,
        "token": token.run,
        "export": _export,
        "client-config": client_config.run,
    }
    return verbs[args.verb](args, app)


def _export(args: argparse.Namespace, app: App) -> int:
    """Write the tree and print the URL to give to clients."""
    from builder import index  # noqa: PLC0415
    from builder.ui import select  # noqa: PLC0415
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    config = app.config()
    dest = app.cwd / args.folder
    channel = None if args.all else args.channel
    with Wheelhouse.open(config.wheelhouse, clock=app.clock, create=False) as house:
        screen = select.screen(args.progress, stream=app.stderr, env=app.env, clock=app.clock, color=args.color, keys=0)
        told = partial(_teller, screen.emit, app.clock)
        try:
            done = index.export(
                house,
                dest,
                channel=channel,
                superseded=config.index.get("superseded", "hide"),
                reserve=config.index.get("reserve", ()),
                keep=not args.no_superseded,
                more=tuple if args.no_pages else lambda: _pages(house, channel, config, told("pages for people")),
                tell=told(f"wheels for {dest}"),
            )
        finally:
            screen.close()
    if args.json:
        app.print_json({"index": _as_json(done)})
        return 0
    app.print(done.url)
    for line in _summary(done):
        app.stderr.write(line + "\n")
    return 0


def _pages(
    house: Wheelhouse, channel: str | None, config: Config, tell: Callable[[int, int | None], None]
) -> Iterator[tuple[str, bytes]]:
    from builder.pipeline import pages  # noqa: PLC0415

    made = 0
    url, shown = config.index.get("public-url"), None if channel is None else [channel]
    for path, data in pages.tree(house, shown, url=url, signers=config.signers):
        yield path, data
        made += len(data)
        tell(made, None)


def _teller(emit: Callable[[Event], None], clock: Callable[[], float], what: str) -> Callable[[int, int | None], None]:
    """Return what tells a screen how many bytes are in place, of how many, now and then."""
    from builder.events import Fetching  # noqa: PLC0415

    last = clock()

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        now = clock()
        if now - last >= _PERIOD_S or done == total:
            last = now
            emit(Fetching(name=what, done=done, total=total))

    return tell


def _as_json(done: Exported) -> dict[str, object]:
    written = done.written
    return {
        "path": str(done.path),
        "url": done.url,
        "channels": list(done.channels),
        "projects": list(done.projects),
        "wheels": done.wheels,
        "linked": written.linked,
        "copied": written.copied,
        "copied_bytes": written.copied_bytes,
        "pages_written": written.pages,
        "removed": written.removed,
    }


def _summary(done: Exported) -> list[str]:
    from builder.recipe.units import show_bytes  # noqa: PLC0415

    written = done.written
    changes = [
        f"{count} {what}"
        for count, what in (
            (written.linked, "linked"),
            (written.copied, f"copied ({show_bytes(written.copied_bytes)})"),
            (written.pages, "pages written"),
            (written.removed, "files removed"),
        )
        if count
    ]
    of = f"{len(done.projects)} projects" + (f" in {len(done.channels)} channels" if len(done.channels) > 1 else "")
    lines = [f"{done.wheels} wheels of {of}: {', '.join(changes) or 'nothing had changed'}"]
    if done.example:
        lines.append(f"try: uv pip install --default-index {done.url} --no-deps {done.example}")
    if done.projects:
        of = "" if "local" in done.channels else f" --channel {done.channels[0]}"
        lines.append(f"for projects: spark-build index client-config{of} --url {done.url}")
    return lines
