"""Two wheels, held against each other: files, device code apart from host code, metadata, and the zip itself.

Bytes are compared, never digests that a wheel brings along. Both wheels are read stream by stream; a member that differs is
copied into a temporary file without a name, and compared section by section. RECORD is left out: it repeats the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from typing import TYPE_CHECKING, BinaryIO, Literal

from builder.audit import change
from builder.audit.change import FileChange
from builder.audit.signs import cause
from builder.audit.spool import told
from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.values import dataclass
from builder.wheel import problems, read

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from builder.audit.signs import Cause

__all__ = ["Comparison", "FileChange", "HeaderChange", "Side", "ZipChange", "compare"]

_CHUNK = 1 << 20
#: What a member may unpack to before it is taken for a bomb, as in `builder.wheel.read`.
_LARGE, _RATIO = 16 << 20, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two wheels."""

    path: Path
    project: str
    version: str
    sha256: str
    size: int

    def as_json(self) -> dict[str, object]:
        """Return the wheel for programs."""
        return {
            "path": str(self.path),
            "project": self.project,
            "wheel_version": self.version,
            "sha256": self.sha256,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChange:
    """A header of METADATA or WHEEL whose values differ."""

    file: str
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipChange:
    """How the archives differ where the contents don't: `count` members, the first of them `example`."""

    what: Literal["order", "times", "modes", "compression", "deflate", "record", "other"]
    count: int
    example: str = ""
    old: str = ""
    new: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between two wheels; all of it is empty where they are the same, bit by bit."""

    old: Side
    new: Side
    files: tuple[FileChange, ...] = ()
    headers: tuple[HeaderChange, ...] = ()
    archive: tuple[ZipChange, ...] = ()
    causes: tuple[Cause, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether both are the same bytes."""
        return self.old.sha256 == self.new.sha256

    @property
    def device(self) -> Literal["", "equal", "differs", "unknown"]:
        """What became of device code over all files that differ; empty where none of them has any."""
        found = {one.device for one in self.files}
        return next((word for word in ("differs", "unknown", "equal") if word in found), "")

    def as_json(self) -> dict[str, object]:
        """Return the comparison for programs."""
        return {
            "identical": self.identical,
            "old": self.old.as_json(),
            "new": self.new.as_json(),
            "device": self.device or None,
            "files": [one.as_json() for one in self.files],
            "metadata": [
                {"file": one.file, "header": one.name, "old": list(one.old), "new": list(one.new)}
                for one in self.headers
            ],
            "zip": [
                {"what": one.what, "count": one.count, "example": one.example, "old": one.old, "new": one.new}
                for one in self.archive
            ],
            "causes": [one.as_json() for one in self.causes],
        }


def compare(
    old: Path,
    new: Path,
    *,
    explain: bool = False,
    scratch: Path | None = None,
    on_read: Callable[[str], None] = lambda _name: None,
) -> Comparison:
    """Return how two wheels differ; with `explain` also why, as for two builds of the same inputs.

    `scratch` is where members that differ are kept meanwhile; `on_read` is told which file is compared.

    Raises CheckRefused ``wheel-damaged``, ``wheel-name`` or ``wheel-unsafe`` for a file that can't be read as a wheel, and
    HostError ``disk-full`` or ``unwritable`` where a member has no room.
    """
    sides = [_side(path) for path in (old, new)]
    if sides[0].sha256 == sides[1].sha256:
        return Comparison(old=sides[0], new=sides[1])
    with problems.opened(old) as first, problems.opened(new) as second:
        pair = _Pair(_Members(first, old), _Members(second, new), scratch=scratch, explain=explain)
        files = tuple(pair.files(on_read))
        headers = tuple(pair.headers())
        archive = tuple(pair.archive(quiet=not files and not headers))
    why = tuple(cause("zip-times", "", one.old, one.new) for one in archive if explain and one.what == "times")
    return Comparison(old=sides[0], new=sides[1], files=files, headers=headers, archive=archive, causes=why)


def _side(path: Path) -> Side:
    found = read.inspect(path)
    return Side(
        path=path,
        project=found.project,
        version=found.version,
        sha256=found.sha256 or sha256_file(path),
        size=found.size,
    )


class _Members:
    """The members of one wheel, by a name that is the same in every version of it."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive, self.path = archive, path
        self.info = read.dist_info(archive, path.name)
        stem = self.info.removesuffix(".dist-info")
        self.by_name: dict[str, zipfile.ZipInfo] = {}
        for one in archive.infolist():
            if one.is_dir():
                continue
            if one.file_size > _LARGE and one.file_size > one.compress_size * _RATIO:
                text = f"{one.filename}: {one.compress_size} bytes that claim to unpack to {one.file_size}"
                raise CheckRefused("wheel-unsafe", f"{path.name} holds a bomb, by all signs", cause=text)
            folder, slash, rest = one.filename.partition("/")
            same = {f"{stem}.dist-info": "*.dist-info", f"{stem}.data": "*.data"}.get(folder, folder)
            self.by_name[f"{same}{slash}{rest}"] = one

    def text(self, name: str) -> bytes:
        if not (one := self.by_name.get(name)):
            return b""
        with self._whole():
            return read.read_text(self.archive, one.filename, self.path.name)

    def chunks(self, name: str) -> Generator[bytes]:
        with self._whole(), problems.member(self.archive, self.by_name[name]) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Say which of the two wheels is damaged."""
        try:
            yield
        except problems.DAMAGE as error:
            raise CheckRefused("wheel-damaged", f"{self.path.name} is no whole wheel", cause=str(error)) from error


class _Pair:
    """Two open wheels."""

    def __init__(self, old: _Members, new: _Members, *, scratch: Path | None, explain: bool) -> None:
        self.old, self.new, self.scratch, self.explain = old, new, scratch, explain

    def files(self, on_read: Callable[[str], None]) -> Iterator[FileChange]:
        """Yield each file that differs, by path; METADATA and WHEEL are told by their headers, RECORD repeats all."""
        before, after = self.old.by_name, self.new.by_name
        for name in sorted(before.keys() | after.keys()):
            if name in _TOLD:
                continue
            on_read(name)
            if name not in before:
                yield FileChange(path=name, kind="added", new=after[name].file_size)
            elif name not in after:
                yield FileChange(path=name, kind="removed", old=before[name].file_size)
            elif not self._same(name):
                yield self._changed(name)

    def _same(self, name: str) -> bool:
        one, other = self.old.by_name[name], self.new.by_name[name]
        if (one.file_size, one.CRC) != (other.file_size, other.CRC):
            return False
        with contextlib.closing(self.old.chunks(name)) as first, contextlib.closing(self.new.chunks(name)) as second:
            return all(one == other for one, other in itertools.zip_longest(first, second))

    def _changed(self, name: str) -> FileChange:
        with contextlib.ExitStack() as held:
            old, new = (held.enter_context(_spooled(side.chunks(name), self.scratch)) for side in (self.old, self.new))
            sizes = self.old.by_name[name].file_size, self.new.by_name[name].file_size
            return change.between(name, old, new, sizes, explain=self.explain)

    def headers(self) -> Iterator[HeaderChange]:
        """Yield the headers that differ; the description is one of them."""
        for name in _HEADED:
            before, after = (_headers(side.text(name)) for side in (self.old, self.new))
            for key in sorted(before.keys() | after.keys()):
                if before.get(key) != after.get(key):
                    yield HeaderChange(file=name, name=key, old=before.get(key, ()), new=after.get(key, ()))

    def archive(self, *, quiet: bool) -> Iterator[ZipChange]:
        """Yield how the zips differ; `quiet` is whether nothing else differs, so that something has to be found here."""
        before, after = self.old.by_name, self.new.by_name
        both = [name for name in before if name in after]
        order = [name for name in after if name in before]
        if both != order:
            at = next(at for at, (one, other) in enumerate(zip(both, order, strict=True)) if one != other)
            yield ZipChange(what="order", count=len(both), example=both[at], old=both[at], new=order[at])
        found = False
        for what, look in _LOOKS.items():
            names = [name for name in both if look(before[name]) != look(after[name])]
            if names:
                found = True
                first = names[0]
                old, new = look(before[first]), look(after[first])
                yield ZipChange(what=what, count=len(names), example=first, old=old, new=new)
        if not quiet or found or both != order:
            return
        if self.old.text(_RECORD) != self.new.text(_RECORD):
            yield ZipChange(what="record", count=1, example=_RECORD)
            return
        packed = [name for name in both if before[name].compress_size != after[name].compress_size]
        if packed:
            old, new = (str(side[packed[0]].compress_size) for side in (before, after))
            yield ZipChange(what="deflate", count=len(packed), example=packed[0], old=old, new=new)
            return
        yield ZipChange(what="other", count=1)


_RECORD = "*.dist-info/RECORD"
_HEADED = ("*.dist-info/METADATA", "*.dist-info/WHEEL")
_TOLD = frozenset({_RECORD, *_HEADED})


def _time(one: zipfile.ZipInfo) -> str:
    year, month, day, hour, minute, second = one.date_time
    return f"{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def _mode(one: zipfile.ZipInfo) -> str:
    return f"{one.external_attr >> 16:o}"


def _compression(one: zipfile.ZipInfo) -> str:
    return str(one.compress_type)


#: What a zip tells of a member beside its bytes.
_LOOKS: Mapping[Literal["times", "modes", "compression"], Callable[[zipfile.ZipInfo], str]] = {
    "times": _time,
    "modes": _mode,
    "compression": _compression,
}


@contextlib.contextmanager
def _spooled(chunks: Generator[bytes], scratch: Path | None) -> Iterator[BinaryIO]:
    """Give a member as a file that can be read at any place, and that has no name."""
    with contextlib.closing(chunks), contextlib.ExitStack() as held:
        with told(scratch):
            file = held.enter_context(tempfile.TemporaryFile(dir=scratch))
        for chunk in chunks:
            with told(scratch):
                file.write(chunk)
        with told(scratch):
            file.flush()
        yield file


def _headers(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return all values of each header, in order; the body stands under ``Description``."""
    found: dict[str, list[str]] = {}
    length = 0
    for lines in read.header_lines(data):
        length += sum(map(len, lines))
        key, _colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        found.setdefault(key.decode(errors="replace"), []).append(value.strip().decode(errors="replace"))
    if body := data[length:].strip():
        found.setdefault("Description", []).append(body.decode(errors="replace"))
    return {key: tuple(values) for key, values in found.items()}
