"""An environment where it runs: what is wrong with it, and what mends it.

`look` asks the environment's own Python and reads what is installed; nothing of it is changed, and no GPU is needed. `logs`
finds known failures in what a server printed. Both tell the entries of the catalogue of failures that are about use.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from builder.audit import installed
from builder.errors import SparkError
from builder.host.checks import Finding
from builder.runtime import code, driver, imports, jit, ptxas, quantization, siblings, torch
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from builder.runtime.environment import Environment

__all__ = ["CHECKS", "look"]

_ANEW = (
    ". The Python that this environment was made of is gone: it has to be made anew, which empties it, and then filled "
    "again from its lock"
)


def _python(environment: Environment) -> Iterator[Finding]:
    answer = environment.ask("python")
    if answer.error:
        base_is_gone = _base_is_gone(environment)
        yield Finding(
            id="python",
            status="problem",
            found=answer.error,
            wanted="an interpreter that starts",
            why="nothing works without it" + (_ANEW if base_is_gone else ""),
            run=(
                f"{environment.quoted} -V",
                *((f"uv venv --clear {shlex.quote(str(environment.prefix))}",) if base_is_gone else ()),
            ),
        )
        return
    told = answer.told
    found = f"{told['version']}, {told['machine']}, {len(environment.packages)} packages in {environment.prefix}"
    yield Finding(id="python", status="ok", found=found)


def _base_is_gone(environment: Environment) -> bool:
    """Whether it is a virtual environment whose Python isn't there any more: only such a one is of no use to anybody."""
    settings = installed.settings(environment.prefix)
    return "home" in settings and not any(Path(settings["home"]).glob("python3*"))


#: What is looked at, in this order; the name stands for a check that couldn't be carried out.
CHECKS: tuple[tuple[str, Callable[[Environment], Iterable[Finding]]], ...] = (
    ("python", _python),
    ("driver", driver.check),
    ("torch", torch.check),
    ("ptxas", ptxas.check),
    ("flashinfer", siblings.check),
    ("quantization", quantization.check),
    ("kernels", code.check),
    ("compiler", jit.check),
    ("import", imports.check),
)


def look(environment: Environment) -> Iterator[Finding]:
    """Yield what every check finds; a failure that several lead to is told in full by the first of them alone."""
    told: set[str] = set()
    for name, check in CHECKS:
        try:
            for finding in check(environment):
                yield _short(finding, told)
                if finding.status == "problem" and finding.failure:
                    told.add(finding.failure)
                if finding.id == "python" and finding.status == "problem":
                    return
        except SparkError as error:
            yield Finding(id=name, status="problem", found=error.summary, why=error.cause or error.help, run=error.run)
            if name == "python":
                return
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            yield Finding(id=name, status="problem", found=f"can't be looked at: {where}{error.strerror or error}")
            if name == "python":
                return


def _short(finding: Finding, told: set[str]) -> Finding:
    """Return a finding without the words that stand above already."""
    if finding.failure not in told or finding.status != "problem":
        return finding
    return replace(finding, why="as above")
