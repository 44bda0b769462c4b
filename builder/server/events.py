"""What happens in a build, as server-sent events: the lines of its file as they come, and what its phases print.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The id of an event is the number of its line, so that a
browser whose connection was cut goes on behind the last one it has; what phases print has no id. ``end`` is the last event.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp import web

from builder import events
from builder.errors import scrubbed
from builder.pipeline import builds
from builder.server import simple
from builder.server.refusal import Refusal
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from builder.pipeline.builds import Attempt
    from builder.server.site import Site

__all__ = ["follow"]

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep events back
}
#: So many follow at once; each takes some reads of a file a second.
_CLIENTS = 64
_POLL_S = 0.25
#: Something is sent at least so often: whoever is in between cuts what is silent, and a client that is gone is noticed.
_BEAT_S = 15.0
#: A browser waits so long before it connects again.
_RETRY_MS = 2000
#: What is read of a file at a time, and how much of what a phase has printed before is sent.
_CHUNK, _TAIL = 1 << 20, 1 << 14
_LONGEST_LINE = 4096


async def follow(request: web.BaseRequest, site: Site, *, fingerprint: str) -> web.StreamResponse:
    """Send the events of an attempt at a build, those that are there at once, until its end.

    It is the newest one, or that of the number ``?attempt=``. With ``Last-Event-ID``, or ``?after=``, only those behind that
    line.
    """
    asked = parse_qs(simple.query(request)[1:])
    after = _number(request.headers.get("Last-Event-ID") or asked.get("after", [""])[0])
    number = _number(asked.get("attempt", [""])[0])
    reader = await site.thread(_Reader.of, site.settings.root, fingerprint, number, after)
    if reader is None:
        raise Refusal(404, "build-missing", "nothing is known of such a build here")
    following = site.own.setdefault("following", set())
    if len(following) >= _CLIENTS:
        await site.thread(reader.close)
        raise Refusal(
            503, "followers", "too many follow builds at the moment", "try again later", headers={"Retry-After": "30"}
        )
    following.add(reader)
    answer = web.StreamResponse(headers=_HEADERS)
    try:
        await answer.prepare(request)
        if request.method != "HEAD":
            await _send(answer, reader, site, request.headers.get("Authorization"))
    except (ConnectionError, Refusal):  # the browser was closed, or may not read any more
        pass
    finally:
        following.discard(reader)
        await asyncio.shield(site.thread(reader.close))
    return answer


async def _send(answer: web.StreamResponse, reader: _Reader, site: Site, login: str | None) -> None:
    """Send until the end; raise Refusal when the token of who follows, by its `login`, doesn't hold any more."""
    await answer.write(f"retry: {_RETRY_MS}\n\n".encode())
    sent = site.now()
    while not site.stopping.is_set():
        site.tokens.judge(login, "read")
        data, ended = await site.thread(reader.read)
        if data:
            await answer.write(data)
            sent = site.now()
        if ended:
            await answer.write(b"event: end\ndata: {}\n\n")
            return
        if site.now() - sent > _BEAT_S:
            await answer.write(b": still here\n\n")
            sent = site.now()
        if not data:
            try:
                await asyncio.wait_for(site.stopping.wait(), _POLL_S)
            except TimeoutError:
                continue


def _number(said: str) -> int:
    """Return a number that a client sent; 0 for what is none."""
    return int(said) if said.isascii() and said.isdigit() and len(said) < 12 else 0  # noqa: PLR2004  # a number of lines


class _Reader:
    """Reads an attempt's events and the log of its phase; only ever used by one thread at a time."""

    def __init__(self, one: Attempt, lock: Path, after: int) -> None:
        self._one = one
        self._lock = lock
        self._after = after
        self._number = 0
        self._events = _Lines(one.logs / "events.jsonl")
        self._log: _Lines | None = None
        self._phase = ""

    @classmethod
    def of(cls, root: Path, fingerprint: str, number: int, after: int) -> _Reader | None:
        """Return the reader of the attempt `number`, for 0 of the newest one, or None where there is none."""
        folder, lock = root / "builds" / fingerprint / "logs", root / "locks" / fingerprint
        found = [
            one
            for file in folder.glob("*/events.jsonl")
            if (one := builds.read(file, alive=lambda: locks.is_held(lock))) is not None
        ]
        found = [one for one in found if number in {0, one.attempt}]
        if not found:
            return None
        return cls(max(found, key=lambda one: (one.started, one.attempt)), lock, after)

    def close(self) -> None:
        """Close the files."""
        self._events.close()
        if self._log is not None:
            self._log.close()

    def read(self) -> tuple[bytes, bool]:
        """Return what came since the last time, as it is sent, and whether that was the end."""
        there = locks.is_held(self._lock)  # asked first: what is written before the death is read after it
        told: list[str] = []
        ended = False
        for line in self._events.new():
            self._number += 1
            event = self._event(line)
            if isinstance(event, events.PhaseStarted | events.PhaseEnded) and self._log is not None:
                told += self._printed()
                self._log.close()
                self._log = None
            if isinstance(event, events.PhaseStarted) and event.log:
                self._phase = event.phase
                self._log = _Lines(self._one.logs / f"{event.phase}.log", last=_TAIL)
            if self._number > self._after and event is not None:
                told.append(f"id: {self._number}\ndata: {line}\n\n")
            ended = ended or isinstance(event, events.BuildEnded)
        told += self._printed()
        more = self._events.behind()
        return "".join(told).encode(errors="replace"), ended or not (there or more)

    def _event(self, line: str) -> events.Event | None:
        try:
            return events.parse_line(line)[1]
        except ValueError:  # torn
            return None

    def _printed(self) -> list[str]:
        if self._log is None:
            return []
        head = {"kind": events.Printed.kind, "phase": self._phase}
        return [
            f"data: {json.dumps({**head, 'text': scrubbed(line[:_LONGEST_LINE])}, ensure_ascii=False)}\n\n"
            for line in self._log.new()
        ]


class _Lines:
    """Whole lines of a file that grows and may not be there yet."""

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        self._path = path
        self._last = last
        self._rest = b""
        self._more = False
        self._stream: BinaryIO | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._stream = self._path.open("rb")
        except OSError:
            return
        if self._last is not None:
            size = self._stream.seek(0, 2)
            self._stream.seek(max(0, size - self._last))
            if size > self._last:
                self._stream.readline()

    def new(self) -> list[str]:
        """Return the lines that came, of a long file those of a part."""
        if self._stream is None:
            self._open()
        if self._stream is None:
            return []
        data = self._stream.read(_CHUNK)
        self._more = len(data) == _CHUNK
        *whole, self._rest = (self._rest + data).split(b"\n")
        # A line break of Unicode would end a line of the stream: only CR and LF are such to a browser, but for us all.
        return [line.decode(errors="replace").replace("\r", " ") for line in whole]

    def behind(self) -> bool:
        """Whether there is more to read at once."""
        return self._more

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
