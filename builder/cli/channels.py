"""What channels list, and what isn't offered any more: ``spark-build wheels promote | rollback | history | yank | …``."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from builder.cli.app import App
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse
    from builder.wheelhouse.states import State, Status

__all__ = ["EXAMPLES", "VERBS", "add_arguments", "run"]

EXAMPLES = """\
  spark-build wheels promote team/stable 3f9ac1d    let the channel list the wheels of this build, and no others
  spark-build wheels promote team/stable 8d02b4e --append --dry-run
  spark-build wheels rollback team/stable           what it listed before
  spark-build wheels rollback team/stable --to 3    what it listed as number 3 of its history
  spark-build wheels history team/stable            what it listed when
  spark-build wheels yank 3f9ac1d --reason "wrong results on sm_121"
  spark-build wheels yank 3f9ac1d --undo
  spark-build wheels quarantine 3f9ac1d --reason "made on a machine that was broken into"
  spark-build wheels quarantine --project tiny-wheel
  spark-build wheels status tiny-wheel archived --reason "use other-wheel"
"""

PROMOTE = """\
CHANNEL is a word or two, as `stable` or `team/stable`; the first promotion makes it. It lists the wheels in the
order in which they are given, all at once: a client sees the set of before or the new one. A REF that starts a
fingerprint means the wheels of that build, of each output the last. Where two builds of ours differ in their
label only, pages offer the last of them; the others are in the channel all the same. Serve it with
`spark-build index serve`, or `spark-build index export DIR --channel CHANNEL`."""

ROLLBACK = """\
Each rollback goes one step further back; --to takes a number of `wheels history`, and so goes forward, too. Where
a wheel of then was removed, yanked or quarantined, nothing is changed: part of a set is never brought back."""

HISTORY = """\
Every change has a number, which stays. Wheels that were removed since are named as gone."""

YANK = """\
Installers leave a yanked wheel alone unless it is pinned to exactly, and show the reason. Where it was the newest
build of its version, the one before it is offered again. A REF that starts a fingerprint means all that was ever
made of that build. A quarantined wheel isn't yanked: it would be given out again."""

QUARANTINE = """\
A quarantined wheel is on no page, and its file isn't given out (403, with the reason). With --project all wheels of
a project are, whatever comes, and nobody can upload to it. The name stays answered, so that no client looks for it
elsewhere. A REF that starts a fingerprint means all that was ever made of that build. A quarantined wheel that is
removed and comes back is quarantined still; after --release it is offered, also where it was yanked before."""

STATUS = """\
Shown to clients as in PEP 792. `archived` and `quarantined` projects take no uploads; pages of a `quarantined` one
list no files. Without a status, the one that it has is printed."""

#: Each verb with its line of help and what is said below it.
VERBS = {
    "promote": ("let a channel list these wheels, and no others", PROMOTE),
    "rollback": ("let a channel list what it did before", ROLLBACK),
    "history": ("what a channel listed when", HISTORY),
    "yank": ("let installers leave wheels alone, unless they are pinned to exactly", YANK),
    "quarantine": ("take wheels, or a whole project, off all pages and don't give them out", QUARANTINE),
    "status": ("show or set the status of a project", STATUS),
}

_HEX = re.compile(r"[0-9a-f]{4,64}")


def add_arguments(verb: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Declare the verbs; `verb` makes one from its name, its summary and its explanation."""
    made = {name: verb(name, summary, text) for name, (summary, text) in VERBS.items()}
    for name in ("promote", "rollback", "history"):
        made[name].add_argument("channel", metavar="CHANNEL", help="a channel, as team/stable")
    made["promote"].add_argument("ref", nargs="+", metavar="REF", help="wheels, in the order in which they are listed")
    made["promote"].add_argument("--append", action="store_true", help="keep what it lists; these come behind it")
    made["promote"].add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    made["rollback"].add_argument("--to", type=int, metavar="N", help="the number in its history (default: before)")
    made["yank"].add_argument("ref", nargs="+", metavar="REF", help="wheels")
    made["yank"].add_argument("--undo", action="store_true", help="offer them again")
    made["quarantine"].add_argument("ref", nargs="*", metavar="REF", help="wheels")
    made["quarantine"].add_argument("--project", metavar="NAME", help="a whole project instead")
    made["quarantine"].add_argument("--release", action="store_true", help="offer them again")
    made["status"].add_argument("project", metavar="PROJECT", help="a project")
    states = ("active", "archived", "deprecated", "quarantined")
    made["status"].add_argument("status", nargs="?", choices=states, metavar="STATUS", help=", ".join(states))
    for name in ("yank", "quarantine", "status"):
        made[name].add_argument("--reason", metavar="TEXT", default="", help="why; clients are shown it")


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the verb says."""
    verbs: dict[str, Callable[[argparse.Namespace, App], int]] = {
        "promote": _promote,
        "rollback": _rollback,
        "history": _history,
        "yank": _yank,
        "quarantine": _quarantine,
        "status": _status,
    }
    return verbs[args.verb](args, app)


def chosen(house: Wheelhouse, refs: Sequence[str], *, newest: bool = True) -> list[Stored]:
    """Return the wheels that `refs` name, each once; the start of a fingerprint names all that the build made.

    With `newest` that is the last one of each output: a rebuild may have given others.
    """
    found: dict[str, Stored] = {}
    for ref in refs:
        builds = house.catalogue.stored("fingerprint LIKE ?", (f"{ref}%",)) if _HEX.fullmatch(ref) else ()
        made = [wheel for wheel in builds if wheel.state != "unpublished"]
        one_build = len({wheel.fingerprint for wheel in builds}) == 1
        outputs = {wheel.output if newest else wheel.sha256: wheel for wheel in made}
        some = list(outputs.values()) if made and one_build else [house.get(ref)]
        found |= {wheel.sha256: wheel for wheel in some}
    return list(found.values())


def _promote(args: argparse.Namespace, app: App) -> int:
    from builder.cli.wheels import opened, refresh_index  # noqa: PLC0415
    from builder.wheelhouse import channel  # noqa: PLC0415

    with opened(app) as house:
        channel.check(args.channel)
        wheels = chosen(house, args.ref)
        before = channel.listed(house, args.channel) or []
        if args.dry_run:
            channel.require(house, wheels)
            digests = [wheel.sha256 for wheel in wheels]
            after = list(dict.fromkeys([*before, *digests] if args.append else digests))
        else:
            (channel.append if args.append else channel.promote)(house, args.channel, wheels)
            after = channel.listed(house, args.channel) or []
            refresh_index(house, app)
        return _changed(args, app, house, before, after)


def _rollback(args: argparse.Namespace, app: App) -> int:
    from builder.cli.wheels import opened, refresh_index  # noqa: PLC0415
    from builder.wheelhouse import channel  # noqa: PLC0415

    with opened(app) as house:
        before = channel.listed(house, args.channel) or []
        target = channel.rollback(house, args.channel, args.to)
        refresh_index(house, app)
        return _changed(args, app, house, before, channel.listed(house, args.channel) or [], number=target.number)


def _changed(
    args: argparse.Namespace,
    app: App,
    house: Wheelhouse,
    before: Sequence[str],
    after: Sequence[str],
    *,
    number: int | None = None,
) -> int:
    """Print what a channel lists now, what came and what went."""
    from builder.wheelhouse import names  # noqa: PLC0415

    name, dry = args.channel, bool(getattr(args, "dry_run", False))
    called = names.of(house, [*after, *before])
    came, went = ([one for one in some if one not in set(other)] for some, other in ((after, before), (before, after)))
    if args.json:
        lists = {"wheels": after, "came": came, "went": went}
        rows = {key: [{"filename": called[one], "sha256": one} for one in some] for key, some in lists.items()}
        told = {"name": name, "changed": list(before) != list(after), "dry_run": dry, "back_to": number, **rows}
        app.print_json({"channel": told})
        return 0
    for one in after:
        app.print(f"{'+' if one in came else ' '} {called[one]}")
    for one in went:
        app.print(f"- {called[one]}")
    what = f"{len(after)} wheel{'' if len(after) == 1 else 's'}"
    if list(before) == list(after):
        app.stderr.write(f"{name} lists {what}, as before\n")
        return 0
    back = f", as number {number} of its history" if number else ""
    app.stderr.write(f"{name} {'would list' if dry else 'lists'} {what}{back}: {len(came)} came, {len(went)} went\n")
    return 0


def _history(args: argparse.Namespace, app: App) -> int:
    from builder.cli.wheels import opened  # noqa: PLC0415
    from builder.ui import channels as shown  # noqa: PLC0415
    from builder.wheelhouse import channel, names  # noqa: PLC0415

    with opened(app) as house:
        channel.check(args.channel)
        past = channel.history(house, args.channel)
        called = names.of(house, [one for each in past for one in each.wheels])
        there = {wheel.sha256 for wheel in house.list_wheels(include_unpublished=True)}
    if args.json:
        app.print_json({"channel": args.channel, "history": shown.history_json(past, called, there)})
        return 0
    for line in shown.history_lines(past, called, there):
        app.print(line)
    return 0


def _yank(args: argparse.Namespace, app: App) -> int:
    return _set(args, app, "published" if args.undo else "yanked", back="--undo")


def _quarantine(args: argparse.Namespace, app: App) -> int:
    if bool(args.ref) == bool(args.project):
        raise UsageError("usage", "name wheels, or a --project", run=("spark-build wheels quarantine --help",))
    if args.project:
        return _set_status(args, app, "active" if args.release else "quarantined")
    return _set(args, app, "published" if args.release else "quarantined", back="--release")


def _set(args: argparse.Namespace, app: App, state: State, *, back: str) -> int:
    """Give wheels a state, and print those that it changed."""
    from builder.cli.wheels import opened, refresh_index, there  # noqa: PLC0415
    from builder.wheelhouse import states  # noqa: PLC0415

    if state == "published" and args.reason:
        raise UsageError(
            "usage",
            f"--reason doesn't go with {back}: nothing is withheld then",
            run=(shlex.join(["spark-build", "wheels", args.verb, *args.ref, back]),),
        )
    with opened(app) as house:
        wheels = chosen(house, args.ref, newest=False)
        if state == "published":
            _require(house, wheels, args.verb)
        elif state == "yanked":
            _require_offered(house, wheels)
        done = states.set(house, wheels, state, args.reason)
        refresh_index(house, app)
        channels = {wheel.sha256: house.channels(wheel) for wheel in done}
    if args.json:
        rows = [{"filename": one.filename, "sha256": one.sha256, "was": one.state} for one in done]
        app.print_json({"state": state, "reason": args.reason, "changed": rows})
        return 0
    for wheel in done:
        app.print(wheel.filename)
    same = f"{len(wheels)} wheel{'s' if len(wheels) > 1 else ''} {state} already\n"
    named = sorted({name for some in channels.values() for name in some})
    app.stderr.write(f"{state} now, in {', '.join(named) or 'no channel'}\n" if done else same)
    if done and state != "published":
        again = shlex.join(["spark-build", "wheels", args.verb, *(one.sha256[:12] for one in done), back])
        app.stderr.write(f"take it back with: {there(again, args)}\n")
    return 0


def _require(house: Wheelhouse, wheels: Sequence[Stored], verb: str) -> None:
    """Raise UsageError where what is taken back isn't what was done: a quarantine isn't ended by `yank --undo`."""
    wanted, other = ("yanked", "quarantine --release") if verb == "yank" else ("quarantined", "yank --undo")
    for wheel in wheels:
        if wheel.state not in {wanted, "published"}:
            from builder.wheelhouse import states  # noqa: PLC0415

            told = states.withheld(house, wheel.sha256)
            raise UsageError(
                f"not-{wanted}",
                f"{wheel.filename} isn't {wanted}, it is {wheel.state}",
                cause=told.reason if told else "",
                run=(f"spark-build wheels {other} {wheel.sha256[:12]}",) if wheel.state != "unpublished" else (),
            )


def _require_offered(house: Wheelhouse, wheels: Sequence[Stored]) -> None:
    """Raise UsageError for a wheel that is quarantined: yanked, it would be given out again."""
    from builder.wheelhouse import states  # noqa: PLC0415

    for wheel in wheels:
        if wheel.state == "quarantined":
            told, ref = states.withheld(house, wheel.sha256), wheel.sha256[:12]
            raise UsageError(
                "quarantined",
                f"{wheel.filename} is quarantined: yanked, it would be given out again",
                cause=told.reason if told else "",
                help="leave it out; or end the quarantine, where that is meant",
                run=(f"spark-build wheels quarantine --release {ref} && spark-build wheels yank {ref}",),
            )


def _status(args: argparse.Namespace, app: App) -> int:
    if args.status:
        return _set_status(args, app, args.status)
    from builder.cli.wheels import opened  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415
    from builder.wheelhouse import states  # noqa: PLC0415

    name = normalised(args.project)
    with opened(app) as house:
        told = states.status_of(house, name)
        if told is None:
            raise states.unknown(name)
    if args.json:
        app.print_json({"project": name, "status": told.state, "reason": told.reason})
        return 0
    app.print(f"{name} {told.state}{f': {told.reason}' if told.reason else ''}")
    return 0


def _set_status(args: argparse.Namespace, app: App, status: Status) -> int:
    from builder.cli.wheels import opened, refresh_index, there  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415
    from builder.wheelhouse import states  # noqa: PLC0415

    if status == "active" and args.reason:
        raise UsageError(
            "usage",
            "--reason doesn't go with an active project: nothing is withheld then",
            run=(shlex.join(["spark-build", "wheels", "status", args.project, "active"]),),
        )
    name = normalised(args.project)
    with opened(app) as house:
        changed = states.status(house, name, status, args.reason)
        refresh_index(house, app)
    if args.json:
        app.print_json({"project": name, "status": status, "reason": args.reason, "changed": changed})
        return 0
    app.print(f"{name} {status}")
    if not changed:
        app.stderr.write("as before\n")
    elif status != "active":
        again = f"spark-build wheels status {shlex.quote(name)} active"
        app.stderr.write(f"take it back with: {there(again, args)}\n")
    return 0
