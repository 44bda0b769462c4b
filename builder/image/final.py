"""Building the final image out of its folder: first its system, with the network, then the rest without."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import BuildFailed, HostError, UsageError
from builder.gate import seeds
from builder.image import context, dockerfile, memory
from builder.image.engine import Order
from builder.image.settings import VENV
from builder.recipe import load
from builder.values import dataclass, replace
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from builder.events import Sink
    from builder.image.engine import Engine, Image
    from builder.image.settings import Settings
    from builder.recipe.find import Folder

__all__ = ["Built", "advised", "build", "check_machine", "peak_bytes", "system"]

#: Machines as images call them.
_PLATFORMS = {"aarch64": "linux/arm64", "x86_64": "linux/amd64"}

#: How doctor says what would be installed into an environment, and what of that is a package.
_MEND = re.compile(rf"^.*\buv pip install --python {re.escape(VENV)}/bin/python (.+)$", re.MULTILINE)
_PACKAGE = re.compile(r"[A-Za-z0-9][\w.,<>=!~*+\[\]-]*", re.ASCII)

#: Where the kernel lists the interpreters of other machines' programs: "Kernel Support for miscellaneous Binary Formats".
_BINFMT = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that was built and checked: its name, what the engine says of it, and the image that it stands on."""

    tag: str
    image: Image
    system: str


def check_machine(machine: str, here: str, *, handlers: Path = _BINFMT) -> None:
    """Raise HostError ``image-foreign`` where programs of `machine`, which a build starts, don't run on `here`."""
    if machine in {here, *_emulated(handlers)}:
        return
    raise HostError(
        "image-foreign",
        f"an image for {machine} can't be built on {here}: its programs don't run there",
        cause=f"no program for {machine} is registered in {handlers}",
        help="build where it shall run, from what --write writes; or let qemu run its programs, which is ten times slower",
        run=("spark-build image NAME -t TAG --write DIR", "sudo apt install qemu-user-static binfmt-support"),
    )


def _emulated(handlers: Path) -> Iterable[str]:
    """Yield the machines whose programs containers can start here: F keeps the interpreter open, since they have none."""
    for file in sorted(handlers.glob("qemu-*")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
        if "enabled" in lines and "F" in flags:
            yield file.name.removeprefix("qemu-")


def peak_bytes(packages: Iterable[str], folders: Sequence[Folder], sink: Sink) -> int:
    """Return the most that a unit takes of those that `packages` compile by nvcc when they run, by what was measured."""
    names = set(packages)
    known, _mistakes = load.read_all(folders)
    peaks = [memory.UNIT_BYTES]
    for one in known:
        outputs = {normalised(output.name) for output in one.recipe.output}
        if "nvcc" in one.recipe.image.needs and names & outputs:
            found = seeds.find(one.recipe.name, [folder.recipes for folder in folders], sink)
            peaks += [seed.peak_bytes for seed in found]
    return max(peaks)


def system(
    engine: Engine, folder: Path, settings: Settings, tell: Callable[[str], None], *, renew: bool = False
) -> str:
    """Build ``Dockerfile.system`` unless it was built already, and return its name; the network is reached only here.

    One that stands on a base without a digest is built each time, since the base may be another. With `renew` the
    distribution is asked for its newest packages. Raises as `Engine.build` does.
    """
    tag = context.system_tag(settings)
    if "@sha256:" in settings.base and not renew and _there(engine, tag):
        return tag
    order = Order(
        context=folder,
        file=dockerfile.SYSTEM,
        tag=tag,
        network=True,
        platform=_platform(settings, engine),
        cached=not renew,
        renewed=renew,
    )
    try:
        engine.build(order, tell)
    except BuildFailed as error:
        if "error: the " in error.cause:  # its own step says what to do
            raise
        advice = f"--base names an image that {engine.name} has here or can fetch"
        raise _advised(error, advice, shlex.join([engine.name, "pull", settings.base])) from error
    return tag


def build(engine: Engine, folder: Path, settings: Settings, tag: str, tell: Callable[[str], None]) -> Built:
    """Build ``Dockerfile`` with the network cut, and return the image, which passed its check. Raises as `Engine.build`."""
    base = context.system_tag(settings)
    order = Order(
        context=folder,
        file=dockerfile.FILE,
        tag=tag,
        network=False,
        args={"BASE": base},
        platform=_platform(settings, engine),
        epoch=settings.epoch,
    )
    try:
        engine.build(order, tell)
    except BuildFailed as error:
        raise advised(error, tag) from error
    return Built(tag=tag, image=engine.inspect(tag), system=base)


def advised(error: BuildFailed, tag: str) -> BuildFailed:
    """Return the error of ``Dockerfile`` with what to do: what the check's mends install comes into an image by name."""
    names = dict.fromkeys(word for line in _MEND.findall(error.cause) for word in shlex.split(line, comments=True))
    more = [*names] if names and all(map(_PACKAGE.fullmatch, names)) else ["--write", "DIR"]
    advice = f"{tag} names nothing new; what was found wrong is mended by other names, or by other releases of them"
    return _advised(error, advice, shlex.join(["spark-build", "image", "NAME", *more, "-t", tag]))


def _advised(error: BuildFailed, advice: str, command: str) -> BuildFailed:
    """Return the error with what to do where its step doesn't say that."""
    more = (advice, (command,)) if not error.help else (error.help, error.run)
    return BuildFailed(error.code, error.summary, cause=error.cause, help=more[0], run=more[1])


def described(settings: Settings, digest: str) -> Settings:
    """Return `settings` whose labels say which base it was, where its name doesn't."""
    key = "org.opencontainers.image.base.digest"
    return (
        settings if key in settings.labels or not digest else replace(settings, labels={**settings.labels, key: digest})
    )


def base_digest(engine: Engine, base: str) -> str:
    """Return the digest that the engine knows of `base`; empty where it has none."""
    try:
        return engine.inspect(base).digest
    except UsageError:
        return ""


def _there(engine: Engine, tag: str) -> bool:
    try:
        engine.inspect(tag)
    except UsageError:
        return False
    return True


def _platform(settings: Settings, engine: Engine) -> str | None:
    """Return the platform to ask for; None for the engine's own, which none has to be told."""
    return None if settings.target.machine == engine.machine else _PLATFORMS[settings.target.machine]
