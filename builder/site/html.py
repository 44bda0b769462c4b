"""HTML as values. Text is escaped where it is put in; only what `h` made is markup.

All that wheels, recipes, logs and events say is a stranger's. So there is no way to put text into a page but as a child or
an attribute's value, and links lead only to places below this site or by ``http:`` and ``https:``.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Child", "Html", "h", "join", "joined", "safe_url", "visible"]


class Html(str):
    """Markup: text that was escaped already."""

    __slots__ = ()


Child = Union["Html", str, int, None, "Iterable[Child]"]

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr"})
#: Without line breaks and tabs; with what turns the direction of text, or isn't seen at all.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f\\\"'<>]+", re.ASCII)


def h(tag: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Return an element. Of attributes ``class_`` is ``class``, ``data_x`` is ``data-x``; None and False aren't written."""
    written = "".join(
        f" {_name(name)}" if value is True else f' {_name(name)}="{_text(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Return children one after the other."""
    return Html("".join(map(_child, children)))


def joined(separator: str, children: Iterable[Child]) -> Html:
    """Return children with a text between them."""
    return Html(_text(separator).join(map(_child, children)))


def visible(text: str) -> str:
    """Return a text in which what a reader wouldn't see, or what turns the direction of text, is spelled out."""
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def safe_url(text: object) -> str | None:
    """Return a URL that may be linked to, or None: a stranger's ``javascript:`` isn't."""
    return text if isinstance(text, str) and _URL.fullmatch(text) else None


def _child(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int):
        return _text(str(child))
    return "".join(map(_child, child))


def _text(text: str) -> str:
    return escape(visible(text))


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
