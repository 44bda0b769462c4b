"""Every way of compiling asks the gate: real build systems, the real launcher, a broker that writes down who asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.gate import hooks
from tests.hook_kit import CUDA, Recorder, Site, program, run, sha, stripped, write

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = {
    "src/a.c": "int a(void) { return 1; }\n",
    "src/b.cpp": "const char *where() { return __FILE__; }\nint b() { return 2; }\n",
    "src/k.cu": "__global__ void k(int *x) { x[threadIdx.x] = 3; }\nvoid launch(int *x) { k<<<1, 32>>>(x); }\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "tree")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(tmp_path / "gate") as recorder:
        yield recorder
    assert recorder.strange == []
    assert len(recorder.ends) == len(recorder.units)


def terms(**more: object) -> hooks.Terms:
    given: dict[str, object] = {
        "gate": Path("/run/spark-build"),
        "build": "b-1",
        "root": Path("/sb/tiny"),
        "links": Path("/sb/tiny/gate"),
        "env": {"PATH": "/sb/tiny/bin:/usr/bin", "CUDA_HOME": "/cuda"},
        "cores": 20,
    }
    return hooks.Terms(**(given | more))  # type: ignore[arg-type]


# The variables


def test_what_recipe_and_user_said_stays_and_the_last_word_is_ours() -> None:
    env = {
        "CMAKE_ARGS": "-DX=1 -DCMAKE_CXX_COMPILER_LAUNCHER=ccache",
        "TRITON_APPEND_CMAKE_ARGS": "-DTRITON_BUILD_UT=OFF",
    }
    made = hooks.variables(terms(env=env))
    for name, said in env.items():
        assert made[name].startswith(f"{said} ")
        assert made[name].split()[-6:] == [
            f"-DCMAKE_{language}_{step}_LAUNCHER=/sb/tiny/gate/spark-build-launch"
            for language in ("C", "CXX", "CUDA")
            for step in ("COMPILER", "LINKER")
        ]


def test_a_launcher_of_the_users_stays_behind_ours() -> None:
    env = {"CMAKE_CXX_COMPILER_LAUNCHER": "wrap", "FLASHINFER_NVCC_LAUNCHER": "wrap", "PYTORCH_NVCC": "/my/nvcc"}
    made = hooks.variables(terms(env=env | {"RUSTC_WRAPPER": "wrap", "CUDA_HOME": "/cuda"}))
    ours = "/sb/tiny/gate/spark-build-launch"
    assert made["CMAKE_CXX_COMPILER_LAUNCHER"] == f"{ours};wrap"
    assert made["FLASHINFER_NVCC_LAUNCHER"] == f"{ours} wrap"
    assert made["PYTORCH_NVCC"] == f"{ours} /my/nvcc"
    assert made["RUSTC_WRAPPER"] == "wrap"


def test_links_come_first_on_path_and_once() -> None:
    made = hooks.variables(terms(env={"PATH": "/venv/bin:/sb/tiny/gate:/usr/bin"}))
    assert made["PATH"] == "/sb/tiny/gate:/venv/bin:/usr/bin"


def test_the_queue_is_long_and_cargo_counts_cores() -> None:
    made = hooks.variables(terms(hook="make", jobs_env=("MAX_JOBS", "CARGO_BUILD_JOBS")))
    assert (made["MAX_JOBS"], made["CARGO_BUILD_JOBS"], made["MAKEFLAGS"]) == ("240", "20", "-j240")
    assert [hooks.many(cores) for cores in (1, 4, 20, 64)] == [64, 64, 240, 256]
    assert "MAKEFLAGS" not in hooks.variables(terms(hook="cmake"))
    assert [hooks.fallback_slots(gib << 30, 20) for gib in (2, 16, 128, 1024)] == [1, 2, 16, 20]


def test_only_compilers_that_are_there_get_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    real = ("gcc", "g++-13", "aarch64-linux-gnu-gcc", "clang++", "nvcc", "rustc")
    other = ("gcc-ar", "clang-format", "clang-tidy-17", "ld", "ccache", "ninja", "cmake", "cc1", "git")
    for name in (*real, *other):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    (folder / "clang").write_text("")  # not executable
    found = hooks.compilers([folder, tmp_path / "missing"])
    assert found == tuple(sorted(real))
    links = tmp_path / "links"
    for _again in range(2):
        hooks.make_links(links, Path("/bin/true"), found)
    assert {one.name for one in links.iterdir() if one.is_symlink()} == {*real, hooks.PROGRAM}
    assert (links / hooks.SLOTS).is_dir()


# The build systems


def cmake_project(site: Site, *, cuda: bool = False, more: str = "") -> None:
    languages = "C CXX CUDA" if cuda else "C CXX"
    sources = "a.c b.cpp k.cu" if cuda else "a.c b.cpp"
    text = (
        f"cmake_minimum_required(VERSION 3.24)\n{more}\nproject(tiny LANGUAGES {languages})\n"
        f"add_library(tiny SHARED {sources})\nset_target_properties(tiny PROPERTIES CUDA_ARCHITECTURES 121a-real)\n"
    )
    write(site.root, UNIT | {"src/CMakeLists.txt": text})


def configure_and_build(site: Site, env: dict[str, str], *words: str) -> None:
    cmake = shutil.which("cmake") or "cmake"
    run(cmake, "-G", "Ninja", "-S", ".", "-B", "build", *words, env=env, cwd=site.src)
    run(cmake, "--build", "build", "-j", "16", env=env, cwd=site.src)


def test_cmake(site: Site, gate: Recorder) -> None:
    cmake_project(site)
    configure_and_build(site, site.gated(gate.folder, hook="cmake"))
    assert gate.kinds() == {"c": 1, "cxx": 1, "link": 1}  # and none of what configure tries
    assert gate.sources() == {"a.c", "b.cpp"}


def test_cmake_whose_project_chooses_a_launcher_of_its_own(site: Site, gate: Recorder) -> None:
    cmake_project(site)
    real = {"CC": "/usr/bin/gcc", "CXX": "/usr/bin/g++"}  # no link on PATH catches these
    env = site.gated(gate.folder, hook="cmake", CMAKE_ARGS="-DTINY=1", cache=None, **real)
    own = ["-DCMAKE_C_COMPILER_LAUNCHER=env", "-DCMAKE_CXX_COMPILER_LAUNCHER=env"]
    configure_and_build(site, env, *own, *env["CMAKE_ARGS"].split())  # as vLLM's setup.py joins them
    assert gate.kinds() == {"c": 1, "cxx": 1, "link": 1}


@pytest.mark.cuda
def test_cmake_with_cuda(site: Site, gate: Recorder) -> None:
    cmake_project(site, cuda=True)
    configure_and_build(site, site.gated(gate.folder, hook="cmake"))
    assert gate.kinds()["cu"] == 1
    assert gate.kinds()["cxx"] == 1


def test_make_with_a_number_of_jobs_of_its_own(site: Site, gate: Recorder) -> None:
    objects = "a.o: a.c\n\t$(CC) -c -fPIC a.c\nb.o: b.cpp\n\t$(CXX) -c -fPIC b.cpp\n"
    makefile = f"all: a.o b.o\n\tg++ -shared -o tiny.so a.o b.o\n{objects}"
    write(site.root, UNIT)
    (site.src / "Makefile").write_text(makefile)
    run("make", "-j7", env=site.gated(gate.folder, hook="make"), cwd=site.src)
    assert gate.kinds() == {"c": 1, "cxx": 1, "link": 1}


def test_a_script_that_names_compilers_with_their_triplet(site: Site, gate: Recorder) -> None:
    name = f"{os.uname().machine}-linux-gnu-gcc"
    if not Path("/usr/bin", name).exists():
        pytest.skip(f"no {name}")
    write(site.root, UNIT)
    run("sh", "-c", f"{name} -c a.c && cc -c a.c -o b.o", env=site.gated(gate.folder), cwd=site.src)
    assert gate.kinds() == {"c": 2}


def test_setuptools(site: Site, gate: Recorder) -> None:
    setup = (
        "from setuptools import Extension, setup\n"
        "setup(name='tiny', version='1', ext_modules=[Extension('tiny', ['a.c', 'b.cpp'])], py_modules=[])\n"
    )
    write(
        site.root,
        UNIT | {"src/setup.py": setup, "src/a.c": "#include <Python.h>\nPyObject *PyInit_tiny(void) { return 0; }\n"},
    )
    pytest.importorskip("setuptools")
    run(sys.executable, "setup.py", "-q", "build_ext", env=site.gated(gate.folder, hook="setuptools"), cwd=site.src)
    kinds = gate.kinds()
    assert kinds.pop("link") == 1
    assert kinds == {"c": 1, "cxx": 1}


def test_cargo(site: Site, gate: Recorder) -> None:
    cargo = shutil.which("cargo")
    if cargo is None or subprocess.run([cargo, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no cargo, or one without a toolchain")
    package = 'version = "1.0.0"\nedition = "2021"\n'
    write(
        site.src,
        {
            "Cargo.toml": f'[package]\nname = "tiny"\n{package}[dependencies]\nother = {{ path = "other" }}\n',
            "src/main.rs": 'fn main() { println!("{}", other::one()); }\n',
            "other/Cargo.toml": f'[package]\nname = "other"\n{package}',
            "other/src/lib.rs": "pub fn one() -> i32 { 1 }\n",
        },
    )
    homes: dict[str, Any] = {"CARGO_HOME": str(Path.home() / ".cargo"), "RUSTUP_HOME": str(Path.home() / ".rustup")}
    env = site.gated(gate.folder, before=str(Path(cargo).parent), **homes)
    run(cargo, "build", "-q", "--offline", "-j", "5", env=env, cwd=site.src)
    assert gate.kinds() == {"rust": 2}


@pytest.fixture(scope="session")
def meson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with meson and ninja."""
    folder = tmp_path_factory.mktemp("meson")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", folder], check=True, capture_output=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", folder / "bin/python", "meson", "ninja"], check=True)
    return folder / "bin"


@pytest.mark.network
def test_meson(site: Site, gate: Recorder, meson: Path) -> None:
    write(site.root, UNIT)
    (site.src / "meson.build").write_text("project('tiny', 'c', 'cpp')\nshared_library('tiny', 'a.c', 'b.cpp')\n")
    env = site.gated(gate.folder, before=str(meson))
    run(meson / "meson", "setup", "build", env=env, cwd=site.src)
    gate.units.clear()
    gate.ends.clear()
    run(meson / "meson", "compile", "-C", "build", "-j", "9", env=env, cwd=site.src)
    assert gate.kinds() == {"c": 1, "cxx": 1, "link": 1}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.cuda
def test_torch_extension_with_a_kernel(site: Site, gate: Recorder, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    packages = ["torch==2.13.0", "numpy", "setuptools<82", "ninja"]
    subprocess.run([venv / "bin/pip", "install", "-q", *packages], check=True)
    setup = (
        "from setuptools import setup\n"
        "from torch.utils.cpp_extension import BuildExtension, CUDAExtension\n"
        "import torch.utils.cpp_extension as e\n"
        "import os\n"
        "e._check_cuda_version = lambda *a: None\n"  # the torch at hand was built without CUDA, and looks for none
        "e.CUDA_HOME = os.environ['CUDA_HOME']\n"
        "setup(name='tiny', version='1', ext_modules=[CUDAExtension('tiny', ['b.cpp', 'k.cu'])],"
        " cmdclass={'build_ext': BuildExtension})\n"
    )
    write(site.root, UNIT | {"src/setup.py": setup})
    env = site.gated(gate.folder, hook="setuptools", before=str(venv / "bin"), TORCH_CUDA_ARCH_LIST="12.1a")
    done = run(venv / "bin/python", "setup.py", "build_ext", env=env, cwd=site.src, code=None)
    kinds = gate.kinds()  # no word on the link: this torch has no libraries for CUDA
    assert (kinds.get("cxx"), kinds.get("cu")) == (1, 1), done.stdout + done.stderr


@pytest.mark.cuda
def test_flashinfer_style_ninja_with_launchers_before_absolute_compilers(site: Site, gate: Recorder) -> None:
    rules = (
        "rule cxx\n  command = $launch_cxx /usr/bin/g++ -MMD -MF $out.d -fPIC -c $in -o $out\n"
        "rule cu\n  command = $launch_cu $cuda/bin/nvcc -arch=sm_121a -c $in -o $out\n"
        "build b.o: cxx b.cpp\nbuild k.o: cu k.cu\n"
    )
    write(site.root, UNIT)
    env = site.gated(gate.folder, hook="flashinfer")
    names = (
        f"launch_cxx = {env['FLASHINFER_CXX_LAUNCHER']}\nlaunch_cu = {env['FLASHINFER_NVCC_LAUNCHER']}\ncuda = {CUDA}\n"
    )
    (site.src / "build.ninja").write_text(names + rules)
    run("ninja", "-j", "64", env=env, cwd=site.src)
    assert gate.kinds() == {"cu": 1, "cxx": 1}


# What it costs: nothing


def test_objects_are_the_same_with_the_gate_and_without(site: Site, gate: Recorder, tmp_path: Path) -> None:
    cmake_project(site)
    made = []
    for env in (
        site.plain(),
        site.gated(gate.folder, hook="cmake"),
        site.gated(gate.folder, hook="cmake", cache=tmp_path / "cache"),
        site.gated(gate.folder, hook="cmake", cache=tmp_path / "cache"),
    ):
        site.clean()
        configure_and_build(site, env, "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
        made.append(
            [sha(file) for file in sorted((site.src / "build").rglob("*.o"))] + [sha(site.src / "build/libtiny.so")]
        )
    assert made[0] == made[1] == made[2] == made[3]
    assert gate.kinds() == {"c": 2, "cxx": 2, "link": 3}  # two compiles of the last round came from the cache


@pytest.mark.cuda
def test_kernels_are_the_same_with_the_gate_and_without(site: Site, gate: Recorder, tmp_path: Path) -> None:
    write(site.root, UNIT)
    words = ["nvcc", "-arch=sm_121a", "-c", str(site.src / "k.cu"), "-MD", "-MF", "k.d", "-o"]
    run(*words, "plain.o", env=site.plain(), cwd=site.src)
    run(*words, "gated.o", env=site.gated(gate.folder), cwd=site.src)
    run(*words, "cached.o", env=site.gated(gate.folder, cache=tmp_path / "cache"), cwd=site.src)
    run(*words, "hit.o", env=site.gated(gate.folder, cache=tmp_path / "cache"), cwd=site.src)
    assert len({stripped(site.src / f"{name}.o", tmp_path) for name in ("plain", "gated", "cached", "hit")}) == 1
    assert gate.kinds() == {"cu": 2}  # and nothing for what nvcc starts


def test_a_system_header_is_seen_even_where_a_project_leaves_it_out(site: Site, gate: Recorder, tmp_path: Path) -> None:
    write(site.src, {"include/v.h": "#define V 1\n", "v.cpp": "#include <v.h>\nint v() { return V; }\n"})
    words = ["g++", "-MMD", "-isystem", "include", "-c", "v.cpp", "-o", "v.o"]
    env = site.gated(gate.folder, cache=tmp_path / "cache")
    run(*words, env=env, cwd=site.src)
    before = sha(site.src / "v.o")
    (site.src / "include" / "v.h").write_text("#define V 2\n")
    run(*words, env=env, cwd=site.src)
    assert sha(site.src / "v.o") != before
    assert gate.kinds() == {"cxx": 2}


def test_a_ccache_that_a_project_finds_steps_aside(site: Site, gate: Recorder, tmp_path: Path) -> None:
    write(site.root, UNIT)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ccache").symlink_to(Path(sys.executable).with_name("ccache"))
    env = site.gated(gate.folder, cache=tmp_path / "cache", before=str(tools))
    run("ccache", "gcc", "-c", "a.c", env=env, cwd=site.src)
    run("ccache", "gcc", "-c", "a.c", env=env, cwd=site.src)
    assert gate.kinds() == {"c": 1}
    records = (site.root / "ccache.log").read_text()
    assert (records.count("direct_cache_hit\n"), records.count("\ncache_miss\n")) == (1, 1)


def test_no_broker_is_no_failed_build(site: Site, tmp_path: Path) -> None:
    write(site.root, UNIT)
    run("gcc", "-c", "a.c", env=site.gated(tmp_path / "nobody"), cwd=site.src)
    assert (site.src / "a.o").exists()


def test_the_real_broker_lets_real_compilers_in(site: Site, tmp_path: Path) -> None:
    broker, folder = program("spark-build-broker"), tmp_path / "real"
    folder.mkdir()
    cmake_project(site)
    running = subprocess.Popen([broker, "--folder", folder, "--foreground", "--idle", "30"])
    try:
        configure_and_build(site, site.gated(folder, hook="cmake"))
    finally:
        running.terminate()
        running.wait(20)
    assert (site.src / "build" / "libtiny.so").exists()
