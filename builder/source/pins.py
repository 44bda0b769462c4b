"""Where a tree says what it pulls in: layouts and readings, and what they make of a `fetch` table."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder.errors import RecipeError
from builder.recipe.interpolate import expand, names
from builder.recipe.nested import FETCH_NAMES, TOOLKIT
from builder.source.place import without_credentials
from builder.stages import Given
from builder.values import dataclass, fields, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.recipe.condition import Condition
    from builder.recipe.nested import Fetch, Reading

__all__ = ["Wanted", "file_name", "wanted"]

#: Names whose values only the build has.
_LATE = ("place", "path", "home", "src", "deps")

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A nested source as the tree asks for it, not yet exact.

    `from_tree` says whether what makes it exact (`ref`, `sha256`) stands in the tree; else the recipe has it. `text` is the
    Cargo.lock of crates, `path` what the user put in place of the rest.
    """

    id: str
    kind: Literal["git", "archive", "crates"]
    given: Given
    about: str = ""
    url: str = ""
    ref: str = ""
    sha256: str | None = None
    from_tree: bool = False
    text: bytes = b""
    path: Path | None = None


def file_name(url: str) -> str:
    """Return the last part of a URL's path."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    return urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1]


def wanted(
    fetches: Sequence[Fetch],
    *,
    read: Callable[[str], bytes | None],
    holds: Callable[[Condition | None], bool],
    facts: Mapping[str, str],
    toolkit: Path | None,
    recipe: str,
) -> tuple[Wanted, ...]:
    """Return what the tree pulls in, as its files say.

    Raises RecipeError ``fetch-pin`` where a file or a pattern isn't found, ``fetch-platform`` where upstream has nothing for
    this machine, ``fetch-path`` where `path` names nothing.
    """
    reader = functools.cache(read)  # one file may hold the pins of several
    laid = (_laid(fetch, holds) for fetch in fetches if holds(fetch.when))
    return tuple(_Table(one, reader, facts, toolkit, recipe).wanted() for one in laid if one)


def _laid(fetch: Fetch, holds: Callable[[Condition | None], bool]) -> Fetch | None:
    """Return the table with the last layout that holds laid over it; None where that says there is nothing to fetch."""
    layout = next((one for one in reversed(fetch.layout) if holds(one.when)), None)
    if layout is None:
        return fetch
    if layout.absent:
        return None
    own = {one.name for one in fields(fetch)}
    given = {one.name: getattr(layout, one.name) for one in fields(layout) if one.name in own and one.name != "when"}
    return replace(fetch, **{name: value for name, value in given.items() if value is not None})


class _Table:
    """One `fetch` table and the names that its texts may use."""

    def __init__(
        self,
        fetch: Fetch,
        read: Callable[[str], bytes | None],
        facts: Mapping[str, str],
        toolkit: Path | None,
        recipe: str,
    ) -> None:
        self._fetch = fetch
        self._read = read
        self._toolkit = toolkit
        self._recipe = recipe
        self._url = ""
        self._machine = facts.get("machine", "")
        self._values = {name: f"${{{name}}}" for name in _LATE} | dict(facts)
        if self._machine in fetch.platform:
            self._values["platform"] = fetch.platform[self._machine]

    def wanted(self) -> Wanted:
        fetch = self._fetch
        if fetch.path:
            return self._replaced(fetch.path)
        self._read_pins()
        given = Given(
            place=self._text(fetch.place),
            unpack=fetch.unpack,
            strip=fetch.strip,
            stamp=self._texts(fetch.stamp),
            env=self._texts(fetch.env),
            submodules=fetch.submodules,
        )
        made = Wanted(id=fetch.id, kind=fetch.kind, about=fetch.about, given=given)
        match fetch.kind:
            case "crates":
                return replace(made, url=fetch.lockfile or "", text=self._file(fetch.lockfile or "Cargo.lock"))
            case "git":
                ref = self._must("ref", fetch.ref)
                return replace(made, url=self._url, ref=ref, from_tree=bool(self._own(fetch.ref)))
        sha256 = (self._text(fetch.sha256) or "").lower()
        if sha256 and not _SHA256.fullmatch(sha256):
            raise self._unpinned(f"{sha256!r} is no sha256")
        tree = bool(self._own(fetch.sha256))
        return replace(made, url=self._url, sha256=sha256 or None, from_tree=tree)

    def _replaced(self, text: str) -> Wanted:
        fetch, path = self._fetch, self._put(text)
        laid = bool(fetch.replaced_place or not fetch.replaced)
        place = fetch.replaced_place or (fetch.place if laid else None)
        # At the place of a download it lies as a download would.
        stamp = fetch.stamp if laid and not fetch.replaced_place else {}
        used = (place or "", *stamp, *stamp.values(), *fetch.replaced.values())
        if any(self._own(one) or "url" in names(one) or "file" in names(one) for one in used):
            self._read_pins()
        given = Given(
            place=self._text(place),
            unpack=fetch.unpack and bool(place) and not fetch.replaced_place,
            strip=fetch.strip,
            stamp=self._texts(stamp),
            env=self._texts(fetch.replaced),
        )
        return Wanted(id=fetch.id, kind=fetch.kind, about=fetch.about, given=given, path=path)

    def _put(self, text: str) -> Path:
        """Return where what the user put in place lies."""
        name = self._fetch.id
        if not text.startswith(TOOLKIT):
            path = Path(text)
        elif self._toolkit is None:
            raise RecipeError(
                "fetch-path",
                f"{name}: {text} is of a CUDA toolkit, and the recipe doesn't say that it uses one",
                help="system.cuda of the recipe says which: --set system.cuda='>=13.0'",
                run=("spark-build doctor",),
            )
        else:
            path = self._toolkit / text.removeprefix(TOOLKIT)
        if not path.exists():
            raise RecipeError(
                "fetch-path",
                f"{name}: there is no {path}",
                help=f"fetch.{name}.path puts a file or folder of this machine in place of what is downloaded",
                run=(f"ls -ld {path}", f"spark-build recipes show {self._recipe} --origin"),
            )
        return path

    def _read_pins(self) -> None:
        for reading in self._fetch.pin:
            self._values |= self._look(reading)
        if self._fetch.kind != "crates":
            self._url = url = self._must("url", self._fetch.url)
            self._values["url"] = without_credentials(url)  # what a build is told is kept with the wheel
            self._values["file"] = name = file_name(url)
            if self._fetch.kind == "archive" and name in {"", ".", ".."}:
                raise self._unpinned(f"{url} names no file")

    def _look(self, reading: Reading) -> dict[str, str]:
        """Return the names that one reading gives."""
        if reading.json is not None:
            found = self._json(reading)
            if found is None and not reading.optional:
                raise self._unpinned(f"{reading.file} lacks {self._text(reading.json)}")
            return {reading.name or reading.json: found or ""}
        pattern = re.compile(reading.matches or "", re.MULTILINE)
        match = pattern.search(self._file(reading.file, optional=reading.optional).decode(errors="replace"))
        if match is None and not reading.optional:
            raise self._unpinned(f"{reading.file} has nothing that matches {reading.matches}")
        groups = match.groupdict() if match else dict.fromkeys(pattern.groupindex)
        return {name: value or "" for name, value in groups.items()}

    def _json(self, reading: Reading) -> str | None:
        data = self._file(reading.file, optional=reading.optional)
        try:
            value = json.loads(data) if data else None
        except (ValueError, RecursionError) as error:
            raise self._unpinned(f"{reading.file} is no JSON: {error}") from error
        for word in (self._text(reading.json) or "").split("."):
            value = value.get(word) if isinstance(value, dict) else None
        return str(value) if isinstance(value, str | int) else None

    def _file(self, path: str, *, optional: bool = False) -> bytes:
        data = self._read(path)
        if data is None and not optional:
            raise self._unpinned(f"{path} isn't in the tree")
        return data or b""

    def _must(self, key: str, text: str | None) -> str:
        value = (self._text(text) or "").strip()
        if not value:
            raise self._unpinned(f"`{key}` is empty: {text or 'the recipe gives none'}")
        return value

    def _own(self, text: str | None) -> list[str]:
        """Return the names in `text` that readings give."""
        return [name for name in names(text or "") if name not in FETCH_NAMES]

    def _text(self, text: str | None) -> str | None:
        if text is None:
            return None
        if "platform" in names(text) and "platform" not in self._values:
            raise RecipeError(
                "fetch-platform",
                f"{self._fetch.id}: upstream has none for {self._machine}",
                cause=f"the recipe knows {', '.join(sorted(self._fetch.platform)) or 'no machine'}",
                help=f"--set fetch.{self._fetch.id}.path=PATH puts one of your own in its place",
                run=(f"spark-build recipes show {self._recipe} --origin",),
            )
        return expand(text, self._values)

    def _texts(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {self._text(key) or "": self._text(value) or "" for key, value in texts.items()}

    def _unpinned(self, cause: str) -> RecipeError:
        return RecipeError(
            "fetch-pin",
            f"the tree doesn't say which {self._fetch.id} it pulls in, as far as the recipe knows",
            cause=cause,
            help=f"upstream moved its pin: the recipe needs one more [[fetch.layout]] for {self._fetch.id}; "
            f"--set fetch.{self._fetch.id}.path=PATH goes without it",
            run=(f"spark-build recipes show {self._recipe} --origin",),
        )
