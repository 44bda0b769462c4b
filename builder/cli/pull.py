"""``spark-build wheels pull``: wheels of a server into this wheelhouse, through the same gate as ``wheels add``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.cli import team
from builder.errors import SourceError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.pipeline.intake import Taken
    from builder.stages import Stored
    from builder.upstream.offers import Offer
    from builder.upstream.server import Server
    from builder.wheelhouse import Wheelhouse

__all__ = ["EXPLAINED", "PREFIX", "add_arguments", "run"]

EXPLAINED = """\
A PROJECT means its newest wheel there that isn't yanked; a REF is a file name, or the start of a fingerprint (then
all wheels of that build come) or sha256. With --channel and no REF all that the channel lists comes, in its order.
--into NAME puts them into a channel here as well: at its end, or as the very list where a whole channel is pulled.

They are audited together as by `wheels add`; where one is refused none is added, and the exit code is 5."""

#: What folders in ``builds`` are called in which wheels come in, followed by their sha256.
PREFIX = ".pull-"

_YANKED = "yanked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.add_argument("ref", nargs="*", metavar="REF", help="wheels there, or a project")
    parser.add_argument("--channel", metavar="NAME", help="of what this channel there lists (default: local)")
    parser.add_argument(
        "--from", dest="source", metavar="URL", help="the server (default: wheelhouse.upstream of the configuration)"
    )
    parser.add_argument("--into", metavar="NAME", help="let this channel here list them, too")
    parser.add_argument("--target", metavar="C", help="the compute capability (default: 12.1, a GB10)")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="ID[=REASON]", help="let this finding pass; may be repeated"
    )


def run(args: argparse.Namespace, app: App) -> int:
    """Fetch what isn't here, judge it, and file all or none of it.

    Raises UsageError ``wheel-ref``, CheckRefused ``wheel-withheld``, and as `upstream.fetch.wheel` and
    `pipeline.intake.take` do.
    """
    import shutil  # noqa: PLC0415

    from builder.cli.wheels import opened, refresh_index  # noqa: PLC0415
    from builder.pipeline import intake, shared  # noqa: PLC0415
    from builder.wheelhouse import channel  # noqa: PLC0415

    if not args.ref and not args.channel:
        raise UsageError("usage", "name wheels, a project, or a --channel", run=("spark-build wheels pull --help",))
    if args.into:
        channel.check(args.into)
    server = team.server(args.source, app, option="--from")
    offers = _wanted(args, server)

    def tell(holder: str) -> None:
        app.stderr.write(f"waiting for another pull: {holder}\n")
        app.stderr.flush()

    # Two at once would write to the same parts, and take each other's files away.
    with opened(app, create=True) as house, house.build_lock(PREFIX, on_wait=tell):
        shared.require_welcome(house, offers)
        there = {wheel.sha256: wheel for wheel in house.list_wheels(include_unpublished=True) if _is_good(house, wheel)}
        lacking = [offer for offer in offers if offer.sha256 not in there]
        places = {offer.sha256: house.root / "builds" / f"{PREFIX}{offer.sha256}" for offer in lacking}
        with team.interruptible():
            paths = _fetched(app, server, lacking, places)
            try:
                taken = _filed(args, app, house, paths)
            except intake.Refused as error:
                error.run = (f"spark-build audit {shlex.join(map(str, paths))}", _again(args, error.slugs))
                raise
        _remember(house, taken, server.url)
        for folder in places.values():
            shutil.rmtree(folder, ignore_errors=True)
        stored = there | {one.wheel.sha256: one.wheel for one in taken}
        wheels = [stored[offer.sha256] for offer in offers]
        if args.into:
            (channel.append if args.ref else channel.promote)(house, args.into, wheels)
        refresh_index(house, app)
    _print(app, args, wheels, [offer.sha256 for offer in lacking], server)
    return 0


def _wanted(args: argparse.Namespace, server: Server) -> list[Offer]:
    """Return what is to be here, in the server's order, each once. Raises UsageError ``wheel-ref``."""
    from builder.upstream import offers  # noqa: PLC0415

    where = args.channel or "local"
    try:
        if not args.ref:
            return [one for one in offers.channel(server, where) if one.state != _YANKED]
        found = [one for ref in args.ref for one in _named(server, where, ref)]
    except SourceError as error:
        if error.code == "upstream-missing":
            error.run = (f"curl -s {server.url}/api/channels",)
        raise
    return list({one.sha256: one for one in found}.values())


def _named(server: Server, where: str, ref: str) -> Iterator[Offer]:
    from builder.upstream import offers  # noqa: PLC0415

    found = offers.channel(server, where, ref=ref)
    if len({one.fingerprint or one.sha256 for one in found}) == 1:
        yield from found
        return
    newest = [one for one in offers.channel(server, where, project=ref) if one.state != _YANKED] if not found else []
    if not newest:
        raise UsageError(
            "wheel-ref",
            f"{ref} names {len(found) or 'no'} wheels of channel {where} at {server.url}",
            cause=", ".join(one.filename for one in found[:5])
            or "no project, file name, fingerprint or sha256 is like that",
            run=(f"curl -s {server.url}/api/channels/{where}",),
        )
    yield newest[-1]


def _is_good(house: Wheelhouse, wheel: Stored) -> bool:
    return wheel.state != "unpublished" and house.is_whole(wheel)


def _fetched(app: App, server: Server, lacking: Sequence[Offer], places: dict[str, Path]) -> list[Path]:
    from builder.upstream import fetch  # noqa: PLC0415

    with team.telling(app, "fetched") as tell:
        return [fetch.wheel(server, offer, places[offer.sha256], tell) for offer in lacking]


def _filed(args: argparse.Namespace, app: App, house: Wheelhouse, paths: Sequence[Path]) -> list[Taken]:
    from builder import signature  # noqa: PLC0415
    from builder.pipeline import intake, judged  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    config = app.config()
    sign = signature.signer(config.signing_key, env=app.env)
    with shown.progress(app.stderr, app.env, app.clock) as tell:
        examined = intake.examine(
            paths,
            config=config,
            env=app.env,
            target=args.target or judged.TARGET,
            accepted=judged.accepted(args.accept),
            tell=tell,
        )
    return intake.file(house, examined, sign=sign)


def _remember(house: Wheelhouse, taken: Sequence[Taken], url: str) -> None:
    """Keep where the wheels are from."""
    from builder.wheelhouse import foreign, publish  # noqa: PLC0415

    for one in taken:
        if not one.there and (kept := foreign.kept(house, one.wheel.sha256)) is not None:
            house.remember(publish.FOREIGN, one.wheel.sha256, {**kept, "from": url})


def _again(args: argparse.Namespace, slugs: Sequence[str]) -> str:
    """Return this command, with findings let pass."""
    words = ["spark-build", "wheels", "pull", *args.ref]
    for option, value in (
        ("channel", args.channel),
        ("from", args.source),
        ("into", args.into),
        ("target", args.target),
    ):
        words += [f"--{option}", value] if value else []
    words += [f"--accept={word}" for word in args.accept]
    return " ".join([shlex.join(words), *(f'--accept {slug}="REASON"' for slug in slugs)])


def _print(
    app: App, args: argparse.Namespace, wheels: Sequence[Stored], fetched: Sequence[str], server: Server
) -> None:
    from builder.ui import wheels as shown  # noqa: PLC0415

    if args.json:
        rows = [{**shown.as_json(wheel), "cached": wheel.sha256 not in fetched} for wheel in wheels]
        app.print_json({"from": server.url, "channel": args.into, "wheels": rows})
        return
    for wheel in wheels:
        app.print(str(wheel.path))
    app.stderr.write(f"{len(fetched)} of {len(wheels)} fetched from {server.url}\n")
