"""What types can't say about `fetch` tables: which keys a kind needs, which names a text may use, where things may lie."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.recipe import texts
from builder.recipe.convert import Mistake, key_of
from builder.recipe.interpolate import names
from builder.recipe.nested import FETCH_NAMES, TOOLKIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.recipe.nested import Fetch, Layout, Reading

__all__ = ["check_nested"]

#: Upstream's own names for what CMake fetches have underscores.
_ID = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
_NEEDS = {"git": ("url", "ref"), "archive": ("url", "place"), "crates": ("lockfile",)}
#: Keys that mean something for some kinds only.
_ONLY = {
    "url": ("git", "archive"),
    "ref": ("git",),
    "submodules": ("git",),
    "sha256": ("archive",),
    "unpack": ("archive",),
    "strip": ("archive",),
    "stamp": ("archive",),
    "place": ("archive", "crates"),
    "lockfile": ("crates",),
}
#: Names that are known before the tree is read, and those that only the build has.
_FACTS = ("machine", "platform", "version", "commit", "cuda")
_LAID = (*_FACTS, "url", "file", "home", "src", "deps")
#: The names that each key may use beside the table's own.
_KNOWN = {
    "url": _FACTS,
    "ref": _FACTS,
    "sha256": _FACTS,
    "place": _LAID,
    "stamp": (*_LAID, "place"),
    "env": (*_LAID, "place"),
    "replaced": (*_LAID, "place", "path"),
    "replaced_place": (*_LAID, "place"),
}
_ROOTS = ("home", "src", "deps")
#: Folders of `deps` in which given repositories, cargo's settings and records of what was laid are.
_TAKEN = frozenset({"git", "cargo", ".laid", ".fresh"})


def check_nested(fetches: Iterable[Fetch | None]) -> Iterator[Mistake]:
    """Yield every mistake of the `fetch` tables; a value that was wrong already is None in them."""
    for number, fetch in texts.each(fetches):
        path = f"fetch[{number}]"
        yield from _id(fetch.id, f"{path}.id")
        yield from texts.condition(fetch.when, f"{path}.when")
        yield from _kind(fetch, path)
        yield from _path(fetch.path, f"{path}.path")
        yield from texts.inside(fetch.lockfile, f"{path}.lockfile")
        if isinstance(fetch.submodules, tuple):
            for count, inner in texts.each(fetch.submodules):
                yield from texts.inside(inner, f"{path}.submodules[{count}]")
        layouts = list(texts.each(fetch.layout))
        own, given = _given(fetch.pin), set[str]()
        for _count, layout in layouts:
            given |= _given(layout.pin)
        yield from _readings(fetch.pin, f"{path}.pin")
        # A text of the table may wait for a layout that reads what it names.
        yield from _texts(fetch, own | given, fetch, path)
        for count, layout in layouts:
            where = f"{path}.layout[{count}]"
            yield from texts.condition(layout.when, f"{where}.when")
            yield from _readings(layout.pin, f"{where}.pin")
            known = own if layout.pin is None else _given(layout.pin)
            yield from _texts(layout, known, fetch, where)
            if layout.pin is not None and not layout.absent:
                yield from _lost(fetch, layout, own | given, known, f"{where}.pin")


def _id(text: str | None, path: str) -> Iterator[Mistake]:
    if text is not None and not _ID.fullmatch(text):
        yield Mistake(path=path, text=f"`{text}` must be lower case words joined by `-` or `_`")


def _kind(fetch: Fetch, path: str) -> Iterator[Mistake]:
    kind = fetch.kind
    tables: list[Fetch | Layout] = [fetch, *(layout for _number, layout in texts.each(fetch.layout))]
    for key in _NEEDS.get(kind, ()):
        if not any(getattr(one, key, None) for one in tables):
            yield Mistake(path=f"{path}.{key}", text=f"`{key}` is missing: kind {kind} needs it")
    for number, one in enumerate(tables):
        where = f"{path}.layout[{number - 1}]" if number else path
        for key, kinds in _ONLY.items():
            if (
                kind in _NEEDS
                and kind not in kinds
                and getattr(one, key, None) not in (None, "none", False, 0, "", (), {})
            ):
                yield Mistake(
                    path=f"{where}.{key}", text=f"means nothing for kind {kind}; only for {' and '.join(kinds)}"
                )
        if (one.strip or 0) < 0:
            yield Mistake(path=f"{where}.strip", text=f"is {one.strip}, wanted at least 0")
    if not fetch.platform and any("platform" in names(text) for one in tables for _path, _key, text in _all(one, "")):
        yield Mistake(path=f"{path}.platform", text="`platform` is missing, and ${platform} is used")


def _path(text: str | None, path: str) -> Iterator[Mistake]:
    if text is None:
        return
    if not text.strip():
        yield Mistake(path=path, text="is empty, wanted a file or a folder")
    elif text.startswith(TOOLKIT):
        inner = text.removeprefix(TOOLKIT)
        if not inner or inner.startswith("/") or ".." in inner.split("/"):
            yield Mistake(path=path, text=f"`{text}` leaves the toolkit; write toolkit:bin/ptxas")
    elif names(text):
        yield Mistake(path=path, text="no names can be used in it")


def _readings(readings: Sequence[Reading | None] | None, path: str) -> Iterator[Mistake]:
    before = set[str]()
    for number, one in texts.each(readings):
        where = f"{path}[{number}]"
        yield from texts.inside(one.file, f"{where}.file")
        yield from texts.pattern(one.matches, f"{where}.matches")
        if (one.matches is None) == (one.json is None):
            yield Mistake(path=where, text="wanted one of `matches` and `json`")
        if one.json is not None and one.name is None:
            yield Mistake(path=f"{where}.name", text="`name` is missing: what `json` finds needs one")
        if one.json is None and one.name is not None:
            yield Mistake(path=f"{where}.name", text="has no effect without `json`; name a group: (?P<name>...)")
        yield from texts.names(one.json, (*_FACTS, *sorted(before)), f"{where}.json")
        found = _given((one,))
        if one.matches is not None and not found and not [*texts.pattern(one.matches, "")]:
            yield Mistake(path=f"{where}.matches", text="names no group, so nothing comes of it; write (?P<name>...)")
        for name in sorted(found & FETCH_NAMES.keys()):
            yield Mistake(path=where, text=f"`{name}` stands for something else in every table; give another name")
        before |= found


def _given(readings: Sequence[Reading | None] | None) -> set[str]:
    """Return the names that readings give."""
    found = set[str]()
    for _number, one in texts.each(readings):
        if one.json is not None:
            found |= {one.name} if one.name else set()
        elif one.matches is not None and not [*texts.pattern(one.matches, "")]:
            found |= re.compile(one.matches).groupindex.keys()
    return found


def _texts(one: Fetch | Layout, given: set[str], fetch: Fetch, path: str) -> Iterator[Mistake]:
    """Yield what is wrong with the texts of a table or layout, whose readings give `given`."""
    for where, key, text in _all(one, path):
        yield from texts.names(text, (*_KNOWN[key], *sorted(given)), where)
    for key in ("env", "replaced"):
        for name in getattr(one, key) or ():
            if not texts.VARIABLE.fullmatch(name.removesuffix("+")):
                yield Mistake(path=f"{path}.{key}.{name}", text=f"`{name}` can't be the name of a variable")
    if one.sha256 and not names(one.sha256):
        yield from texts.digest(one.sha256, f"{path}.sha256")
    yield from _place(one.place, _ROOTS, f"{path}.place")
    yield from _place(one.replaced_place, (*_ROOTS, "place"), f"{path}.replaced-place")
    for name in one.stamp or ():
        if not name or name.startswith("/") or ".." in name.split("/"):
            yield Mistake(path=f"{path}.stamp.{name}", text=f"`{name}` leaves the folder that was unpacked")
    if fetch.kind == "archive" and one.place is not None and one.place.endswith("/"):
        yield Mistake(path=f"{path}.place", text=f"`{one.place}` ends in /; write the whole path")


def _all(one: Fetch | Layout, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, key and text of everything in which names are filled in."""
    for key in _KNOWN:
        value: str | Mapping[str, str] | None = getattr(one, key)
        where = f"{path}.{key_of(key)}"
        if isinstance(value, str):
            yield where, key, value
        for name, text in value.items() if isinstance(value, dict) else ():
            yield f"{where}.{name}", key, name
            if text is not None:
                yield f"{where}.{name}", key, text


def _place(text: str | None, roots: Iterable[str], path: str) -> Iterator[Mistake]:
    if text is None:
        return
    start, _slash, rest = text.partition("/")
    if start not in {f"${{{root}}}" for root in roots} or (not rest and start != "${place}"):
        wanted = ", ".join(f"${{{root}}}/" for root in roots)
        yield Mistake(path=path, text=f"`{text}` must begin with one of {wanted}")
    elif ".." in rest.split("/"):
        yield Mistake(path=path, text=f"`{text}` leaves {start}")
    elif start == "${deps}" and rest.partition("/")[0] in _TAKEN:
        yield Mistake(path=path, text=f"`{text}`: {', '.join(sorted(_TAKEN))} of ${{deps}} are taken")


def _lost(fetch: Fetch, layout: Layout, every: set[str], known: set[str], path: str) -> Iterator[Mistake]:
    """Yield the names that a layout's own readings no longer give and that what it leaves of the table uses."""
    for where, key, text in _all(fetch, ""):
        if getattr(layout, key) is None and not fetch.path:
            for name in sorted(set(names(text)) & every - known):
                yield Mistake(path=path, text=f"gives no `{name}`, which `{where.lstrip('.')}` of the table uses")
