"""The pages of an index as text: values in, text out.

HTML as in PEP 503 with the attributes of PEP 592 (yanked, with the reason) and 714 (METADATA beside the wheel); JSON as in
PEP 691 with the keys of PEP 700 (versions, size, upload-time); in both the project's status as in PEP 792, unless it is
``active``. All links are relative: `up` is how many folders the page lies below the root of the index.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.index.listing import File, Project

__all__ = ["API_VERSION", "file_path", "project_html", "project_json", "root_html", "root_json"]

API_VERSION = "1.4"

_HTML = """\
<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <meta name="pypi:repository-version" content="{version}">
{status}    <title>{title}</title>
  </head>
  <body>
{lines}
  </body>
</html>
"""


def file_path(file: File) -> str:
    """Return where a wheel lies in the tree, below its root."""
    return f"files/{file.sha256}/{file.filename}"


def root_html(projects: Iterable[str]) -> str:
    """Return the page that lists the projects."""
    lines = [f'    <a href="{quote(name)}/">{escape(name)}</a><br>' for name in projects]
    return _HTML.format(version=API_VERSION, status="", title="Simple index", lines="\n".join(lines))


def root_json(projects: Iterable[str]) -> str:
    """Return the same as JSON."""
    return _json({"meta": {"api-version": API_VERSION}, "projects": [{"name": name} for name in projects]})


def project_html(project: Project, up: int) -> str:
    """Return the page of one project."""
    lines = [f"    <a {_attributes(file, up)}>{escape(file.filename)}</a><br>" for file in project.files]
    title = f"Links for {escape(project.name)}"
    return _HTML.format(version=API_VERSION, status=_meta(project), title=title, lines="\n".join(lines))


def project_json(project: Project, up: int) -> str:
    """Return the same as JSON."""
    status = {"status": project.status, **({"reason": project.reason} if project.reason else {})}
    return _json(
        {
            "meta": {"api-version": API_VERSION},
            "name": project.name,
            **({"project-status": status} if project.status != "active" else {}),
            "versions": list(dict.fromkeys(file.version for file in project.files)),
            "files": [_entry(file, up) for file in project.files],
        }
    )


def _meta(project: Project) -> str:
    if project.status == "active":
        return ""
    values = {"status": project.status, **({"status-reason": project.reason} if project.reason else {})}
    return "".join(
        f'    <meta name="pypi:project-{name}" content="{escape(value)}">\n' for name, value in values.items()
    )


def _url(file: File, up: int) -> str:
    # A plus sign is percent-encoded, too: some servers and stores take it for a blank.
    return f"{'../' * up}files/{file.sha256}/{quote(file.filename, safe='')}"


def _attributes(file: File, up: int) -> str:
    values = {"href": f"{_url(file, up)}#sha256={file.sha256}"}
    if file.requires_python:
        values["data-requires-python"] = file.requires_python
    values["data-core-metadata"] = f"sha256={file.metadata_sha256}"
    if file.yanked:
        values["data-yanked"] = file.yanked_reason or ""
    return " ".join(f'{name}="{escape(value)}"' for name, value in values.items())


def _entry(file: File, up: int) -> dict[str, object]:
    entry: dict[str, object] = {
        "filename": file.filename,
        "url": _url(file, up),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": datetime.fromtimestamp(file.uploaded, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "yanked": (file.yanked_reason or True) if file.yanked else False,
        "core-metadata": {"sha256": file.metadata_sha256},
    }
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    return entry


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
