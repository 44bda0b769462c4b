"""The second opinion: NVIDIA's own tool on the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, crosscheck
from builder.audit.facts import DeviceCode
from builder.errors import HostError
from builder.values import replace
from tests import wheel_kit

if TYPE_CHECKING:
    from builder.audit.facts import Contents, File
    from builder.audit.rules import Finding

ENV = dict(os.environ)
NVCC = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
ROOT = Path(__file__).parents[1]
SOURCE = '__global__ void k(float *x) { x[threadIdx.x] *= 2; }\nextern "C" void go(float *x) { k<<<1, 32>>>(x); }\n'


@pytest.fixture(scope="session")
def tool() -> crosscheck.Tool:
    try:
        return crosscheck.find(ENV)
    except HostError as error:
        pytest.skip(error.summary)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel with device code in all forms: a library, an object, an archive, a fat binary, a cubin, PTX."""
    folder = tmp_path_factory.mktemp("crosscheck")
    (folder / "k.cu").write_text(SOURCE)
    many = ["-gencode=arch=compute_120f,code=sm_120f", "-gencode=arch=compute_121a,code=[sm_121a,compute_121a]"]
    calls = {
        "lib.so": ["-shared", "-Xcompiler=-fPIC", *many],
        "loose.o": [
            "-c",
            "-rdc=true",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-gencode=arch=compute_80,code=compute_80",
        ],
        "k.fatbin": ["-fatbin", *many],
        "k.cubin": ["-cubin", "-arch=sm_121a"],
        "k.ptx": ["-ptx", "-arch=compute_90"],
    }
    for name, words in calls.items():
        subprocess.run([NVCC, *words, "k.cu", "-o", name], check=True, cwd=folder, env={**ENV, "TMPDIR": str(folder)})
    subprocess.run(["ar", "rcs", "libloose.a", "loose.o"], check=True, cwd=folder)
    subprocess.run(["gcc", "-shared", "-o", "host.so", "-xc", "/dev/null"], check=True, cwd=folder)
    (folder / "data.s").write_text('.section .rodata\n.balign 16\nblob: .incbin "k.fatbin"\n')
    subprocess.run(["gcc", "-shared", "-o", "data.so", "data.s"], check=True, cwd=folder)
    members = {f"p/{name}": (folder / name).read_bytes() for name in (*calls, "libloose.a", "host.so", "data.so")}
    return wheel_kit.raw(folder, "p", "1.0", members)


def checked(found: Contents, tool: crosscheck.Tool) -> dict[str, list[Finding]]:
    by_id: dict[str, list[Finding]] = {}
    for one in crosscheck.check(found, tool, env=ENV):
        by_id.setdefault(one.id, []).append(one)
    return by_id


def changed(found: Contents, path: str, device: DeviceCode) -> Contents:
    files = tuple(replace(one, device=device) if one.path == path else one for one in found.files)
    assert files != found.files
    return replace(found, files=files)


def file(found: Contents, path: str) -> File:
    return next(one for one in found.files if one.path == path)


@pytest.mark.cuda
def test_both_readers_agree_on_real_code_in_all_forms(wheel: Path, tool: crosscheck.Tool) -> None:
    found = checked(contents.read(wheel), tool)
    assert list(found) == ["cross-check-agrees"]
    assert found["cross-check-agrees"][0].found == (
        f"6 of 6 files, 12 images, as cuobjdump {tool.version}"
        "; 3 images in data sections, where it doesn't look; 2 of nothing but device code, which it doesn't list"
    )


@pytest.mark.cuda
def test_an_image_that_we_lose_is_noticed(wheel: Path, tool: crosscheck.Tool) -> None:
    whole = contents.read(wheel)
    code = file(whole, "p/lib.so").device
    assert code is not None
    found = checked(changed(whole, "p/lib.so", DeviceCode(units=code.units[:-1])), tool)
    assert [one.file for one in found["cross-check-differs"]] == ["p/lib.so"]
    differs = found["cross-check-differs"][0]
    assert differs.severity == "error"
    assert differs.wanted == "compute_121a x1, sm_120f x2, sm_121a x2"
    assert found["cross-check-agrees"][0].found.startswith("5 of 6 files")


@pytest.mark.cuda
def test_code_that_we_say_is_not_there_is_noticed(wheel: Path, tool: crosscheck.Tool) -> None:
    whole = contents.read(wheel)
    found = checked(changed(whole, "p/lib.so", DeviceCode()), tool)
    assert found["cross-check-differs"][0].found == "no device code"
    found = checked(changed(whole, "p/lib.so", DeviceCode(unknown="no container at 64")), tool)
    assert found["cross-check-differs"][0].found == "no device code (no container at 64)"


@pytest.mark.cuda
def test_what_neither_of_the_two_finds_is_agreed_on(wheel: Path, tool: crosscheck.Tool) -> None:
    doubted = changed(contents.read(wheel), "p/host.so", DeviceCode(unknown="no container at 64"))
    assert list(checked(doubted, tool)) == ["cross-check-agrees"]


@pytest.mark.cuda
def test_a_file_that_the_tool_cannot_read_is_a_warning(wheel: Path, tool: crosscheck.Tool, tmp_path: Path) -> None:
    whole = contents.read(wheel)
    data = wheel_kit.members(wheel)["p/libloose.a"]
    (tmp_path / "p").mkdir()
    (tmp_path / "p/libloose.a").write_bytes(data[: len(data) // 2])
    only = replace(whole, where=tmp_path, filename="", files=(file(whole, "p/libloose.a"),))
    found = checked(only, tool)
    assert [(one.id, one.severity) for one in found["cross-check-failed"]] == [("cross-check-failed", "warning")]
    told = found["cross-check-failed"][0].found
    assert "fatal" in told  # and not the last of what it listed before
    assert str(tmp_path) not in told
    assert "cross-check-agrees" not in found


@pytest.mark.cuda
def test_installed_files_are_read_where_they_are(wheel: Path, tool: crosscheck.Tool, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path)], check=True)
    installed = replace(contents.read(wheel), where=tmp_path, filename="")
    assert list(checked(installed, tool)) == ["cross-check-agrees"]


@pytest.mark.cuda
@pytest.mark.root
def test_a_full_disk_is_said(wheel: Path, tool: crosscheck.Tool, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with pytest.raises(HostError) as caught:
            list(crosscheck.check(contents.read(wheel), tool, env=ENV, scratch=small))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert caught.value.code == "disk-full"
    assert "TMPDIR" in caught.value.help


def test_nothing_to_compare_is_no_agreement(tool: crosscheck.Tool, tmp_path: Path) -> None:
    plain = wheel_kit.raw(tmp_path, "p")
    assert checked(contents.read(plain), tool) == {}


def test_a_missing_tool_is_said_with_the_way_to_get_it() -> None:
    if Path("/usr/local/cuda/bin/cuobjdump").exists():
        pytest.skip("there is one in /usr/local/cuda")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from builder.audit import crosscheck\nfrom builder.errors import HostError\n"
        "try:\n    crosscheck.find({'PATH': '/nonexistent', 'CUDA_HOME': '/nonexistent'})\n"
        "except HostError as error:\n    print(error.code, *error.run)\n"
    )
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == "cuobjdump-missing pip install nvidia-cuda-cuobjdump\n"


def test_listing_is_counted_by_kind_and_architecture() -> None:
    listing = """
member it:a.o:

Fatbin elf code:
================
arch = sm_120f
code version = [1,8]
host = linux
compile_size = 64bit
compressed

Fatbin ptx code:
================
arch = sm_121a
code version = [9,0]
ptxasOptions = --compile-only

Fatbin nvvm code:
=================
arch = sm_120
nvvmOptions = -ftz=0

Fatbin elf code:
================
arch = sm_120f

Fatbin tile code:
=================
arch = sm_120
"""
    assert crosscheck.parse(listing) == Counter(
        {"sm_120f": 2, "compute_121a": 1, "lto-ir compute_120": 1, "unknown compute_120": 1}
    )
    assert crosscheck.parse("") == Counter()
    assert crosscheck.parse("arch = sm_120\n") == Counter()
