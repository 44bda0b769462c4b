from __future__ import annotations

import io
import random
import struct
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from builder.audit import elf
from tests.elf_kit import compiled, library, program, symbols, tool

if TYPE_CHECKING:
    from pathlib import Path

    from builder.audit.facts import Elf

BOTH = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


def read(data: bytes) -> Elf:
    return elf.read(io.BytesIO(data))


@BOTH
def test_a_library_says_what_it_is(machine: str) -> None:
    found = read(library(machine, "-Wl,-rpath,$ORIGIN/../libs:/opt/lib", "-Wl,--build-id=sha1"))
    assert (found.machine, found.bits, found.kind) == (machine, 64, "shared")
    assert (found.soname, found.interpreter) == ("libtiny.so.1", "")
    assert found.needed == ("libm.so.6", "libc.so.6")
    assert found.rpath == ("$ORIGIN/../libs", "/opt/lib")
    assert len(found.build_id) == 40
    assert found.compilers
    assert found.compilers[0].startswith("GCC: (")


@BOTH
def test_symbols_are_those_that_nm_sees(machine: str) -> None:
    data = library(machine)
    found = read(data)
    assert {"brought_by_another", "may_be_missing", "pow", "strcpy"} <= found.undefined
    assert found.undefined == symbols(data, "--undefined-only")
    assert "may_be_missing" in found.weak
    assert "pow" not in found.weak
    assert found.defined == len(symbols(data, "--defined-only"))


@BOTH
def test_versions_are_those_that_readelf_sees(machine: str, tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(library(machine))
    text = subprocess.run(
        [tool("readelf"), "--version-info", tmp_path / "lib.so"], check=True, capture_output=True, text=True
    ).stdout
    wanted: dict[str, list[str]] = {}
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if "File:" in words:
            names = wanted.setdefault(words[words.index("File:") + 1], [])
        elif "Name:" in words and "Flags:" in words:
            names.append(words[words.index("Name:") + 1])
    assert wanted
    assert {file: list(names) for file, names in read(library(machine)).versions.items()} == wanted


def test_runpath_and_rpath_are_both_read() -> None:
    for flag in ("--enable-new-dtags", "--disable-new-dtags"):
        assert read(library("x86_64", f"-Wl,{flag}", "-Wl,-rpath,/a")).rpath == ("/a",)


def test_kinds_are_told_apart() -> None:
    assert read(program("x86_64", "-pie")).kind == "program"
    assert read(program("x86_64", "-no-pie")).kind == "program"
    assert read(program("x86_64", "-static-pie")).kind == "program"
    assert read(compiled("x86_64", "-c")).kind == "object"
    assert read(program("x86_64", "-pie")).interpreter == "/lib64/ld-linux-x86-64.so.2"


def test_another_word_size_is_read(tmp_path: Path) -> None:
    """Without headers and libraries of 32 bits: compiler and linker alone know them."""
    text = "extern int wanted(void); __attribute__((weak)) int a(void); int offered(void) { return wanted() + a(); }"
    (tmp_path / "one.o").write_bytes(compiled("x86_64", "-m32", "-c", "-fPIC", text=text))
    command = [tool("ld"), "-m", "elf_i386", "-shared", "-soname", "lib32.so", "one.o", "-o", "lib32.so"]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = read((tmp_path / "lib32.so").read_bytes())
    assert (found.machine, found.bits, found.kind, found.soname) == ("i686", 32, "shared", "lib32.so")
    assert found.undefined >= {"wanted", "a"}
    assert found.weak == {"a"}
    assert {".dynsym", ".text"} <= {one.name for one in elf.sections(io.BytesIO((tmp_path / "lib32.so").read_bytes()))}


def test_another_byte_order_and_an_unknown_machine_are_told() -> None:
    big = b"\x7fELF\x02\x02\x01" + bytes(9) + struct.pack(">HHIQQQIHHHHHH", 1, 22, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0)
    assert (read(big).machine, read(big).kind) == ("s390x", "object")
    other = bytearray(library())
    other[18:20] = struct.pack("<H", 4711)
    assert read(bytes(other)).machine == "em-4711"


@BOTH
def test_sizes_are_what_strip_saves(machine: str, tmp_path: Path) -> None:
    data = library(machine, "-g3")
    found = read(data)
    file = tmp_path / "lib.so"
    for flag, saved in (
        ("--strip-debug", found.debug_size),
        ("--strip-unneeded", found.debug_size + found.symbols_size),
    ):
        file.write_bytes(data)
        subprocess.run([tool("strip", machine), flag, file], check=True)
        left = len(data) - file.stat().st_size
        assert saved > 0
        assert abs(saved - left) < 4000  # section headers, alignment, symbols of debug sections
    assert read(file.read_bytes()).debug_size == read(file.read_bytes()).symbols_size == 0


def test_sections_lie_where_they_are_said_to() -> None:
    data = library()
    found = {one.name: one for one in elf.sections(io.BytesIO(data))}
    comment = found[".comment"]
    assert data[comment.offset : comment.offset + comment.size].startswith(b"GCC: (")
    assert found[".bss"].size == 0


def test_a_library_without_section_headers_is_read_as_the_loader_reads_it() -> None:
    data = bytearray(library("x86_64", "-Wl,-rpath,/a"))
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    found = read(bytes(data))
    assert (found.needed, found.rpath, found.soname) == (("libm.so.6", "libc.so.6"), ("/a",), "libtiny.so.1")
    assert "libc.so.6" in found.versions


def test_a_library_cut_off_anywhere_is_damaged() -> None:
    data = library()
    for size in range(0, len(data), 97):
        with pytest.raises(elf.Damaged):
            read(data[:size])
        with pytest.raises(elf.Damaged):
            elf.sections(io.BytesIO(data[:size]))


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_end_in_facts_or_in_damage(seed: int) -> None:
    """Nothing else is ever raised, and nothing takes the memory that a number in the file claims."""
    dice = random.Random(seed)  # noqa: S311  # the same each time
    whole = library() if seed % 2 else compiled("x86_64", "-c", "-g")
    tables = _tables(whole)
    damaged = 0
    tracemalloc.start()
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 8))):
            data[dice.choice(tables)] ^= 1 << dice.randrange(8)
        for step in (read, lambda data: elf.sections(io.BytesIO(data))):
            try:
                step(bytes(data))
            except elf.Damaged as error:
                assert str(error)  # noqa: PT017  # both ways are right
                damaged += 1
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert damaged > 10
    assert peak < 32 << 20


def _tables(data: bytes) -> list[int]:
    """Where headers and tables lie: flips elsewhere change nothing that is read."""
    kept = [*range(64)]
    kept += range(struct.unpack_from("<Q", data, 40)[0], len(data))
    wanted = {".dynamic", ".dynsym", ".dynstr", ".gnu.version_r", ".note.gnu.build-id", ".comment"}
    for one in elf.sections(io.BytesIO(data)):
        if one.name in wanted:
            kept += range(one.offset, one.offset + one.size)
    return kept + [*range(64, 64 + 56 * struct.unpack_from("<H", data, 56)[0])] * 4


def _header(data: bytes, name: str) -> int:
    """Where the header of the section `name` lies."""
    number = next(number for number, one in enumerate(elf.sections(io.BytesIO(data))) if one.name == name)
    return int(struct.unpack_from("<Q", data, 40)[0]) + 64 * number


def _place(data: bytes, name: str) -> int:
    return next(one.offset for one in elf.sections(io.BytesIO(data)) if one.name == name)


def _sections_without_end(data: bytearray) -> None:
    """The number of sections stands in the first one's header when the file's header has none."""
    struct.pack_into("<H", data, 60, 0)
    struct.pack_into("<Q", data, struct.unpack_from("<Q", data, 40)[0] + 32, 1 << 60)


def _symbols_without_end(data: bytearray) -> None:
    struct.pack_into("<Q", data, _header(bytes(data), ".dynsym") + 32, (1 << 64) - 1)


def _names_of_nothing(data: bytearray) -> None:
    struct.pack_into("<I", data, _header(bytes(data), ".dynsym") + 40, 0xFFFF)


def _a_name_beyond_the_names(data: bytearray) -> None:
    struct.pack_into("<I", data, _place(bytes(data), ".dynsym") + 24, 1 << 30)
    data[_place(bytes(data), ".dynsym") + 28] = 0x10
    data[_place(bytes(data), ".dynsym") + 30 : _place(bytes(data), ".dynsym") + 32] = b"\0\0"


def _dynamic_section_nowhere(data: bytearray) -> None:
    for number in range(struct.unpack_from("<H", data, 56)[0]):
        if struct.unpack_from("<I", data, 64 + 56 * number)[0] == 2:
            struct.pack_into("<Q", data, 64 + 56 * number + 8, 1 << 62)


def _segments_of_another_size(data: bytearray) -> None:
    struct.pack_into("<H", data, 54, 1)


@pytest.mark.parametrize(
    "lie",
    [
        _sections_without_end,
        _symbols_without_end,
        _names_of_nothing,
        _a_name_beyond_the_names,
        _dynamic_section_nowhere,
        _segments_of_another_size,
    ],
)
def test_numbers_that_the_file_cannot_hold_are_damage(lie: object) -> None:
    data = bytearray(library())
    lie(data)  # type: ignore[operator]
    with pytest.raises(elf.Damaged):
        read(bytes(data))


def test_versions_that_follow_each_other_in_a_circle_end() -> None:
    data = bytearray(library())
    place = _place(bytes(data), ".gnu.version_r")
    struct.pack_into("<H", data, place + 2, 0xFFFF)
    aux = place + struct.unpack_from("<I", data, place + 8)[0]
    struct.pack_into("<I", data, aux + 12, 0)
    assert read(bytes(data)).versions
    struct.pack_into("<I", data, place + 12, 0)
    assert len(read(bytes(data)).versions) == 1


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(60), b"no ELF file at all, but long enough" * 9])
def test_what_is_no_elf_file_is_damaged(data: bytes) -> None:
    with pytest.raises(elf.Damaged):
        read(data)
