"""What a wheel or an installed distribution declares in METADATA, as far as it holds on a Linux target."""

from __future__ import annotations

import contextlib
import functools
import itertools
from typing import TYPE_CHECKING

from builder.wheel.read import header, header_lines, headers, normalised

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    from builder.audit.facts import Contents

__all__ = ["declared", "floor", "optional", "requirements", "requires_python", "satisfied"]

#: The Python of the target's operating system (Ubuntu 24.04), for a wheel that fits more than one.
_PYTHON = "3.12"
#: No minor of Python 3 is above it.
_LAST_MINOR = 60
_MOST_EXTRAS = 100


@functools.lru_cache(maxsize=64)
def _written(metadata: bytes) -> tuple[Requirement, ...]:
    """Return all that METADATA requires, whatever the marker. Installers complain about what is none."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    found = []
    for lines in header_lines(metadata):
        key, _colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        if key.strip().lower() == b"requires-dist":
            with contextlib.suppress(InvalidRequirement, ValueError, RecursionError):
                found.append(Requirement(value.decode(errors="replace")))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _parsed(metadata: bytes, machine: str, python: str, extra: str = "") -> tuple[Requirement, ...]:
    from packaging.markers import UndefinedEnvironmentName  # noqa: PLC0415

    environment = {
        "extra": extra,
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    found = []
    for one in _written(metadata):
        with contextlib.suppress(UndefinedEnvironmentName, ValueError, RecursionError):
            if one.marker is None or one.marker.evaluate(environment):
                found.append(one)
    return tuple(found)


def requirements(contents: Contents) -> tuple[Requirement, ...]:
    """Return the requirements that hold without an extra, on Linux, the wheel's machine and its Python (else 3.12)."""
    return _parsed(contents.metadata, *_environment(contents))


def optional(contents: Contents) -> frozenset[str]:
    """Return the names of the projects that it requires with one of its extras only, normalised."""
    extras = itertools.islice(headers(contents.metadata, "Provides-Extra"), _MOST_EXTRAS)
    every = [one for extra in extras for one in _parsed(contents.metadata, *_environment(contents), extra)]
    return frozenset(normalised(one.name) for one in every) - declared(contents)


def _environment(contents: Contents) -> tuple[str, str]:
    """Return the machine, and the Python as ``3.12``, that it is for."""
    tags = [tag.split("-") for tag in contents.tags if tag.count("-") == 2]  # noqa: PLR2004  # python-abi-platform
    machine = next((name for name in ("x86_64", "aarch64") for tag in tags if tag[2].endswith(name)), "aarch64")
    pythons = [tag[0] for tag in tags if tag[0].startswith("cp3") and tag[1] != "abi3" and tag[0][3:].isdigit()]
    return machine, f"3.{pythons[0][3:]}" if pythons else _PYTHON


def satisfied(one: Requirement, version: str) -> bool:
    """Whether `version` is one that `one` allows; a pre-release counts as any other. True when it is no version at all."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        return one.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def declared(contents: Contents) -> frozenset[str]:
    """Return the names of the projects that it requires, normalised."""
    return frozenset(normalised(one.name) for one in requirements(contents))


def requires_python(contents: Contents) -> SpecifierSet | None:
    """Return Requires-Python, or None where there is none that can be read."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    text = header(contents.metadata, "Requires-Python")
    try:
        return SpecifierSet(text) if text else None
    except InvalidSpecifier:
        return None


def floor(specifier: SpecifierSet | None) -> int:
    """Return the first minor of Python 3 that `specifier` allows; 0 when it allows all or none."""
    if specifier is None:
        return 0
    allowed = (
        minor
        for minor in range(_LAST_MINOR)
        if specifier.contains(f"3.{minor}.0", prereleases=True) or specifier.contains(f"3.{minor}.99", prereleases=True)
    )
    return next(allowed, 0)
