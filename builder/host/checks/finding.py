"""What a check looks at, and what it says."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from builder.recipe.model import Recipe

__all__ = ["Finding", "Level", "Place", "Status", "Subject"]

#: ``info`` is neither good nor bad: a machine without a GPU can build.
Status = Literal["ok", "info", "warn", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found and what is wanted; for what isn't right why it matters, and complete commands that mend it.

    A ``problem`` makes builds fail, or makes them worthless; a ``warn`` may. `failure` names the entry of the catalogue of
    failures that it is or leads to, where there is one.
    """

    id: str
    status: Status
    found: str
    wanted: str = ""
    why: str = ""
    run: tuple[str, ...] = ()
    failure: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        return {
            "id": self.id,
            "status": self.status,
            "found": self.found,
            "wanted": self.wanted,
            "why": self.why,
            "run": list(self.run),
            "failure": self.failure,
        }


class Level(Protocol):
    """How a build would be cut off; the executor's type has it."""

    @property
    def level(self) -> str:
        """``namespace``, ``seccomp`` or ``none``."""

    @property
    def reason(self) -> str:
        """Why it isn't a better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder that spark-build writes into. `network` names the type of a network file system it lies on."""

    path: Path
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A machine and what it is to do.

    `recipes` are those that may be built. `mistakes` are those of the configuration.
    `isolation` tries what a build would get, and raises HostError. `root` stands before ``/proc`` and ``/etc``.
    """

    env: Mapping[str, str]
    cwd: Path
    recipes: tuple[Recipe, ...]
    wheelhouse: Place
    sources: Place
    temporary: Path
    isolation: Callable[[], Level]
    python: str | None = None
    cuda: str | None = None
    files: tuple[Path, ...] = ()
    mistakes: tuple[str, ...] = ()
    root: Path = field(default=Path("/"))

    def text(self, path: str) -> str:
        """Return a small file below `root`, or an empty text."""
        with contextlib.suppress(OSError):
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        return ""

    def clean_env(self) -> dict[str, str]:
        """Return what a program needs to run at all, without what might change what it does."""
        kept = {key: self.env[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in self.env}
        return {"PATH": os.defpath, **kept, "LC_ALL": "C", "TMPDIR": str(self.temporary)}

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder in TMPDIR that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="spark-build-doctor-", dir=self.temporary) as folder:
            yield Path(folder)
