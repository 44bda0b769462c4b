"""What a choice of a project's modules takes, from the seed history: a module's objects lie in a folder of its name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from builder.recipe.units import show_bytes, show_seconds
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from builder.events import Sink
    from builder.gate.seeds import Seed
    from builder.recipe.model import Loaded, Output

__all__ = ["Share", "lines", "shares"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What the modules take that a shell pattern matches: processor time of all units, the memory of the largest one."""

    pattern: str
    modules: int
    units: int
    cpu_ms: int
    peak_bytes: int

    def __str__(self) -> str:
        if not self.units:
            return f"{self.pattern}: never measured"
        several = f"{self.modules} module{'s' if self.modules > 1 else ''}, {self.units} units"
        took = f"{show_seconds(self.cpu_ms / 1000)} of one core, up to {show_bytes(self.peak_bytes)} a unit"
        return f"{self.pattern}: {several}, {took}"


def shares(patterns: Sequence[str], seeds: Iterable[Seed]) -> tuple[Share, ...]:
    """Return what each of `patterns` takes; with several, what they take together comes last, under ``together``."""
    units = [(one.unit.object.partition("/")[0], one) for one in seeds if "/" in one.unit.object]
    found = [_share(pattern, [pattern], units) for pattern in patterns]
    return (*found, _share("together", patterns, units)) if len(found) > 1 else tuple(found)


def lines(loaded: Loaded, outputs: Sequence[Output], folders: Iterable[Path], sink: Sink) -> tuple[str, ...]:
    """Return for a plan what the chosen modules take; nothing where `outputs` have no modules to choose.

    `folders` are those that may hold recipes, weakest first.
    """
    if not any("${modules}" in value for output in outputs for value in output.env.values()):
        return ()
    from builder.gate import seeds  # noqa: PLC0415  # few recipes have modules

    found = seeds.find(loaded.recipe.name, folders, sink)
    return tuple(map(str, shares(loaded.recipe.build.modules or ("*",), found)))


def _share(name: str, patterns: Sequence[str], units: Iterable[tuple[str, Seed]]) -> Share:
    chosen = [(module, one) for module, one in units if any(fnmatchcase(module, pattern) for pattern in patterns)]
    return Share(
        pattern=name,
        modules=len({module for module, _one in chosen}),
        units=len(chosen),
        cpu_ms=sum(one.cpu_ms for _module, one in chosen),
        peak_bytes=max((one.peak_bytes for _module, one in chosen), default=0),
    )
