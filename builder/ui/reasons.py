"""Differences between two inputs documents, in words. Pure; the paths are those of `builder.inputs.collect`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from builder.ui.style import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.digest import Json
    from builder.inputs import Change

__all__ = ["grouped", "reasons", "short"]

#: More build requirements than this are told in one sentence.
MANY = 4

_HEX = re.compile(r"((?:git|sha256|tree):)?([0-9a-f]{11,})")
_LONGEST = 48

#: What belongs together: a path, and the subject that its change is told under.
_SUBJECTS = (
    (r"schema", "schema"),
    (r"source\.submodules\[(.+?)\].*", "submodule"),
    (r"source\.pulls.*", "pulls"),
    (r"source(?:\..*)?", "source"),
    (r"nested\[(.+?)\].*", "nested"),
    (r"nested.*", "other"),
    (r"patches\[(.+?)\].*", "patch"),
    (r"patches.*", "patches"),
    (r"requires\..+?\[([^\]]+)\].*", "requirement"),
    (r"requires\.(.+?)(?:\.order)?", "lock"),
    (r"host\.cuda.*|target\.cuda", "cuda"),
    (r"host\.python.*|target\.python", "python"),
    (r"host\.libc|target\.glibc", "libc"),
    (r"host\.machine|target\.machine", "machine"),
    (r"host\.tools\.(.+?)(?:\.(?:version|digest))?", "tool"),
    (r"arch|target\.arch", "arch"),
    (r"torch.*", "torch"),
    (r"env\.(.+)", "env"),
    (r"builds-on\.(.+)", "builds-on"),
    (r"recipe\.build\.env\.(.+)", "recipe-env"),
    (r"recipe\.output\[([^\]]+)\]", "output"),
    (r"recipe\.(.+)", "recipe"),
)
_COMPILED = tuple((re.compile(pattern), subject) for pattern, subject in _SUBJECTS)


def reasons(changes: Sequence[Change]) -> tuple[str, ...]:
    """Return one line a reason, in the order of the document; empty for no changes."""
    return tuple(words for words, _ in grouped(changes))


def grouped(changes: Sequence[Change]) -> tuple[tuple[str, tuple[Change, ...]], ...]:
    """Return each reason with the changes that it tells of: a moved source changes commit, tree and time at once."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        groups.setdefault(_subject(change.path), []).append(change)
    required = [key for key in groups if key[0] == "requirement"]
    if len(required) > MANY:
        together = [change for key in required for change in groups[key]]
        at = list(groups).index(required[0])
        rest = [(key, found) for key, found in groups.items() if key not in required]
        rest.insert(at, (("requirements", ", ".join(key[1] for key in required)), together))
        groups = dict(rest)
    return tuple((_WORDS[subject](name, tuple(found)), tuple(found)) for (subject, name), found in groups.items())


def short(value: Json) -> str:
    """Return a value as it fits into a line: digests by their first ten characters, nothing as ``nothing``."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        found = _HEX.fullmatch(value)
        if found and len(found[2]) >= 20:  # noqa: PLR2004  # a digest, no number
            return f"{found[1] or ''}{found[2][:10]}"
        return clip(value, _LONGEST) if value else "''"
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return clip(" ".join(map(str, value)), _LONGEST) or "none"
    return clip(json.dumps(value, ensure_ascii=False, sort_keys=True), _LONGEST)


def _subject(path: str) -> tuple[str, str]:
    for pattern, subject in _COMPILED:
        if found := pattern.fullmatch(path):
            return subject, (found[1] if pattern.groups else "") or ""
    return "other", path


def _at(changes: Sequence[Change], *tails: str) -> Change | None:
    """Return the first change whose path ends with one of `tails`, in their order."""
    for tail in tails:
        for change in changes:
            if change.path.endswith(tail):
                return change
    return None


def _arrow(change: Change) -> str:
    return f"{short(change.old)} → {short(change.new)}"


def _verb(name: str, changes: Sequence[Change]) -> str:
    """Return ``name added``, ``name removed`` or ``name: old → new``."""
    first = changes[0]
    if first.kind == "changed":
        return f"{name}: {_arrow(first)}"
    return f"{name} {first.kind}"


def _source(_name: str, changes: Sequence[Change]) -> str:
    if kind := _at(changes, "source.kind"):
        return f"source is {short(kind.new)} now, was {short(kind.old)}"
    if moved := _at(changes, "source.commit"):
        return f"source moved {_arrow(moved)}"
    if version := _at(changes, "source.version"):
        return f"source version {_arrow(version)}"
    if tree := _at(changes, "source.tree"):
        return f"source's files changed: {_arrow(tree)}"
    return f"source's time: {_arrow(changes[0])}"


def _thing(name: str, changes: Sequence[Change], *versions: str) -> str:
    """Return what became of a thing that has a version: `versions` are the ends of the paths that tell it."""
    if version := _at(changes, *versions):
        return f"{name} {_arrow(version)}"
    first = changes[0]
    if first.kind == "changed":
        return f"{name} replaced: same version, other bytes"
    value = first.new if first.kind == "added" else first.old
    exact = f" {short(value['version'])}" if isinstance(value, dict) and value.get("version") else ""
    return f"{name}{exact} {first.kind}"


def _torch(_name: str, changes: Sequence[Change]) -> str:
    if version := _at(changes, "torch.version"):
        return f"torch {_arrow(version)}"
    if changes[0].path == "torch":
        was = changes[0].old is not None
        return "built without torch now" if was else "built with torch now"
    return _verb(f"torch's {changes[0].path.removeprefix('torch.')}", changes)


def _env(name: str, changes: Sequence[Change]) -> str:
    first = changes[0]
    if first.kind == "added":
        return f"variable {name} set to {short(first.new)}"
    if first.kind == "removed":
        return f"variable {name} no longer set (was {short(first.old)})"
    return f"variable {name}: {_arrow(first)}"


def _nested(name: str, changes: Sequence[Change]) -> str:
    """Return what became of a nested source: another commit or archive, or another put in its place."""
    if put := _at(changes, "].replaced"):
        what = "is the pinned one again" if put.kind == "removed" else "has another in its place"
        return f"nested source {name} {what}"
    return _thing(f"nested source {name}", changes, "].commit", "].tree")


def _output(name: str, changes: Sequence[Change]) -> str:
    first = changes[0]
    if first.kind == "changed":
        return f"output {name} changed"
    return f"output {name} {'built along' if first.kind == 'added' else 'left out'}: outputs of one build share a label"


def _recipe(name: str, changes: Sequence[Change]) -> str:
    # The document holds field names; the recipe says them with dashes.
    key, first = name.replace("_", "-"), changes[0]
    if first.kind == "added":
        return f"recipe: {key} set to {short(first.new)}"
    if first.kind == "removed":
        return f"recipe: {key} taken out (was {short(first.old)})"
    return f"recipe: {key}: {_arrow(first)}"


_WORDS: dict[str, Callable[[str, Sequence[Change]], str]] = {
    "schema": lambda _, found: f"this spark-build makes other bytes (inputs schema {_arrow(found[0])})",
    "source": _source,
    "submodule": lambda name, found: _thing(f"submodule {name}", found, "].commit"),
    "nested": _nested,
    "pulls": lambda _, _found: "pull requests laid on changed",
    "patch": lambda name, found: f"patch {name} {found[0].kind.replace('changed', 'edited')}",
    "patches": lambda _, found: "patches in another order" if _at(found, ".order") else "patches changed",
    "requirement": lambda name, found: _thing(f"build requirement {name}", found, "].version"),
    "requirements": lambda names, found: (
        f"{names.count(', ') + 1} build requirements changed: {clip(names, _LONGEST)}" if found else names
    ),
    "lock": lambda name, found: _verb(f"build environment of {name}", found),
    "cuda": lambda _, found: _thing("CUDA toolkit (nvcc)", found, "host.cuda.version", "target.cuda"),
    "python": lambda _, found: _thing("Python", found, "host.python.version", "host.python.tag", "target.python"),
    "libc": lambda _, found: f"C library {_arrow(found[0])}",
    "machine": lambda _, found: f"machine {_arrow(found[0])}",
    "tool": lambda name, found: _thing(name, found, ".version"),
    "arch": lambda _, found: f"architecture {_arrow(found[0])}",
    "torch": _torch,
    "env": _env,
    "builds-on": lambda name, found: f"{_verb(f'{name}, which this builds on', found)}",
    "recipe-env": lambda name, found: f"recipe: {_env(name, found)}",
    "output": _output,
    "recipe": _recipe,
    "other": _verb,
}
