"""Real libraries and wheels with them, for judges of linkage and of sets."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents
from builder.audit.context import Context
from builder.audit.target import Capability
from tests import wheel_kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from builder.audit.facts import Contents
    from builder.audit.rules import Finding

TARGET = Capability(12, 1)
MACHINES = ("x86_64", "aarch64")


@cache
def compiler(machine: str, language: str = "g++") -> str:
    """The compiler for `machine`: the one of the system, or the cross compiler."""
    native = subprocess.run([language, "-dumpmachine"], capture_output=True, text=True, check=True).stdout.split("-")[0]
    return language if machine == native else f"{machine}-linux-gnu-{language}"


def needs(machine: str) -> str:
    """Return the compiler for `machine`; skip the test where there is none."""
    found = compiler(machine)
    if shutil.which(found) is None:
        pytest.skip(f"needs {found}")
    return found


def library(
    folder: Path, name: str, source: str, *flags: str, machine: str = "x86_64", soname: str = "", language: str = "c++"
) -> Path:
    """Compile `source` into the shared library `name` below `folder`, for `machine`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    own = [f"-Wl,-soname,{soname}"] if soname else []
    argv = [needs(machine), "-shared", "-fPIC", "-O1", "-x", language, "-", "-x", "none", "-o", str(path), *own, *flags]
    subprocess.run(argv, input=source, text=True, check=True)
    return path


def stub(folder: Path, soname: str, *, machine: str = "x86_64") -> Path:
    """An empty library that others may link to under `soname`."""
    return library(folder, soname, "", "-nostdlib", machine=machine, soname=soname, language="c")


@cache
def linked(name: str, *sonames: str, machine: str = "x86_64", source: str = "int one(void) { return 1; }\n") -> bytes:
    """A library that needs each of `sonames`, and nothing else; made once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        stubs = [str(stub(Path(folder, "stubs"), one, machine=machine)) for one in sonames]
        flags = ["-nostdlib", "-Wl,--no-as-needed", *stubs]
        return library(Path(folder), name, source, *flags, machine=machine, language="c").read_bytes()


def wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    project: str = "ext",
    version: str = "1.0",
    requires: Sequence[str] = (),
    python: str = ">=3.11",
    tags: str = "cp312-cp312-linux_x86_64",
) -> Contents:
    """Write a wheel, and return what is read out of it."""
    headers = [f"Requires-Python: {python}", *(f"Requires-Dist: {one}" for one in requires)]
    members = wheel_kit.contents(project, version, files, headers)
    info = f"{project}-{version}.dist-info"
    interpreter, abi, platforms = tags.split("-")
    lines = "".join(f"Tag: {interpreter}-{abi}-{one}\n" for one in platforms.split("."))
    members[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: false\n{lines}".encode()
    del members[f"{info}/RECORD"]
    members[f"{info}/RECORD"] = wheel_kit.record(members, info)
    return contents.read(wheel_kit.write(folder / f"{project}-{version}-{tags}.whl", members))


def context(*beside: Contents, torch: Path | None = None, glibc: str = "2.39", cuda: int = 13) -> Context:
    return Context(target=TARGET, beside=beside, torch=torch, glibc=glibc, cuda=cuda)


def judged(
    judge: Callable[[Contents, Context], Iterable[Finding]], facts: Contents, told: Context | None = None
) -> list[Finding]:
    """What `judge` says, each finding whole."""
    found = list(judge(facts, told or context()))
    assert all(one.found and one.why and one.help for one in found)
    return found


def slugs(found: Iterable[Finding], severity: str | None = None) -> list[str]:
    return [one.id for one in found if severity in {None, one.severity}]
