"""What every command gets: the world as values, and how results are printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

from builder import config
from builder.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from builder.config import Config

__all__ = ["JSON_VERSION", "App"]

JSON_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The process environment, working folder, streams and clock; the only place where they come from.

    `env` may not be changed; `config` reads the configuration once for the wheelhouse that the arguments name.
    """

    env: Mapping[str, str]
    cwd: Path
    stdout: TextIO
    stderr: TextIO
    clock: Callable[[], float]
    args: argparse.Namespace

    def config(self) -> Config:
        """Return the configuration for these arguments; raise UsageError when it has mistakes."""
        return config.load(self.env, wheelhouse=getattr(self.args, "wheelhouse", None), cwd=self.cwd)

    def print(self, text: str) -> None:
        """Write a result line to stdout; what its encoding lacks is written another way."""
        try:
            self.stdout.write(text + "\n")
        except UnicodeEncodeError:
            from builder.ui.style import fit  # noqa: PLC0415  # nearly every stream is UTF-8

            self.stdout.write(fit(text, self.stdout.encoding) + "\n")

    def print_json(self, value: Mapping[str, object]) -> None:
        """Write `value` with its ``version`` as one JSON document to stdout."""
        self.stdout.write(json.dumps({"version": JSON_VERSION, **value}, indent=2, sort_keys=True) + "\n")
