"""Wheels of the wheelhouse for a bundle: shown to uv as an index that is asked first, and known again in its answer."""

from __future__ import annotations

import contextlib
from html import escape
from typing import TYPE_CHECKING, Any

from builder.buildenv import normalised
from builder.errors import SparkError, UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.config import Config
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

__all__ = ["Ours", "facts", "of_channel", "of_stack", "records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The wheels that a channel lists, by sha256. Superseded builds, withheld and damaged wheels aren't among them."""

    wheels: Mapping[str, Stored]
    projects: frozenset[str]

    def index(self, folder: Path, *, public: Iterable[str] = ()) -> str:
        """Write an index of them without a copy of any, and return its URL; the projects `public` are left to others.

        A project whose wheels are all withheld has an empty page: nobody else's wheel of that name is taken instead.
        """
        left = {normalised(name) for name in public}
        for name in self.projects - left:
            page = folder / "simple" / name / "index.html"
            page.parent.mkdir(parents=True)
            page.write_text("".join(_link(one) for one in self.wheels.values() if one.project == name))
        return (folder / "simple").as_uri()

    def overrides(self, requirements: Sequence[str], config: Config) -> tuple[str, ...]:
        """Return those of `requirements` whose wheel is ours and which other projects pin another version of."""
        asked = {normalised(one): one for one in requirements}
        pinned = {one.project for one in self.wheels.values() if one.project in asked and _pinned(one, config)}
        return tuple(asked[name] for name in sorted(pinned))


def _link(one: Stored) -> str:
    requires = f' data-requires-python="{escape(one.requires_python)}"' if one.requires_python else ""
    yanked = ' data-yanked=""' if one.state == "yanked" else ""
    return f'<a href="{one.path.as_uri()}#sha256={one.sha256}"{requires}{yanked}>{escape(one.filename)}</a>\n'


def _pinned(one: Stored, config: Config) -> bool:
    from builder.recipe import find, load  # noqa: PLC0415

    with contextlib.suppress(SparkError):  # a recipe that isn't known here any more, or has mistakes that lint tells
        outputs = load.load(one.recipe, find.folders(config.recipe_layers)).recipe.output
        return any(each.pinned_by for each in outputs if normalised(each.name) == one.project)
    return False


def of_channel(house: Wheelhouse, channel: str) -> Ours:
    """Return what `channel` lists. Raises UsageError ``channel-missing``."""
    from builder.index import listing  # noqa: PLC0415

    listed = listing.read(house, channel)
    stored = {one.sha256: one for one in house.list_wheels()}
    shown = {
        file.sha256: stored[file.sha256]
        for project in listed.projects.values()
        for file in project.files
        if file.sha256 in stored and house.is_whole(stored[file.sha256])
    }
    return Ours(wheels=shown, projects=frozenset(listed.projects))


def of_stack(house: Wheelhouse, file: Path) -> tuple[str, tuple[str, ...]]:
    """Return the channel that a stack file promotes to, and requirements for exactly what that lists.

    Raises as `stack.load` does; UsageError ``stack-not-promoted`` where there is no such channel yet, or it is empty.
    """
    from builder.pipeline import stack  # noqa: PLC0415
    from builder.wheelhouse import channel  # noqa: PLC0415

    name = stack.load(file).stack.channel
    members: Sequence[Stored] = ()
    if name:
        with contextlib.suppress(UsageError):
            members = channel.members(house, name)
    if not name or not members:
        raise UsageError(
            "stack-not-promoted",
            f"{file.name} has nothing to put into a bundle yet",
            cause=f"the channel {name} lists nothing" if name else "it names no channel",
            help="a bundle holds what the stack's channel lists: build it first",
            run=(f"spark-build stack {file}",),
        )
    return name, tuple(f"{one.project}=={one.version}" for one in members)


def facts(one: Stored) -> dict[str, Any]:
    """Return what a manifest says of a wheel of ours."""
    return {"recipe": one.recipe, "output": one.output, "fingerprint": one.fingerprint}


def records(one: Stored) -> Iterator[tuple[str, Path]]:
    """Yield the ends of names, and the files, that lie beside a wheel: the record of its making, and its signature."""
    from builder.wheelhouse import publish  # noqa: PLC0415

    for file in (publish.sidecar(one.path), publish.signature(one.path)):
        if file.is_file():
            yield file.name.removeprefix(one.filename), file
