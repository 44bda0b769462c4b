"""Judge of device code: whether the target runs it, and whether that is what the recipe expects.

A recipe that states it (``kind = "device-code"``) gets what it says: every file with device code is native, but for those
that it allows less. Of a wheel that nobody told us about, only what can't work is an error, for other people's wheels serve
many chips: a library for another one is no mistake there.

Device code in files of its own (``.cubin``, ``.fatbin``, ``.ptx``) is loaded by name, and there is one for each chip. All of
one folder are judged as one.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from builder.audit import drivers
from builder.audit.facts import DeviceCode
from builder.audit.rules import Rule, table
from builder.audit.target import RELOCATABLE, architectures, cover, running, total, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.audit.context import Context, Expected
    from builder.audit.facts import Contents, File
    from builder.audit.rules import Finding, Severity
    from builder.audit.target import Capability, Coverage

__all__ = ["RULES", "judge"]

DEAD = Rule(
    id="device-dead",
    severity="error",
    title="device code made for the target's generation, which the target refuses",
    why="code for one chip only (`a`) or for a newer one isn't loaded by its relatives, such as code for an RTX 50 card"
    ' (sm_120a) by a DGX Spark (12.1): "no kernel image is available", when the kernel is called, not when it is imported',
    help="build for the target itself, or for its family",
)
ABSENT = Rule(
    id="device-absent",
    severity="warning",
    title="a library with nothing that the target could run",
    why="its code is for other chips, and none of it is PTX that the driver could compile for this one: a call into it"
    ' ends with "no kernel image is available"',
    help="harmless where the project picks other kernels on the target; else build it for the target. In a recipe"
    " allow-absent says that it may be so",
)
JIT = Rule(
    id="device-jit",
    severity="warning",
    title="a library that the target's driver has to compile first",
    why="all that the target can use of it is PTX. The driver compiles that when it is first loaded, in seconds to"
    " minutes, and again after each update of the driver; what the chip can do beyond that PTX's architecture isn't"
    " used",
    help="build it for the target or its family. In a recipe allow-ptx says that it may be so",
)
PARTLY = Rule(
    id="device-partly",
    severity="info",
    title="a library of which only a part is native on the target",
    why="some kernels are compiled by the driver at their first use, or don't exist for the target: on purpose where"
    " only other chips can use them, by mistake where an architecture list left the target out",
    help="nothing to do as long as the kernels that matter are native. Told as a warning of a file that a recipe requires:"
    " look into the build's log for what was left out; allow-ptx and allow-absent say that it may be so",
)
UNKNOWN = Rule(
    id="device-unknown",
    severity="warning",
    title="device code that can't be read",
    why="the layout of fat binaries isn't documented and grows with the toolkit. What couldn't be read may run or not:"
    " nothing is claimed about it, least of all that there is none",
    help="ask NVIDIA's own tool (--cross-check); where that can read it the layout is new to us: report it with the"
    " wheel's name",
)
REQUIRED = Rule(
    id="device-required",
    severity="error",
    title="a file that has to be native isn't",
    why="the recipe requires it, since its kernels are what the wheel is built for. A build leaves them out in silence"
    " when an architecture list or an option doesn't fit",
    help="look into the build's log for the architectures that were compiled; `require` in the recipe names the files",
)
NOTHING = Rule(
    id="device-nothing",
    severity="error",
    title="a wheel with device code, of which nothing runs on the target",
    why="it installs and imports, and no kernel of it can ever run there: it was built for other GPUs",
    help="take or build a wheel for the target's architecture",
)
UNLINKED = Rule(
    id="device-relocatable-only",
    severity="error",
    title="relocatable device code that was never linked",
    why="what was compiled with -rdc=true runs only after nvcc or nvlink has linked it. Without that step no kernel"
    " exists, and the import fails with an undefined __cudaRegisterLinkedBinary symbol",
    help="link the library by nvcc, or add the device link (nvcc -dlink; CUDA_RESOLVE_DEVICE_SYMBOLS in CMake)",
)
IGNORANT = Rule(
    id="ptxas-ignorant",
    severity="error",
    title="the wheel's own ptxas doesn't know the target",
    why="what compiles kernels when it runs, such as Triton, asks the ptxas that it brings along. One that is older than"
    " the chip says \"Value 'sm_…' is not defined for option 'gpu-name'\" at the first kernel",
    help="build with a newer ptxas. For an installed Triton"
    " TRITON_PTXAS_BLACKWELL_PATH (TRITON_PTXAS_PATH up to 3.5) names the toolkit's",
)
KNOWS = Rule(
    id="ptxas-knows",
    severity="info",
    title="the wheel's own ptxas knows the target",
    why="kernels that are compiled when the project runs can be compiled for the target",
    help="nothing to do",
)
FLOOR = Rule(
    id="device-driver-floor",
    severity="info",
    title="the oldest driver that runs it",
    why="a driver loads machine code of its own major version of CUDA and older ones, and compiles PTX up to the ISA"
    ' that it knows: newer PTX is refused ("the provided PTX was compiled with an unsupported toolchain"). r580 is'
    " the driver of CUDA 13.0",
    help="compare with what nvidia-smi says; update the driver, or build with an older toolkit",
)

RULES = table(DEAD, ABSENT, JIT, PARTLY, UNKNOWN, REQUIRED, NOTHING, UNLINKED, IGNORANT, KNOWS, FLOOR)

_MOST_NAMED = 6

#: The toolkit whose ptxas takes a chip's name first, by SM: "PTX ISA", "Release Notes", `.target`.
_FIRST_KNOWN = {90: "12.0", 100: "12.8", 103: "12.9", 110: "13.0", 120: "12.8", 121: "12.9"}


class _Part(NamedTuple):
    """A file, or the files of one folder that are nothing but device code."""

    path: str
    files: tuple[File, ...]
    code: DeviceCode
    coverage: Coverage

    def all_match(self, patterns: Sequence[str]) -> bool:
        return all(_matches(file.path, patterns) for file in self.files)

    @property
    def chosen(self) -> bool:
        """Whether these are files for several chips, of which the project loads the native one."""
        return self.coverage.verdict == "native" and len(self.files) > 1 and self.coverage.native < self.units

    @property
    def loose(self) -> bool:
        """Whether it is nothing but device code."""
        return bool(self.code.units) and not any(unit.section for unit in self.code.units)

    @property
    def units(self) -> int:
        return len(running(self.code))


def judge(contents: Contents, context: Context) -> Iterator[Finding]:
    """Yield what is to be said about the device code and the bundled ptxas of `contents`, for the context's target."""
    target, expected = context.target, context.expected
    parts = tuple(_parts(contents.files, target))
    for part in parts:
        yield from _part(part, target, expected)
    yield from _required(contents.files, target, expected)
    yield from _nothing([part for part in parts if not part.loose], target)
    yield from _ptxas(contents.files, target)
    yield from _floor(contents.files, target)


def _nothing(parts: Sequence[_Part], target: Capability) -> Iterator[Finding]:
    """Tell of a wheel whose libraries are all for other chips. Files of device code alone say nothing about a wheel.

    FlashInfer, for one, holds four PTX texts for 10.3 and makes all else when it runs.
    """
    if total(part.coverage for part in parts).verdict in {"dead", "absent"}:
        held = _named(_sum(architectures(part.code) for part in parts).items())
        yield NOTHING.finding(found=f"{held} in {_several(len(parts), 'file')}", wanted=_wanted(target))


def _parts(files: Iterable[File], target: Capability) -> Iterator[_Part]:
    """Yield what holds device code, or may hold some that can't be read."""
    loose: dict[str, list[File]] = {}
    for file in files:
        code = file.device
        if code is None or not (code.units or code.unknown):
            continue
        if code.units and not any(unit.section for unit in code.units):
            loose.setdefault(file.path.rpartition("/")[0], []).append(file)
        else:
            yield _Part(file.path, (file,), code, cover(code, target))
    for folder, members in loose.items():
        path = members[0].path if len(members) == 1 else f"{folder}/*".lstrip("/")
        codes = [file.device for file in members if file.device is not None]
        code = DeviceCode(
            units=tuple(unit for one in codes for unit in one.units),
            unknown=next((one.unknown for one in codes if one.unknown), ""),
        )
        yield _Part(path, tuple(members), code, cover(code, target))


def _part(part: _Part, target: Capability, expected: Expected) -> Iterator[Finding]:
    if part.code.unknown or part.coverage.unknown:
        yield _unknown(part, target, expected)
    if part.units and all(unit.section.startswith(RELOCATABLE) for unit in part.code.units):
        yield from _relocatable(part)
    if part.coverage.dead and not part.chosen:
        yield _dead(part, target)
    if part.coverage.verdict in {"absent", "jit"}:
        yield _less(part, target, expected)
    elif part.coverage.verdict == "native" and (part.coverage.jit or part.coverage.absent or part.chosen):
        severity: Severity | None = "warning" if _is_short(part, expected) else None
        yield PARTLY.finding(file=part.path, found=_shares(part.coverage), wanted=_wanted(target), severity=severity)


def _is_short(part: _Part, expected: Expected) -> bool:
    """Whether a file that the recipe requires has units that the target can't run as they are, and nothing allows that.

    Libraries hold kernels that other chips alone can use, so that may be right, too: only the build's log tells.
    """
    if part.chosen or not any(_matches(file.path, expected.require) for file in part.files):
        return False
    allowed = part.all_match(expected.allow_absent)
    ptx = allowed or part.all_match(expected.allow_ptx)
    return bool((part.coverage.absent and not allowed) or (part.coverage.jit and not ptx))


def _unknown(part: _Part, target: Capability, expected: Expected) -> Finding:
    """Tell it mildly where another part is native: CUPTI, for one, holds cubins that don't say for what they are."""
    whole, allowed = part.coverage.verdict, (*expected.allow_ptx, *expected.allow_absent)
    refused = expected.stated and whole == "unknown" and not part.all_match(allowed)
    severity: Severity = "error" if refused else "info" if whole == "native" else "warning"
    found = part.code.unknown or f"{part.coverage.unknown} of {_several(part.units, 'unit')}{_unread(part, target)}"
    return UNKNOWN.finding(file=part.path, found=found, wanted=_wanted(target), severity=severity)


def _unread(part: _Part, target: Capability) -> str:
    images = (image for unit in running(part.code) for image in unit.images)
    unsure = {image.sm for image in images if image.variant == "?" and verdict(image, target) == "unknown"}
    each = (f"whether it is for sm_{sm}, sm_{sm}a or sm_{sm}f isn't noted" for sm in sorted(unsure))
    return f": {'; '.join(each)}" if unsure else " in a form that nobody knows"


def _relocatable(part: _Part) -> Iterator[Finding]:
    """Tell it of a library or a program as an error; objects and archives are there for others to link."""
    linked = any(file.elf is not None and file.elf.kind in {"shared", "program"} for file in part.files)
    yield UNLINKED.finding(
        file=part.path,
        found=f"{_several(part.units, 'unit')} in {RELOCATABLE}, none in .nv_fatbin",
        wanted="linked device code" if linked else "an object, for others to link",
        severity="error" if linked else "info",
    )


def _dead(part: _Part, target: Capability) -> Finding:
    """Tell it mildly of units for newer chips beside native ones: those are kernels that only such chips can use."""
    dead = [unit for unit in running(part.code) if verdict(unit, target) == "dead"]
    images = [image for unit in dead for image in unit.images]
    meant = any(image.sm <= target.sm and verdict(image, target) == "dead" for image in images)
    held = _named(architectures(DeviceCode(units=tuple(dead))).items())
    return DEAD.finding(
        file=part.path,
        found=f"{len(dead)} of {_several(part.units, 'unit')}: {held}",
        wanted=_wanted(target),
        severity="error" if meant or part.coverage.verdict != "native" else "warning",
    )


def _less(part: _Part, target: Capability, expected: Expected) -> Finding:
    absent = part.coverage.verdict == "absent"
    allowed = part.all_match(expected.allow_absent if absent else (*expected.allow_ptx, *expected.allow_absent))
    severity: Severity = "info" if allowed else "error" if expected.stated else "warning"
    rule = ABSENT if absent else JIT
    found = _named(architectures(part.code).items())
    if not absent and part.coverage.absent + part.coverage.dead:
        found = f"{found} ({_shares(part.coverage)})"
    return rule.finding(
        file=part.path,
        found=found,
        wanted="allowed by the recipe" if allowed else _wanted(target),
        severity=severity,
    )


def _required(files: Iterable[File], target: Capability, expected: Expected) -> Iterator[Finding]:
    able = [file for file in files if file.device is not None]
    missing = [one for one in dict.fromkeys(expected.require) if not any(_matches(file.path, (one,)) for file in able)]
    if missing:
        yield REQUIRED.finding(
            found=f"no library matches {', '.join(missing)}", wanted=f"one that is native on {target.named}"
        )
    for file in able:
        coverage = cover(file.device, target)
        if coverage.verdict != "native" and _matches(file.path, expected.require):
            held = _named(architectures(file.device).items()) or "no device code"
            yield REQUIRED.finding(file=file.path, found=f"{coverage.verdict}: {held}", wanted=_wanted(target))


def _ptxas(files: Iterable[File], target: Capability) -> Iterator[Finding]:
    """Tell which ptxas knows the target: of several, each for its own generations, one is enough."""
    own, since = target.owns, _FIRST_KNOWN.get(target.renamed.sm)
    wanted = target.renamed.own + (f", which CUDA {since} is the first to know" if since else "")
    able = [file for file in files if file.program is not None and file.program.name.startswith("ptxas")]
    known = [file for file in able if file.program is not None and not own.isdisjoint(file.program.targets)]
    for file in known or able:
        program = file.program
        assert program is not None  # noqa: S101  # that is how they were picked
        named = f"{program.name} {program.version}".strip()
        if known:
            found = f"{named} knows {min(own & program.targets)}"
            yield KNOWS.finding(file=file.path, found=found, wanted=target.renamed.own)
        elif program.targets:
            newest = max(program.targets, key=lambda name: (_number(name), name))
            yield IGNORANT.finding(file=file.path, found=f"{named} knows targets up to {newest}", wanted=wanted)
        else:
            yield IGNORANT.finding(
                file=file.path, found=f"no target found in {named}", wanted=wanted, severity="warning"
            )


def _floor(files: Iterable[File], target: Capability) -> Iterator[Finding]:
    """Tell the highest that anything asks for, of what the target would use."""
    highest = max(drivers.needs(files, target), default=None)
    if highest is not None:
        wanted = f"a driver newer than r{highest.driver}" if highest.newer else f"driver r{highest.driver} or newer"
        yield FLOOR.finding(file=highest.path, found=highest.what, wanted=wanted)


def _wanted(target: Capability) -> str:
    target = target.renamed
    family = f", or for its family (sm_{target.major}0f)" if target.major >= 10 else ""  # noqa: PLR2004  # the first with any
    return f"machine code for {target.named} ({target.own}){family}"


def _number(name: str) -> int:
    digits = "".join(letter for letter in name if letter.isdecimal())
    return int(digits or 0)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _shares(coverage: Coverage) -> str:
    units = (coverage.native, coverage.jit, coverage.dead, coverage.absent, coverage.unknown)
    words = ("native", "by JIT", "dead", "absent", "unknown")
    return f"of {_several(sum(units), 'unit')} " + ", ".join(
        f"{number} {word}" for number, word in zip(units, words, strict=True) if number
    )


def _named(counts: Iterable[tuple[str, int]]) -> str:
    """Return ``sm_80 x76, compute_80 x76``; the most frequent of many."""
    found = list(counts)
    shown = found if len(found) <= _MOST_NAMED else sorted(found, key=lambda one: -one[1])[:_MOST_NAMED]
    more = [f"{len(found) - len(shown)} more"] if len(found) > len(shown) else []
    return ", ".join([*(f"{name} x{number}" for name, number in shown), *more])


def _sum(every: Iterable[dict[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in every:
        found.update(one)
    return found


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
