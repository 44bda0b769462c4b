"""Who asked for what, in the combined format of Apache and nginx; secrets of a URL are left out."""

from __future__ import annotations

import functools
import re
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AccessLog", "clean", "line"]

_SECRET = re.compile(r"([?&;][^=&;]*(?:token|key|secret|passw|auth|sig|credential)[^=&;]*=)[^&;\s]*", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@]*@")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905  # whatever the locale says
_MAX = 2048


def clean(text: str) -> str:
    """Return text that can't leave its line or its quotes, without secrets."""
    if not text:
        return "-"
    if "?" in text or "://" in text:
        text = _LOGIN.sub("", _SECRET.sub(r"\1***", text))
    plain = text[:_MAX].encode("unicode_escape").decode() if not text.isprintable() else text[:_MAX]
    return plain.replace('"', "%22") if '"' in plain else plain


@functools.lru_cache(2)
def _stamp(second: int) -> str:
    at = time.gmtime(second)
    return f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"


def line(
    *, peer: str, user: str, now: float, request: str, status: int, size: int, referer: str, agent: str
) -> str:  # fmt: skip
    """Return one line. `now` is in seconds, `request` method, target and version as they were sent."""
    return (
        f'{peer or "-"} - {clean(user)} [{_stamp(int(now))}] "{clean(request)}" {status} {size} '
        f'"{clean(referer)}" "{clean(agent)}"\n'
    )


class AccessLog:
    """Writes to a file, or to stderr for ``-``, some lines at a time. A full disk costs lines, and never an answer.

    `later` calls a function in a moment.
    """

    def __init__(
        self, place: str, *, complain: Callable[[str], None], later: Callable[[Callable[[], None]], object]
    ) -> None:
        self._place = place
        self._complain = complain
        self._later = later
        self._stream: TextIO = sys.stderr
        self._waiting: list[str] = []
        self._broken = False
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file that has the name now: what rotated the log has moved the old one."""
        if self._place != "-":
            fresh = open(self._place, "a", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123  # until the end
            self.flush()
            old, self._stream = self._stream, fresh
            if old is not sys.stderr:
                old.close()

    def write(self, text: str) -> None:
        """Append a line, in a moment."""
        if not self._waiting:
            self._later(self.flush)
        self._waiting.append(text)

    def flush(self) -> None:
        """Write what waits."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except OSError as error:
            if not self._broken:
                self._complain(f"the access log can't be written: {error.strerror}")
            self._broken = True
        else:
            self._broken = False
