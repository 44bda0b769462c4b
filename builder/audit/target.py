"""The compatibility rule of device code, for any target.

Where the rule is from: "CUDA C++ Programming Guide", "Compute Capabilities" with "Family-Specific Features" and
"Architecture-Specific Features", and "Binary Compatibility" and "PTX Compatibility" beside them:

======== ========================================== =====================================
code     machine code (cubin)                       PTX
======== ========================================== =====================================
plain    same major, the same or a higher minor     any capability that is the same or higher
``f``    the same family, the same or higher minor  the same
``a``    exactly that capability                    exactly that capability
======== ========================================== =====================================

A family is the capabilities of one major, from the named one on. PTX needs a driver that knows its ISA, which is looked at
elsewhere. LTO IR runs nowhere before something has linked it.

Exceptions, as PyTorch keeps them too (``torch/cuda/__init__.py``, ``DEVICE_REQUIREMENT``): compute capability 10.1 was
renamed 11.0 with CUDA 13.0, so both names mean one chip, and it isn't of 10.0's family; machine code for a Tegra chip (5.3,
6.2, 7.2, 8.7, 11.0) runs on that chip only. A Tegra chip takes code of its major's other chips since CUDA 13.2 only: here
it does.
GB10 is 12.1 and no Tegra chip.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from builder.errors import UsageError
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.audit.facts import DeviceCode, Image, Unit

__all__ = ["RELOCATABLE", "Capability", "Coverage", "Verdict", "architectures", "cover", "running", "total", "verdict"]

#: ``native``: machine code that the target loads. ``jit``: the driver has to compile PTX at the first start. ``dead``: made
#: for the target's generation, and refused by it (``sm_120a`` on 12.1). ``absent``: nothing for it. ``none``: no device code
#: at all. ``unknown``: it couldn't be read, so nothing is claimed.
Verdict = Literal["native", "jit", "dead", "absent", "none", "unknown"]

#: What the driver takes first; what can't be read might be native, so only what is sure goes before it.
_BEST: tuple[Verdict, ...] = ("native", "jit", "unknown", "dead", "absent")

_TEGRA = frozenset({(3, 2), (5, 3), (6, 2), (7, 2), (8, 7), (11, 0)})

_WRITTEN = re.compile(r"(?:(?:sm|compute)_)?(?:(\d{1,2})\.(\d)|(\d{1,2})(\d))[af]?", re.ASCII)

#: The oldest that the newest toolkits know of is 5.0; below that, ``12`` would be 1.2 and not what is meant.
_OLDEST = 2

_FIRST_WITH_A = 90
_LETTERS: tuple[Literal["", "a", "f"], ...] = ("", "a", "f")

#: The section of device code that nvlink has still to link.
RELOCATABLE = "__nv_relfatbin"


class Capability(NamedTuple):
    """A compute capability, such as 12.1; a higher one is greater."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Capability:
        """Return the capability that ``12.1``, ``12.1a``, ``sm_121`` or ``121`` names; raise UsageError ``target``."""
        if found := _WRITTEN.fullmatch(text.strip()):
            major, minor = (int(digits) for digits in found.groups() if digits)
            if major >= _OLDEST:
                return cls(major, minor)
        raise UsageError(
            "target",
            f"{text!r} names no compute capability",
            cause="wanted a number such as 12.1 (DGX Spark), 12.0, 10.0 or 9.0; sm_121 is taken too",
            run=("spark-build audit WHEEL --target 12.1",),
        )

    @classmethod
    def of(cls, sm: int) -> Capability:
        """Return the capability of an SM number: 12.1 for 121, and 11.0 for 101, which has that name now."""
        return cls(*divmod(sm, 10)).renamed

    @property
    def renamed(self) -> Capability:
        """The name that it has since CUDA 13.0."""
        return Capability(11, 0) if (self.major, self.minor) == (10, 1) else self

    @property
    def sm(self) -> int:
        """The SM number, 121 for 12.1."""
        return self.major * 10 + self.minor

    @property
    def own(self) -> str:
        """The architecture that is made for it and nothing else: ``sm_121a``; chips before 9.0 have no such ``a``."""
        return f"sm_{self.sm}{'a' if self.sm >= _FIRST_WITH_A else ''}"

    @property
    def owns(self) -> frozenset[str]:
        """All names of what is made for it and nothing else: 11.0's is ``sm_101a``, too, in what is older than CUDA 13.0."""
        alias = {Capability(10, 1).own} if self.renamed == Capability(11, 0) else set[str]()
        return frozenset({self.renamed.own, *alias})

    @property
    def named(self) -> str:
        """What people call it: ``12.1, a DGX Spark``, where there is such a name."""
        return f"{self}, a DGX Spark" if self == Capability(12, 1) else str(self)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What one file, or a whole wheel, offers a target. Units count containers, bytes those of images as stored.

    `unknown` counts units that hold an image which nobody can read, or whose letter decides and isn't noted, and none that
    runs. `other_bytes` are those of images
    that the target can't use.
    """

    verdict: Verdict
    native: int = 0
    jit: int = 0
    dead: int = 0
    absent: int = 0
    unknown: int = 0
    native_bytes: int = 0
    jit_bytes: int = 0
    other_bytes: int = 0


def verdict(one: Image | Unit, target: Capability) -> Verdict:
    """Return what `target` makes of one image, or of the best image of a unit; an empty unit is ``absent``."""
    images = getattr(one, "images", None)
    if images is None:
        return _image(one, target.renamed)  # type: ignore[arg-type]  # what has no images is one
    found = {_image(image, target.renamed) for image in images}
    return next((kind for kind in _BEST if kind in found), "absent")


def _image(image: Image, target: Capability) -> Verdict:
    if image.kind == "unknown":
        return "unknown"
    if image.variant == "?":
        # Mostly it makes no difference: machine code for 9.0 is nothing for 12.1, whatever its letter.
        each = {_image(replace(image, variant=letter), target) for letter in _LETTERS}
        return each.pop() if len(each) == 1 else "unknown"
    made_for = Capability.of(image.sm)
    if image.kind == "cubin" and _loads(made_for, image.variant, target):
        return "native"
    if image.kind == "ptx" and _compiles(made_for, image.variant, target):
        return "jit"
    return "dead" if made_for.major == target.major and image.kind != "lto-ir" else "absent"


def _loads(made_for: Capability, variant: str, target: Capability) -> bool:
    if variant == "a" or (made_for.major, made_for.minor) in _TEGRA:
        return made_for == target
    return _family(made_for, target)


def _compiles(made_for: Capability, variant: str, target: Capability) -> bool:
    if variant == "a":
        return made_for == target
    return _family(made_for, target) if variant == "f" else made_for <= target


def _family(made_for: Capability, target: Capability) -> bool:
    return made_for.major == target.major and made_for.minor <= target.minor


def running(code: DeviceCode) -> tuple[Unit, ...]:
    """Return the units that a driver is handed: all, but in a linked library not the relocatable ones.

    Those stay in the file after nvlink has made of them what runs; only where nothing was linked are they all there is.
    """
    linked = tuple(unit for unit in code.units if not _left_behind(unit))
    return linked or code.units


def _left_behind(unit: Unit) -> bool:
    return unit.section.startswith(RELOCATABLE)


def cover(code: DeviceCode | None, target: Capability) -> Coverage:
    """Return what a file's device code offers `target`.

    ``none`` is only said of a file that was read to its end; one of which a part couldn't be read is ``native`` when another
    part is, else ``unknown``. What isn't `running` counts as bytes only.
    """
    if code is None:
        return Coverage(verdict="none")
    judged = _Judged(target.renamed)
    units = dict.fromkeys(_BEST, 0)
    held = dict.fromkeys(_BEST, 0)
    loaded = running(code)
    for unit in loaded:
        found = [judged.add(image, held) for image in unit.images]
        units[min(found, key=_BEST.index) if found else "absent"] += 1
    if len(loaded) < len(code.units):
        held["absent"] += sum(image.size for unit in code.units if _left_behind(unit) for image in unit.images)
    return Coverage(
        verdict=_whole(units, damaged=bool(code.unknown)),
        native=units["native"],
        jit=units["jit"],
        dead=units["dead"],
        absent=units["absent"],
        unknown=units["unknown"],
        native_bytes=held["native"],
        jit_bytes=held["jit"],
        other_bytes=held["dead"] + held["absent"] + held["unknown"],
    )


class _Judged:
    """Judges each kind of image once: libraries hold thousands of images of few kinds."""

    def __init__(self, target: Capability) -> None:
        self._target = target
        self._known: dict[tuple[str, int, str], Verdict] = {}

    def add(self, image: Image, held: dict[Verdict, int]) -> Verdict:
        key = (image.kind, image.sm, image.variant)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _image(image, self._target)
        held[found] += image.size
        return found


def _whole(units: dict[Verdict, int], *, damaged: bool) -> Verdict:
    """Return the verdict of a file or wheel with `units`, of which a part couldn't be read when `damaged`."""
    if units["native"]:
        return "native"
    if damaged or units["unknown"]:
        return "unknown"
    rest: tuple[Verdict, ...] = ("jit", "dead", "absent")
    return next((kind for kind in rest if units[kind]), "none")


def total(coverages: Iterable[Coverage]) -> Coverage:
    """Return the sum of `coverages`: what a wheel offers, out of what its files do."""
    every = tuple(coverages)
    units: dict[Verdict, int] = {
        "native": sum(one.native for one in every),
        "jit": sum(one.jit for one in every),
        "dead": sum(one.dead for one in every),
        "absent": sum(one.absent for one in every),
        "unknown": sum(one.unknown for one in every),
    }
    return Coverage(
        verdict=_whole(units, damaged=any(one.verdict == "unknown" for one in every)),
        native=units["native"],
        jit=units["jit"],
        dead=units["dead"],
        absent=units["absent"],
        unknown=units["unknown"],
        native_bytes=sum(one.native_bytes for one in every),
        jit_bytes=sum(one.jit_bytes for one in every),
        other_bytes=sum(one.other_bytes for one in every),
    )


def architectures(code: DeviceCode | None) -> dict[str, int]:
    """Return how many images there are of each architecture, the oldest first: ``{"sm_90a": 1, "compute_120": 4}``."""
    found = Counter(image for unit in (code.units if code else ()) for image in map(_known, unit.images))
    return {name: found[sm, kind, name] for sm, kind, name in sorted(found)}


def _known(image: Image) -> tuple[int, str, str]:
    """Return what an image is sorted and named by; text of another kind than PTX says so."""
    if image.kind in {"cubin", "ptx"}:
        return image.sm, image.kind, image.arch
    return image.sm, image.kind, f"{image.kind} {image.arch}" if image.sm else image.kind
