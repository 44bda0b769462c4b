"""Patches and what is found out about them, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.inputs import AppliedPatch

__all__ = ["Candidate", "Evaluation", "Hunk", "Kind", "Verdict"]

Kind = Literal["applies", "3-way", "upstream", "reverted", "drifted", "moved", "elsewhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A patch whose conditions hold. `on_upstream` is ``skip`` or ``fail``.

    `merged` is the commit that brought it upstream, where somebody knows. `result` is the digest of what it makes of the
    files that it touches, where only a 3-way merge lays it on. `recipe` is the word that commands in error texts name.
    """

    id: str
    file: Path
    sha256: str
    on_upstream: str
    recipe: str = "NAME"
    merged: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """A place that a patch wants and doesn't find: the lines that it looks for from `line` on, and those that are there."""

    file: str
    line: int
    wanted: tuple[str, ...]
    found: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return it for people."""
        return [
            f"{self.file}:{self.line}: wanted:",
            *(f"  {text}" for text in self.wanted),
            "found:",
            *(f"  {text}" for text in self.found),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one patch on one source.

    =========== ============================================================================================
    `kind`      means
    =========== ============================================================================================
    applies     it was laid on as it is, on other lines perhaps
    3-way       git merges it with what changed around it, without a conflict; `result` is the digest of that
    upstream    the source has it already, so it is left out
    reverted    upstream took it, and took it back: laid on
    drifted     it doesn't fit any more: `hunks`
    moved       a file that it changes has another name now: `moved` has old and new ones
    elsewhere   it isn't for this source: `text` says by which condition
    =========== ============================================================================================
    """

    id: str
    kind: Kind
    text: str = ""
    hunks: tuple[Hunk, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    result: str | None = None

    @property
    def applied(self) -> bool:
        """Whether the tree has it by us."""
        return self.kind in {"applies", "3-way", "reverted"}

    @property
    def misfit(self) -> bool:
        """Whether a build can't go on with it."""
        return self.kind in {"drifted", "moved"}

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "id": self.id,
            "verdict": self.kind,
            "text": self.text,
            "hunks": [
                {"file": one.file, "line": one.line, "wanted": list(one.wanted), "found": list(one.found)}
                for one in self.hunks
            ],
            "moved": dict(self.moved),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of the candidates. `files` holds the `touched` files as the patches leave them; one may be deleted.

    `verdicts` has one for each candidate, in their order; `skipped` names those that the source has already.
    """

    applied: tuple[AppliedPatch, ...]
    verdicts: tuple[Verdict, ...]
    touched: tuple[str, ...]
    files: Mapping[str, bytes]

    @property
    def skipped(self) -> tuple[str, ...]:
        """The ids of retired patches."""
        return tuple(one.id for one in self.verdicts if one.kind == "upstream")
