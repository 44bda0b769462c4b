"""What a tree shows of a channel: the wheels that lie in it, and the pages that name them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from builder.index import listing, pages
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.index.listing import File, House, Project, Superseded

__all__ = ["View", "every", "listed", "read", "times", "whole"]

#: A canonical name (PEP 503).
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A channel in a tree, as of `state`.

    `folder` is where its pages lie: ``simple``, or ``<channel>/simple``. `files` are the wheels in it, those too that pages
    leave out because a later build replaced them: locks go on naming them. `projects` are its pages, by name; `names` those
    that the first page names. A name that was ever published has a page in each channel, if an empty one, and so has
    one that is reserved: who asks this index for it mustn't be sent on to the next.
    """

    channel: str
    folder: str
    state: str
    files: tuple[File, ...]
    projects: Mapping[str, Project]
    names: tuple[str, ...]

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of each page, the first page last."""
        up = self.folder.count("/") + 2
        for name, project in self.projects.items():
            yield f"{self.folder}/{name}/index.html", pages.project_html(project, up).encode()
            yield f"{self.folder}/{name}/index.v1_json", pages.project_json(project, up).encode()
        yield f"{self.folder}/index.html", pages.root_html(self.names).encode()
        yield f"{self.folder}/index.v1_json", pages.root_json(self.names).encode()


def read(
    house: House, channel: str, *, folder: str = "simple", superseded: Superseded = "hide", reserve: Sequence[str] = ()
) -> View:
    """Return what `channel` shows now. Raises UsageError ``channel-missing``."""
    listed = listing.read(house, channel, "list")  # asked before the names: never newer than it says
    projects = {
        name: _without_superseded(project) if superseded == "hide" else project
        for name, project in listed.projects.items()
    }
    more = {*listing.owned(house), *_names(reserve)} - {*projects}
    for name in sorted(more):
        projects[name] = listing.project(house, channel, name) or listing.Project(name=name)
    return View(
        channel=channel,
        folder=folder,
        state=listed.state,
        files=tuple(file for project in listed.projects.values() for file in project.files),
        projects=projects,
        names=tuple(sorted(listed.projects)),
    )


def _names(reserve: Sequence[str]) -> Iterator[str]:
    """Yield the reserved names; what isn't one is a pattern, which no tree of files can answer for."""
    from builder.wheel.read import normalised  # noqa: PLC0415  # not on the hit path

    return (name for name in map(normalised, reserve) if _NAME.fullmatch(name))


def every(house: House, *, superseded: Superseded = "hide", reserve: Sequence[str] = ()) -> tuple[View, ...]:
    """Return all channels as a server shows them: each at ``<channel>/simple``, and ``local`` at ``simple`` too."""
    names = listing.channels(house)
    own = read(house, "local", superseded=superseded, reserve=reserve)
    others = [
        read(house, name, folder=f"{name}/simple", superseded=superseded, reserve=reserve)
        for name in names
        if name != own.channel
    ]
    return own, replace(own, folder="local/simple"), *others


def _without_superseded(project: Project) -> Project:
    gone = listing.superseded(project.files) if len(project.files) > 1 else ()
    return replace(project, files=tuple(file for file in project.files if file.sha256 not in gone)) if gone else project


def listed(view: View) -> View:
    """Return the view without wheels that no page names."""
    return replace(view, files=tuple(file for project in view.projects.values() for file in project.files))


def times(house: House) -> Mapping[str, int]:
    """Return when the file of each wheel, by sha256, was last known to be right, in ns."""
    return dict(house.catalogue.rows("SELECT sha256, mtime_ns FROM wheels"))


def whole(house: House, view: View) -> View:
    """Return the view without the wheels whose file isn't as it was published; then its `state` is empty."""
    known = times(house)
    lost = {file.sha256 for file in view.files if not _is_whole(house, file, known)}
    if not lost:
        return view
    projects = {
        name: replace(project, files=tuple(file for file in project.files if file.sha256 not in lost))
        for name, project in view.projects.items()
    }
    files = tuple(file for file in view.files if file.sha256 not in lost)
    return replace(view, state="", files=files, projects=projects)


def _is_whole(house: House, file: File, known: Mapping[str, int]) -> bool:
    try:
        found = os.stat(file.path)  # noqa: PTH116  # thousands of them
    except OSError:
        return False
    return found.st_size == file.size and (known.get(file.sha256) == found.st_mtime_ns or house.is_whole(file))
