"""``spark-build shell``: a shell in the kept workspace of a build, with all that the build itself sees."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.pipeline.builds import Attempt
    from builder.pipeline.kept import Room

EXAMPLES = """\
examples:
  spark-build shell vllm                            the newest build of vllm that isn't done
  spark-build shell 3f9ac1d -c 'ninja -C build -v'  one command there; its exit code comes back
  spark-build shell vllm --json | jq .env           what a build of it gets, opening nothing

The network is cut as in the build, and compilers ask the gate. A changed source is put back by `resume`;
`patch save NAME ID` makes a patch of it first."""

_BASH = "/bin/bash"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "ref", nargs="?", metavar="REF", help="a recipe's name, or which build (default: the newest kept)"
    )
    parser.add_argument("-c", dest="line", metavar="COMMAND", help="run this shell command instead of a shell")
    parser.add_argument("--output", metavar="NAME", help="in the build environment of this output (default: the last)")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print place, command and variables as JSON; open nothing")
    parser.set_defaults(progress="quiet", color="auto")


def run(args: argparse.Namespace, app: App) -> int:
    """Run the shell or the command; return its exit code."""
    from builder.cli.resume import kept, reopened  # noqa: PLC0415
    from builder.pipeline.kept import output_of, room  # noqa: PLC0415

    one = kept(app, args.ref)
    if args.line is None and not args.json and not (sys.stdin.isatty() and app.stdout.isatty()):
        raise _no_terminal(one)
    with (
        reopened(one, args, app) as (world, evaluation),
        room(evaluation, one, output_of(evaluation, one, args.output), world) as inner,
    ):
        words = inner.wrap(_shell(args.line))
        env = {**inner.env, **({} if args.line else _interactive(one, app))}
        if args.json:
            app.print_json({"workspace": str(inner.space.root), "folder": inner.project, "argv": words, "env": env})
            return 0
        if args.line is None:
            app.stderr.write(_welcome(one, inner))
            app.stderr.flush()
        from builder import proc  # noqa: PLC0415

        return proc.attached(words, env=env, cwd=inner.space.root)


def _shell(line: str | None) -> list[str]:
    shell = _BASH if os.access(_BASH, os.X_OK) else "/bin/sh"
    if line is not None:
        return [shell, "-c", line]
    return [shell, "--norc", "--noprofile", "-i"] if shell == _BASH else [shell, "-i"]


def _interactive(one: Attempt, app: App) -> dict[str, str]:
    """Return what a person needs and no build gets."""
    prompt = rf"({one.recipe} {one.fingerprint[:10]}) \w \$ "
    return {"TERM": app.env.get("TERM", "dumb"), "PS1": prompt, "HISTFILE": "/dev/null"}


def _welcome(one: Attempt, inner: Room) -> str:
    return (
        f"{one.recipe} {one.fingerprint[:10]}, attempt {one.attempt}: {inner.project} is {inner.space.src}\n"
        f"what you change here: spark-build patch save {one.recipe} ID; to go on with the build: exit, then "
        f"spark-build resume {one.fingerprint[:10]}\n"
    )


def _no_terminal(one: Attempt) -> UsageError:
    ref = one.fingerprint[:10]
    return UsageError(
        "no-terminal",
        "there is no terminal to open a shell on",
        help="give the command with -c",
        run=(f"spark-build shell {ref} -c 'ls'", f"spark-build rerun {ref}"),
    )
