"""Values of every stage, as a small recipe would have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import inputs
from builder.inputs import AppliedPatch
from builder.recipe.model import (
    About,
    ArchRule,
    Build,
    Check,
    Condition,
    MemoryClass,
    Output,
    Patch,
    Recipe,
    Resources,
    Source,
    System,
    Version,
)
from builder.stages import (
    EnvLock,
    Given,
    Host,
    Interpreter,
    Locked,
    Nested,
    Pin,
    PullDiff,
    Stored,
    Submodule,
    Target,
    Tool,
)

if TYPE_CHECKING:
    from builder.inputs import Inputs

__all__ = ["EVERYTHING", "HOST", "NESTED", "PIN", "RECIPE", "collect", "stored"]

RECIPE = Recipe(
    schema=1,
    name="tiny",
    about=About(summary="a test"),
    source=(Source(kind="git", url="https://git.invalid/tiny", ref="main"),),
    version=Version(module="tiny/version.py"),
    system=System(apt=("git",), cuda=">=13.0", headers=True),
    build=Build(env={"A": "1"}, config_settings={"x": "y"}, requires_pin=("cmake<4",)),
    output=(Output(name="tiny"), Output(name="extra", default=False)),
    patch=(Patch(id="fix", file="fix.patch", sha256="1" * 64),),
    arch_map=(ArchRule(arch="12.1*", to=("12.0f",)),),
    resources=Resources(mem_per_job="2GiB"),
    check=(Check(kind="import", run="import tiny"),),
)

PIN = Pin(
    kind="git",
    url="https://git.invalid/tiny",
    tree="git:" + "a" * 40,
    time=1700000000,
    version="1.0",
    ref="main",
    commit="b" * 40,
    submodules=(Submodule(path="sub", url="https://git.invalid/sub", commit="c" * 40),),
    pulls=(PullDiff(number=7, base="d" * 40, head="e" * 40, sha256="2" * 64),),
)

HOST = Host(
    machine="aarch64",
    libc="2.39",
    interpreter=Interpreter(path="/usr/bin/python3.12", version="3.12.3", tag="cp312", digest="3" * 64, headers=True),
    tools=(
        Tool(name="apt:git", version="1:2.43"),
        Tool(name="g++", version="13.3.0", path="/usr/bin/g++", digest="4" * 64),
    ),
    cuda=Tool(name="cuda", version="13.0.88", path="/usr/local/cuda-13.0", digest="5" * 64),
    cores=20,
    memory_bytes=128 << 30,
)

#: One of each kind, and one that somebody put in place of the pinned one.
NESTED = (
    Nested(
        id="cutlass",
        kind="git",
        origin="tree",
        given=Given(submodules=("deep",)),
        pin=Pin(kind="git", url="https://github.com/NVIDIA/cutlass.git", tree="", time=0, commit="c" * 40),
    ),
    Nested(
        id="llvm",
        kind="archive",
        origin="first use",
        given=Given(place="${home}/llvm", unpack=True, strip=1, stamp={"version.txt": "u"}, env={"KEEP": "1"}),
        pin=Pin(kind="archive", url="https://a.invalid/llvm.tar.gz", tree="sha256:" + "d" * 64, time=1, size=7),
    ),
    Nested(
        id="crates",
        kind="crates",
        origin="tree",
        given=Given(place="${deps}/crates"),
        pin=Pin(kind="crates", url="rust/Cargo.lock", tree="sha256:" + "e" * 64, time=1),
    ),
    Nested(id="ptxas", kind="archive", origin="user", given=Given(), path=Path("/opt/ptxas"), digest="f" * 64),
)

TARGET = Target(machine="aarch64", arch="12.1a", cuda="13.0.88", python="cp312", glibc="2.39")

LOCK = EnvLock(
    output="tiny",
    packages=(Locked(name="setuptools", version="80.0", sha256=("6" * 64,)),),
    text="setuptools==80.0 --hash=sha256:" + "6" * 64,
)

EVERYTHING: dict[str, Any] = {
    "recipe": RECIPE,
    "outputs": ["tiny"],
    "pin": PIN,
    "patches": [AppliedPatch(id="fix", sha256="1" * 64)],
    "target": TARGET,
    "arch": ["12.0f"],
    "host": HOST,
    "locks": [LOCK],
    "torch": {"version": "2.14.0", "from": "index", "cxx11abi": True},
    "env": {"SITE": "1"},
    "paths": {"/opt/llvm": "9" * 64},
    "builds_on": {"base": "7" * 64},
}

#: Only for the changes in tests.
NEVER = Condition(version="<0")
CLASSES = (MemoryClass(match="*", mem="9GiB"),)


def collect(**changes: Any) -> Inputs:  # noqa: ANN401  # as dataclasses.replace
    """Return the inputs of everything, some of it changed: `recipe__name=` and the like change a field of one."""
    values = dict(EVERYTHING)
    for key, value in changes.items():
        name, inner, field = key.partition("__")
        values[name] = replace(values[name], **{field: value}) if inner else value
    return inputs.collect(**values)


def stored(root: Path, fingerprint: str, output: str = "tiny") -> Stored:
    """Return a wheel in a wheelhouse."""
    return Stored(
        output=output,
        project=output,
        version="1.0",
        filename=f"{output}-1.0-py3-none-any.whl",
        path=root / f"{output}-1.0-py3-none-any.whl",
        sha256="8" * 64,
        size=1,
        fingerprint=fingerprint,
        recipe="tiny",
        created=1.0,
    )
