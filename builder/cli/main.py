"""The entry: finds the command, runs it, turns errors into screens and exit codes.

Only the module of the command that was asked for is imported: start-up is felt with every hit.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from builder import __version__
from builder.cli.app import App
from builder.errors import Interrupted, SparkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["COMMANDS", "build_parser", "main"]

#: Command, one line for the list of commands. Each lives in the module of its name in this package.
COMMANDS: dict[str, str] = {
    "recipe": "build, or take from the wheelhouse",
    "plan": "what would be built, and why",
    "why": "which inputs changed since the nearest stored wheel",
    "recipes": "list, show, lint and start recipes",
    "fetch": "bring in every source that a build reads",
    "wheels": "list, show, verify, add and remove wheels",
    "index": "write the wheelhouse as a package index",
    "log": "what a build printed",
    "history": "past builds",
    "gc": "free space by policy",
    "doctor": "this machine: what's wrong and the command that mends it",
    "completion": "completion for your shell",
}


class Command(Protocol):
    """A command module."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments on `parser`, with a description and examples."""

    def run(self, args: argparse.Namespace, app: App) -> int:
        """Do it; return the exit code; raise SparkError when it can't be done."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message."""
        raise UsageError("usage", message, run=(f"{self.prog} --help",))


def load(name: str) -> Command:
    """Import the module of command `name`."""
    module: Command = importlib.import_module(f"builder.cli.{name}")
    return module


def build_parser(names: Sequence[str]) -> Parser:
    """Return the parser with the given commands fully declared and all others by name only."""
    parser = Parser(
        prog="spark-build",
        description="Builds Triton, FlashInfer and vLLM from source for NVIDIA GB10 and keeps the wheels as an index.",
        epilog="Start with:  spark-build doctor   then   spark-build recipe flashinfer",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spark-build {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        child = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in names:
            load(name).add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` and return the exit code. Never raises, except on a bug with ``SPARK_BUILD_DEBUG``."""
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return run(words)
    except SparkError as error:
        return _fail(error, words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: `| head` is no error
        return 0
    except OSError as error:
        return _fail(_os_error(error), words)
    except Exception as error:  # the one place for the unforeseen
        if os.environ.get("SPARK_BUILD_DEBUG"):
            raise
        return _fail(
            SparkError(
                "bug",
                f"a bug in spark-build: {type(error).__name__}: {error}",
                help="set SPARK_BUILD_DEBUG=1 to see where, and please report it",
            ),
            words,
        )


def run(words: Sequence[str]) -> int:
    """Parse `words` and run the command; raise SparkError when that fails."""
    named = next((word for word in words if not word.startswith("-")), "")
    args = build_parser([named]).parse_args(words)
    app = App(env=dict(os.environ), cwd=Path.cwd(), stdout=sys.stdout, stderr=sys.stderr, clock=time.time, args=args)
    return load(args.command).run(args, app)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once
    raise Interrupted(signum)


def _os_error(error: OSError) -> SparkError:
    from builder.errors import HostError  # noqa: PLC0415  # only when it is needed

    where = f"{error.filename}: " if error.filename else ""
    return HostError(
        "system", f"{where}{error.strerror or error}", help="free space or mend permissions, then run again"
    )


def _fail(error: SparkError, words: Sequence[str]) -> int:
    from builder.ui import failure  # noqa: PLC0415  # screens cost start-up time

    failure.show(error, stdout=sys.stdout, stderr=sys.stderr, env=os.environ, as_json="--json" in words)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
