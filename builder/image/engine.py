"""What a container engine does for spark-build, whichever it is. ``engines`` finds one.

An image is named by a tag as its user wrote it. Engines keep the same one under different names: Podman and Buildah put
``localhost/`` before a name without a registry, Docker doesn't. All three find it by the short name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.proc import Finished

__all__ = ["Container", "Engine", "Image", "Order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as an engine holds it.

    `id` is the sha256 of its configuration in hex (with Docker's containerd store: that of its manifest or index), `digest`
    that of its manifest as ``sha256:…``, empty where the engine has none; `layers` are the sha256 of its unpacked layers,
    the same in every engine. `size` is in bytes, as the engine counts them. `machine` is as uname(2) says it.
    """

    id: str
    size: int
    machine: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    layers: tuple[str, ...]
    digest: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    created: str = ""

    def same(self, other: Image) -> bool:
        """Whether both are the same image: by `id`, or where stores count that differently, by all that makes it up."""
        own, theirs = (
            (one.layers, one.machine, dict(one.labels), dict(one.env), one.user, one.entrypoint)
            for one in (self, other)
        )
        return self.id == other.id or (bool(self.layers) and own == theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built: `file`, a path inside `context`, as `tag`.

    Steps see no network unless `network`; then it is this machine's, with its proxies. A secret is a file that steps see at
    ``/run/secrets/<name>`` and that is in no layer. `epoch` (seconds since 1970) is the time in the image.

    `cached` takes steps from an earlier build. Podman and Buildah don't look into bind mounts when they compare steps, so
    only a file without them may ask for that; BuildKit does, and takes them unless it has to be `renewed`.
    """

    context: Path
    file: str
    tag: str
    network: bool
    args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    platform: str | None = None
    epoch: int | None = None
    cached: bool = False
    renewed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How a container sees the world: `mounts` are files or folders of this machine and where they are, read-only.

    `env` is added to the image's own, `user` replaces the image's. Without `network` there is not even loopback's address
    in some engines. `gpu` gives it all of them. After `timeout_s` seconds it is stopped.
    """

    mounts: Mapping[Path, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    user: str | None = None
    gpu: bool = False
    timeout_s: float | None = None


class Engine(Protocol):
    """Docker, Podman or Buildah. Nothing that it does prints to this process's stdout."""

    @property
    def name(self) -> str:
        """``docker``, ``podman`` or ``buildah``."""

    @property
    def words(self) -> tuple[str, ...]:
        """The program, as every command of it begins."""

    @property
    def version(self) -> str:
        """The version of what builds: for Docker the daemon's."""

    @property
    def machine(self) -> str:
        """What it builds on, as uname(2) says it: with Docker another machine than this one, maybe."""

    def build(self, order: Order, tell: Callable[[str], None]) -> str:
        """Build, pass each line on to `tell`, and return the image's id.

        Raises BuildFailed ``image-build`` with the last lines of the step that failed; HostError ``engine-network`` when the
        network can't be cut; UsageError ``image-name``.
        """

    def inspect(self, tag: str) -> Image:
        """Return what `tag`, or an id, names; raise UsageError ``image-missing`` or ``image-name``."""

    def run(self, tag: str, words: Sequence[str], container: Container) -> Finished:
        """Run `words` in a new container, in place of the image's entrypoint; it is gone afterwards.

        Raises as `inspect` does; HostError ``tool-timeout``, ``engine-network``, ``engine-gpu``.
        """

    def save(self, tag: str) -> tuple[str, ...]:
        """Return the command that writes `tag` to stdout as an archive that Docker and Podman load."""
