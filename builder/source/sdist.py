"""Released sources from a package index: what was found once is kept, so it needs no network again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from builder.errors import SourceError, UsageError
from builder.events import Note
from builder.source import simple
from builder.source.archive import fetch, keep, materialize, read
from builder.source.place import write_atomic
from builder.stages import Pin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.source.simple import File
    from builder.stages import Request

__all__ = ["fetch", "materialize", "pin", "read"]


def pin(source: Source, request: Request, sources: Sources, *, base: Path) -> Pin:  # noqa: ARG001  # all kinds take it
    """Return the sdist of the version asked for, with the digest that the index or the recipe gives.

    Raises SourceError ``version-missing`` (names what is near), ``sdist-missing``, ``project-missing``, ``hash-mismatch``,
    ``index-damaged``, ``unreachable``, ``offline-missing``; UsageError ``version-wrong``.
    """
    project = re.sub(r"[-_.]+", "-", source.project or "").lower()
    version = request.version or source.version or ""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", version):
        raise UsageError("version-wrong", f"{version!r} is no version", run=(f"spark-build recipe {sources.recipe}",))
    known = _known(project, version, sources)
    wanted = source.sha256 if version == source.version else None
    if wanted and wanted != known["sha256"]:
        raise SourceError(
            "hash-mismatch",
            f"the index offers other bytes for {project} {version} than the recipe pins",
            cause=f"sha256 {known['sha256']}, the recipe says {wanted}",
            help="one of them was changed: find out which before you build",
            run=(f"spark-build recipes show {sources.recipe} --origin",),
        )
    if known.get("yanked"):
        why = f": {known['yanked']}" if isinstance(known["yanked"], str) else ""
        text = f"{project} {known['version']} was yanked by its authors{why}"
        sources.sink.emit(Note(level="warning", text=text))
    return Pin(
        kind="sdist",
        url=known["url"],
        tree=f"sha256:{known['sha256']}",
        time=known["time"],
        version=known["version"],
        filename=known["filename"],
        size=known["size"],
    )


def _known(project: str, version: str, sources: Sources) -> dict[str, Any]:
    record = sources.root / "sdists" / project / f"{version}.json"
    try:
        loaded: dict[str, Any] = json.loads(record.read_bytes())
        there = sources.root / "files" / loaded["sha256"] / loaded["filename"]
        if "=***" in loaded["url"] and not there.exists() and not sources.offline:
            _ask(project, version, sources)  # the index tells the secret of the file's URL again
    except (FileNotFoundError, ValueError):
        loaded = _ask(project, version, sources)
        write_atomic(record, json.dumps(loaded).encode())
    return loaded


def _ask(project: str, version: str, sources: Sources) -> dict[str, Any]:
    files = simple.ask(project, sources)
    plain = simple.plain(version)
    found = [one for one in files if one.sdist and one.version == plain]
    if not found:
        raise _missing(project, version, files, sources)
    return _record(min(found, key=lambda one: not one.filename.endswith(".tar.gz")), sources)


def _record(one: File, sources: Sources) -> dict[str, Any]:
    """Return the file's facts; what the index doesn't say, the file itself tells, trusted on first use."""
    facts: Mapping[str, Any] = {"sha256": one.sha256, "size": one.size, "time": one.uploaded}
    if None in facts.values():
        kept = keep(one.url, sources, sha256=one.sha256)
        facts = {key: kept[key] if value is None else value for key, value in facts.items()}
    return {"url": one.url, "filename": one.filename, "version": one.version, "yanked": one.yanked, **facts}


def _missing(project: str, version: str, files: tuple[File, ...], sources: Sources) -> SourceError:
    import difflib  # noqa: PLC0415

    plain = simple.plain(version)
    if any(one.version == plain for one in files):
        return SourceError(
            "sdist-missing",
            f"{project} {version} was released as wheels only",
            help="build it from git",
            run=_from_git(sources, f"v{version}"),
        )
    known = list(dict.fromkeys(one.version for one in files if one.sdist))
    near = difflib.get_close_matches(plain, known, 3) or known[-3:]
    return SourceError(
        "version-missing",
        f"{project} has no source release {version}",
        cause=f"near: {', '.join(near) or 'none'}",
        help="--version takes a released version; --ref a branch, tag or commit",
        run=(f"spark-build recipe {sources.recipe} --version {near[0]}",)
        if near
        else _from_git(sources, f"v{version}"),
    )


def _from_git(sources: Sources, ref: str) -> tuple[str, ...]:
    return (f"spark-build recipe {sources.recipe} --ref {ref}",)
