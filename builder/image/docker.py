"""Docker, by its client and BuildKit; the daemon is where ``DOCKER_HOST`` or the client's context says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from builder.errors import HostError
from builder.image import words as common
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.image.engine import Container, Image, Order
    from builder.proc import Finished

__all__ = ["Docker", "usable"]

#: The first daemon whose own frontend knows ``RUN --mount``, and the first client that builds by a plugin.
_DAEMON, _PLUGIN = (20, 10), (23, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """`host_network` says whether containers may use the machine's network: not where they have users of their own."""

    words: tuple[str, ...]
    version: str
    machine: str
    env: Mapping[str, str]
    host_network: bool = True
    name: str = "docker"

    def build(self, order: Order, tell: Callable[[str], None]) -> str:
        """Build, as `Engine.build` says."""
        argv = [
            *self.words,
            "build",
            "--progress",
            "plain",
            *common.build_options(order),
            *self._network(order.network),
        ]
        argv += ["--no-cache"] if order.renewed else []
        if order.epoch is not None:
            argv += ["--build-arg", f"SOURCE_DATE_EPOCH={order.epoch}"]
        # A builder of another driver than the daemon's doesn't see the daemon's images, and BASE may be one.
        env = {**self.env, "DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
        return common.build(argv, order, env, tell, engine=self.name)

    def inspect(self, tag: str) -> Image:
        """Return what `tag` names, as `Engine.inspect` says."""
        return common.inspect(self, tag, env=self.env)

    def run(self, tag: str, words: Sequence[str], container: Container) -> Finished:
        """Run `words`, as `Engine.run` says."""
        options = [*common.run_options(container), *self._network(container.network)]
        options += ["--gpus", "all"] if container.gpu else []
        return common.run_in(self, options, tag, words, env=self.env, timeout_s=container.timeout_s)

    def save(self, tag: str) -> tuple[str, ...]:
        """Return the command that writes `tag` to stdout."""
        return (*self.words, "save", common.named(tag))

    def _network(self, wanted: bool) -> list[str]:  # noqa: FBT001  # the one thing that it is about
        if not wanted:
            return ["--network", "none"]
        return ["--network", "host"] if self.host_network else []


def usable(program: str, env: Mapping[str, str]) -> Docker | str:
    """Return Docker by the client `program`, or why it can't be used."""
    try:
        answer = common.ask([program, "version", "--format", "{{json .}}"], env)
        about = common.ask([program, "info", "--format", "{{json .}}"], env)
    except HostError as error:
        return f"{error.summary}: {error.cause}"
    try:
        version, info = (_parsed(one) for one in (answer, about))
        client, server = version["Client"]["Version"], (version.get("Server") or {}).get("Version")
        plugins = {one["Name"] for one in (info.get("ClientInfo") or {}).get("Plugins") or ()}
        options = info.get("SecurityOptions") or ()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"it doesn't answer as Docker does: {(answer.err or answer.out).strip()[:200]}"
    if not server:
        return " ".join(answer.err.split()) or "its daemon doesn't answer"
    if _numbers(client) >= _PLUGIN and "buildx" not in plugins:
        return f"this client ({client}) has no BuildKit: its plugin buildx isn't installed"
    if _numbers(server) < _DAEMON:
        return f"its daemon ({server}) is older than 20.10, the first that mounts into a step unasked"
    return Docker(
        words=(program,),
        version=str(server),
        machine=common.machine(str(info.get("Architecture", ""))),
        env=env,
        host_network=not any("name=userns" in one for one in options),
    )


def _parsed(done: Finished) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out or "{}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
