"""Two wheels held against each other: what differs, device code apart from host code, and the known causes."""

from __future__ import annotations

import gzip
import os
import py_compile
import random
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.audit.compare import compare
from builder.errors import CheckRefused, HostError
from tests import wheel_kit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.audit.change import FileChange
    from builder.audit.compare import Comparison

C = """
#include <assert.h>
#include <string.h>
struct pair { int a, b; };
int add(struct pair *p) { assert(p->a); return p->a + p->b; }
"""
TIMED = C + 'const char *made(void) { return "made " __DATE__ " " __TIME__; }\n'
#: An anonymous namespace, and an assert in device code.
KERNEL = """
#include <cassert>
namespace {
__device__ int counter;
__global__ void scale(float *values, float by) { values[threadIdx.x] *= by; counter = 1; }
}
void launch(float *values, float by) { scale<<<1, 32>>>(values, by); }
"""


def wheel(folder: Path, files: Mapping[str, bytes], headers: Sequence[str] = ()) -> Path:
    return wheel_kit.raw(folder, files=files, headers=headers)


def pair(tmp_path: Path, *both: bytes, name: str = "tiny/part.so") -> Comparison:
    paths = [wheel(tmp_path / side, {name: data}) for side, data in zip(("old", "new"), both, strict=True)]
    return compare(*paths, explain=True)


def one(found: Comparison) -> FileChange:
    (change,) = found.files
    return change


def ids(found: Comparison) -> set[str]:
    return {cause.id for cause in one(found).causes}


def compiled(folder: Path, text: str, *flags: str, epoch: int | None = None, compiler: str = "gcc") -> bytes:
    """Compile `text` as CMake does, by its absolute path, and return the library's bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / ("part.cu" if compiler == "nvcc" else "part.c")
    source.write_text(text)
    env = {**os.environ, **({"SOURCE_DATE_EPOCH": str(epoch)} if epoch is not None else {})}
    pic = ["-Xcompiler", "-fPIC", "-arch=sm_121a"] if compiler == "nvcc" else ["-fPIC"]
    subprocess.run(
        [compiler, "-shared", *pic, *flags, "-o", folder / "part.so", source], check=True, env=env, cwd=folder
    )
    return (folder / "part.so").read_bytes()


def stripped(data: bytes, folder: Path) -> bytes:
    file = folder / "stripped.so"
    file.write_bytes(data)
    subprocess.run(["strip", "--strip-all", file], check=True)
    return file.read_bytes()


# --- what differs


def test_same_bytes_are_the_same(tmp_path: Path) -> None:
    found = pair(tmp_path, b"one", b"one")
    assert found.identical
    assert not found.files
    assert not found.archive


def test_files_headers_and_sizes(tmp_path: Path) -> None:
    old = wheel_kit.raw(
        tmp_path,
        "tiny",
        "1.0",
        {"tiny/a.py": b"a", "tiny/b.py": b"b", "tiny-1.0.data/purelib/c": b"1"},
        ["Requires-Dist: x"],
    )
    new = wheel_kit.raw(
        tmp_path,
        "tiny",
        "1.1",
        {"tiny/b.py": b"bb", "tiny/d.py": b"", "tiny-1.1.data/purelib/c": b"1"},
        ["Requires-Dist: y"],
    )
    found = compare(old, new)
    assert [(file.path, file.kind, file.old, file.new) for file in found.files] == [
        ("tiny/a.py", "removed", 1, None),
        ("tiny/b.py", "changed", 1, 2),
        ("tiny/d.py", "added", None, 0),
    ]
    assert [(header.name, header.old, header.new) for header in found.headers] == [
        ("Requires-Dist", ("x",), ("y",)),
        ("Version", ("1.0",), ("1.1",)),
    ]


def test_sections_of_a_library_that_differ_are_named(tmp_path: Path) -> None:
    old = compiled(tmp_path / "a", C.replace("p->a + p->b", "p->a + 19"), "-O2")
    new = compiled(tmp_path / "a", C.replace("p->a + p->b", "p->a + 17"), "-O2")
    found = one(pair(tmp_path, old, new))
    assert {part.name for part in found.parts} == {".text", ".note.gnu.build-id"}
    assert found.at is not None
    assert found.at[0] == ".text"
    assert found.causes == ()


def test_a_section_that_is_missing_is_named(tmp_path: Path) -> None:
    old, new = compiled(tmp_path / "a", C, "-g"), compiled(tmp_path / "a", C)
    parts = {part.name: part for part in one(pair(tmp_path, old, new)).parts}
    assert parts[".debug_info"].new is None
    assert parts[".debug_info"].old


@pytest.mark.parametrize("damage", [b"\x7fELF", b"\x7fELF" + bytes(200), b"!<arch>\nx", b""])
def test_damaged_files_are_compared_as_bytes(tmp_path: Path, damage: bytes) -> None:
    found = one(pair(tmp_path, damage, compiled(tmp_path / "a", C)))
    assert found.kind == "changed"
    assert found.parts == ()


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    good = wheel(tmp_path / "a", {"tiny/a": b"a"})
    bad = tmp_path / "b" / good.name
    bad.parent.mkdir()
    bad.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(CheckRefused):
        compare(good, bad)


@pytest.mark.parametrize("side", [0, 1])
def test_which_of_the_two_is_damaged(tmp_path: Path, side: int) -> None:
    names = ("old", "new")
    paths = [wheel_kit.raw(tmp_path, name, files={"tiny/a": name.encode() + os.urandom(9000)}) for name in names]
    data = bytearray(paths[side].read_bytes())
    data[4000] ^= 1
    paths[side].write_bytes(data)
    with pytest.raises(CheckRefused) as caught:
        compare(*paths)
    assert caught.value.code == "wheel-damaged"
    assert caught.value.summary.startswith(f"{names[side]}-1.0-py3-none-any.whl ")


def test_mistakes_of_our_own_are_no_damage(tmp_path: Path) -> None:
    def fail(name: str) -> None:
        raise ValueError(name)

    paths = [wheel(tmp_path / side, {"tiny/a": side.encode()}) for side in ("old", "new")]
    with pytest.raises(ValueError, match="tiny/a"):
        compare(*paths, on_read=fail)


@pytest.mark.root
def test_no_room_for_members(tmp_path: Path) -> None:
    paths = [wheel(tmp_path / side, {"tiny/a": os.urandom(100_000)}) for side in ("old", "new")]
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with pytest.raises(HostError) as caught:
            compare(*paths, scratch=small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert caught.value.code == "disk-full"
    assert str(small) in caught.value.summary
    assert "goes on" not in caught.value.help


# --- the zip


def zipped(
    path: Path,
    names: Sequence[str],
    *,
    time: tuple[int, ...] = (2024, 1, 1, 0, 0, 0),
    mode: int = 0o644,
    kind: int = 8,
    level: int = 6,
) -> Path:
    members = wheel_kit.contents("tiny", "1.0", {"tiny/a.py": b"a" * 5000 + os.urandom(0), "tiny/b.py": b"b" * 5000})
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members, key=lambda name: (name not in names, names.index(name) if name in names else 0)):
            info = zipfile.ZipInfo(name, time)  # type: ignore[arg-type]
            info.compress_type, info.external_attr = kind, (0o100000 | mode) << 16
            archive.writestr(info, members[name], compresslevel=level)
    return path


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"time": (2025, 1, 1, 0, 0, 0)}, "times"),
        ({"mode": 0o755}, "modes"),
        ({"kind": 0}, "compression"),
        ({"level": 1}, "deflate"),
        ({"names": ["tiny/b.py", "tiny/a.py"]}, "order"),
    ],
)
def test_zips_that_differ_where_their_contents_are_equal(tmp_path: Path, how: dict[str, object], told: str) -> None:
    name, names = "tiny-1.0-py3-none-any.whl", ["tiny/a.py", "tiny/b.py"]
    old = zipped(tmp_path / "a" / name, names)
    new = zipped(tmp_path / "b" / name, **{"names": names, **how})  # type: ignore[arg-type]
    found = compare(old, new, explain=True)
    assert not found.files
    assert not found.headers
    assert [change.what for change in found.archive] == [told]
    assert [cause.id for cause in found.causes] == (["zip-times"] if told == "times" else [])


# --- causes, by real compilers


def test_date_and_time(tmp_path: Path) -> None:
    found = pair(tmp_path, *(compiled(tmp_path / "a", TIMED, epoch=at) for at in (1700000000, 1700086461)))
    assert ids(found) == {"date-time"}
    (cause,) = one(found).causes
    assert (cause.where, cause.old, cause.new) == (".rodata", "made Nov 14 2023 22:13:20", "made Nov 15 2023 22:14:21")
    assert cause.key == "build.env"


def test_path_of_a_source_file(tmp_path: Path) -> None:
    found = pair(tmp_path, *(compiled(tmp_path / name, C) for name in ("here", "elsewhere")))
    (cause,) = [cause for cause in one(found).causes if cause.id == "file-macro"]
    assert cause.where == ".rodata"
    assert cause.old.endswith("/here/part.c")
    assert cause.new.endswith("/elsewhere/part.c")


def test_path_in_debug_information(tmp_path: Path) -> None:
    text = "int one(void) { return 1; }\n"
    found = pair(tmp_path, *(compiled(tmp_path / name, text, "-g") for name in ("here", "place")))
    assert ids(found) == {"debug-path"}


def test_build_id_alone(tmp_path: Path) -> None:
    text = "int one(void) { return 1; }\n"
    built = [stripped(compiled(tmp_path / name, text, "-g"), tmp_path) for name in ("here", "place")]
    found = pair(tmp_path, *built)
    assert [part.name for part in one(found).parts] == [".note.gnu.build-id"]
    assert ids(found) == {"build-id"}


def test_folder_that_a_script_writes_down(tmp_path: Path) -> None:
    found = pair(tmp_path, b"root = '/build/one/src'\n", b"root = '/build/another/src'\n", name="tiny/config.py")
    assert ids(found) == {"build-path"}
    (cause,) = one(found).causes
    assert (cause.old, cause.new) == ("root = '/build/one/src'", "root = '/build/another/src'")


def test_temporary_folder(tmp_path: Path) -> None:
    found = pair(
        tmp_path, b"x = /var/tmp/tmpab12cd34/out/part.c\n", b"x = /var/tmp/tmpzz99yy88/out/part.c\n", name="tiny/log"
    )
    assert ids(found) == {"temporary-path"}


def test_clock_in_a_text(tmp_path: Path) -> None:
    found = pair(tmp_path, b"BUILT = 1732860000.25\n", b"BUILT = 1732860077.5\n", name="tiny/version.py")
    assert ids(found) == {"clock"}


def test_random_id(tmp_path: Path) -> None:
    ids_ = (b"6f1e6b1c-5d0e-4b9b-8a53-2f0a4b7a9c11", b"0f2d4e4f-9c1a-4c39-9f6e-5d1f0b6a7e22")
    found = pair(tmp_path, *(b"serial: urn:uuid:" + one_ for one_ in ids_), name="tiny/bom.json")
    assert ids(found) == {"random-id"}


def test_compiled_python(tmp_path: Path) -> None:
    made = []
    for at in (1700000000, 1700009999):
        source = tmp_path / "module.py"
        source.write_text("VALUE = 1\n")
        os.utime(source, (at, at))
        mode = py_compile.PycInvalidationMode.TIMESTAMP
        py_compile.compile(str(source), str(tmp_path / "m.pyc"), "module.py", invalidation_mode=mode)
        made.append((tmp_path / "m.pyc").read_bytes())
    found = pair(tmp_path, *made, name="tiny/__pycache__/module.pyc")
    assert ids(found) == {"pyc-time"}
    assert one(found).causes[0].old == "2023-11-14 22:13:20 UTC"


def test_archives_with_times_in_them(tmp_path: Path) -> None:
    compiled(tmp_path / "a", C, "-c")
    made = []
    for at in (1700000000, 1700009999):
        os.utime(tmp_path / "a" / "part.so", (at, at))
        (tmp_path / "lib.a").unlink(missing_ok=True)
        subprocess.run(["ar", "crU", "lib.a", "a/part.so"], check=True, cwd=tmp_path)
        made.append((tmp_path / "lib.a").read_bytes())
    assert ids(pair(tmp_path, *made, name="tiny/lib.a")) == {"archive-time"}
    packed = [gzip.compress(b"text" * 100, mtime=at) for at in (1, 2)]
    assert ids(pair(tmp_path / "gz", *packed, name="tiny/data.gz")) == {"archive-time"}


def test_set_that_is_walked(tmp_path: Path) -> None:
    program = "print('NAMES =', set('alpha beta gamma delta epsilon zeta'.split()))"
    made = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] != made[1]
    assert ids(pair(tmp_path, *made, name="tiny/names.py")) == {"order"}


def test_lines_and_symbols_in_another_order(tmp_path: Path) -> None:
    lines = [f"row {number} of many\n".encode() for number in range(20000)]
    assert ids(pair(tmp_path / "text", b"".join(lines), b"".join(reversed(lines)), name="tiny/rows")) == {"order"}
    names = [f"int function_{number}(void) {{ return {number}; }}\n" for number in range(300)]
    built = [
        stripped(compiled(tmp_path / "c", "".join(text), "-Wl,--build-id=none", "-O1"), tmp_path)
        for text in (names, names[::-1])
    ]
    assert "order" in ids(pair(tmp_path / "elf", *built))


def test_no_cause_is_made_up(tmp_path: Path) -> None:
    found = one(pair(tmp_path, b"answer = 41\n", b"answer = 42\n", name="tiny/answer.py"))
    assert found.causes == ()
    assert found.at is not None
    assert (found.at[1], found.at[2], found.at[3]) == (10, "answer = 41", "answer = 42")


def test_nothing_is_seen_in_random_bytes(tmp_path: Path) -> None:
    both = (random.Random(seed).randbytes(12 << 20) for seed in (1, 2))  # noqa: S311  # the same each time
    assert one(pair(tmp_path, *both, name="tiny/random.bin")).causes == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\0/@-9/@.9\0", b"\0/@-8/@.9\0"),  # what compressed code is full of
        (b"\0/dev/nvgpu/igpu0/power\0", b"\0/dev/nvgpu/igpu1/power\0"),
        (b"\0/usr/lib/debug/.build-id/\0", b"\0/usr/lib64/nvidia/libnvidia-ml.so.1\0"),
        (b"\0/opt/vendor/lib/libunwind.so\0", b"\0libunwind\0"),
        (b"sha256:ab1512345678fe", b"sha256:ab1598765432fe"),
    ],
)
def test_what_looks_like_a_cause_and_is_none(tmp_path: Path, old: bytes, new: bytes) -> None:
    assert one(pair(tmp_path, old, new, name="tiny/data.bin")).causes == ()


def test_paths_in_machine_code_are_none(tmp_path: Path) -> None:
    """The same bytes in .rodata are."""
    for section, told in ((".text", set[str]()), (".rodata", {"file-macro"})):
        texts = (f'asm(".section {section}\\n.ascii \\"/home/{who}/part.c\\"\\n.text");\n' for who in ("anna", "bert"))
        built = [compiled(tmp_path / "a", text, "-Wl,--build-id=none") for text in texts]
        assert built[0] != built[1]
        assert ids(pair(tmp_path / section, *built)) == told


@pytest.mark.parametrize(("at", "told"), [(1000, {"date-time"}), (70_000_000, set())])
def test_so_much_is_searched_and_that_is_said(tmp_path: Path, at: int, told: set[str]) -> None:
    paths = []
    for side, day in (("old", b"Jan  1 2020"), ("new", b"Jan  2 2020")):
        data = bytearray(side[:1].encode() * 72_000_000)
        data[at : at + len(day)] = day
        paths.append(zipped_large(tmp_path / side, bytes(data)))
    found = compare(*paths, explain=True)
    assert ids(found) == told
    assert one(found).cut == ("",)
    assert one(found).as_json()["searched"] == {"bytes": 64 << 20, "of": [""]}


def test_without_explain_no_cause_is_looked_for(tmp_path: Path) -> None:
    paths = [
        wheel(tmp_path / side, {"tiny/t": data}) for side, data in (("old", b"Jan  1 2020"), ("new", b"Jan  2 2020"))
    ]
    assert one(compare(*paths)).causes == ()


# --- device code


@pytest.mark.cuda
def test_host_code_apart_from_device_code(tmp_path: Path) -> None:
    plain = KERNEL.replace("namespace {", "").replace("}\nvoid", "\nvoid", 1)
    old = compiled(tmp_path / "a", plain, compiler="nvcc")
    host = compiled(tmp_path / "a", plain.replace("<<<1, 32>>>", "<<<2, 64>>>"), compiler="nvcc")
    device = compiled(tmp_path / "a", plain.replace("*= by", "+= by"), compiler="nvcc")
    old, host, device = (stripped(data, tmp_path) for data in (old, host, device))
    changed = one(pair(tmp_path / "host", old, host))
    assert (changed.device, changed.host) == ("equal", "differs")
    changed = one(pair(tmp_path / "device", old, device))
    assert changed.device == "differs"
    assert {cause.id for cause in changed.causes} == {"device-compressed"}
    assert ".nv_fatbin" in {part.name for part in changed.parts}


@pytest.mark.cuda
def test_names_that_nvcc_makes(tmp_path: Path) -> None:
    twice = [compiled(tmp_path / "a", KERNEL, compiler="nvcc") for _time in range(2)]
    found = pair(tmp_path / "twice", *twice)
    assert ids(found) == {"nvcc-temporary"}
    assert one(found).device == "equal"
    moved = [stripped(compiled(tmp_path / name, KERNEL, compiler="nvcc"), tmp_path) for name in ("a", "b")]
    assert "module-id" in ids(pair(tmp_path / "moved", *moved))


@pytest.mark.cuda
def test_line_information_in_device_code(tmp_path: Path) -> None:
    text = "__global__ void one(float *x) { x[0] = 1; }\n"
    flags = ("-lineinfo", "--no-compress")
    built = [stripped(compiled(tmp_path / name, text, *flags, compiler="nvcc"), tmp_path) for name in ("here", "place")]
    found = pair(tmp_path, *built)
    assert one(found).device == "differs"
    assert "line-info" in ids(found)


# --- size


def test_large_members_take_little_memory(tmp_path: Path) -> None:
    data = bytearray(os.urandom(1 << 20) * 120)
    paths = []
    for side in ("old", "new"):
        data[77_000_000:77_000_011] = b"Jan  1 2020" if side == "old" else b"Jan  2 2020"
        paths.append(zipped_large(tmp_path / side, bytes(data)))
    program = (
        "import sys\nfrom pathlib import Path\nfrom builder.audit.compare import compare\n"
        "found = compare(Path(sys.argv[1]), Path(sys.argv[2]), explain=True)\n"
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print([cause.id for cause in found.files[0].causes], peak)"
    )
    told = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True).stdout
    causes, peak = told.rsplit(" ", 1)
    assert causes == "['date-time']"
    assert int(peak) < 100 * 1024


def zipped_large(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in wheel_kit.contents("tiny", "1.0", {"tiny/large.bin": data}).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path
