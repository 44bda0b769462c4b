"""``spark-build index serve``: the wheelhouse as an index for a team."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.cli.app import App
    from builder.server.settings import Settings

SUMMARY = "serve the wheelhouse: index, uploads, pages for people"
EXAMPLES = """\
examples:
  spark-build index serve                                         for this machine, on port 8377
  spark-build index token new ci --scope publish                  who may publish
  mkdir /srv/wheels && spark-build index serve --wheelhouse /srv/wheels   a new wheelhouse, nothing in it yet
  spark-build index serve --bind 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --open-reads
  uv pip install --default-index http://127.0.0.1:8377/simple/ triton"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.description = (
        "Serve the wheelhouse over HTTP until SIGTERM or Ctrl-C; what runs is finished first. The first line on stdout is "
        "the URL. Reading is open on loopback addresses, and takes a token elsewhere unless --open-reads is given."
    )
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--bind", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8377, help="port to listen on; 0 takes a free one (default: 8377)")
    parser.add_argument("--tls-cert", metavar="FILE", help="serve https: PEM file with the certificate and its chain")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, where that isn't in the same file")
    parser.add_argument("--tokens", metavar="FILE", help="who may do what (default: tokens.toml in the wheelhouse)")
    reads = parser.add_mutually_exclusive_group()
    reads.add_argument("--open-reads", action="store_true", help="let everybody read who can reach the port")
    reads.add_argument(
        "--closed-reads", action="store_true", help="let only tokens read, on loopback, too: behind a proxy"
    )
    parser.add_argument("--access-log", metavar="FILE", help="write who asked for what there; - for stderr")
    parser.add_argument(
        "--ccache-size",
        metavar="SIZE",
        default="30GiB",
        help="what /ccache/ may hold for all compilers (default: 30GiB)",
    )
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the URL as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Serve; return 0 after SIGTERM, 130 after Ctrl-C."""
    import gc  # noqa: PLC0415

    from builder.server import run  # noqa: PLC0415  # aiohttp takes a quarter of a second

    settings = _settings(args, app)
    new = _is_new(settings.root)
    if not run.is_loopback(settings.bind) and settings.tls_cert is None:
        _tell(
            app,
            f"warning: {settings.bind} is served without TLS: tokens and wheels can be read and changed on the way; "
            "--tls-cert, or a proxy before it, mends that",
        )

    def announce(url: str) -> None:
        if args.json:
            app.print_json({"url": url, "index": f"{url}simple/", "upload": f"{url}legacy/"})
        else:
            app.print(url)
        app.stdout.flush()
        if new:
            _tell(app, f"made a new wheelhouse at {settings.root}: it holds nothing yet")
        _tell(app, f"serving {settings.root} at {url}simple/ (Ctrl-C stops)")
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)  # a server's garbage is small, and shall stay so

    return run.serve(settings, clock=app.clock, announce=announce, notify_socket=app.env.get("NOTIFY_SOCKET", ""))


def _is_new(root: Path) -> bool:
    """Whether the folder becomes a wheelhouse now. Raises UsageError ``wheelhouse-missing`` where there is no folder.

    A mistyped name would be an index without packages, which clients believe: they then look elsewhere, or say "not found".
    """
    import shlex  # noqa: PLC0415

    from builder.errors import UsageError  # noqa: PLC0415

    if root.is_dir():
        return not (root / "catalog.sqlite3").exists()
    place = shlex.quote(str(root))
    raise UsageError(
        "wheelhouse-missing",
        f"there is no wheelhouse at {root}",
        help="a build makes one, and so does serving an empty folder; --wheelhouse names another place",
        run=(f"mkdir -p {place}", f"spark-build index serve --wheelhouse {place}"),
    )


def _tell(app: App, text: str) -> None:
    """Write a line of the log; that nobody reads it ends no server."""
    with contextlib.suppress(OSError):
        app.stderr.write(f"{text}\n")
        app.stderr.flush()


def _settings(args: argparse.Namespace, app: App) -> Settings:
    from builder.errors import UsageError  # noqa: PLC0415
    from builder.server import run  # noqa: PLC0415
    from builder.server.settings import Settings  # noqa: PLC0415

    if not 0 <= args.port <= 65535:  # noqa: PLR2004
        raise UsageError("usage", f"--port is {args.port}, wanted a number from 0 to 65535")
    if args.tls_key and not args.tls_cert:
        raise UsageError("usage", "--tls-key without --tls-cert", run=("spark-build index serve --help",))
    config = app.config()
    index = config.index
    tokens = args.tokens or index.get("tokens")
    by_itself = run.is_loopback(args.bind) and not args.closed_reads and not args.open_reads
    log = args.access_log
    return Settings(
        root=config.wheelhouse,
        bind=args.bind,
        port=args.port,
        tls_cert=app.cwd / args.tls_cert if args.tls_cert else None,
        tls_key=app.cwd / args.tls_key if args.tls_key else None,
        tokens=app.cwd / tokens if tokens else config.wheelhouse / "tokens.toml",
        open_reads=args.open_reads or by_itself,
        any_host=not by_itself,
        reserve=tuple(index.get("reserve", ())),
        superseded=index.get("superseded", "hide"),
        passthrough=tuple(index.get("pass-through", ())),
        passthrough_url=index.get("pass-through-url") or config.index_url,
        ccache_bytes=_size(args.ccache_size),
        public_url=index.get("public-url"),
        signers=config.signers,
        access_log=log if log in {None, "-"} else str(app.cwd / log),
    )


def _size(text: str) -> int:
    from builder.errors import UsageError  # noqa: PLC0415
    from builder.recipe.units import parse_bytes  # noqa: PLC0415

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise UsageError("usage", f"--ccache-size is {text}", cause=str(error)) from error
