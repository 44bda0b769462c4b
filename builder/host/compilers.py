"""Compilers and other programs that a recipe names: versions as they say them, digests over what does the work.

A driver such as ``g++`` is small and stays; what an upgrade replaces is ``cc1plus`` beside the start files and libgcc in
the compiler's own folder, so that folder counts as a tree.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host import packages, programs
from builder.host.digests import combined
from builder.stages import Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.host.digests import Digests
    from builder.recipe.model import System

__all__ = ["libc", "probe", "wants_compilers"]

_COMPILER_PACKAGE = re.compile(r"(g\+\+|gcc|clang)(-\d+)?|build-essential")


def wants_compilers(system: System) -> bool:
    """Whether the build compiles: nvcc needs g++, too."""
    named = system.cuda or system.gcc or system.clang or system.headers
    return bool(named) or any(_COMPILER_PACKAGE.fullmatch(name) for name in system.apt)


def probe(
    system: System, digests: Digests, env: Mapping[str, str], *, status: Path = packages.STATUS
) -> tuple[Tool, ...]:
    """Return what `system` names and what is there of it, by name.

    A program that is missing is left out; a package that is missing has an empty version.
    """
    found: dict[str, Tool] = {}
    if wants_compilers(system):
        for tool in _gnu(digests, env):
            found[tool.name] = tool
    if system.clang:
        for tool in _llvm(digests, env):
            found[tool.name] = tool
    if system.rust:
        for tool in _rust(digests, env):
            found[tool.name] = tool
    for name in system.tools:
        path = programs.find(name, env)
        if path is not None and name not in found:
            found[name] = _plain(name, path, digests, env)
    versions = packages.versions(system.apt, digests, status) if system.apt else None
    for name, version in (versions or {}).items():
        found[f"apt:{name}"] = Tool(name=f"apt:{name}", version=version or "")
    return tuple(found[name] for name in sorted(found))


def libc() -> str:
    """Return glibc's version (``2.39``), or ``musl`` where it is another one."""
    try:
        name, _blank, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        return "musl"
    return version if name == "glibc" else "musl"


def _plain(name: str, path: Path, digests: Digests, env: Mapping[str, str]) -> Tool:
    digest = digests.sha256(path)
    if programs.is_script(path):  # may stand before anything: its own bytes say nothing, and what it answers counts
        text = programs.ask([path, "--version"], env)
        digest = combined([("program", digest), ("answer", text)])
    else:
        text = digests.answer(f"{name} --version {digest}", lambda: programs.ask([path, "--version"], env))
    return Tool(name=name, version=programs.version_in(text), path=str(path), digest=digest)


def _gnu(digests: Digests, env: Mapping[str, str]) -> Iterator[Tool]:
    """Yield gcc, g++, the C library's and C++ library's development files, assembler and linker."""
    partners: dict[str, Path] = {}
    for name, worker in (("gcc", "cc1"), ("g++", "cc1plus")):
        driver = programs.find(name, env)
        if driver is None:
            continue
        told = _gcc_facts(driver, worker, digests, env)
        partners |= {key: Path(told[key]) for key in ("as", "ld") if "/" in told[key]}
        parts = [("driver", digests.sha256(driver))]
        parts += [
            (key, digests.sha256(Path(told[key])))
            for key in ("worker", "crt1.o", "libstdc++.so", "libstdc++.a")
            if told[key].startswith("/") and os.path.exists(told[key])  # noqa: PTH110  # hit path
        ]
        if told["worker"].startswith("/"):
            parts.append(("folder", digests.tree(Path(told["worker"]).parent)))
        if name == "g++" and (library := os.path.realpath(told["libstdc++.so"])):
            version = os.path.basename(library).removeprefix("libstdc++.so.")  # noqa: PTH119
            yield Tool(name="libstdc++", version=version, path=library, digest=dict(parts).get("libstdc++.so"))
        yield Tool(name=name, version=told["version"], path=str(driver), digest=combined(parts))
    for name in ("as", "ld"):
        path = partners.get(name) or programs.find(name, env)
        if path is not None:
            yield _plain(name, path, digests, env)


def _gcc_facts(driver: Path, worker: str, digests: Digests, env: Mapping[str, str]) -> dict[str, str]:
    """Return what a driver says of itself, asked once for the same bytes in the same place."""

    def ask() -> str:
        def told(*words: str) -> str:
            return programs.ask([driver, *words], env)

        facts = {key: told(f"-print-prog-name={key}") for key in ("as", "ld")}
        facts |= {key: told(f"-print-file-name={key}") for key in ("crt1.o", "libstdc++.so", "libstdc++.a")}
        facts["worker"] = told(f"-print-prog-name={worker}")
        facts["version"] = told("-dumpfullversion")
        return json.dumps(facts)

    real = os.path.realpath(driver)
    found: dict[str, str] = json.loads(digests.answer(f"gcc {driver} {real} {digests.sha256(driver)}", ask))
    return found


def _llvm(digests: Digests, env: Mapping[str, str]) -> Iterator[Tool]:
    """Yield clang++ with the libraries that it is made of, and lld."""
    for name in ("clang", "clang++", "ld.lld"):
        path = programs.find(name, env)
        if path is None:
            continue
        plain = _plain(name, path, digests, env)
        libraries = sorted(
            (Path(os.path.realpath(path)).parent.parent / "lib").glob("lib[Lc]*[VC][Mp]*.so*")
            if name != "ld.lld"
            else ()
        )
        parts = [("program", plain.digest or "")]
        parts += [(library.name, digests.sha256(library)) for library in libraries]
        yield Tool(name=name, version=plain.version, path=plain.path, digest=combined(parts))


def _rust(digests: Digests, env: Mapping[str, str]) -> Iterator[Tool]:
    """Yield rustc and cargo.

    Behind rustup's stand-ins lies the toolchain that is the default now: that is what counts, and what is run. In a build,
    which has a home of its own, a stand-in finds no toolchain.
    """
    driver = programs.find("rustc", env)
    if driver is None:
        return
    home = Path(env.get("RUSTUP_HOME") or Path(env.get("HOME") or "/") / ".rustup")
    settings = home / "settings.toml"
    chosen = settings.read_text(errors="replace") if settings.is_file() else ""
    question = f"rustc {digests.sha256(driver)} {home} {chosen}"
    try:
        root = Path(digests.answer(f"{question} sysroot", lambda: programs.ask([driver, "--print", "sysroot"], env)))
    except HostError:  # rustup without a toolchain: as good as none, and the floors say what to do
        return
    real, cargo = root / "bin" / "rustc", programs.find("cargo", env)
    if not real.is_file():
        yield _plain("rustc", driver, digests, env)
    else:
        plain = _plain("rustc", real, digests, env)
        parts = [("program", plain.digest or ""), ("lib", digests.tree(root / "lib"))]
        yield Tool(name="rustc", version=plain.version, path=str(_behind(driver, real)), digest=combined(parts))
    if cargo is not None:
        yield _plain("cargo", _behind(cargo, root / "bin" / "cargo"), digests, env)


def _behind(program: Path, real: Path) -> Path:
    """Return what `program` runs: `real` where it is rustup's stand-in for that."""
    return real if real.is_file() and Path(os.path.realpath(program)).name == "rustup" else program
