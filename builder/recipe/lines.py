"""On which line of a TOML file each key stands. `tomllib` keeps no places, and a message without a line is half a message.

Only for text that `tomllib` has accepted: this walks over values without judging them.
"""

from __future__ import annotations

import re

__all__ = ["lines"]

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def lines(text: str) -> dict[str, int]:
    """Return dotted key -> line (from 1) for every key, table and entry of an array in `text`, which must be valid TOML.

    Entries of arrays are ``output[0]``, in the order of this text; of one key that comes twice, the first place counts.
    """
    walk = _Walk(text)
    walk.document()
    return walk.found


class _Walk:
    """A cursor over the text, and what it has seen."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.counted = (0, 1)

    def line(self) -> int:
        """Return the cursor's line; asked in rising order, so each newline is counted once."""
        at, line = self.counted
        line += self.text.count("\n", at, self.at)
        self.counted = (self.at, line)
        return line

    def note(self, path: str) -> None:
        self.found.setdefault(path, self.line())

    def skip(self, what: re.Pattern[str] = _SPACE) -> str:
        match = what.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def ahead(self, mark: str) -> bool:
        """Step over `mark` when it comes next."""
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def document(self) -> None:
        table = ""
        self.skip()
        while self.at < len(self.text):
            start = self.at
            if self.ahead("[["):
                table = self.header(self.key(), entry=True)
                self.ahead("]]")
            elif self.ahead("["):
                table = self.header(self.key(), entry=False)
                self.ahead("]")
            else:
                self.pair(table)
            if self.at == start:  # not TOML after all: never hang
                return
            self.skip()

    def key(self) -> list[str]:
        """Return the words of a dotted key, without their quotes."""
        words = []
        while True:
            self.skip(_BLANK)
            words.append(self.skip(_KEY).strip("\"'"))
            self.skip(_BLANK)
            if not self.ahead("."):
                return words

    def header(self, words: list[str], *, entry: bool) -> str:
        """Return the path of ``[a.b]``: each word that names an array means its newest entry."""
        path = ""
        for number, word in enumerate(words):
            path = f"{path}.{word}" if path else word
            if entry and number == len(words) - 1:
                self.note(path)
                self.counts[path] = self.counts.get(path, -1) + 1
            if path in self.counts:
                path = f"{path}[{self.counts[path]}]"
        self.note(path)
        return path

    def pair(self, table: str) -> None:
        """Step over ``key = value``."""
        place, path = self.at, table
        for word in self.key():
            path = f"{path}.{word}" if path else word
            after, self.at = self.at, place
            self.note(path)
            self.at = after
        self.ahead("=")
        self.skip(_BLANK)
        self.value(path)

    def value(self, path: str) -> None:
        if self.ahead("["):
            self.array(path)
        elif self.ahead("{"):
            self.inline(path)
        elif not self.skip(_STRING):
            self.skip(_SCALAR)

    def array(self, path: str) -> None:
        number = 0
        while self.at < len(self.text):
            self.skip()
            if self.ahead("]"):
                return
            self.note(f"{path}[{number}]")
            start = self.at
            self.value(f"{path}[{number}]")
            self.skip()
            if not self.ahead(",") and self.at == start:
                return
            number += 1

    def inline(self, path: str) -> None:
        while self.at < len(self.text):
            self.skip()
            if self.ahead("}"):
                return
            start = self.at
            self.pair(path)
            self.skip()
            if not self.ahead(",") and self.at == start:
                return
