"""10,000 damaged fat binaries and ELF files: read without a crash, and as an independent parser reads them."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import container, elf, fatbin
from tests import audit_slow_parser as slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from builder.audit.facts import DeviceCode

FIXTURES = Path(__file__).with_name("fixtures") / "fatbin"
FATBINS = sorted(one.name for one in FIXTURES.glob("*.fatbin"))
ELVES = ("relocatable-13.0.o", "relocatable-13.0.so")
CUBINS = sorted(one.name for one in FIXTURES.glob("*.cubin"))
#: Where a cubin's SM and letter are: the ABI and its version, and the flags.
FLAGS = {7, 8, *range(48, 52)}
#: Each number below these is the seed of one mutation, which a failure names.
FATBIN_SEEDS, ELF_SEEDS, CUBIN_SEEDS, BATCH = 6000, 3000, 1000, 1000
#: Nothing is read more than a few times, whatever the bytes say.
MOST_READS = 20

NUMBERS = (0, 1, 2, 7, 8, 16, 63, 64, 80, 0x100, 0x101, 0xFFFF, 0x10000, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


class Counting(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data) + 8
        return data

    def readinto(self, into: Buffer, /) -> int:
        count = super().readinto(into)
        self.taken += count + 8
        return count


def number(data: bytearray, at: int, chance: random.Random) -> None:
    width = chance.choice((1, 2, 4, 8))
    value = chance.choice((*NUMBERS, chance.getrandbits(64))) % 2 ** (8 * width)
    data[at : at + width] = value.to_bytes(width, "little")[: max(0, len(data) - at)]


def bit(data: bytearray, at: int, chance: random.Random) -> None:
    data[at] ^= 1 << chance.randrange(8)


def step(data: bytearray, at: int, chance: random.Random) -> None:
    data[at] = (data[at] + chance.choice((-8, -1, 1, 8))) % 256


def mutate(data: bytearray, places: list[int], chance: random.Random, elsewhere: float = 0.2) -> None:
    """Change one to three things, mostly at `places`."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.choice(places) if chance.random() >= elsewhere else chance.randrange(len(data))
        chance.choice((number, bit, bit, step))(data, at, chance)


def resize(data: bytearray, chance: random.Random) -> None:
    """Cut the end off, cut something out, repeat something, or add zeros."""
    at, size = chance.randrange(len(data)), chance.choice((1, 8, 64, 200))
    match chance.randrange(4):
        case 0:
            del data[at:]
        case 1:
            del data[at : at + size]
        case 2:
            data[at:at] = data[at : at + size]
        case _:
            data[at:at] = bytes(size)


def pictures(code: DeviceCode | None) -> list[list[slow.Picture]]:
    assert code is not None
    return [
        [(one.kind, one.sm, one.variant, one.size, one.compressed, one.version) for one in unit.images]
        for unit in code.units
    ]


def read(data: bytes) -> DeviceCode | None:
    """Return what is read of a fat binary, or of an ELF file; None for one that is damaged as an ELF file."""
    stream = Counting(data)
    try:
        sections = elf.sections(stream) if data.startswith(elf.MAGIC) else None
    except elf.Damaged:
        return None
    stream.taken = 0
    found = fatbin.of(stream, len(data), sections)
    assert stream.taken <= MOST_READS * (len(data) + 1000)
    return found


@functools.cache
def original(name: str) -> tuple[bytes, slow.Reading, list[int]]:
    data = (FIXTURES / name).read_bytes()
    reading = slow.fatbin(data)
    # Texts and the first bytes of payloads are headers' neighbours: reading on at a wrong place shows there.
    near = {place + shift for place in reading.deciding for shift in range(0, 64, 8) if place + shift < len(data)}
    return data, reading, sorted(reading.deciding | near)


@functools.cache
def original_elf(name: str) -> tuple[bytes, list[list[slow.Picture]], list[int]]:
    """With the places of the file header and of all section headers and section names."""
    data = (FIXTURES / name).read_bytes()
    start, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
    return data, slow.elf(data).units, [*range(64), *range(start, start + 64 * count)]


def check_fatbin(seed: int) -> bool:
    chance = random.Random(f"fatbin {seed}")  # noqa: S311  # the same each time
    name = chance.choice(FATBINS)
    data, before, places = original(name)
    changed = bytearray(data)
    resized = chance.random() < 0.1
    if resized:
        resize(changed, chance)
    else:
        mutate(changed, places, chance)
    if not changed.startswith(container.MAGIC):
        # Another file by its first bytes, which nothing claims to be a fat binary.
        assert read(bytes(changed)) is None
        return True
    found, wanted = read(bytes(changed)), slow.fatbin(bytes(changed))
    assert found is not None
    assert pictures(found) == wanted.units, (name, seed)
    assert bool(found.unknown) is not wanted.sure, (name, seed, found.unknown)
    differs = {place for place in range(min(len(data), len(changed))) if data[place] != changed[place]}
    if not resized and not differs & before.deciding:
        assert bool(found.unknown) or pictures(found) == before.units, (name, seed)
    return bool(found.unknown)


def check_elf(seed: int) -> bool:
    chance = random.Random(f"elf {seed}")  # noqa: S311  # the same each time
    name = chance.choice(ELVES)
    data, before, places = original_elf(name)
    changed = bytearray(data)
    mutate(changed, places, chance)
    found = read(bytes(changed))
    if found is None or found.unknown:
        return True
    after = pictures(found)
    if after != before:
        # Then it is what the changed bytes really say.
        assert after == slow.elf(bytes(changed)).units, (name, seed)
    return False


def check_cubin(seed: int) -> bool:
    chance = random.Random(f"cubin {seed}")  # noqa: S311  # the same each time
    name = chance.choice(CUBINS)
    data = (FIXTURES / name).read_bytes()
    start, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
    changed = bytearray(data)
    # Not the notes themselves: another letter in them is another letter.
    mutate(changed, [*FLAGS, *range(64), *range(start, start + 64 * count)], chance, elsewhere=0)
    found = read(bytes(changed))
    if found is None or found.unknown:
        return True
    if int.from_bytes(changed[18:20], "little") != 190:
        # A host's file then, by its header, and without a section of device code.
        assert not found.units
        return False
    before, after = read(data), pictures(found)
    if after[0][0][2] == "?":  # its notes are lost
        assert after[0][0][1] == slow.cubin(bytes(changed))[0], (name, seed)
        return True
    same = [[one[:3] for one in unit] for unit in after] == [[one[:3] for one in unit] for unit in pictures(before)]
    assert same or slow.cubin(bytes(changed)) == after[0][0][1:3], (name, seed)
    assert same or any(data[place] != changed[place] for place in FLAGS), (name, seed)
    return False


def test_damaged_archive_says_the_same_or_unknown() -> None:
    data = (FIXTURES / "relocatable-13.0.a").read_bytes()
    before = pictures(read(data))
    first = data.index(b"scale.o")
    second = data.index(b"factor.o", first)
    unknown = 0
    for seed in range(500):
        chance = random.Random(f"archive {seed}")  # noqa: S311  # the same each time
        changed = bytearray(data)
        mutate(changed, [*range(8, 68), *range(first, first + 60), *range(second, second + 60)], chance, elsewhere=0)
        found = read(bytes(changed))
        assert found is not None
        unknown += bool(found.unknown)
        assert found.unknown or pictures(found) == before, seed
    assert 50 < unknown < 450


@pytest.mark.parametrize("first", range(0, FATBIN_SEEDS, BATCH))
def test_damaged_fat_binary_is_read_as_by_the_slow_parser(first: int) -> None:
    unknown = sum(check_fatbin(seed) for seed in range(first, first + BATCH))
    # Neither all nor none: the mutations reach what matters, and not only that.
    assert BATCH // 10 < unknown < BATCH * 9 // 10


@pytest.mark.parametrize("first", range(0, ELF_SEEDS, BATCH))
def test_damaged_elf_file_says_the_same_or_unknown(first: int) -> None:
    unknown = sum(check_elf(seed) for seed in range(first, first + BATCH))
    assert BATCH // 10 < unknown < BATCH * 9 // 10


@pytest.mark.parametrize("first", range(0, CUBIN_SEEDS, BATCH))
def test_damaged_cubin_says_the_same_or_unknown_or_what_its_flags_say(first: int) -> None:
    unknown = sum(check_cubin(seed) for seed in range(first, first + BATCH))
    assert BATCH // 10 < unknown < BATCH * 9 // 10


CASES: tuple[tuple[str, Callable[[bytearray], None], str], ...] = (
    ("kind", lambda data: data.__setitem__(16, 9), "kind 0x9"),
    ("magic", lambda data: data.extend(b"\x51\xed\x55\xba\1\0\x10\0"), "no container at"),
    ("layout", lambda data: data.__setitem__(4, 2), "layout 2"),
    ("header size", lambda data: data.__setitem__(6, 24), "a header of 24 bytes"),
    ("entry layout", lambda data: data.__setitem__(19, 2), "layout 0x0201"),
    ("entry header size", lambda data: data.__setitem__(20, 65), "a header of 65 bytes"),
    ("size", lambda data: data.__setitem__(slice(24, 32), b"\xff" * 8), "bytes, where"),
    ("compressed size", lambda data: data.__setitem__(slice(32, 36), b"\xff" * 4), "compressed bytes in"),
    ("SM", lambda data: data.__setitem__(44, 3), "SM 3"),
    ("a new letter", lambda data: data.__setitem__(58, data[58] | 0x40), "flags 0x"),
    ("both letters", lambda data: data.__setitem__(58, data[58] | 0x30), "flags 0x"),
    ("container size", lambda data: data.__setitem__(slice(8, 16), b"\xff" * 8), "a container of"),
    ("end", lambda data: data.extend(b"more"), "no container at"),
)


@pytest.mark.parametrize(("what", "change", "reason"), CASES, ids=[case[0] for case in CASES])
def test_unknown_says_why_and_keeps_what_was_read(what: str, change: Callable[[bytearray], None], reason: str) -> None:
    data = bytearray((FIXTURES / "mixed-13.0.fatbin").read_bytes())
    change(data)
    code = read(bytes(data))
    assert code is not None
    assert reason in code.unknown
    if what in {"kind", "SM", "a new letter", "both letters"}:
        (unit,) = code.units
        assert [one.kind for one in unit.images] == ["unknown", "cubin", "cubin", "cubin", "ptx"]
    if what in {"container size", "magic", "end"}:
        assert len(code.units[0].images) == 5
