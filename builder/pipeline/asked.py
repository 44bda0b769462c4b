"""The words of a request as a lock keeps them, and a request that leaves open what a lock knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import is_secret, scrubbed
from builder.lockfile import HIDDEN
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.lockfile import LockedRecipe
    from builder.stages import Request

__all__ = ["filled", "hidden", "masked", "others", "told", "words"]

#: Flags by the word that they set.
_FLAGS = {
    "ref": "--ref",
    "repo": "--repo",
    "version": "--version",
    "source": "--source",
    "pulls": "--pr",
    "outputs": "--output",
    "python": "--python",
    "arch": "--arch",
    "torch": "--torch",
    "cuda": "--cuda",
    "settings": "--set",
    "variants": "--with or --without",
}

#: So many digits of a commit name it.
_SHORT = 7


def words(request: Request, *, python: str | None = None) -> dict[str, Any]:
    """Return the words that choose what is built, without paths of this machine's tools and without secrets.

    `python` is what the configuration says where the request doesn't.
    """
    found: dict[str, Any] = {
        "ref": request.ref,
        "repo": scrubbed(request.repo) if request.repo else None,
        "version": request.version,
        "source": str(request.source) if request.source else None,
        "pulls": list(request.pulls),
        "outputs": list(request.outputs),
        "python": _portable(request.python or python),
        "arch": request.arch,
        "torch": _portable(request.torch),
        "cuda": _portable(request.cuda),
        "settings": {key: told(key, value) for key, value in request.settings.items()},
        "variants": dict(request.variants),
    }
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def told(name: str, value: str) -> str:
    """Return a value as it may be written down."""
    return HIDDEN if is_secret(name) or scrubbed(value) != value else value


def masked(value: Any, name: str = "") -> Any:  # noqa: ANN401  # TOML
    """Return tables as they may be written down."""
    if isinstance(value, dict):
        return {key: masked(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [masked(one, name) for one in value]
    return told(name, value) if isinstance(value, str) else value


def _masked(value: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  # TOML
    """Yield the dotted place of each value that `masked` left out."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _masked(one, f"{path}.{key}".lstrip("."))
    elif value == HIDDEN or (isinstance(value, list) and HIDDEN in value):
        yield path


def _portable(word: str | None) -> str | None:
    """Return a word that means the same on other machines, too: what a path holds is compared as it is found."""
    return None if word is None or "/" in word else word


def filled(request: Request, entry: LockedRecipe) -> Request:
    """Return `request` with what it leaves open as `entry` was asked for."""
    asked = entry.asked
    torch = entry.torch["version"] if entry.torch and entry.torch["from"] == "index" else None
    source = request.source or (Path(asked["source"]) if "source" in asked else None)
    return replace(
        request,
        ref=request.ref or asked.get("ref"),
        repo=request.repo or asked.get("repo"),
        version=request.version or asked.get("version"),
        source=source,
        pulls=request.pulls or tuple(asked.get("pulls", ())),
        outputs=request.outputs or tuple(asked.get("outputs", ())),
        python=request.python or asked.get("python"),
        arch=request.arch or asked.get("arch"),
        torch=request.torch or asked.get("torch") or torch,
        cuda=request.cuda or asked.get("cuda"),
        settings={**_known(asked.get("settings", {})), **request.settings},
        env={**_known(entry.env), **request.env},
        variants={**asked.get("variants", {}), **request.variants},
    )


def _known(table: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in table.items() if value != HIDDEN}


def others(request: Request, entry: LockedRecipe) -> Iterator[str]:
    """Yield what is asked for otherwise than `entry` was, word by word; what is left open isn't."""
    given = words(request)
    for name, value in given.items():
        if name not in {"settings", "variants"} and not _same(name, value, entry):
            locked = entry.asked.get(name) or next(iter(_names(entry).get(name, ())), None)
            yield f"{_FLAGS[name]} {_text(value)}: the lock has {_text(locked) if locked else 'none'}"
    for name, chosen in request.variants.items():
        if chosen != entry.asked.get("variants", {}).get(name):
            yield f"--{'with' if chosen else 'without'} {name}: the lock is for it as it was"
    left = dict.fromkeys(_masked(entry.layer), HIDDEN)
    yield from _pairs("--set", request.settings, left | entry.asked.get("settings", {}))
    yield from _pairs("--env", request.env, entry.env)


def _same(name: str, given: Any, entry: LockedRecipe) -> bool:  # noqa: ANN401  # a word or several
    """Whether a word means what was locked, by whichever of its names."""
    if given == entry.asked.get(name) or given in _names(entry).get(name, ()):
        return True
    if name == "ref" and len(given) >= _SHORT:
        return (entry.source.commit or "").startswith(given)
    return name == "outputs" and sorted(given) == sorted(entry.outputs)


def _names(entry: LockedRecipe) -> Mapping[str, tuple[str | None, ...]]:
    """Return what a word may be called that was left open, or given by another name."""
    source, target, tag = entry.source, entry.target, entry.target["python"].removeprefix("cp")
    return {
        "ref": (source.ref, source.commit),
        "repo": (source.url,),
        "version": (source.version,),
        "python": (f"{tag[:1]}.{tag[1:]}",),
        "arch": (target["arch"],),
        "cuda": (target["cuda"],),
        "torch": ((entry.torch or {}).get("version"),),
    }


def _pairs(flag: str, given: Mapping[str, str], locked: Mapping[str, str]) -> Iterator[str]:
    for key, value in given.items():
        if told(key, value) != locked.get(key):
            yield f"{flag} {key}={told(key, value)}: the lock has {locked.get(key, 'none')}"


def hidden(entry: LockedRecipe, request: Request, *, site: Mapping[str, str], layer: bool) -> Iterator[str]:
    """Yield what has to be given again, since it isn't in the lock and neither in `request` nor among the site's variables.

    `layer` is whether what a stack file said comes from the lock.
    """
    settings = [*_masked(entry.asked.get("settings", {})), *(_masked(entry.layer) if layer else ())]
    for flag, keys, given in (
        ("--set", settings, request.settings),
        ("--env", _masked(dict(entry.env)), {**site, **request.env}),
    ):
        for key in keys:
            if key not in given:
                yield f"{flag} {key}: its value isn't written into locks; give it again"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
