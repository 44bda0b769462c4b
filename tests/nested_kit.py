"""Trees that pull things in, as dictionaries of files, and what resolving them takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_bytes
from builder.recipe import conditions
from builder.recipe.condition import Condition, FileCondition
from builder.recipe.nested import Fetch
from builder.source import nested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.source import Sources
    from builder.stages import Nested, Pin


@dataclass
class Tree:
    """A tree of one commit: its files, and the version that conditions may ask for."""

    files: dict[str, str] = field(default_factory=dict)
    version: str | None = "1.0"
    source: str = "git"
    arch: str = "12.1a"
    cuda: str | None = "13.0"
    torch: str | None = None
    output: str | None = None
    asked: list[str] = field(default_factory=list)

    def contains(self, _commit: str) -> bool:
        return False

    def read(self, path: str) -> bytes | None:
        self.asked.append(path)
        return self.files[path].encode() if path in self.files else None

    def resolve(  # what resolving takes
        self,
        fetches: Sequence[Fetch],
        sources: Sources,
        *,
        machine: str = "aarch64",
        known: Mapping[str, Pin] | None = None,
        toolkit: Path | None = None,
        bring: bool = True,
        relock: bool = False,
        owner: str = "tree",
    ) -> tuple[Nested, ...]:
        return nested.resolve(
            fetches,
            read=self.read,
            holds=lambda condition: conditions.holds(condition, self),
            facts={"machine": machine, "version": self.version or "", "commit": "", "cuda": self.cuda or ""},
            sources=sources,
            digest=lambda path: sha256_bytes(path.read_bytes()) if path.is_file() else f"folder {path.name}",
            known=known or {},
            toolkit=toolkit,
            bring=bring,
            relock=relock,
            owner=owner,
        )


def archive(name: str, url: str, **more: Any) -> Fetch:  # noqa: ANN401  # a table's keys
    return Fetch(id=name, kind="archive", url=url, place=more.pop("place", f"${{deps}}/{name}"), **more)


def git(name: str, url: str, ref: str, **more: Any) -> Fetch:  # noqa: ANN401  # a table's keys
    return Fetch(id=name, kind="git", url=url, ref=ref, **more)


def has(path: str, matches: str | None = None) -> Condition:
    """The condition that the tree has a file, or one that holds this."""
    return Condition(file=FileCondition(path=path, present=None if matches else True, matches=matches))
