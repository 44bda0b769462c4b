"""A bundle cut for small media: one tar in parts of a fixed size, and ``SHA256SUMS`` of the parts.

``cat NAME.tar.* | tar x`` and ``sha256sum -c SHA256SUMS`` do the same as `joined` does here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
import tarfile
from typing import TYPE_CHECKING

from builder import bounded, signature
from builder.bundle import installer, layout, manifest
from builder.digest import sha256_file
from builder.errors import CheckRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["SUMS", "are_parts", "cut", "join", "verify"]

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\0-\x1f]+\.tar\.\d{3,})")
_LIMIT = 1 << 20
_CHUNK = 1 << 20
#: So small parts are a mistake, and would be thousands.
SMALLEST = 1 << 20
#: Their numbers have three digits: with more, the order of names isn't that of numbers.
_MOST = 999


class _Cut(io.RawIOBase):
    """A stream that writes files of a fixed size, one after the other."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._folder, self._name, self._size = folder, name, size
        self._left, self._digest = 0, hashlib.sha256()
        self._stream: io.FileIO | None = None
        self.sums: dict[str, str] = {}
        self._part = ""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # any bytes
        done = 0
        while done < len(view):
            if not self._left:
                self._next()
            some = view[done : done + self._left]
            assert self._stream is not None  # noqa: S101  # `_next` opened it
            self._stream.write(some)
            self._digest.update(some)
            done += len(some)
            self._left -= len(some)
        return len(view)

    def _next(self) -> None:
        self.finish()
        self._part = f"{self._name}.tar.{len(self.sums) + 1:03}"
        self._stream = (self._folder / self._part).open("wb", buffering=0)
        self._left, self._digest = self._size, hashlib.sha256()

    def finish(self) -> None:
        """Close the part that is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self.sums[self._part] = self._digest.hexdigest()


def cut(bundle: Path, folder: Path, *, name: str, size: int, sign: Callable[[bytes], bytes] | None) -> tuple[str, ...]:
    """Write the bundle as parts of `size` bytes into `folder` and return their names; the same bundle gives the same bytes.

    What lay there of an earlier cut goes first; the sums come last. Raises UsageError ``part-size``.
    """
    if size < SMALLEST:
        raise _too_small(f"parts of {size} bytes are too small", "at least 1MiB, as --split 4GiB")
    if sum((bundle / path).stat().st_size for path in installer.walk(bundle)) // size >= _MOST:
        raise _too_small(f"it would be more than {_MOST} parts", "`cat` puts them together by the order of their names")
    with layout.landing(folder):
        return _cut(bundle, folder, name, size, sign)


def _too_small(summary: str, why: str) -> UsageError:
    return UsageError("part-size", summary, help=why, run=("spark-build bundle export DIR NAME --split 4GiB",))


def _cut(bundle: Path, folder: Path, name: str, size: int, sign: Callable[[bytes], bytes] | None) -> tuple[str, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    for old in _leftovers(folder):
        old.unlink()
    stream = _Cut(folder, name, size)
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_CHUNK) as archive:
        for path in sorted(installer.walk(bundle)):
            member = archive.gettarinfo(bundle / path, arcname=f"{name}/{path}")
            # A second name of the same file would be a link, which not all media can hold.
            member.type, member.linkname, member.size = tarfile.REGTYPE, "", (bundle / path).stat().st_size
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if path == "install.sh" else 0o644
            with (bundle / path).open("rb") as source:
                archive.addfile(member, source)
    stream.finish()
    sums = "".join(f"{digest}  {part}\n" for part, digest in stream.sums.items()).encode()
    (folder / SUMS).write_bytes(sums)
    if sign:
        (folder / f"{SUMS}.sig").write_bytes(sign(sums))
    return tuple(stream.sums)


def _leftovers(folder: Path) -> Iterator[Path]:
    if (folder / SUMS).exists():
        yield from (folder / part for part in _sums(folder) if (folder / part).exists())
        yield folder / SUMS
    if (folder / f"{SUMS}.sig").exists():
        yield folder / f"{SUMS}.sig"


def are_parts(folder: Path) -> bool:
    """Whether parts of a bundle lie there, not the bundle itself."""
    return (folder / SUMS).is_file() and not (folder / manifest.NAME).exists()


def verify(folder: Path, *, signers: Path | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the parts, all of which are there and right; with `signers` one of these signed the sums.

    Raises CheckRefused ``parts-wrong``, and as `signature.verify` does.
    """
    sums = _sums(folder)
    if signers is not None:
        signature.verify(folder / SUMS, folder / f"{SUMS}.sig", signers, env=env)
    wrong = [f"{part}: {said}" for part, digest in sums.items() if (said := _problem(folder / part, digest))]
    if wrong:
        raise CheckRefused(
            "parts-wrong",
            f"{len(wrong)} of {len(sums)} parts {'are' if len(wrong) > 1 else 'is'} missing or changed",
            cause="\n".join(wrong),
            help="copy these again: all parts have to lie in one folder",
            run=(f"cd {shlex.quote(str(folder))} && sha256sum -c {SUMS}",),
        )
    return tuple(sums)


def _sums(folder: Path) -> Mapping[str, str]:
    found: dict[str, str] = {}
    try:
        for line in bounded.read(folder / SUMS, _LIMIT).decode().splitlines():
            match = _LINE.fullmatch(line)
            if not match:
                raise ValueError(f"it has the line {line[:80]!r}")  # noqa: TRY301
            found[match[2]] = match[1]
    except ValueError as error:
        raise CheckRefused(
            "parts-wrong", f"{SUMS} can't be read", cause=str(error), help="copy it again from where it was made"
        ) from error
    return found


def _problem(part: Path, digest: str) -> str:
    try:
        return "" if sha256_file(part) == digest else "has other bytes"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)


class _Joined(io.RawIOBase):
    """The parts read one after the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._stream: io.FileIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # any buffer
        while True:
            if self._stream is None:
                if not self._files:
                    return 0
                self._stream = self._files.pop(0).open("rb", buffering=0)
            if size := self._stream.readinto(view):
                return size
            self._stream.close()
            self._stream = None


def join(folder: Path, dest: Path, *, signers: Path | None, env: Mapping[str, str]) -> Path:
    """Unpack the parts, which are verified first, to `dest` and return it. Raises as `verify` and `layout.claim` do."""
    names = verify(folder, signers=signers, env=env)
    layout.claim(dest)
    with layout.landing(dest):
        _unpack([folder / one for one in names], dest)
    return dest


def _unpack(files: Sequence[Path], dest: Path) -> None:
    (dest / layout.UNFINISHED).touch()
    there = set()
    with tarfile.open(fileobj=io.BufferedReader(_Joined(files), _CHUNK), mode="r|") as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if not member.isreg() or not manifest.is_plain(path):
                raise CheckRefused("parts-wrong", f"the parts hold {member.name!r}, which is of no bundle")
            there.add(path)
            source = archive.extractfile(member)
            (dest / path).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (dest / path).unlink()
            with (dest / path).open("wb") as target:
                while source and (chunk := source.read(_CHUNK)):
                    target.write(chunk)
            (dest / path).chmod(member.mode & 0o755)
    layout.sweep(dest, there)
    (dest / layout.UNFINISHED).unlink(missing_ok=True)
