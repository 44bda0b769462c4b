"""The wheelhouse as a package index that needs no program of ours: a tree of files.

::

    simple/index.html  index.v1_json            the projects
    simple/<project>/index.html  index.v1_json  its wheels (PEP 503; PEP 691)
    files/<sha256>/<wheel>                      the wheel, and beside it <wheel>.metadata (PEP 658, 714)
    .spark-build-index                          what of this folder is ours

An export for web servers has more: each page as ``.gz`` too, each wheel's record and signature, ``nginx.conf``, pages for
people. With all channels in it, a channel's pages are below ``<channel>/simple/``, as a server has them. All links are
relative, so that the tree works from ``file://``, from any web server and from a stick. Digests, sizes and METADATA come
from the catalogue, where the publish stored them; nothing is computed here.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from builder.errors import UsageError, WheelhouseError
from builder.index import manifest
from builder.index.listing import state
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from builder.index.listing import House, Superseded
    from builder.index.place import Written
    from builder.index.view import View

__all__ = ["Exported", "export", "index_url", "lacking", "refresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A tree that was written. `url` is that of its ``simple`` folder; `written` counts what this run did.

    `example` is a project that can be installed from there, empty where there is none.
    """

    path: Path
    url: str
    channels: tuple[str, ...]
    projects: tuple[str, ...]
    example: str
    wheels: int
    written: Written


def export(  # each says another part of the tree
    house: House,
    dest: Path,
    *,
    channel: str | None = "local",
    superseded: Superseded = "hide",
    reserve: Sequence[str] = (),
    keep: bool = True,
    more: Callable[[], Iterable[tuple[str, bytes]]] = tuple,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Make `dest` show exactly what `channel` lists now; files that are right already aren't touched.

    Without a channel it shows all of them, as a server does: ``local`` at ``simple/``, each at ``<channel>/simple/``.
    `reserve` are names and patterns of names (``flashinfer-*``) that nobody else's index is to be asked for. Without
    `keep`, wheels that no page names are left out. `more` gives other files: pages for people. `tell` hears how many bytes
    of wheels are in place, of how many.

    Raises UsageError ``channel-missing``, ``not-an-index`` (the folder holds other things, or is in the wheelhouse) or
    ``index-newer``; HostError
    ``unwritable`` or ``disk-full``; WheelhouseError ``wheel-missing`` or ``wheel-changed`` when the
    wheelhouse lacks what its catalogue says. A channel's pages change in one step where the file system can exchange
    folders, else one by one, wheels before the pages that name them; a run that is killed leaves the pages as they were or
    as they are to be.
    """
    from builder.index import nginx, tree, view  # noqa: PLC0415  # not on the hit path

    def read() -> tuple[View, ...]:
        if channel is not None:
            views: tuple[View, ...] = (view.read(house, channel, superseded=superseded, reserve=reserve),)
        else:
            views = view.every(house, superseded=superseded, reserve=reserve)
        return views if keep else tuple(map(view.listed, views))

    def write(views: Sequence[View]) -> Written:
        text = nginx.text(dest.resolve(), reserve, everything=channel is None)
        return tree.write(house, dest, views, web=True, more=chain([("nginx.conf", text.encode())], more()), tell=tell)

    if house.root.resolve() in dest.resolve().parents:
        raise UsageError(
            "not-an-index",
            f"{dest} is in the wheelhouse",
            cause="what lies there is its own, its index too, which each build brings up to date",
            help="name a folder outside; wheels are hard links where the file system is the same",
            run=(f"spark-build index export {house.root.with_name('index')}",),
        )
    views, written = _show(house, dest, read, write)
    return Exported(
        path=dest,
        url=_url(dest),
        channels=tuple(dict.fromkeys(one.channel for one in views)),
        projects=tuple(sorted({name for one in views for name in one.names})),
        example=next(
            (name for name in views[0].names if any(not file.yanked for file in views[0].projects[name].files)), ""
        ),
        wheels=len({file.sha256 for one in views for project in one.projects.values() for file in project.files}),
        written=written,
    )


def refresh(house: House) -> Path:
    """Bring the wheelhouse's own index up to date and return its folder; two small reads when nothing changed.

    A wheel whose file is gone isn't listed, and looked for again the next time: one lost file must not keep the others
    from being installed. A wheelhouse that can't be written keeps the index that it has. Raises HostError
    ``disk-full`` or ``unwritable``; what was published stays, and the next call repairs the index.
    """
    dest = house.root / "index"
    if not house.read_only and not manifest.shows(dest, state(house, "local", "list")):
        from builder.index import tree, view  # noqa: PLC0415  # not on the hit path

        _show(
            house,
            dest,
            lambda: (view.read(house, "local"),),
            lambda views: tree.write(house, dest, [view.whole(house, one) for one in views]),
        )
    return dest


def lacking(house: House) -> tuple[Path, ...]:
    """Return what the wheelhouse's own index lacks of what it has to list: existence and size, no reading."""
    from builder.index import tree, view  # noqa: PLC0415  # not on the hit path

    shown = view.read(house, "local")
    return tuple(tree.lacking(house.root / "index", shown)) if shown.projects else ()


def _show(
    house: House, dest: Path, read: Callable[[], Sequence[View]], write: Callable[[Sequence[View]], Written]
) -> tuple[Sequence[View], Written]:
    """Make `dest` show what is `read`; a wheel that is removed meanwhile isn't missed."""
    from builder.index import tree  # noqa: PLC0415  # not on the hit path

    with tree.claimed(dest):
        while True:
            views = read()
            try:
                return views, write(views)
            except WheelhouseError:
                if all(state(house, one.channel, "list") == one.state for one in views):
                    raise


def index_url(house: House) -> str:
    """Return what clients are given as ``--index-url`` for the wheelhouse's own index."""
    return _url(house.root / "index")


def _url(dest: Path) -> str:
    return f"{(dest.resolve() / 'simple').as_uri()}/"
