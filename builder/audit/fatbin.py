"""Finding the device code that a file holds: containers of fat binaries, cubins, PTX, and static libraries of them.

Nothing is unpacked, and no CUDA tool is needed. Containers lie in ``.nv_fatbin`` (linked code) and ``__nv_relfatbin``
(relocatable code of ``-rdc=true``), one after the other with zeros between them; or anywhere else, mostly in ``.rodata``,
where a library loads them by itself (cuFFT holds 18,000 so, and ``cuobjdump`` sees none of them). Cubins and PTX may lie
there by themselves, too. `container` says how containers are laid out.

Nothing is guessed: what isn't known is `DeviceCode.unknown`, beside whatever could be read.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

from builder.audit import archive, container, elf, ptx
from builder.audit.facts import DeviceCode, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from builder.audit.elf import Section
    from builder.audit.facts import Image

__all__ = ["MAGIC", "of"]

_SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_ELF64 = elf.MAGIC + b"\x02\x01\x01"
#: Holds programs: no texts, and the first bytes of a container as a number in tools that write some.
_PROGRAM = ".text"
#: What a linker writes by itself, which may be half of a library.
_TABLES = frozenset(
    {".symtab", ".strtab", ".shstrtab", ".dynsym", ".dynstr", ".gnu.hash", ".gnu.version", ".rela.dyn", ".rela.plt"}
    | {".eh_frame", ".eh_frame_hdr", ".gcc_except_table"}
)
_DEBUG = (".debug_", ".zdebug_")
#: Registers each container with the CUDA run time by a record: magic, version, two pointers. Where it has more of them than
#: containers were found, some weren't found. (As many in all of vLLM, torch, NCCL, cuSPARSE, and what nvcc built here.)
_WRAPPER, _RECORD = ".nvFatBinSegment", 24
#: One of these holds the names of sections. Where neither has its name, the names aren't what they seem.
_NAMES = (".shstrtab", ".strtab")

#: Device code in forms that hold no architecture that could be read, by how their files begin.
_OTHERS = {
    b"\xed\x43\x4e\x7f": "LTO-IR in a file of its own",
    b"\x7fTileIR\0": "Tile IR in a file of its own",
    b"\x01\x5a\xe5\x1e": "a fat binary of an old layout",
}
#: How files begin that are handed to `of` besides ELF files and PTX, which is text.
MAGIC = (container.MAGIC, *archive.MAGIC, *_OTHERS)

_CHUNK = 1 << 20
#: What is searched at a time stays in the processor's cache.
_PIECE = 1 << 18
#: More than any linker writes; what is above is damage, and would only cost time and memory.
_MOST_IMAGES = 1 << 20
#: The same for places that begin as device code does and hold none.
_MOST_WRONG = 1 << 14
#: As how many of them one counts whose tables were read in vain: those may be the same large ones each time.
_WRONG_CUBIN = _MOST_WRONG >> 5
_MOST_REASONS = 3


def of(stream: BinaryIO, size: int, sections: Sequence[Section] | None, *, digests: bool = False) -> DeviceCode | None:
    """Return the device code in the `size` bytes of `stream`, or None for a file that can't hold any.

    `sections` are those of an ELF file, None for another: a container, PTX, or an archive of object files. Whatever the
    bytes are, nothing is raised for them: `unknown` says what couldn't be read. With `digests` each unit has the SHA-256 of
    its bytes, which costs more than all else.
    """
    found = _Found(stream, digests=digests)
    head = found.read(0, min(size, 64))
    if head.startswith(elf.MAGIC):
        _read_elf(found, head, size, sections)
    elif head.startswith(container.MAGIC):
        _read_containers(found, 0, size, "")
    elif archive.is_one(head):
        _read_archive(found, size)
    elif other := next((text for magic, text in _OTHERS.items() if head.startswith(magic)), None):
        found.doubt(f"{other}: its architecture can't be read")
    elif not _read_ptx(found, size):
        return None
    return found.code()


class _Found:
    """What was found so far in one file, and the file."""

    def __init__(self, stream: BinaryIO, *, digests: bool) -> None:
        self.stream, self.digests = stream, digests
        self.units: list[Unit] = []
        self.images = 0
        #: Places that begin as device code does, and hold none.
        self.wrong = 0
        #: Where containers begin: sections may overlap in a damaged file.
        self.places: set[int] = set()
        self._doubts: list[str] = []
        self._more = 0

    @property
    def too_many(self) -> bool:
        """Whether going on would only cost time."""
        return self.images > _MOST_IMAGES or self.wrong > _MOST_WRONG

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`: fewer than `size` where the file ends."""
        self.stream.seek(offset)
        return self.stream.read(size)

    def add(self, images: Sequence[Image], *, section: str, sha256: str) -> None:
        self.units.append(Unit(images=tuple(images), section=section, sha256=sha256))
        # One without images counts as well, since it costs as much.
        self.images += len(images) + 1

    def doubt(self, reason: str) -> None:
        if len(self._doubts) < _MOST_REASONS:
            self._doubts.append(reason)
        else:
            self._more += 1

    def take(self, other: DeviceCode, *, member: str) -> None:
        """Add what a member of an archive holds."""
        for one in other.units:
            self.add(one.images, section=member, sha256=one.sha256)
        if other.unknown:
            self.doubt(f"{member}: {other.unknown}")

    def digest(self, offset: int, size: int) -> str:
        if not self.digests:
            return ""
        whole = hashlib.sha256()
        self.stream.seek(offset)
        # One small buffer stays in the processor's cache.
        buffer = memoryview(bytearray(min(size, _CHUNK >> 2)))
        while size > 0 and (count := self.stream.readinto(buffer[: min(size, len(buffer))])):  # type: ignore[attr-defined]
            whole.update(buffer[:count])
            size -= count
        return whole.hexdigest()

    def code(self) -> DeviceCode:
        more = (f"and {self._more} more",) if self._more else ()
        return DeviceCode(units=tuple(self.units), unknown="; ".join((*self._doubts, *more)))


def _read_elf(found: _Found, head: bytes, size: int, sections: Sequence[Section] | None) -> None:
    from builder.audit import cubin  # noqa: PLC0415  # most files are none

    if sections is None:
        return found.doubt("an ELF file whose sections couldn't be read")
    if cubin.is_one(head):
        image, doubt = cubin.read(found.stream, size, sections)
        found.add((image,), section="", sha256=found.digest(0, size))
        return found.doubt(doubt) if doubt else None
    if not any(one.name in _NAMES for one in sections):
        return found.doubt("no names of sections, so device code in it couldn't be found")
    for one in sections:
        if one.name.startswith(_SECTIONS):
            _read_section(found, one, size)
    records = sum(one.size // _RECORD for one in sections if one.name == _WRAPPER)
    # Where just what was found is registered, no more lies among the programs, which are most of a library's bytes.
    complete = bool(found.units) and records == len(found.units)
    for name, start, end in _others(sections, size):
        if not (complete and name.startswith(_PROGRAM)):
            _search(found, name, start, end)
    if records > len(found.units):
        found.doubt(f"{_WRAPPER} registers {records} containers, {len(found.units)} were found")
    return None


def _read_section(found: _Found, section: Section, size: int) -> None:
    end = section.offset + section.size
    if end > size:
        found.doubt(f"{section.name} reaches beyond the file's end")
    before = len(found.units)
    _read_containers(found, section.offset, min(end, size), section.name)
    if len(found.units) == before:
        found.doubt(f"{section.name} holds no container")


def _read_containers(found: _Found, start: int, end: int, section: str) -> None:
    """Read all containers from `start` to `end`; stop at the first that isn't one."""
    at: int | None = start
    while at is not None and (at := _skip_zeros(found, at, end)) < end:
        at = _read_container(found, at, end, section)


def _read_container(found: _Found, at: int, end: int, section: str) -> int | None:
    """Read the container at `at`; return where it ends, or None where that isn't known."""
    if found.images > _MOST_IMAGES:
        found.doubt(f"more than {_MOST_IMAGES} images")
        return None
    one = container.read(found.stream, at, end)
    if at in found.places:
        return one.end
    found.places.add(at)
    if section.startswith(_PROGRAM) and not one.images:
        return None
    for doubt in one.doubts:
        found.doubt(f"{section}: {doubt}" if section else doubt)
    if one.end is not None or one.images:
        found.add(one.images, section=section, sha256=found.digest(at, one.end - at) if one.end is not None else "")
    return one.end


def _others(sections: Sequence[Section], size: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of the sections that may hold anything; what lies in several is part of one only."""
    done = 0
    for one in sorted(sections, key=lambda one: one.offset):
        start, end = max(one.offset, done), min(one.offset + one.size, size)
        if start < end and one.name not in _TABLES and not one.name.startswith((*_SECTIONS, *_DEBUG)):
            yield one.name, start, end
            done = end


def _search(found: _Found, section: str, start: int, end: int) -> None:
    """Read the containers, and the cubins and PTX outside of them, that lie between `start` and `end`."""
    at = start
    while at < end and (data := found.read(at, min(_PIECE, end - at))):
        after = _search_piece(found, section, data, at, end)
        if found.too_many:
            found.doubt(f"{section}: more places that look like device code than any file has")
            return
        # It may begin in the last bytes.
        at = max(after, at + len(data) - _LONGEST_MAGIC + 1 if at + len(data) < end else end)


def _search_piece(found: _Found, section: str, data: bytes, start: int, end: int) -> int:
    """Read what begins in `data`, which lies at `start`; return where the last of it ends."""
    magics = _IN_PROGRAMS if section.startswith(_PROGRAM) else _SEARCHED
    after, places = 0, {magic: data.find(magic) for magic in magics}
    while there := [(place, magic) for magic, place in places.items() if place >= 0]:
        at, magic = min(there)
        past = _SEARCHED[magic](found, start + at, end, section)
        found.wrong += past is None
        if found.too_many:
            break
        after = past - start if past else at + len(magic)
        for other, place in places.items():
            if 0 <= place < after:
                places[other] = data.find(other, after)
    return start + after


def _read_cubin(found: _Found, at: int, end: int, section: str) -> int | None:
    """Read the ELF file at `at` if it is a cubin, and return where it ends; another one is nothing for us."""
    from builder.audit import cubin  # noqa: PLC0415  # most files have none

    head = found.read(at, 64)
    if not cubin.is_one(head):
        return None
    stream = archive.Member(section, at, end - at).open(found.stream)
    try:
        sections = elf.sections(stream)
    except elf.Damaged as damage:
        found.doubt(f"{section}: a cubin at {at}: {damage}")
        found.wrong += _WRONG_CUBIN
        return None
    size = cubin.length(head, sections)
    image, doubt = cubin.read(stream, size, sections)
    found.add((image,), section=section, sha256=found.digest(at, size))
    if doubt:
        found.doubt(f"{section}: {doubt}")
    if at + size <= end:
        return at + size
    found.wrong += _WRONG_CUBIN
    return None


def _read_module(found: _Found, at: int, end: int, section: str) -> int | None:
    """Read the PTX at `at` if it is a module, and return where it ends."""
    image, stop = ptx.module(found.stream, at, end)
    if image:
        found.add((image,), section=section, sha256=found.digest(at, stop - at))
        return stop
    found.wrong += 1
    return stop


#: What is searched for, and by what it is read, which returns where to go on, or None where it isn't what it seems.
_SEARCHED: dict[bytes, Callable[[_Found, int, int, str], int | None]] = {
    container.START: _read_container,
    _ELF64: _read_cubin,
    ptx.MAGIC: _read_module,
}
_IN_PROGRAMS = (container.START, _ELF64)
_LONGEST_MAGIC = max(map(len, _SEARCHED))


def _skip_zeros(found: _Found, at: int, end: int) -> int:
    """Return where the next container may begin: the next multiple of 8 with something else than zeros."""
    step = 8
    while at < end:
        data = found.read(at, min(step, end - at))
        rest = data.lstrip(b"\0")
        if rest:
            return at + (len(data) - len(rest)) // 8 * 8
        if not data:
            return end
        at += len(data)
        # Mostly a few zeros: a large piece each time would cost more than all the rest.
        step = min(step * 8, _CHUNK)
    return end


def _read_ptx(found: _Found, size: int) -> bool:
    """Read PTX text; return whether it is some."""
    head = ptx.head(found.read(0, min(size, ptx.HEAD)))
    if not head:
        return False
    if not head.sm:
        found.doubt("PTX without a .target that could be read")
    found.add((head.image(size),), section="", sha256=found.digest(0, size))
    return True


def _read_archive(found: _Found, size: int) -> None:
    try:
        for member in archive.members(found.stream, size):
            _read_member(found, member)
            if found.images > _MOST_IMAGES:
                return found.doubt(f"more than {_MOST_IMAGES} images")
    except archive.Damaged as damage:
        return found.doubt(str(damage))
    return None


def _read_member(found: _Found, member: archive.Member) -> None:
    stream = member.open(found.stream)
    head = stream.read(8)
    sections = None
    if archive.is_one(head):
        return found.doubt(f"{member.name}: an archive in an archive")
    if head.startswith(elf.MAGIC):
        try:
            sections = elf.sections(stream)
        except elf.Damaged as damage:
            return found.doubt(f"{member.name}: {damage}")
    if code := of(stream, member.size, sections, digests=found.digests):
        found.take(code, member=member.name)
    return None
