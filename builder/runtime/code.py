"""What the packages of an environment hold: which CUDA they are linked to, and whether the target runs their kernels.

`spark-build audit --env` reads every file and judges more; here only what ends a server at its first request is told.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from builder import torchguard
from builder.audit import contents as reader
from builder.audit import cuda, drivers
from builder.audit.facts import Contents
from builder.audit.target import architectures, cover, total
from builder.host.checks import Finding
from builder.runtime import driver, known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.audit.facts import File
    from builder.audit.target import Capability, Verdict
    from builder.runtime.environment import Environment, Package

__all__ = ["check"]

#: The vendor's own libraries, and torch, which was asked for its architectures: reading them takes long and tells no more.
_PASSED_OVER = re.compile(r"nvidia-.*|cuda-.*|torch|torchvision|torchaudio")

_CODE = re.compile(r"\.so(\.\d+)*$|/ptxas[\w-]*$|\.(cubin|fatbin|ptx)$")
_LIBRARY = re.compile(r"[^/]+\.so(\.\d+)*$")

_ORPHAN = re.compile(r"_Z\d+cutlass_moe_mm_sm100\w*")

#: What everybody takes who says nothing else.
_MAJOR = 13


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what is wrong with libraries and kernels; all files that may hold machine code are read once."""
    held: dict[str, tuple[str, ...]] = {name: _listed(one) for name, one in environment.packages.items()}
    brought = {match[0] for paths in held.values() for path in paths if (match := _LIBRARY.search(path))}
    major = _major(environment)
    good, floors = [], []
    for name, package in sorted(environment.packages.items()):
        paths = [path for path in held[name] if _CODE.search(path)]
        if _PASSED_OVER.fullmatch(name) or not paths:
            continue
        environment.tell(f"reading {name}")
        facts = _contents(package, paths)
        findings = [
            *_linked(environment, facts, brought, major),
            *_orphans(environment, facts),
            *_kernels(environment, facts),
        ]
        yield from findings
        if not findings and _verdict(_linked_in(facts), environment.target) in {"native", "jit"}:
            good.append(name)
        floors += [(need, name) for need in drivers.needs(facts.files, environment.target)]
    if good:
        yield Finding(id="kernels", status="ok", found=f"{', '.join(good)}: code for {environment.target.named}")
    yield from _floor(environment, floors)


def _listed(package: Package) -> tuple[str, ...]:
    """Return the paths in RECORD, which are relative to the folder of packages."""
    try:
        with (package.info / "RECORD").open(encoding="utf-8", errors="replace", newline="") as stream:
            return tuple(row[0] for row in csv.reader(stream) if row)
    except (FileNotFoundError, csv.Error):  # `audit --env` tells those
        return ()


def _contents(package: Package, paths: list[str]) -> Contents:
    files: list[File] = []
    for path in paths:
        file = package.site / path
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            files.append(reader.examine(stream, path=path, size=file.stat().st_size))
    return Contents(where=package.site, filename="", project=package.name, version=package.version, files=tuple(files))


def _major(environment: Environment) -> int:
    """Return the major version of the installed torch's CUDA."""
    file = environment.find("torch/version.py")
    told = torchguard.facts(file).get("cuda", "") if file else ""
    major = told.partition(".")[0]
    return int(major) if major.isdecimal() else _MAJOR


def _linked(environment: Environment, facts: Contents, brought: set[str], major: int) -> Iterator[Finding]:
    for found, (path, evidence) in sorted(cuda.majors(facts, major).items()):
        if found == major or evidence in brought or not path:
            continue
        if environment.ask("library", evidence).told.get("loaded"):
            continue
        yield known.finding(
            "cuda-major-mismatch",
            environment,
            check="cuda",
            found=f"{facts.project} {facts.version} needs {evidence} ({_file(path)}), and "
            + (f"torch is for CUDA {major}" if environment.has("torch") else "nothing here brings it"),
            wanted=f"a {facts.project} for CUDA {major}",
            named={"major": str(found), "recipe": _recipe(facts.project)},
        )


def _orphans(environment: Environment, facts: Contents) -> Iterator[Finding]:
    for file in facts.files:
        lost = sorted(name for name in (file.elf.undefined if file.elf else ()) if _ORPHAN.fullmatch(name))
        if lost:
            found = f"{facts.project} {facts.version}: {_file(file.path)} calls {lost[0]}, which nothing has"
            yield known.finding("cutlass-moe-symbol-missing", environment, check="symbols", found=found)


def _kernels(environment: Environment, facts: Contents) -> Iterator[Finding]:
    target = environment.target
    files = _linked_in(facts)
    if _verdict(files, target) not in {"dead", "absent"}:
        return
    held = sorted({name for file in files for name in architectures(file.device)})
    yield known.finding(
        "no-kernel-image",
        environment,
        check="kernels",
        found=f"{facts.project} {facts.version} holds {', '.join(held[:8])}",
        wanted=f"code for {target.named}",
        named={"recipe": _recipe(facts.project)},
    )


def _linked_in(facts: Contents) -> list[File]:
    """Return the files with device code that is loaded with them; a bare ``.cubin`` is one of many, taken by its name."""
    return [file for file in facts.files if file.device is not None and any(unit.section for unit in file.device.units)]


def _verdict(files: list[File], target: Capability) -> Verdict | None:
    return total(cover(file.device, target) for file in files).verdict if files else None


def _floor(environment: Environment, floors: list[tuple[drivers.Need, str]]) -> Iterator[Finding]:
    """Compare what the packages ask for with the driver, where there is one."""
    number, version = driver.branch(environment)
    if not floors or not number:
        return
    need, name = max(floors)
    if number < need.driver or (need.newer and number <= need.driver):
        yield known.finding(
            "ptx-newer-than-driver",
            environment,
            check="driver",
            found=f"{version}, and {name} holds {need.what}",
            wanted=f"r{need.driver} or newer",
            named={"recipe": _recipe(name)},
        )


def _file(path: str) -> str:
    return path.rpartition("/")[2]


def _recipe(project: str) -> str:
    return {"flashinfer-python": "flashinfer"}.get(
        project, "flashinfer" if project.startswith("flashinfer") else project
    )
