"""The processes that audit and publish for the server: started when there is something to do, a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.errors import SparkError
from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.server.site import Site

__all__ = ["Pool", "close", "of"]

#: So many wheels are audited at once; others wait for their turn, in the order in which they came.
_AT_ONCE = 2
#: The audit of a wheel of gigabytes takes minutes; what takes longer than this doesn't end.
_LIMIT_S = 1800.0
#: How long a server that ends waits for one that has nothing more to do.
_ENDING_S = 10.0
#: An answer holds all findings of a set.
_LONGEST = 64 << 20


def of(site: Site) -> Pool:
    """Return the pool of a running server, made at the first call."""
    pool: Pool | None = site.own.get("pool")
    if pool is None:
        pool = site.own["pool"] = Pool(site.complain)
    return pool


async def close(site: Site) -> None:
    """Let the processes end, each after what it is doing; what isn't done in time is undone by the next opening."""
    if "pool" in site.own:
        await of(site).close()


class Pool:
    """Worker processes. `complain` gets what they write."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._turn = asyncio.Semaphore(_AT_ONCE)  # first come, first served
        self._idle: list[_Worker] = []
        self._busy = 0

    def warm(self) -> None:
        """Have a process started for what is about to come."""
        if self._busy < _AT_ONCE:
            self._idle.append(self._taken())

    async def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a job (`builder.server.worker.perform`).

        Raises Refusal 500 when the process ended over it, 503 when it took too long.
        """
        async with self._turn:
            for _attempt in range(_AT_ONCE + 1):  # idle ones may just have ended; what was done already is found done
                answer = await self._asked(job)
                if answer is not None:
                    return answer
        raise Refusal(500, "audit-crashed", "the audit of this ended without an answer", "the server's log says more")

    async def _asked(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        worker, answer = self._taken(), None
        self._busy += 1
        try:
            async with asyncio.timeout(_LIMIT_S):
                answer = await worker.ask(job)
        except TimeoutError:
            worker.kill()
            raise Refusal(503, "audit-timeout", f"the audit took longer than {_LIMIT_S:.0f} s") from None
        finally:
            self._busy -= 1
            if answer is None:  # one that isn't waited for any more ends when it has done what it does
                worker.close()
            else:
                self._idle.append(worker)
        return answer

    async def close(self) -> None:
        """Let the idle ones end: they bring the wheelhouse's own index up to date before."""
        for worker in self._idle:
            worker.close()
        for worker in self._idle:
            await asyncio.to_thread(worker.wait, _ENDING_S)
        self._idle = []

    def _taken(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            worker.close()
        return _Worker(self._complain)


class _Worker:
    """One process and the socket to it."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._ours, theirs = socket.socketpair()
        self._pid = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._thread = threading.Thread(target=self._run, args=(theirs,), name="worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._thread.is_alive() and not (self._streams and self._streams[0].at_eof())

    async def ask(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer, or None where there came none."""
        if self._streams is None:
            self._ours.setblocking(False)  # noqa: FBT003  # the standard library's
            self._streams = await asyncio.open_connection(sock=self._ours, limit=_LONGEST)
        reader, writer = self._streams
        try:
            writer.write(json.dumps(job).encode() + b"\n")
            await writer.drain()
            while line := await reader.readline():
                answer: dict[str, Any] = json.loads(line)
                if "pid" not in answer:
                    return answer
                self._pid = answer["pid"]
        except (OSError, ValueError) as error:
            self._complain(f"a worker was lost: {error}")
        return None

    def wait(self, seconds: float) -> None:
        """Return when it has ended, or `seconds` have passed."""
        self._thread.join(seconds)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._pid and self._thread.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it: it ends when it has done what it does."""
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._ours.close()

    def _run(self, theirs: socket.socket) -> None:
        """Be the parent of the process until it ends; it ends with this server, however that ends."""
        words = [sys.executable, "-m", "builder.server.worker", str(theirs.fileno())]
        try:
            with theirs:  # open until the process is gone, so that its end is the end of the stream
                done = proc.run(
                    words,
                    env=os.environ,
                    cwd=Path("/"),
                    log=Path(os.devnull),
                    on_line=self._complain,
                    pass_fds=(theirs.fileno(),),
                )
            if not done.ok:
                self._complain(f"a worker ended with {done.code}")
        except (SparkError, OSError) as error:
            self._complain(f"no worker: {error}")
