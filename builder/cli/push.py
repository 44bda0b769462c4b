"""``spark-build wheels push``: wheels with their records to a server, published there in one step."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.cli import team
from builder.errors import CheckRefused, SourceError, UsageError, WheelhouseError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.errors import SparkError
    from builder.stages import Stored
    from builder.upstream.push import Sent
    from builder.upstream.server import Server
    from builder.wheelhouse import Wheelhouse

__all__ = ["EXPLAINED", "add_arguments", "run"]

#: A server publishes so many wheels in one step.
MOST = 256

EXPLAINED = """\
All are sent with records and signatures, audited there together, and published in one step: all or none. What the
server has isn't sent again, nor what it got before a cut. With --channel and no REF what that channel lists goes, in
its order; with --to-channel a channel there gets them at its end, or lists nothing else with --replace.

The token is in SPARK_BUILD_TOKEN, in the file that wheelhouse.upstream-token-file names, or in ~/.netrc. It needs the
scope publish; admin for --replace and --accept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.add_argument("ref", nargs="*", metavar="REF", help="wheels; a fingerprint means all that have it")
    parser.add_argument("--channel", metavar="NAME", help="what this channel here lists, in its order")
    parser.add_argument("--to", metavar="URL", help="the server (default: wheelhouse.upstream of the configuration)")
    parser.add_argument("--to-channel", metavar="NAME", help="let this channel there list them, too")
    parser.add_argument("--replace", action="store_true", help="let that channel list nothing else")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="ID[=REASON]",
        help="let this finding pass there; may be repeated",
    )


def run(args: argparse.Namespace, app: App) -> int:
    """Send what the server lacks, then publish all of it there.

    Raises UsageError, CheckRefused and SourceError as `upstream.push` does, WheelhouseError ``wheel-changed``.
    """
    from builder.cli.wheels import opened  # noqa: PLC0415

    if not args.ref and not args.channel:
        raise UsageError("usage", "name wheels, or a --channel", run=("spark-build wheels push --help",))
    if args.replace and not args.to_channel:
        raise UsageError("usage", "--replace is about a channel there, which --to-channel names")
    server = team.server(args.to, app, option="--to")
    with opened(app) as house:
        wheels = _wanted(args, house)
        if len(wheels) > MOST:
            raise UsageError(
                "push-many", f"{len(wheels)} wheels are too many for one step", help=f"push {MOST} at most"
            )
        for wheel in wheels:
            _require_good(house, wheel)
    try:
        with team.interruptible():
            sent, fresh = _sent(app, server, wheels)
            answer = _publish(args, server, sent)
    except (CheckRefused, SourceError, UsageError) as error:
        error.run = _next(args, error, server, wheels[0]) or error.run
        raise
    if args.json:
        rows = [
            {"filename": one.filename, "sha256": one.sha256, "size": one.size, "sent": one in fresh} for one in sent
        ]
        app.print_json({"to": server.url, "channel": args.to_channel, "wheels": rows, "answer": answer})
        return 0
    for one in sent:
        app.print(f"{one.filename}{'' if one in fresh else '  was there'}")
    app.stderr.write(
        f"{len(fresh)} of {len(sent)} sent; published at {server.url}/{args.to_channel or 'local'}/simple/\n"
    )
    return 0


def _wanted(args: argparse.Namespace, house: Wheelhouse) -> list[Stored]:
    """Return the wheels in the order in which they are to be listed, each once."""
    from builder.wheelhouse import channel  # noqa: PLC0415

    pool = channel.members(house, args.channel) if args.channel else house.list_wheels()
    if not args.ref:
        found = [wheel for wheel in pool if wheel.state == "published"]
        if not found:
            raise UsageError(
                "channel-empty",
                f"channel {args.channel} lists no published wheel",
                run=(f"spark-build wheels list --channel {args.channel} --all",),
            )
        return found
    named: dict[str, Stored] = {}
    for ref in args.ref:
        some = [wheel for wheel in pool if wheel.state == "published" and _is_build(ref, wheel)]
        if not some or len({wheel.fingerprint for wheel in some}) > 1:
            some = [house.get(ref)]
        named.update((wheel.sha256, wheel) for wheel in some)
    return list(named.values())


def _is_build(ref: str, wheel: Stored) -> bool:
    return len(ref) > 1 and bool(wheel.fingerprint) and wheel.fingerprint.startswith(ref)


def _require_good(house: Wheelhouse, wheel: Stored) -> None:
    if wheel.state != "published":
        raise UsageError(
            "wheel-unpublished",
            f"{wheel.filename} is {wheel.state}: it isn't handed on",
            run=(f"spark-build wheels show {wheel.sha256[:12]}",),
        )
    if not house.is_whole(wheel):
        raise WheelhouseError(
            "wheel-changed", f"{wheel.filename} isn't what was published", run=("spark-build wheels verify",)
        )


def _sent(app: App, server: Server, wheels: list[Stored]) -> tuple[list[Sent], list[Sent]]:
    """Stage what the server lacks; return all, and those."""
    from builder.upstream import push  # noqa: PLC0415
    from builder.wheelhouse.publish import sidecar, signature  # noqa: PLC0415

    every = [push.Sent(path=one.path, filename=one.filename, sha256=one.sha256, size=one.size) for one in wheels]
    fresh = [one for one in every if not push.is_there(server, one)]
    with team.telling(app, "sent") as tell:
        for one in fresh:  # the wheel last: with it there is something to publish
            for file in (sidecar(one.path), signature(one.path), one.path):
                if file.is_file():
                    push.stage(server, one, file, file.name, tell)
    return every, fresh


def _publish(args: argparse.Namespace, server: Server, sent: list[Sent]) -> dict[str, object]:
    from builder.pipeline import judged  # noqa: PLC0415
    from builder.upstream import push  # noqa: PLC0415

    accept = [{"id": one.id, "reason": one.reason} for one in judged.accepted(args.accept)]
    return push.publish(server, sent, channel=args.to_channel, replace=args.replace, accept=accept)


def _next(args: argparse.Namespace, error: SparkError, server: Server, wheel: Stored) -> tuple[str, ...]:
    """Return what to type after a refusal of the server."""
    match error.code:
        case "upstream-denied":
            scope = "admin" if args.replace or args.accept else "publish"
            return f"spark-build index token new NAME --scope {scope}", "export SPARK_BUILD_TOKEN=TOKEN"
        case "name-taken" | "build-taken":
            return (f"spark-build wheels pull {wheel.project} --from {server.url}",)
        case "audit-refused":
            return _again(args, '--accept ID="REASON"'), f"spark-build audit {shlex.quote(str(wheel.path))}"
    return ()


def _again(args: argparse.Namespace, more: str = "") -> str:
    """Return this command, with more words."""
    words = ["spark-build", "wheels", "push", *args.ref]
    for option in ("channel", "to", "to_channel"):
        if value := getattr(args, option):
            words += [f"--{option.replace('_', '-')}", value]
    words += ["--replace"] if args.replace else []
    words += [f"--accept={word}" for word in args.accept]
    return f"{shlex.join(words)} {more}".rstrip()
