"""The assembler that Triton starts when a kernel first runs: whether it knows the target."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host.checks import Finding
from builder.runtime import failing, known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.audit.target import Capability
    from builder.runtime.environment import Environment

__all__ = ["check"]

#: The variable that names the assembler of older chips, and that of newer ones, which Triton has since 3.6.
_OLD, _NEW = "TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH"

#: Where Triton keeps those that it brings along.
_BUNDLED = "triton/backends/nvidia/bin/"

#: The PTX ISA that each chip's own target came with: "PTX ISA", "Release Notes", `.target`.
_ISA = {
    86: "7.1",
    87: "7.4",
    88: "9.0",
    89: "7.8",
    90: "8.0",
    100: "8.6",
    103: "8.8",
    110: "9.0",
    120: "8.7",
    121: "8.8",
}
_OLDEST_ISA = "7.0"

_KERNEL = """\
.version {isa}
.target {target}
.address_size 64
.visible .entry kernel() {{ ret; }}
"""


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what Triton's assembler makes of the smallest kernel. It is the one that Triton names itself, and really run."""
    version = environment.version("triton")
    if not version:
        return
    environment.tell(f"asking triton {version} for its ptxas")
    answer = environment.ask("ptxas", str(environment.target.sm))
    if answer.error:
        yield failing.told(environment, answer, check="ptxas", what=f"triton {version}")
        return
    tool = Path(answer.told["path"])
    yield from _overrides(environment, tool)
    yield _tried(environment, tool, f"{tool.name} {answer.told['version']}")


def _overrides(environment: Environment, tool: Path) -> Iterator[Finding]:
    """Tell of variables that Triton passes over without a word: those that name no program, or one that answers nothing."""
    asked = _variable(tool) if _BUNDLED in tool.as_posix() else ""
    for name in (_OLD, _NEW):
        value = environment.variables.get(name, "")
        if value and (name == asked or not os.access(value, os.X_OK)):
            yield Finding(
                id="ptxas",
                status="warn",
                found=f"{name}={value} names no ptxas that answers",
                wanted="a ptxas, or no such variable",
                why=f"Triton passes over it without a word, and takes {tool}",
                run=(f"unset {name}",),
                failure="ptxas-missing",
            )


def _variable(tool: Path) -> str:
    """Return the variable that would go before a program that Triton brings along."""
    return _NEW if tool.name == "ptxas-blackwell" else _OLD


def _tried(environment: Environment, tool: Path, named: str) -> Finding:
    target = environment.target.renamed
    said = _said(environment, tool)
    if not said:
        return Finding(id="ptxas", status="ok", found=f"{named} knows {target.own} ({tool})")
    told = known.in_text([said], known.places(environment))
    override = next((name for name in (_NEW, _OLD) if environment.variables.get(name) == str(tool)), "")
    found = f"{override}={tool}: {said}" if override else f"{named} of triton {environment.version('triton')}: {said}"
    why = (
        "that variable goes before the program that Triton brings along"
        if override
        else "Triton starts the program that it brings along, whatever toolkit is installed"
    )
    return Finding(
        id="ptxas",
        status="problem",
        found=found,
        wanted=f"a ptxas that knows {target.own}",
        why=why,
        run=tuple(_mends(environment, tool, override)),
        failure=told.id if told else "ptxas-too-old",
    )


def _said(environment: Environment, tool: Path) -> str:
    """Return in one line why a ptxas doesn't assemble a kernel for the target; empty when it does."""
    target = environment.target.renamed
    with environment.scratch() as folder:
        file = folder / "kernel.ptx"
        file.write_text(_KERNEL.format(isa=_isa(target), target=target.own))
        words: list[str | Path] = [tool, f"--gpu-name={target.own}", file, "-o", folder / "kernel.cubin"]
        try:
            done = environment.run(words, folder)
        except HostError as error:
            return error.cause or error.summary
        if done.ok and (folder / "kernel.cubin").is_file():
            return ""
        lines = (done.err + done.out).strip().splitlines()
        return lines[0].strip() if lines else f"ended with {done.code}"


def _mends(environment: Environment, tool: Path, override: str) -> Iterator[str]:
    """Yield what helps: without a bad variable Triton's own may do; else a toolkit's that was tried out here."""
    name = override or _variable(tool)
    own = environment.find(f"{_BUNDLED}{'ptxas-blackwell' if name == _NEW else 'ptxas'}")
    if override and own and not _said(environment, own):
        yield f"unset {override}"
        return
    able = next((one for one in _others(environment) if not _said(environment, one)), None)
    if able is None:
        yield "sudo apt install cuda-toolkit-13-0"
    yield f"export {name}={shlex.quote(str(able or '/usr/local/cuda/bin/ptxas'))}"


def _others(environment: Environment) -> Iterator[Path]:
    """Yield the programs of toolkits: those that are installed, and those of the vendor's wheels."""
    homes = [environment.variables.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    found = [Path(home, "bin/ptxas") for home in (*homes, "/usr/local/cuda") if home]
    found += [one for site in environment.sites for one in sorted(site.glob("nvidia/cu1[3-9]/bin/ptxas"))]
    yield from dict.fromkeys(one for one in found if os.access(one, os.X_OK))


def _isa(target: Capability) -> str:
    return _ISA.get(target.sm, _OLDEST_ISA)
