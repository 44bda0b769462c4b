"""Device code that real compilers write, read back: every architecture, packing and kind of file."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import archive, container, cubin, elf, fatbin, program
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from builder.audit.facts import DeviceCode, Image

FIXTURES = Path(__file__).with_name("fixtures") / "fatbin"

KERNEL = """
#ifdef OTHER
extern __device__ float factor(float);
#else
__device__ float factor(float x) { return x * 3; }
#endif
#ifndef ONLY_FACTOR
__global__ void scale(float *x) { x[threadIdx.x] = factor(x[threadIdx.x]); }
#endif
"""


def gencode(*arches: str) -> list[str]:
    """Return what makes nvcc write ``sm_121a``, ``compute_121a`` or ``lto_121a``."""
    return [f"--generate-code=arch=compute_{one.partition('_')[2]},code={one}" for one in arches]


class Compiler:
    """An nvcc with a folder to work in."""

    def __init__(self, nvcc: Path, work: Path, *options: str) -> None:
        self.nvcc, self.work, self.options = nvcc, work, options
        (work / "scale.cu").write_text(KERNEL)

    def __call__(self, out: str, *arguments: str, source: str = "scale.cu") -> Path:
        made = self.work / out
        command = [str(self.nvcc), *self.options, *arguments, "-o", str(made), *([source] if source else [])]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return made

    @property
    def release(self) -> str:
        said = subprocess.run([self.nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"release (\d+\.\d+)", said)
        assert found
        return found[1]

    @property
    def isa(self) -> str:
        """The version of PTX that it writes."""
        found = re.search(r"^\.version (\S+)", self("isa.ptx", "-ptx").read_text(), re.MULTILINE)
        assert found
        return found[1]


@pytest.fixture(scope="module")
def nvcc(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    usual = Path("/usr/local/cuda/bin/nvcc")
    found = usual if usual.exists() else Path(shutil.which("nvcc") or "nvcc")
    return Compiler(found, tmp_path_factory.mktemp("nvcc"), "-Xcompiler=-fPIC")


def read(path: Path, *, digests: bool = False) -> DeviceCode:
    with path.open("rb") as stream:
        sections = elf.sections(stream) if stream.read(4) == elf.MAGIC else None
        code = fatbin.of(stream, path.stat().st_size, sections, digests=digests)
    assert code is not None
    return code


def images(code: DeviceCode) -> Iterator[Image]:
    return (image for unit in code.units for image in unit.images)


def arches(path: Path) -> list[str]:
    """Return what is in a file that is understood, in order: ``lto_`` for LTO-IR."""
    code = read(path)
    assert not code.unknown
    return [one.arch.replace("compute", "lto") if one.kind == "lto-ir" else one.arch for one in images(code)]


def cuobjdump() -> Path:
    try:
        files = metadata.files("nvidia-cuda-cuobjdump") or []
    except metadata.PackageNotFoundError:
        pytest.skip("needs nvidia-cuda-cuobjdump")
    return next(Path(str(one.locate())) for one in files if one.name == "cuobjdump")


def as_cuobjdump_says(path: Path) -> list[str]:
    """Return the same as `arches`, sorted, of what cuobjdump tells. LTO-IR is `nvvm` there."""
    said = subprocess.run([cuobjdump(), "-all", "-res-usage", path], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"Fatbin (elf|ptx|nvvm) code:\n\s*=*\n?\s*arch = sm_(\w+)", said)
    prefix = {"elf": "sm", "ptx": "compute", "nvvm": "lto"}
    return sorted(f"{prefix[kind]}_{arch}" for kind, arch in found)


MATRIX: tuple[tuple[str, ...], ...] = (
    ("sm_120",),
    ("sm_120a",),
    ("sm_120f",),
    ("sm_121",),
    ("sm_121a",),
    ("sm_121f",),
    ("compute_121",),
    ("compute_121a",),
    ("compute_121f",),
    ("sm_80", "sm_90a", "sm_120f", "sm_121a", "compute_121a"),
    ("sm_75", "compute_75", "sm_100f", "sm_121"),
)


def check_matrix(nvcc: Compiler) -> None:
    isa = nvcc.isa
    for wanted in MATRIX:
        # Without the host's half, alone: that takes half the time.
        made = nvcc("code.o", "-c", *gencode(*wanted)) if wanted[1:] else nvcc("x.fatbin", "-fatbin", *gencode(*wanted))
        assert sorted(arches(made)) == sorted(wanted)
        assert as_cuobjdump_says(made) == sorted(wanted)
        assert {one.version for one in images(read(made)) if one.kind == "ptx"} <= {isa}


def check_packing(nvcc: Compiler) -> None:
    said = subprocess.run([nvcc.nvcc, "--help"], capture_output=True, text=True, check=True).stdout
    modes = re.search(r"--compress-mode \[([\w,]+)\]", said)
    assert modes
    # Each option of this nvcc, so that a new mode is tried as soon as there is one.
    options = [f"--compress-mode={mode}" for mode in modes[1].split(",")] + ["--no-compress"]
    assert len(options) >= 6
    for option in options:
        made = nvcc("packed.o", "-c", option, *gencode("sm_121f", "compute_121f"))
        assert sorted(arches(made)) == as_cuobjdump_says(made) == ["compute_121f", "sm_121f"]
        packed = [one.compressed for one in images(read(made))]
        if option in {"--no-compress", "--compress-mode=none"}:
            assert packed == [False] * 2
        if option == "--compress-mode=size":
            assert packed == [True] * 2


def check_relocatable(nvcc: Compiler) -> None:
    wanted = gencode("sm_121a", "compute_80")
    objects = [
        nvcc("scale.o", "-c", "-rdc=true", "-DOTHER", *wanted),
        nvcc("factor.o", "-c", "-rdc=true", "-DONLY_FACTOR", *wanted),
    ]
    for one in objects:
        assert sorted(arches(one)) == ["compute_80", "sm_121a"]
        assert as_cuobjdump_says(one) == ["compute_80", "sm_121a"]
        assert {unit.section for unit in read(one).units} == {"__nv_relfatbin"}
    library = nvcc("lib.a", "-lib", *map(str, objects), source="")
    assert sorted(arches(library)) == ["compute_80"] * 2 + ["sm_121a"] * 2
    assert [unit.section for unit in read(library).units] == ["scale.o", "factor.o"]
    assert as_cuobjdump_says(library) == ["compute_80"] * 2 + ["sm_121a"] * 2
    linked = nvcc("linked.so", "-shared", "-rdc=true", *map(str, objects), *wanted, source="")
    code = read(linked)
    assert not code.unknown
    assert sorted(unit.section for unit in code.units) == [".nv_fatbin", "__nv_relfatbin", "__nv_relfatbin"]
    assert "sm_121a" in [one.arch for unit in code.units if unit.section == ".nv_fatbin" for one in unit.images]
    assert as_cuobjdump_says(linked) == sorted(arches(linked))


def check_files(nvcc: Compiler) -> None:
    release, isa = nvcc.release, nvcc.isa
    bare = nvcc("code.fatbin", "-fatbin", *gencode("sm_120a", "compute_120"))
    assert sorted(arches(bare)) == ["compute_120", "sm_120a"]
    for letter in ("", "a", "f"):
        options = ["-dc"] if letter == "a" else []
        made = nvcc("code.cubin", "-cubin", f"-arch=sm_121{letter}", *options)
        (image,) = images(read(made))
        assert (image.arch, image.version, image.size) == (f"sm_121{letter}", release, made.stat().st_size)
        made = nvcc("code.ptx", "-ptx", f"-arch=compute_121{letter}")
        (image,) = images(read(made))
        assert (image.arch, image.version, image.kind) == (f"compute_121{letter}", isa, "ptx")
    assert arches(nvcc("old.cubin", "-cubin", "-arch=sm_80")) == ["sm_80"]
    alone = nvcc("alone.o", "-dc", "-arch=sm_121a")
    linked = nvcc("linked.cubin", "-cubin", "-dlink", "-arch=sm_121a", str(alone), source="")
    assert arches(linked) == ["sm_121a"]


def check_kinds(nvcc: Compiler) -> None:
    lto = nvcc("lto.o", "-dc", "--generate-code=arch=compute_121f,code=[lto_121f,sm_121f,compute_121f]")
    assert sorted(arches(lto)) == ["compute_121f", "lto_121f", "sm_121f"]
    dlto = nvcc("dlto.o", "-dc", "-dlto", "-arch=sm_121a")
    assert "lto_121a" in arches(dlto)
    debug = nvcc("debug.o", "-c", "-G", *gencode("sm_121a", "compute_121a"))
    lines = nvcc("lines.o", "-c", "-lineinfo", *gencode("sm_121a", "compute_121a"))
    for made in (debug, lines):
        assert sorted(arches(made)) == as_cuobjdump_says(made) == ["compute_121a", "sm_121a"]


@pytest.mark.cuda
def test_each_architecture_is_read_and_cuobjdump_says_the_same(nvcc: Compiler) -> None:
    check_matrix(nvcc)


@pytest.mark.cuda
def test_packed_in_each_way_that_nvcc_offers(nvcc: Compiler) -> None:
    check_packing(nvcc)


@pytest.mark.cuda
def test_relocatable_code_in_objects_libraries_and_linked(nvcc: Compiler) -> None:
    check_relocatable(nvcc)


@pytest.mark.cuda
def test_files_of_their_own_and_cubins_with_their_toolkit(nvcc: Compiler) -> None:
    check_files(nvcc)


@pytest.mark.cuda
def test_lto_debug_and_line_information(nvcc: Compiler) -> None:
    check_kinds(nvcc)


def install(work: Path, *projects: str) -> Path:
    """Return where `projects` of the package index were unpacked, tools made executable."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", work, *projects],
        check=True,
        timeout=600,
    )
    for one in work.glob("nvidia/**/bin/*"):
        one.chmod(0o755)
    return work / "nvidia"


@pytest.mark.slow
@pytest.mark.network
def test_newest_nvcc_of_the_index_writes_what_is_read(tmp_path: Path) -> None:
    packages = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
    (root,) = install(tmp_path / "toolkit", *packages).glob("cu[0-9]*")
    for library in root.glob("lib/libcudart.so.*"):
        (root / "lib" / "libcudart.so").symlink_to(library.name)
    newest = Compiler(root / "bin/nvcc", tmp_path, f"-I{root / 'include'}", f"-L{root / 'lib'}", "-Xcompiler=-fPIC")
    check_matrix(newest)
    check_packing(newest)
    check_relocatable(newest)
    check_kinds(newest)
    check_files(newest)
    help_text = subprocess.run([root / "bin/nvcc", "--help"], capture_output=True, text=True, check=True).stdout
    if "--concat" in help_text:
        wanted = ["sm_80", "sm_90a", "sm_120f", "sm_121a", "compute_121a"]
        grouped = newest("grouped.o", "-c", "--concat", *gencode(*wanted))
        assert sorted(arches(grouped)) == sorted(wanted)
        assert as_cuobjdump_says(grouped) == sorted(wanted)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.cuda
def test_cubins_of_cuda_12_have_another_abi(tmp_path: Path, nvcc: Compiler) -> None:
    root = install(tmp_path / "toolkit", "nvidia-cuda-nvcc-cu12")
    (ptxas,) = root.glob("cuda_nvcc/bin/ptxas")
    for arch in ("80", "90a", "120", "120a", "120f", "121a"):
        source = nvcc("code.ptx", "-ptx", f"-arch=compute_{arch}")
        text = re.sub(r"\.version \d+\.\d+", ".version 8.8", source.read_text())
        source.write_text(text)
        made = tmp_path / "code.cubin"
        subprocess.run([ptxas, f"-arch=sm_{arch}", source, "-o", made], check=True)
        assert arches(made) == [f"sm_{arch}"]


PACKED = ["sm_80", "sm_90a", "sm_120f", "sm_121a", "compute_121a"]
KEPT = {
    "mixed-13.0.fatbin": PACKED,
    "plain-13.0.fatbin": ["sm_75", "sm_121f", "compute_121f"],
    "debug-13.0.fatbin": ["sm_121a", "compute_121a"],
    "lto-13.0.fatbin": ["lto_121f", "sm_121f", "compute_121f"],
    "lz4-13.0.fatbin": ["compute_80"],
    "concat-13.5.fatbin": PACKED,
    "concat-lineinfo-13.5.fatbin": ["sm_100f", "sm_120a", "compute_120a", "sm_121f", "compute_121f"],
    "packed-12.9.fatbin": ["sm_80", "sm_90a", "sm_120f", "sm_120", "sm_120a", "compute_120"],
    "80-12.9.cubin": ["sm_80"],
    "90a-12.9.cubin": ["sm_90a"],
    "120a-12.9.cubin": ["sm_120a"],
    "121f-13.0.cubin": ["sm_121f"],
    "relocatable-13.0.o": ["compute_80", "sm_121a"],
    "relocatable-13.0.a": ["compute_80", "compute_80", "sm_121a", "sm_121a"],
    "relocatable-13.0.so": ["compute_80", "compute_80", "sm_121a", "sm_121a", "sm_121a"],
    "data-13.0.so": PACKED,
    "data-cubin-13.0.so": ["sm_121f"],
}


@pytest.mark.parametrize("name", KEPT)
def test_what_other_toolkits_wrote(name: str) -> None:
    assert sorted(arches(FIXTURES / name)) == sorted(KEPT[name])


@pytest.mark.parametrize("name", [name for name in KEPT if not name.startswith("data") and not name.endswith(".cubin")])
def test_cuobjdump_says_the_same_of_what_other_toolkits_wrote(name: str) -> None:
    assert as_cuobjdump_says(FIXTURES / name) == sorted(KEPT[name])


def test_containers_among_data_are_found_where_cuobjdump_sees_none() -> None:
    assert [unit.section for unit in read(FIXTURES / "data-13.0.so").units] == [".rodata"]
    assert as_cuobjdump_says(FIXTURES / "data-13.0.so") == []


def test_cubin_among_data_is_found_with_its_toolkit() -> None:
    (unit,) = read(FIXTURES / "data-cubin-13.0.so", digests=True).units
    alone = (FIXTURES / "121f-13.0.cubin").read_bytes()
    assert (unit.section, unit.sha256) == (".rodata", hashlib.sha256(alone).hexdigest())
    assert [(one.arch, one.version, one.size) for one in unit.images] == [("sm_121f", "13.0", len(alone))]


def test_damaged_cubin_among_data_is_unknown() -> None:
    alone, data = (FIXTURES / "121f-13.0.cubin").read_bytes(), (FIXTURES / "data-cubin-13.0.so").read_bytes()
    cut = bytearray(data)
    at = data.index(alone)
    cut[at + 40 : at + 48] = b"\xff" * 8
    code = of(bytes(cut), sections_of(data))
    assert code is not None
    assert ".rodata: a cubin at" in code.unknown


def test_tile_ir_is_unknown_and_the_cubin_beside_it_is_read() -> None:
    code = read(FIXTURES / "tile-13.5.fatbin")
    assert "Tile IR" in code.unknown
    assert [(one.kind, one.sm) for one in images(code)] == [("cubin", 120), ("unknown", 120)]


def test_digest_is_that_of_the_container_wherever_it_lies() -> None:
    def digests(name: str) -> list[str]:
        return [unit.sha256 for unit in read(FIXTURES / name, digests=True).units]

    whole = hashlib.sha256((FIXTURES / "mixed-13.0.fatbin").read_bytes()).hexdigest()
    assert digests("mixed-13.0.fatbin") == digests("data-13.0.so") == [whole]
    assert set(digests("relocatable-13.0.a")) < set(digests("relocatable-13.0.so"))


@pytest.mark.parametrize("name", ["mixed-13.0.fatbin", "relocatable-13.0.a", "121f-13.0.cubin", "data-cubin-13.0.so"])
def test_digests_are_made_when_asked_for_and_change_nothing_else(name: str) -> None:
    plain, full = read(FIXTURES / name), read(FIXTURES / name, digests=True)
    assert {unit.sha256 for unit in plain.units} == {""}
    assert all(len(unit.sha256) == 64 for unit in full.units)
    assert replace(full, units=tuple(replace(unit, sha256="") for unit in full.units)) == plain


def test_group_of_nothing_is_unknown() -> None:
    header = struct.pack("<HHIQ", 0x100, 0x101, 72, 0) + bytes(48) + struct.pack("<II", 0, 8)
    code = of(container.START + struct.pack("<Q", len(header)) + header)
    assert code is not None
    assert "a group whose index doesn't fit" in code.unknown


def test_shares_of_a_group_are_not_more_than_the_group() -> None:
    sizes = [one.size for one in images(read(FIXTURES / "concat-13.5.fatbin")) if one.kind == "cubin"]
    assert all(size > 0 for size in sizes)
    assert sum(sizes) < (FIXTURES / "concat-13.5.fatbin").stat().st_size


def of(data: bytes, sections: Sequence[elf.Section] | None = None) -> DeviceCode | None:
    return fatbin.of(io.BytesIO(data), len(data), sections)


def test_containers_one_after_the_other_with_zeros_between() -> None:
    one, two = (FIXTURES / "lz4-13.0.fatbin").read_bytes(), (FIXTURES / "mixed-13.0.fatbin").read_bytes()
    code = of(one + bytes(8 * 300_000) + two + bytes(5))
    assert code is not None
    assert (len(code.units), code.unknown) == (2, "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"!<thin>\n", "thin archive"),
        (b"!<arch>\nnonsense", "no member of an archive"),
        (b"\xed\x43\x4e\x7f" + bytes(100), "LTO-IR in a file of its own"),
        (b"\x7fTileIR\0" + bytes(100), "Tile IR in a file of its own"),
        (container.START, "no container at 0"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "sections couldn't be read"),
        (b".version 9.0\n.address_size 64\n", "without a .target"),
    ],
)
def test_unreadable_device_code_is_unknown(data: bytes, reason: str) -> None:
    code = of(data)
    assert code is not None
    assert reason in code.unknown


@pytest.mark.parametrize(
    "data", [b"", b"\x7f", b"// a text\nint main() {}\n", b"PK\x03\x04" + bytes(60), b".versions of things\n"]
)
def test_other_files_hold_no_device_code(data: bytes) -> None:
    assert of(data) is None


def test_host_library_has_no_units_and_nothing_unknown() -> None:
    code = read(Path(sys.executable).resolve())
    assert (code.units, code.unknown) == ((), "")


def sections_of(data: bytes) -> tuple[elf.Section, ...]:
    return elf.sections(io.BytesIO(data))


def renamed(section: elf.Section) -> elf.Section:
    return section._replace(name="")


def without_linked_code(section: elf.Section) -> elf.Section:
    return section._replace(name="", size=0) if section.name == ".nv_fatbin" else section


def empty(section: elf.Section) -> elf.Section:
    return section._replace(size=0) if "fatbin" in section.name else section


def too_long(section: elf.Section) -> elf.Section:
    return section._replace(size=1 << 40) if "fatbin" in section.name else section


def too_far(section: elf.Section) -> elf.Section:
    return section._replace(offset=1 << 70) if "fatbin" in section.name else section


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renamed, "no names of sections"),
        (without_linked_code, "registers 3 containers, 2 were found"),
        (empty, "holds no container"),
        (too_long, "file's end"),
        (too_far, "file's end"),
    ],
)
def test_sections_that_lost_device_code_are_unknown(change: Callable[[elf.Section], elf.Section], reason: str) -> None:
    data = (FIXTURES / "relocatable-13.0.so").read_bytes()
    code = of(data, [change(one) for one in sections_of(data)])
    assert code is not None
    assert reason in code.unknown


def test_cubin_without_notes_has_the_letter_of_its_flags_or_an_unknown_one() -> None:
    for name, letter in (("121f-13.0.cubin", "?"), ("120a-12.9.cubin", "a"), ("90a-12.9.cubin", "a")):
        data = (FIXTURES / name).read_bytes()
        bare = [one for one in sections_of(data) if not one.name.startswith(".note")]
        image, doubt = cubin.read(io.BytesIO(data), len(data), bare)
        assert (image.kind, image.variant, doubt) == ("cubin", letter, "")


@pytest.mark.parametrize(
    ("name", "told", "reason"),
    [
        ("121f-13.0.cubin", b"-arch sm_120f", "by tools that were told sm_120f"),
        ("120a-12.9.cubin", b"-arch sm_120f", "its flags say sm_120a, its notes sm_120f"),
    ],
)
def test_cubin_whose_notes_and_flags_differ_is_unknown(name: str, told: bytes, reason: str) -> None:
    data = re.sub(rb"-arch sm_\w{4}", told, (FIXTURES / name).read_bytes())[: (FIXTURES / name).stat().st_size]
    image, doubt = cubin.read(io.BytesIO(data), len(data), sections_of((FIXTURES / name).read_bytes()))
    assert image.kind == "unknown"
    assert reason in doubt


def told(note: bytes, name: bytes) -> bytes:
    """The same note of a tool that was called for `name`; its texts end where they ended."""
    return note.replace(b"sm_121f", name.ljust(len(b"sm_121f"), b"\0"))


@pytest.mark.parametrize(
    ("tools", "known"),
    [
        ((b"sm_121f", b"sm_121f"), "sm_121f"),
        ((b"sm_121a", b"sm_121a"), "sm_121a"),
        ((b"sm_121a", b"sm_121f"), ""),
        ((b"sm_121", b"sm_121a"), ""),
    ],
)
def test_cubin_whose_tools_were_told_two_letters_is_unknown(tools: tuple[bytes, bytes], known: str) -> None:
    """An assembler and a linker leave a note each."""
    data = (FIXTURES / "121f-13.0.cubin").read_bytes()
    sections = {one.name: one for one in sections_of(data)}
    place = sections[".note.nv.tkinfo"]
    notes = b"".join(told(data[place.offset : place.offset + place.size], one) for one in tools)
    sections[place.name] = place._replace(offset=len(data), size=len(notes))
    image, doubt = cubin.read(io.BytesIO(data + notes), len(data + notes), list(sections.values()))
    if known:
        assert (image.kind, image.arch, doubt) == ("cubin", known, "")
    else:
        assert image.kind == "unknown"
        assert f"by tools that were told {', '.join(sorted(one.decode() for one in tools))}" in doubt


def test_cubin_of_an_unknown_abi_is_unknown() -> None:
    data = bytearray((FIXTURES / "121f-13.0.cubin").read_bytes())
    data[8] = 9
    code = of(bytes(data), sections_of(bytes(data)))
    assert code is not None
    assert "ABI 0x41 version 9" in code.unknown
    assert [one.kind for one in images(code)] == ["unknown"]


def test_archive_with_long_names_of_both_kinds(tmp_path: Path) -> None:
    member = (FIXTURES / "mixed-13.0.fatbin").read_bytes()
    long = tmp_path / "a_name_that_is_longer_than_sixteen.fatbin"
    long.write_bytes(member)
    made = tmp_path / "gnu.a"
    subprocess.run(["ar", "rc", made, long, FIXTURES / "relocatable-13.0.o"], check=True)
    assert [unit.section for unit in read(made).units] == [long.name, "relocatable-13.0.o"]
    name = long.name.encode() + b"\0"
    header = b"#1/%-13d%-12d%-6d%-6d%-8s%-10d`\n" % (len(name), 0, 0, 0, b"644", len(name) + len(member))
    bsd = tmp_path / "bsd.a"
    bsd.write_bytes(b"!<arch>\n" + header + name + member + b"\n" * ((len(name) + len(member)) % 2))
    assert [unit.section for unit in read(bsd).units] == [long.name]
    with bsd.open("rb") as stream:
        (found,) = archive.members(stream, bsd.stat().st_size)
        assert found.open(stream).read() == member
    cut = bsd.read_bytes()[:-9]
    code = of(cut)
    assert code is not None
    assert "are left" in code.unknown


@pytest.mark.cuda
def test_version_and_targets_of_a_real_ptxas(nvcc: Compiler) -> None:
    path = nvcc.nvcc.with_name("ptxas").resolve()
    with path.open("rb") as stream:
        found = program.of(stream, "ptxas", path.stat().st_size)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    listed = subprocess.run([path, "--list-arch"], capture_output=True, text=True, check=False)
    assert found is not None
    assert f"V{found.version}" in said
    assert {"sm_120", "sm_120a", "sm_121", "sm_121a", "sm_121f"} <= found.targets
    if listed.returncode == 0:
        assert set(re.findall(r"sm_\w+", listed.stdout)) <= found.targets


def test_version_across_pieces_and_none_of_another_file() -> None:
    for at in range((1 << 20) - 60, (1 << 20) + 4, 3):
        data = elf.MAGIC + bytes(at) + b"release 13.4, V13.4.59\0sm_121a\0xsm_90\0sm_121fx\0sm_12\0" + bytes(2000)
        found = program.of(io.BytesIO(data), "ptxas-blackwell", len(data))
        assert found is not None
        assert (found.version, sorted(found.targets)) == ("13.4.59", ["sm_121a"])
    assert program.of(io.BytesIO(b"#!/bin/sh"), "ptxas", 9) is None
    assert program.of(io.BytesIO(elf.MAGIC), "libptxas.so", 4) is None
