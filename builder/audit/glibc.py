"""Which C and C++ libraries the files of a wheel need: against its platform tag, and against the target.

What each platform has comes from auditwheel's policies, which are data and hold for any machine.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from builder.audit.rules import Rule, table
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.audit.context import Context
    from builder.audit.facts import Contents, File
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge", "libraries"]

RULES = table(
    Rule(
        id="glibc-floor",
        severity="warning",
        title="needs a newer C or C++ library than its platform tag promises",
        why="installers take it for older systems, where the import fails with `version not found`; on the target it works",
        help="tag it with the platform that it needs, or build it in an image with the older libraries",
    ),
    Rule(
        id="glibc-target",
        severity="error",
        title="needs a newer C or C++ library than the target has",
        why="the import fails there with `version not found`",
        help="build it on the target's release, or on an older one",
    ),
)

#: Namespaces of symbol versions that platform policies rule.
_RULED = ("GLIBC", "GLIBCXX", "CXXABI", "GCC", "LIBATOMIC", "ZLIB")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
_LEGACY = {"manylinux1": "manylinux_2_5", "manylinux2010": "manylinux_2_12", "manylinux2014": "manylinux_2_17"}


def libraries(machine: str) -> frozenset[str]:
    """Return the libraries that every system has, by the policy of the youngest platform."""
    policies = _policies(machine)
    return policies[-1].libraries if policies else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    """What one platform allows: `glibc` as (2, 28); symbol versions by namespace; libraries of the system."""

    name: str
    glibc: tuple[int, int]
    versions: Mapping[str, frozenset[str]]
    libraries: frozenset[str]

    def excess(self, wanted: Iterable[str]) -> list[str]:
        """Return those of `wanted` (``GLIBC_2.34``) that it doesn't have."""
        return [one for one in wanted if _split(one)[1] not in self.versions.get(_split(one)[0], ())]


@functools.cache
def _policies(machine: str) -> tuple[_Policy, ...]:
    """Return auditwheel's policies for `machine`, the oldest system first; none where it has none."""
    from auditwheel.architecture import Architecture  # noqa: PLC0415
    from auditwheel.libc import Libc  # noqa: PLC0415
    from auditwheel.policy import WheelPolicies  # noqa: PLC0415

    try:
        found = list(WheelPolicies(libc=Libc.GLIBC, arch=Architecture(machine)))
    except ValueError:
        return ()
    read = (
        _Policy(
            name=one.name,
            glibc=(int(part[1]), int(part[2])),
            versions={name: frozenset(versions) for name, versions in one.symbol_versions.items()},
            libraries=frozenset(one.whitelist),
        )
        for one in found
        if (part := _MANYLINUX.fullmatch(one.name))
    )
    return tuple(sorted(read, key=lambda one: one.glibc))


def _split(version: str) -> tuple[str, str]:
    namespace, _underscore, rest = version.partition("_")
    return namespace, rest


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _wanted(file: File, own: frozenset[str]) -> set[str]:
    """Return the ruled symbol versions that a file wants of libraries that the wheel doesn't bring itself."""
    versions = file.elf.versions if file.elf else {}
    return {
        one for library, every in versions.items() if library not in own for one in every if _split(one)[0] in _RULED
    }


def judge(contents: Contents, files: Sequence[File], own: frozenset[str], context: Context) -> Iterator[Finding]:
    """Yield which of `files` need more than the tag promises or the target has; libraries in `own` they bring along."""
    machines = sorted({file.elf.machine for file in files if file.elf})
    for machine in machines:
        wanted = {file.path: _wanted(file, own) for file in files if file.elf and file.elf.machine == machine}
        every = set().union(*wanted.values())
        policies = _policies(machine)
        floor = next((one for one in policies if not one.excess(every)), None)
        honest = floor.name if floor else _beyond(every, machine)
        promised = _promised(contents, machine)
        if promised is None:
            if every:
                yield RULES["glibc-floor"].finding(
                    severity="info", found=f"{_tag(contents)}; its files need {honest}", wanted=honest
                )
        elif policies:
            policy = next((one for one in reversed(policies) if one.glibc <= promised), policies[0])
            found: dict[str, list[str]] = {}
            for path, versions in wanted.items():
                if excess := policy.excess(versions):
                    found.setdefault(_newest(excess), []).append(path)
            for newest, paths in found.items():
                told = f"{newest}, in a wheel tagged manylinux_{promised[0]}_{promised[1]}_{machine}{_more(paths)}"
                yield RULES["glibc-floor"].finding(file=paths[0], found=told, wanted=honest)
        yield from _judged_target(wanted, policies, context)


def _judged_target(
    wanted: Mapping[str, set[str]], policies: tuple[_Policy, ...], context: Context
) -> Iterator[Finding]:
    target = _number(context.glibc)
    policy = next((one for one in policies if one.glibc == target), None)
    found: dict[str, list[str]] = {}
    for path, versions in wanted.items():
        newer = {one for one in versions if one.startswith("GLIBC_") and _number(_split(one)[1]) > target}
        if policy:
            newer |= set(policy.excess(versions))
        if newer:
            found.setdefault(_newest(newer), []).append(path)
    for newest, paths in found.items():
        yield RULES["glibc-target"].finding(
            file=paths[0], found=f"{newest}{_more(paths)}", wanted=f"glibc {context.glibc} or older"
        )


def _more(paths: Sequence[str]) -> str:
    rest = len(paths) - 1
    return "" if not rest else f", and {rest} more file{'s' if rest > 1 else ''} like it"


def _newest(versions: Iterable[str]) -> str:
    """Return the newest version of each namespace, as a list."""
    newest: dict[str, str] = {}
    for one in sorted(versions, key=lambda text: (_number(_split(text)[1]), text)):
        newest[_split(one)[0]] = one
    return ", ".join(newest[name] for name in _RULED if name in newest)


def _beyond(versions: Iterable[str], machine: str) -> str:
    """Return a tag for what no policy covers; by glibc alone."""
    numbers = [_number(_split(one)[1]) for one in versions if re.fullmatch(r"GLIBC_[\d.]+", one)]
    major, minor, *_rest = (*max(numbers, default=(2, 17)), 0)
    return f"manylinux_{major}_{minor}_{machine} or newer"


def _platforms(contents: Contents) -> list[str]:
    """Return the platforms that installers see: those of the file name, or of WHEEL where it is installed."""
    if contents.filename.endswith(".whl"):
        return contents.filename.removesuffix(".whl").split("-")[-1].split(".")
    return [tag.split("-")[-1] for tag in contents.tags]


def _tag(contents: Contents) -> str:
    return ".".join(_platforms(contents)) or "no platform tag"


def _promised(contents: Contents, machine: str) -> tuple[int, int] | None:
    """Return the oldest glibc that its tags promise to run with, or None where they promise none."""
    found = []
    for platform in _platforms(contents):
        name, _underscore, rest = platform.partition("_")
        match = _MANYLINUX.fullmatch(f"{_LEGACY[name]}_{rest}" if name in _LEGACY else platform)
        if match and match[3] == machine:
            found.append((int(match[1]), int(match[2])))
    return min(found, default=None)
