"""What images begin from where no registry is asked: archives of small systems, made once and kept in the user's cache.

Needs the standard library alone, so that continuous integration can make them while everything else is installed::

    python3 -m tests.bases ready
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spark-build-tests"

_SUITE = "trixie"

#: Packages of each Debian, beside the smallest one.
_DEBIANS = {
    "bare": ("ca-certificates",),
    "python": ("ca-certificates", "python3"),
    "ready": ("ca-certificates", "g++", "git", "python3", "python3-dev", "python3-venv"),
}


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that all processes of this machine respect."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the file `name` of the cache; where it isn't there, `make` writes it, once for all processes."""
    file = CACHE / name
    with locked(CACHE / f".{name}.lock"):
        if not file.exists():
            beside = CACHE / f".{name}.new"
            beside.unlink(missing_ok=True)
            make(beside)
            beside.rename(file)
    return file


def archive(name: str) -> Path:
    """Return the tar file of a base: ``tiny`` is a shell with the usual tools and nothing else, the others are Debian 13.

    Raises FileNotFoundError when this machine lacks what makes it.
    """
    if name == "tiny":
        return cached("base-tiny.tar", _tiny)
    packages = ",".join(_DEBIANS[name])

    def make(file: Path) -> None:
        program = _program("mmdebstrap", "mmdebstrap")
        words = [program, "--quiet", "--variant=minbase", "--format=tar", f"--include={packages}", _SUITE, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    ident = hashlib.sha256(f"{_SUITE} {packages}".encode()).hexdigest()[:8]
    return cached(f"base-{name}-{ident}.tar", make)


def _tiny(file: Path) -> None:
    busybox = _program("busybox", "busybox-static")
    if b"INTERP" in subprocess.run(["readelf", "-lW", busybox], capture_output=True, check=True).stdout:
        raise FileNotFoundError("busybox-static isn't installed, only another busybox")
    tree = file.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "etc", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    subprocess.run(["tar", "-C", str(tree), "--owner=0", "--group=0", "-cf", str(file), "."], check=True)
    shutil.rmtree(tree)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        message = f"{package} isn't installed"
        raise FileNotFoundError(message)
    return found


if __name__ == "__main__":
    for each in sys.argv[1:]:
        archive(each)
