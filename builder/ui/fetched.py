"""The table of what a build reads: what it is, its pin, its size, whether it is at hand, and how to put another in place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from builder.recipe.units import show_bytes
from builder.ui.style import visible
from builder.ui.table import table
from builder.values import dataclass, fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.digest import Json
    from builder.stages import Nested, Pin

__all__ = ["Row", "State", "lines", "nested_row", "source_row"]

State = Literal["at hand", "fetched", "missing", "in place"]

_HEAD = ("what", "pin", "size", "state", "hash from", "another by")
_PIN, _HASH = 1, 4

_ORIGINS = {"tree": "the tree", "recipe": "the recipe", "first use": "first fetch", "lock": "the lock", "user": "you"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One source. `id` is empty for the recipe's own; `size` in bytes, None where nobody said; `key` may be a flag."""

    recipe: str
    id: str
    kind: str
    pin: str
    url: str
    state: State
    key: str
    size: int | None = None
    origin: str = ""
    about: str = ""
    sha256: str | None = None
    commit: str | None = None

    def as_json(self) -> dict[str, Json]:
        """Return all of it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def source_row(recipe: str, pin: Pin, state: State) -> Row:
    """Return the row of the recipe's own source."""
    key = {"git": "--ref, --repo", "sdist": "--version"}.get(pin.kind, "--source")
    return Row(
        recipe=recipe,
        id="",
        kind=pin.kind,
        pin=_pin(pin),
        url=pin.url,
        state=state,
        key=key,
        size=pin.size,
        sha256=_sha256(pin),
        commit=pin.commit,
    )


def nested_row(recipe: str, one: Nested, state: State, size: int | None) -> Row:
    """Return the row of something that the tree pulls in."""
    pin = one.pin
    return Row(
        recipe=recipe,
        id=one.id,
        kind=one.kind,
        pin=_pin(pin) if pin else str(one.path),
        url=pin.url if pin else "",
        state=state,
        key=one.key,
        size=size,
        origin=one.origin,
        about=one.about,
        sha256=_sha256(pin) if pin else one.digest,
        commit=pin.commit if pin else None,
    )


def _pin(pin: Pin) -> str:
    if pin.kind == "git":
        names = [pin.ref] if pin.ref and pin.ref != pin.commit else []
        names += [pin.commit[:12]] if pin.commit else []
        return " = ".join(names) + (f" + {len(pin.submodules)} submodules" if pin.submodules else "")
    if pin.kind in {"crates", "local"} or not pin.filename:
        return pin.url
    # The version of an `include.zip` stands before its name.
    return (
        pin.filename if re.search(r"\d", pin.filename) else "/".join(urlsplit(pin.url).path.split("/")[-2:]).strip("/")
    )


def _sha256(pin: Pin) -> str | None:
    return pin.tree.removeprefix("sha256:") if pin.tree.startswith("sha256:") else None


def lines(rows: Sequence[Row], *, width: int) -> list[str]:
    """Return the table, what a tree pulls in below its source; in a narrow one first pins are cut."""
    cells = [
        (
            visible(f"  {row.id}" if row.id else row.recipe),
            visible(row.pin),
            show_bytes(row.size) if row.size is not None else "?" if row.state == "missing" else "",
            row.state,
            _ORIGINS.get(row.origin, ""),
            visible(row.key),
        )
        for row in rows
    ]
    return table(_HEAD, cells, width=width, shrink=(_PIN,), drop=(_HASH,))
