"""The entry: finds the command, runs it, turns errors into screens and exit codes.

Only the module of the command that was asked for is imported: start-up is felt with every hit.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import signal
import sys

from builder import __version__
from builder.errors import Interrupted, SparkError, UsageError, scrubbed

TYPE_CHECKING = False  # `typing` is a tenth of what --help costs
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any, NoReturn, Protocol

    from builder.cli.app import App

    class Command(Protocol):
        """A command module."""

        def add_arguments(self, parser: argparse.ArgumentParser) -> None:
            """Declare the command's arguments on `parser`, with a description and examples."""

        def run(self, args: argparse.Namespace, app: App) -> int:
            """Do it; return the exit code; raise SparkError when it can't be done."""


__all__ = ["COMMANDS", "build_parser", "main"]

#: Command, one line for the list of commands. Each lives in the module of its name in this package.
COMMANDS: dict[str, str] = {
    "recipe": "build, or take from the wheelhouse",
    "plan": "what would be built, and why",
    "why": "which inputs changed since the nearest stored wheel",
    "stack": "build a set in dependency order and promote it as one",
    "lock": "write down every source and requirement, exact",
    "recipes": "list, show, lint and start recipes",
    "fetch": "bring in every source that a build reads",
    "patch": "which patches fit a source; make, refresh and keep them",
    "wheels": "list, show, verify, add and remove wheels; channels, yanks, push and pull",
    "audit": "what a wheel really holds, and whether it runs on the target",
    "rebuild": "build a stored wheel again and compare the bits",
    "index": "serve the wheelhouse to pip and uv, or write it as files; what its clients are told",
    "image": "the image that serves: from pinned wheels, without a network, checked",
    "bundle": "carry a stack and all that it needs to where no network is",
    "log": "what a build printed",
    "attach": "follow a build that runs",
    "resume": "go on with a build that isn't done",
    "shell": "a shell in the environment of a kept build",
    "rerun": "run the step that failed once more, with all that it prints",
    "history": "past builds",
    "gc": "free space by policy",
    "doctor": "this machine, an environment, an image or a log: what's wrong and what mends it",
    "completion": "completion for your shell",
}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. Argparse makes a formatter for each argument that is declared: it has to be cheap."""

    def __init__(self, prog: str, **how: Any) -> None:  # noqa: ANN401  # as argparse's own, which grows
        super().__init__(prog, width=_columns() - 2, **how)


@functools.cache
def _columns() -> int:
    """Return the terminal's width as `shutil` finds it, without its imports."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return 80


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, or with the near word where a word isn't known."""
        from builder.cli import near  # noqa: PLC0415  # only for a mistake

        raise UsageError("usage", near.explain(self, message), run=(f"{self.prog} --help",))


def _child(*, declared: bool, **how: Any) -> Parser | None:  # noqa: ANN401  # what argparse gives a parser
    """Return the parser of a command; for one that is only listed there is nothing to make."""
    return Parser(**how) if declared else None


def load(name: str) -> Command:
    """Import the module of command `name`."""
    import importlib  # noqa: PLC0415

    module: Command = importlib.import_module(f"builder.cli.{name}")
    return module


def build_parser(names: Sequence[str]) -> Parser:
    """Return the parser with the given commands fully declared and all others by name only."""
    parser = Parser(
        prog="spark-build",
        description="Builds Triton, FlashInfer and vLLM from source for NVIDIA GB10 and keeps the wheels as an index.",
        epilog="Start with:  spark-build doctor   then   spark-build recipe flashinfer",
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"spark-build {__version__}")
    child_class: Any = _child  # argparse only calls it
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=child_class,
        prog=parser.prog,
    )
    for name, summary in COMMANDS.items():
        child = commands.add_parser(
            name, declared=name in names, help=summary, description=summary, formatter_class=Formatter
        )
        if name in names:
            load(name).add_arguments(child)
    return parser


def main() -> NoReturn:
    """Run the process's command line and end the process."""
    gc.set_threshold(200_000)  # a hit makes fewer objects than that, all of them in use
    for descriptor, name in ((1, "stdout"), (2, "stderr")):  # closed by the caller: nobody reads
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115  # for the process's life
    code = answer(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  # contextlib would be imported for this alone
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads; whether that is an error was decided in `answer`
    # Python would take every module and object apart first, which is a tenth of a hit; the kernel is quicker.
    os._exit(code)


def answer(words: Sequence[str]) -> int:
    """Run a command line and return the exit code. Never raises, except on a bug with ``SPARK_BUILD_DEBUG``."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        code = run(words)
        sys.stdout.flush()
    except SparkError as error:
        return _fail(error, words)
    except SystemExit as ended:  # argparse, after --help and --version
        return int(ended.code or 0)
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
    return code


def run(words: Sequence[str]) -> int:
    """Parse `words` and run the command; raise SparkError when that fails."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError("usage", f"{word.encode(errors='backslashreplace').decode()} is no UTF-8") from None
    named = next((word for word in words if not word.startswith("-")), "")
    args = build_parser([named]).parse_args(words)
    import time  # noqa: PLC0415  # `--help` ends above, and does without
    from pathlib import Path  # noqa: PLC0415

    from builder.cli.app import App  # noqa: PLC0415

    app = App(env=dict(os.environ), cwd=Path.cwd(), stdout=sys.stdout, stderr=sys.stderr, clock=time.time, args=args)
    return load(args.command).run(args, app)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once
    raise Interrupted(signum)


def _os_error(error: OSError) -> SparkError:
    import errno  # noqa: PLC0415  # only when it is needed

    from builder.errors import HostError  # noqa: PLC0415

    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror or error}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        help = "free space, then run the same command again: it goes on where it stopped"
        return HostError("disk-full", text, help=help, run=("spark-build gc",))
    return HostError("system", text, help="mend what it names, then run again")


def _fail(error: SparkError, words: Sequence[str]) -> int:
    import shlex  # noqa: PLC0415  # only when it is needed

    from builder.ui import failure  # noqa: PLC0415  # screens cost start-up time

    if isinstance(error, Interrupted) and not error.run:
        error.run = (shlex.join(["spark-build", *map(scrubbed, words)]),)  # it goes on where it was stopped
    failure.show(
        error,
        stdout=sys.stdout,
        stderr=sys.stderr,
        env=os.environ,
        as_json="--json" in words,
        color=failure.color_of(words),
    )
    return error.exit_code


if __name__ == "__main__":
    main()
