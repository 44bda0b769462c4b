"""What judges are told beside the facts: for which target, and what the recipe expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.audit.facts import Contents
    from builder.audit.target import Capability

__all__ = ["Accepted", "Context", "Expected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A finding that is let pass: its id, a shell pattern on the file, and the reason."""

    id: str
    file: str = "*"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a recipe says about one output: patterns on the paths of files. Empty for a wheel that nobody told us about.

    `stated` is whether a ``device-code`` check names this output: then every file with device code has to be native unless
    a pattern allows less. `max_size` is in bytes.
    """

    stated: bool = False
    require: tuple[str, ...] = ()
    allow_ptx: tuple[str, ...] = ()
    allow_absent: tuple[str, ...] = ()
    max_size: int | None = None
    accepted: tuple[Accepted, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a wheel is judged for, and beside what.

    `beside` are the other wheels of the set, or the rest of the environment; `torch` the package folder of the torch that it
    has to fit (``…/site-packages/torch``), or None where there is none to look at. `glibc` is what the target has (2.39:
    Ubuntu 24.04), `cuda` its major version of CUDA, `machine` its processor as platform tags spell it (``aarch64``), empty
    where that isn't known: then a wheel may be for any.
    """

    target: Capability
    expected: Expected = field(default_factory=Expected)
    beside: Sequence[Contents] = ()
    torch: Path | None = None
    glibc: str = "2.39"
    cuda: int = 13
    machine: str = ""
