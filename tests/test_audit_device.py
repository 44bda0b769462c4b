"""What is said about a wheel's device code: for a stranger's wheel, and for one whose recipe states what it expects."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.audit import device
from builder.audit.contents import examine
from builder.audit.context import Context, Expected
from builder.audit.facts import Contents, DeviceCode, Elf, File, Program, Unit
from builder.audit.target import Capability, cover
from builder.values import replace
from tests.test_audit_target import unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.audit.rules import Finding

SPARK = Capability(12, 1)
STATED = Expected(stated=True)


def library(path: str, *units: str, unknown: str = "", section: str = ".nv_fatbin") -> File:
    return File(
        path=path,
        size=1000,
        elf=Elf(machine="aarch64", bits=64, kind="shared"),
        device=DeviceCode(units=tuple(unit(words, section) for words in units), unknown=unknown),
    )


def cubin(path: str, word: str) -> File:
    return replace(library(path, word, section=""), elf=Elf(machine="cuda", bits=64, kind="program"))


def assembler(name: str, version: str, *targets: str) -> File:
    program = Program(name=name, version=version, targets=frozenset(targets))
    return File(path=f"p/bin/{name}", size=1000, executable=True, program=program)


def wheel(*files: File) -> Contents:
    name = "p-1.0-cp312-cp312-linux_aarch64.whl"
    return Contents(where=Path(name), filename=name, project="p", version="1.0", files=files)


def judged(
    *files: File, expected: Expected | None = None, target: Capability = SPARK
) -> dict[tuple[str, str], Finding]:
    """Return the findings by id and file; each may be told once only."""
    context = Context(target=target, expected=expected or Expected())
    found = list(device.judge(wheel(*files), context))
    by_place = {(one.id, one.file): one for one in found}
    assert len(by_place) == len(found)
    assert all(device.RULES[one.id].why == one.why for one in found)
    return by_place


def levels(*files: File, expected: Expected | None = None, target: Capability = SPARK) -> dict[tuple[str, str], str]:
    return {place: one.severity for place, one in judged(*files, expected=expected, target=target).items()}


def test_host_only_wheel_has_nothing_to_be_said_about() -> None:
    text = File(path="p/__init__.py", size=10)
    assert levels(text, library("p/a.so")) == {}
    assert levels(text, library("p/a.so"), expected=STATED) == {}


def test_native_wheel_passes_with_and_without_a_recipe() -> None:
    files = library("p/a.so", "sm_121a", "sm_120f", "sm_120 compute_120"), library("p/b.so", "sm_121")
    assert levels(*files) == {}
    assert levels(*files, expected=replace(STATED, require=("*a.so", "*b.so"))) == {}


@pytest.mark.parametrize("expected", [Expected(), STATED, replace(STATED, allow_absent=("*",), allow_ptx=("*",))])
def test_code_of_the_generation_that_the_chip_refuses_is_always_an_error(expected: Expected) -> None:
    found = judged(library("p/a.so", "sm_120a", "sm_120a"), library("p/b.so", "sm_121a"), expected=expected)
    assert {place: one.severity for place, one in found.items()} == {("device-dead", "p/a.so"): "error"}
    assert found["device-dead", "p/a.so"].found == "2 of 2 units: sm_120a x2"
    assert "sm_121a" in found["device-dead", "p/a.so"].wanted


def test_one_dead_unit_among_native_ones_is_an_error() -> None:
    found = judged(library("p/a.so", "sm_121a", "sm_120a", "sm_90a"))
    assert {place: one.severity for place, one in found.items()} == {
        ("device-dead", "p/a.so"): "error",
        ("device-partly", "p/a.so"): "info",
    }
    assert found["device-dead", "p/a.so"].found == "1 of 3 units: sm_120a x1"


def test_units_for_newer_chips_beside_native_ones_are_only_a_warning() -> None:
    ampere = Capability(8, 0)
    assert levels(library("p/a.so", "sm_80", "sm_89"), target=ampere) == {("device-dead", "p/a.so"): "warning"}
    assert levels(library("p/a.so", "sm_89"), library("p/b.so", "sm_80"), target=ampere) == {
        ("device-dead", "p/a.so"): "error"
    }


def test_dead_code_beside_ptx_that_runs_is_no_dead_unit() -> None:
    assert levels(library("p/a.so", "sm_120a compute_120")) == {("device-jit", "p/a.so"): "warning"}


@pytest.mark.parametrize(
    ("expected", "severity"),
    [
        (Expected(), "warning"),
        (STATED, "error"),
        (replace(STATED, allow_absent=("*/other.so",)), "error"),
        (replace(STATED, allow_ptx=("*",)), "error"),
        (replace(STATED, allow_absent=("*/a.so",)), "info"),
    ],
)
def test_library_for_other_chips(expected: Expected, severity: str) -> None:
    files = library("p/a.so", "sm_90a", "sm_100f"), library("p/b.so", "sm_121a")
    assert levels(*files, expected=expected) == {("device-absent", "p/a.so"): severity}


@pytest.mark.parametrize(
    ("expected", "severity"),
    [
        (Expected(), "warning"),
        (STATED, "error"),
        (replace(STATED, allow_ptx=("*_fa2_C.*so",)), "info"),
        (replace(STATED, allow_absent=("*_fa2_C.*so",)), "info"),
    ],
)
def test_library_by_jit_only(expected: Expected, severity: str) -> None:
    files = library("p/_fa2_C.abi3.so", "sm_80 compute_80"), library("p/b.so", "sm_121a")
    assert levels(*files, expected=expected) == {("device-jit", "p/_fa2_C.abi3.so"): severity}


def test_partly_native_library_is_told_with_counts() -> None:
    found = judged(library("p/a.so", "sm_120f", "sm_120", "compute_80", "sm_90a"), expected=STATED)
    assert list(found) == [("device-partly", "p/a.so")]
    assert found["device-partly", "p/a.so"].severity == "info"
    assert found["device-partly", "p/a.so"].found == "of 4 units 2 native, 1 by JIT, 1 absent"


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        (Expected(), "warning"),
        (Expected(allow_ptx=("p/a.so",)), "warning"),
        (Expected(allow_absent=("p/a.so",)), "info"),
    ],
)
def test_what_a_required_library_lacks_is_a_warning(more: Expected, severity: str) -> None:
    """Most kernels of a file were left out, one is there: the file as a whole counts as native."""
    expected = replace(more, stated=True, require=("p/a*",))
    files = library("p/a.so", "sm_121a", *["sm_90a"] * 4), library("p/b.so", "sm_121a", *["sm_90a"] * 4)
    found = judged(*files, expected=expected)
    assert found["device-partly", "p/a.so"].severity == severity
    assert found["device-partly", "p/a.so"].found == "of 5 units 1 native, 4 absent"
    assert found["device-partly", "p/b.so"].severity == "info"


@pytest.mark.parametrize(("allowed", "severity"), [((), "warning"), (("*",), "info")])
def test_what_the_driver_compiles_of_a_required_library_is_a_warning(allowed: tuple[str, ...], severity: str) -> None:
    expected = Expected(stated=True, require=("p/a.so",), allow_ptx=allowed)
    found = levels(library("p/a.so", "sm_121a", "compute_80"), expected=expected)
    assert found == {("device-partly", "p/a.so"): severity}


def test_a_required_library_that_is_whole_has_nothing_to_be_said_about() -> None:
    expected = Expected(stated=True, require=("p/a.so",))
    assert levels(library("p/a.so", "sm_121a sm_90a", "sm_120f"), expected=expected) == {}


def test_files_for_several_chips_are_no_lack_of_a_required_one() -> None:
    expected = Expected(stated=True, require=("k/121.cubin",))
    files = cubin("k/121.cubin", "sm_121a"), cubin("k/90.cubin", "sm_90a")
    assert levels(*files, expected=expected)["device-partly", "k/*"] == "info"


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("12.1", "machine code for 12.1, a DGX Spark (sm_121a), or for its family (sm_120f)"),
        ("12.0", "machine code for 12.0 (sm_120a), or for its family (sm_120f)"),
        ("10.1", "machine code for 11.0 (sm_110a), or for its family (sm_110f)"),
        ("9.0", "machine code for 9.0 (sm_90a)"),
        ("8.6", "machine code for 8.6 (sm_86)"),
    ],
)
def test_what_is_wanted_is_said_for_the_target(target: str, wanted: str) -> None:
    found = judged(library("p/a.so", "sm_70 compute_70"), library("p/b.so", "sm_52"), target=Capability.parse(target))
    assert found["device-jit", "p/a.so"].wanted == found["device-absent", "p/b.so"].wanted == wanted
    told = " ".join(f"{one.why} {one.help}" for one in found.values())
    assert "DGX Spark" not in told
    assert "12." not in told


def test_the_assembler_of_a_renamed_chip_goes_by_both_names() -> None:
    for name in ("sm_101a", "sm_110a"):
        for target in ("10.1", "11.0"):
            found = judged(assembler("ptxas", "12.9.86", name), target=Capability.parse(target))
            assert found["ptxas-knows", "p/bin/ptxas"].found == f"ptxas 12.9.86 knows {name}"
            assert ("device-driver-floor", "p/bin/ptxas") in found


@pytest.mark.parametrize("expected", [Expected(), replace(STATED, allow_absent=("*",))])
def test_wheel_of_which_nothing_runs_is_refused(expected: Expected) -> None:
    found = judged(
        library("p/a.so", "sm_90a", "sm_90a"), library("p/b.so", "sm_100f"), library("p/host.so"), expected=expected
    )
    assert found["device-nothing", ""].severity == "error"
    assert found["device-nothing", ""].found == "sm_90a x2, sm_100f x1 in 2 files"


def test_wheel_of_which_something_runs_or_may_run_is_not_nothing() -> None:
    dead = library("p/a.so", "sm_90a")
    for other in (library("p/b.so", "compute_90"), library("p/b.so", "sm_120"), library("p/b.so", "?")):
        assert ("device-nothing", "") not in levels(dead, other)


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (library("p/a.so", "?"), "1 of 1 unit in a form that nobody knows"),
        (
            library("p/a.so", "sm_120?", "sm_90?"),
            "1 of 2 units: whether it is for sm_120, sm_120a or sm_120f isn't noted",
        ),
        (library("p/a.so", unknown="no container at 64"), "no container at 64"),
        (library("p/a.so", "sm_80", unknown="no container at 64"), "no container at 64"),
    ],
)
def test_unread_code_is_said_to_be_unknown(file: File, found: str) -> None:
    foreign, stated = judged(file), judged(file, expected=STATED)
    assert list(foreign) == list(stated) == [("device-unknown", "p/a.so")]
    assert foreign["device-unknown", "p/a.so"].severity == "warning"
    assert stated["device-unknown", "p/a.so"].severity == "error"
    assert foreign["device-unknown", "p/a.so"].found == found


def test_unread_part_of_a_native_library_refuses_nothing() -> None:
    file = library("p/a.so", "sm_121a", unknown="no container at 64")
    assert levels(file) == levels(file, expected=STATED) == {("device-unknown", "p/a.so"): "info"}


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (library("p/_qutlass_C.so", "sm_100f"), "absent: sm_100f x1"),
        (library("p/_qutlass_C.so", "compute_100"), "jit: compute_100 x1"),
        (library("p/_qutlass_C.so"), "none: no device code"),
        (library("p/_qutlass_C.so", "?"), "unknown: unknown x1"),
    ],
)
def test_required_library_has_to_be_native(file: File, found: str) -> None:
    expected = replace(STATED, require=("*_qutlass_C*",), allow_ptx=("*",), allow_absent=("*",))
    findings = judged(file, library("p/b.so", "sm_120"), expected=expected)
    assert findings["device-required", "p/_qutlass_C.so"].severity == "error"
    assert findings["device-required", "p/_qutlass_C.so"].found == found


def test_required_library_has_to_be_there() -> None:
    files = library("p/b.so", "sm_120"), File(path="p/_qutlass_C.pyi", size=10)
    found = judged(*files, expected=replace(STATED, require=("*_qutlass_C*",)))
    assert {place: one.severity for place, one in found.items()} == {("device-required", ""): "error"}
    assert "*_qutlass_C*" in found["device-required", ""].found


def test_files_of_device_code_are_judged_by_folder() -> None:
    files = (
        cubin("p/k/a_90.cubin", "sm_90a"),
        cubin("p/k/a_120.cubin", "sm_120a"),
        cubin("p/k/a_121.cubin", "sm_121a"),
        cubin("p/old/a.cubin", "sm_90a"),
        cubin("p/old/b.cubin", "sm_100f"),
        cubin("p/one/c.cubin", "sm_90a"),
    )
    found = judged(*files)
    assert {place: one.severity for place, one in found.items()} == {
        ("device-partly", "p/k/*"): "info",
        ("device-absent", "p/old/*"): "warning",
        ("device-absent", "p/one/c.cubin"): "warning",
    }
    assert found["device-partly", "p/k/*"].found == "of 3 units 1 native, 1 dead, 1 absent"
    assert found["device-absent", "p/old/*"].found == "sm_90a x1, sm_100f x1"


def test_files_of_device_code_for_other_chips_refuse_no_wheel() -> None:
    files = cubin("p/k/a.cubin", "sm_90a"), cubin("p/k/b.cubin", "compute_103a")
    assert levels(*files) == {("device-absent", "p/k/*"): "warning"}
    assert levels(*files, expected=STATED) == {("device-absent", "p/k/*"): "error"}
    assert levels(*files, expected=replace(STATED, allow_absent=("p/k/*",))) == {("device-absent", "p/k/*"): "info"}


def test_relocatable_code_is_an_error_in_a_library_and_normal_in_an_object() -> None:
    loose = library("p/a.so", "sm_121a", section="__nv_relfatbin")
    assert levels(loose) == {("device-relocatable-only", "p/a.so"): "error"}
    thing = replace(loose, path="p/a.o", elf=Elf(machine="aarch64", bits=64, kind="object"))
    assert levels(thing) == {("device-relocatable-only", "p/a.o"): "info"}


def test_a_ptxas_that_knows_the_target_is_enough() -> None:
    old = assembler("ptxas", "12.8.93", "sm_90a", "sm_120a")
    new = assembler("ptxas-blackwell", "13.4.59", "sm_90a", "sm_120a", "sm_121a", "sm_121f")
    found = judged(old, new)
    assert found["ptxas-knows", "p/bin/ptxas-blackwell"].found == "ptxas-blackwell 13.4.59 knows sm_121a"
    assert ("ptxas-knows", "p/bin/ptxas") not in found
    assert not any(one.severity == "error" for one in found.values())


def test_a_ptxas_older_than_the_chip_is_refused() -> None:
    found = judged(assembler("ptxas", "12.8.93", "sm_90a", "sm_100a", "sm_120", "sm_120a"))
    assert {place: one.severity for place, one in found.items()} == {("ptxas-ignorant", "p/bin/ptxas"): "error"}
    assert found["ptxas-ignorant", "p/bin/ptxas"].found == "ptxas 12.8.93 knows targets up to sm_120a"
    assert levels(assembler("ptxas", "12.8.93", "sm_89"), target=Capability(8, 9)) == {
        ("ptxas-knows", "p/bin/ptxas"): "info",
        ("device-driver-floor", "p/bin/ptxas"): "info",
    }


def test_a_ptxas_that_tells_no_target_is_only_suspect() -> None:
    assert levels(assembler("ptxas", "")) == {("ptxas-ignorant", "p/bin/ptxas"): "warning"}
    assert levels(assembler("nvdisasm", "12.8.55", "sm_90a")) == {}


def versioned(path: str, *images: tuple[str, str]) -> File:
    """Return a library of one unit: its images, each with the version that it says."""
    found = tuple(replace(unit(word).images[0], version=version) for word, version in images)
    return replace(library(path), device=DeviceCode(units=(Unit(images=found, section=".nv_fatbin"),)))


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        ([("compute_80", "9.0")], "driver r580 or newer"),
        ([("compute_80", "8.8")], "driver r575 or newer"),
        ([("compute_80", "9.1")], "driver r590 or newer"),
        ([("compute_80", "8.4"), ("compute_120", "9.3")], "driver r610 or newer"),
        ([("compute_80", "99.0")], "a driver newer than r615"),
        ([("sm_121a", "13.5"), ("compute_120", "9.5")], "driver r580 or newer"),
        ([("sm_120", "12.9")], "driver r525 or newer"),
        ([("compute_80", "6.5")], ""),
        ([("compute_80", "")], ""),
        ([("sm_90a", "13.0")], ""),
    ],
)
def test_oldest_driver_follows_from_what_the_target_uses(images: list[tuple[str, str]], wanted: str) -> None:
    found = judged(versioned("p/a.so", *images)).get(("device-driver-floor", "p/a.so"))
    assert (found.wanted if found else "") == wanted


def test_oldest_driver_is_the_highest_that_any_file_asks_for() -> None:
    files = versioned("p/a.so", ("compute_80", "8.0")), versioned("p/b.so", ("compute_90", "9.2"))
    found = [one for place, one in judged(*files).items() if place[0] == "device-driver-floor"]
    assert [(one.file, one.found, one.wanted) for one in found] == [("p/b.so", "PTX ISA 9.2", "driver r595 or newer")]


words = st.sampled_from(
    ["sm_121a", "sm_120", "sm_120f", "sm_120a", "sm_90a", "compute_80", "compute_121a", "lto_120", "?"]
)
libraries = st.builds(
    lambda name, units, unknown, section: library(
        name, *(" ".join(one) for one in units), unknown=unknown, section=section
    ),
    st.sampled_from(["p/a.so", "p/b.so", "p/k/c.cubin", "p/k/d.cubin"]),
    st.lists(st.lists(words, max_size=3), max_size=3),
    st.sampled_from(["", "damaged"]),
    st.sampled_from([".nv_fatbin", "__nv_relfatbin", ".rodata", ""]),
)
patterns = st.lists(st.sampled_from(["*", "*a.so", "p/k/*", "none"]), max_size=2).map(tuple)
expectations = st.builds(Expected, stated=st.booleans(), require=patterns, allow_ptx=patterns, allow_absent=patterns)


@given(st.lists(libraries, max_size=4, unique_by=lambda file: file.path), expectations)
def test_a_recipe_only_adds_errors_that_it_asks_for(files: list[File], expected: Expected) -> None:
    """Allowing something never refuses more, and what nothing can excuse is the same with and without a recipe."""
    found = levels(*files, expected=expected)
    loose = levels(*files, expected=replace(expected, allow_ptx=("*",), allow_absent=("*",)))
    foreign = levels(*files)

    def errors(levels: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
        return {place for place, level in levels.items() if level == "error"}

    assert errors(loose) <= errors(found)
    always = {"device-dead", "device-nothing", "device-relocatable-only"}
    assert {one for one in errors(foreign) if one[0] in always} == errors(foreign)
    assert errors(foreign) <= errors(found)
    assert {one for one in errors(loose) if one[0] != "device-required"} == errors(foreign)


KERNEL = """
__global__ void NAME(float *x) { x[threadIdx.x] *= 2; }
extern "C" void launch_NAME(float *x) { NAME<<<1, 32>>>(x); }
"""


def nvcc() -> str:
    return shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"


def flags(words: str) -> list[str]:
    """Return what makes nvcc compile for ``sm_121a compute_90``."""
    return [f"-gencode=arch={word.replace('sm_', 'compute_')},code={word}" for word in words.split()]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., File]:
    """Return a function that compiles libraries, once each; `words` are the architectures of each of its sources."""
    folder, known = tmp_path_factory.mktemp("device"), dict[tuple[str, ...], Path]()

    def compiled(words: str, name: str, *more: str) -> Path:
        source, thing = folder / f"{name}.cu", folder / f"{name}-{'-'.join((*words.split(), *more))}.o"
        source.write_text(KERNEL.replace("NAME", name))
        if not thing.exists():
            call = [nvcc(), "-c", "-Xcompiler=-fPIC", *more, *flags(words), source.name, "-o", str(thing)]
            subprocess.run(call, check=True, cwd=folder, env={**os.environ, "TMPDIR": str(folder)})
        return thing

    def build(*words: str, name: str = "p/a.so", link: tuple[str, ...] = ("g++", "-shared"), rdc: bool = False) -> File:
        key = (*words, *link, str(rdc))
        if key not in known:
            more = ("-rdc=true",) if rdc else ()
            things = [str(compiled(one, f"k{number}", *more)) for number, one in enumerate(words)]
            known[key] = folder / f"{len(known)}.so"
            subprocess.run([*link, *things, "-o", str(known[key])], check=True, cwd=folder)
        path = known[key]
        with path.open("rb") as stream:
            return replace(examine(stream, path=name, size=path.stat().st_size), sha256=str(path))

    return build


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("words", "verdict", "foreign", "stated"),
    [
        (("sm_121a",), "native", {}, {}),
        (("sm_120a",), "dead", {"device-dead": "error", "device-nothing": "error"}, {}),
        (("sm_90a",), "absent", {"device-absent": "warning", "device-nothing": "error"}, {"device-absent": "error"}),
        (("compute_90",), "jit", {"device-jit": "warning"}, {"device-jit": "error"}),
        (("sm_121a", "sm_120a"), "native", {"device-dead": "error"}, {}),
    ],
)
def test_real_libraries_are_judged_right(
    built: Callable[..., File],
    words: tuple[str, ...],
    verdict: str,
    foreign: dict[str, str],
    stated: dict[str, str],
) -> None:
    file = built(*words)
    assert cover(file.device, SPARK).verdict == verdict
    for expected, wanted in ((Expected(), foreign), (STATED, {**foreign, **stated})):
        found = {slug: level for (slug, _), level in levels(file, expected=expected).items() if "floor" not in slug}
        assert found == wanted


@pytest.mark.cuda
def test_ptx_of_a_real_library_asks_for_the_driver_of_its_toolkit(built: Callable[..., File]) -> None:
    told = subprocess.run([nvcc(), "--version"], check=True, capture_output=True, text=True).stdout
    if "release 13.0," not in told:
        pytest.skip("needs nvcc 13.0")
    found = judged(built("compute_90"))["device-driver-floor", "p/a.so"]
    assert (found.found, found.wanted) == ("PTX ISA 9.0", "driver r580 or newer")


@pytest.mark.cuda
def test_real_relocatable_code_that_nobody_linked_does_not_import(built: Callable[..., File]) -> None:
    loose = built("sm_121a", rdc=True)
    assert levels(loose) == {("device-relocatable-only", "p/a.so"): "error"}
    with pytest.raises(OSError, match=r"undefined symbol: __cuda"):
        ctypes.CDLL(loose.sha256)
    linked = built("sm_121a", rdc=True, link=(nvcc(), "-shared", "-arch=sm_121a"))
    assert levels(linked) == {}
    ctypes.CDLL(linked.sha256)
