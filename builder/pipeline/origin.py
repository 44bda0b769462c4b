"""What a stored wheel was made from: its recorded inputs, and what was asked for, as a request that asks for it again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from builder.errors import UsageError, WheelhouseError
from builder.recipe.layers import Layer
from builder.stages import EnvLock, Locked, Request
from builder.values import dataclass
from builder.wheelhouse import statement
from builder.wheelhouse.named import of_file
from builder.wheelhouse.publish import sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

__all__ = ["Origin", "choose", "layer", "locks", "of", "request"]

_LABEL = re.compile(r"\+(sb\d{14}\.g[0-9a-f]{10}(?:r\d+)?)(?:\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of a stored build: its wheels (of one label), its inputs, and what was asked for."""

    wheels: tuple[Stored, ...]
    label: str
    inputs: Mapping[str, Any]
    asked: Mapping[str, Any]
    path: str | None
    cached: bool

    @property
    def fingerprint(self) -> str:
        """The digest of the inputs."""
        return self.wheels[0].fingerprint

    @property
    def recipe(self) -> str:
        """The recipe by name."""
        return self.wheels[0].recipe


def choose(house: Wheelhouse, ref: str, *, cwd: Path) -> tuple[Stored, ...]:
    """Return the wheels of the one build that `ref` names: those that share its label. A path is relative to `cwd`.

    Raises UsageError ``wheel-ref`` for none or several builds, ``wheel-missing`` for a path that is no file, ``no-inputs``
    for a wheel from elsewhere; CheckRefused ``wheel-other`` for a file that isn't what is stored.
    """
    if not ref.strip():
        text = "REF is empty: wanted a wheel's file name or path, or the start of its fingerprint or sha256"
        raise UsageError("wheel-ref", text, run=("spark-build wheels list",))
    every = house.list_wheels(include_unpublished=True)
    if "/" in ref or (cwd / ref).is_file():
        named = [of_file(every, cwd / ref)]
    else:
        named = [one for one in every if one.filename == ref]
        named = named or [one for one in every if one.fingerprint.startswith(ref) or one.sha256.startswith(ref)]
    if not named:
        raise UsageError("wheel-ref", f"{ref} names no wheel", run=("spark-build wheels list",))
    if len({one.fingerprint for one in named}) > 1:
        names = ", ".join(one.filename for one in named[:5])
        raise UsageError("wheel-ref", f"{ref} names several builds", cause=names, run=("spark-build wheels list",))
    last = named[-1]
    if not last.fingerprint or not _label(last):
        raise UsageError(
            "no-inputs",
            f"{last.filename} wasn't built here: nothing is known of its inputs",
            help="only what spark-build built can be built again",
        )
    return tuple(one for one in every if one.fingerprint == last.fingerprint and _label(one) == _label(last))


def _label(wheel: Stored) -> str:
    found = _LABEL.search(wheel.version)
    return found[1] if found else ""


def of(house: Wheelhouse, wheels: Sequence[Stored]) -> Origin:
    """Return what was recorded of the build of `wheels`. Without a record beside them the inputs have to do.

    Raises UsageError ``no-inputs``, WheelhouseError ``wheel-changed`` where a stored wheel isn't what was published.
    """
    first = wheels[0]
    inputs = house.inputs(first.fingerprint)
    if inputs is None:
        raise UsageError("no-inputs", f"the inputs of {first.filename} aren't in the catalogue")
    for one in wheels:
        if not house.is_whole(one):
            raise WheelhouseError(
                "wheel-changed",
                f"{one.filename} isn't what was published",
                help="there is nothing to compare with: remove it, then build it",
                run=("spark-build wheels verify",),
            )
    record = _record(first)
    internal = _at(record, "predicate", "buildDefinition", "internalParameters")
    isolated = statement.facts(record).get("isolation")
    return Origin(
        wheels=tuple(wheels),
        label=_label(first),
        inputs=inputs,
        asked=_at(record, "predicate", "buildDefinition", "externalParameters")
        | {"level": isolated.get("level") if isinstance(isolated, dict) else None},
        path=isolated.get("path") if isinstance(isolated, dict) else None,
        cached=internal.get("compile-cache") != "off",
    )


def _record(wheel: Stored) -> object:
    try:
        return statement.load(sidecar(wheel.path))[1]
    except (OSError, ValueError):
        return None


def _at(value: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def request(origin: Origin, *, offline: bool) -> Request:
    """Return the request that made the build, its source made exact."""
    asked, source, target = origin.asked, origin.inputs["source"], origin.inputs["target"]
    torch = origin.inputs.get("torch") or {}
    return Request(
        recipe=origin.recipe,
        **_source(origin.inputs, asked),
        repo=asked.get("repo") if source["kind"] == "git" else None,
        pulls=tuple(one["number"] for one in source.get("pulls", ())),
        outputs=tuple(asked.get("outputs") or origin.inputs["requires"]),
        python=asked.get("python"),
        target=asked.get("target"),
        arch=target["arch"],
        torch=asked.get("torch") or (torch.get("version") if torch.get("from") == "index" else None),
        cuda=asked.get("cuda"),
        settings=_at(asked, "settings"),
        variants=_at(asked, "variants"),
        env=origin.inputs["env"],
        compile_cache=None if origin.cached else "off",
        offline=offline,
        force=True,
        isolation="none" if asked.get("level") == "none" else "auto",
    )


def layer(origin: Origin) -> Layer | None:
    """Return what a stack file said about the recipe, None where the build was of no stack."""
    tables = _at(origin.asked, "layer")
    return Layer(word="stack", values=tables) if tables else None


def _source(inputs: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    source = inputs["source"]
    match source["kind"]:
        case "git":
            return {"ref": source["commit"]}
        case "local":
            url = _at(asked, "source").get("url", "")
            return {"source": Path(unquote(urlsplit(url).path))} if url else {}
    return {"version": source["version"]}


def locks(requires: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, EnvLock]]:
    """Yield the recorded build environment of each output, as pinned requirements with their hashes."""
    for output, packages in requires.items():
        found = [Locked(name=one["name"], version=one["version"], sha256=tuple(one["sha256"])) for one in packages]
        lines = [
            " ".join([f"{one.name}=={one.version}", *(f"--hash=sha256:{digest}" for digest in one.sha256)])
            for one in found
        ]
        yield output, EnvLock(output=output, packages=tuple(found), text="".join(f"{line}\n" for line in lines))
