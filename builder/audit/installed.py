"""What is installed in an environment, read where it lies. Its Python is never run.

Formats: ``.dist-info`` folders, RECORD, direct_url.json and pyvenv.cfg as in the packaging user guide's specifications.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from builder.audit import dpkg
from builder.audit.facts import Contents
from builder.audit.rules import Rule, table
from builder.errors import UsageError
from builder.values import dataclass
from builder.wheel.read import header, headers, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from builder.audit.context import Context
    from builder.audit.facts import File
    from builder.audit.rules import Finding

__all__ = ["RULES", "folders", "judge", "prefix", "read", "settings"]

RULES = table(
    Rule(
        id="installed-changed",
        severity="error",
        title="an installed file isn't what was installed",
        why="it was edited, overwritten by another package or damaged: what runs is not what its wheel holds",
        help="install the package again (`uv pip install --reinstall NAME`); keep changes of your own in a patch",
    ),
    Rule(
        id="installed-gone",
        severity="error",
        title="an installed file is gone",
        why="the package breaks where it needs the file",
        help="install the package again (`uv pip install --reinstall NAME`)",
    ),
    Rule(
        id="installed-outside",
        severity="warning",
        title="a file that RECORD names lies outside the environment",
        why="it belongs to something else, so it was not read",
        help="install the package again, or leave it out of the environment",
    ),
    Rule(
        id="installed-unlisted",
        severity="warning",
        title="nothing lists the files of a package",
        why="without RECORD nobody can tell which files are its own, so they were not read",
        help="install it again from a wheel by uv or pip; packages of the system's own manager have no RECORD",
    ),
    Rule(
        id="installed-by-dpkg",
        severity="info",
        title="a package of the system differs from its RECORD",
        why="Debian and Ubuntu change files after RECORD was written, and leave others out: these are as dpkg put them",
        help="`dpkg --verify PACKAGE` says whether they still are",
    ),
    Rule(
        id="installed-editable",
        severity="info",
        title="a package is installed as editable",
        why="its code lies in a source tree, which may change at any time, and was not read",
        help="install a wheel of it where others depend on this environment",
    ),
)

_CHUNK = 1 << 20
#: Weaker hashes are forbidden in RECORD.
_ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})
#: Hashing is most of the work, and runs beside other threads; more of them only wait for the disk.
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line of RECORD: the path as written, the file, its hash as ``algorithm=text`` or empty."""

    path: str
    file: Path
    digest: str


def read(
    environment: Path, *, on_read: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[Contents, ...]:
    """Return every distribution installed in a venv, or in the environment of a ``python``, by name.

    Of one that is there twice the first counts, as for Python. `on_read` is told how many of them were read, of how many.
    Raises UsageError ``no-environment``.
    """
    root = prefix(environment)
    found: dict[str, tuple[Path, Path]] = {}
    for site in folders(environment):
        for info in sorted(site.iterdir()):
            if info.suffix in {".dist-info", ".egg-info"} and not info.name.startswith("~"):  # pip's half-removed ones
                found.setdefault(normalised(_named(info)[0]), (site, info))
    every = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_WORKERS)) as pool:
        places = [found[project] for project in sorted(found)]
        done = pool.map(lambda place: _distribution(place[0], place[1], root), places)
        for number, contents in enumerate(done, start=1):
            every.append(contents)
            on_read(number, len(found))
    return tuple(every)


def folders(environment: Path) -> tuple[Path, ...]:
    """Return the site-packages folders of an environment, first the one that Python looks into first.

    Raises UsageError ``no-environment``.
    """
    root = prefix(environment)
    told = settings(root)
    version = ".".join((told.get("version") or told.get("version_info") or "").split(".")[:2])
    found = _sites(root, version)
    if told.get("include-system-site-packages", "").lower() == "true" and told.get("home"):
        found += _sites(Path(told["home"]).parent, version)
    if not found and any(root.glob("*.dist-info")):
        found = [root]  # the folder of a `pip install --target`
    if not found:
        raise UsageError(
            "no-environment",
            f"{environment} holds no Python environment",
            cause="there is no lib/python3.*/site-packages in it",
            help="name a virtual environment, or the python in it",
            run=("spark-build audit --env .venv",),
        )
    return tuple(dict.fromkeys(found))


def judge(contents: Contents, _context: Context) -> Iterator[Finding]:
    """Yield what is wrong with an installation; nothing for a wheel."""
    for slug, file, found in contents.problems:
        if slug in RULES:
            yield RULES[slug].finding(file=file, found=found)


def prefix(environment: Path) -> Path:
    """Return the folder above ``bin``; a venv's python is a link, and isn't followed."""
    if environment.is_file() or (environment.is_symlink() and not environment.is_dir()):
        return environment.absolute().parent.parent
    return environment.absolute()


def settings(prefix: Path) -> Mapping[str, str]:
    """Return what a virtual environment's ``pyvenv.cfg`` says; nothing for another environment."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _equals, value in pairs}


def _sites(prefix: Path, version: str) -> list[Path]:
    """Return the folders below `prefix` that hold packages; those of Debian's own Python have another name."""
    python = f"python{version}" if version else "python3*"
    found: dict[str, Path] = {}
    for lib in ("local/lib", "lib", "lib64"):
        for pattern in (f"{python}/site-packages", f"{python}/dist-packages", "python3/dist-packages"):
            for site in sorted((prefix / lib).glob(pattern), key=_by_version):
                if site.is_dir():
                    found.setdefault(os.path.realpath(site), site)
    return list(found.values())


def _by_version(site: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in site.parent.name.removeprefix("python").split(".") if part.isdecimal())


def _named(info: Path) -> tuple[str, str]:
    project, _dash, version = info.stem.partition("-")
    return project, version.split("-py")[0]


def _distribution(site: Path, info: Path, prefix: Path) -> Contents:
    metadata = _bytes(info / "METADATA") or _bytes(info / "PKG-INFO")
    wheel = _bytes(info / "WHEEL")
    problems: list[tuple[str, str, str]] = []
    origin = _json(info / "direct_url.json")
    folder = origin.get("dir_info")
    if isinstance(folder, dict) and folder.get("editable"):
        problems.append(("installed-editable", "", f"its code lies in {origin.get('url')}"))
    rows = _rows(site, info, prefix, problems)
    files = tuple(file for row in rows for file in _examined(row, problems))
    project, version = _named(info)
    return Contents(
        where=site,
        filename="",
        project=header(metadata, "Name") or project,
        version=header(metadata, "Version") or version,
        size=sum(file.size for file in files),
        tags=tuple(headers(wheel, "Tag")),
        purelib=(header(wheel, "Root-Is-Purelib") or "").lower() == "true",
        metadata=metadata,
        inputs=_json(info / "spark-build" / "inputs.json") or None,
        files=files,
        problems=tuple(dpkg.explained(site, info, problems)),
    )


def _rows(site: Path, info: Path, prefix: Path, problems: list[tuple[str, str, str]]) -> list[_Row]:
    listed = _bytes(info / "RECORD") if info.is_dir() else b""
    if not listed:
        problems.append(("installed-unlisted", "", f"{info.name} has no RECORD"))
        return []
    found = []
    try:
        lines = list(csv.reader(listed.decode(errors="replace").splitlines()))
    except csv.Error as error:
        problems.append(("installed-unlisted", "", f"RECORD can't be read: {error}"))
        return []
    for line in lines:
        if not line or not line[0]:
            continue
        file = Path(os.path.normpath(site / line[0]))
        if "\0" in line[0] or (prefix not in file.parents and site not in file.parents):
            problems.append(("installed-outside", line[0], str(file)))
            continue
        digest = line[1] if len(line) > 1 else ""
        if digest and digest.partition("=")[0] not in _ALGORITHMS:
            problems.append(("installed-unlisted", line[0], f"RECORD has no hash that proves anything: {digest}"))
            digest = ""
        found.append(_Row(path=line[0], file=file, digest=digest))
    return found


def _examined(row: _Row, problems: list[tuple[str, str, str]]) -> Iterator[File]:
    """Yield the file of `row` where it is there; note where it isn't what was installed."""
    from builder.audit import contents  # noqa: PLC0415  # brings the readers

    try:
        if not stat.S_ISREG((state := row.file.stat()).st_mode):
            problems.append(("installed-changed", row.path, "it is no file any more"))
            return
        stream = row.file.open("rb")
    except OSError as error:
        if row.digest:  # byte code comes and goes, and has no hash
            problems.append(("installed-gone", row.path, error.strerror or str(error)))
        return
    with stream:
        digests = _digests(stream, {"sha256", row.digest.partition("=")[0]})
        if row.digest and row.digest.rstrip("=") not in {f"{name}={_text(one)}" for name, one in digests.items()}:
            problems.append(("installed-changed", row.path, f"its sha256 is {digests['sha256'].hex()[:16]}…"))
        stream.seek(0)
        yield contents.examine(
            stream,
            path=row.path,
            size=state.st_size,
            sha256=digests["sha256"].hex(),
            executable=bool(state.st_mode & stat.S_IXUSR),
        )


def _digests(stream: BinaryIO, algorithms: set[str]) -> Mapping[str, bytes]:
    made = {name: hashlib.new(name) for name in algorithms & _ALGORITHMS}
    while chunk := stream.read(_CHUNK):
        for one in made.values():
            one.update(chunk)
    return {name: one.digest() for name, one in made.items()}


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
