"""Threads that each have the wheelhouse open, for reads that take longer than the loop can wait."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.wheelhouse import Wheelhouse

__all__ = ["Readers"]

T = TypeVar("T")


class Readers:
    """So many threads; `opened` opens the wheelhouse. What is asked goes to the one that has least to do."""

    def __init__(self, count: int, opened: Callable[[], Wheelhouse]) -> None:
        self._all = [_Reader(opened) for _ in range(count)]

    async def read(self, call: Callable[[Wheelhouse], T]) -> T:
        """Return what `call` returns."""
        reader = min(self._all, key=lambda one: one.asked)
        reader.asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(reader.executor, lambda: call(reader.house()))
        finally:
            reader.asked -= 1

    def close(self) -> None:
        """Let go of them; what runs ends first."""
        for reader in self._all:
            reader.close()


class _Reader:
    """One thread; its connection may only be used, and closed, there."""

    def __init__(self, opened: Callable[[], Wheelhouse]) -> None:
        self.executor = ThreadPoolExecutor(1, "catalogue")
        self.asked = 0
        self._opened = opened
        self._house: Wheelhouse | None = None

    def house(self) -> Wheelhouse:
        if self._house is None:
            self._house = self._opened()
        else:
            self._house.catalogue.refresh()
        return self._house

    def close(self) -> None:
        if self._house is not None:
            self.executor.submit(self._house.close)
        self.executor.shutdown()
