"""Nested sources, given back to a build in the way that leaves upstream's own code path as it is.

Git repositories answer under their own URL; archives and replaced paths lie where a download would have left them; crates
come from a folder that stands in for the registry. What has no place of its own lies in ``deps`` beside the tree.
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from builder.digest import sha256_file
from builder.errors import RecipeError, SourceError
from builder.recipe.interpolate import expand
from builder.source import seed, served
from builder.source.archive import file_of
from builder.source.place import refusals, write_atomic
from builder.stages import ZIP_EPOCH
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.source.place import Sources
    from builder.stages import Nested, Workspace

__all__ = ["lay_out", "merged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paths:
    """Where home, tree and deps lie, as the build sees them (`inside`) and as they are on this machine (`outside`)."""

    root: Path
    inside: Mapping[str, str]
    outside: Mapping[str, str]


@refusals()
def lay_out(nested: Sequence[Nested], space: Workspace, sources: Sources, *, src: Path) -> dict[str, str]:
    """Leave everything where the build looks for it, and return the variables that it needs for that, for `merged`.

    To be called at each attempt: what vanished or was changed since is put back. All is laid with fixed times. Raises
    SourceError ``nested-missing``, ``hash-mismatch``, ``mirror-damaged`` and those of unpacking, RecipeError
    ``fetch-place`` for a place outside of the build's own folder.
    """
    deps, seen = space.root / "deps", space.inside / "deps"
    paths = _Paths(
        root=space.root,
        inside={name: str(space.inside / name) for name in ("home", "src", "deps")},
        outside={"home": str(space.root / "home"), "src": str(src), "deps": str(deps)},
    )
    nested = [_with_place(one, sources) for one in nested]
    given: dict[str, str] = {}
    records = []
    for one in nested:
        if one.given.place and (record := _place(one, paths, sources)):
            records.append(record)
        _add(given, one, paths)
    if records:
        os.sync()  # what a record vouches for has to outlive a power cut
        for write in records:
            write()
    pins = [one.pin for one in nested if one.kind == "git" and one.pin]
    if pins:
        urls = served.lay_out(pins, deps / "git", sources)
        given |= served.as_variables(served.settings(urls, pins, seen / "git", sources))
    if text := _cargo(nested, paths, sources):
        write_atomic(deps / "cargo" / "config.toml", text.encode())
        given.setdefault("CARGO_HOME", str(seen / "cargo"))
    return given


def merged(env: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the build's variables with `given` laid under them.

    A name with ``+`` at its end is added behind a blank; git's settings are joined; of others the build's own win.
    """
    made = dict(env)
    for name, value in given.items():
        if name.endswith("+"):
            made[name[:-1]] = f"{made.get(name[:-1], '')} {value}".strip()
        elif not name.startswith("GIT_CONFIG_"):
            made.setdefault(name, value)
    if own := served.pairs(given):  # before the build's own, which may hold a mirror of the very same URL
        made |= served.as_variables([*own, *served.pairs(env)])
    return made


def _with_place(one: Nested, sources: Sources) -> Nested:
    """Return `one` with the place that crates have when the recipe names none.

    Raises RecipeError ``fetch-path`` where a path in place of something else has none, and no variable tells it.
    """
    if one.kind != "crates" and one.path and not one.given.place and not one.given.env:
        raise RecipeError(
            "fetch-path",
            f"the recipe doesn't say how a path goes in the place of {one.id}",
            help=f"fetch.{one.id}.replaced sets variables of the build, fetch.{one.id}.replaced-place says where it is laid",
            run=(f"spark-build recipes show {sources.recipe} --origin",),
        )
    if one.kind != "crates" or one.given.place or (one.path and one.given.env):
        return one
    return replace(one, given=replace(one.given, place="${deps}/crates"))


def _cargo(nested: Sequence[Nested], paths: _Paths, sources: Sources) -> str:
    """Return the settings by which cargo takes crates from their place; those of several locks lie in the first's."""
    placed = [one for one in nested if one.kind == "crates" and one.given.place]
    if not placed:
        return ""
    from builder.source import crates  # noqa: PLC0415  # few recipes have any

    folder = expand(placed[0].given.place or "", paths.inside)
    texts = [crates.config(one.pin, sources, folder=folder) for one in placed if one.pin]
    if not texts:  # the user's own folder of crates
        texts = [f'[source.spark-build]\ndirectory = "{folder}"\n\n[source.crates-io]\nreplace-with = "spark-build"\n']
    return "\n\n".join(dict.fromkeys(table.strip() for text in texts for table in text.split("\n\n"))) + "\n"


def _add(given: dict[str, str], one: Nested, paths: _Paths) -> None:
    place = expand(one.given.place, paths.inside) if one.given.place else ""
    values = {**paths.inside, "place": place, "path": str(one.path or "")}
    for name, text in one.given.env.items():
        value = expand(text, values)
        given[name] = f"{given[name]} {value}" if name.endswith("+") and name in given else value


def _place(one: Nested, paths: _Paths, sources: Sources) -> Callable[[], None] | None:
    """Lay one archive, or the path in its place; return what has to be called when the disk has it, if anything."""
    place = _within(expand(one.given.place or "", paths.outside), paths.root, one.given.place or "", one, sources)
    seed.make_way(place, below=paths.root, links=True)
    deps = Path(paths.outside["deps"])
    record, fresh = deps / ".laid" / f"{one.id}.json", deps / ".fresh" / one.id
    if one.kind == "crates" and one.pin:
        from builder.source import crates  # noqa: PLC0415  # few recipes have any

        return seed.folder(place, record, fresh, functools.partial(crates.materialize, one.pin, sources=sources))
    source, digest = _source(one, sources)
    epoch = max(one.pin.time, ZIP_EPOCH) if one.pin else ZIP_EPOCH
    if source.is_file() and not one.given.unpack:
        mode = stat.S_IMODE(source.stat().st_mode) if one.pin is None else 0o644
        if not seed.file(place, source, sha256=digest or sha256_file(source), mode=mode, epoch=epoch):
            raise _damaged(source, sources)
        return None
    make = functools.partial(_make, one, source, digest, epoch, paths, sources)
    return seed.folder(place, record, fresh, make)


def _make(  # everything that a folder is made of
    one: Nested, source: Path, digest: str | None, epoch: int, paths: _Paths, sources: Sources, dest: Path
) -> None:
    if source.is_dir():
        seed.copy_tree(source, dest, epoch=epoch)
    else:
        from builder.source.unpack import unpack  # noqa: PLC0415  # heavy, and mostly all is there

        if digest and sha256_file(source) != digest:
            raise _damaged(source, sources)
        try:
            unpack(source, dest, epoch=epoch, strip=one.given.strip)
        except SourceError as error:
            if one.path:  # the user's own: nothing of theirs is ever to be deleted for us
                error.help, error.run = f"{one.key} names it", (f"ls -l {source}",)
            raise
    place = expand(one.given.place or "", paths.inside)
    values = {**paths.inside, "place": place, "path": str(one.path or "")}
    for name, text in one.given.stamp.items():
        stamp = _within(f"{dest}/{name}", dest, name, one, sources)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        seed.remove(stamp)  # a link of the user's folder leads to what isn't ours
        stamp.write_text(expand(text, values))
        os.utime(stamp, (epoch, epoch))
    os.utime(dest, (epoch, epoch))


def _source(one: Nested, sources: Sources) -> tuple[Path, str | None]:
    """Return what is laid, and its sha256 where it is an archive."""
    path = one.path or (file_of(one.pin, sources) if one.pin and one.kind == "archive" else None)
    if path is None or not path.exists():
        raise SourceError(
            "nested-missing",
            f"{one.id} isn't at hand" if path else f"{one.id} is a repository: it has no place, but its URL",
            cause=str(path or one.given.place),
            help=f"{one.key} puts another in its place",
            run=(f"spark-build fetch {sources.recipe}",),
        )
    return path, one.pin.tree.removeprefix("sha256:") if one.pin else None


def _within(path: str, root: Path, told: str, one: Nested, sources: Sources) -> Path:
    """Return `path` normalized. Tree and build may have put links on the way there: nothing is written outside of `root`."""
    place = Path(os.path.normpath(path))
    if Path(os.path.realpath(place.parent)).is_relative_to(os.path.realpath(root)):
        return place
    raise RecipeError(
        "fetch-place",
        f"the place of {one.id} isn't in the build's own folder: {told}",
        cause=f"it leads to {os.path.realpath(place.parent)}",
        help="it begins with ${home}, ${src} or ${deps}; where the build put a link in the way, start it anew",
        run=(f"spark-build recipe {sources.recipe} --force",),
    )


def _damaged(file: Path, sources: Sources) -> SourceError:
    return SourceError(
        "hash-mismatch",
        f"{file} isn't what was pinned",
        help="it changed on this disk; delete it, and it is fetched again",
        run=(f"rm -r {file.parent}", f"spark-build fetch {sources.recipe}"),
    )
