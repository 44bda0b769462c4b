"""Torch's symbols: a miniature torch made by g++, extensions that link to it, and the same without a symbol."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from builder.audit import sets, symbols, torch
from builder.audit.elf import Damaged
from tests import link_kit
from tests.link_kit import context, judged, library, slugs, wheel

C10 = """
#include <string>
namespace c10 { namespace detail { void torchCheckFail(const char *, const std::string &) {} } }
"""
ATEN = """
#include <string>
namespace at { struct Tensor { int size() const; virtual ~Tensor(); };
int Tensor::size() const { return 1; } Tensor::~Tensor() {} }
namespace torch { void record(const std::string &) {} }
extern "C" { int aoti_torch_get_dim(void *) { return 2; } int torch_library_impl(void *) { return 0; } }
"""
ADDED = "namespace at { int parallel(int one) { return one; } }\n"
EXTENSION = """
#include <string>
namespace c10 { namespace detail { void torchCheckFail(const char *, const std::string &); } }
namespace at { struct Tensor { int size() const; virtual ~Tensor(); }; int parallel(int); }
namespace torch { void record(const std::string &) __attribute__((weak)); }
int twice(const at::Tensor &one) {
    if (one.size() < 0) c10::detail::torchCheckFail("twice", std::string("size"));
    return at::parallel(2 * one.size());
}
"""
STABLE = """
extern "C" { int aoti_torch_get_dim(void *); int torch_library_impl(void *); }
int twice(void *one) { return aoti_torch_get_dim(one) + torch_library_impl(one); }
"""
PINNED = ["torch==2.14.0"]
#: libstdc++ before the C++11 ABI: std::string with shared bytes.
OLD_STRINGS = "-D_GLIBCXX_USE_CXX11_ABI=0"


def _torch(folder: Path, version: str, aten: str, *flags: str, machine: str = "x86_64") -> Path:
    package = folder / "torch"
    library(package, "lib/libc10.so", C10, *flags, soname="libc10.so", machine=machine)
    library(package, "lib/libtorch_cpu.so", aten, *flags, soname="libtorch_cpu.so", machine=machine)
    (package / "version.py").write_text(f"__all__ = ['__version__']\n__version__ = '{version}'\ncuda = '13.0'\n")
    return package


class World:
    """Three torches and extensions against the first: 2.14 has all, 2.13 lacks a function, `old` has the old strings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.new = _torch(folder / "new", "2.14.0+cu130", ATEN + ADDED)
        self.other = _torch(folder / "other", "2.13.0+cu130", ATEN)
        self.old = _torch(folder / "old", "2.14.0+cu130", ATEN + ADDED, OLD_STRINGS)
        self.exact = self.extension(EXTENSION)
        self.stable = self.extension(STABLE)

    def extension(self, source: str, *flags: str, lib: Path | None = None) -> bytes:
        lib = lib or self.new / "lib"
        links = ["-Wl,--no-as-needed", str(lib / "libc10.so"), str(lib / "libtorch_cpu.so")]
        return library(self.folder, "ext.so", source, *flags, *links).read_bytes()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("torch"))


def test_an_extension_fits_the_torch_it_was_built_against(tmp_path: Path, world: World) -> None:
    facts = wheel(tmp_path, {"ext/_core.so": world.exact}, requires=PINNED)
    (one,) = judged(sets.judge, facts, context(torch=world.new))
    assert (one.id, one.severity, one.file) == ("torch-abi", "info", "ext/_core.so")
    assert one.found == "exact ABI (C++ symbols) of torch, 3 symbols"


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt")
def test_a_symbol_that_another_torch_lacks_is_named(tmp_path: Path, world: World) -> None:
    facts = wheel(tmp_path, {"ext/_core.so": world.exact}, requires=["torch==2.*"])
    found = judged(sets.judge, facts, context(torch=world.other))
    (one,) = [one for one in found if one.severity == "error"]
    assert (one.id, one.file) == ("torch-symbols", "ext/_core.so")
    assert one.found == "1 symbol that torch 2.13.0+cu130 lacks: at::parallel(int)"
    assert one.wanted == "symbols of torch 2.13.0+cu130"


def test_the_first_five_symbols_are_named_and_the_rest_counted(tmp_path: Path, world: World) -> None:
    many = "".join(f"namespace at {{ int missing{n}(int); }}\n" for n in range(8))
    calls = " + ".join(f"at::missing{n}({n})" for n in range(8))
    source = f"{many}int twice() {{ return {calls}; }}\n"
    facts = wheel(tmp_path, {"ext/_core.so": world.extension(source)}, requires=PINNED)
    (one,) = [one for one in judged(sets.judge, facts, context(torch=world.new)) if one.severity == "error"]
    assert one.found.startswith("8 symbols that torch 2.14.0+cu130 lacks: ")
    assert one.found.endswith(" and 3 more")
    assert one.found.count("missing") == 5


def test_the_torch_may_be_of_another_machine(tmp_path: Path, world: World) -> None:
    link_kit.needs("aarch64")
    far = _torch(tmp_path, "2.14.0", ATEN + ADDED, machine="aarch64")
    facts = wheel(tmp_path, {"ext/_core.so": world.exact}, requires=PINNED)
    assert slugs(judged(sets.judge, facts, context(torch=far))) == ["torch-abi"]


def test_the_stable_abi_is_told_from_the_exact_one(tmp_path: Path, world: World) -> None:
    facts = wheel(tmp_path, {"ext/a.so": world.stable, "ext/b.so": world.stable}, requires=["torch>=2.10"])
    for folder in (world.new, world.other):
        (one,) = judged(sets.judge, facts, context(torch=folder))
        assert (one.id, one.file) == ("torch-abi", "")
        assert one.found == "stable ABI of torch, 2 symbols by 2 files: a.so, b.so"


def test_an_exact_abi_wants_a_pin(tmp_path: Path, world: World) -> None:
    loose = wheel(tmp_path, {"ext/a.so": world.exact}, requires=["torch>=2.10"])
    (one,) = [one for one in judged(sets.judge, loose, context(torch=world.new)) if one.id != "torch-abi"]
    assert (one.id, one.severity, one.found, one.wanted) == (
        "torch-unpinned",
        "warning",
        "torch>=2.10",
        "torch==2.14.0",
    )
    pinned = wheel(tmp_path, {"ext/a.so": world.exact}, requires=["torch~=2.14.0"])
    assert slugs(judged(sets.judge, pinned, context(torch=world.new))) == ["torch-abi"]


def test_a_pin_that_excludes_the_torch_at_hand_is_refused(tmp_path: Path, world: World) -> None:
    facts = wheel(tmp_path, {"ext/a.so": world.stable}, requires=["torch==2.12.0"])
    (one,) = [one for one in judged(sets.judge, facts, context(torch=world.new)) if one.severity == "error"]
    assert (one.id, one.found) == ("torch-pin", "Requires-Dist: torch==2.12.0")
    assert one.wanted == "the torch at hand: 2.14.0+cu130"


def test_a_pin_that_excludes_the_torch_of_the_build_is_refused(tmp_path: Path, world: World) -> None:
    inputs = b'{"torch": {"version": "2.14.0.dev20261101+cu130"}}'
    files = {"ext/a.so": world.stable, "ext-1.0.dist-info/spark-build/inputs.json": inputs}
    (one,) = [
        one for one in judged(sets.judge, wheel(tmp_path, files, requires=["torch==2.13.*"])) if one.severity == "error"
    ]
    assert (one.id, one.wanted) == ("torch-pin", "built against: 2.14.0.dev20261101+cu130")
    assert slugs(judged(sets.judge, wheel(tmp_path, files, requires=["torch>=2.14.0.dev0"])), "error") == []


@pytest.mark.parametrize("built", [0, 1])
def test_the_other_cpp_abi_is_called_by_its_name(tmp_path: Path, world: World, built: int) -> None:
    data = world.extension(EXTENSION, f"-D_GLIBCXX_USE_CXX11_ABI={built}")
    right, wrong = (world.new, world.old) if built else (world.old, world.new)
    facts = wheel(tmp_path, {"ext/a.so": data}, requires=PINNED)
    assert slugs(judged(sets.judge, facts, context(torch=right)), "error") == []
    (one,) = [one for one in judged(sets.judge, facts, context(torch=wrong)) if one.severity == "error"]
    assert one.id == "torch-cxx11-abi"
    assert one.found.startswith(f"_GLIBCXX_USE_CXX11_ABI={built}; 1 symbol that torch 2.14.0+cu130 lacks: ")
    assert "torchCheckFail" in one.found
    assert one.wanted.startswith(f"_GLIBCXX_USE_CXX11_ABI={1 - built}")


def test_a_torch_without_cuda_lacks_whole_libraries(tmp_path: Path, world: World) -> None:
    stub = link_kit.stub(tmp_path, "libtorch_cuda.so")
    data = world.extension(STABLE, "-Wl,--no-as-needed", str(stub))
    facts = wheel(tmp_path, {"ext/a.so": data}, requires=["torch"])
    (one,) = [one for one in judged(sets.judge, facts, context(torch=world.new)) if one.severity == "error"]
    assert (one.id, one.found) == (
        "torch-symbols",
        "links to libtorch_cuda.so, which torch 2.14.0+cu130 doesn't have at all",
    )


def test_the_wheel_may_bring_the_symbols_itself(tmp_path: Path, world: World) -> None:
    own = library(tmp_path, "libown.so", ADDED, soname="libown.so").read_bytes()
    alone = wheel(tmp_path, {"ext/a.so": world.exact}, requires=PINNED)
    assert slugs(judged(sets.judge, alone, context(torch=world.other)), "error") == ["torch-pin", "torch-symbols"]
    both = wheel(tmp_path, {"ext/a.so": world.exact, "ext/libown.so": own}, requires=PINNED)
    assert slugs(judged(sets.judge, both, context(torch=world.other)), "error") == ["torch-pin"]


def test_symbols_of_torch_are_seen_without_a_link_to_it(tmp_path: Path, world: World) -> None:
    data = library(tmp_path, "ext.so", EXTENSION).read_bytes()
    facts = wheel(tmp_path, {"ext/a.so": data}, requires=["torch==2.13.0"])
    found = judged(sets.judge, facts, context(torch=world.other))
    assert [one.file for one in found if one.id == "torch-symbols"] == ["ext/a.so"]


def test_a_torch_that_cannot_be_read_is_told(tmp_path: Path, world: World) -> None:
    facts = wheel(tmp_path, {"ext/a.so": world.stable}, requires=["torch"])
    empty = tmp_path / "none" / "torch"
    empty.mkdir(parents=True)
    assert slugs(judged(sets.judge, facts, context(torch=empty)), "warning") == ["torch-unknown"]
    broken = shutil.copytree(world.new, tmp_path / "torch")
    library_path = broken / "lib" / "libtorch_cpu.so"
    library_path.write_bytes(library_path.read_bytes()[:600])
    found = judged(sets.judge, facts, context(torch=broken))
    assert [one.severity for one in found if one.id == "torch-unknown"] == ["warning"]


def test_a_wheel_without_torch_is_not_asked_about_it(tmp_path: Path, world: World) -> None:
    data = link_kit.linked("one.so", "libc.so.6")
    assert judged(sets.judge, wheel(tmp_path, {"ext/a.so": data}), context(torch=world.new)) == []


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_all_hash_tables_tell_what_nm_tells(tmp_path: Path, style: str) -> None:
    functions = "".join(f"int f{n}(int one) {{ return one + {n}; }}\n" for n in range(500))
    source = f"#include <string>\n{functions}int used(void); int call() {{ return used(); }}\nstd::string s;\n"
    path = library(tmp_path, "lib.so", source, f"-Wl,--hash-style={style}")
    listed = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert len(names) > 500
    assert symbols.exported(path) == names
    wanted = names | {"_Z4usedv", "_Z2f1j", "", "nothing", "_Z3f500i"}
    assert symbols.defined(path, wanted) == names


def test_damaged_libraries_are_damaged_and_nothing_else(tmp_path: Path) -> None:
    whole = library(tmp_path, "lib.so", ATEN, soname="libx.so").read_bytes()
    path, seen = tmp_path / "damaged.so", set()
    for seed in range(600):
        dice = random.Random(seed)  # noqa: S311  # a seed that names the case
        data = bytearray(whole)
        for _ in range(dice.choice((1, 4, 40))):
            data[dice.randrange(min(len(data), dice.choice((64, 700, len(data)))))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(1, len(data))))])
        try:
            symbols.exported(path)
            symbols.defined(path, {"aoti_torch_get_dim", "nothing"})
        except Damaged:
            seen.add("damaged")
        else:
            seen.add("whole")
    assert seen == {"damaged", "whole"}


# What follows reads real torches of the index: two aarch64 wheels, 0.6 GB.

REAL = """
#include <ATen/ATen.h>
#include <torch/library.h>
at::Tensor twice(const at::Tensor &one) { TORCH_CHECK(one.dim() == 2, "dims ", one.dim()); return at::add(one, one); }
TORCH_LIBRARY(dext, m) { m.def("twice(Tensor x) -> Tensor"); m.impl("twice", twice); m.def("again", twice); }
"""


def _downloaded(folder: Path, version: str) -> Path:
    """The package folder of a real aarch64 torch; from a folder of wheels where one is named, else from the index."""
    given = Path(os.environ.get("SPARK_BUILD_OFFICIAL_WHEELS", folder / "none"))
    if not list(given.glob(f"torch-{version}-*aarch64.whl")):
        given = folder / "wheels"
        platform = ["--only-binary", ":all:", "--platform", "manylinux_2_28_aarch64", "--python-version", "3.12"]
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            *platform,
            "-d",
            str(given),
            f"torch=={version}",
        ]
        subprocess.run(argv, check=True)
    (found,) = given.glob(f"torch-{version}-*aarch64.whl")
    with zipfile.ZipFile(found) as archive:
        wanted = [
            name for name in archive.namelist() if name.startswith(("torch/include/", "torch/lib/", "torch/version"))
        ]
        archive.extractall(folder / version, wanted)
    return folder / version / "torch"


@pytest.mark.slow
@pytest.mark.network
def test_a_real_extension_fits_its_own_torch_only(tmp_path: Path) -> None:
    link_kit.needs("aarch64")
    torches = {version: _downloaded(tmp_path, version) for version in ("2.10.0", "2.14.0")}
    for version, own in torches.items():
        folders = [f"-I{own / 'include'}", f"-I{own / 'include/torch/csrc/api/include'}", f"-L{own / 'lib'}"]
        links = ["-ltorch_cpu", "-lc10", "-Wl,--unresolved-symbols=ignore-in-shared-libs"]
        data = library(tmp_path, "ext.so", REAL, "-std=c++20", "-w", *folders, *links, machine="aarch64")
        facts = wheel(
            tmp_path, {"ext/_core.so": data.read_bytes()}, requires=["torch==2.*"], tags="cp312-cp312-linux_aarch64"
        )
        for other, folder in torches.items():
            errors = [one for one in judged(torch.judge, facts, context(torch=folder)) if one.severity == "error"]
            assert slugs(errors) == ([] if other == version else ["torch-symbols"])
            assert _lacking(data, folder) == (0 if other == version else int(errors[0].found.split()[0]))
            assert all(f"torch {other}" in one.found and "torch::Library::_def" in one.found for one in errors)


def _lacking(extension: Path, folder: Path) -> int:
    """How many symbols the torch lacks, told by nm: those with torch's namespaces that none of its libraries defines."""
    wanted = _nm("--undefined-only", extension)
    there = set[str]().union(*(_nm("--defined-only", path) for path in (folder / "lib").glob("*.so*")))
    return sum(any(word in one for word in ("2at", "3c10", "5torch")) for one in wanted - there)


def _nm(what: str, path: Path) -> set[str]:
    listed = subprocess.run(["nm", "-D", what, path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if line.split()[-2] not in {"w", "v"}}
