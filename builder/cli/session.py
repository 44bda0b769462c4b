"""Opening the wheelhouse and the screen for a command, and closing both."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from builder.pipeline.world import World
from builder.ui import select
from builder.ui.controls import Relay
from builder.wheelhouse import Wheelhouse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

    from builder.cli.app import App
    from builder.events import Sink
    from builder.ui.select import Screen

__all__ = ["opened"]


@contextlib.contextmanager
def opened(args: argparse.Namespace, app: App) -> Iterator[World]:
    """Give a world with the configured wheelhouse and the screen that the arguments ask for.

    A command that can be detached goes on when its terminal goes away.
    """
    config = app.config()
    controls = Relay()
    screen = select.screen(
        getattr(args, "progress", "auto"),
        stream=app.stderr,
        env=app.env,
        clock=app.clock,
        color=getattr(args, "color", "auto"),
        keys=0,
        controls=controls,
    )
    house = Wheelhouse.open(config.wheelhouse, clock=app.clock)
    try:
        if hasattr(args, "detach"):
            _outlive(screen, app)
        yield World(
            config=config,
            env=app.env,
            cwd=app.cwd,
            clock=app.clock,
            sink=_sink(screen, app),
            house=house,
            words=tuple(sys.argv[1:]),
            controls=controls,
        )
    finally:
        screen.close()
        house.close()


def _sink(screen: Screen, app: App) -> Sink:
    """Return the screen; where somebody waits for this process's plan, also tell that one."""
    if not (file := app.env.get("SPARK_BUILD_DETACHED")):
        return screen
    from pathlib import Path  # noqa: PLC0415

    from builder.pipeline import detach  # noqa: PLC0415  # starts processes, which a hit doesn't

    return detach.Announced(screen, Path(file))


def _outlive(screen: Screen, app: App) -> None:
    """Let a hang-up end the drawing and not the build; who ignores it (nohup) keeps doing that."""

    def hung_up(_number: int, _frame: FrameType | None) -> None:
        from builder.pipeline import detach  # noqa: PLC0415

        screen.hang_up()
        detach.lose_terminal(app.env)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hung_up)
