"""Whether this machine has the compilers, programs and packages that recipes ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.host import Machine, floors, programs, toolkit
from builder.host.checks.finding import Finding
from builder.stages import Tool
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks.finding import Subject
    from builder.recipe.model import System
    from builder.stages import Host

__all__ = ["lacks"]


def lacks(subject: Subject) -> Iterator[Finding]:
    """For each recipe whether it can be built here, and all that is missing or too old for it."""
    where = floors.distribution(subject.root / "etc/os-release")
    with subject.scratch() as folder, Machine(env=subject.env, cache=folder) as machine:
        for recipe in subject.recipes:
            found = floors.check(recipe.system, _host(recipe.system, subject, machine), distro=where)
            if not found:
                yield Finding(id=recipe.name, status="ok", found="what its build needs of the system is here")
                continue
            mends = tuple(dict.fromkeys(one.run for one in found if one.run))
            stuck = "" if all(one.run for one in found) else f". {floors.GCC_ELSEWHERE}"
            yield Finding(
                id=recipe.name,
                status="problem",
                found="\n".join(f"{one.name}: {one.found}" for one in found),
                wanted="\n".join(f"{one.name} {one.wanted}" for one in found),
                why=f"its build refuses to start{stuck}",
                run=mends,
            )


def _host(system: System, subject: Subject, machine: Machine) -> Host:
    """Return what is here. Of the toolkit the version alone counts: the digest of its gigabytes is a build's business."""
    host = machine.probe(replace(system, cuda=None), python=subject.python, cuda=None)
    root = toolkit.find(subject.cuda, env=subject.env) if system.cuda else None
    if root is None:
        return host
    told = programs.ask([root / "bin" / "nvcc", "--version"], subject.env)
    return replace(host, cuda=Tool(name="cuda", version=toolkit.version_in(told), path=str(root)))
