"""Linkage: what real libraries need, against the platform tag, the target, the wheel and what it requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.audit import linkage
from builder.values import replace
from tests import link_kit
from tests.link_kit import context, judged, library, linked, slugs, wheel

if TYPE_CHECKING:
    from pathlib import Path

#: pthread_create came to libc.so.6 with glibc 2.34; the C++ wait to libstdc++ with GCC 12.
THREADS = """
#include <pthread.h>
extern "C" int start(pthread_t *one, void *(*run)(void *)) { return pthread_create(one, nullptr, run, nullptr); }
"""
WAIT = """
#include <condition_variable>
void wait(std::condition_variable &one, std::unique_lock<std::mutex> &lock) { one.wait(lock); }
"""


@pytest.fixture(scope="module", params=link_kit.MACHINES)
def threads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """A machine, and a library for it that needs glibc 2.34."""
    folder = tmp_path_factory.mktemp("threads")
    return request.param, library(folder, "one.so", THREADS, machine=request.param).read_bytes()


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("manylinux_2_17_{}", "warning"),
        ("manylinux2014_{}", "warning"),
        ("manylinux_2_28_{}", "warning"),
        ("manylinux_2_28_{0}.manylinux_2_34_{0}", "warning"),
        ("manylinux_2_34_{}", None),
        ("manylinux_2_39_{}", None),
        ("linux_{}", "info"),
    ],
)
def test_the_tag_promises_no_older_glibc_than_the_files_need(
    tmp_path: Path, threads: tuple[str, bytes], platform: str, expected: str | None
) -> None:
    machine, data = threads
    found = judged(linkage.judge, wheel(tmp_path, {"ext/one.so": data}, tags=f"cp312-cp312-{platform.format(machine)}"))
    assert [(one.id, one.severity) for one in found] == ([("glibc-floor", expected)] if expected else [])
    for one in found:
        assert one.wanted == f"manylinux_2_34_{machine}"
        assert ("GLIBC_2.34" in one.found) == (expected == "warning")


def test_the_cpp_library_counts_as_well(tmp_path: Path) -> None:
    data = library(tmp_path, "one.so", WAIT, "-std=c++17").read_bytes()
    (one,) = judged(linkage.judge, wheel(tmp_path, {"ext/one.so": data}, tags="cp312-cp312-manylinux_2_28_x86_64"))
    assert (one.id, one.severity, one.file) == ("glibc-floor", "warning", "ext/one.so")
    assert "GLIBCXX_3.4.30" in one.found


def test_a_library_that_the_wheel_brings_sets_no_floor(tmp_path: Path) -> None:
    data = library(tmp_path, "one.so", WAIT, "-std=c++17", "-Wl,-rpath,$ORIGIN").read_bytes()
    own = linked("libstdc++.so.6")
    facts = wheel(tmp_path, {"ext/one.so": data, "ext/libstdc++.so.6": own}, tags="cp312-cp312-manylinux_2_34_x86_64")
    assert judged(linkage.judge, facts) == []


def test_the_target_has_the_glibc_that_the_files_need(tmp_path: Path, threads: tuple[str, bytes]) -> None:
    machine, data = threads
    facts = wheel(tmp_path, {"ext/one.so": data}, tags=f"cp312-cp312-manylinux_2_34_{machine}")
    (one,) = judged(linkage.judge, facts, context(glibc="2.31"))
    assert (one.id, one.severity, one.file) == ("glibc-target", "error", "ext/one.so")
    assert "GLIBC_2.34" in one.found
    assert "2.31" in one.wanted


def test_a_glibc_that_no_platform_has_yet(tmp_path: Path) -> None:
    script = tmp_path / "map"
    script.write_text("GLIBC_2.77 { global: future; };\n")
    libc = library(
        tmp_path,
        "libc.so.6",
        "int future(void) { return 1; }\n",
        "-nostdlib",
        f"-Wl,--version-script={script}",
        soname="libc.so.6",
        language="c",
    )
    source = "int future(void);\nint one(void) { return future(); }\n"
    data = library(tmp_path, "one.so", source, "-nostdlib", str(libc), language="c").read_bytes()
    floor, target = judged(linkage.judge, wheel(tmp_path, {"ext/one.so": data}))
    assert (floor.id, floor.severity, floor.wanted) == ("glibc-floor", "info", "manylinux_2_77_x86_64 or newer")
    assert (target.id, target.severity, target.found) == ("glibc-target", "error", "GLIBC_2.77")


@pytest.mark.parametrize(
    "name", ["libLLVM.so.19.1", "libfoo.so", "libpython3.12.so.1.0", "libtorchx.so", "libcudartx.so.13"]
)
def test_a_library_that_nothing_brings_is_named(tmp_path: Path, name: str) -> None:
    data = linked("one.so", name)
    (one,) = judged(linkage.judge, wheel(tmp_path, {"ext/a.so": data, "ext/b.so": data}, requires=["torch", "numpy"]))
    assert (one.id, one.severity, one.file) == ("needed-unknown", "error", "ext/a.so")
    assert one.found == f"{name}, and 1 more file like it"


@pytest.mark.parametrize(
    "name",
    [
        *("libc.so.6", "libstdc++.so.6", "ld-linux-aarch64.so.1", "libcuda.so.1", "libnvidia-ml.so.1"),
        *("libtorch_cuda.so", "libc10.so", "libcudart.so.13", "libcudnn.so.9", "libnccl.so.2", "libcublasLt.so.13"),
        *("libcusparseLt.so.0", "libtvm_ffi.so", "libz3.so.4.15"),
        *("libQt6Core.so.6", "libshiboken6.abi3.so.6.12"),
    ],
)
def test_libraries_of_the_system_the_driver_and_the_requirements_are_known(tmp_path: Path, name: str) -> None:
    facts = wheel(
        tmp_path,
        {"ext/a.so": linked("one.so", name)},
        requires=["torch", "apache-tvm-ffi>=0.1", "z3-solver", "PyQt6-Qt6", "shiboken6"],
    )
    assert judged(linkage.judge, facts) == []


def test_files_that_lack_the_same_are_told_together(tmp_path: Path) -> None:
    one, other = linked("a.so", "libx.so.1", "liby.so.1"), linked("b.so", "libx.so.1")
    found = judged(linkage.judge, wheel(tmp_path, {"e/a.so": one, "e/b.so": other, "e/c.so": one, "e/d.so": one}))
    assert [(each.file, each.found) for each in found] == [
        ("e/a.so", "libx.so.1, liby.so.1, and 2 more files like it"),
        ("e/b.so", "libx.so.1"),
    ]


def test_what_is_installed_may_have_parts_that_nobody_loads(tmp_path: Path, threads: tuple[str, bytes]) -> None:
    """The tag told an installer, which has done its work; a plugin for another system is never loaded."""
    machine, data = threads
    files = {"ext/a.so": linked("a.so", "libmpi.so.12", machine=machine), "ext/b.so": data}
    facts = wheel(tmp_path, files, tags=f"cp312-cp312-manylinux_2_17_{machine}")
    assert slugs(judged(linkage.judge, facts), "error") == ["needed-unknown"]
    assert slugs(judged(linkage.judge, replace(facts, filename="")), "warning") == ["glibc-floor", "needed-unknown"]


def test_a_library_may_be_of_the_wheel_itself_or_beside_it(tmp_path: Path) -> None:
    needing = linked("one.so", "libown.so.3")
    named = linked("libown.so.3")
    called = library(tmp_path, "x.so", "", "-nostdlib", soname="libown.so.3", language="c").read_bytes()
    assert judged(linkage.judge, wheel(tmp_path, {"ext/a.so": needing, "ext.libs/libown.so.3": named})) == []
    assert judged(linkage.judge, wheel(tmp_path, {"ext/a.so": needing, "ext/x.so": called})) == []
    other = wheel(tmp_path, {"other/lib/libown.so.3": named}, project="other")
    assert judged(linkage.judge, wheel(tmp_path, {"ext/a.so": needing}), context(other)) == []
    assert slugs(judged(linkage.judge, wheel(tmp_path, {"ext/a.so": needing}))) == ["needed-unknown"]


def test_a_library_of_a_system_package_is_told(tmp_path: Path) -> None:
    facts = wheel(tmp_path, {"ext/a.so": linked("one.so", "libnuma.so.1", "libibverbs.so.1")})
    found = judged(linkage.judge, facts)
    assert [(one.id, one.severity, one.found) for one in found] == [
        ("needed-system", "info", "libibverbs.so.1"),
        ("needed-system", "info", "libnuma.so.1"),
    ]
    assert "libnuma1" in found[1].wanted


def test_another_major_version_of_cuda_is_refused(tmp_path: Path) -> None:
    facts = wheel(tmp_path, {"ext/a.so": linked("one.so", "libcudart.so.12", "libcusparse.so.12")})
    (one,) = judged(linkage.judge, facts)
    assert (one.id, one.severity, one.file, one.wanted) == ("cuda-major", "error", "ext/a.so", "CUDA 13")
    assert one.found == "libcudart.so.12: CUDA 12"
    assert judged(linkage.judge, facts, context(cuda=12)) == []


def test_both_major_versions_in_one_wheel_are_told(tmp_path: Path) -> None:
    old, new = linked("a.so", "libcublas.so.12"), linked("b.so", "libnvrtc.so.13")
    (one,) = judged(linkage.judge, wheel(tmp_path, {"ext/a.so": old, "ext/b.so": new}))
    assert (one.file, one.found) == ("ext/a.so", "libcublas.so.12: CUDA 12, in a wheel for 12 and 13")


@pytest.mark.parametrize(
    ("requires", "version", "found"),
    [
        (["nvidia-cuda-runtime-cu12==12.9"], "1.0", "Requires-Dist: nvidia-cuda-runtime-cu12: CUDA 12"),
        ([], "1.0+cu129", "version 1.0+cu129: CUDA 12"),
        ([], "1.0+sb20260101000000.g0123456789.cu128", "version 1.0+sb20260101000000.g0123456789.cu128: CUDA 12"),
        (["nvidia-nccl-cu13"], "1.0+cu130", ""),
    ],
)
def test_requirements_and_version_tell_of_cuda_too(
    tmp_path: Path, requires: list[str], version: str, found: str
) -> None:
    facts = wheel(tmp_path, {"ext/a.so": linked("one.so")}, requires=requires, version=version)
    assert [one.found for one in judged(linkage.judge, facts) if one.id == "cuda-major"] == ([found] if found else [])


@pytest.mark.parametrize(
    ("rpath", "severity"),
    [
        ("$ORIGIN:$ORIGIN/../lib", None),
        ("${ORIGIN}/lib", None),
        ("/usr/local/cuda/lib64", "warning"),
        ("$ORIGIN:/home/me/build", "warning"),
        ("$ORIGIN:", "warning"),
        ("/tmp/build/lib", "error"),  # noqa: S108  # what the judge looks for
        ("/opt/../tmp/x", "error"),
        ("$ORIGINAL/lib", "warning"),
        ("$ORIGIN/../../nvidia/cu13/lib", None),
        ("$ORIGIN/../nvidia/cu13/lib", None),
        ("$ORIGIN/../../..", None),
        ("$ORIGIN/../../../../lib", None),
        ("$ORIGIN/../../../../opt/x", "warning"),
        ("$ORIGIN/../../../../../opt/x", "warning"),
        ("$ORIGIN/a/../../../../../../lib", "warning"),
        ("$ORIGIN/../../../../../../tmp/x", "error"),
    ],
)
@pytest.mark.parametrize("kind", ["--enable-new-dtags", "--disable-new-dtags"])
def test_a_fixed_search_path_is_told(tmp_path: Path, rpath: str, severity: str | None, kind: str) -> None:
    path = library(tmp_path, "one.so", "", "-nostdlib", f"-Wl,{kind}", f"-Wl,-rpath,{rpath}", language="c")
    found = judged(linkage.judge, wheel(tmp_path, {"ext/a.so": path.read_bytes()}))
    assert [(one.id, one.severity) for one in found] == ([("rpath-absolute", severity)] if severity else [])


@pytest.mark.parametrize(
    ("path", "rpath", "outside"),
    [
        ("ext-1.0.data/purelib/ext/a.so", "$ORIGIN/../../nvidia/lib", False),
        ("ext-1.0.data/platlib/ext/deep/a.so", "$ORIGIN/../../../../../../opt", True),
        ("ext-1.0.data/scripts/tool", "$ORIGIN/../lib", False),
        ("ext-1.0.data/scripts/tool", "$ORIGIN/../../lib", True),
        ("ext-1.0.data/data/lib/a.so", "$ORIGIN", False),
        ("a.so", "$ORIGIN/../../../../usr", True),
        ("deep/er/and/deep/er/a.so", "$ORIGIN/../../../../../x", False),
    ],
)
def test_how_far_up_is_outside_depends_on_where_the_file_goes(
    tmp_path: Path, path: str, rpath: str, *, outside: bool
) -> None:
    data = library(tmp_path, "one.so", "", "-nostdlib", f"-Wl,-rpath,{rpath}", language="c").read_bytes()
    assert slugs(judged(linkage.judge, wheel(tmp_path, {path: data}))) == ["rpath-absolute"] * outside


MUSL, GLIBC = "libc.musl-x86_64.so.1", "libc.so.6"


@pytest.mark.parametrize(
    ("platforms", "needed", "expected"),
    [
        ("musllinux_1_2_x86_64", [GLIBC], ["error"]),
        ("musllinux_1_2_x86_64", [MUSL], ["error"]),
        ("manylinux_2_28_x86_64", [MUSL], ["error"]),
        ("manylinux_2_28_x86_64", ["libc.so"], ["error"]),
        ("linux_x86_64", [MUSL], ["error"]),
        ("any", [MUSL], ["error"]),
        ("manylinux_2_28_x86_64", [GLIBC], []),
        ("linux_x86_64", [GLIBC], []),
        ("manylinux_2_28_x86_64.musllinux_1_2_x86_64", ["libm.so.6"], []),
        ("manylinux_2_28_x86_64.musllinux_1_2_x86_64", [GLIBC], ["warning"]),
        ("manylinux_2_28_x86_64", [GLIBC, MUSL], ["warning"]),
    ],
)
def test_glibc_and_musl_are_told_apart(tmp_path: Path, platforms: str, needed: list[str], expected: list[str]) -> None:
    files = {f"ext/{name}.so": linked(f"{name}.so", name) for name in needed}
    facts = wheel(tmp_path, files, tags=f"cp312-cp312-{platforms}")
    found = judged(linkage.judge, facts)
    assert [(one.id, one.severity) for one in found] == [("libc-differs", one) for one in expected]
    assert {one.severity for one in judged(linkage.judge, replace(facts, filename=""))} <= {"warning"}


@pytest.mark.parametrize(
    ("names", "severity"),
    [
        (["core4.so", "core5.so"], "warning"),
        (["libext_plugin.so"], "warning"),
        (["plugins/libdisk.so"], "warning"),
        (["libplugin_UCX.so", "libplugin_POSIX.so"], "warning"),
        (["transport_ucx.so.7", "transport_ib.so.7"], "warning"),
        (["liba.so"], "error"),
        (["_core.abi3.so", "_more.abi3.so"], "error"),
        (["core_4.cpython-312-x86_64-linux-gnu.so", "core_5.cpython-312-x86_64-linux-gnu.so"], "error"),
    ],
)
def test_one_of_several_plugins_may_want_what_is_not_there(tmp_path: Path, names: list[str], severity: str) -> None:
    files = {f"ext/{name}": linked(name, "libelsewhere.so.1") for name in names}
    found = judged(linkage.judge, wheel(tmp_path, files))
    assert [(one.id, one.severity) for one in found] == [("needed-unknown", severity)]


def test_what_only_plugins_need_is_as_optional_as_they_are(tmp_path: Path) -> None:
    lost = linked("libcore4.so", "libelsewhere.so.1")
    plugins = {f"ext/ops{one}.so": linked(f"ops{one}.so", f"libcore{one}.so") for one in (4, 5)}
    files = {**plugins, "ext/libcore4.so": lost, "ext/libcore5.so": linked("libcore5.so")}
    assert slugs(judged(linkage.judge, wheel(tmp_path, files)), "warning") == ["needed-unknown"]
    files["ext/_core.abi3.so"] = linked("_core.abi3.so", "libcore4.so")
    assert slugs(judged(linkage.judge, wheel(tmp_path, files)), "error") == ["needed-unknown"]


def test_libraries_for_several_versions_of_cuda_are_alternatives(tmp_path: Path) -> None:
    old = {f"ext/libext_cuda{one}.so": linked("a.so", f"libcublas.so.{one[:2]}") for one in ("118", "126")}
    new = {"ext/libext_cuda130.so": linked("b.so", "libcublas.so.13")}
    assert slugs(judged(linkage.judge, wheel(tmp_path, old)), "error") == ["cuda-major"] * 2
    assert judged(linkage.judge, wheel(tmp_path, {**old, **new})) == []


def test_a_tool_for_another_cuda_is_no_runtime_of_it(tmp_path: Path) -> None:
    facts = wheel(tmp_path, {"ext/__init__.py": b""}, requires=["nvidia-cutlass-dsl-libs-cu12"], tags="py3-none-any")
    assert judged(linkage.judge, facts) == []


ABI3 = "cp38-abi3-linux_x86_64"


def _extension(*symbols: str) -> bytes:
    source = "".join(f"extern void *{one}(void);\n" for one in symbols)
    calls = " ".join(f"{one}();" for one in symbols)
    return linked("ext.so", source=f"{source}void *PyInit_ext(void) {{ {calls} return 0; }}\n")


def test_symbols_outside_of_the_stable_abi_are_named(tmp_path: Path) -> None:
    data = _extension("PyUnicode_AsUTF8", "_PyObject_GC_New", "PyLong_FromLong", "_Py_Dealloc", "PyFoo_Bar")
    (one,) = judged(linkage.judge, wheel(tmp_path, {"ext/_core.abi3.so": data}, tags=ABI3))
    assert (one.id, one.severity, one.file) == ("abi3-violation", "error", "ext/_core.abi3.so")
    assert "PyFoo_Bar" in one.found
    assert "PyUnicode_AsUTF8" in one.found
    assert "PyLong_FromLong" not in one.found


def test_a_library_made_for_python_may_have_symbols_called_so(tmp_path: Path) -> None:
    """Shiboken exports functions such as PyDateTime_Get itself."""
    source = "extern void *PyDateTime_Get(void);\nvoid *PyInit_ext(void) { return PyDateTime_Get(); }\n"
    data = linked("ext.so", "libshiboken6.abi3.so.6.12", source=source)
    facts = wheel(tmp_path, {"ext/_core.abi3.so": data}, tags=ABI3, requires=["shiboken6==6.12"])
    assert [(one.id, one.severity) for one in judged(linkage.judge, facts)] == [("abi3-violation", "warning")]


@pytest.mark.parametrize(
    ("python", "severity"), [(">=3.8", "warning"), (">=3.10", "warning"), (">=3.11,<3.15", "info")]
)
def test_symbols_of_a_newer_python_than_the_tag(tmp_path: Path, python: str, severity: str) -> None:
    facts = wheel(
        tmp_path,
        {
            "ext/a.abi3.so": _extension("PyBuffer_Release", "PyLong_FromLong"),
            "ext/b.abi3.so": _extension("PyObject_GetBuffer"),
            "ext/c.abi3.so": _extension("PyLong_FromLong"),
        },
        python=python,
        tags=ABI3,
    )
    (one,) = judged(linkage.judge, facts)
    assert (one.id, one.severity, one.file) == ("abi3-floor", severity, "ext/a.abi3.so")
    assert one.found == "PyBuffer_Release of Python 3.11, in a wheel tagged cp38, and 1 more file like it"


def test_a_wheel_for_one_python_may_use_all_of_it(tmp_path: Path) -> None:
    data = _extension("PyUnicode_AsUTF8", "_PyObject_GC_New")
    name = "ext/_core.cpython-312-x86_64-linux-gnu.so"
    assert judged(linkage.judge, wheel(tmp_path, {name: data})) == []
    assert slugs(judged(linkage.judge, wheel(tmp_path, {"ext/_core.abi3.so": data}, tags=ABI3))) == ["abi3-violation"]


def test_a_wheel_without_elf_files_is_linked_to_nothing(tmp_path: Path) -> None:
    assert judged(linkage.judge, wheel(tmp_path, {"ext/__init__.py": b""}, tags="py3-none-any")) == []


def test_every_finding_has_its_rule() -> None:
    assert {rule.id for rule in linkage.RULES.values()} == set(linkage.RULES)
    assert {"glibc-floor", "needed-unknown", "cuda-major", "abi3-floor"} <= set(linkage.RULES)
