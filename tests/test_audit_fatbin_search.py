"""Device code at places where nothing says that there is some: any section of a host's file, by any means."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from builder.audit import container, elf, fatbin
from tests.test_audit_fatbin import FIXTURES, PACKED, as_cuobjdump_says, images, read
from tests.test_audit_fatbin_ptx import KERNEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.audit.facts import DeviceCode

BINARY = FIXTURES / "mixed-13.0.fatbin"
CUBIN = FIXTURES / "121f-13.0.cubin"
COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def linked(folder: Path, text: str) -> Path:
    """Return a shared library of the assembler's text."""
    source, made = folder / "code.s", folder / "code.so"
    source.write_text(text + '\n.section .note.GNU-stack,""\n')
    subprocess.run([COMPILER or "cc", "-shared", "-nostdlib", source, "-o", made], check=True, timeout=60)
    return made


def included(section: str, file: Path, before: str = "") -> str:
    return f'.section {section}\n{before}\n.incbin "{file}"\n'


@needs_compiler
@pytest.mark.parametrize(
    "section",
    ['.kernels,"a"', '.text,"ax"', '.text.hot,"ax"', '.rodata,"a"', '.data,"aw"', '.data.rel.ro,"aw"', "of_mine"],
)
@pytest.mark.parametrize("before", ["", ".byte 1, 2, 3"])
def test_fat_binary_in_any_section(section: str, before: str, tmp_path: Path) -> None:
    made = linked(tmp_path, included(section, BINARY, before))
    code = read(made, digests=True)
    assert code.unknown == ""
    assert sorted(one.arch for one in images(code)) == sorted(PACKED)
    assert [unit.sha256 for unit in code.units] == [hashlib.sha256(BINARY.read_bytes()).hexdigest()]
    # A linker puts .text.hot into .text.
    assert section.startswith(code.units[0].section)
    assert as_cuobjdump_says(made) == []


@needs_compiler
@pytest.mark.parametrize("section", ['.kernels,"a"', '.text,"ax"', '.rodata,"a"'])
def test_cubin_in_any_section(section: str, tmp_path: Path) -> None:
    code = read(linked(tmp_path, included(section, CUBIN, ".byte 1")), digests=True)
    assert [(one.arch, one.size) for one in images(code)] == [("sm_121f", CUBIN.stat().st_size)]
    assert code.units[0].sha256 == hashlib.sha256(CUBIN.read_bytes()).hexdigest()


@needs_compiler
@pytest.mark.parametrize("section", ['.kernels,"a"', '.rodata,"a"', '.data,"aw"'])
@pytest.mark.parametrize("after", [".byte 0", ".byte 0xff, 0", ""])
def test_ptx_as_a_text_of_the_library(section: str, after: str, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(KERNEL)
    code = read(linked(tmp_path, included(section, tmp_path / "kernel", ".byte 1") + after), digests=True)
    (unit,) = code.units
    assert (unit.section, code.unknown) == (section.partition(",")[0], "")
    assert [(one.kind, one.arch, one.version) for one in unit.images] == [("ptx", "compute_121a", "9.0")]
    module = KERNEL[KERNEL.index(b".version") :]
    assert unit.images[0].size == len(module) + (after != ".byte 0" and bool(after))
    if after != ".byte 0xff, 0":
        assert unit.sha256 == hashlib.sha256(module).hexdigest()


@needs_compiler
def test_all_kinds_one_after_the_other_are_each_read_once(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(KERNEL * 2)
    files = (BINARY, CUBIN, tmp_path / "kernel", BINARY)
    text = "".join(included('.rodata,"a"', file) + ".byte 0\n" for file in files) + included('.nv_fatbin,"a"', BINARY)
    found = [[one.arch for one in unit.images] for unit in read(linked(tmp_path, text)).units]
    packed = [one.arch for one in images(read(BINARY))]
    assert found == [packed, packed, ["sm_121f"], ["compute_121a"], ["compute_121a"], packed]


@needs_compiler
def test_first_bytes_of_a_container_as_a_number_in_a_program_are_none(tmp_path: Path) -> None:
    """As in fatbinary, which writes containers; the same bytes among data are unknown."""
    start = int.from_bytes(container.START, "little")
    number = f".byte 0x48, 0xb8\n.quad {start:#x}\n.quad 0x1122334455667788, 0x99aabbccddeeff00\n"
    code = read(linked(tmp_path, '.section .text,"ax"\n' + number))
    assert (code.units, code.unknown) == ((), "")
    assert "a container of" in read(linked(tmp_path, '.section .rodata,"a"\n' + number)).unknown


PIECES = (
    b".version 9.0\n.target sm_121a\n.address_size 64\n",
    b".version 9.0\n.target sm_121a\n.visible .entry scale()\n{\n}\n",
    b".version 9.0\n.address_size 64\n.visible .entry scale()\n{\n}\n",
    b".version 9.0\n\0.target sm_121a\n.address_size 64\n.visible .entry scale()\n{\n}\n",
    b".version 9.0\n.target sm_121a\n.address_size 64\n\0.visible .entry scale()\n{\n}\n",
    b".version %s\n.target  %s\n.address_size 64\n.entry %s { ret; }\n",
    b".version {}.{}\n.target sm_{}\n.address_size 64\n.entry scale()\n",
    b".version 9.0\n.target sm_%d\n.address_size 64\n.entry scale()\n",
    b".version 3.2.target sm_35.address_size 64 .entry k(){}",
    b"PTX .version 9.0 does not support .target sm_121a .address_size 64 .entry",
    b".version 9.0\n.target sm_121a\n.address_size 64\n.entryway .function\n",
)


@pytest.mark.parametrize("text", PIECES)
def test_pieces_of_a_generator_are_none(text: bytes) -> None:
    code = among(b"\0" + text + b"\0")
    assert (code.units, code.unknown) == ((), "")


def among(data: bytes, name: str = ".rodata") -> DeviceCode:
    """Return what is read of `data` in a section of a host's file."""
    whole = elf.MAGIC + b"\2\1\1" + bytes(57) + data
    places = (elf.Section(name, 64, len(data)), elf.Section(".shstrtab", 0, 1))
    code = fatbin.of(io.BytesIO(whole), len(whole), places)
    assert code is not None
    return code


@pytest.mark.parametrize(
    "what", [BINARY.read_bytes(), CUBIN.read_bytes(), KERNEL + bytes(1)], ids=["fatbin", "cubin", "ptx"]
)
def test_nothing_is_lost_between_two_pieces_of_the_file(what: bytes) -> None:
    start = what.index(b".version") if what.startswith(b"//") else 0
    pieces = (1 << 18) - start
    for at in range(pieces - 12, pieces + 3):
        code = among(bytes(at) + what + bytes(1 << 18) + what)
        assert (len(code.units), code.unknown) == (2, ""), at


@pytest.mark.parametrize("size", [0, 1 << 12, 1 << 16, (1 << 16) + 60, 1 << 20])
def test_function_far_behind_the_head_is_found(size: int) -> None:
    module = KERNEL[KERNEL.index(b".version") :]
    head, function = module[: module.index(b"\t//")], module[module.index(b".visible") :]
    text = head + b"." * size + b"\n" + function
    assert [one.size for one in images(among(text + bytes(9)))] == [len(text)]
    assert among(head + b"." * size + bytes(1) + function).units == ()


DAMAGE: tuple[tuple[str, Callable[[bytearray], None], str], ...] = (
    ("entry layout", lambda data: data.__setitem__(19, 2), "layout 0x0201"),
    ("container size", lambda data: data.__setitem__(slice(8, 16), b"\xff" * 8), "a container of"),
)


@pytest.mark.parametrize(("what", "change", "reason"), DAMAGE, ids=[one[0] for one in DAMAGE])
def test_damaged_container_in_any_section_is_unknown(
    what: str, change: Callable[[bytearray], None], reason: str
) -> None:
    data = bytearray(BINARY.read_bytes())
    change(data)
    assert reason in among(bytes(data), ".kernels").unknown, what
