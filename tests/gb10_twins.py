"""The good wheel's twins, each a real wheel. The bad ones differ in one thing, and are refused for it."""

from __future__ import annotations

import stat
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.audit.context import Expected
from tests import wheel_kit
from tests.gb10_kit import CORE, HOST_SUFFIX, INFO, PYTHON, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.audit.target import Verdict
    from tests.gb10_kit import Kit

REQUIRE = Expected(stated=True, require=("gb10ext/_core*.so",))
ALLOW_PTX = Expected(stated=True, allow_ptx=("gb10ext/_core*.so",))
AARCH64 = f"{PYTHON}-{PYTHON}-linux_aarch64"
MODERN = f"{PYTHON}-{PYTHON}-manylinux_2_34_aarch64"
OLD = f"{PYTHON}-{PYTHON}-manylinux_2_17_aarch64"


@dataclass(frozen=True, kw_only=True)
class Twin:
    """How a wheel is made, and the finding that it's refused for; a good one has none.

    `also` are findings that can't be had apart from it; `verdict` is what a good one offers as a whole.
    `torch` is the miniature torch that it's audited against. `stated` is what a recipe would say about it.
    """

    name: str
    make: Callable[[Kit, Path], Path]
    finding: str = ""
    also: tuple[str, ...] = ()
    verdict: Verdict = "native"
    stated: Expected = field(default_factory=Expected)
    torch: str = ""


# --- other device code


def code(*codes: str, **more: object) -> Callable[[Kit, Path], Path]:
    """Return the maker of a wheel whose module is compiled for `codes`."""
    return lambda kit, folder: kit.with_core(folder, kit.library(*codes, **more))  # type: ignore[arg-type]


def beside_hopper(kit: Kit, folder: Path) -> Path:
    """A second library, for another GPU: other people's wheels have such."""
    return kit.twin(folder, more={"gb10ext/_hopper.so": kit.library("sm_90a")})


def unreadable(kit: Kit, folder: Path) -> Path:
    """The magic number of its only fat binary is overwritten."""
    magic = (0xBA55ED50).to_bytes(4, "little")
    library = kit.library("sm_121a")
    assert library.count(magic) == 1
    return kit.with_core(folder, library.replace(magic, b"what"))


def never_linked(kit: Kit, folder: Path) -> Path:
    """Relocatable device code, put into a library by a linker that knows nothing of it."""
    runtime = ("-Wl,-z,lazy", "-lcudadevrt", "-lcudart_static", "-lrt", "-lpthread", "-ldl")
    return kit.with_core(folder, kit.library("sm_121a", flags=("-rdc=true",), link=runtime))


# --- other host code


def host_elf(kit: Kit, folder: Path) -> Path:
    return kit.with_core(folder, kit.library("sm_121a", host=True))


def hidden_elf(kit: Kit, folder: Path) -> Path:
    """A library of this machine under a name that tells nothing."""
    return kit.twin(folder, more={"gb10ext/weights.bin": kit.library("sm_121a", host=True)})


def newer_library(kit: Kit, folder: Path) -> Path:
    """It waits on a condition variable, which is in libstdc++ since GCC 12."""
    source = """
        #include <condition_variable>
        void wait(std::condition_variable &on, std::unique_lock<std::mutex> &held) { on.wait(held); }
    """
    library = kit.compiled("waits.so", source)
    return kit.twin(folder, more={"gb10ext/libwaits.so": library.read_bytes()}, tag=MODERN)


def host_suffix(kit: Kit, folder: Path) -> Path:
    library = kit.members()[CORE]
    return kit.twin(folder, without=[CORE], more={f"gb10ext/_core{HOST_SUFFIX}": library})


def host_program(kit: Kit, folder: Path) -> Path:
    """A tool of this machine beside the target's library."""
    program = kit.compiled("tool", "int main() { return 0; }", ["-pie"], host=True)
    return kit.twin(folder, more={"gb10ext/bin/tool": program.read_bytes()})


def truncated_elf(kit: Kit, folder: Path) -> Path:
    return kit.with_core(folder, kit.members()[CORE][:30_000])


def needing(soname: str, **more: object) -> Callable[[Kit, Path], Path]:
    """Return the maker of a wheel whose second library needs `soname`."""

    def make(kit: Kit, folder: Path) -> Path:
        stub = kit.compiled(f"stubs/{soname}", 'extern "C" int brought() { return 1; }', [f"-Wl,-soname,{soname}"])
        source = 'extern "C" int brought(); extern "C" int wants() { return brought(); }'
        user = kit.compiled(f"stubs/wants-{soname}", source, [str(stub)])
        return kit.twin(folder, more={"gb10ext/libwants.so": user.read_bytes()}, **more)  # type: ignore[arg-type]

    return make


def shared_runtime(*headers: str) -> Callable[[Kit, Path], Path]:
    def make(kit: Kit, folder: Path) -> Path:
        library = kit.library("sm_121a", link=("-lcudart",))
        return kit.twin(folder, more={CORE: library}, headers=headers)

    return make


def rpath(place: str) -> Callable[[Kit, Path], Path]:
    """Return the maker of a wheel whose module looks for the declared runtime in `place`."""

    def make(kit: Kit, folder: Path) -> Path:
        library = kit.library("sm_121a", link=("-lcudart", f"-Wl,-rpath,{place}"))
        return kit.twin(folder, more={CORE: library}, headers=["Requires-Dist: nvidia-cuda-runtime"])

    return make


ABI3 = """
#include <Python.h>
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "limited", nullptr, -1, nullptr};
PyMODINIT_FUNC PyInit_limited() {
  %s
  return PyModule_Create(&definition);
}
"""


def abi3(statement: str, *, name: str) -> Callable[[Kit, Path], Path]:
    """Return the maker of a wheel for every Python from 3.11 on, whose second module executes `statement`."""

    def make(kit: Kit, folder: Path) -> Path:
        file = kit.compiled(f"abi3-{name}.so", ABI3 % statement)
        more = {"gb10ext/limited.abi3.so": file.read_bytes(), "gb10ext/__init__.py": b""}
        return kit.twin(folder, without=[CORE], more=more, tag="cp311-abi3-linux_aarch64")

    return make


TORCH = "namespace at {{ {declared} }}"
USES_TORCH = """
#include <Python.h>
namespace at { long fused_op(long); }
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "ops", nullptr, -1, nullptr};
PyMODINIT_FUNC PyInit_ops() { return at::fused_op(1) ? PyModule_Create(&definition) : nullptr; }
"""
#: What each miniature torch exports: the signature of `fused_op` changed between them.
TORCHES = {"2.14.0": "long fused_op(long x) { return x; }", "2.15.0": "long fused_op(long x, bool) { return x; }"}


def torch(kit: Kit, version: str) -> Path:
    """Return the package folder of a miniature torch, installed: libraries, version module, metadata."""

    def make(part: Path) -> None:
        lib = part / "torch" / "lib"
        lib.mkdir(parents=True)
        for name in ("libc10.so", "libtorch_cpu.so", "libtorch.so"):
            held = TORCHES[version] if name == "libtorch_cpu.so" else f"int {name[3:-3]}_here() {{ return 1; }}"
            made = kit.compiled(f"torch-{version}-{name}", TORCH.format(declared=held), [f"-Wl,-soname,{name}"])
            (lib / name).write_bytes(made.read_bytes())
        (part / "torch" / "__init__.py").write_text("from torch.version import __version__\n")
        (part / "torch" / "version.py").write_text(f"__version__ = '{version}'\ncuda = '13.0'\n")
        info = part / f"torch-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")

    return kit.once(f"site-{version}", make) / "torch"


def torch_extension(kit: Kit, folder: Path, headers: Sequence[str] = ("Requires-Dist: torch",)) -> Path:
    """Link it against the older torch."""
    lib = torch(kit, "2.14.0") / "lib"
    words = [f"-L{lib}", "-Wl,--no-as-needed", "-ltorch_cpu", "-ltorch", "-lc10"]
    ops = kit.compiled("ops.so", USES_TORCH, words)
    return kit.twin(folder, more={f"gb10ext/ops{SUFFIX}": ops.read_bytes()}, headers=headers)


# --- other archives


def tagged(tag: str) -> Callable[[Kit, Path], Path]:
    return lambda kit, folder: kit.twin(folder, tag=tag)


def rewritten(change: Callable[[dict[str, bytes]], None]) -> Callable[[Kit, Path], Path]:
    """Return the maker of the good wheel with its members changed as they are, RECORD among them."""

    def make(kit: Kit, folder: Path) -> Path:
        members = wheel_kit.members(kit.good)
        change(members)
        return wheel_kit.write(folder / kit.good.name, members)

    return make


def edited_record(members: dict[str, bytes]) -> None:
    """Another hash for the module: 43 characters of base64 stand behind ``sha256=``."""
    before, mark, after = members[f"{INFO}/RECORD"].partition(f"{CORE},sha256=".encode())
    assert mark
    members[f"{INFO}/RECORD"] = before + mark + b"A" * 43 + after[43:]


def edited_module(members: dict[str, bytes]) -> None:
    members["gb10ext/__init__.py"] += b"import os\n"


def unlisted(members: dict[str, bytes]) -> None:
    members["gb10ext/more.py"] = b"MORE = 1\n"


def listed_only(members: dict[str, bytes]) -> None:
    del members["gb10ext/__init__.py"]


def listed_twice(members: dict[str, bytes]) -> None:
    members[f"{INFO}/RECORD"] += members[f"{INFO}/RECORD"].splitlines(keepends=True)[0]


def unhashed(members: dict[str, bytes]) -> None:
    rows = members[f"{INFO}/RECORD"].splitlines()
    members[f"{INFO}/RECORD"] = b"".join(row.split(b",")[0] + b",,\n" for row in rows)


def without_record(members: dict[str, bytes]) -> None:
    del members[f"{INFO}/RECORD"]


def other_version(kit: Kit, folder: Path) -> Path:
    metadata = kit.members()[f"{INFO}/METADATA"].replace(b"Version: 0.1.0", b"Version: 0.2.0")
    return kit.twin(folder, more={f"{INFO}/METADATA": metadata})


def labelled_x86(kit: Kit, folder: Path) -> Path:
    label = f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: false\nTag: {PYTHON}-{PYTHON}-linux_x86_64\n"
    return kit.twin(folder, more={f"{INFO}/WHEEL": label.encode()})


def other_tag(kit: Kit, folder: Path) -> Path:
    return kit.twin(folder, filename=f"gb10ext-0.1.0-{PYTHON}-{PYTHON}-manylinux_2_35_aarch64.whl")


def without_metadata(members: dict[str, bytes]) -> None:
    del members[f"{INFO}/METADATA"]


def two_infos(kit: Kit, folder: Path) -> Path:
    return kit.twin(
        folder, more={"other-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"}
    )


def outside(kit: Kit, folder: Path) -> Path:
    return kit.twin(folder, more={"../outside.py": b"OUTSIDE = 1\n"})


def backslash(kit: Kit, folder: Path) -> Path:
    return kit.twin(folder, more={"gb10ext\\..\\..\\outside.py": b"OUTSIDE = 1\n"})


def two_names(kit: Kit, folder: Path) -> Path:
    """The module's own header calls it something else than the archive's directory does."""
    path = kit.twin(folder)
    path.write_bytes(path.read_bytes().replace(b"gb10ext/__init__.py", b"gb10ext/__evil__.py", 1))
    return path


def absolute(kit: Kit, folder: Path) -> Path:
    return kit.twin(folder, more={"/etc/outside.conf": b"outside\n"})


def symlink(kit: Kit, folder: Path) -> Path:
    path = kit.twin(folder, more={"gb10ext/link.so": b"../../../etc/passwd"})
    members = wheel_kit.members(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            kind = stat.S_IFLNK | 0o777 if name == "gb10ext/link.so" else stat.S_IFREG | 0o644
            info.external_attr = kind << 16
            archive.writestr(info, data)
    return path


def duplicate(kit: Kit, folder: Path) -> Path:
    """A second module under the first one's name: which of the two is installed is up to the installer."""
    path = kit.twin(folder)
    with zipfile.ZipFile(path) as archive:
        twice = archive.namelist()[0]
    stand_in = f"{twice[:-1]}?"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(stand_in, b"EVIL = 1\n")
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), twice.encode()))
    return path


def truncated(kit: Kit, folder: Path) -> Path:
    path = kit.twin(folder)
    path.write_bytes(path.read_bytes()[:-400])
    return path


def flipped(kit: Kit, folder: Path) -> Path:
    """One bit of the packed module is another one."""
    path = kit.twin(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def imports_numpy(kit: Kit, folder: Path) -> Path:
    module = kit.members()["gb10ext/__init__.py"].decode().replace("from ._core", "import numpy\nfrom ._core", 1)
    return kit.twin(folder, more={"gb10ext/__init__.py": module.encode()})


def pure(kit: Kit, folder: Path) -> Path:
    more = {"gb10ext/__init__.py": b"def host_add(a, b):\n    return a + b\n"}
    return kit.twin(folder, without=[CORE], more=more, tag="py3-none-any")


GOOD = (
    Twin(name="itself", make=lambda kit, _folder: kit.good, stated=REQUIRE),
    Twin(name="sm-121a", make=code("sm_121a"), stated=REQUIRE),
    Twin(name="sm-121f", make=code("sm_121f"), stated=REQUIRE),
    Twin(name="sm-121", make=code("sm_121"), stated=REQUIRE),
    Twin(name="sm-120", make=code("sm_120"), stated=REQUIRE),
    Twin(name="sm-120f", make=code("sm_120f"), stated=REQUIRE),
    Twin(name="hopper-too", make=code("sm_90a", "sm_121a"), stated=REQUIRE),
    Twin(name="ptx-too", make=code("sm_120f", "compute_90"), stated=REQUIRE),
    Twin(name="ptx-allowed", make=code("compute_90"), stated=ALLOW_PTX, verdict="jit"),
    Twin(name="full-symbols", make=code("sm_121a", strip=False), stated=REQUIRE),
    Twin(
        name="compressed", make=code("sm_121a", "sm_90a", "compute_90", flags=("--compress-mode=size",)), stated=REQUIRE
    ),
    Twin(name="uncompressed", make=code("sm_121a", "compute_90", flags=("--no-compress",)), stated=REQUIRE),
    Twin(name="pure-python", make=pure, verdict="none"),
    Twin(name="manylinux", make=tagged(MODERN), stated=REQUIRE),
    Twin(name="runtime-declared", make=shared_runtime("Requires-Dist: nvidia-cuda-runtime"), stated=REQUIRE),
    Twin(name="relative-rpath", make=rpath("$ORIGIN/../nvidia/cu13/lib"), stated=REQUIRE),
    Twin(name="abi3", make=abi3("", name="limited"), verdict="none"),
    Twin(name="its-torch", make=torch_extension, stated=REQUIRE, torch="2.14.0"),
)

BAD = (
    Twin(name="sm-90a", make=code("sm_90a"), finding="device-nothing"),
    Twin(
        name="sm-90a-required",
        make=code("sm_90a"),
        finding="device-required",
        also=("device-absent", "device-nothing"),
        stated=REQUIRE,
    ),
    Twin(name="sm-120a", make=code("sm_120a"), finding="device-dead", also=("device-nothing",)),
    Twin(name="ptx-90", make=code("compute_90"), finding="device-jit", stated=Expected(stated=True)),
    Twin(name="ptx-121", make=code("compute_121"), finding="device-jit", stated=Expected(stated=True)),
    Twin(name="ptx-newer", make=code("compute_121a"), finding="device-required", also=("device-jit",), stated=REQUIRE),
    Twin(name="unreadable", make=unreadable, finding="device-required", also=("device-unknown",), stated=REQUIRE),
    Twin(name="never-linked", make=never_linked, finding="device-relocatable-only"),
    Twin(name="host-elf", make=host_elf, finding="elf-machine"),
    Twin(name="host-program", make=host_program, finding="elf-machine"),
    Twin(name="host-elf-hidden", make=hidden_elf, finding="elf-machine"),
    Twin(name="host-suffix", make=host_suffix, finding="ext-suffix"),
    Twin(name="elf-truncated", make=truncated_elf, finding="elf-damaged"),
    Twin(name="runtime-undeclared", make=shared_runtime(), finding="dependency-missing"),
    Twin(name="numpy-undeclared", make=imports_numpy, finding="dependency-missing"),
    Twin(
        name="runtime-by-extra",
        make=shared_runtime("Provides-Extra: gpu", 'Requires-Dist: nvidia-cuda-runtime; extra == "gpu"'),
        finding="dependency-missing",
    ),
    Twin(
        name="runtime-elsewhere",
        make=shared_runtime('Requires-Dist: nvidia-cuda-runtime; platform_machine == "x86_64"'),
        finding="dependency-missing",
    ),
    Twin(
        name="torch-undeclared", make=lambda kit, folder: torch_extension(kit, folder, ()), finding="dependency-missing"
    ),
    Twin(name="runtime-12", make=needing("libcudart.so.12"), finding="cuda-major", also=("dependency-missing",)),
    Twin(name="needs-llvm", make=needing("libLLVM-17.so.1"), finding="needed-unknown"),
    Twin(name="needs-unknown", make=needing("libnobody.so.3"), finding="needed-unknown"),
    Twin(name="shared-rpath", make=rpath("/tmp/build/lib"), finding="rpath-absolute"),  # noqa: S108
    Twin(name="abi3-promised", make=tagged("cp311-abi3-linux_aarch64"), finding="ext-suffix"),
    Twin(
        name="abi3-violated", make=abi3("PyFrame_GetBack(PyEval_GetFrame());", name="private"), finding="abi3-violation"
    ),
    Twin(name="other-torch", make=torch_extension, finding="torch-symbols", torch="2.15.0"),
    Twin(name="tag-any", make=tagged("py3-none-any"), finding="tag-any-with-elf"),
    Twin(name="tag-abi-any", make=tagged(f"{PYTHON}-none-any"), finding="tag-any-with-elf"),
    Twin(name="tag-x86", make=tagged(f"{PYTHON}-{PYTHON}-linux_x86_64"), finding="elf-machine", also=("ext-suffix",)),
    Twin(
        name="tag-other-python", make=tagged("cp39-cp39-linux_aarch64"), finding="ext-suffix", also=("python-excluded",)
    ),
    Twin(
        name="tag-macos",
        make=tagged(f"{PYTHON}-{PYTHON}-macosx_11_0_arm64"),
        finding="elf-machine",
        also=("ext-suffix",),
    ),
    Twin(name="name-other-machine", make=labelled_x86, finding="tag-differs"),
    Twin(name="metadata-other-version", make=other_version, finding="wheel-name"),
    Twin(name="record-edited", make=rewritten(edited_record), finding="record-lies"),
    Twin(name="module-edited", make=rewritten(edited_module), finding="record-lies"),
    Twin(name="record-lacks", make=rewritten(unlisted), finding="record-lies"),
    Twin(name="record-alone", make=rewritten(listed_only), finding="record-lies"),
    Twin(name="record-twice", make=rewritten(listed_twice), finding="record-lies"),
    Twin(name="record-unhashed", make=rewritten(unhashed), finding="record-lies"),
    Twin(name="record-missing", make=rewritten(without_record), finding="wheel-damaged"),
    Twin(name="metadata-missing", make=rewritten(without_metadata), finding="wheel-damaged", also=("record-lies",)),
    Twin(name="two-infos", make=two_infos, finding="wheel-name"),
    Twin(name="outside", make=outside, finding="wheel-unsafe"),
    Twin(name="backslash", make=backslash, finding="wheel-unsafe"),
    Twin(name="two-names", make=two_names, finding="wheel-damaged"),
    Twin(name="absolute", make=absolute, finding="wheel-unsafe"),
    Twin(name="symlink", make=symlink, finding="wheel-unsafe"),
    Twin(name="duplicate", make=duplicate, finding="wheel-unsafe"),
    Twin(name="truncated", make=truncated, finding="wheel-damaged"),
    Twin(name="flipped", make=flipped, finding="wheel-damaged"),
)

#: These can be used: the finding is a warning.
WARNED = (
    Twin(name="glibc-floor", make=tagged(OLD), finding="glibc-floor"),
    Twin(name="glibcxx-floor", make=newer_library, finding="glibc-floor"),
    Twin(name="sm-90a-beside", make=beside_hopper, finding="device-absent"),
    Twin(name="name-other-tag", make=other_tag, finding="tag-differs"),
    Twin(name="build-rpath", make=rpath("/build/gb10ext/lib"), finding="rpath-absolute"),
    Twin(name="ptx-unasked", make=code("compute_90"), finding="device-jit", verdict="jit"),
    Twin(name="torch-unpinned", make=torch_extension, finding="torch-unpinned", torch="2.14.0"),
)
