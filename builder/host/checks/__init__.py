"""What can be wrong with a machine, each with the command that mends it.

A check is a small function from a `Subject` to findings. It looks and changes nothing; what it compiles goes into a folder
that is gone afterwards. A check that can't be carried out is a finding, too: no check ever ends the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import SparkError
from builder.host.checks import compilers, device, environment, recipes, room, storage, targets
from builder.host.checks.finding import Finding, Level, Place, Status, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["CHECKS", "TOOLCHAIN", "Finding", "Level", "Place", "Status", "Subject", "look"]

#: The name stands for a check that couldn't be carried out.
Named = tuple[str, "Callable[[Subject], Iterable[Finding]]"]

#: What is looked at, in this order.
CHECKS: tuple[Named, ...] = (
    ("machine", device.machine),
    ("gpu", device.gpu),
    ("nvcc", compilers.nvcc),
    ("compiler", compilers.host_compiler),
    ("python", targets.python),
    ("torch", targets.torch),
    ("git", environment.git),
    ("isolation", environment.isolation),
    ("memory", room.memory),
    ("swap", room.swap),
    ("wheelhouse", storage.wheelhouse),
    ("disk", storage.disk),
    ("configuration", environment.configuration),
)

#: What the recipes of a subject need of the system, and nothing of the machine: what an image has to have, wherever it runs.
TOOLCHAIN: tuple[Named, ...] = (
    ("nvcc", compilers.nvcc),
    ("compiler", compilers.host_compiler),
    ("python", targets.python),
    ("git", environment.git),
    ("recipes", recipes.lacks),
)


def look(subject: Subject, wanted: Sequence[Named] = CHECKS) -> Iterator[Finding]:
    """Yield what every check of `wanted` finds; what ends several of them in the same way is told once."""
    told: set[str] = set()
    for name, check in wanted:
        try:
            yield from check(subject)
        except SparkError as error:
            if error.summary not in told:
                told.add(error.summary)
                yield _failed(name, error)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            yield Finding(id=name, status="problem", found=f"can't be looked at: {where}{error.strerror or error}")


def _failed(name: str, error: SparkError) -> Finding:
    return Finding(
        id=name,
        status="problem",
        found=error.summary,
        why=error.cause or error.help,
        run=tuple(line for line in error.run if line != "spark-build doctor"),
    )
