"""The folder of a bundle: only what differs is written, wheels are linked where that can be, the manifest comes last.

A folder that is being written holds ``.unfinished``: it isn't taken for a bundle, and the next run goes on with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from builder import durable
from builder.bundle import installer, manifest, ours, sbom
from builder.bundle.manifest import Entry, Manifest
from builder.bundle.target import cuda_of, driver_of
from builder.digest import sha256_bytes, sha256_file
from builder.errors import CheckRefused, HostError, UsageError, scrubbed
from builder.index import pages, swap
from builder.index.listing import File, Project
from builder.recipe.units import show_bytes
from builder.source.place import without_login
from builder.stages import ZIP_EPOCH
from builder.values import dataclass
from builder.wheel import problems, read

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from builder.bundle.companions import Known
    from builder.bundle.resolve import Piece
    from builder.bundle.target import Target
    from builder.stages import Stored

__all__ = ["UNFINISHED", "Contents", "claim", "contents", "landing", "sweep", "write"]

UNFINISHED = ".unfinished"

#: What a bundle of ours may hold: what is deleted on an older manifest's word has to look like it. Earlier ones had
#: ``index.json`` where there is ``index.v1_json`` now, which exports of an index have, too.
_OURS = re.compile(
    r"files/[0-9a-f]{64}/[^/]+|simple/([^/]+/)?index\.(html|json|v1_json)|sources/.+|pylock\.toml|requirements\.txt|sbom\.cdx\.json|"
    r"install\.sh|README\.txt"
)

_SCRIPT = """\
#!/bin/sh
# Installs the bundle that this file lies in: sh install.sh --help
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 3
exec "${{PYTHON:-python3}}" -I - "$here" "$@" <<'END OF PYTHON'
{source}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
END OF PYTHON
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All of a bundle: files by path, as bytes or as the place where they lie, and the manifest that names them."""

    files: Mapping[str, bytes | Path]
    manifest: Manifest


def contents(  # noqa: PLR0913  # what a bundle is made of
    pieces: Sequence[Piece],
    tools: Sequence[Piece],
    every: Sequence[Piece],
    place: Callable[[Piece], Path],
    *,
    target: Target,
    asked: Sequence[str],
    built: Mapping[str, Stored],
    below: Sequence[Piece],
    more: Mapping[str, Path],
    known: Known,
) -> Contents:
    """Return what a bundle of `pieces` holds, whose files lie at `place`.

    `tools` install them; `every` are all wheels that the pages list. `built` are those that are ours, by sha256; `below`
    those that only builds need; `more` are other files by path; `known` is what no metadata
    says of them. A pure function of all that: two runs give the same bytes.
    Raises CheckRefused ``wheel-other`` where a wheel says that it is something else than the index does.
    """
    texts = {piece.sha256: _metadata(piece, place(piece)) for piece in every}
    files: dict[str, bytes | Path] = {}
    for piece in every:
        files[piece.path] = place(piece)
        files[f"{piece.path}.metadata"] = texts[piece.sha256]
        if piece.sha256 in built:
            files |= {piece.path + end: file for end, file in ours.records(built[piece.sha256])}
    files |= _pages(every, place, texts)
    files["pylock.toml"] = _pylock(pieces, place, target)
    files["requirements.txt"] = "".join(
        f"{one.project}=={one.version} --hash=sha256:{one.sha256}\n" for one in pieces
    ).encode()
    files["sbom.cdx.json"] = sbom.text(pieces, texts, target, asked=asked)
    files["install.sh"] = _SCRIPT.format(source=Path(installer.__file__).read_text()).encode()
    projects = [piece.project for piece in pieces]
    needs = known.needs(projects)
    cuda = cuda_of((piece.project, piece.version) for piece in pieces)
    size = sum(place(piece).stat().st_size for piece in every)
    files["README.txt"] = _readme(target, asked, len(every), size, cuda, [one.what for one in needs])
    files |= more
    digests = {piece.path: piece.sha256 for piece in every}
    told = {path: _entry(file, digests.get(path)) for path, file in files.items()}
    return Contents(
        files=files,
        manifest=Manifest(
            target={**target.as_json(), "cuda": cuda, "driver": driver_of(cuda)},
            files=told,
            wheels=tuple(_row(piece, built) for piece in pieces),
            facts={
                "asked": list(asked),
                "below": [_row(piece, built) for piece in below],
                "tools": {piece.project: piece.path for piece in tools},
                "needs": [{"id": one.id, "what": one.what, "why": one.why, "run": one.run} for one in needs],
                "run": known.run(projects),
            },
        ),
    )


def _metadata(piece: Piece, file: Path) -> bytes:
    with problems.opened(file) as archive:
        text = read.read_text(archive, f"{read.dist_info(archive, file.name)}/METADATA", file.name)
    name = read.header(text, "Name") or ""
    if read.normalised(name) != piece.project:
        raise CheckRefused(
            "wheel-other",
            f"{piece.filename} isn't what the index says",
            cause=f"its METADATA says that it is {name or 'nothing'}",
            help="ask another index: [index] url in the configuration",
        )
    return text


def _pages(
    every: Sequence[Piece], place: Callable[[Piece], Path], texts: Mapping[str, bytes]
) -> Iterator[tuple[str, bytes]]:
    projects = sorted({piece.project for piece in every})
    for name in projects:
        some = tuple(_file(one, place(one), texts[one.sha256]) for one in every if one.project == name)
        project = Project(name=name, files=some)
        yield f"simple/{name}/index.html", pages.project_html(project, 2).encode()
        yield f"simple/{name}/index.v1_json", pages.project_json(project, 2).encode()
    yield "simple/index.html", pages.root_html(projects).encode()
    yield "simple/index.v1_json", pages.root_json(projects).encode()


def _file(piece: Piece, file: Path, metadata: bytes) -> File:
    return File(
        project=piece.project,
        filename=piece.filename,
        version=piece.version,
        path=file,
        sha256=piece.sha256,
        size=file.stat().st_size,
        uploaded=ZIP_EPOCH,  # no time of a bundle counts: the same wheels give the same bundle
        yanked=False,
        requires_python=read.header(metadata, "Requires-Python"),
        metadata_sha256=sha256_bytes(metadata),
        metadata_size=len(metadata),
    )


def _pylock(pieces: Sequence[Piece], place: Callable[[Piece], Path], target: Target) -> bytes:
    """Return the lock of PEP 751, with paths that count from where it lies."""
    minor = int(target.python.partition(".")[2])
    document = {
        "lock-version": "1.0",
        "environments": [f"sys_platform == 'linux' and platform_machine == '{target.machine}'"],
        "requires-python": f">={target.python}, <3.{minor + 1}",
        "created-by": "spark-build",
        "packages": [
            {
                "name": one.project,
                "version": one.version,
                "wheels": [
                    {
                        "name": one.filename,
                        "path": one.path,
                        "size": place(one).stat().st_size,
                        "hashes": {"sha256": one.sha256},
                    }
                ],
            }
            for one in pieces
        ],
    }
    return tomli_w.dumps(document).encode()


def _readme(
    target: Target, asked: Sequence[str], count: int, size: int, cuda: str | None, needs: Sequence[str]
) -> bytes:
    text = Path(__file__).with_name("readme.txt").read_text()
    driver = driver_of(cuda)
    return text.format(
        platform=target.platform,
        python=target.python,
        cuda=f", CUDA {cuda}" + (f" (driver {driver} or newer)" if driver else "") if cuda else "",
        asked=", ".join(asked),
        count=count,
        size=show_bytes(size),
        needs=", ".join(["glibc 2." + str(target.glibc), f"Python {target.python}", *needs]),
    ).encode()


def _row(piece: Piece, built: Mapping[str, Stored]) -> dict[str, Any]:
    row: dict[str, Any] = {"project": piece.project, "version": piece.version, "path": piece.path}
    if piece.sha256 in built:
        return {**row, "ours": ours.facts(built[piece.sha256])}
    return {**row, "url": scrubbed(without_login(piece.url))} if piece.url.startswith("http") else row


def _entry(file: bytes | Path, sha256: str | None) -> Entry:
    if isinstance(file, bytes):
        return Entry(sha256=sha256_bytes(file), size=len(file))
    return Entry(sha256=sha256 or sha256_file(file), size=file.stat().st_size)


@contextlib.contextmanager
def landing(dest: Path) -> Iterator[None]:
    """Turn what the file system at `dest` refuses into HostError ``unwritable`` or ``disk-full``."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        if not full and error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise HostError(
            "disk-full" if full else "unwritable",
            f"no space left at {dest}" if full else f"{dest} can't be written",
            cause=str(error),
            help="name another folder; the same command goes on, and nothing is fetched again",
            run=(f"df -h {shlex.quote(str(dest))}" if full else f"ls -ld {shlex.quote(str(dest))}",),
        ) from error


def claim(dest: Path) -> None:
    """Leave `dest` as a folder to write a bundle to; raise UsageError ``not-a-bundle`` where it holds other things."""
    with landing(dest):
        dest.mkdir(parents=True, exist_ok=True)
        names = set(os.listdir(dest))  # noqa: PTH208  # names are enough
        if not names:  # an earlier bundle stays one until it is written to
            (dest / UNFINISHED).touch()
            return
    if UNFINISHED not in names and not manifest.is_bundle(dest):
        raise UsageError(
            "not-a-bundle",
            f"{dest} isn't empty and holds no bundle",
            cause=f"it holds {', '.join(sorted(names)[:3])}{' and more' if len(names) > 3 else ''}",  # noqa: PLR2004
            help="name a new or an empty folder, or an earlier bundle to bring up to date",
            run=(shlex.join(["spark-build", "bundle", "export", str(dest / "bundle"), "NAME"]),),
        )


def write(
    dest: Path,
    what: Contents,
    *,
    sign: Callable[[bytes], bytes] | None,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> bytes:
    """Make `dest`, which is claimed, hold exactly `what` but for what the manifest leaves out; return the manifest's bytes.

    Files of an earlier bundle that aren't wanted any more go. `tell` hears how many bytes are in place, of how many. Raises
    HostError ``disk-full`` or ``unwritable``.
    """
    with landing(dest), _alone(dest):
        return _write(dest, what, sign, tell)


def _write(
    dest: Path, what: Contents, sign: Callable[[bytes], bytes] | None, tell: Callable[[int, int], None]
) -> bytes:
    (dest / UNFINISHED).touch()
    left = frozenset(what.manifest.lacks)
    wanted = {path: file for path, file in what.files.items() if path not in left}
    sweep(dest, wanted)
    done, total = 0, sum(what.manifest.files[path].size for path in wanted)
    for path, file in wanted.items():
        entry = what.manifest.files[path]
        if isinstance(file, bytes):
            _put(dest / path, file)
        else:
            _place(file, dest / path, entry)
        done += entry.size
        tell(done, total)
    if "install.sh" in wanted:
        (dest / "install.sh").chmod(0o755)
    swap.settle(dest)  # what the manifest names is on the disk before it is
    data = what.manifest.text()
    _put(dest / manifest.NAME, data)
    if sign:
        _put(dest / manifest.SIGNATURE, sign(data))
    else:
        (dest / manifest.SIGNATURE).unlink(missing_ok=True)
    _tidy(dest)
    (dest / UNFINISHED).unlink(missing_ok=True)
    swap.settle(dest)
    return data


def sweep(dest: Path, wanted: Container[str]) -> None:
    """Take away what of an earlier bundle isn't `wanted` any more; what isn't of bundles stays."""
    for path in list(installer.walk(dest)):
        if path not in wanted and _OURS.fullmatch(path):
            (dest / path).unlink()


@contextlib.contextmanager
def _alone(dest: Path) -> Iterator[None]:
    """Hold the folder for one writer; another waits, and a kill lets go of it."""
    folder = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, as some of those over a network
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _put(path: Path, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


def _place(source: Path, target: Path, entry: Entry) -> None:
    """Leave a link to `source`, or a copy whose bytes were checked."""
    with contextlib.suppress(FileNotFoundError):
        if target.samefile(source) or (target.stat().st_size == entry.size and sha256_file(target) == entry.sha256):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    beside.unlink(missing_ok=True)
    try:
        beside.hardlink_to(source)
    except OSError:  # another file system, or one without links
        if durable.copy_synced(source, beside) != entry.sha256:
            beside.unlink()
            raise CheckRefused(
                "file-changed",
                f"{source} changed while it was copied",
                help="run the same command again",
            ) from None
    beside.replace(target)


def _tidy(dest: Path) -> None:
    """Take away what a killed run left, and empty folders."""
    for folder, _folders, names in os.walk(dest, topdown=False):
        for name in names:
            if name.startswith(".") and name.endswith(".new"):
                (Path(folder) / name).unlink()
        if Path(folder) != dest:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
