"""Tables of a recipe that never change a wheel's bytes: what people read, what the machine is asked for, what is checked.

And what the wheel wants of the place where it runs, and of an image that builds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.recipe.condition import Condition, doc  # noqa: TC001  # the loader resolves annotations
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OUTSIDE", "About", "Advice", "Check", "Companion", "Image", "MemoryClass", "Resources"]

#: Their keys.
OUTSIDE = frozenset({"about", "resources", "image", "check"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a plan tells somebody who is about to build this."""

    text: str = doc("the sentence", example='text = "the published wheel is as good"')
    when: Condition | None = doc("only where this holds", default=None, example='when = { version = ">=3.6" }')
    run: str | None = doc(
        "the command that does it instead", default=None, example='run = "uv pip install triton==${version}"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """For people; outside the fingerprint."""

    summary: str = doc("one line", default="", example='summary = "kernels for serving"')
    homepage: str = doc("where the project lives", default="", example='homepage = "https://example.org/project"')
    license: str = doc("SPDX expression of the project", default="", example='license = "Apache-2.0"')
    notes: tuple[str, ...] = doc(
        "what somebody who builds this should know", default=(), example='notes = ["takes an hour"]'
    )
    advice: tuple[Advice, ...] = doc(
        "what plans tell, where a condition holds", default=(), example='advice = [{ text = "takes an hour" }]'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryClass:
    """A memory hint for units whose path matches. The last one that matches counts."""

    match: str = doc("shell pattern on the unit's source", example='match = "*fused_moe_120*"')
    mem: str = doc("peak of one unit", example='mem = "8GiB"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Hints for memory, disk and time; outside the fingerprint."""

    mem_per_job: str = doc("peak of an ordinary unit", default="2GiB", example='mem-per-job = "3GiB"')
    link_mem: str = doc("peak of a link", default="4GiB", example='link-mem = "6GiB"')
    disk: str = doc("space that a build takes at its peak", default="2GiB", example='disk = "40GiB"')
    jobs: int | None = doc("at most so many compilers at once", default=None, example="jobs = 8")
    unit_timeout: str | None = doc(
        "a compiler that takes longer is reported as hung", default=None, example='unit-timeout = "20min"'
    )
    build_timeout: str | None = doc(
        "the build step is stopped after this", default=None, example='build-timeout = "6h"'
    )
    classes: tuple[MemoryClass, ...] = doc(
        "memory hints by path", default=(), example='classes = [{ match = "*fp4*", mem = "8GiB" }]'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A wheel that `of` looks for at run time, in the very version that `of` has, and that no metadata declares.

    Nobody has to have it: bundles and images take it where an index lists it, and tell `why` where none does.
    """

    of: str = doc("the output that looks for it", example='of = "flashinfer-python"')
    name: str = doc("the other wheel's project", example='name = "flashinfer-jit-cache"')
    why: str = doc("what is worse without it", example='why = "kernels are compiled at first use"')
    run: str | None = doc(
        "the command that makes it here; ``${version}`` is that of `of`, without its local part",
        default=None,
        example='run = "spark-build recipe flashinfer --ref v${version} --with jit-cache"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image that builds the wheels holds, and what the wheels want where they run; outside the fingerprint.

    Bundles, final images and `doctor --env` read it for every one of the outputs that are built without ``--output``.
    """

    cuda: tuple[str, ...] = doc(
        "parts of the CUDA toolkit that the build reads, as the vendor's packages are called without the toolkit's version",
        default=(),
        example='cuda = ["cuda-nvcc", "cuda-cudart-dev", "libcublas-dev"]',
    )
    needs: tuple[Literal["compiler", "headers", "nvcc"], ...] = doc(
        "what it wants of the system where it runs: a C and C++ compiler, Python's headers, the CUDA compiler",
        default=(),
        example='needs = ["compiler", "headers"]',
    )
    env: Mapping[str, str] = doc(
        "variables where it runs, as they are: no ``${names}``",
        default={},
        example='env = { FLASHINFER_NO_DOWNLOAD = "1" }',
    )
    imports: tuple[str, ...] = doc(
        "modules that have to import there, without a GPU", default=(), example='imports = ["flashinfer"]'
    )
    companions: tuple[Companion, ...] = doc(
        "wheels that no metadata declares; the last of one name counts",
        default=(),
        example='companions = [{ of = "flashinfer-python", name = "flashinfer-jit-cache", why = "saves minutes" }]',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What is looked at in the finished wheel; outside the fingerprint, kept with the findings."""

    kind: Literal["import", "command", "script", "size", "device-code", "log", "accept"] = doc(
        "what is done; `accept` lets findings of `audit` pass", example='kind = "import"'
    )
    id: str | None = doc("a name by which a later layer can change it", default=None, example='id = "ptxas"')
    output: str | None = doc("which output; all when left out", default=None, example='output = "triton"')
    run: str | None = doc(
        "import: the statement; command: a program of the wheel's environment with its arguments",
        default=None,
        example='run = "import triton"',
    )
    script: str | None = doc(
        "script: a Python file in ``checks/`` beside the recipes, run in the wheel's environment; it fails by its exit code",
        default=None,
        example='script = "triton-compile.py"',
    )
    requires: tuple[str, ...] = doc(
        "import, command, script: what has to be installed beside the wheel and what it declares",
        default=(),
        example='requires = ["numpy"]',
    )
    gpu: bool = doc(
        "import, command, script: only where `--gpu` asks for it, on a machine with the target's GPU",
        default=False,
        example="gpu = true",
    )
    matches: str | None = doc("command: what its output has to match", default=None, example='matches = "release 13"')
    max: str | None = doc("size: the largest file", default=None, example='max = "400MiB"')
    findings: tuple[str, ...] = doc(
        "accept: the ids of the findings", default=(), example='findings = ["rpath-absolute"]'
    )
    file: str = doc("accept: shell pattern on the file in the wheel", default="*", example='file = "*/libfoo.so"')
    reason: str | None = doc(
        "accept: why that is right here; kept with the finding", default=None, example='reason = "found by dlopen"'
    )
    forbid: tuple[str, ...] = doc(
        "log: lines that must not appear", default=(), example='forbid = ["Not building Marlin"]'
    )
    target: str | None = doc("device-code: the compute capability", default=None, example='target = "12.1"')
    require: tuple[str, ...] = doc(
        "device-code: libraries (shell patterns) that must run natively", default=(), example='require = ["*_C.*so"]'
    )
    allow_ptx: tuple[str, ...] = doc(
        "device-code: libraries that may run by JIT", default=(), example='allow-ptx = ["*_fa2_C.*so"]'
    )
    allow_absent: tuple[str, ...] = doc(
        "device-code: libraries that may have nothing for the target",
        default=(),
        example='allow-absent = ["*_fa3_C.*so"]',
    )
