"""What a failed build is told by: real tools' words, the failing step, the unit's record."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder.events import UnitEnded
from builder.executor import failures
from builder.executor.diagnosis import UnitFacts, diagnose, failed, failed_unit, failing_step

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
NINJA = """\
[1/3] Building CUDA object a.cu.o
[2/3] Building CUDA object csrc/scaled_mm.cu.o
FAILED: [code=255] csrc/scaled_mm.cu.o
/usr/local/cuda/bin/nvcc -c /src/csrc/scaled_mm.cu -o csrc/scaled_mm.cu.o
nvcc error   : 'cicc' died due to signal 9 (Kill signal)
[3/3] Building CXX object b.cpp.o
FAILED: [code=1] b.cpp.o
g++ -c /src/b.cpp -o b.cpp.o
/src/b.cpp:1:1: error: 'x' does not name a type
ninja: build stopped: subcommand failed.
"""


def unit(name: str, **more: object) -> UnitEnded:
    values: dict[str, object] = {
        "name": name, "unit": f"csrc/{name}", "ok": False, "peak_bytes": 14 * GIB, "reserved_bytes": 7 * GIB,
        "ms": 1000, "wait_ms": 0, "attempts": 3, "code": 255, "beside": 6, "available_bytes": 2 * GIB, **more,
    }  # fmt: skip
    return UnitEnded(**values)  # type: ignore[arg-type]


def told(
    text: str,
    *,
    code: int = 1,
    units: tuple[UnitEnded, ...] = (),
    cut_off: bool = False,
    catalogue: Path = failures.CATALOGUE,
) -> str:
    error = failed(
        text.splitlines(),
        output="mylib",
        recipe="mylib",
        hook="build_wheel",
        code=code,
        ref="0123456789",
        cut_off=cut_off,
        units=units,
        catalogue=catalogue,
    )
    return "\n".join([f"{error.code}: {error.summary}", error.cause, error.help, *error.run])


def ran(*words: str, cwd: Path, **env: str) -> str:
    """What a real tool prints when it fails."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


def of(text: str, recipe: str = "mylib") -> str | None:
    found = diagnose(text.splitlines(), recipe=recipe)
    return found.id if found else None


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


# Real tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words", "name", "said"),
    [
        ("#include <no/such/thing.h>\n", ("g++", "-c", "a.cc"), "header-missing", "no/such/thing.h"),
        ("#include <Python.h>\n", ("g++", "-nostdinc", "-I.", "-c", "a.cc"), "python-headers-missing", "python3-dev"),
        ("#include <numa.h>\n", ("g++", "-nostdinc", "-I.", "-c", "a.cc"), "system-header-missing", "libnuma-dev"),
        ("#include <zlib.h>\n", ("g++", "-nostdinc", "-I.", "-c", "a.cc"), "system-header-missing", "zlib1g-dev"),
        ("#include <cuda_runtime.h>\n", ("g++", "-nostdinc", "-I.", "-c", "a.cc"), "cuda-header-missing", "cuda-cudart-dev"),
        ("#include <format>\n", ("g++", "-nostdinc", "-I.", "-nostdinc++", "-c", "a.cc"), "format-header-missing", "g++-13"),
        ("int main() {}\n", ("g++", "a.cc", "-lcuda"), "libcuda-not-found", "stubs"),
        ("int main() {}\n", ("g++", "a.cc", "-lnosuch"), "library-not-found", "libnosuch.so"),
        ("int f(); int main() { return f(); }\n", ("g++", "a.cc"), "undefined-at-link", "f()"),
        ("int f() { int x; return 0; }\n", ("g++", "-Wall", "-Werror", "-c", "a.cc"), "warnings-are-errors", "unused-va"),
        ("int main() {}\n", ("g++", "-std=c++99x", "-c", "a.cc"), "cxx-standard-unknown", "c++99x"),
    ],
)  # fmt: skip
def test_gcc_and_ld_are_understood(tmp_path: Path, source: str, words: tuple[str, ...], name: str, said: str) -> None:
    need("g++")
    if words[-1] == "-lcuda":  # a driver may be installed
        words = ("g++", "-nostdlib", f"--sysroot={tmp_path}", *words[1:])
    (tmp_path / "a.cc").write_text(source)
    text = ran(*words, cwd=tmp_path)
    found = diagnose(text.splitlines(), recipe="mylib")
    assert found is not None, text
    assert found.id == name
    assert said in "\n".join([found.summary, found.cause, found.help, *found.run])


@pytest.mark.cuda
@pytest.mark.parametrize("arch", ["compute_999a", "compute_121q"])
def test_an_architecture_that_nvcc_does_not_know(tmp_path: Path, arch: str) -> None:
    need("nvcc")
    (tmp_path / "k.cu").write_text("__global__ void k() {}\n")
    text = ran("nvcc", "-arch", arch, "-c", "k.cu", cwd=tmp_path)
    found = diagnose(text.splitlines(), recipe="vllm")
    assert found is not None
    assert found.id == "arch-unknown-to-nvcc"
    assert arch in found.summary


@pytest.mark.cuda
def test_what_ptxas_says(tmp_path: Path) -> None:
    need("ptxas")
    entry = ".version 9.0\n.target sm_121\n.address_size 64\n.visible .entry k() {\n .reg .f32 a;\n .reg .b8 c;\n"
    (tmp_path / "k.ptx").write_text(entry + " cvt.rn.satfinite.e2m1x2.f32 c, a, a;\n ret;\n}\n")
    assert of(ran("ptxas", "-arch=sm_121", "k.ptx", cwd=tmp_path)) == "instruction-needs-family-target"
    assert of(ran("ptxas", "-arch=sm_999", "k.ptx", cwd=tmp_path)) == "arch-unknown-to-ptxas"


@pytest.mark.cuda
def test_an_architecture_that_cmake_hands_to_nvcc(tmp_path: Path) -> None:
    need("cmake", "ninja", "nvcc")
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.20)\nproject(x LANGUAGES CUDA)\n")
    text = ran("cmake", "-B", "b", "-G", "Ninja", "-DCMAKE_CUDA_ARCHITECTURES=999", cwd=tmp_path)
    assert of(text) == "arch-unknown-to-nvcc"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("find_package(pybind11 REQUIRED)", "binding-header-missing"),
        ("find_package(NotThere REQUIRED)", "cmake-package-missing"),
        ("cmake_minimum_required(VERSION 3.9999)", "cmake-too-old"),
        ("no_such_command(x)", "cmake-command-removed"),
        ('message(FATAL_ERROR "GCC >= 13 is required to build vLLM with CUDA (found 12.2.0); so on")', "gcc-too-old"),
    ],
)  # fmt: skip
def test_cmake_is_understood(tmp_path: Path, text: str, name: str) -> None:
    need("cmake", "ninja")
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(x LANGUAGES NONE)\n{text}\n"
    )
    assert of(ran("cmake", "-B", "b", "-G", "Ninja", cwd=tmp_path)) == name


def test_ninja_names_the_step_and_the_missing_input(tmp_path: Path) -> None:
    need("ninja", "g++")
    (tmp_path / "a.cc").write_text("#include <numa.h>\n")
    (tmp_path / "build.ninja").write_text(
        "rule cc\n  command = g++ -nostdinc -I. -c $in -o $out\nbuild obj/a.o: cc a.cc\nbuild b.o: cc missing.cc\n"
    )
    text = ran("ninja", "obj/a.o", cwd=tmp_path)
    step = failing_step(text.splitlines())
    assert step.objects == ("obj/a.o",)
    assert step.source == "a.cc"
    assert of(text) == "system-header-missing"
    assert of(ran("ninja", "b.o", cwd=tmp_path)) == "input-missing"


def test_a_real_kill_is_told_as_one(tmp_path: Path) -> None:
    need("ninja", "make")
    (tmp_path / "build.ninja").write_text("rule k\n  command = kill -9 $$$$\nbuild a.o: k\n")
    (tmp_path / "Makefile").write_text("a.o:\n\tkill -9 $$$$\n")
    done = "subprocess.CalledProcessError: Command '['x']' returned non-zero exit status 137."
    assert of(ran("make", cwd=tmp_path)) == "step-killed"
    text = ran("ninja", cwd=tmp_path)
    if "[code=" not in text:  # an older ninja keeps the code to itself
        assert of(text) is None
        assert of(text + done) == "killed-silently"
        assert diagnose(text.splitlines(), recipe="mylib", codes=(137,)) is not None
    else:
        assert of(text) == "step-killed"


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    need("gcc")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        (tmp_path / "a.c").write_text("int a[100000] = {1};\n")
        text = ran("gcc", "-c", "a.c", "-o", "small/a.o", cwd=tmp_path)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert of(text) == "disk-full"
    assert "spark-build gc" in told(text)


@pytest.mark.root
def test_a_repository_of_somebody_else(tmp_path: Path) -> None:
    need("git")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    subprocess.run(["git", "init", "-q", str(tmp_path / "r")], check=True)
    os.chown(tmp_path / "r", 65534, 65534)
    os.chown(tmp_path / "r" / ".git", 65534, 65534)
    text = ran("git", "-C", "r", "describe", cwd=tmp_path, HOME=str(tmp_path))
    found = diagnose(text.splitlines(), recipe="mylib")
    assert found is not None
    assert found.id == "git-dubious-ownership"
    assert str(tmp_path / "r") in found.run[0]


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    text = ran(sys.executable, "-c", "import nosuchmodule", cwd=tmp_path)
    found = diagnose(text.splitlines(), recipe="mylib")
    assert found is not None
    assert found.id == "build-module-missing"
    assert found.run == ("spark-build recipe mylib --set 'build.requires-add=[\"nosuchmodule\"]'",)


# Which lines count -------------------------------------------------------------------------------------------------


def test_the_first_failing_step_is_what_is_diagnosed() -> None:
    step = failing_step(NINJA.splitlines())
    assert step.objects == ("csrc/scaled_mm.cu.o",)
    assert step.code == 255
    assert of(NINJA) == "compiler-killed"


def test_a_compilers_own_word_is_not_explained_by_another_line() -> None:
    log = "cicc: Exec format error\nFAILED: b.o\ng++ -c b.cc\nb.cc:1:1: error: 'x' does not name a type\n"
    assert of(log) is None
    assert of(log.replace("b.cc:1:1: error: 'x' does not name a type", "it failed")) == "wrong-machine"


def test_a_cause_before_the_news_of_it_is_found() -> None:
    log = (
        "cicc: Exec format error\n"
        + "x\n" * 50
        + 'Traceback (most recent call last):\n  File "s.py", line 1\nRuntimeError: no\n'
    )
    assert of(log) == "wrong-machine"


def test_a_bare_exit_code_is_a_kill_only_when_nothing_was_said() -> None:
    lines = ["[1/2] one", "[2/2] two"]
    assert diagnose(lines, recipe="mylib") is None
    for code in (137, 143, -9):
        found = diagnose(lines, recipe="mylib", codes=(code,))
        assert found is not None
        assert found.id == "killed-silently"
    assert diagnose(["a.cc:1:1: error: no"], recipe="mylib", codes=(137,)) is None


def test_a_crash_is_judged_by_what_ran_beside_it() -> None:
    line = ["nvcc error   : 'cicc' died due to signal 11 (Invalid memory reference)"]
    alone = diagnose(line, recipe="vllm", unit=UnitFacts(name="a.cu"))
    crowded = diagnose(line, recipe="vllm", unit=UnitFacts(name="a.cu", beside=2))
    assert alone is not None
    assert crowded is not None
    assert (alone.id, crowded.id) == ("compiler-crashed", "compiler-crashed-crowded")


def test_an_entry_of_another_recipe_or_phase_does_not_answer() -> None:
    line = ["RuntimeError: Cannot find ptxas"]
    assert of(line[0], "vllm") is None
    assert of(line[0], "triton") == "ptxas-not-bundled"
    gone = ["RuntimeError: CUDA error: no kernel image is available for execution on the device"]
    assert diagnose(gone, recipe="vllm") is None
    for phase in ("use", ""):
        assert diagnose(gone, recipe="vllm", phase=phase) is not None


def test_colours_do_not_hide_a_signature() -> None:
    assert (
        of("\x1b[1m\x1b[Knvcc fatal\x1b[0m   : Unsupported gpu architecture 'compute_121a'") == "arch-unknown-to-nvcc"
    )


# The unit ----------------------------------------------------------------------------------------------------------


def test_the_record_is_that_of_the_step_that_failed_first() -> None:
    records = (unit("b.cpp"), unit("scaled_mm.cu", ok=True, peak_bytes=1), unit("scaled_mm.cu"), unit("other.cu"))
    found = failed_unit(NINJA.splitlines(), records)
    assert found is not None
    assert found.name == "scaled_mm.cu"
    assert found.peak_bytes == 14 * GIB
    assert failed_unit(NINJA.splitlines(), (unit("other.cu"),)) is None
    assert failed_unit(["it failed"], records) == failed_unit(["it failed"], (unit("b.cpp"),))
    assert failed_unit(["it failed"], ()) is None


@pytest.mark.parametrize(
    ("record", "path", "same"),
    [
        ({"name": "scaled_mm.cu", "unit": "csrc/scaled_mm.cu"}, "CMakeFiles/_C.dir/csrc/scaled_mm.cu.o", True),
        ({"name": "mm.cu → CMakeFiles/_C.dir/csrc/mm.cu.o", "unit": ""}, "CMakeFiles/_C.dir/csrc/mm.cu.o", True),
        ({"name": "link", "unit": "_C.abi3.so"}, "_C.abi3.so", True),
        ({"name": "a.cu", "unit": "one/a.cu"}, "two/a.cu.o", True),
        ({"name": "b.cu", "unit": "one/b.cu"}, "one/a.cu.o", False),
        ({"name": "", "unit": ""}, "a.o", False),
    ],
)  # fmt: skip
def test_a_record_is_known_by_its_paths(record: dict[str, str], path: str, *, same: bool) -> None:
    found = failed_unit([f"FAILED: [code=1] {path}", "cc"], (unit(**record),))
    assert (found is not None) is same


def test_the_screen_says_what_the_unit_took() -> None:
    text = told(NINJA, units=(unit("scaled_mm.cu"),))
    assert text.startswith(
        "compiler-killed: the build of mylib failed at scaled_mm.cu: a compiler was killed for memory (cicc)"
    )
    assert (
        "scaled_mm.cu needed 14.0 GiB (7.0 GiB were reserved); it was tried 3 times; 6 others ran; 2.0 GiB were" in text
    )
    assert "nvcc error   : 'cicc' died due to signal 9" in text
    assert text.endswith("spark-build resume 0123456789\nspark-build log 0123456789 --failed")


def test_a_mistake_in_a_source_says_nothing_of_memory() -> None:
    log = "FAILED: [code=1] a.o\ng++ -c a.cc\na.cc:1:1: error: 'x' does not name a type\nninja: build stopped\n"
    text = told(log, units=(unit("a.cc", attempts=1, code=1),))
    assert text.startswith("build-failed: the build of mylib failed in build_wheel at a.cc (exit 1)")
    assert "GiB" not in text
    assert "needed" in told(log, units=(unit("a.cc", attempts=2, code=1),))


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (UnitFacts(name="a.cu"), ""),
        (UnitFacts(name="a.cu", peak_bytes=GIB), "a.cu needed 1.0 GiB; nothing else ran"),
        (
            UnitFacts(name="a.cu", peak_bytes=GIB, beside=1, available_bytes=GIB),
            "a.cu needed 1.0 GiB; one other ran; 1.0 GiB were available at its end",
        ),
        (UnitFacts(name="a.cu", attempts=2), "it was tried 2 times"),
    ],
)
def test_only_known_figures_are_told(facts: UnitFacts, line: str) -> None:
    assert facts.told() == line


# The error ---------------------------------------------------------------------------------------------------------


def test_the_line_that_tells_the_cause_is_quoted() -> None:
    log = (
        "cicc: Exec format error\n"
        + "x\n" * 50
        + 'Traceback (most recent call last):\n  File "s.py", line 1\nRuntimeError: no\n'
    )
    text = told(log)
    assert "RuntimeError: no" in text
    assert "cicc: Exec format error" in text


def test_the_network_is_told_when_there_is_none() -> None:
    log = "fatal: unable to access 'https://github.com/x/': Could not resolve host: github.com\n"
    text = told(log, cut_off=True)
    assert text.startswith("network-reached: the build of mylib reached for the network: https://github.com/x/")
    assert told(log).startswith("clone-failed: ")


def test_without_a_diagnosis_the_error_is_told_as_ever() -> None:
    assert told("it failed\n", code=2).startswith("build-failed: the build of mylib failed in build_wheel (exit 2)")
    assert "(killed by signal 11)" in told("it failed\n", code=139)


@pytest.mark.parametrize("damage", ["", "[[failure]]\nid = 3\n", "[[failure", "\0", None])
def test_a_damaged_catalogue_hides_no_error(tmp_path: Path, damage: str | None) -> None:
    file = tmp_path / "failures.toml"
    if damage is not None:
        file.write_text(damage)
    text = told("cc1plus: fatal error: a.c: No such file or directory\n", catalogue=file)
    assert text.startswith("build-failed: ")
    assert "a.c: No such file" in text
    assert "the catalogue of failures can't be read" in text
