"""``spark-build index token``: who may read, publish and administer over the network."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from builder.cli.app import App
    from builder.server.tokens import Token

SUMMARY = "make, list and revoke tokens of the server"
EXAMPLES = """\
examples:
  spark-build index token new ci --scope publish                         prints the token, this once
  spark-build index token new nightly --scope publish --channel 'nightly/*' --expires 2027-06-30
  spark-build index token list
  spark-build index token revoke ci"""
#: Seconds that another command may take to change the file.
_WAIT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.description = "Tokens of the server. Their file keeps only digests; who loses a token gets a new one."
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="token_verb", metavar="VERB", required=True)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, help=summary, description=summary, epilog=EXAMPLES, formatter_class=parser.formatter_class
        )

    new = verb("new", "make a token and print it")
    new.add_argument("name", metavar="NAME", help="whose it is; shown in logs")
    new.add_argument(
        "--scope",
        action="append",
        choices=["read", "publish", "admin"],
        required=True,
        help="what it is good for: read; publish, which has read; admin, which has all",
    )
    new.add_argument(
        "--channel", action="append", default=[], metavar="GLOB", help="publish only to such channels (repeatable)"
    )
    new.add_argument(
        "--expires", metavar="DATE", help="first day on which it doesn't hold any more, such as 2027-01-31"
    )
    revoke = verb("revoke", "take a token out; a running server knows at once")
    revoke.add_argument("name", metavar="NAME", help="whose")
    listed = verb("list", "show all of them, without what is secret")
    for one in (new, revoke, listed):
        one.add_argument("--tokens", metavar="FILE", help="token file (default: tokens.toml in the wheelhouse)")
        one.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
        one.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Do what was asked and print it."""
    config = app.config()
    named = args.tokens or config.index.get("tokens")
    path = app.cwd / named if named else config.wheelhouse / "tokens.toml"
    match args.token_verb:
        case "new":
            return _new(args, app, path)
        case "revoke":
            return _revoke(args, app, path)
    return _list(args, app, path)


def _new(args: argparse.Namespace, app: App, path: Path) -> int:
    import secrets  # noqa: PLC0415

    from builder.errors import UsageError  # noqa: PLC0415
    from builder.server import tokens  # noqa: PLC0415

    if not args.name.isprintable() or not args.name.strip() or ":" in args.name:
        raise UsageError(
            "token-name", f"{args.name!r} can't be the name of a token", cause="wanted printable text, no `:`"
        )
    secret = f"sbt_{secrets.token_urlsafe(32)}"
    made = tokens.Token(
        name=args.name,
        sha256=tokens.digest(secret),
        scopes=tuple(dict.fromkeys(args.scope)),
        channels=tuple(args.channel),
        expires=_date(args.expires) if args.expires else None,
    )
    with _locked(path):
        known = tokens.read(path)
        if any(one.name == args.name for one in known):
            raise UsageError(
                "token-name",
                f"there is a token {args.name} already",
                run=(
                    "spark-build index token list",
                    shlex.join(["spark-build", "index", "token", "revoke", args.name]),
                ),
            )
        text = path.read_text() if path.exists() else _HEAD
        _write(path, f"{text.rstrip()}\n\n{_entry(made)}", (*known, made))
    if args.json:
        app.print_json({"token": {**_as_json(made), "secret": secret}})
    else:
        app.print(secret)
        app.stderr.write(
            f"made the token {made.name} ({', '.join(made.scopes)}); it is kept nowhere, so keep it now\n"
            f"try: UV_PUBLISH_TOKEN=… uv publish --publish-url http://127.0.0.1:8377/legacy/ dist/*\n"
        )
    return 0


_HEAD = "# Who may do what on the server. Made by `spark-build index token`; the tokens themselves are kept nowhere.\n"


def _date(text: str) -> date:
    from datetime import date  # noqa: PLC0415

    from builder.errors import UsageError  # noqa: PLC0415

    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError("usage", f"--expires is {text}, wanted a date such as 2027-01-31") from error


def _entry(token: Token) -> str:
    import tomli_w  # noqa: PLC0415

    value: dict[str, object] = {"name": token.name, "sha256": token.sha256, "scopes": list(token.scopes)}
    if token.channels:
        value["channels"] = list(token.channels)
    if token.expires:
        value["expires"] = token.expires
    return tomli_w.dumps({"token": [value]})


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let nobody else change the file: of two who write what they read, one's token would be lost, or come back."""
    from builder.wheelhouse import locks  # noqa: PLC0415

    with locks.held(path.with_name(f".{path.name}.lock"), timeout_s=_WAIT_S):
        yield


def _write(path: Path, text: str, wanted: Sequence[Token]) -> None:
    """Leave `text` in the file, at once, for its owner only; raise UsageError ``tokens-shape`` where that isn't `wanted`."""
    import os  # noqa: PLC0415

    from builder import durable  # noqa: PLC0415
    from builder.errors import UsageError  # noqa: PLC0415
    from builder.server import tokens  # noqa: PLC0415

    try:
        right = tokens.parse(text.encode(), path) == tuple(wanted)
    except UsageError:
        right = False
    if not right:
        raise UsageError(
            "tokens-shape",
            f"{path} isn't written as this command writes it, and was left as it is",
            help="tables [[token]] of one line a key can be changed by it; all else by hand",
            run=(f"${{EDITOR:-vi}} {shlex.quote(str(path))}", "spark-build index token list"),
        )
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if path.exists() and os.geteuid() == 0:  # else the server, which runs as somebody else, couldn't read it any more
        os.chown(beside, path.stat().st_uid, path.stat().st_gid)
    durable.write_synced(beside, text.encode())
    beside.replace(path)
    durable.sync_folder(path.parent)


def _revoke(args: argparse.Namespace, app: App, path: Path) -> int:
    from builder.errors import UsageError  # noqa: PLC0415
    from builder.server import tokens  # noqa: PLC0415

    with _locked(path):
        known = tokens.read(path)
        if all(one.name != args.name for one in known):
            raise UsageError(
                "token-missing",
                f"there is no token {args.name}",
                cause=f"known: {', '.join(one.name for one in known) or 'none'}",
                run=("spark-build index token list",),
            )
        _write(path, _without(path.read_text(), args.name), [one for one in known if one.name != args.name])
    if args.json:
        app.print_json({"revoked": args.name})
    else:
        app.stderr.write(f"the token {args.name} doesn't hold any more\n")
    return 0


def _without(text: str, name: str) -> str:
    """Return the text of a file without the table of one token; as it is where that can't be told from the rest."""
    import tomllib  # noqa: PLC0415

    parts: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.strip().replace(" ", "").startswith("[[token]]"):
            parts.append([])
        parts[-1].append(line)
    try:
        return "".join(
            part
            for number, part in enumerate("".join(lines) for lines in parts)
            if number == 0 or tomllib.loads(part)["token"][0]["name"] != name
        )
    except (tomllib.TOMLDecodeError, LookupError):
        return text


def _list(args: argparse.Namespace, app: App, path: Path) -> int:
    from builder.server import tokens  # noqa: PLC0415

    known = tokens.read(path)
    if args.json:
        app.print_json({"tokens": [_as_json(one) for one in known]})
        return 0
    for one in known:
        where = f"  to {', '.join(one.channels)}" if one.channels else ""
        until = f"  until {one.expires}" if one.expires else ""
        app.print(f"{one.name}  {', '.join(one.scopes)}{where}{until}")
    if not known:
        app.stderr.write(f"{path} has none; make one: spark-build index token new NAME --scope publish\n")
    return 0


def _as_json(token: Token) -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "channels": list(token.channels),
        "expires": token.expires.isoformat() if token.expires else None,
        "sha256": token.sha256,
    }
