"""Which form of an answer a client wants: PEP 691's content types, and gzip. Pure; what was decided is remembered."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HTML", "JSON", "TEXT", "TYPES", "kind_of", "takes_gzip"]

JSON, HTML, TEXT = "json", "html", "text"
#: Kinds and the types under which they are sent.
TYPES = {
    JSON: "application/vnd.pypi.simple.v1+json",
    HTML: "application/vnd.pypi.simple.v1+html",
    TEXT: "text/html; charset=utf-8",
}
#: What a client may ask for. What it asks for equally is sent as the first: JSON has all that HTML has, and more; but who
#: takes everything is a person, more often than not.
_ASKED = {
    "application/vnd.pypi.simple.v1+json": (JSON,),
    "application/vnd.pypi.simple.latest+json": (JSON,),
    "application/vnd.pypi.simple.v1+html": (HTML,),
    "application/vnd.pypi.simple.latest+html": (HTML,),
    "text/html": (TEXT,),
    "application/*": (JSON, HTML),
    "text/*": (TEXT,),
    "*/*": (TEXT, JSON, HTML),
}
_ORDER = {name: number for number, name in enumerate(_ASKED)}
_Q = re.compile(r"q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_REMEMBERED = 256


def _items(header: str) -> Iterator[tuple[str, float]]:
    """Yield names and weights; one whose weight can't be read isn't asked for."""
    for item in header.split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.lower().startswith("q"):
                found = _Q.fullmatch(parameter)
                weight = float(found[1]) if found else 0.0
        if name:
            yield name.lower(), weight


@functools.lru_cache(_REMEMBERED)
def kind_of(accept: str, named: str | None = None) -> str:
    """Return the kind of page for an ``Accept`` header, or for ``?format=``, which counts first; empty where none fits."""
    if named is not None:
        return _ASKED.get(unquote(named).replace(" ", "+"), ("",))[0] if "*" not in named else ""
    if not accept:
        return TEXT
    known = [(-weight, _ORDER[name], name) for name, weight in _items(accept) if name in _ASKED]
    said = {kind for _weight, _order, name in known for kind in _ASKED[name] if "*" not in name}
    if any(name == "text/*" and not weight for weight, _order, name in known):
        said.add(TEXT)
    for weight, _order, name in sorted(known):
        # A pattern is about what isn't named apart (RFC 9110, 12.5.1).
        fitting = [kind for kind in _ASKED[name] if "*" not in name or kind not in said]
        if weight and fitting:
            return fitting[0]
    return ""


@functools.lru_cache(_REMEMBERED)
def takes_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` header takes gzip."""
    weights = dict(_items(header))
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0
