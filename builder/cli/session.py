"""Opening the wheelhouse and the screen for a command, and closing both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from builder.pipeline.world import World
from builder.ui import select
from builder.wheelhouse import Wheelhouse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from builder.cli.app import App

__all__ = ["opened"]


@contextlib.contextmanager
def opened(args: argparse.Namespace, app: App) -> Iterator[World]:
    """Give a world with the configured wheelhouse and the screen that the arguments ask for."""
    config = app.config()
    sink = select.screen(
        getattr(args, "progress", "auto"),
        stream=app.stderr,
        env=app.env,
        clock=app.clock,
        color=getattr(args, "color", "auto"),
    )
    house = Wheelhouse.open(config.wheelhouse, clock=app.clock)
    try:
        yield World(config=config, env=app.env, cwd=app.cwd, clock=app.clock, sink=sink, house=house)
    finally:
        sink.close()
        house.close()
