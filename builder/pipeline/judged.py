"""What is expected of a wheel, by what its recipe says and what is let pass, and the report on it."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

from builder.audit.context import Accepted, Context
from builder.audit.rules import NEVER
from builder.errors import SparkError, UsageError
from builder.recipe.model import checks_of
from builder.values import dataclass, replace
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.audit.facts import Contents
    from builder.audit.report import Report
    from builder.audit.target import Capability
    from builder.recipe.find import Folder
    from builder.recipe.model import Check, Loaded

__all__ = ["TARGET", "Said", "accepted", "read", "reports", "said", "stamp", "unacceptable"]

#: What is audited for where nobody says: a GB10.
TARGET = "12.1"

#: The machines of targets that come with one, as platform tags spell them.
_MACHINES = {TARGET: "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a recipe says about a wheel; nothing where none is known. `output` is the recipe's name for the wheel."""

    loaded: Loaded | None = None
    output: str

    @property
    def checks(self) -> tuple[Check, ...]:
        """The recipe's checks that are about this output."""
        return checks_of(self.loaded.recipe.check if self.loaded else (), self.output)


def accepted(words: Sequence[str]) -> tuple[Accepted, ...]:
    """Return what ``--accept ID[=REASON]`` lets pass.

    Raises UsageError ``accept-unknown`` for an id that no rule has, ``accept-never`` for what nobody can let pass.
    """
    if not words:
        return ()
    found = []
    for word in words:
        slug, _equals, reason = word.partition("=")
        if wrong := unacceptable(slug):
            raise UsageError(
                "accept-never" if slug in NEVER else "accept-unknown",
                wrong,
                help="docs/findings.md has all of them; `spark-build audit WHEEL` says which ones a wheel has",
            )
        found.append(Accepted(id=slug, reason=reason or "--accept"))
    return tuple(found)


def unacceptable(slug: str) -> str:
    """Return why no finding of that id can be let pass; empty where it can."""
    from builder.pipeline.findings import rules  # noqa: PLC0415  # brings every judge

    if slug in NEVER:
        return f"{slug} can't be let pass: the file is no wheel, or no honest one"
    if slug in (known := rules()):
        return ""
    near = difflib.get_close_matches(slug, known, 1)
    return f"there is no finding {slug}" + (f", did you mean {near[0]}?" if near else "")


def read(path: Path, tell: Callable[[str], None]) -> Contents:
    """Return what the wheel at `path` holds; `tell` is told how far that is."""
    from builder.audit import contents  # noqa: PLC0415
    from builder.audit.report import percent  # noqa: PLC0415

    return contents.read(path, on_read=lambda done, total: tell(f"{percent(done, total)} of {path.name} read"))


def said(every: Sequence[Contents], named: Sequence[str], layers: Sequence[tuple[str, Path]]) -> list[Said]:
    """Return what the recipes `named` say about each wheel, else the one that its own inputs name when that is known here.

    They are looked for in `layers` (`Config.recipe_layers`).

    Raises RecipeError for a named one that is missing or wrong; UsageError ``recipe-output`` where it makes none of them.
    """
    from builder.recipe import find  # noqa: PLC0415

    folders = find.folders(layers)
    projects = [one.project for one in every]
    recipes = [_loaded(name, folders, projects) for name in named]
    told = [_said(one, recipes or _own(one, folders)) for one in every]
    for recipe in recipes:
        if not any(one.loaded is recipe for one in told):
            raise UsageError(
                "recipe-output",
                f"the recipe {recipe.recipe.name} makes no {', '.join(projects)}",
                cause=f"it makes {', '.join(output.name for output in recipe.recipe.output)}",
                run=("spark-build recipes list",),
            )
    return told


def _own(contents: Contents, folders: Sequence[Folder]) -> list[Loaded]:
    """Return the recipe that a wheel of ours names; none where it isn't known here, or has mistakes that lint tells."""
    from builder.recipe import find  # noqa: PLC0415

    name = str((contents.inputs or {}).get("name", ""))
    with contextlib.suppress(SparkError):
        return [_loaded(name, folders, [contents.project])] if name in find.names(folders) else []
    return []


def _loaded(name: str, folders: Sequence[Folder], projects: Sequence[str]) -> Loaded:
    """Return a recipe with the variants that bring `projects`: a wheel of such an output was built with it."""
    from builder.recipe import load  # noqa: PLC0415

    loaded = load.load(name, folders)
    own = {normalised(output.name) for output in loaded.recipe.output}
    wanted = {normalised(project) for project in projects} - own
    bring = {
        one.id: True
        for one in loaded.recipe.variant
        if wanted & {normalised(str(output.get("name", ""))) for output in one.recipe.get("output", ())}
    }
    return load.load(name, folders, variants=bring) if bring else loaded


def _said(contents: Contents, recipes: Sequence[Loaded]) -> Said:
    for loaded in recipes:
        for output in loaded.recipe.output:
            if normalised(output.name) == normalised(contents.project):
                return Said(loaded=loaded, output=output.name)
    return Said(output=contents.project)


def reports(
    every: Sequence[Contents],
    told: Sequence[Said],
    *,
    target: Capability,
    accepted: Sequence[Accepted] = (),
    beside: Sequence[Contents] = (),
    torch: Path | None = None,
) -> list[Report]:
    """Return the reports on wheels, each judged with all others and those `beside` them."""
    from builder.audit import expect, report  # noqa: PLC0415

    made = []
    for contents, one in zip(every, told, strict=True):
        expected = expect.of(one.checks, one.output, target=target)
        if not contents.filename:  # what is said about size is about the wheel
            expected = replace(expected, max_size=None)
        context = Context(
            target=target,
            expected=replace(expected, accepted=(*expected.accepted, *accepted)),
            beside=tuple(other for other in (*every, *beside) if other is not contents),
            torch=torch,
            machine=_MACHINES.get(str(target), ""),
        )
        made.append(report.judge(contents, context))
    return made


def stamp(report: Report, one: Said) -> str:
    """Return the digest of the rules that a report was made by."""
    from builder.audit import stamp as stamps  # noqa: PLC0415

    return stamps.of(one.checks, target=str(report.target))
