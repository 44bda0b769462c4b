"""Installs a bundle. All of this is ``install.sh`` of a bundle, too: it needs Python 3.9 and nothing else.

usage: install.sh [--python PYTHON] [--signers FILE] [--delta BUNDLE] [--verify] [VENV]

  VENV             a new environment (default: venv beside the bundle), or one to add to
  --python PYTHON  install into this interpreter instead
  --signers FILE   who may have signed the bundle: ssh-keygen(1), ALLOWED SIGNERS
  --delta BUNDLE   install that one, a delta which was made against this bundle
  --verify         only look whether every file is as it was made

Every file is checked against the manifest before anything is installed. Exit codes: 0 done, 2 usage, 3 this machine isn't
what the bundle is for, 5 the bundle isn't as it was made.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import platform
import shutil
import signal
import stat
import subprocess  # noqa: TID251  # it has to run where nothing of ours is
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Refused", "chunks", "complete", "install", "main", "problems"]

#: What lies in a bundle and isn't in its manifest.
OWN = frozenset(["manifest.json", "manifest.json.sig"])


class Refused(Exception):
    """It can't go on; `code` is the exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def problems(here: Path, files: Mapping[str, Mapping[str, Any]], lacks: Sequence[str] = ()) -> list[str]:
    """Return what of a bundle isn't as its manifest says, one line each: missing, changed, or not of it. Reads all of it.

    `lacks` may be missing.
    """
    gone = frozenset(lacks)
    with concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda path: _problem(here / path, files[path], may_lack=path in gone), files))
    told = [f"{path}: {one}" for path, one in zip(files, found) if one]  # noqa: B905  # strict is of Python 3.10
    return told + [f"{path}: isn't of the bundle" for path in walk(here) if path not in files and path not in OWN]


def walk(here: Path) -> Iterator[str]:
    """Yield the path of everything below a folder that is no folder, sorted."""
    for folder, folders, names in os.walk(here):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        for name in sorted(names + links):
            yield os.path.relpath(os.path.join(folder, name), here)  # noqa: PTH118


def _problem(path: Path, wanted: Mapping[str, Any], *, may_lack: bool) -> str:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return "is no file"
        if found.st_size != wanted["size"]:
            return f"has {found.st_size} bytes, wanted {wanted['size']}"
        digest = _sha256(path, wanted["size"])
    except FileNotFoundError:
        return "" if may_lack else "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if digest == wanted["sha256"] else f"has other bytes, sha256 {digest}"


def _sha256(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(path, size):
        digest.update(chunk)
    return digest.hexdigest()


def chunks(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file's bytes, one more than `size` at most: by now a pipe may lie there, or a device that never ends."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123  # by descriptor
        left = size + 1
        while chunk := stream.read(min(left, 1 << 20)):
            yield chunk
            left -= len(chunk)


def complete(here: Path, document: Mapping[str, Any], base: Path) -> int:
    """Put what a delta leaves out in its place, by digest from the bundle `base`; return how many files that were.

    What is damaged in the base isn't taken. Raises `Refused` where that would be outside of the folder, or can't be written.
    """
    with (base / "manifest.json").open() as stream:
        there = {one["sha256"]: base / path for path, one in json.load(stream)["files"].items()}
    brought = 0
    for path in document.get("delta", {}).get("lacks", ()):
        wanted, target = document["files"][path], here / path
        source = there.get(wanted["sha256"])
        if source is None or _is_file(target, wanted["size"]) or _problem(source, wanted, may_lack=False):
            continue
        if os.path.realpath(target.parent) != str(Path(os.path.realpath(here), path).parent):
            raise Refused(5, f"{path}: lies behind a link, outside of the bundle")
        try:
            _placed(source, target)
        except OSError as error:
            text = f"{target}: {error.strerror}; a delta is completed where it lies: copy it to a disk with room first"
            raise Refused(3, text) from error
        brought += 1
    return brought


def _is_file(path: Path, size: int) -> bool:
    """Whether a file of that size lies there, not the half of one that a killed copy left, nor a link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _placed(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def install(here: Path, document: Mapping[str, Any], *, venv: Path | None, python: str | None, uv: str | None) -> str:
    """Install what the bundle holds and return the interpreter that has it. Nothing is asked of any network.

    A new environment holds exactly the bundle's packages; one that is there, or an interpreter, gets them added. `uv` is the
    one to use; without it the one in the bundle, else pip. What goes in are the bytes that `document` names, whoever writes
    to the bundle meanwhile: all but the wheels is read once more, into a folder of our own, and the wheels' digests are held
    against that by whoever unpacks them. Raises `Refused`; its code is 5 where something changed after it was verified.
    """
    _fits(document["target"])
    venv = venv.absolute() if venv else None
    python = os.path.abspath(python) if python and os.sep in python else python  # noqa: PTH100  # a link stays one
    with tempfile.TemporaryDirectory(prefix="spark-build-bundle-") as scratch:
        held = _Held(here, document["files"], Path(scratch))
        program = uv or _unpacked(held, document)
        # Where links are possible, packages are links into uv's cache: on the same disk they cost nothing.
        beside = venv.parent if venv else Path(scratch)
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".uv-" if program else ".pip-", dir=beside) as more:
            if program is None:
                python = _by_pip(held, document, Path(more), venv, python)
            else:
                python = _by_uv(held, document, Path(more), venv, python, program)
    _tell_needs(document, python)
    return python


class _Held:
    """Files of a bundle as its manifest has them, for those who can't look at digests themselves."""

    def __init__(self, here: Path, files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        self.here, self.folder, self._files = here.absolute(), folder, files

    def take(self, path: str, target: Path) -> None:
        """Leave a copy at `target` with the bytes that the manifest names. Raises `Refused`."""
        digest = hashlib.sha256()
        try:
            with target.open("xb") as copy:
                for chunk in chunks(self.here / path, self._files[path]["size"]):
                    digest.update(chunk)
                    copy.write(chunk)
        except OSError as error:
            raise Refused(3, f"{path} can't be copied to {target.parent}: {error.strerror}") from error
        if digest.hexdigest() != self._files[path]["sha256"]:
            target.unlink()
            raise Refused(5, f"{path}: changed after it was verified; nothing of it was installed")


def _by_uv(
    held: _Held, document: Mapping[str, Any], cache: Path, venv: Path | None, python: str | None, program: str
) -> str:
    """Let uv install the lock, which has the digest of each wheel: uv reckons it while it unpacks."""
    held.take("pylock.toml", held.folder / "pylock.toml")
    (held.folder / "files").symlink_to(held.here / "files")  # the lock's paths count from where it lies
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_", "PYTHON"))}
    env = dict(kept, UV_CACHE_DIR=str(cache), UV_PYTHON_DOWNLOADS="never", UV_NO_CONFIG="1", UV_OFFLINE="1")
    env["UV_PREVIEW_FEATURES"] = "pylock"
    verb = ["install", "-r"]
    if python is None:
        assert venv is not None  # noqa: S101  # one of them is asked for
        if not (venv / "bin" / "python").exists():
            words = ["venv", "--quiet", "--python", _interpreter(document["target"]), str(venv)]
            _run([program, *words], env, held.folder)
            verb = ["sync"]
        python = str(venv / "bin" / "python")
    try:
        _run([program, "pip", *verb, "pylock.toml", "--python", python], env, held.folder)
    except Refused as error:
        if wrong := problems(held.here, document["files"]):
            text = "the bundle changed after it was verified, nothing of it was installed"
            raise Refused(5, "\n  ".join([text, *wrong])) from error
        raise
    return python


def _fits(target: Mapping[str, Any]) -> None:
    machine, libc = platform.machine(), platform.libc_ver()
    if machine != target["machine"]:
        raise Refused(3, f"the bundle is for {target['machine']}, this machine is {machine}")
    if libc[0] == "glibc" and _number(libc[1]) < _number(target["glibc"]):
        raise Refused(3, f"the bundle is for glibc {target['glibc']} and newer, this machine has {libc[1]}")


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


#: What the interpreter that was installed into runs to see whether a need is met: it ends with 0 then.
_PROBES = {
    "headers": "import os, sysconfig; os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h'))",
    # In PATH, where the toolkit mostly lies, or a wheel of the environment.
    "nvcc": """
import glob, os, shutil, sys, sysconfig
homes = [os.environ.get("CUDA_HOME") or "/usr/local/cuda", *glob.glob(sysconfig.get_path("purelib") + "/nvidia/cu*")]
sys.exit(not any(shutil.which("nvcc", path=path) for path in [None, *(home + "/bin" for home in homes)]))
""",
}


def _has(what: str, python: str) -> bool:
    """Whether the machine has something that packages need at run time; what isn't known here counts as there."""
    if what == "compiler":
        return any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    code = _PROBES.get(what, "")
    return not code or subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0  # noqa: S603


def _tell_needs(document: Mapping[str, Any], python: str) -> None:
    for need in document.get("needs", ()):
        if not _has(str(need["id"]), python):
            print(f"warning: {need['what']} is missing: {need['why']}; {need['run']}", file=sys.stderr)  # noqa: T201


def _interpreter(target: Mapping[str, Any]) -> str:
    """Return the Python that the bundle is for: this one, else what uv finds under its version."""
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return sys.executable if mine == target["python"] else str(target["python"])


def _unpacked(held: _Held, document: Mapping[str, Any]) -> str | None:
    """Return the bundle's own uv, ready to run; None where there is none or it doesn't run here."""
    wheel = document.get("tools", {}).get("uv")
    if wheel not in document["files"]:
        return None
    held.take(wheel, held.folder / "uv.whl")
    with zipfile.ZipFile(held.folder / "uv.whl") as archive:
        name = next((name for name in archive.namelist() if name.endswith(".data/scripts/uv")), None)
        if name is None:
            return None
        target = held.folder / "uv"
        with archive.open(name) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    target.chmod(0o755)
    try:
        done = subprocess.run([str(target), "--version"], check=False, stdout=subprocess.DEVNULL)  # noqa: S603
    except OSError:
        return None
    return str(target) if done.returncode == 0 else None


def _by_pip(held: _Held, document: Mapping[str, Any], wheels: Path, venv: Path | None, python: str | None) -> str:
    """Let pip install copies of the wheels: it looks at the digest of a file and reads it again afterwards."""
    if python is None:
        assert venv is not None  # noqa: S101  # one of them is asked for
        if not (venv / "bin" / "python").exists():
            mine = _interpreter(document["target"])
            program = mine if os.sep in mine else f"python{mine}"
            _run([program, "-m", "venv", str(venv)], dict(os.environ), held.folder)
        python = str(venv / "bin" / "python")
    held.take("requirements.txt", held.folder / "requirements.txt")
    for one in document["wheels"]:
        held.take(one["path"], wheels / one["path"].rpartition("/")[2])
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    env = dict(kept, PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1")
    words = ["-m", "pip", "install", "--no-deps", "--require-hashes", "--no-index", "--find-links", str(wheels)]
    _run([python, *words, "-r", "requirements.txt"], env, held.folder)
    return python


def _run(command: Sequence[str], env: Mapping[str, str], where: Path) -> None:
    try:
        done = subprocess.run(list(command), check=False, env=dict(env), cwd=where, stdout=sys.stderr)  # noqa: S603
    except OSError as error:
        raise Refused(3, f"{command[0]} can't be run: {error.strerror}") from error
    if done.returncode:
        raise Refused(3, "failed: " + " ".join(command))


def _signed(here: Path, data: bytes, signers: Path) -> str:
    """Return who signed `data`, the manifest; raise `Refused` where none of `signers` did."""
    sig, words = here / "manifest.json.sig", ["ssh-keygen", "-Y"]
    if not sig.exists():
        raise Refused(5, "the bundle isn't signed: manifest.json.sig is missing")
    try:
        found = subprocess.run(  # noqa: S603
            [*words, "find-principals", "-s", str(sig), "-f", str(signers)], check=False, capture_output=True, text=True
        )
        for name in found.stdout.split():
            check = [*words, "verify", "-f", str(signers), "-I", name, "-n", "spark-build", "-s", str(sig)]
            if subprocess.run(check, check=False, input=data, capture_output=True).returncode == 0:  # noqa: S603
                return name
    except OSError as error:
        raise Refused(3, f"ssh-keygen can't be run: {error.strerror}") from error
    raise Refused(5, f"manifest.json.sig isn't the signature of manifest.json by anybody in {signers}")


def main(here: Path, words: Sequence[str]) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="install.sh", description="Installs this bundle without a network.")
    parser.add_argument(
        "venv", nargs="?", type=Path, default=here.parent / "venv", help="default: venv beside the bundle"
    )
    parser.add_argument("--python", help="install into this interpreter instead")
    parser.add_argument("--signers", type=Path, help="who may have signed it: ssh-keygen(1), ALLOWED SIGNERS")
    parser.add_argument("--delta", type=Path, help="install that one, a delta which was made against this bundle")
    parser.add_argument("--verify", action="store_true", help="only look whether every file is as it was made")
    args = parser.parse_args(list(words))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what lies beside the environment meanwhile goes
    try:
        return _main(args.delta.absolute() if args.delta else here, here, args)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        print(f"error: the bundle's manifest can't be read: {error!r}", file=sys.stderr)  # noqa: T201
        return 5
    except OSError as error:
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 3
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)  # noqa: T201
        return 130
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.code


def _main(here: Path, base: Path, args: argparse.Namespace) -> int:
    data = (here / "manifest.json").read_bytes()
    if args.signers:
        print(f"signed by {_signed(here, data, args.signers)}", file=sys.stderr)  # noqa: T201
    document = json.loads(data)
    odd = [path for path in document["files"] if path.startswith("/") or ".." in path.split("/")]
    if odd:
        raise Refused(5, f"the bundle names files outside of it: {odd[0]}")
    if here != base and not args.verify:
        complete(here, document, base)
    wrong = problems(here, document["files"], document.get("delta", {}).get("lacks", ()) if args.verify else ())
    if wrong:
        advice = "; a delta is installed by the install.sh of its base, with --delta" if "delta" in document else ""
        raise Refused(5, "\n  ".join([f"the bundle isn't as it was made, nothing was installed{advice}", *wrong]))
    if args.verify:
        print(f"{len(document['files'])} files are as they were made", file=sys.stderr)  # noqa: T201
        return 0
    python = install(here, document, venv=None if args.python else args.venv, python=args.python, uv=None)
    print(python)  # noqa: T201
    return 0
