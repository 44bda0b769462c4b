"""Moving what children write and read, until they have ended. ``proc`` starts and ends them.

A child has ended when its leader has: what it left in the background may hold its output open for ever, and has `LINGER_S`
to say what it has to say.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import IO, TYPE_CHECKING, Protocol

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LINGER_S", "TICK_S", "Child", "Lines", "Said", "await_end", "pump", "through"]

#: How long output is waited for after the leader's end, while somebody still holds it open.
LINGER_S = 2.0

#: How often somebody hears how far it is, and can end it.
TICK_S = 0.25

_CHUNK = 1 << 16

#: What a pipe holds at most, unless somebody with rights made it larger (pipe(7)).
_PIPE = 1 << 20

#: Of what two connected children say these many bytes are kept.
_KEPT = 64 << 10


class Child(Protocol):
    """A process with its streams, as ``subprocess`` makes it."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None


class Lines:
    """Cuts bytes into lines; what has no end yet waits for the next ones."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what came, and tell the lines that are whole now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._tell(line)

    def end(self) -> None:
        """Tell the last line, which has no end."""
        if self._rest:
            self._tell(self._rest)

    def _tell(self, line: bytes) -> None:
        self._on_line(line.decode(errors="replace").rstrip("\r"))


def pump(
    child: Child,
    on_out: Callable[[bytes], None],
    on_err: Callable[[bytes], None] | None = None,
    *,
    stdin: bytes = b"",
    timeout_s: float | None,
) -> bool:
    """Pass on what the child prints until it has ended and its output is closed, or lingered; whether it was in time.

    The child isn't reaped: while it is a zombie, nobody else can get its process group's number.
    """
    limit = None if timeout_s is None else time.monotonic() + timeout_s
    with selectors.DefaultSelector() as ready, _leader(child) as leader:
        ready.register(leader, selectors.EVENT_READ)
        for stream, sink in ((child.stdout, on_out), (child.stderr, on_err)):
            if stream is not None:
                ready.register(stream, selectors.EVENT_READ, sink)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            ready.register(child.stdin, selectors.EVENT_WRITE)
        alive, rest = True, memoryview(stdin)
        while alive or ready.get_map():
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                _drain(ready)
                return not alive
            for key, _mask in ready.select(left):
                if key.fd == leader:
                    alive, limit = False, time.monotonic() + LINGER_S
                    ready.unregister(leader)
                    rest = rest[:0]
                elif key.fileobj is child.stdin:
                    rest = _feed(child, ready, rest)
                elif data := os.read(key.fd, _CHUNK):
                    key.data(data)
                else:
                    ready.unregister(key.fileobj)
    return True


def _drain(ready: selectors.BaseSelector) -> None:
    """Take what lies in the pipes already, once: whoever holds them open may go on writing for ever."""
    for key, _mask in ready.select(0):
        if key.data is not None and (data := os.read(key.fd, _PIPE)):
            key.data(data)


def _feed(child: Child, ready: selectors.BaseSelector, rest: memoryview) -> memoryview:
    """Write what the pipe takes, and close it when all is written or nobody reads it."""
    stdin = child.stdin
    assert stdin is not None  # noqa: S101  # only called for a stream that was registered
    with contextlib.suppress(BlockingIOError):
        try:
            rest = rest[os.write(stdin.fileno(), rest[:_CHUNK]) :] if rest else rest
        except BrokenPipeError:
            rest = rest[:0]
    if not rest:
        ready.unregister(stdin)
        stdin.close()
    return rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What two connected children said, the end of it."""

    source_err: str
    sink_out: str
    sink_err: str


def through(source: Child, sink: Child, tell: Callable[[int], None]) -> Said:
    """Pass on what `source` prints to the input of `sink` until that has ended; return what else they said.

    Bytes go from pipe to pipe in the kernel (splice(2)). `tell` gets their sum, at least once in `TICK_S`. When `sink` stops
    reading, `source` gets SIGPIPE at its next write.
    """
    out, into = source.stdout, sink.stdin
    assert out is not None  # noqa: S101  # both were started with pipes
    assert into is not None  # noqa: S101
    heard = {name: bytearray() for name in ("source_err", "sink_out", "sink_err")}
    passed, limit = 0, None
    with selectors.DefaultSelector() as ready, _leader(sink) as leader:
        ready.register(leader, selectors.EVENT_READ)
        for name, stream in (("source_err", source.stderr), ("sink_out", sink.stdout), ("sink_err", sink.stderr)):
            assert stream is not None  # noqa: S101
            ready.register(stream, selectors.EVENT_READ, heard[name])
        os.set_blocking(into.fileno(), False)
        ready.register(out, selectors.EVENT_READ)
        while ready.get_map() and (limit is None or time.monotonic() < limit):
            for key, _mask in ready.select(TICK_S):
                if key.fd == leader:
                    limit = time.monotonic() + LINGER_S
                    ready.unregister(leader)
                    _shut(ready, out, into)
                elif key.fileobj in (out, into) and out.closed:
                    pass  # it was shut by an event of the same round
                elif key.fileobj is out:  # there is something, or its end: on when there is room for it
                    ready.unregister(out)
                    ready.register(into, selectors.EVENT_WRITE)
                elif key.fileobj is into:
                    ready.unregister(into)
                    moved = _splice(out, into)
                    passed += moved or 0
                    if moved is None:
                        _shut(ready, out, into)
                    else:
                        ready.register(out, selectors.EVENT_READ)
                elif data := os.read(key.fd, _CHUNK):
                    key.data.extend(data)
                    del key.data[:-_KEPT]
                else:
                    ready.unregister(key.fileobj)
            tell(passed)
    return Said(**{name: text.decode(errors="replace") for name, text in heard.items()})


def _shut(ready: selectors.BaseSelector, *streams: IO[bytes]) -> None:
    """Close pipes that nothing goes through any more: the other ends see that."""
    for stream in streams:
        with contextlib.suppress(KeyError, ValueError):  # it isn't waited for, or is closed
            ready.unregister(stream)
        stream.close()


def _splice(source: IO[bytes], sink: IO[bytes]) -> int | None:
    """Move what is there and has room, without waiting; None at the end, or when nobody reads any more."""
    try:
        return os.splice(source.fileno(), sink.fileno(), _PIPE, flags=os.SPLICE_F_NONBLOCK) or None
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return None


@contextlib.contextmanager
def _leader(child: Child) -> Iterator[int]:
    """Give a descriptor that is readable when the leader has ended (pidfd_open(2)); nothing is reaped."""
    descriptor = os.pidfd_open(child.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def await_end(child: Child, seconds: float) -> None:
    """Return when the leader has ended or `seconds` have passed, without reaping it."""
    with _leader(child) as leader, selectors.DefaultSelector() as ready:
        ready.register(leader, selectors.EVENT_READ)
        ready.select(seconds)
