"""Trees and archives that stand in for Triton's: pins in the files and formats of each version range, none of its code."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from tests.world import World

SHIPPED = Path(__file__).parent.parent / "recipes" / "triton.toml"

#: An overlay that builds on the distribution's LLVM.
EXAMPLE = SHIPPED.parent.parent / "docs" / "examples" / "triton-distro-llvm"

#: How upstream calls this machine: LLVM's archives, NVIDIA's.
SUFFIX, REDIST = {"aarch64": ("ubuntu-arm64", "linux-sbsa"), "x86_64": ("ubuntu-x64", "linux-x86_64")}[
    platform.machine()
]

LLVM = "https://oaitriton.blob.core.windows.net/public/llvm-builds"
NVIDIA = "https://developer.download.nvidia.com/compute/cuda/redist"
JSON = "https://github.com/nlohmann/json/releases/download"

#: A build that takes what it needs as upstream's own step does: what lies in its place counts as its own download; all else
#: it asks the network for, which a build doesn't have.
STEP = """
import hashlib, json, os, pathlib, shutil, tarfile, urllib.request, zipfile
home = pathlib.Path(os.environ["HOME"]) / ".triton"
rules = json.loads(pathlib.Path("rules.json").read_text())
keep = rules["archives"] and os.environ.get("TRITON_CACHE_DEPENDENCY_DOWNLOADS") == "1"
assert os.environ["TRITON_LLVM_SYSTEM_SUFFIX"] == rules["suffix"]
def download(url, folder, sha256):
    archive = home / "archives" / url.rsplit("/", 1)[1]
    if not (keep and archive.exists()):
        urllib.request.urlopen(url)
    if sha256 and hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        archive.unlink()
        raise SystemExit("wrong checksum")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (zipfile.ZipFile if archive.suffix == ".zip" else tarfile.open)(archive) as packed:
        packed.extractall(folder)
found = {}
for one in rules["packages"]:
    folder = home / one["root"] / one["name"]
    stamp = folder / "version.txt"
    if not (stamp.exists() and stamp.read_text() == one["url"]):
        download(one["url"], home / one["root"], one["sha256"])
        stamp.write_text(one["url"])
    found[one["root"]] = (folder / one["file"]).read_text()
for one in rules["tools"]:
    source = home / "nvidia" / one["folder"] / one["archive"] / one["from"]
    if not source.exists():
        download(one["url"], home / "nvidia" / one["folder"], None)
    found[one["to"]] = (source / one["file"] if one["file"] else source).read_text()
if "spoil" in rules:
    shutil.rmtree(home)
pathlib.Path("src/__init__.py").write_text(f"FOUND = {found!r}\\n")
"""

#: Lines by which the recipe tells the ranges apart.
_HELPER = "def write_thirdparty_cmake_vars(): ...\n"
_OWN = '# download_and_copy(name="nvcc-blackwell")\n'
_KEEPS = "# TRITON_CACHE_DEPENDENCY_DOWNLOADS\n"

_OLD = {"ptxas": "12.8.93", "cuobjdump": "12.8.55", "nvdisasm": "12.8.55", "cudacrt": "12.8.61", "cudart": "12.8.57"}
_OLD |= {"cupti": "12.8.90"}
_MIDDLE = _OLD | {"ptxas-blackwell": "12.9.86"}
_JANUARY = {"ptxas": "12.9.86", "ptxas-blackwell": "12.9.86", "cuobjdump": "13.1.80", "nvdisasm": "13.1.80"}
_JANUARY |= {"cudacrt": "13.1.80", "cudart": "13.1.80", "cupti": "12.8.90"}
_NEW = _JANUARY | {"ptxas-blackwell": "13.3.33", "cupti-blackwell": "13.3.35"}


def shipped_fetches() -> list[dict[str, Any]]:
    """Return the [[fetch]] tables of the recipe that comes with spark-build."""
    tables: list[dict[str, Any]] = tomllib.loads(SHIPPED.read_text())["fetch"]
    return tables


@dataclass(frozen=True)
class Era:
    """What a version range's tree says, and where its own step looks."""

    pins: dict[str, str]
    helper: str = ""
    digests: bool = False
    amd: str = ""

    @property
    def own_folders(self) -> bool:
        return _OWN in self.helper

    @property
    def archives(self) -> bool:
        return _KEEPS in self.helper


ERAS = {
    "3.5": Era(_OLD),
    "3.6": Era(_MIDDLE),
    "2026-01": Era(_JANUARY),
    "3.7": Era(_NEW, _HELPER),
    "3.8": Era(_NEW, _HELPER + _OWN, digests=True),
    "2026-08": Era(_NEW, _HELPER + _OWN + _KEEPS, digests=True),
    "3.9": Era(_NEW, _HELPER + _OWN + _KEEPS, digests=True, amd="published"),
    "3.9, AMD's not yet published": Era(_NEW, _HELPER + _OWN + _KEEPS, digests=True, amd="bootstrap"),
}

_PACKAGE = {"ptxas": "nvcc", "ptxas-blackwell": "nvcc", "cudacrt": "crt", "cupti-blackwell": "cupti"}
_FOLDER = {"ptxas": "nvcc", "ptxas-blackwell": "nvcc", "cudacrt": "nvcc", "cupti-blackwell": "cupti"}
_FROM = {"ptxas-blackwell": "bin/ptxas", "cudacrt": "include", "cudart": "include", "cupti": "lib"}
_FROM |= {"cupti-blackwell": "lib"}
_TO = {
    "cudacrt": "include/crt.h",
    "cudart": "include/cudart.h",
    "cupti": "lib/cupti",
    "cupti-blackwell": "lib/cupti-blackwell",
}


@dataclass
class Upstream:
    """A repository of one range's tree, and a folder that stands in for the hosts which it downloads from."""

    world: World
    era: Era = field(default_factory=lambda: ERAS["3.6"])
    rules: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def mirror(self) -> Path:
        return self.world.root / "hosts"

    def tree(self) -> Path:
        """Make the repository, and the archives that it pulls in."""
        self.rules = {"archives": self.era.archives, "suffix": SUFFIX, "packages": [], "tools": []}
        files = {"cmake/nvidia-toolchain-version.json": json.dumps(self.era.pins, indent=2)}
        files |= self._llvm()
        files |= {"cmake/json-version.txt": "v3.11.3\n"}
        if self.era.helper:
            files["python/build_helpers.py"] = self.era.helper
            url = f"{JSON}/v3.11.3/include.zip"
            self.offer(url, {"include/nlohmann/json.hpp": "json 3.11.3"})
            self._package("json", "", url, "include/nlohmann/json.hpp", None)
        else:
            files["setup.py"] = "def get_json_package_info(): ...\n"
        for tool, version in self.era.pins.items():
            self._tool(tool, version)
        folder = self.world.tiny_repo("triton", extra=STEP)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self.commit()
        self.recipe()
        return folder

    def commit(self) -> None:
        folder = self.world.root / "triton"
        (folder / "rules.json").write_text(json.dumps(self.rules))
        self.world.git(folder, "add", "-A")
        self.world.git(folder, "commit", "-qm", "pins")

    def recipe(self) -> None:
        """Write a recipe for that repository with the shipped [[fetch]] tables and advice, and the mirrors that it needs."""
        source = {"kind": "git", "url": (self.world.root / "triton").as_uri(), "ref": "main"}
        made = {"schema": 1, "name": "seeded", "source": [source], "output": [{"name": "triton"}]}
        about = tomllib.loads(SHIPPED.read_text())["about"]
        self.world.recipe("seeded", tomli_w.dumps(made | {"about": about, "fetch": shipped_fetches()}))
        self.mirrors()

    def mirrors(self) -> None:
        """Let the folders of `offer` answer for upstream's hosts."""
        mirrors = {f"{host}/": f"{self.mirror / host.split('/')[2]}/" for host in (LLVM, NVIDIA, JSON)}
        (self.world.config / "config.toml").write_text(tomli_w.dumps({"mirrors": mirrors}))

    def _llvm(self) -> dict[str, str]:
        commit = hashlib.sha1(b"llvm", usedforsecurity=False).hexdigest()
        build = "-2" if self.era.digests else ""
        name = f"llvm-{commit[:8]}-{SUFFIX}{build}"
        url = f"{LLVM}/{name}.tar.gz"
        digest = self.offer(url, {f"{name}/bin/FileCheck": "LLVM"})
        self._package("llvm", name, url, "bin/FileCheck", digest if self.era.digests else None)
        if not self.era.digests:
            return {"cmake/llvm-hash.txt": f"{commit}\n"}
        info = {"llvm_hash": commit, "build_number": 2, "sha256sum": {SUFFIX: digest, "windows-x64": "0" * 64}}
        return {"cmake/llvm-info.json": json.dumps(info, indent=2)} | self._amd()

    def _amd(self) -> dict[str, str]:
        """Offer AMD's library, or what it is built from; upstream looks for either where archives are kept."""
        if not self.era.amd:
            return {}
        commit = hashlib.sha1(b"amd", usedforsecurity=False).hexdigest()
        published = self.era.amd == "published"
        name = f"{'amd-codegen' if published else 'llvm'}-{commit[:8]}-{SUFFIX}-1"
        url = f"{LLVM}/{name}.tar.gz"
        digest = self.offer(url, {f"{name}/lib/libtriton_amd_codegen.so": "AMD"})
        self._package("amd", name, url, "lib/libtriton_amd_codegen.so", digest)
        sums = {SUFFIX: digest}
        info: dict[str, Any] = {"llvm_hash": commit, "build_number": 1, "sha256sum": sums if published else {}}
        if not published:
            info["bootstrap_llvm"] = {"build_number": 1, "sha256sum": sums}
        return {"cmake/amd-llvm-info.json": json.dumps(info, indent=2)}

    def _tool(self, tool: str, version: str) -> None:
        package = _PACKAGE.get(tool, tool)
        if tool == "cudacrt" and version.startswith("12."):
            package = "nvcc"
        folder = _FOLDER.get(tool, tool)
        if self.era.own_folders and tool in ("ptxas-blackwell", "cudacrt", "cupti-blackwell"):
            folder = {"cudacrt": "nvcc-crt"}.get(tool, f"{folder}-blackwell")
        archive = f"cuda_{package}-{REDIST}-{version}-archive"
        url = f"{NVIDIA}/cuda_{package}/{REDIST}/{archive}.tar.xz"
        files = {f"{archive}/bin/{package}": f"{package} {version}"}
        if package == "nvcc":
            files = {f"{archive}/bin/ptxas": f"ptxas {version}", f"{archive}/include/x.h": f"nvcc {version}"}
        if package in ("crt", "cudart", "cupti"):
            files = {f"{archive}/include/x.h": f"{package} {version}", f"{archive}/lib/x.h": f"{package} lib {version}"}
        self.offer(url, files)
        source = _FROM.get(tool, f"bin/{tool}")
        self.rules["tools"].append(
            {
                "folder": folder,
                "archive": archive,
                "from": source,
                "file": "" if source.startswith("bin/") else "x.h",
                "to": _TO.get(tool, f"bin/{tool}"),
                "url": url,
            }
        )

    def _package(self, root: str, name: str, url: str, file: str, sha256: str | None) -> None:
        self.rules["packages"].append({"root": root, "name": name, "url": url, "file": file, "sha256": sha256})

    def offer(self, url: str, files: dict[str, str]) -> str:
        """Put an archive where the mirror of its host has it, and return its digest."""
        place = self.place(url)
        place.parent.mkdir(parents=True, exist_ok=True)
        if url.endswith(".zip"):
            with zipfile.ZipFile(place, "w") as packed:
                for name, text in files.items():
                    packed.writestr(name, text)
        else:
            with tarfile.open(place, "w:xz" if url.endswith("xz") else "w:gz") as packed:
                for name, text in files.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(text), 0o755
                    packed.addfile(member, io.BytesIO(text.encode()))
        return hashlib.sha256(place.read_bytes()).hexdigest()

    def place(self, url: str) -> Path:
        """Return where the stand-in for a host has what upstream's URL names."""
        base = next(one for one in (LLVM, NVIDIA, JSON) if url.startswith(f"{one}/"))
        return self.mirror / base.split("/")[2] / url.removeprefix(f"{base}/")
