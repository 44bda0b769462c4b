"""Buildah: builds without a daemon and without a container runtime, as root or not, inside a container as well.

Unless ``BUILDAH_ISOLATION`` says another, steps run in chroot isolation, which needs nothing but Buildah and can't cut the
network itself. So all of Buildah runs in a network namespace: root makes it at once, another user by ``buildah unshare``,
which maps the ids of /etc/subuid. The isolations ``oci`` and ``rootless`` cut the network by their runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.errors import HostError
from builder.image import apart
from builder.image import words as common
from builder.image.engine import Image
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from builder.image.engine import Container, Order
    from builder.proc import Finished

__all__ = ["Buildah", "usable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """Buildah of this machine; `isolation` is how steps are kept apart from it."""

    words: tuple[str, ...]
    version: str
    machine: str
    env: Mapping[str, str]
    isolation: str = "chroot"
    name: str = "buildah"

    def build(self, order: Order, tell: Callable[[str], None]) -> str:
        """Build, as `Engine.build` says."""
        around, options = self._cut(network=order.network)
        argv = [*around, *self.words, "bud", "--isolation", self.isolation, *options, *common.classic_options(order)]
        return common.build(argv, order, self.env, tell, engine=self.name)

    def inspect(self, tag: str) -> Image:
        """Return what `tag` names, as `Engine.inspect` says."""
        done = common.ask([*self.words, "inspect", "--type", "image", common.named(tag)], self.env)
        if not done.ok:
            raise common.missing(tag, self.name, done.err)
        return _image_of(done.out, tag)

    def run(self, tag: str, words: Sequence[str], container: Container) -> Finished:
        """Run `words`, as `Engine.run` says; never with a GPU."""
        if container.gpu:
            raise HostError(
                "engine-gpu",
                "buildah gives a container no GPU",
                help="run the image by Docker or Podman, which have the vendor's container toolkit",
                run=("spark-build doctor --image TAG --engine podman",),
            )
        around, options = self._cut(network=container.network)
        options += common.run_options(container)
        with self._container(tag) as name:
            argv = [*around, *self.words, "run", "--isolation", self.isolation, *options, name, "--", *words]
            return proc.capture(argv, env=self.env, timeout_s=container.timeout_s)

    def save(self, tag: str) -> tuple[str, ...]:
        """Return the command that writes `tag` to stdout, which has to be a pipe."""
        return (*self.words, "push", "--quiet", common.named(tag), f"docker-archive:/dev/stdout:{tag}")

    @contextlib.contextmanager
    def _container(self, tag: str) -> Iterator[str]:
        self.inspect(tag)
        made = common.ask([*self.words, "from", "--pull-never", tag], self.env)
        if not made.ok:
            raise HostError("engine-run", f"buildah makes no container of {tag}", cause=made.err.strip())
        name = made.out.strip()
        try:
            yield name
        finally:
            common.ask([*self.words, "rm", name], self.env)

    def _cut(self, *, network: bool) -> tuple[list[str], list[str]]:
        """Return the command that Buildah runs inside of, and options of its own."""
        if self.isolation != "chroot":
            words, _ = apart.around(self.env, cut=False)
            return words, ["--network", "host" if network else "none"]
        words, said = apart.around(self.env, cut=not network, within=self._root())
        if not words and not network:
            raise HostError(
                "engine-network",
                "buildah can't cut a build's network here",
                cause=said,
                help="root needs CAP_SYS_ADMIN for it, others lines in /etc/subuid and /etc/subgid; or take another engine",
                run=("spark-build image NAME -t TAG --engine podman",),
            )
        return words, []

    def _root(self) -> list[str]:
        return [] if os.geteuid() == 0 else [*self.words, "unshare"]


def usable(program: str, env: Mapping[str, str]) -> Buildah | str:
    """Return Buildah by `program`, or why it can't be used."""
    try:
        done = common.ask([program, "version", "--json"], env)
    except HostError as error:
        return f"{error.summary}: {error.cause}"
    try:
        version = str(json.loads(done.out)["version"])
    except (ValueError, KeyError, TypeError):
        return " ".join(done.err.split()) or f"it ended with {done.code}"
    return Buildah(
        words=(program,),
        version=version,
        machine=platform.machine(),
        env=env,
        isolation=env.get("BUILDAH_ISOLATION") or "chroot",
    )


def _image_of(text: str, tag: str) -> Image:
    """Return the image that ``buildah inspect`` printed."""
    try:
        one: dict[str, Any] = json.loads(text)
        docker: dict[str, Any] = one["Docker"]
        config: dict[str, Any] = docker.get("config") or {}
        return Image(
            id=one["FromImageID"],
            size=sum(int(layer["size"]) for layer in json.loads(one["Manifest"])["layers"]),
            machine=common.machine(docker["architecture"]),
            labels=config.get("Labels") or {},
            env=common.pairs(config.get("Env") or ()),
            layers=tuple((docker.get("rootfs") or {}).get("diff_ids") or ()),
            digest=one.get("FromImageDigest") or "",
            user=str(config.get("User") or ""),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            created=str(docker.get("created", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise common.strange(tag, error) from error
