"""All that handlers share while a server runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from builder.server import hosts
from builder.server.accesslog import AccessLog, line
from builder.server.metrics import Metrics
from builder.server.readers import Readers
from builder.server.shelf import Shelf
from builder.server.tokens import Tokens
from builder.wheelhouse import Wheelhouse

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawRequestMessage

    from builder.index.listing import Superseded
    from builder.server.settings import Settings

__all__ = ["Site"]

P = ParamSpec("P")
T = TypeVar("T")

#: The catalogue is asked so often at most whether it changed.
_ASK_S = 0.02
#: A query of the loop waits so long for others: they write for moments, and readers hardly ever wait at all.
_BUSY_S = 0.5
#: Lines of the access log are written together, so often.
_LOG_S = 0.1
#: One may be reading a wheel of gigabytes whose time has changed, or listing a channel of thousands.
_READERS = 3
_ABSENT = 1 << 20


class Site:
    """A running server: `house` is for quick reads on the loop's thread only.

    `shelf` keeps pages, `absent` those that say that there is none. `tokens` judges requests, `metrics` counts them.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self.house = Wheelhouse.open(settings.root, clock=clock, busy_s=_BUSY_S)
        self.shelf = Shelf(settings.page_cache)
        self.absent = Shelf(_ABSENT)
        self.metrics = Metrics(self)
        self.tokens = Tokens(settings.tokens, open_reads=settings.open_reads, clock=clock, complain=self.complain)
        self.tokens.load()
        self.superseded: Superseded = "list" if settings.superseded == "list" else "hide"
        self.loop = asyncio.get_running_loop()
        self.log: AccessLog | None = None
        if settings.access_log:
            later = functools.partial(self.loop.call_later, _LOG_S)
            self.log = AccessLog(settings.access_log, complain=self.complain, later=later)
        self.stopping = asyncio.Event()
        self.generation = ""
        #: What handlers keep for the life of the server, by their own words.
        self.own: dict[str, Any] = {}
        #: Files whose time is another than the catalogue says, and whose bytes were read and are right.
        self.sound: dict[str, tuple[int, int, int]] = {}
        self._asked = float("-inf")
        self._threads = ThreadPoolExecutor(4, "file")
        self._readers = Readers(_READERS, lambda: Wheelhouse.open(settings.root, clock=clock, create=False))

    def close(self) -> None:
        """Let go of threads and the catalogue; what runs in a thread ends first."""
        if self.log is not None:
            self.log.flush()
        self._threads.shutdown(cancel_futures=True)
        self._readers.close()
        self.house.close()

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return self.loop.time()

    def log_line(self, message: RawRequestMessage, peer: Any, status: int, size: int, user: str) -> None:  # noqa: ANN401  # of a socket
        """Write to the access log."""
        if self.log is not None:
            version = message.version
            self.log.write(
                line(
                    peer=str(peer[0]) if peer else "",
                    user=user,
                    now=self.clock(),
                    request=f"{message.method} {message.path} HTTP/{version.major}.{version.minor}",
                    status=status,
                    size=size,
                    referer=message.headers.get("Referer", ""),
                    agent=message.headers.get("User-Agent", ""),
                )
            )

    def complain(self, text: str) -> None:
        """Write a line to the server's log, which is stderr; that nobody reads it, or the disk is full, ends nothing."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def is_ours(self, host: str) -> bool:
        """Whether a request with this ``Host`` is for this server."""
        return self.settings.any_host or hosts.is_ours(host, self.settings.public_url)

    async def thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns, run in a thread: for all that blocks. It may not use `house`."""
        return await self.loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def reading(self, call: Callable[[Wheelhouse], T]) -> T:
        """Return what `call` returns of a wheelhouse that is open in a thread of its own: for reads that take long."""
        return await self._readers.read(call)

    def fresh(self, now: float) -> str:
        """Return the catalogue's generation, as it was at most a few milliseconds ago. `now` is the loop's time."""
        return self.look() if now - self._asked >= _ASK_S else self.generation

    def look(self) -> str:
        """Return the catalogue's generation as it is now."""
        from builder.index import listing  # noqa: PLC0415

        self.generation, self._asked = listing.generation(self.house), self.now()
        return self.generation
