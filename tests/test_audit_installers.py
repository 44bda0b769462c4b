"""What pip and uv refuse to install is an error here, and what both of them take is none: asked of both."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, files
from builder.audit.context import Context
from builder.audit.target import Capability
from tests import wheel_kit
from tests.index_kit import UV, serve
from tests.wheel_kit import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.audit.rules import Finding

NAME = "tiny-1.0-py3-none-any.whl"
FILES = {"tiny/__init__.py": b"VALUE = 1\n"}


def zipped(*, start: bytes = b"", gap: bytes = b"", extra: bytes = b"", comment: bytes = b"", drop: str = "") -> bytes:
    """A good wheel with these bytes before the first member and after each; `drop` has no line in the directory."""
    into = io.BytesIO(start)
    into.seek(len(start))
    with zipfile.ZipFile(into, "a" if start else "w") as archive:
        for name, data in {**({drop: b"evil"} if drop else {}), **wheel_kit.contents("tiny", "1.0", FILES)}.items():
            info = zipfile.ZipInfo(name)
            info.extra = extra
            archive.writestr(info, data)
            into.seek(archive.start_dir)
            into.write(gap)
            archive.start_dir = into.tell()
        archive.comment = comment
        archive.filelist = [one for one in archive.filelist if one.filename != drop]
    return into.getvalue()


def piped() -> bytes:
    return wheel_kit.piped(wheel_kit.contents("tiny", "1.0", FILES))


#: Ways of writing a zip, and whether uv refuses it from an index. pip takes all of them but one.
ZIPS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "good": (zipped, False),
    "a comment": (lambda: zipped(comment=b"made by hand"), False),
    "padding in extra fields": (lambda: zipped(extra=struct.pack("<HHH", 0xD935, 2, 4)), False),
    "written to a pipe": (piped, False),
    "zeros behind": (lambda: zipped() + bytes(512), False),
    "a line behind": (lambda: zipped() + b"\n", True),
    "text behind": (lambda: zipped() + b"x" * 1000, True),
    "a script before": (lambda: b"#!/bin/sh\n" + zipped(), True),
    "a script before, and places that allow for it": (lambda: zipped(start=b"#!/bin/sh\n"), True),
    "zeros between": (lambda: zipped(gap=bytes(64)), True),
    "text between": (lambda: zipped(gap=b"x" * 64), True),
    "a member that isn't listed": (lambda: zipped(drop="tiny/evil.py"), True),
    "a wheel in the comment": (lambda: zipped(comment=zipped()), True),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_that_uv_refuses_is_an_error(tmp_path: Path, kind: str) -> None:
    made, refused = ZIPS[kind]
    path = tmp_path / "simple" / "tiny" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(made())
    (path.parent / "index.html").write_text(f'<a href="{NAME}">{NAME}</a>')
    with serve(tmp_path) as server:
        done = uv(tmp_path, "--default-index", server.url, "tiny==1.0")
    assert (done.returncode != 0) is refused, done.stderr
    found = contents.read(path)
    assert {slug for slug, _file, _text in found.problems} == ({"wheel-hidden"} if refused else set())
    assert {one.severity for one in judged(path) if one.id == "wheel-hidden"} == ({"error"} if refused else set())


def judged(path: Path) -> list[Finding]:
    return list(files.judge(contents.read(path), Context(target=Capability(12, 1))))


def uv(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "UV_PYTHON_DOWNLOADS": "never"}
    command = [str(UV), "pip", "install", "--no-config", "--no-cache", "--no-deps", "--python", sys.executable]
    return subprocess.run(
        [*command, "--target", folder / "uv", *words], env=env, capture_output=True, text=True, check=False
    )


def pip(folder: Path, wheel: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-deps", "--no-index", "--no-cache-dir"]
    return subprocess.run(
        [*command, "--target", folder / "pip", wheel], capture_output=True, text=True, check=False, cwd=folder
    )


#: Lines of METADATA, and who refuses a wheel for them.
LINES = {
    "Requires-Dist: !!nonsense": {"pip", "uv"},
    'Requires-Dist: other; nosuch == "1"': {"pip", "uv"},
    "Requires-Dist: other (>=1.0.*)": {"pip"},
    "Requires-Dist: other (>=1.0<2)": {"pip"},
    "Requires-Python: nonsense": {"uv"},
    "Requires-Python: 3.8": {"uv"},
    "Summary: \udcff\udcfe": {"pip"},
    "Requires-Python: >=3.6.*": set(),
    "Requires-Python: '>=3.6'": set(),
    "Requires-Python: >=3.6\nRequires-Python: >=3.7": set(),
    "Description-Content-Type: no/such": set(),
    "Provides-Extra: a b!": set(),
}


@pytest.mark.parametrize("lines", LINES)
def test_metadata_that_an_installer_refuses_is_an_error(tmp_path: Path, lines: str) -> None:
    metadata = f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n{lines}\n".encode(errors="surrogateescape")
    path = write(tmp_path / NAME, wheel_kit.contents("tiny", "1.0", FILES, metadata=metadata))
    done = {"pip": pip(tmp_path, path), "uv": uv(tmp_path, "--no-index", path)}
    assert {name for name, one in done.items() if one.returncode} == LINES[lines], done
    (one,) = judged(path)
    assert (one.id, one.severity) == ("metadata-invalid", "error" if LINES[lines] else "warning")
