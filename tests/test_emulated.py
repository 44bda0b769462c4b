"""The cross-built wheel, installed and called by an arm64 Python in QEMU's user mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import index
from builder.wheel import read
from tests import gb10_kit, gb10_twins
from tests.index_kit import serve
from tests.wheel_kit import open_house

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gb10_kit import Kit

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.cuda, pytest.mark.network]

BINFMT = Path("/proc/sys/fs/binfmt_misc")
HANDLER = "qemu-aarch64"
RULE = Path("/usr/lib/binfmt.d", f"{HANDLER}.conf")
#: The Debian release whose own Python is of the minor that the wheel is for.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
TOOLS = ("mmdebstrap", "arch-test", "qemu-aarch64-static")
ASK = """
import platform, gb10ext
print(platform.machine(), gb10ext.host_add(40, 2), gb10ext.cuda_runtime_version(), gb10ext.axpy_probe())
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return gb10_kit.kit(tmp_path_factory)


@pytest.fixture(scope="module")
def emulation() -> Iterator[None]:
    """The kernel starts arm64 programs by QEMU while the test runs; afterwards all is as before."""
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(lacking)}")
    with contextlib.ExitStack() as undo:
        if not (BINFMT / "register").exists():
            mounted = subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=False)
            if mounted.returncode:
                pytest.skip("binfmt_misc can't be mounted here")
            undo.callback(subprocess.check_call, ["umount", BINFMT])
        if not (BINFMT / HANDLER).exists():
            (BINFMT / "register").write_bytes(RULE.read_bytes().strip())
            undo.callback((BINFMT / HANDLER).write_text, "-1")
        yield


@pytest.fixture(scope="module")
def rootfs(emulation: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001  # has to be in force
    """An arm64 Debian with Python, pip and venv; kept where SPARK_BUILD_ARM64_ROOTFS says."""
    suite = SUITES.get(f"{sys.version_info.major}.{sys.version_info.minor}")
    if suite is None:
        pytest.skip(f"no Debian release has the Python of these tests; {', '.join(SUITES)} are known")
    kept = os.environ.get("SPARK_BUILD_ARM64_ROOTFS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("arm64") / "rootfs"
    if not (folder / "usr" / "bin" / "python3").exists():
        words = ["--arch=arm64", "--variant=minbase", "--include=python3-venv,python3-pip", suite, str(folder)]
        done = subprocess.run(["mmdebstrap", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Guest:
    """A virtual environment inside the root file system."""

    def __init__(self, rootfs: Path, name: str) -> None:
        self.rootfs = rootfs
        self.inside = Path("/srv", name)
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir(parents=True)
        self.run("/usr/bin/python3", "-m", "venv", str(self.inside / "venv"))

    @property
    def outside(self) -> Path:
        return self.rootfs / self.inside.relative_to("/")

    def run(self, *words: str, code: int = 0) -> str:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.inside), "LANG": "C.UTF-8"}
        done = subprocess.run(["chroot", self.rootfs, *words], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def install(self, *words: str) -> None:
        """Install with the arm64 pip, of which nothing is known from before."""
        pip = [str(self.inside / "venv" / "bin" / "pip"), "--no-cache-dir", "--disable-pip-version-check"]
        self.run(*pip, "install", "--force-reinstall", "--no-deps", *words)

    def put(self, wheel: Path) -> str:
        """Copy a file in and return the path that the guest knows it by."""
        shutil.copy(wheel, self.outside)
        return str(self.inside / wheel.name)

    def python(self, text: str, code: int = 0) -> str:
        return self.run(str(self.inside / "venv" / "bin" / "python"), "-c", text, code=code)


@pytest.fixture(scope="module")
def guest(rootfs: Path) -> Iterator[Guest]:
    made = Guest(rootfs, "gb10ext")
    yield made
    shutil.rmtree(made.outside)


def test_wheel_from_a_file_runs_on_arm64(kit: Kit, guest: Guest) -> None:
    guest.install("--no-index", guest.put(kit.good))
    assert guest.python(ASK) == "aarch64 42 13000 cudaErrorInsufficientDriver\n"


def test_wheel_from_our_index_runs_on_arm64(kit: Kit, guest: Guest, tmp_path: Path) -> None:
    with open_house(tmp_path / "house") as house:
        house.publish(
            [read.inspect(kit.good)], fingerprint="f" * 64, recipe="gb10ext", inputs={}, provenance={}, channel="local"
        )
        dest = index.export(house, tmp_path / "export").path
    guest.python("import shutil, sysconfig; shutil.rmtree(sysconfig.get_path('platlib') + '/gb10ext', True)")
    with serve(dest) as server:
        guest.install("--index-url", server.url, "gb10ext")
        assert server.wheels()
    assert guest.python(ASK) == "aarch64 42 13000 cudaErrorInsufficientDriver\n"


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        ("host-suffix", "No module named 'gb10ext._core'"),
        ("host-elf", "cannot open shared object file"),
        ("runtime-undeclared", "libcudart.so.13: cannot open shared object file"),
    ],
)
def test_what_audit_refuses_does_fail_on_arm64(kit: Kit, guest: Guest, tmp_path: Path, twin: str, said: str) -> None:
    made = next(one for one in gb10_twins.BAD if one.name == twin)
    guest.install("--no-index", guest.put(made.make(kit, tmp_path)))
    assert said in guest.python("import gb10ext", code=1)
