"""The wheels that ``index.py`` serves, and how they come into a wheelhouse: by a real publish, as one set.

Every run makes the same bytes. ``bench-0000`` to ``bench-0099`` need each other like real packages: each two below it and
one far off. A program of its own publishes what a server that runs already has to show:

    python benchmarks/index_wheels.py WHEELHOUSE    reads file names, one a line; prints when each was published
"""

from __future__ import annotations

import base64
import hashlib
import random
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from builder.wheel import read
from builder.wheelhouse import Wheelhouse

__all__ = ["BIG", "GRAPH", "VERSIONS", "Made", "make", "name", "published", "wheel"]

VERSIONS, GRAPH = 10, 100
BIG, BIG_BYTES = "bigwheel", 400_000_000
_DAY = (2026, 1, 1, 0, 0, 0)
_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A folder of wheels: all of them, and what the biggest is called."""

    folder: Path
    files: tuple[Path, ...]
    projects: int


def name(number: int) -> str:
    """Return the normalised name of a project."""
    return f"bench-{number:04}"


def needs(number: int) -> list[str]:
    """Return the lines of METADATA that name what project `number` needs; only those of the graph need anything."""
    if number >= GRAPH:
        return []
    others = {2 * number + 1, 2 * number + 2, number + 37}
    return [f"Requires-Dist: {name(other)}>=1.{number % 5}" for other in sorted(others) if other < GRAPH]


def wheel(folder: Path, project: str, version: str, *, requires: list[str] | None = None, size: int = 0) -> Path:
    """Write a wheel that every installer takes, and return it; `size` adds so many bytes that don't compress."""
    module = project.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}", "Summary: one of many"]
    lines += ["Requires-Python: >=3.9", "License: Apache-2.0", *(requires or []), "", "Made to be served.", ""]
    path = folder / f"{module}-{version}-py3-none-any.whl"
    rows: list[str] = []
    with zipfile.ZipFile(path, "w") as archive:
        if size:
            _add_noise(archive, f"{module}/data.bin", size, rows)
        _add(archive, f"{module}/__init__.py", b'"""One of many."""\n', rows)
        _add(archive, f"{info}/METADATA", "\n".join(lines).encode(), rows)
        text = b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        _add(archive, f"{info}/WHEEL", text, rows)
        record = f"{info}/RECORD"
        archive.writestr(zipfile.ZipInfo(record, _DAY), "".join([*rows, f"{record},,\n"]))
    return path


def _row(path: str, digest: bytes, size: int) -> str:
    return f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{size}\n"


def _add(archive: zipfile.ZipFile, path: str, data: bytes, rows: list[str]) -> None:
    archive.writestr(zipfile.ZipInfo(path, _DAY), data)
    rows.append(_row(path, hashlib.sha256(data).digest(), len(data)))


def _add_noise(archive: zipfile.ZipFile, path: str, size: int, rows: list[str]) -> None:
    source, digest = random.Random(path), hashlib.sha256()  # noqa: S311  # just bytes
    with archive.open(zipfile.ZipInfo(path, _DAY), "w", force_zip64=True) as member:
        for start in range(0, size, _CHUNK):
            chunk = source.randbytes(min(_CHUNK, size - start))
            digest.update(chunk)
            member.write(chunk)
    rows.append(_row(path, digest.digest(), size))


def make(folder: Path, projects: int) -> Made:
    """Leave ten wheels of each project and the big one in `folder`; one that is there already is taken as it is."""
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(projects):
            for minor in range(VERSIONS):
                wheel(folder, name(number), f"1.{minor}", requires=needs(number))
        wheel(folder, BIG, "1.0", size=BIG_BYTES)
        done.touch()
    return Made(folder=folder, files=tuple(sorted(folder.glob("*.whl"))), projects=projects)


def published(root: Path, files: tuple[Path, ...]) -> None:
    """Publish `files` into the wheelhouse at `root` as one set."""
    wheels = [read.inspect(path) for path in files]
    with Wheelhouse.open(root, clock=time.time) as house:
        house.publish(wheels, fingerprint="b" * 64, recipe="bench", inputs=None, provenance={"made": True})


def main() -> int:
    """Publish what standard input names, and say when each was."""
    with Wheelhouse.open(Path(sys.argv[1]), clock=time.time, create=False) as house:
        print("ready", flush=True)
        for line in sys.stdin:
            one = read.inspect(Path(line.rstrip("\n")))
            begun = time.monotonic()
            house.publish([one], fingerprint=one.sha256, recipe="bench", inputs=None, provenance={"made": True})
            print(begun, time.monotonic(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
