"""A parser that takes names before, between and after options: ``export DIR --stack FILE NAME``.

argparse alone hands all positionals out at the first of them, and then knows no place for those behind an option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.cli.main import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Mixed"]


class Mixed(Parser):
    """Such a parser; it can have no commands below it."""

    _within = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # noqa: ANN401  # argparse's own has overloads
        """Parse as argparse's intermixed way does, which itself comes back here."""
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False
