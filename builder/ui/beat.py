"""A timer of its own thread: what runs long has to be shown even when nothing happens."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Beat", "begin"]

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP}


def begin(thread: threading.Thread) -> None:
    """Start `thread`; a signal waits, since an exception in the midst would leave a thread that can't be joined."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Beat:
    """Calls `tick` every `period_s` seconds from `start` to `stop`; a daemon, so that it never holds the process up."""

    def __init__(self, tick: Callable[[], None], *, period_s: float) -> None:
        self._tick = tick
        self._period_s = period_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; does nothing the second time or after `stop`."""
        if self._thread is None and not self._ended.is_set():
            thread = threading.Thread(target=self._run, name="screen", daemon=True)
            begin(thread)
            self._thread = thread

    def stop(self) -> None:
        """End; no call of `tick` begins after this returns."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._period_s + 1)

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            self._tick()
