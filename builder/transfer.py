"""One file over HTTP: gone on with where it stopped (RFC 9110, 13.1.5, 14), hashed while it comes, never of two files.

What came so far is a file beside the wanted one. Beside it lies what the server said of it, its mark: with that the server
itself begins anew where it has another file by now. Without a digest a beginning without a mark is worth nothing. Whoever
downloads brings the way to ask, its patience, and its words for what went wrong.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import os
import time
import urllib.error
from typing import TYPE_CHECKING, Protocol, TypeVar

from builder.values import dataclass

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from hashlib import _Hash
    from pathlib import Path

    #: Asks with these headers more, and leaves the network's errors as they are.
    Ask = Callable[[Mapping[str, str]], AbstractContextManager["Answer"]]
    #: Gets bytes that are there, bytes that there will be, and bytes that just came.
    Tell = Callable[[int, int | None, int], object]

__all__ = ["Again", "Answer", "Got", "complete", "persistently", "size_of", "words"]

T = TypeVar("T")

#: A connection's share of memory, and what a kill may lose of it. It stays in the processor's cache between reading, hashing
#: and writing: 1 MiB takes longer.
_CHUNK = 1 << 18
_PARTIAL, _UNSATISFIABLE = 206, 416
_LONGEST_WAIT_S = 30.0


class Again(Exception):  # it never reaches a user
    """The way failed, and another try may bring the rest; the cause is the exception that told."""

    @property
    def wait_s(self) -> float | None:
        """Seconds that the server wants to be left alone."""
        told = getattr(self.__cause__, "headers", None)
        asked = told.get("Retry-After", "") if told is not None else ""
        return min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else None

    def __str__(self) -> str:
        """Say why, in a few words."""
        return super().__str__() or (words(self.__cause__) if self.__cause__ else "")


def words(error: BaseException) -> str:
    """Return what a failed request failed by, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    reason = getattr(error, "reason", None) or error
    return str(reason) or type(reason).__name__


class _TooLong(Exception):
    """The file has more bytes than it may have."""


class Answer(Protocol):
    """An answer whose body wasn't read yet. `readinto` gives 0 at its end."""

    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102
    def readinto(self, buffer: memoryview, /) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A file that is whole: its digest, and how many bytes came over the network for it."""

    sha256: str
    received: int


def complete(
    part: Path,
    ask: Ask,
    *,
    sha256: str | None,
    size: int | None = None,
    blindly: bool = True,
    tell: Tell = lambda _done, _total, _came: None,
    persist: Callable[[Callable[[], str]], str] = lambda action: action(),
) -> Got:
    """Leave all of the file in `part`, whose mark is gone then.

    A file with other bytes than those of `sha256` isn't kept, and the digest that comes back says so; it is empty for one
    with more than `size` bytes. A beginning that has no mark is gone on with where `sha256` shows a wrong one, unless not
    `blindly`. Each try is an action for `persist`.

    Raises what `persist` makes of `Again`, and as `ask` and `tell` do. An OSError is of this disk. What came stays for
    another call.
    """
    transfer = _Transfer(part, ask, tell, size=size, blindly=blindly and sha256 is not None)
    digest = persist(transfer.once)
    if sha256 not in (None, digest) and transfer.joined:
        # Two halves were put together, and nobody knows whether they are of one file. What comes in one go is.
        _drop(part)
        digest = persist(transfer.once)
    if sha256 in (None, digest):
        _mark(part).unlink(missing_ok=True)
    else:
        _drop(part)
    return Got(sha256=digest, received=transfer.received)


def persistently(
    action: Callable[[], T],
    *,
    tries: int,
    done: Callable[[], int] = lambda: 0,
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Return what `action` does; where it raises `Again` that is done anew. `tries` in a row may bring nothing new.

    `done` says how many bytes are there, `wait` waits for seconds. Raises the last `Again`.
    """
    idle, most = 0, done()
    while True:
        try:
            return action()
        except Again as error:
            now = done()
            idle, most = (0 if now > most else idle + 1), max(now, most)
            if idle >= tries:
                raise
            asked = error.wait_s
        wait(0.25 * 2**idle if asked is None else asked)


def size_of(part: Path) -> int:
    """Return how many bytes of a file are there."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


class _Transfer:
    """What is known of one file over all tries: bytes `received`, and whether halves of two connections were `joined`."""

    def __init__(self, part: Path, ask: Ask, tell: Tell, *, size: int | None, blindly: bool) -> None:
        self.received = 0
        self.joined = False
        self._part, self._ask, self._tell, self._size, self._blindly = part, ask, tell, size, blindly
        self._digest, self._hashed = hashlib.sha256(), 0

    def once(self) -> str:
        """Add to the file what it lacks, and return the digest of all; "" for more bytes than it may have."""
        condition = _condition(self._part)
        have = size_of(self._part) if condition or self._blindly else 0
        if have != self._hashed:  # first: no server waits for that. After a connection that broke it's known
            self._digest, self._hashed = _read(self._part) if have else (hashlib.sha256(), 0)
        if have and have == self._size:
            self.joined = True
            self._tell(have, have, 0)
            return self._digest.hexdigest()
        with contextlib.ExitStack() as stack:
            answer = self._asked(stack, {"Range": f"bytes={have}-", **condition} if have else {})
            try:
                self._copy(answer, have if self._goes_on(answer, have) else 0)
            except _TooLong:
                return ""
        return self._digest.hexdigest()

    def _asked(self, stack: contextlib.ExitStack, headers: Mapping[str, str]) -> Answer:
        try:
            return stack.enter_context(self._ask(headers))
        except urllib.error.HTTPError as error:
            if error.code == _UNSATISFIABLE:  # what lies here is of another file, or all of it
                _drop(self._part)
            raise Again from error
        except (OSError, http.client.HTTPException) as error:
            raise Again from error

    def _goes_on(self, answer: Answer, have: int) -> bool:
        """Whether the answer goes on where the file ends; raise `Again` where it goes on somewhere else."""
        if getattr(answer, "status", 200) != _PARTIAL:  # a file: has none
            return False
        if have and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            return True
        _drop(self._part)
        msg = "the server doesn't go on where an earlier transfer stopped"
        raise Again(msg)

    def _copy(self, answer: Answer, have: int) -> None:
        """Write and hash what comes behind the bytes that are there."""
        told = answer.headers.get("Content-Length") or ""
        length = int(told) if told.isdecimal() else None
        total = _whole(answer, have, length) or self._size
        self.joined = have > 0
        if not self.joined:
            self._digest, self._hashed = hashlib.sha256(), 0
            _drop(self._part)  # first: with the new mark the old bytes would pass for this file's
            if length is None or length > _CHUNK:
                _keep_mark(self._part, answer.headers)
        self._tell(have, total, 0)
        buffer = memoryview(bytearray(_CHUNK if length is None else min(_CHUNK, length + 1)))
        with self._part.open("ab", buffering=0) as stream:
            while came := _next(answer, buffer):
                _write(stream, buffer[:came])
                self._digest.update(buffer[:came])
                have = self._hashed = have + came
                self.received += came
                self._tell(have, total, came)
                if self._size is not None and have > self._size:
                    raise _TooLong
            if os.fstat(stream.fileno()).st_size != have:  # what was hashed isn't what lies there
                _drop(self._part)
                raise Again("something else writes to the same file")
        if total is not None and have < total:  # a connection that is cut looks like an end
            msg = f"the connection ended after {have} of {total} bytes"
            raise Again(msg)


def _whole(answer: Answer, have: int, length: int | None) -> int | None:
    """Return how many bytes the file has, if told; an answer may bring fewer than were asked for (RFC 9110, 15.3.7)."""
    told = answer.headers.get("Content-Range", "").rpartition("/")[2] if have else ""
    if told.isdecimal():
        return int(told)
    return None if length is None else have + length


def _next(answer: Answer, buffer: memoryview) -> int:
    try:
        return answer.readinto(buffer)
    except (OSError, http.client.HTTPException) as error:
        raise Again from error


def _write(stream: io.FileIO, data: memoryview) -> None:
    """Write all of it: a disk that is nearly full takes the first bytes and says nothing."""
    while data:
        data = data[stream.write(data) :]


def _read(part: Path) -> tuple[_Hash, int]:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_CHUNK))
    with part.open("rb", buffering=0) as stream:
        while got := stream.readinto(buffer):
            digest.update(buffer[:got])
            size += got
    return digest, size


def _mark(part: Path) -> Path:
    """Return where it lies what the server said of the file that `part` is the beginning of."""
    return part.with_name(f"{part.name}.mark")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def _condition(part: Path) -> dict[str, str]:
    """Return the header that makes a server begin anew where the file is another by now."""
    try:
        kept = _mark(part).read_text()
    except FileNotFoundError:
        return {}
    return {"If-Range": kept} if kept else {}


def _keep_mark(part: Path, headers: Mapping[str, str]) -> None:
    """Keep what tells this file from another one of its URL; a weak ETag doesn't."""
    etag = headers.get("ETag") or ""
    if found := _steady(headers) if not etag or etag.startswith("W/") else etag:
        _mark(part).write_text(found)


def _steady(headers: Mapping[str, str]) -> str:
    """Return when the file changed last; nothing where it may have changed once more within that second (8.8.2.2)."""
    changed, asked = headers.get("Last-Modified") or "", headers.get("Date") or ""
    try:
        past = email.utils.parsedate_to_datetime(asked) - email.utils.parsedate_to_datetime(changed)
    except (TypeError, ValueError):  # no date, or only one with a time zone
        return ""
    return changed if past.total_seconds() >= 1 else ""
