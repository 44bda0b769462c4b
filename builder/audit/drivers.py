"""Which driver device code needs: a branch such as 580, from the PTX ISA and from the toolkit that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from builder.audit.target import running, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.audit.facts import DeviceCode, File, Program, Unit
    from builder.audit.target import Capability

__all__ = ["Need", "needs"]

#: First driver branch that compiles a PTX ISA, the oldest first: "PTX ISA", "Release Notes", table "PTX Release History".
_PTX_DRIVERS = {
    (7, 0): 445,
    (7, 1): 455,
    (7, 2): 460,
    (7, 3): 465,
    (7, 4): 470,
    (7, 5): 495,
    (7, 6): 510,
    (7, 7): 515,
    (7, 8): 520,
    (8, 0): 525,
    (8, 1): 530,
    (8, 2): 535,
    (8, 3): 545,
    (8, 4): 550,
    (8, 5): 555,
    (8, 6): 565,
    (8, 7): 570,
    (8, 8): 575,
    (9, 0): 580,
    (9, 1): 590,
    (9, 2): 595,
    (9, 3): 610,
    (9, 4): 615,
}

#: First driver branch that loads a major's machine code: "CUDA Compatibility", "Minor Version Compatibility".
_CUBIN_DRIVERS = {11: 450, 12: 525, 13: 580}

_OLDEST_PTX, _NEWEST_PTX = min(_PTX_DRIVERS), max(_PTX_DRIVERS)


class Need(NamedTuple):
    """What the file at `path` asks of the driver: the branch `driver`, or one that is newer than that. More is greater."""

    driver: int
    newer: bool
    what: str
    path: str


def needs(files: Iterable[File], target: Capability) -> Iterator[Need]:
    """Yield what `files` ask of the driver of `target`, as far as versions could be read: of what it would use of them."""
    for file in files:
        if file.device is not None:
            yield from _loaded(file.device, file.path, target)
        if file.program is not None and file.program.name.startswith("ptxas") and target.owns & file.program.targets:
            yield from _made(file.program, file.path)


def _loaded(code: DeviceCode, path: str, target: Capability) -> Iterator[Need]:
    for kind, version in {_used(unit, target) for unit in running(code)}:
        number = _version(version)
        if number is None:
            continue
        if kind == "cubin":
            if number[0] in _CUBIN_DRIVERS:
                yield Need(_CUBIN_DRIVERS[number[0]], newer=False, what=f"machine code of CUDA {version}", path=path)
        elif number > _NEWEST_PTX:
            yield Need(_PTX_DRIVERS[_NEWEST_PTX], newer=True, what=f"PTX ISA {version}", path=path)
        elif number >= _OLDEST_PTX:
            driver = next(branch for isa, branch in _PTX_DRIVERS.items() if isa >= number)
            yield Need(driver, newer=False, what=f"PTX ISA {version}", path=path)


def _used(unit: Unit, target: Capability) -> tuple[str, str]:
    """Return kind and version of the image that the driver takes: the newest that it loads, else the newest to compile."""
    for kind, wanted in (("cubin", "native"), ("ptx", "jit")):
        usable = [image for image in unit.images if verdict(image, target) == wanted]
        if usable:
            return kind, max(usable, key=lambda image: image.sm).version
    return "", ""


def _made(program: Program, path: str) -> Iterator[Need]:
    number = _version(program.version)
    if number is not None and number[0] in _CUBIN_DRIVERS:
        what = f"what {program.name} {program.version} makes"
        yield Need(_CUBIN_DRIVERS[number[0]], newer=False, what=what, path=path)


def _version(text: str) -> tuple[int, int] | None:
    major, _dot, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
