"""Whether a condition holds. Conditions are data; this is all the meaning they have."""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.recipe.model import Condition, FileCondition, Recipe

__all__ = ["Facts", "effective_arch", "holds", "in_range"]


class Facts(Protocol):
    """What conditions may ask about."""

    @property
    def version(self) -> str | None:
        """The source's version; None for a commit that no version names."""

    @property
    def source(self) -> str:
        """The kind of source."""

    @property
    def arch(self) -> str:
        """The user's arch word."""

    @property
    def cuda(self) -> str | None:
        """The toolkit's version."""

    @property
    def torch(self) -> str | None:
        """Torch's version where the build uses it."""

    @property
    def output(self) -> str | None:
        """The output in question."""

    def contains(self, commit: str) -> bool:
        """Whether `commit` is an ancestor of the source's, or that itself."""

    def read(self, path: str) -> bytes | None:
        """Return a file of the tree, or None."""


def holds(condition: Condition | None, facts: Facts) -> bool:
    """Whether all that `condition` gives holds. No condition always holds; a version that nobody knows is in no range."""
    if condition is None:
        return True
    return (
        in_range(facts.version, condition.version)
        and in_range(facts.cuda, condition.cuda)
        and in_range(facts.torch, condition.torch)
        and (condition.arch is None or fnmatchcase(facts.arch, condition.arch))
        and (condition.output is None or (facts.output is not None and fnmatchcase(facts.output, condition.output)))
        and (condition.source is None or facts.source == condition.source)
        and (condition.contains is None or facts.contains(condition.contains))
        and (condition.lacks is None or not facts.contains(condition.lacks))
        and (condition.file is None or _file_holds(condition.file, facts))
    )


def effective_arch(recipe: Recipe, facts: Facts) -> tuple[str, ...]:
    """Return what the project gets for the user's arch word: by the last rule that holds, else the word itself.

    Raises UsageError ``arch-refused``, with the rule's reason, where that rule refuses the word.
    """
    for rule in reversed(recipe.arch_map):
        if fnmatchcase(facts.arch, rule.arch) and holds(rule.when, facts):
            if rule.refuse is not None:
                raise UsageError(
                    "arch-refused",
                    f"{recipe.name} isn't built for {facts.arch}",
                    cause=rule.refuse,
                    help="give another --arch",
                    run=(f"spark-build recipes show {recipe.name} --origin",),
                )
            return rule.to
    return (facts.arch,)


def in_range(version: str | None, wanted: str | None) -> bool:
    """Whether `version` lies in the PEP 440 range `wanted`; development versions count. No range takes anything."""
    if wanted is None:
        return True
    if version is None:
        return False
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415  # only recipes with ranges pay for it
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        return SpecifierSet(wanted).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _file_holds(condition: FileCondition, facts: Facts) -> bool:
    content = facts.read(condition.path)
    if content is None:
        return condition.present is False
    if condition.present is False:
        return False
    if condition.matches is not None and not re.search(condition.matches.encode(), content, re.MULTILINE):
        return False
    return condition.sha256 is None or hashlib.sha256(content).hexdigest() == condition.sha256
