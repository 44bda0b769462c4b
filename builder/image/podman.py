"""Podman, as root or not. Store, runtime and limits are those of its own configuration."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.image import apart
from builder.image import words as common
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.image.engine import Container, Image, Order
    from builder.proc import Finished

__all__ = ["Podman", "usable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """Podman of this machine, without a daemon."""

    words: tuple[str, ...]
    version: str
    machine: str
    env: Mapping[str, str]
    name: str = "podman"

    def build(self, order: Order, tell: Callable[[str], None]) -> str:
        """Build, as `Engine.build` says."""
        words, _ = apart.around(self.env, cut=False)
        argv = [*words, *self.words, "build", *_network(order.network), *common.classic_options(order)]
        env = {name: value for name, value in self.env.items() if name != "BUILDAH_ISOLATION"}  # chroot cuts no network
        return common.build(argv, order, env, tell, engine=self.name)

    def inspect(self, tag: str) -> Image:
        """Return what `tag` names, as `Engine.inspect` says."""
        return common.inspect(self, tag, env=self.env)

    def run(self, tag: str, words: Sequence[str], container: Container) -> Finished:
        """Run `words`, as `Engine.run` says; a GPU by the Container Device Interface."""
        options = [*common.run_options(container), *_network(container.network)]
        options += ["--device", "nvidia.com/gpu=all"] if container.gpu else []
        return common.run_in(self, options, tag, words, env=self.env, timeout_s=container.timeout_s)

    def save(self, tag: str) -> tuple[str, ...]:
        """Return the command that writes `tag` to stdout."""
        return (*self.words, "save", "--quiet", "--format", "docker-archive", common.named(tag))


def _network(wanted: bool) -> list[str]:  # noqa: FBT001  # the one thing that it is about
    return ["--network", "host" if wanted else "none"]


def usable(program: str, env: Mapping[str, str]) -> Podman | str:
    """Return Podman by `program`, or why it can't be used."""
    try:
        done = common.ask([program, "version", "--format", "{{.Client.Version}}"], env)
    except HostError as error:
        return f"{error.summary}: {error.cause}"
    if not done.ok:
        return " ".join(done.err.split()) or f"it ended with {done.code}"
    return Podman(words=(program,), version=done.out.strip(), machine=platform.machine(), env=env)
