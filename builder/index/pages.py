"""The pages of an index as text: values in, text out.

HTML as in PEP 503 with the attributes of PEP 592 (yanked), 658 and 714 (METADATA beside the wheel, under both names); JSON
as in PEP 691 with the keys of PEP 700 (versions, size, upload-time). Version 1.4 of the interface added only keys that may
be absent.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.index.listing import File

__all__ = ["API_VERSION", "file_path", "project_html", "project_json", "root_html", "root_json"]

API_VERSION = "1.4"

_HTML = """\
<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <meta name="pypi:repository-version" content="{version}">
    <title>{title}</title>
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
    return _HTML.format(version=API_VERSION, title="Simple index", lines="\n".join(lines))


def root_json(projects: Iterable[str]) -> str:
    """Return the same as JSON."""
    return _json({"meta": {"api-version": API_VERSION}, "projects": [{"name": name} for name in projects]})


def project_html(project: str, files: Sequence[File]) -> str:
    """Return the page of one project, as it lies two folders below the root."""
    lines = [f"    <a {_attributes(file)}>{escape(file.filename)}</a><br>" for file in files]
    return _HTML.format(version=API_VERSION, title=f"Links for {escape(project)}", lines="\n".join(lines))


def project_json(project: str, files: Sequence[File]) -> str:
    """Return the same as JSON."""
    return _json(
        {
            "meta": {"api-version": API_VERSION},
            "name": project,
            "versions": list(dict.fromkeys(file.version for file in files)),
            "files": [_entry(file) for file in files],
        }
    )


def _url(file: File) -> str:
    # A plus sign is percent-encoded, too: some servers and stores take it for a blank.
    return f"../../files/{file.sha256}/{quote(file.filename, safe='')}"


def _attributes(file: File) -> str:
    values = {"href": f"{_url(file)}#sha256={file.sha256}"}
    if file.requires_python:
        values["data-requires-python"] = file.requires_python
    values["data-core-metadata"] = values["data-dist-info-metadata"] = f"sha256={file.metadata_sha256}"
    if file.yanked:
        values["data-yanked"] = ""
    return " ".join(f'{name}="{escape(value)}"' for name, value in values.items())


def _entry(file: File) -> dict[str, object]:
    metadata = {"sha256": file.metadata_sha256}
    entry: dict[str, object] = {
        "filename": file.filename,
        "url": _url(file),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": datetime.fromtimestamp(file.uploaded, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "yanked": file.yanked,
        "core-metadata": metadata,
        "dist-info-metadata": metadata,
    }
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    return entry


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
