"""What is wrong in METADATA, and what of it keeps an installer from taking the wheel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.wheel.read import header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.tags import Tag

    from builder.audit.facts import Contents
    from builder.audit.rules import Severity

__all__ = ["excludes", "mistakes"]

#: Headers of METADATA without which no installer goes on.
_READ = frozenset({"name", "version", "requires-dist"})
_MINORS = 40


def mistakes(contents: Contents) -> Mapping[Severity, list[str]]:
    """Return what is wrong: first what keeps an installer from taking the wheel (``error``), then the rest."""
    from packaging.metadata import Metadata  # noqa: PLC0415  # heavy

    found: dict[Severity, list[str]] = {"error": [], "warning": []}
    try:
        Metadata.from_email(contents.metadata)
    except ExceptionGroup as errors:
        for one in errors.exceptions:
            text = str(one).partition("\n")[0]
            # Half of all wheels name their licence before the version of the format that has it; nobody minds.
            if "introduced in metadata version" not in text:
                # What is installed already is past that.
                refused = contents.filename and _refused(getattr(one, "field", ""), text, contents.metadata)
                found["error" if refused else "warning"].append(text)
    return found


def excludes(requires: str, promised: frozenset[Tag]) -> bool:
    """Whether a Requires-Python lets no Python in that the tags are for. With the stable ABI later ones fit, too."""
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415

    if not _is_specifier(requires):
        return False
    allowed = SpecifierSet(requires)
    exact = [re.fullmatch(r"cp(3)(\d+)", tag.interpreter) for tag in promised if tag.abi.startswith("cp")]
    if not exact or len(exact) != len(promised):
        return False
    versions = [f"{one[1]}.{one[2]}.{patch}" for one in exact if one for patch in range(_MINORS)]
    return not any(allowed.contains(one, prereleases=True) for one in versions)


def _refused(field: str, text: str, metadata: bytes) -> bool:
    """Whether pip 26 or uv 0.13 refuse a wheel with this error in that field."""
    if text.endswith("has invalid data"):  # twice, which installers don't mind; or no UTF-8, which pip does
        return not _is_text(metadata)
    if field == "requires-python":  # both pass over quotes, and over the star of ">=3.6.*"
        return not _is_specifier(re.sub(r"(?<=\d)\.\*", "", (header(metadata, field) or "").strip("'\" ")))
    return field in _READ


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_specifier(text: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True
