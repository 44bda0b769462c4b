"""Released sources from a package index: the simple API in JSON (PEP 691), in HTML where an index has nothing else.

What was found once is kept, so that an exact version needs no network again: a release's bytes never change.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from builder.errors import SourceError
from builder.source.archive import write_atomic
from builder.source.place import without_credentials
from builder.stages import Pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["pin"]

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.01"


def pin(source: Source, request: Request, sources: Sources, *, recipe: str) -> Pin:
    """Return the sdist of the version asked for, with the digest that the index or the recipe gives.

    Raises SourceError ``version-missing`` (names what is near), ``sdist-missing``, ``hash-mismatch``, ``unreachable``.
    """
    project = re.sub(r"[-_.]+", "-", source.project or "").lower()
    version = request.version or source.version or ""
    record = sources.root / "sdists" / project / f"{version}.json"
    try:
        known = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        known = _ask(project, version, sources, recipe)
        write_atomic(record, json.dumps(known).encode())
    wanted = source.sha256 if version == source.version else None
    if wanted and wanted != known["sha256"]:
        raise SourceError(
            "hash-mismatch",
            f"the index offers other bytes for {project} {version} than the recipe pins",
            cause=f"sha256 {known['sha256']}, the recipe says {wanted}",
            help="one of them was changed: find out which before you build",
            run=(f"spark-build recipes show {recipe} --origin",),
        )
    return Pin(
        kind="sdist",
        url=known["url"],
        tree=f"sha256:{known['sha256']}",
        time=known["time"],
        version=version,
        filename=known["filename"],
        size=known["size"],
    )


def _ask(project: str, version: str, sources: Sources, recipe: str) -> dict[str, Any]:
    from builder.source.download import get  # noqa: PLC0415

    command = f"spark-build fetch {recipe}"
    index = (sources.index_url or _index_of_uv(sources)).rstrip("/")
    page = f"{index}/{project}/"
    try:
        body, kind, final = get(sources.mirrored(page), sources, headers={"Accept": _ACCEPT}, command=command)
    except SourceError as error:
        if error.code == "not-found":
            raise SourceError(
                "project-missing",
                f"the index has no project {project}",
                cause=error.summary,
                help="[index] url in the configuration, or UV_DEFAULT_INDEX, says which index is asked",
            ) from error
        raise
    files = list(_files_of_json(body) if _JSON in kind else _files_of_html(body.decode(errors="replace")))
    found = [
        one for one in files if _is_sdist(one["filename"]) and _version(one["filename"], project) == _plain(version)
    ]
    if not found:
        raise _missing(project, version, files)
    one = min(found, key=lambda item: not item["filename"].endswith(".tar.gz"))
    return _record(one, final, project, version, sources, command)


def _record(  # the file's facts
    one: Mapping[str, Any], page: str, project: str, version: str, sources: Sources, command: str
) -> dict[str, Any]:
    from urllib.parse import urljoin  # noqa: PLC0415

    url = urljoin(page, one["url"])
    record = {
        "url": without_credentials(url),
        "filename": one["filename"],
        "sha256": one.get("sha256"),
        "size": one.get("size"),
        "time": _seconds(one.get("upload-time")),
    }
    if record["sha256"] is None or record["time"] is None or record["size"] is None:
        # An index that says less than it should: the file itself tells, trusted on first use.
        from builder.source.archive import keep  # noqa: PLC0415

        kept = keep(url, sources, sha256=record["sha256"], command=command)
        record = {**record, **{key: kept[key] for key in ("sha256", "size")}, "time": record["time"] or kept["time"]}
    if one.get("yanked"):
        from builder.events import Note  # noqa: PLC0415

        text = f"{project} {version} was yanked by its authors: {one['yanked']}"
        sources.sink.emit(Note(level="warning", text=text))
    return record


def _files_of_json(body: bytes) -> Iterator[dict[str, Any]]:
    for one in json.loads(body)["files"]:
        yield {
            "filename": one["filename"],
            "url": one["url"],
            "sha256": one.get("hashes", {}).get("sha256"),
            "size": one.get("size"),
            "upload-time": one.get("upload-time"),
            "yanked": one.get("yanked"),
        }


def _files_of_html(page: str) -> Iterator[dict[str, Any]]:
    import html  # noqa: PLC0415
    from urllib.parse import unquote  # noqa: PLC0415

    for anchor in re.finditer(r"<a\s([^>]*)>", page, re.IGNORECASE):
        href = re.search(r"""href\s*=\s*(["'])(.*?)\1""", anchor[1], re.IGNORECASE)
        if not href:
            continue
        url, _mark, fragment = html.unescape(href[2]).partition("#")
        digest = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
        yield {
            "filename": unquote(url.rsplit("/", 1)[-1]),
            "url": url,
            "sha256": digest[1] if digest else None,
            "yanked": "data-yanked" in anchor[1].lower(),
        }


def _is_sdist(filename: str) -> bool:
    return filename.endswith((".tar.gz", ".zip", ".tar.bz2", ".tar.xz"))


def _version(filename: str, project: str) -> str:
    """Return the version in an sdist's name, as `_plain` compares it; empty when it is another project's."""
    stem = re.sub(r"\.(tar\.gz|tar\.bz2|tar\.xz|zip)$", "", filename)
    for cut in (match.start() for match in re.finditer("-", stem)):
        if re.sub(r"[-_.]+", "-", stem[:cut]).lower() == project:
            return _plain(stem[cut + 1 :])
    return ""


def _plain(version: str) -> str:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        return str(Version(version))
    except InvalidVersion:
        return version


def _missing(project: str, version: str, files: list[dict[str, Any]]) -> SourceError:
    import difflib  # noqa: PLC0415

    known = {
        _version(one["filename"], project): _is_sdist(one["filename"]) for one in files if _is_sdist(one["filename"])
    }
    if _plain(version) not in known and any(f"-{version}-" in one["filename"] for one in files):
        return SourceError(
            "sdist-missing",
            f"{project} {version} was released as wheels only",
            help="build it from git",
            run=(f"spark-build recipe {project} --ref v{version}",),
        )
    near = difflib.get_close_matches(version, known, 3) or list(known)[-3:]
    return SourceError(
        "version-missing",
        f"{project} has no source release {version}",
        cause=f"near: {', '.join(near) or 'none'}",
        help="--version takes a released version; --ref a branch, tag or commit",
    )


def _seconds(text: str | None) -> int | None:
    if not text:
        return None
    from datetime import datetime  # noqa: PLC0415

    return int(datetime.fromisoformat(text).timestamp())


def _index_of_uv(sources: Sources) -> str:
    """Return the index that uv would ask: its own settings hold for us too, and its default is nobody's to repeat."""
    import uv  # noqa: PLC0415

    from builder import proc  # noqa: PLC0415

    keep = ("PATH", "HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in sources.env.items() if key in keep or key.startswith("UV_")}
    done = proc.capture(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", "--offline", "--emit-index-url", "--no-header", "-"], env=env
    )
    for line in done.out.splitlines():
        if line.startswith("--index-url "):
            return line.split(" ", 1)[1].strip()
    raise SourceError(
        "index-unknown",
        "no package index is configured",
        cause=done.err.strip(),
        help="set [index] url in the configuration",
    )
