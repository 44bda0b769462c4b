"""Stripping libraries and programs of a wheel with binutils; everything else passes as it is.

What binutils would leave unloadable passes as it is, too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from builder import proc
from builder.errors import HostError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Strip", "Stripper"]

Strip = Literal["none", "debug", "unneeded", "all"]

_FLAGS: Mapping[str, str] = {"debug": "--strip-debug", "unneeded": "--strip-unneeded", "all": "--strip-all"}
_CHUNK = 1 << 20
#: ELF (elf(5)): e_type of programs and shared libraries. An object file needs its symbols to be linked.
_EXECUTABLE, _SHARED = 2, 3
#: e_machine of the processors that wheels are built for. GPU code (190) is ELF, too, and binutils can't read it.
_MACHINES = frozenset([62, 183])  # x86_64, aarch64


class Stripper:
    """Gives a member's bytes; those of libraries and programs after ``strip`` where that was asked for."""

    def __init__(self, strip: Strip, env: Mapping[str, str], scratch: Path) -> None:
        self._strip = strip
        self._env = env
        self._scratch = scratch

    def chunks(self, source: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[Iterator[bytes], int]:
        """Return the member's chunks and their size in bytes; raise HostError ``strip-missing`` or ``strip-failed``."""
        if self._strip != "none":
            with source.open(member) as stream:
                head = stream.read(20)
            if _strippable(head):
                file = self._stripped(source, member)
                if _loadable(file):
                    return _from_file(file), file.stat().st_size
                file.unlink()
        return _from_member(source, member), member.file_size

    def _stripped(self, source: zipfile.ZipFile, member: zipfile.ZipInfo) -> Path:
        self._scratch.mkdir(parents=True, exist_ok=True)
        file = self._scratch / "strip.elf"
        with file.open("wb") as target:
            for chunk in _from_member(source, member):
                target.write(chunk)
        try:
            done = proc.capture(["strip", _FLAGS[self._strip], str(file)], env=self._env)
        except HostError as error:
            raise HostError(
                "strip-missing",
                "the recipe wants libraries stripped, and there is no `strip` on this machine",
                cause=error.cause,
                help="install binutils; or set build.strip to none, which makes it another wheel",
                run=("apt-get install binutils",),
            ) from error
        if not done.ok:
            raise HostError(
                "strip-failed",
                f"strip can't read {member.filename}",
                cause=done.err.strip(),
                help="binutils of the wheel's machine are needed; or set build.strip to none",
                run=("apt-get install binutils-multiarch",),
            )
        return file


def _strippable(head: bytes) -> bool:
    if len(head) < 20 or head[:4] != b"\x7fELF":  # noqa: PLR2004  # up to e_machine
        return False
    kind, machine = struct.unpack_from("<HH", head, 16)
    return kind in {_EXECUTABLE, _SHARED} and machine in _MACHINES


def _loadable(file: Path) -> bool:
    """Whether the loader will map the file; binutils breaks some libraries that patchelf had its hands in.

    It refuses what isn't aligned with "ELF load command address/offset not page-aligned"; such a library stays as it was.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  # only where something is stripped
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    with file.open("rb") as stream:
        try:
            loads = [one.header for one in ELFFile(stream).iter_segments("PT_LOAD")]
        except ELFError:
            return False
    return all((one.p_vaddr - one.p_offset) % max(one.p_align, 1) == 0 for one in loads)


def _from_file(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    file.unlink()


def _from_member(source: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with source.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
