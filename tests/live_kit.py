"""A gate's word, a screen of a real terminal, and a terminal emulator that shows what a person would see."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyte

from builder.events import GateState
from builder.ui.live import Live
from builder.ui.region import View
from builder.ui.style import Style
from tests.ui_kit import Clock

if TYPE_CHECKING:
    from builder.ui.controls import Controls

GIB = 1 << 30

UNITS = tuple(
    (name, int(used * GIB), since * 1000, last * 1000, "same")
    for name, used, since, last in (
        ("flash_fwd_hdim256_bf16_sm120.cu", 9.8, 161, 190),
        ("moe_wna16_marlin_gemm_9.cu", 7.1, 118, 122),
        ("cutlass_moe_mm_c3x_sm120.cu", 6.4, 72, 0),
        ("漢字漢字漢字漢字漢字漢字漢字.cpp", 2.0, 60, 61),
        ("x.cu", 0.4, 2, 3),
    )
)


def gate(**more: object) -> GateState:
    values: dict[str, object] = {
        "used_bytes": int(94.2 * GIB),
        "promised_bytes": 8 * GIB,
        "ceiling_bytes": 108 * GIB,
        "peak_bytes": 101 * GIB,
        "available_bytes": int(13.4 * GIB),
        "total_bytes": 121 * GIB,
        "jobs": 6,
        "slots": 10,
        "waiting": 12,
        "bound": "memory",
        "running": UNITS,
        "done": 612,
        "edges": 974,
        "hits": 31,
        "requeues": 2,
        "left_ms": (540_000, 840_000),
    }
    return GateState(**{**values, **more})  # type: ignore[arg-type]


def view(**more: object) -> View:
    values: dict[str, object] = {
        "head": ("vllm 0.33.0", "3f9ac1d2ab", "build vllm", "18m22s"),
        "gate": gate(),
        "keys": ("l log", "+/- jobs", "p pause", "^C stop and keep"),
    }
    return View(**{**values, **more})  # type: ignore[arg-type]


class Window(io.StringIO):
    """A terminal of some size whose emulator has seen all that was written; it cuts lines where others fold them."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self.screen.set_mode(pyte.modes.LNM)  # as the line discipline does: a new line begins at its start
        self._emulator = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self.writes.append(text)
        self._emulator.feed(text)
        return len(text)

    @property
    def area(self) -> tuple[int, int]:
        return self.screen.columns, self.screen.lines

    def shown(self) -> list[str]:
        """Everything from the top of the scrollback on, without the empty rows at the end."""
        above = ["".join(row[at].data for at in range(self.screen.columns)) for row in self.screen.history.top]
        rows = [*above, *self.screen.display]
        return "\n".join(row.rstrip() for row in rows).rstrip("\n").split("\n")


def live(
    window: Window, clock: Clock | None = None, *, controls: Controls | None = None, keys: int | None = None
) -> Live:
    style = Style(color=True, live=True, encoding="utf-8")
    env = {"TERM": "linux"}  # as the emulator, it cuts lines when it becomes narrower
    return Live(
        window,
        style=style,
        clock=clock or Clock(),
        env=env,
        area=lambda: window.area,
        controls=controls,
        keys=keys,
        beats=False,
    )
