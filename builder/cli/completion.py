"""``spark-build completion``: completion for your shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

EXAMPLES = """\
examples:
  source <(spark-build completion bash)             for this shell
  spark-build completion bash > ~/.local/share/bash-completion/completions/spark-build
  spark-build completion zsh > ~/.zfunc/_spark-build
  spark-build completion fish > ~/.config/fish/completions/spark-build.fish"""

#: The commands whose NAME is a recipe's.
TAKE_RECIPES = frozenset(
    f"spark-build {name}"
    for name in (
        *("recipe", "plan", "why", "fetch", "recipes show", "recipes lint"),
        *("patch status", "patch new", "patch save", "patch refresh"),
    )
)

#: Prints the names of recipes; the completion scripts run it at each keystroke.
NAMES = "spark-build recipes list --names 2>/dev/null"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=SHELLS, help="whose language the script is in")
    parser.add_argument("--json", action="store_true", help="print the script within JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Print the script of a shell: every command and option, names of recipes as they are found then."""
    import shtab  # noqa: PLC0415  # only here

    from builder.cli.main import COMMANDS, build_parser  # noqa: PLC0415  # main imports this module

    parser = build_parser(list(COMMANDS))
    _declare(parser)
    script = str(shtab.complete(parser, shell=args.shell))
    if args.json:
        app.print_json({"shell": args.shell, "script": script})
    else:
        app.stdout.write(script + "\n")
    return 0


def _declare(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what each argument takes: it reads the attribute `complete` of argparse's actions."""
    import shtab  # noqa: PLC0415

    from builder.cli.reference import children  # noqa: PLC0415  # imports main as well

    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to walk its tree
        if action.metavar == "NAME" and not action.option_strings and parser.prog in TAKE_RECIPES:
            kind = shtab.cmd(NAMES)
        elif action.metavar == "DIR":
            kind = shtab.DIRECTORY
        elif action.metavar in {"FILE", "WHEEL", "PATH"}:
            kind = shtab.FILE
        else:
            continue
        action.complete = kind  # type: ignore[attr-defined]  # shtab's own protocol
    for _name, child in children(parser):
        _declare(child)
