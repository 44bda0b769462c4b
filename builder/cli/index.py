"""``spark-build index``: the wheelhouse as a package index."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.index import Exported

EXAMPLES = """\
examples:
  spark-build index export /srv/wheels                    then let any web server serve that folder
  spark-build index export /media/stick/wheels
  uv pip install --default-index file:///media/stick/wheels/simple flashinfer-python --no-deps"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    export = verbs.add_parser(
        "export",
        help="write a static index: pages, JSON, wheels, METADATA",
        description="Write a channel as a tree of files that pip and uv install from, over file:// or any web server.",
        epilog=EXAMPLES,
        formatter_class=parser.formatter_class,
    )
    export.add_argument(
        "folder", metavar="DIR", help="an empty or new folder, or an earlier export to bring up to date"
    )
    export.add_argument("--channel", default="local", help="what to list (default: local, all that was built here)")
    export.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    export.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Write the index and print the URL to give to clients."""
    from builder import index  # noqa: PLC0415
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    with Wheelhouse.open(app.config().wheelhouse, clock=app.clock, create=False) as house:
        done = index.export(house, app.cwd / args.folder, channel=args.channel)
    if args.json:
        app.print_json({"index": _as_json(done)})
        return 0
    app.print(done.url)
    for line in _summary(done):
        app.stderr.write(line + "\n")
    return 0


def _as_json(done: Exported) -> dict[str, object]:
    written = done.written
    return {
        "path": str(done.path),
        "url": done.url,
        "channel": done.channel,
        "projects": list(done.projects),
        "wheels": done.wheels,
        "linked": written.linked,
        "copied": written.copied,
        "copied_bytes": written.copied_bytes,
        "pages_written": written.pages,
        "removed": written.removed,
    }


def _summary(done: Exported) -> list[str]:
    written = done.written
    changes = [
        f"{count} {what}"
        for count, what in (
            (written.linked, "linked"),
            (written.copied, f"copied ({written.copied_bytes} bytes)"),
            (written.pages, "pages written"),
            (written.removed, "files removed"),
        )
        if count
    ]
    lines = [f"{done.wheels} wheels of {len(done.projects)} projects: {', '.join(changes) or 'nothing had changed'}"]
    if done.projects:
        lines.append(f"try: uv pip install --default-index {done.url} --no-deps {done.projects[0]}")
    return lines
