"""What a person can change while a build runs, and the wire between a screen and whoever runs the build."""

from __future__ import annotations

TYPE_CHECKING = False  # every command imports this module
if TYPE_CHECKING:
    from typing import Protocol

    class Controls(Protocol):
        """Takes wishes about a build that runs."""

        def change(self, *, jobs: int | None = None, paused: bool | None = None) -> None:
            """Let at most `jobs` compilers run from now on, or none be started while `paused`; None leaves as it is.

            Returns at once: it is called from a thread that reads keys. May raise OSError, which says that nothing changed.
            """


__all__ = ["Relay"]


class Relay:
    """Controls that exist before the build does: passes wishes on to `target` while there is one."""

    def __init__(self) -> None:
        self.target: Controls | None = None

    def change(self, *, jobs: int | None = None, paused: bool | None = None) -> None:
        """Pass a wish on; nothing changes while nobody takes it."""
        if self.target is not None:
            self.target.change(jobs=jobs, paused=paused)
