"""What the launcher makes of real command lines."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.launch_kit import Place, built

if TYPE_CHECKING:
    from pathlib import Path

NVCC = "nvcc --generate-dependencies-with-compile --dependency-output a.o.d -std=c++17 --threads=4 -O3"
TORCH = "nvcc -Iinc -isystem /t/include -DTORCH_EXTENSION_NAME=m --expt-relaxed-constexpr --compiler-options -fPIC"
ONE, TWO = "-gencode=arch=compute_121a,code=sm_121a", "-gencode=arch=compute_90,code=sm_90"
RUSTC = "rustc --crate-name serde --edition=2021 src/lib.rs --crate-type lib --emit=dep-info,metadata,link"

#: command, action, kind, source (None: none), object, slots, goes to the cache
LINES: list[tuple[str, str, str, str, str, int, bool]] = [
    (f"{NVCC} {ONE} -c csrc/a.cu -o fused/a.cuda.o", "compile", "cu", "csrc/a.cu", "fused/a.cuda.o", 1, True),
    (f"{NVCC} {ONE} {TWO} -c csrc/a.cu -o a.cuda.o", "compile", "cu", "csrc/a.cu", "a.cuda.o", 2, True),
    (f"{TORCH} -MD -MF a.d {ONE} -t 8 --split-compile 3 -c a.cu -o a.o", "compile", "cu", "a.cu", "a.o", 3, True),
    (
        "nvcc -forward-unknown-to-host-compiler -x cu -rdc=true -c a.cpp -o a.o",
        "compile",
        "cu",
        "a.cpp",
        "a.o",
        1,
        True,
    ),
    ("nvcc -dc a.cu", "compile", "cu", "a.cu", "a.o", 1, True),
    ("nvcc -cubin -odir out x/a.cu", "compile", "cu", "x/a.cu", "out/a.cubin", 1, True),
    ("nvcc -dlink a.o b.o -o d.o", "link", "link", "", "d.o", 1, False),
    ("nvcc a.cu -o prog", "compile", "cu", "a.cu", "prog", 1, False),
    ("nvcc --dryrun -c a.cu", "run at once", "cu", "a.cu", "a.o", 1, False),
    ("nvcc --version", "run at once", "other", "", "a.out", 1, False),
    ("nvcc -E a.cu -o a.ii", "run at once", "cu", "a.cu", "a.ii", 1, False),
    ("g++ -MD -MT a.o -MF a.o.d -c ../a.cpp -o a.o", "compile", "cxx", "../a.cpp", "a.o", 1, True),
    ("aarch64-linux-gnu-g++-13 -I/x -D A=1 -include b.h -c a.cc", "compile", "cxx", "a.cc", "a.o", 1, True),
    ("x86_64-linux-gnu-gcc -Wno-unused-result -fPIC -c m.c -o build/m.o", "compile", "c", "m.c", "build/m.o", 1, True),
    ("g++ -c a.c", "compile", "cxx", "a.c", "a.o", 1, True),
    ("gcc -S a.c", "compile", "c", "a.c", "a.s", 1, True),
    ("clang++-17 -c a.cu --cuda-gpu-arch=sm_90 -o a.o", "compile", "cu", "a.cu", "a.o", 1, True),
    ("g++ -aux-info a.X -c a.cc -o a.o", "compile", "cxx", "a.cc", "a.o", 1, False),
    ("gcc -fdump-tree-optimized=a.txt -c a.c", "compile", "c", "a.c", "a.o", 1, False),
    ("nvcc -Xcompiler -fPIC,-fdump-tree-all -c a.cu", "compile", "cu", "a.cu", "a.o", 1, False),
    ("nvcc --time t.csv -c a.cu", "compile", "cu", "a.cu", "a.o", 1, False),
    ("gcc -c a.S -o a.o", "compile", "other", "a.S", "a.o", 1, False),
    ("gcc -c a.c b.c", "compile", "c", "a.c", "a.o", 1, False),
    ("gcc a.c -o prog -lm", "compile", "c", "a.c", "prog", 1, False),
    ("c++ -shared -Wl,-rpath,/x a.o b.o -L/y -lc10 -o lib/_C.so", "link", "link", "", "lib/_C.so", 1, False),
    ("gcc -flto=4 a.o -o a", "link", "link", "", "a", 4, False),
    ("ld.lld -shared a.o -o a.so", "link", "link", "", "a.so", 1, False),
    ("gcc -MM a.c", "run at once", "c", "a.c", "a.out", 1, False),
    ("gcc -dumpmachine", "run at once", "other", "", "a.out", 1, False),
    ("gcc -print-file-name=libc.so", "run at once", "other", "", "a.out", 1, False),
    ("gcc -c conftest.c", "run at once", "c", "conftest.c", "conftest.o", 1, False),
    ("gcc -c /b/meson-private/t.c -o x.o", "run at once", "c", "/b/meson-private/t.c", "x.o", 1, False),
    ("cc CMakeFiles/cmTC_12.dir/t.c.o -o cmTC_12", "run at once", "other", "", "cmTC_12", 1, False),
    (f"{RUSTC} --out-dir t/deps -C metadata=1", "compile", "rust", "src/lib.rs", "t/deps/serde", 1, False),
    ("rustc -vV", "run at once", "other", "", "", 1, False),
    ("rustc - --crate-name ___ --print=file-names", "run at once", "rust", "-", "./___", 1, False),
    ("cmake -E touch a.c", "run at once", "other", "", "", 1, False),
    ("gcc-ar-12 qc a.a a.o", "run at once", "other", "", "", 1, False),
]

#: What goes to the cache, by what was written.
REWRITES = [
    ("gcc -MMD -MF a.d -c a.c", "gcc -MD -MF a.d -c a.c"),
    ("gcc -Wp,-MMD,a.d -c a.c", "gcc -Wp,-MD,a.d -c a.c"),
    ("gcc -D -MMD -c a.c", "gcc -D -MMD -c a.c"),
    ("nvcc -MMD -c a.cu", "nvcc -MD -c a.cu"),
    ("nvcc -Xcompiler -fPIC -c a.cu", "nvcc -Xcompiler=-fPIC -c a.cu"),
    ("nvcc -Xcompiler -mfma,-fPIC -c a.cu", "nvcc -Xcompiler=-mfma,-fPIC -c a.cu"),
    ("nvcc -Xcompiler '-DX=\"a b\"' -c a.cu", "nvcc '-Xcompiler=-DX=\"a b\"' -c a.cu"),
    ("nvcc --compiler-options -MMD -c a.cu", "nvcc --compiler-options=-MMD -c a.cu"),
    ("nvcc -Xcompiler=-fPIC -c a.cu", "nvcc -Xcompiler=-fPIC -c a.cu"),
    (f"nvcc --threads 4 {ONE} -c a.cu", f"nvcc {ONE} -c a.cu"),
    (f"nvcc -t=4 {ONE} -t2 -c a.cu", f"nvcc {ONE} -c a.cu"),
    (f"nvcc --threads 4 {ONE} {TWO} -c a.cu", f"nvcc --threads 4 {ONE} {TWO} -c a.cu"),
    ("nvcc -arch=all --threads=4 -c a.cu", "nvcc -arch=all --threads=4 -c a.cu"),
    ("nvcc -Xcompiler -fPIC a.o -o a.so", "nvcc -Xcompiler -fPIC a.o -o a.so"),
]


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, sanitized=True)


@pytest.fixture
def place(launcher: Path, tmp_path: Path) -> Place:
    return Place(launcher, tmp_path)


def flags(place: Place, line: str) -> str:
    return place.explain(*shlex.split(line))["flags"]


def test_real_command_lines_are_understood(place: Place) -> None:
    for line, action, kind, source, object_, slots, cache in LINES:
        found = place.explain(*shlex.split(line))
        shown = "link" if action == "link" else kind
        wanted = (action, shown, object_, str(slots), "yes" if cache else "no")
        assert (found["action"], found["kind"], found["object"], found["slots"], found["cache"]) == wanted, line
        assert found["source"].endswith(source.removeprefix("../").removeprefix("src/")), line


@pytest.mark.parametrize(("written", "sent"), REWRITES)
def test_command_is_rewritten_for_the_cache(place: Place, written: str, sent: str) -> None:
    assert place.rewritten(*shlex.split(written)) == shlex.split(sent)


def test_response_files_are_read_and_replaced_only_where_needed(place: Place) -> None:
    place.write("a.rsp", "-O2 -D'A B' -I\"/x y\" -c a.c\n-o\tb\\ c.o")
    found = place.explain("gcc", "@a.rsp")
    assert (found["object"], found["command"]) == ("b c.o", "gcc @a.rsp")
    place.write("b.rsp", "@a.rsp -MMD")
    assert place.rewritten("gcc", "@b.rsp") == ["gcc", "-O2", "-DA B", "-I/x y", "-c", "a.c", "-o", "b c.o", "-MD"]
    place.write("c.rsp", "-c a.cu @c.rsp")
    assert place.explain("nvcc", "--options-file", "c.rsp")["source"].endswith("a.cu")
    assert place.explain("gcc", "@none.rsp", "-c", "a.c")["action"] == "compile"


def test_long_response_file_stays_one_and_goes_past_the_cache(place: Place) -> None:
    long = " ".join(f"-DNAME_{number}=1" for number in range(10_000))
    place.write("a.rsp", f"-O2 {long} -c a.c -o a.o")
    found = place.explain("gcc", "@a.rsp")
    assert (found["command"], found["cache"]) == ("gcc @a.rsp", "yes")  # nothing has to be changed
    place.write("b.rsp", f"-MMD @{place.tree}/a.rsp")
    found = place.explain("gcc", "@b.rsp")
    assert (found["command"], found["cache"], found["source"]) == ("gcc @b.rsp", "no", "a.c")
    found = place.explain("gcc", "-MMD", *long.split(), "-c", "a.c", "-o", "a.o")  # was no longer than it is
    assert found["cache"] == "yes"
    assert found["command"].startswith("gcc -MD -DNAME_0=1 ")


def test_digest_is_of_what_changes_the_work(place: Place) -> None:
    first = flags(place, f"gcc -O2 -DN=1 -c {place.tree}/a.c -o x.o")
    for alike in ("gcc -O2 -DN=1 -c b.c -o y.o -MD -MF z.d -I/elsewhere", "gcc -O2 -DN=1 -DVERSION=1.2 -DX=9.1 -c b.c"):
        assert flags(place, alike) == first
    for other in ("gcc -O3 -DN=1 -c a.c", "gcc -O2 -DN=2 -c a.c", "g++ -O2 -DN=1 -c a.c", "gcc -DN=1 -O2 -g -c a.c"):
        assert flags(place, other) != first
    assert flags(place, f"nvcc -t 4 {ONE} -c a.cu") == flags(place, f"nvcc {ONE} -c a.cu")


WORDS = st.one_of(
    st.sampled_from(
        ["-c", "-o", "a.cu", "a.o", "-MMD", "-Xcompiler", "-x", "cu", "-t", "--threads", "@a", "-", "-I", ONE]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["gcc", "g++", "nvcc", "rustc", "ld", "ccache"]), st.lists(WORDS, max_size=12))
def test_any_words_are_survived_and_none_is_lost(place: Place, compiler: str, words: list[str]) -> None:
    found = place.explain(compiler, *words)
    if found["cache"] == "no" and compiler != "ccache":
        assert shlex.split(found["command"]) == [compiler, *words]
