"""``multipart/form-data`` as it comes in, in pieces of any size: a parser that reads nothing itself and keeps nothing.

It is strict (RFC 7578, RFC 2046 section 5.1): no preamble, CRLF line ends, a ``Content-Disposition: form-data`` with a name
in each part, an end. Whoever sends something else is told so; nothing is guessed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Broken", "Data", "End", "Parser", "Part", "boundary"]

#: Bytes of the headers of one part, and how many parts a form may have.
_HEAD, _PARTS = 8 << 10, 4096

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110, 5.6.2
_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|{_TOKEN})')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_CONTENT_TYPE = "multipart/form-data"


class Broken(Exception):  # what the client sent, not what went wrong here
    """It isn't such a form; the text says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part begins. `filename` is None for a field that isn't a file."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """More of the part's bytes."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The part has ended."""


def boundary(content_type: str) -> bytes:
    """Return the boundary that a ``Content-Type`` names; raise Broken where it is none of a form."""
    kind, _semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != _CONTENT_TYPE:
        msg = f"wanted {_CONTENT_TYPE}"
        raise Broken(msg)
    found = _parameters(f";{rest}").get("boundary", "")
    if not _BOUNDARY.fullmatch(found):
        msg = "the content type names no boundary"
        raise Broken(msg)
    return found.encode()


class Parser:
    """Takes a body piece by piece: `feed` yields what is in it, `close` raises Broken when it had no end."""

    def __init__(self, mark: bytes) -> None:
        self._delimiter = b"\r\n--" + mark
        self._rest = b"\r\n"  # so that the first delimiter is one like the others
        self._at = 0
        self._state = "delimiter"
        self._parts = 0

    def feed(self, data: bytes) -> Iterator[Part | Data | End]:
        """Yield what the bytes so far hold, in its order; raise Broken."""
        self._rest, self._at = self._rest[self._at :] + data, 0
        while self._state != "end":
            if self._state == "body":
                found = self._rest.find(self._delimiter, self._at)
                upto = found if found >= 0 else len(self._rest) - len(self._delimiter) + 1
                if upto > self._at:
                    yield Data(data=self._rest[self._at : upto])
                    self._at = upto
                if found < 0:
                    return
                self._state = "delimiter"
                yield End()
            elif self._state == "delimiter":
                if not self._delimited():
                    return
            else:
                part = self._head()
                if part is None:
                    return
                self._state = "body"
                yield part
        self._at = len(self._rest)  # what follows the end means nothing

    def close(self) -> None:
        """Return when the form is whole."""
        if self._state != "end":
            msg = "the form ends in the middle"
            raise Broken(msg)

    def _delimited(self) -> bool:
        """Take a delimiter and what says whether it is the last one; return whether all of it was there."""
        there = self._rest[self._at : self._at + len(self._delimiter) + 2]
        if not there.startswith(self._delimiter[: len(there)]):
            msg = "the form doesn't begin with its boundary"
            raise Broken(msg)
        if len(there) < len(self._delimiter) + 2:
            return False
        self._at += len(self._delimiter)
        if there.endswith(b"--"):
            self._state = "end"
        elif there.endswith(b"\r\n"):  # it stays: of a part without headers it is half of the empty line
            self._state = "head"
        else:
            msg = "a boundary isn't followed by a line end"
            raise Broken(msg)
        return True

    def _head(self) -> Part | None:
        end = self._rest.find(b"\r\n\r\n", self._at, self._at + _HEAD)
        if end < 0 and len(self._rest) - self._at >= _HEAD:
            msg = f"the headers of a part have more than {_HEAD} bytes"
            raise Broken(msg)
        if end < 0:
            return None
        self._parts += 1
        if self._parts > _PARTS:
            msg = f"more than {_PARTS} parts"
            raise Broken(msg)
        lines, self._at = self._rest[self._at + 2 : end].split(b"\r\n"), end + 4
        return _part(lines)


def _part(lines: list[bytes]) -> Part:
    found = []
    for line in lines:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            msg = "a header of a part isn't UTF-8"
            raise Broken(msg) from None
        name, colon, value = text.partition(":")
        if not colon or not re.fullmatch(_TOKEN, name) or not value.replace("\t", " ").isprintable():
            msg = "a header of a part isn't one"
            raise Broken(msg)
        if name.lower() == "content-transfer-encoding" and value.strip().lower() not in {"7bit", "8bit", "binary"}:
            msg = "a part is encoded"  # RFC 7578, 4.7: nobody does
            raise Broken(msg)
        if name.lower() == "content-disposition":
            found.append(value)
    if len(found) != 1 or found[0].partition(";")[0].strip().lower() != "form-data":
        msg = "a part has no Content-Disposition, or several"
        raise Broken(msg)
    parameters = _parameters(f";{found[0].partition(';')[2]}")
    if not parameters.get("name"):
        msg = "a part has no name"
        raise Broken(msg)
    return Part(name=parameters["name"], filename=parameters.get("filename"))


def _parameters(text: str) -> dict[str, str]:
    """Return the parameters of a header; ``filename*=UTF-8''…`` (RFC 8187) counts as ``filename``."""
    found: dict[str, str] = {}
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if not match:
            msg = "the parameters of a header can't be read"
            raise Broken(msg)
        name, value, at = match[1].lower(), match[2], match.end()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        if name.endswith("*"):
            name, value = name[:-1], _extended(value)
        if name in found:
            msg = f"a header says twice what its {name} is"
            raise Broken(msg)
        found[name] = value
    return found


def _extended(value: str) -> str:
    charset, _quote, rest = value.partition("'")
    _language, quote, text = rest.partition("'")
    try:
        if charset.lower() == "utf-8" and quote:
            return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    msg = "a parameter isn't UTF-8"
    raise Broken(msg)
