"""Why a build failed, by what it printed and what the gate measured.

The catalogue (`failures`) is asked three times, each time with more lines: the first error itself, all that the failing step
printed, the whole log. A compiler that says what is wrong with a source ends the search before the third: what stands
elsewhere in the log is then no reason.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from builder.errors import BuildFailed
from builder.executor import failures, network
from builder.executor.excerpt import error_block, first_error, plain, points_at_source
from builder.recipe.units import show_bytes
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.events import UnitEnded
    from builder.executor.failures import Failure
    from builder.stages import Nested

__all__ = ["UNKNOWN", "Diagnosis", "UnitFacts", "diagnose", "failed", "failed_unit", "failing_step", "filled"]

#: ninja names what could not be made, newer ones with the exit code; make names the target.
_FAILED = re.compile(r"^FAILED: (?:\[code=(?P<code>-?\d+)\] )?(?P<objects>\S.*)$")
_MAKE = re.compile(r"^make(?:\[\d+\])?: \*\*\* \[(?:\S+:\d+: )?(?P<object>\S+)\] (?P<how>Killed|Error (?P<code>\d+))")
_STEP = re.compile(r"^\[\d+/\d+\]|^ninja: build stopped|^make(?:\[\d+\])?: ")
#: What a compiler's own error is about.
_SOURCE = re.compile(r"^(?P<file>[^\s:(][^:(]*?\.\w+)(?::\d+(?::\d+)?: (?:fatal )?error:|\(\d+\): error\b)")
#: How build tools tell another's exit code.
_CODE = re.compile(r"non-zero exit status (-?\d+)|exited with (?:code )?(-?\d+)|\bexit (?:code|status):? (-?\d+)")
#: Exit codes of a process that SIGKILL or SIGTERM ended: a shell's, Python's, and the bare number that CMake passes on.
_MEMORY_CODES = frozenset({137, 143, -9, -15, 9})


#: What stands in a command for what nobody told.
UNKNOWN = {"recipe": "NAME", "ref": "REF", "python": "PYTHON", "torch": "torch==VERSION"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """What the gate knows of the unit that failed; sizes in bytes, 0 for what is not known.

    `beside` is how many others ran when it took most; `available_bytes` is what the machine had left at its end.
    """

    name: str
    peak_bytes: int = 0
    reserved_bytes: int = 0
    attempts: int = 1
    available_bytes: int = 0
    beside: int = 0
    code: int = 0

    @property
    def crowded(self) -> bool:
        """Whether memory may have been short: it had company, was run again, or less was left than it had been given."""
        return self.beside > 0 or self.attempts > 1 or 0 < self.available_bytes < self.reserved_bytes

    def told(self) -> str:
        """Return one line: what it needed, what was expected, and what else went on."""
        parts = []
        if self.peak_bytes:
            expected = f" ({show_bytes(self.reserved_bytes)} were reserved)" if self.reserved_bytes else ""
            parts.append(f"{self.name} needed {show_bytes(self.peak_bytes)}{expected}")
        if self.attempts > 1:
            parts.append(f"it was tried {self.attempts} times")
        if self.peak_bytes:
            parts.append({0: "nothing else ran", 1: "one other ran"}.get(self.beside, f"{self.beside} others ran"))
        if self.available_bytes:
            parts.append(f"{show_bytes(self.available_bytes)} were available at its end")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known about a failure: `id` names the entry, `cause` explains, `help` and `run` say how to go on."""

    id: str
    summary: str
    cause: str
    help: str
    run: tuple[str, ...]
    line: str = ""
    memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The step that failed first: the files that it should have made, its source if it said so, its exit code, its lines."""

    objects: tuple[str, ...] = ()
    source: str = ""
    code: int | None = None
    lines: tuple[str, ...] = ()


def failed(  # noqa: PLR0913  # everything that a failure is told by
    lines: Sequence[str],
    *,
    output: str,
    recipe: str,
    hook: str,
    code: int,
    ref: str,
    cut_off: bool,
    units: Sequence[UnitEnded] = (),
    nested: Sequence[Nested] = (),
    catalogue: Path = failures.CATALOGUE,
) -> BuildFailed:
    """Return the error for a build of `output` whose `hook` ended with `code` after printing `lines`.

    `units` are the gate's records of this build, `nested` what it was given back, `cut_off` is whether it had no network.
    The error's code is the name of the catalogue's entry, ``network-reached``, ``nested-ref``, or ``build-failed`` where
    nothing is known. A damaged catalogue costs its help only.
    """
    run = (f"spark-build log {ref} --failed",)
    excerpt = first_error(lines)
    wanted = network.reached(lines) if cut_off else None
    if wanted is not None:
        return network.failed(lines, wanted, output=output, excerpt=excerpt, nested=nested, run=run)
    if other := network.other_ref(lines, output=output, nested=nested, excerpt=excerpt, run=run):
        return other
    unit = failed_unit(lines, units)
    at = f" at {unit.name}" if unit else ""
    note, known = "", None
    try:
        entries = failures.load(catalogue)
        known = diagnose(lines, recipe=recipe, ref=ref, unit=unit, codes=(code,), catalogue=entries)
    except (failures.CatalogueError, OSError) as error:
        note = f"; the catalogue of failures can't be read: {str(error).splitlines()[0]}"
    if known is not None:
        return BuildFailed(
            known.id,
            f"the build of {output} failed{at}: {known.summary}",
            cause="\n".join([*_quoted(excerpt, known.line), *_memory(unit, always=known.memory), known.cause]),
            help=known.help,
            run=(*known.run, *run),
        )
    how = f"killed by signal {code - 128}" if code > 128 else f"exit {code}"  # noqa: PLR2004  # as shells count
    return BuildFailed(
        "build-failed",
        f"the build of {output} failed in {hook}{at} ({how})",
        cause="\n".join([*excerpt, *_memory(unit, always=False)]),
        help=f"its tree is kept: the same command goes on there{note}",
        run=(*run, f"spark-build rerun {ref}"),
    )


def diagnose(
    lines: Sequence[str],
    *,
    recipe: str,
    phase: str = "build",
    ref: str = "REF",
    unit: UnitFacts | None = None,
    codes: Sequence[int] = (),
    catalogue: Sequence[Failure] | None = None,
) -> Diagnosis | None:
    """Return what the catalogue knows about a log, or None. Pure when `catalogue` is given.

    `codes` are exit codes that are known besides those in the log; an empty `phase` means any. Raises CatalogueError and
    OSError when the shipped catalogue is damaged.
    """
    text = plain(lines)
    step = failing_step(text)
    told = {*codes, *_codes(text), *([step.code] if step.code is not None else ()), *([unit.code] if unit else ())}
    facts = {"killed": bool(told & _MEMORY_CODES), "crowded": unit is not None and unit.crowded}
    block = error_block(text)
    settled = bool(block) and points_at_source(block[0])
    able = [
        (one, elsewhere)
        for one in (catalogue or failures.load())
        if one.applies(recipe, phase) and all(facts[need] for need in one.needs)
        if (elsewhere := _elsewhere(one, text)) is not None
    ]
    places = {**UNKNOWN, "recipe": recipe, "ref": ref}
    for shown, whole in ((_unwrapped(block), False), (list(step.lines), False), (_unwrapped(text), True)):
        if whole and settled:
            break
        for one, elsewhere in able:
            found = _match(one, shown, places | elsewhere) if one.tail or not whole else None
            if found:
                return found
    # Only after the log said nothing: a signal alone is the weakest of signs.
    silent = next((one for one, _ in able if not one.signature), None)
    return filled(silent, places, "") if silent and not settled else None


def _elsewhere(one: Failure, lines: Sequence[str]) -> dict[str, str] | None:
    """Return what the groups of `log` found; None when one of its patterns isn't there."""
    named: dict[str, str] = {}
    for pattern in one.log:
        found = next(filter(None, map(pattern.search, lines)), None)
        if found is None:
            return None
        named |= {key: value or "" for key, value in found.groupdict().items()}
    return named


def _unwrapped(lines: Sequence[str]) -> list[str]:
    """Return the lines and, after them, the paragraphs of CMake's errors as one line each: CMake wraps its messages."""
    found, paragraph, inside = list(lines), list[str](), False
    for line in [*lines, ""]:
        if line.startswith("  ") and inside:
            paragraph.append(line.strip())
            continue
        if len(paragraph) > 1:
            found.append(" ".join(paragraph))
        paragraph = []
        inside = line.startswith("CMake Error") or (inside and not line)
    return found


def _match(one: Failure, lines: Sequence[str], places: dict[str, str]) -> Diagnosis | None:
    for line in lines:
        for pattern in one.signature:
            found = pattern.search(line)
            if not found:
                continue
            named = places | {key: value or "" for key, value in found.groupdict().items()}
            if one.packages is not None:
                package = one.packages.get(named["header"])
                if package is None:
                    continue
                named["package"] = package
            return filled(one, named, line)
    return None


def filled(one: Failure, named: Mapping[str, str], line: str) -> Diagnosis:
    """Return what an entry says once its places are `named`; `line` is where it was found."""
    return Diagnosis(
        id=one.id,
        summary=one.summary.format_map(named).rstrip(),
        cause=one.cause.format_map(named),
        help=one.fix.format_map(named),
        run=tuple(command.format_map(named) for command in one.run),
        line=line,
        memory=one.memory,
    )


def _quoted(excerpt: Sequence[str], line: str) -> Iterator[str]:
    """Yield what the tool said; the line that told the cause, too, where that isn't among it."""
    yield from excerpt
    if line and not any(line[:100] in one for one in excerpt):
        yield line if len(line) <= 300 else line[:299] + "…"  # noqa: PLR2004  # as an excerpt's


def _memory(unit: UnitFacts | None, *, always: bool) -> Iterator[str]:
    if unit is not None and (always or unit.attempts > 1) and unit.told():
        yield unit.told()


def failing_step(lines: Sequence[str]) -> Step:
    """Return the step that failed first, by ninja's or make's words, else by a compiler's; empty when nobody says it."""
    for at, line in enumerate(lines):
        ninja = _FAILED.match(line)
        if ninja:
            own = _until(lines, at + 1)
            code = int(ninja["code"]) if ninja["code"] else None
            return Step(objects=tuple(ninja["objects"].split()), source=_source(own), code=code, lines=tuple(own[1:]))
        make = _MAKE.match(line)
        if make:
            start = max((back for back in range(at) if _STEP.match(lines[back])), default=-1) + 1
            own = [*lines[start:at], line]
            code = 137 if make["how"] == "Killed" else int(make["code"])
            return Step(objects=(make["object"],), source=_source(own), code=code, lines=tuple(own))
    return Step(source=_source(lines))


def _until(lines: Sequence[str], start: int) -> list[str]:
    kept = []
    for line in lines[start:]:
        if _STEP.match(line) or _FAILED.match(line):
            break
        kept.append(line)
    return kept


def _source(lines: Sequence[str]) -> str:
    for line in lines:
        found = _SOURCE.match(line)
        if found:
            return found["file"]
    return ""


def _codes(lines: Sequence[str]) -> Iterator[int]:
    for line in lines:
        found = _CODE.search(line)
        if found:
            yield int(next(group for group in found.groups() if group))


def failed_unit(lines: Sequence[str], units: Sequence[UnitEnded]) -> UnitFacts | None:
    """Return the record of the unit that failed first.

    It is the one that the log names; where the log names none, the first record of a failure.
    """
    broken = [unit for unit in units if not unit.ok]
    step = failing_step(plain(lines))
    wanted = [*step.objects, *([step.source] if step.source else [])]
    if wanted:
        broken = [unit for unit in broken if any(_same(unit, path) for path in wanted)]
    return _facts(broken[0]) if broken else None


def _same(unit: UnitEnded, path: str) -> bool:
    """Whether a record is about this file: one of the two paths ends like the other."""
    wanted = PurePath(path).parts
    for text in (unit.unit, unit.name):
        own = PurePath(text.split(" ", 1)[0]).parts
        shorter = min(len(own), len(wanted))
        if shorter and own[-shorter:] == wanted[-shorter:]:
            return True
    # The object of a source is mostly named after it.
    stem = PurePath(path).name.removesuffix(".o")
    return bool(stem) and stem == PurePath(unit.name.split(" ", 1)[0]).name.removesuffix(".o")


def _facts(unit: UnitEnded) -> UnitFacts:
    return UnitFacts(
        name=unit.name,
        peak_bytes=unit.peak_bytes,
        reserved_bytes=unit.reserved_bytes,
        attempts=unit.attempts,
        available_bytes=unit.available_bytes,
        beside=unit.beside,
        code=unit.code,
    )
