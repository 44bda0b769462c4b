"""What a run needs beside the request: configuration, environment, clock, sink, wheelhouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.source import Sources
from builder.ui.controls import Relay
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from builder.config import Config
    from builder.events import Sink
    from builder.recipe.layers import Layer
    from builder.wheelhouse import Wheelhouse

__all__ = ["World"]

#: What ``--isolation`` and the configuration may say.
Asked = Literal["auto", "namespace", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The outside of a run. `cwd` is what relative paths on the command line mean, `words` that line.

    `stack` is what a stack file says about recipes, by name.

    `controls` takes what a screen asks for, and passes it on to the gate while there is one.
    """

    config: Config
    env: Mapping[str, str]
    cwd: Path
    clock: Callable[[], float]
    sink: Sink
    house: Wheelhouse
    words: tuple[str, ...] = ()
    stack: Mapping[str, Layer] = field(default_factory=dict)
    controls: Relay = field(default_factory=Relay)

    @property
    def builds(self) -> Path:
        """Where build trees lie: in the wheelhouse, since whoever shares it shares its locks."""
        return self.house.root / "builds"

    @property
    def cache(self) -> Path:
        """Where digests of this machine's tools are remembered."""
        return self.config.sources / "host"

    @property
    def uv_env(self) -> Mapping[str, str]:
        """The environment for uv: what it fetches is kept with the sources, unless the user keeps it elsewhere."""
        return {"UV_CACHE_DIR": str(self.config.sources / "uv"), **self.env}

    def isolation(self, asked: Asked) -> Asked:
        """Return how a build or a trial is to be cut off: as asked for, else as configured."""
        configured: Asked = self.config.build.get("isolation", asked)
        return configured if asked == "auto" else asked

    def sources(self, *, offline: bool, recipe: str) -> Sources:
        """Return the sources as configured; `recipe` is what the commands in their errors name."""
        return Sources(
            root=self.config.sources,
            mirrors=self.config.mirrors,
            index_url=self.config.index_url,
            offline=offline,
            env=self.env,
            clock=self.clock,
            sink=self.sink,
            recipe=recipe,
        )
