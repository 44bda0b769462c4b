"""The torch of an environment: the one with CUDA, whole, with code for the target, for the driver that is here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder import torchguard
from builder.audit.facts import Image
from builder.audit.target import verdict
from builder.host.checks import Finding
from builder.runtime import driver, failing, known
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.target import Capability, Verdict
    from builder.runtime.environment import Environment

__all__ = ["check"]

#: What imports torch: without it their import fails.
_USERS = ("flashinfer-python", "vllm")

#: The first of the public index with CUDA for aarch64, and code for 12.0 in it.
_FIRST = "2.11"
_NEWER = f"uv pip install --python {{}} 'torch>={_FIRST}'"

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)([af]?)")


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what is to be said about torch; it is imported, in a process of its own."""
    version = environment.version("torch")
    if not version:
        yield from _without(environment)
        return
    if found := _wrong_build(environment, version):
        yield found
        return
    environment.tell(f"importing torch {version}")
    answer = environment.ask("torch")
    if answer.error:
        yield failing.told(environment, answer, check="torch", what="import torch")
        return
    cuda = str(answer.told.get("cuda") or "")
    if not cuda:
        yield _cpu(environment, str(answer.told["version"]))
        return
    yield _architectures(environment, f"{answer.told['version']} with CUDA {cuda}", answer.told["architectures"])
    yield from driver.for_cuda(environment, cuda, "torch")


def _without(environment: Environment) -> Iterator[Finding]:
    user = next((name for name in _USERS if environment.has(name)), "")
    if user:
        yield Finding(
            id="torch",
            status="problem",
            found=f"none, and {user} imports it",
            wanted="torch with CUDA",
            why=f"{user} was installed without what it depends on",
            run=(_NEWER.format(environment.quoted),),
        )


def _wrong_build(environment: Environment, version: str) -> Finding | None:
    """Return what its files say already; nothing of it is run. None where that is left to an import.

    Where ``torch/version.py`` isn't among the packages, torch lies elsewhere, as one that is developed does. Conda has the
    library in its own folder.
    """
    file = environment.find("torch/version.py")
    if file is None:
        return None
    told = torchguard.facts(file)
    if not told.get("cuda"):
        return _cpu(environment, told.get("__version__") or version)
    if environment.find("torch/lib/libtorch_cuda.so") or (environment.prefix / "lib/libtorch_cuda.so").exists():
        return None
    found = f"{told.get('__version__') or version} has no lib/libtorch_cuda.so"
    return known.finding("torch-cuda-library-missing", environment, check="torch", found=found, wanted="torch, whole")


def _cpu(environment: Environment, version: str) -> Finding:
    found = f"{version} is the CPU build: torch.version.cuda is None"
    return known.finding("torch-cpu", environment, check="torch", found=found, wanted="torch with CUDA")


def _architectures(environment: Environment, torch: str, flags: Sequence[str]) -> Finding:
    target = environment.target
    best = {_verdict(flag, target): flag for flag in flags}
    if "native" in best:
        return Finding(id="torch", status="ok", found=f"{torch}, code for {best['native']}")
    held = f"{torch}, code for {' '.join(flags) or 'nothing'}"
    if "jit" in best:
        return Finding(
            id="torch",
            status="warn",
            found=held,
            wanted=f"machine code for {target.named}",
            why=f"the driver compiles {best['jit']} at the first start, for minutes, and again after each update of it",
            run=(_NEWER.format(environment.quoted),),
        )
    told = known.finding(
        "no-kernel-image", environment, check="torch", found=held, wanted=f"machine code for {target.named}"
    )
    return replace(
        told,
        why=f"nothing that torch itself computes would run. The one of the public index has code for 12.0 since {_FIRST}",
        run=(_NEWER.format(environment.quoted),),
    )


def _verdict(flag: str, target: Capability) -> Verdict:
    match = _ARCHITECTURE.fullmatch(flag)
    if match is None:
        return "unknown"
    variant = match[3] if match[3] in {"a", "f"} else ""
    return verdict(Image(kind="cubin" if match[1] == "sm" else "ptx", sm=int(match[2]), variant=variant), target)  # type: ignore[arg-type]  # one of the letters
