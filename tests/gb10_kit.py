"""A real aarch64 CUDA wheel, cross-built on this machine, and what its twins are made of.

The cross toolchain is the distribution's ``aarch64-linux-gnu-g++`` behind this machine's nvcc, and NVIDIA's aarch64 wheels
unpacked as ``targets/sbsa-linux``. The Python headers are those of the Python that runs the tests: they are the same on
every 64-bit Linux but for two macros that no extension reads, and `_core.cu` refuses to compile where the sizes differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import wheel_kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PROJECT = Path(__file__).with_name("fixtures") / "gb10ext"
CXX = "aarch64-linux-gnu-g++"
STRIP = "aarch64-linux-gnu-strip"
UV = Path(sys.executable).with_name("uv")
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
SUFFIX = f".cpython-{PYTHON[2:]}-aarch64-linux-gnu.so"
HOST_SUFFIX = f".cpython-{PYTHON[2:]}-{os.uname().machine}-linux-gnu.so"
INFO = "gb10ext-0.1.0.dist-info"
CORE = f"gb10ext/_core{SUFFIX}"
#: What the target side of the toolkit is made of; of one release, as nvcc's own headers have to fit.
TARGET = (
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-culibos==13.0.85",
)
CUDA = "13.0"
EPOCH = "1700000000"

TOOLCHAIN = """
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER {cxx})
set(CMAKE_CUDA_COMPILER {nvcc})
set(CMAKE_CUDA_HOST_COMPILER {cxx})
set(CMAKE_CUDA_ARCHITECTURES {arch})
set(Python_INCLUDE_DIR {include})
"""


def toolkit() -> Path | None:
    """Return the folder of this machine's CUDA toolkit, or None."""
    for place in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if place and Path(place, "bin", "nvcc").is_file():
            return Path(place).resolve()
    found = shutil.which("nvcc")
    return Path(found).resolve().parent.parent if found else None


def missing() -> str:
    """Return why nothing can be cross-built here, or an empty text."""
    root = toolkit()
    if os.uname().machine != "x86_64":
        return "crosses from x86_64 only"
    if root is None:
        return "needs nvcc"
    if shutil.which(CXX) is None:
        return f"needs {CXX}: apt-get install g++-aarch64-linux-gnu"
    told = subprocess.run([root / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=False).stdout
    return "" if f"release {CUDA}," in told else f"needs nvcc {CUDA}, as the headers of the target are of that release"


def shared(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def kit(factory: pytest.TempPathFactory) -> Kit:
    """Return the kit of this test run, its toolkit ready; skip where something that it needs isn't there."""
    if reason := missing():
        pytest.skip(reason)
    made = Kit(shared(factory) / "gb10")
    made.root  # noqa: B018  # skips where the index isn't there
    return made


@dataclass
class Kit:
    """Everything is made once a test run, by whichever worker asks first."""

    folder: Path
    _made: dict[str, Path] = field(default_factory=dict)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        lock = self.folder / f"{name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file or folder `name`, made by `make(path)` unless it's there."""
        target = self.folder / name
        if name not in self._made:
            with self._alone(name):
                if not target.exists():
                    part = target.with_name(f"{target.name}.part")
                    shutil.rmtree(part, ignore_errors=True)
                    make(part)
                    part.rename(target)
            self._made[name] = target
        return target

    # --- the toolchain

    @cached_property
    def root(self) -> Path:
        """A CUDA toolkit with the target's side in it."""
        return self.once("cuda", self._toolkit)

    def _toolkit(self, root: Path) -> None:
        host = toolkit()
        assert host is not None
        (root / "bin").mkdir(parents=True)
        for file in (host / "bin").iterdir():
            # nvcc looks for its headers beside the file that it is, so links won't do for it
            if file.name in {"nvcc", "nvcc.profile"}:
                shutil.copy2(file, root / "bin" / file.name)
            else:
                (root / "bin" / file.name).symlink_to(file)
        for name in ("include", "lib", "lib64", "nvvm"):
            if (host / name).exists():
                (root / name).symlink_to(host / name)
        target = root / "targets" / "sbsa-linux"
        self._target(root.parent / "downloads", target)
        # the first lies only in the compiler's own wheel, the second in none
        shutil.copy(host / "include" / "fatbinary_section.h", target / "include")
        (target / "lib" / "libcudart.so").symlink_to("libcudart.so.13")

    def _target(self, downloads: Path, target: Path) -> None:
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        words += ["--platform", "manylinux2014_aarch64", "--dest", str(downloads), *TARGET]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the index doesn't give CUDA's aarch64 wheels: {done.stderr.strip().splitlines()[-1]}")
        for wheel in downloads.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(downloads)
        target.parent.mkdir()
        (downloads / "nvidia" / "cu13").rename(target)

    @cached_property
    def headers(self) -> Path:
        """Python's headers, for every machine: a distribution's ask for those of the target, which aren't there."""
        include = Path(sysconfig.get_path("include"))
        own = Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "", include.name, "pyconfig.h")

        def make(part: Path) -> None:
            shutil.copytree(include, part)
            shutil.copy(own, part)

        return self.once("python", make) if include.parts[:3] == ("/", "usr", "include") and own.exists() else include

    # --- builds

    def build(self, arch: str) -> Path:
        """Return gb10ext's wheel for CMake's `arch`, as its own build makes it."""
        return next(self.once(f"built-{arch}", lambda part: self._build(part, arch)).glob("*.whl"))

    def _build(self, part: Path, arch: str) -> None:
        shutil.copytree(PROJECT, part / "source")
        chain = part / "toolchain.cmake"
        nvcc, include = self.root / "bin" / "nvcc", self.headers
        chain.write_text(TOOLCHAIN.format(cxx=CXX, nvcc=nvcc, arch=arch, include=include))
        words = [str(UV), "build", "--wheel", "--python", sys.executable, "--out-dir", str(part)]
        words += [f"-Ccmake.toolchain-file={chain}", "-Ccmake.python-hints=false", str(part / "source")]
        cross = {"_PYTHON_HOST_PLATFORM": "linux-aarch64", "SETUPTOOLS_EXT_SUFFIX": SUFFIX, "SOURCE_DATE_EPOCH": EPOCH}
        run(words, env=os.environ | cross)

    @cached_property
    def good(self) -> Path:
        """The wheel that everything else is a twin of: ``cp3xx-cp3xx-linux_aarch64`` with one sm_121a cubin."""
        return self.build("121a-real")

    def library(
        self,
        *codes: str,
        flags: Sequence[str] = (),
        link: Sequence[str] = (),
        strip: bool = True,
        host: bool = False,
    ) -> bytes:
        """Return the module compiled for `codes` (``sm_120f``, ``compute_90`` for PTX), for this machine with `host`.

        `flags` are nvcc's, `link` is what is linked instead of the static runtime.
        """
        words = [*codes, *flags, *link, "full" if not strip else "", "host" if host else ""]
        name = "-".join(["core", *(_plain(word) for word in words if word)])
        root = toolkit() if host else self.root
        assert root is not None
        target = next(iter((root / "targets").glob("*-linux"))) if host else root / "targets" / "sbsa-linux"
        runtime = link or ("-lcudart_static", "-lrt", "-lpthread", "-ldl")

        def make(part: Path) -> None:
            unit = part.with_suffix(".o")
            nvcc = [str(root / "bin" / "nvcc"), "-std=c++17", "-Xcompiler", "-fPIC", "-c", "-o", str(unit)]
            nvcc += [*flags] if host else [*flags, "-ccbin", CXX]
            nvcc += [f"-gencode=arch={code.replace('sm_', 'compute_')},code={code}" for code in codes]
            run([*nvcc, f"-I{self.headers}", str(PROJECT / "src" / "_core.cu")])
            self.link(part, [str(unit)], [f"-L{target / 'lib'}", *runtime], host=host, strip=strip)

        return self.once(f"{name}.so", make).read_bytes()

    def link(
        self, target: Path, units: Sequence[str], words: Sequence[str] = (), *, host: bool = False, strip: bool = True
    ) -> None:
        """Make the shared library `target` of objects or C++ sources."""
        run(["g++" if host else CXX, "-shared", "-fPIC", "-s" if strip else "-g", "-o", str(target), *units, *words])

    def compiled(self, name: str, source: str, words: Sequence[str] = (), *, host: bool = False) -> Path:
        """Return the shared library `name` made of C++ text, or the program where `words` say so.

        The text may include Python.h.
        """

        def make(part: Path) -> None:
            text = part.with_suffix(".cpp")
            text.write_text(source)
            self.link(part, [f"-I{self.headers}", str(text)], words, host=host)

        return self.once(name, make)

    # --- twins

    def members(self) -> dict[str, bytes]:
        """Return the members of the good wheel, RECORD left out."""
        found = wheel_kit.members(self.good)
        return {name: data for name, data in found.items() if name != f"{INFO}/RECORD"}

    def twin(
        self,
        folder: Path,
        *,
        more: Mapping[str, bytes] | None = None,
        without: Sequence[str] = (),
        tag: str | None = None,
        headers: Sequence[str] = (),
        filename: str | None = None,
    ) -> Path:
        """Write the good wheel with other members, tag or metadata, its RECORD true to what it holds."""
        files = {name: data for name, data in self.members().items() if name not in without} | dict(more or {})
        tag = tag or f"{PYTHON}-{PYTHON}-linux_aarch64"
        pure = "true" if tag.endswith("-any") else "false"
        if more is None or f"{INFO}/WHEEL" not in more:
            files[f"{INFO}/WHEEL"] = (
                f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: {pure}\nTag: {tag}\n\n".encode()
            )
        if headers:
            kept = files[f"{INFO}/METADATA"].decode().rstrip("\n")
            files[f"{INFO}/METADATA"] = "\n".join([kept, *headers, ""]).encode()
        files[f"{INFO}/RECORD"] = wheel_kit.record(files, INFO)
        return wheel_kit.write(folder / (filename or f"gb10ext-0.1.0-{tag}.whl"), files)

    def with_core(self, folder: Path, library: bytes, **more: str) -> Path:
        """Write the good wheel with another compiled module."""
        return self.twin(folder, more={CORE: library}, **more)


def run(words: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Run a tool; its own words are in the failure."""
    done = subprocess.run(list(words), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _plain(word: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in word)
