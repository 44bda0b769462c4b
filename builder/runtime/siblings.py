"""The wheels of FlashInfer that belong together: they are used only where their versions agree.

Rules: ``flashinfer/jit/env.py``, ``_check_cubin_version``, ``_check_jit_cache_version`` and
``_check_jit_cache_provider_version`` (0.7).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.host.checks import Finding
from builder.runtime import known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.runtime.environment import Environment, Package

__all__ = ["TOLERANT", "ahead", "check"]

_PYTHON, _CUBIN, _SHIM = "flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache"
_PROVIDER = re.compile(r"flashinfer-jit-cache-sm(\d+)([af]?)")
_OFF = "FLASHINFER_DISABLE_VERSION_CHECK"

#: How newer ones, from 0.7.2 on, say that they pass over a sibling; older ones refuse to be imported.
TOLERANT = "Ignoring incompatible"


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what doesn't agree, and what there is ahead of time."""
    version = environment.version(_PYTHON)
    if not version:
        return
    wrong = [*_cubin(environment, version), *_kernels(environment, version)]
    if wrong and environment.variables.get(_OFF):
        wrong.append(
            Finding(
                id="flashinfer",
                status="warn",
                found=f"{_OFF} is set",
                wanted="versions that agree",
                why="kernels of another version are then called as if they were of this one",
                run=(f"unset {_OFF}",),
            )
        )
    yield from wrong
    if not wrong:
        providers = [one.name for one in ahead(environment)]
        more = f", kernels in {', '.join(providers)}" if providers else ", no kernels ahead of time"
        yield Finding(id="flashinfer", status="ok", found=f"{version}{more}")


def ahead(environment: Environment) -> list[Package]:
    """Return the packages with kernels for the target that FlashInfer would use."""
    version = environment.version(_PYTHON)
    shim = environment.packages.get(_SHIM)
    if shim is None or not _fits(shim.version, version):
        return []
    providers = [one for name, one in environment.packages.items() if _PROVIDER.fullmatch(name)]
    if not providers:  # before 0.7 the shim held the kernels itself
        return [] if environment.find("flashinfer_jit_cache/providers") else [shim]
    return [one for one in providers if one.version == shim.version and _serves(environment, one.name)]


def _fits(package: str, version: str) -> bool:
    return package == version or package.startswith(f"{version}+")


def _cubin(environment: Environment, version: str) -> Iterator[Finding]:
    found = environment.version(_CUBIN)
    if found and found != version:
        tolerant = _is_tolerant(environment, "flashinfer-cubin")
        yield known.finding(
            "cubin-version-mismatch",
            environment,
            check="flashinfer",
            wanted=f"{version}, or none",
            status="warn" if tolerant else "problem",
            named={"found": found, "wanted": version},
        )


def _kernels(environment: Environment, version: str) -> Iterator[Finding]:
    shim = environment.version(_SHIM)
    providers = [name for name in environment.packages if _PROVIDER.fullmatch(name)]
    if shim and not _fits(shim, version):
        yield _mismatch(environment, _SHIM, shim, version)
    for name in providers:
        found = environment.version(name)
        if not _fits(found, version):
            yield _mismatch(environment, name, found, version)
        elif shim and found != shim:
            yield _mismatch(environment, name, found, shim)
    if shim and providers and not any(_serves(environment, name) for name in providers):
        yield Finding(
            id="flashinfer",
            status="warn",
            found=f"kernels of {', '.join(providers)} only",
            wanted=f"kernels for {environment.target.named}",
            why="those are passed over, and every kernel is compiled at its first use",
            run=(f"spark-build recipe flashinfer --ref v{version.partition('+')[0]} --with jit-cache",),
        )


def _mismatch(environment: Environment, name: str, found: str, wanted: str) -> Finding:
    tolerated = "flashinfer-jit-cache" if name == _SHIM else "flashinfer jit-cache provider"
    return known.finding(
        "jit-cache-version-mismatch",
        environment,
        check="flashinfer",
        wanted=wanted,
        status="warn" if _is_tolerant(environment, tolerated) else "problem",
        named={"package_name": name, "found": found, "wanted": wanted},
    )


def _serves(environment: Environment, name: str) -> bool:
    match = _PROVIDER.fullmatch(name)
    sm = environment.target.sm
    if match is None:
        return False
    number, variant = int(match[1]), match[2]
    return number == sm if variant == "a" else number // 10 == sm // 10 and number <= sm


def _is_tolerant(environment: Environment, what: str) -> bool:
    file = environment.find("flashinfer/jit/env.py")
    return file is not None and f"{TOLERANT} {what}" in file.read_text(encoding="utf-8", errors="replace")
