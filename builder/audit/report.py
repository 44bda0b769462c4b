"""What was found out about one wheel, and whether it is refused."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import TYPE_CHECKING

from builder.audit.rules import NEVER
from builder.audit.target import cover, total
from builder.recipe.units import show_bytes
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.audit.context import Accepted, Context
    from builder.audit.facts import Contents, DeviceCode, File, Image
    from builder.audit.rules import Finding
    from builder.audit.target import Capability, Coverage

__all__ = ["JSON_VERSION", "Counted", "Report", "audit", "counted", "judge", "percent", "together", "worth_telling"]

#: Of `Report.as_json`. Keys may be added under the same number.
JSON_VERSION = 1

_SEVERITIES = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How many images of one kind and architecture a file holds, and the bytes that they take there."""

    kind: str
    arch: str
    count: int
    size: int

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {"kind": self.kind, "arch": self.arch, "count": self.count, "bytes": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Facts, coverage and findings of one wheel or one installed distribution.

    `coverage` has every file that could hold device code, by path; `total` is that of all of them. `findings` come errors
    first, then by file; those that were let pass say why, and stand behind the others of their severity. `accepted` is what
    lets them.
    """

    contents: Contents
    target: Capability
    coverage: Mapping[str, Coverage]
    total: Coverage
    findings: tuple[Finding, ...]
    accepted: tuple[Accepted, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse it."""
        return tuple(one for one in self.findings if one.severity == "error" and not one.accepted)

    @property
    def refused(self) -> bool:
        """Whether it may not be handed out."""
        return bool(self.errors)

    @property
    def device_bytes(self) -> int:
        """The bytes of all device code, as stored in the files."""
        return self.total.native_bytes + self.total.jit_bytes + self.total.other_bytes

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings that nobody let pass."""
        return tuple(one for one in self.findings if not one.accepted)

    def plus(self, findings: Iterable[Finding]) -> Report:
        """Return the report with what was found out by other means, such as a run; `accepted` counts for that, too."""
        more = _let_pass(findings, self.accepted)
        return replace(self, findings=tuple(sorted([*self.findings, *more], key=_order)))

    def line(self) -> str:
        """Return one line about it: what the device code offers the target, and how many findings are open."""
        counts = Counter[str](one.severity for one in self.open)
        told = [_plural(counts[word], word) for word in _SEVERITIES if word != "info" and counts[word]]
        return f"{self.contents.project}: {', '.join([self.device_line(), *told])}"

    def device_line(self) -> str:
        """Return what the device code offers the target, in shares of its bytes."""
        unread = sum(1 for file in self.contents.files if file.damage or (file.device and file.device.unknown))
        rest = [f"{_plural(unread, 'file')} can't be read to the end"] if unread else []
        if not self.device_bytes:
            return ", ".join(["no device code", *rest])
        whole, every = self.device_bytes, self.total
        told = [f"{percent(every.native_bytes, whole)} of {show_bytes(whole)} device code is native to {self.target}"]
        if every.jit_bytes:
            told.append(f"{percent(every.jit_bytes, whole)} goes through the driver's compiler")
        if every.other_bytes:
            told.append(f"{percent(every.other_bytes, whole)} is never used there")
        return ", ".join([*told, *rest])

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints, and what goes into the catalogue and the provenance: no path, no time."""
        contents = self.contents
        return {
            "version": JSON_VERSION,
            "wheel": {
                "filename": contents.filename or None,
                "project": contents.project,
                "version": contents.version,
                "sha256": contents.sha256 or None,
                "size": contents.size,
                "tags": list(contents.tags),
                "files": len(contents.files),
                "unpacked": sum(file.size for file in contents.files),
            },
            "target": str(self.target),
            "files": [self._file(file) for file in contents.files if worth_telling(file)],
            "total": _coverage(self.total),
            "findings": [one.as_json() for one in self.findings],
            "refused": self.refused,
        }

    def _file(self, file: File) -> dict[str, object]:
        program = file.program
        return {
            "path": file.path,
            "size": file.size,
            "machine": file.elf.machine if file.elf else None,
            "coverage": _coverage(self.coverage[file.path]) if file.path in self.coverage else None,
            "images": [one.as_json() for one in counted(file.device)],
            "unknown": (file.device.unknown if file.device else "") or file.damage or None,
            "program": {"name": program.name, "version": program.version, "targets": sorted(program.targets)}
            if program
            else None,
        }


def audit(path: Path, context: Context, *, on_read: Callable[[int, int], None] = lambda _done, _total: None) -> Report:
    """Return the report on the wheel at `path`, read once; `on_read` is told bytes read and bytes in all.

    Raises what `contents.read` does; whatever the wheel holds is in the report.
    """
    from builder.audit import contents  # noqa: PLC0415  # brings the readers

    return judge(contents.read(path, on_read=on_read), context)


def judge(contents: Contents, context: Context) -> Report:
    """Return the report on what was read. Pure: the same facts give the same report."""
    coverage = {file.path: cover(file.device, context.target) for file in contents.files if file.device is not None}
    report = Report(
        contents=contents,
        target=context.target,
        coverage=coverage,
        total=total(coverage.values()),
        findings=(),
        accepted=context.expected.accepted,
    )
    return report.plus(_judged(contents, context))


def together(reports: Sequence[Report], where: Path, name: str) -> Report:
    """Return one report on all that is installed at `where`; each finding names the package."""
    first = reports[0]
    files = tuple(file for one in reports for file in one.contents.files)
    findings = [
        replace(found, file=f"{found.file} ({one.contents.project})" if found.file else one.contents.project)
        for one in reports
        for found in one.findings
    ]
    return Report(
        contents=replace(
            first.contents,
            where=where,
            project=name,
            version=_plural(len(reports), "package"),
            size=sum(file.size for file in files),
            files=files,
        ),
        target=first.target,
        coverage={path: coverage for one in reports for path, coverage in one.coverage.items()},
        total=total(one.total for one in reports),
        findings=tuple(sorted(findings, key=_order)),
    )


def counted(code: DeviceCode | None) -> tuple[Counted, ...]:
    """Return the images of a file by kind and architecture: machine code first, the lowest architecture first."""
    tally: dict[tuple[bool, int, str, str], list[Image]] = {}
    for unit in code.units if code else ():
        for image in unit.images:
            tally.setdefault((image.kind != "cubin", image.sm, image.variant, image.kind), []).append(image)
    return tuple(
        Counted(kind=key[3], arch=images[0].arch, count=len(images), size=sum(image.size for image in images))
        for key, images in sorted(tally.items())
    )


def percent(part: int, whole: int) -> str:
    """Return a share as people write it: 100 % is all, 0 % is nothing."""
    if not part or part >= whole:
        return "100 %" if part else "0 %"
    share = round(100 * part / whole)
    return f"{share} %" if 0 < share < 100 else "<1 %" if not share else ">99 %"  # noqa: PLR2004  # per cent


def worth_telling(file: File) -> bool:
    """Whether a report has a line about `file`: a library, a program, device code, or what couldn't be read."""
    return bool(file.elf or file.program or file.damage or (file.device and (file.device.units or file.device.unknown)))


def _judged(contents: Contents, context: Context) -> Iterator[Finding]:
    from builder.audit import device, files, installed, labels, linkage, sets  # noqa: PLC0415  # each brings its reader

    for one in (files, labels, linkage, device, sets, installed):
        yield from one.judge(contents, context)


def _let_pass(findings: Iterable[Finding], accepted: Sequence[Accepted]) -> Iterator[Finding]:
    good = [one for one in accepted if one.id not in NEVER]
    for finding in findings:
        let = next((one for one in good if one.id == finding.id and fnmatch.fnmatchcase(finding.file, one.file)), None)
        yield replace(finding, accepted=let.reason or "accepted") if let else finding


def _order(finding: Finding) -> tuple[int, bool, str, str, str]:
    return _SEVERITIES[finding.severity], bool(finding.accepted), finding.file, finding.id, finding.found


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _coverage(one: Coverage) -> dict[str, object]:
    return {
        "verdict": one.verdict,
        "units": {
            "native": one.native,
            "jit": one.jit,
            "dead": one.dead,
            "absent": one.absent,
            "unknown": one.unknown,
        },
        "bytes": {"native": one.native_bytes, "jit": one.jit_bytes, "other": one.other_bytes},
    }
