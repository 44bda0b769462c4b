"""What the engines' command lines have in common, and how their answers are read."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.errors import HostError, UsageError
from builder.image.engine import Image
from builder.image.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.image.engine import Container, Engine, Order
    from builder.proc import Finished

__all__ = ["ask", "build", "build_options", "classic_options", "image_of", "inspect", "machine", "missing"]
__all__ += ["is_reference", "named", "new_name", "pairs", "programs", "run_in", "run_options", "strange"]

#: Seconds for a question; a daemon that is just starting takes a few.
QUESTION_S = 60.0

#: What images call machines, and what everybody else does (uname(2)).
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

_NAME = re.compile(r"[a-zA-Z0-9][\w./:@-]*", re.ASCII)

#: What all engines take for a new name: the grammar of the module "reference" of the project "distribution".
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST = r"(?:localhost|(?=[\w.-]*[.:])[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?)"
_NEW = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def programs(name: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return every program `name` of the search path in its order; one that has two names there counts once."""
    found: dict[str, str] = {}
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder or ".") / name
        if os.access(path, os.X_OK) and path.is_file():  # in this order: a folder may be closed to us
            found.setdefault(os.path.realpath(path), str(path))
    return tuple(found.values())


def ask(argv: Sequence[str], env: Mapping[str, str]) -> Finished:
    """Return the answer to a question; raise HostError when there is none in time."""
    return proc.capture(argv, env=env, timeout_s=QUESTION_S)


def named(tag: str) -> str:
    """Return `tag` when it can be one; raise UsageError ``image-name``, also for what a program takes for an option."""
    if not _NAME.fullmatch(tag) or tag.endswith((":", "/", "@")):
        raise UsageError(
            "image-name",
            f"{tag!r} can't be the name of an image",
            help="it has letters, digits and ._/:@- and begins with one of the first two: registry.example/team/vllm:1",
        )
    return tag


def is_reference(text: str) -> bool:
    """Whether `text` names an image, perhaps by its digest."""
    name, at, digest = text.partition("@")
    return bool(_NEW.fullmatch(name)) and (not at or bool(_DIGEST.fullmatch(digest)))


def new_name(tag: str) -> str:
    """Return `tag` when every engine takes it as the name of a new image; raise UsageError ``image-name``."""
    if not _NEW.fullmatch(tag):
        raise UsageError(
            "image-name",
            f"{tag!r} can't be the name of a new image",
            cause="wanted [HOST[:PORT]/]NAME[:TAG], with a NAME of small letters, digits and ._-/",
            run=("spark-build image vllm -t registry.example/team/vllm:1",),
        )
    return tag


def machine(architecture: str) -> str:
    """Return what uname(2) calls the machine that images call `architecture`."""
    return _MACHINES.get(architecture, architecture)


def build_options(order: Order) -> list[str]:
    """Return the options of a build that all engines read alike."""
    words = ["-f", str(order.context.absolute() / order.file), "-t", named(order.tag)]
    for name, value in order.args.items():
        words += ["--build-arg", f"{name}={value}"]
    for name, file in order.secrets.items():
        words += ["--secret", f"id={name},src={file.absolute()}"]
    return words + (["--platform", order.platform] if order.platform else [])


def classic_options(order: Order) -> list[str]:
    """Return the options of Podman and Buildah: Docker's format, since OCI's has neither ``HEALTHCHECK`` nor ``SHELL``."""
    words = ["--format", "docker", f"--layers={'true' if order.cached else 'false'}", *build_options(order)]
    return words + ([] if order.epoch is None else ["--timestamp", str(order.epoch)])


def build(
    words: Sequence[str], order: Order, env: Mapping[str, str], tell: Callable[[str], None], *, engine: str
) -> str:
    """Run a build whose command begins with `words`, and return the image's id; raise as `Engine.build` does."""
    steps = Steps(tell)
    with tempfile.TemporaryDirectory(prefix="spark-build-image-") as folder:
        told = Path(folder) / "id"
        argv = [*words, "--iidfile", str(told), str(order.context.absolute())]
        done = proc.run(argv, env=env, cwd=order.context, log=Path(folder) / "log", on_line=steps)
        if not done.ok or not told.is_file():
            raise steps.failed(order.file, engine)
        return told.read_text().strip().removeprefix("sha256:")


def run_options(container: Container) -> list[str]:
    """Return the options of ``run`` that Docker, Podman and Buildah read alike."""
    words = []
    for path, where in container.mounts.items():
        words += ["-v", f"{path.absolute()}:{where}:ro"]
    for name, value in container.env.items():
        words += ["-e", f"{name}={value}"]
    return words + (["--user", container.user] if container.user else [])


def run_in(
    engine: Engine,
    options: Sequence[str],
    tag: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_s: float | None,
) -> Finished:
    """Run `words` in place of the entrypoint by Docker or Podman, whose containers have the same options."""
    engine.inspect(tag)  # else both would go to a registry for it
    name = f"spark-build-{os.getpid()}-{secrets.token_hex(4)}"
    argv = [*engine.words, "run", "--rm", "--name", name, *options, "--entrypoint", words[0], named(tag), *words[1:]]
    try:
        return proc.capture(argv, env=env, timeout_s=timeout_s)
    except BaseException:  # the container isn't a child of the program that was ended
        ask([*engine.words, "kill", name], env)  # first: Podman's rm gives it ten seconds
        ask([*engine.words, "rm", "--force", name], env)
        raise


def inspect(engine: Engine, tag: str, *, env: Mapping[str, str]) -> Image:
    """Return what Docker or Podman has as `tag`; raise as `Engine.inspect` does."""
    done = ask([*engine.words, "image", "inspect", named(tag)], env)
    if not done.ok:
        raise missing(tag, engine.name, done.err)
    return image_of(done.out, tag)


def image_of(text: str, tag: str) -> Image:
    """Return the image that ``image inspect`` printed; raise HostError ``engine-answer`` where that can't be read."""
    try:
        one: dict[str, Any] = json.loads(text)[0]
        config: dict[str, Any] = one.get("Config") or {}
        return Image(
            id=str(one["Id"]).removeprefix("sha256:"),
            size=int(one["Size"]),
            machine=machine(one["Architecture"]),
            labels=config.get("Labels") or {},
            env=pairs(config.get("Env") or ()),
            layers=tuple((one.get("RootFS") or {}).get("Layers") or ()),
            digest=next((each.rpartition("@")[2] for each in one.get("RepoDigests") or ()), ""),
            user=str(config.get("User") or ""),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            created=str(one.get("Created", "")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise strange(tag, error) from error


def pairs(rows: Sequence[str]) -> dict[str, str]:
    """Return variables that are written ``NAME=value``."""
    return {name: value for name, _, value in (row.partition("=") for row in rows)}


def strange(tag: str, error: Exception) -> HostError:
    """Return the error for an answer that can't be read."""
    summary = f"what the engine says about {tag} can't be understood"
    return HostError("engine-answer", summary, cause=f"{type(error).__name__}: {error}")


def missing(tag: str, engine: str, said: str) -> UsageError:
    """Return the error for an image that isn't there."""
    return UsageError(
        "image-missing",
        f"{engine} has no image {tag}",
        cause="\n".join(said.strip().splitlines()[-2:]),
        help="every engine has images of its own, and root others than you: --engine says whose are meant",
        run=("buildah images" if engine == "buildah" else f"{engine} image ls",),
    )
