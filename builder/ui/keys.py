"""Single keys from a terminal while something else is going on.

Keys are read only while the terminal is ours: in a background process group reading would stop the process, and the mode
of the terminal is somebody else's business. That is looked at anew four times a second, so that stopping a job, sending it
to the background and fetching it back need no bookkeeping.

The mode is cbreak, never raw: Ctrl-C and Ctrl-Z stay signals. It is undone at the end and before a stop. A process that is
killed by SIGKILL can undo nothing; shells put their terminal right after a job that died.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING, Any

from builder.ui.beat import begin
from builder.ui.style import clean

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Keys", "ours"]

_PERIOD_S = 0.25
_CHUNK = 1 << 10


def ours(descriptor: int) -> bool | None:
    """Whether this process is in the foreground of the terminal `descriptor`; None where it isn't our terminal at all."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return None


class Keys:
    """Calls `on_key` with each character that is typed on `descriptor`, from a thread of its own, until `stop`."""

    def __init__(self, descriptor: int, on_key: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_key = on_key
        self._ended = threading.Event()
        self._lock = threading.RLock()  # a signal handler may come in between
        self._before: list[Any] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; does nothing the second time or after `stop`."""
        if self._thread is None and not self._ended.is_set():
            thread = threading.Thread(target=self._run, name="keys", daemon=True)
            begin(thread)
            self._thread = thread

    def stop(self) -> None:
        """End, with the terminal as it was; no key is passed on after this returns."""
        self._ended.set()
        self.restore()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2 * _PERIOD_S)

    def abandon(self) -> None:
        """End without touching the terminal, which is gone. Safe in a signal handler."""
        self._ended.set()
        self._before = None

    def restore(self) -> None:
        """Put the terminal's mode back. It is taken again within a moment where it is ours and `stop` wasn't called."""
        import termios  # noqa: PLC0415  # only with a terminal

        with self._lock:
            before, self._before = self._before, None
            if before is not None and ours(self._descriptor):
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _run(self) -> None:
        while not self._ended.is_set():
            if not self._hold():
                self._ended.wait(_PERIOD_S)
                continue
            try:
                ready, _, _ = select.select([self._descriptor], [], [], _PERIOD_S)
                data = os.read(self._descriptor, _CHUNK) if ready and ours(self._descriptor) else None
            except OSError:  # hung up
                return
            if data == b"":
                return
            for char in clean((data or b"").decode(errors="replace")):
                if not self._ended.is_set():
                    self._on_key(char)

    def _hold(self) -> bool:
        """Have the terminal give keys at once and unseen; return whether it does."""
        import termios  # noqa: PLC0415

        with self._lock:
            if self._ended.is_set() or not ours(self._descriptor):
                return False
            try:
                mode = termios.tcgetattr(self._descriptor)
                if mode[3] & (termios.ICANON | termios.ECHO):  # at first, and after a shell has put it right
                    self._before = [*mode[:6], list(mode[6])]
                    mode[3] &= ~(termios.ICANON | termios.ECHO)
                    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
                    termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
            except termios.error:
                return False
        return True
