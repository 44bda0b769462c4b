"""The simple API of a package index: JSON (PEP 691), or HTML where an index has nothing else (PEP 503)."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from builder.errors import HostError, SourceError
from builder.source.place import without_credentials
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.source.place import Sources

__all__ = ["File", "ask", "plain"]

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.01"
_DOCTOR = ("spark-build doctor",)
_SUFFIX = re.compile(r"\.(tar\.gz|tgz|tar\.bz2|tar\.xz|zip|whl)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that an index offers. `version` is normalised (PEP 440); `uploaded` in seconds; `yanked` may be a reason."""

    filename: str
    url: str
    version: str
    sdist: bool
    sha256: str | None
    size: int | None = None
    uploaded: int | None = None
    yanked: bool | str = False


def ask(project: str, sources: Sources) -> tuple[File, ...]:
    """Return what the index offers for `project`.

    Raises SourceError ``project-missing``, ``index-damaged``, ``index-unknown`` or those of a download.
    """
    from builder.source.download import get  # noqa: PLC0415

    page = f"{(sources.index_url or _index_of_uv(sources)).rstrip('/')}/{project}/"
    asked = sources.mirrored(page)
    try:
        body, kind, final = get(asked, sources, headers={"Accept": _ACCEPT})
    except SourceError as error:
        if error.code == "not-found":
            raise SourceError(
                "project-missing",
                f"the index has no project {project}",
                cause=error.summary,
                help="[index] url in the configuration, or UV_DEFAULT_INDEX, says which index is asked",
                run=error.run,
            ) from error
        raise
    try:
        found = list(_of_json(body) if _JSON in kind else _of_html(body.decode(errors="replace")))
        return tuple(_file(one, project, page=page, final=final, sources=sources) for one in found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            "index-damaged",
            f"the page of {project} on the index can't be read",
            cause=f"{without_credentials(page)}: {error}",
            run=(f"curl -H 'Accept: {_JSON}' {without_credentials(page)}",),
        ) from error


def _file(one: dict[str, Any], project: str, *, page: str, final: str, sources: Sources) -> File:
    from urllib.parse import urljoin  # noqa: PLC0415

    # Canonical where a mirror has the file at the same place, else where it really is.
    url, there = urljoin(page, one["url"]), without_credentials(urljoin(final, one["url"]))
    if without_credentials(sources.mirrored(url)) != there:
        url = there
    sha256 = one["sha256"]
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        msg = f"the sha256 of {one['filename']} is {sha256!r}"
        raise ValueError(msg)
    filename = str(one["filename"])
    if "/" in filename or filename.startswith("."):
        msg = f"a file is named {filename!r}"
        raise ValueError(msg)
    return File(
        filename=filename,
        url=without_credentials(url),
        version=_version(filename, project),
        sdist=bool(_SUFFIX.search(filename)) and not filename.endswith(".whl"),
        sha256=sha256,
        size=one.get("size"),
        uploaded=_seconds(one.get("upload-time")),
        yanked=one.get("yanked") or False,
    )


def _of_json(body: bytes) -> Iterator[dict[str, Any]]:
    for one in json.loads(body)["files"]:
        yield {**one, "sha256": one.get("hashes", {}).get("sha256")}


def _of_html(page: str) -> Iterator[dict[str, Any]]:
    import html  # noqa: PLC0415
    from urllib.parse import unquote, urljoin  # noqa: PLC0415

    based = re.search(r"""<base\s[^>]*href\s*=\s*(["'])(.*?)\1""", page, re.IGNORECASE)
    for anchor in re.finditer(r"<a\s([^>]*)>", page, re.IGNORECASE):
        href = re.search(r"""href\s*=\s*(["'])(.*?)\1""", anchor[1], re.IGNORECASE)
        if not href:
            continue
        url, _mark, fragment = html.unescape(href[2]).partition("#")
        digest = re.search(r"(?:^|&)sha256=([0-9a-f]{64})", fragment)
        yanked = re.search(r"""\bdata-yanked(?:\s*=\s*(["'])(.*?)\1)?""", anchor[1], re.IGNORECASE)
        yield {
            "filename": unquote(url.partition("?")[0].rsplit("/", 1)[-1]),
            "url": urljoin(based[2], url) if based else url,
            "sha256": digest[1] if digest else None,
            "yanked": html.unescape(yanked[2] or "") or True if yanked else False,
        }


def _version(filename: str, project: str) -> str:
    """Return the version in a file's name, as `plain` writes it; empty when it is another project's."""
    stem = _SUFFIX.sub("", filename)
    if filename.endswith(".whl"):
        return plain(stem.split("-")[1]) if stem.count("-") > 2 else ""  # noqa: PLR2004  # PEP 427: name, version, tags
    for cut in (match.start() for match in re.finditer("-", stem)):
        if re.sub(r"[-_.]+", "-", stem[:cut]).lower() == project:
            return plain(stem[cut + 1 :])
    return ""


def plain(version: str) -> str:
    """Return a version as PEP 440 normalises it, or as it is when it is none."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        return str(Version(version))
    except InvalidVersion:
        return version


def _seconds(text: str | None) -> int | None:
    if not text:
        return None
    from datetime import UTC, datetime  # noqa: PLC0415

    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _index_of_uv(sources: Sources) -> str:
    """Return the index that uv would ask: its own settings hold for us too, and its default is nobody's to repeat."""
    from pathlib import Path  # noqa: PLC0415

    import uv  # noqa: PLC0415

    from builder import proc  # noqa: PLC0415

    keep = ("PATH", "HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in sources.env.items() if key in keep or key.startswith("UV_")}
    words = ["pip", "compile", "--quiet", "--offline", "--no-cache", "--python", sys.executable]
    words += ["--emit-index-url", "--no-header", "-"]
    done = proc.capture([uv.find_uv_bin(), *words], env=env, cwd=Path("/"))
    for line in done.out.splitlines():
        if line.startswith("--index-url "):
            return line.split(" ", 1)[1].strip()
    if not done.ok:
        raise HostError("uv-failed", "uv failed when it was asked for its index", cause=done.err.strip(), run=_DOCTOR)
    raise SourceError(
        "index-unknown",
        "no package index is configured",
        cause=done.err.strip(),
        help="set [index] url in the configuration, or UV_DEFAULT_INDEX",
        run=("uv pip compile --emit-index-url - </dev/null",),
    )
