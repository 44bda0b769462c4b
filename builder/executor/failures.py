"""The catalogue of known failures: how each shows in a log, why it happens, and what helps.

It is data (``failures.toml`` beside this module), so that an entry can be added by somebody who saw a build fail. The first
entry that matches is the answer, so the special ones stand before the general ones.
"""

from __future__ import annotations

import re
import string
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from builder.events import PhaseName
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CATALOGUE", "CatalogueError", "Failure", "Need", "load", "page", "parse"]

CATALOGUE = Path(__file__).with_name("failures.toml")

#: What has to be so besides the text: a process ended by a signal that memory kills use; a unit that had company.
Need = Literal["killed", "crowded"]

#: What texts may name besides the groups of the signature and the package of `packages`: the recipe, the build's reference;
#: of an environment its interpreter, and the torch that it should have (``torch==2.14.0``).
PLACES = frozenset({"recipe", "ref", "python", "torch"})
_PHASES = frozenset({*get_args(PhaseName), "use"})
_NEEDS = frozenset(get_args(Need))
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_TEXTS = ("summary", "cause", "fix")
_LISTS = ("signature", "log", "run", "recipes", "phases", "needs")


class CatalogueError(ValueError):
    """The catalogue is damaged; one line a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One known failure.

    Any of `signature` is found in a line; it is empty when `needs` says enough. All of `log` are found anywhere in the log.
    `summary`, `cause`, `fix` and `run` may name the groups of both in braces. `recipes` and `phases` say where it applies.
    The phase ``use`` is the time after the build; an entry without phases applies in all others. `packages` maps what the
    group ``header`` found to what installs it, as ``{package}``, and an entry with it matches only those. With `memory`,
    what the unit took is told. Without `tail`, the failing step has to say it.
    """

    id: str
    summary: str
    cause: str
    fix: str
    signature: tuple[re.Pattern[str], ...] = ()
    log: tuple[re.Pattern[str], ...] = ()
    run: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    packages: Mapping[str, str] | None = None
    memory: bool = False
    tail: bool = True

    def applies(self, recipe: str, phase: str) -> bool:
        """Whether it is known to happen to this recipe in this phase; an empty phase means any."""
        fits = phase in {"", *self.phases} if self.phases else phase != "use"
        return fits and (not self.recipes or recipe in self.recipes)


@cache
def load(path: Path = CATALOGUE) -> tuple[Failure, ...]:
    """Return the catalogue of `path`. Raises CatalogueError, and OSError when it can't be read."""
    import tomllib  # noqa: PLC0415  # only a failed build needs it

    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # TOML's own errors and bad UTF-8 are ValueErrors, too
        raise error if isinstance(error, CatalogueError) else CatalogueError(f"{path.name}: {error}") from error


def parse(document: Mapping[str, Any]) -> tuple[Failure, ...]:
    """Return the entries of a catalogue's document. Raises CatalogueError with every mistake."""
    mistakes = [f"unknown table {name}" for name in document if name != "failure"]
    found: dict[str, Failure] = {}
    entries = document.get("failure")
    for number, raw in enumerate(entries if isinstance(entries, list) else [], 1):
        if not isinstance(raw, dict):
            mistakes.append(f"entry {number} is no table")
            continue
        name = str(raw.get("id", f"entry {number}"))
        wrong = [*_mistakes(raw), *(["is there twice"] if name in found else [])]
        mistakes += [f"{name}: {text}" for text in wrong]
        if not wrong:
            found[name] = _made(raw)
    if not found and not mistakes:
        mistakes.append("no [[failure]]")
    if mistakes:
        raise CatalogueError("\n".join(mistakes))
    return tuple(found.values())


def _made(raw: Mapping[str, Any]) -> Failure:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    patterns = {key: tuple(map(re.compile, raw.get(key, ()))) for key in ("signature", "log")}
    values |= patterns
    return Failure(**values)


def _mistakes(raw: Mapping[str, Any]) -> Iterator[str]:
    wrong = list(_shapes(raw))
    yield from wrong
    if wrong:
        return
    if not _ID.fullmatch(raw["id"]):
        yield f"id = {raw['id']!r} is no slug"
    for key, known in (("phases", _PHASES), ("needs", _NEEDS)):
        yield from (f"{key} has no {word!r}" for word in raw.get(key, ()) if word not in known)
    if not raw.get("signature") and not raw.get("needs"):
        yield "has neither signature nor needs"
    groups: dict[str, list[set[str]]] = {"signature": [], "log": []}
    for key, found in groups.items():
        for text in raw.get(key, ()):
            try:
                found.append(set(re.compile(text).groupindex))
            except re.error as error:
                yield f"{key} {text!r}: {error}"
    yield from _places(raw, set.intersection(*groups["signature"] or [set()]) | set().union(*groups["log"]))


def _shapes(raw: Mapping[str, Any]) -> Iterator[str]:
    known = {"id", "packages", "memory", "tail", *_TEXTS, *_LISTS}
    yield from (f"unknown key {key}" for key in raw if key not in known)
    for key in ("id", *_TEXTS):
        if not isinstance(raw.get(key), str) or not raw[key]:
            yield f"{key} has to be a text"
    for key in _LISTS:
        value = raw.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            yield f"{key} has to be a list of texts"
    for key in ("memory", "tail"):
        if not isinstance(raw.get(key, False), bool):
            yield f"{key} has to be true or false"
    packages = raw.get("packages", {})
    if not isinstance(packages, dict) or not all(isinstance(value, str) for value in packages.values()):
        yield "packages has to be a table of texts"


def _places(raw: Mapping[str, Any], groups: set[str]) -> Iterator[str]:
    """Yield what texts name and a match may not fill."""
    filled = PLACES | groups
    if raw.get("packages") is not None:
        filled |= {"package"}
        if "header" not in filled:
            yield "packages needs the group header in every signature"
    for text in (*(raw[key] for key in _TEXTS), *raw.get("run", ())):
        try:
            named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            yield f"{text!r}: {error}"
            continue
        yield from (f"nothing fills {{{name}}} in {text!r}" for name in sorted(named - filled))


_HEAD = """\
# Known failures

<!-- Generated from builder/executor/failures.toml. Change it there, then run: python -m builder.cli.reference -->

When a build fails, its log is compared with these, in this order: first the first error, then the failing step, then the
rest. `error[NAME]` on the screen is the name below. Texts in braces are filled in from the log.

Those of use, at the end, are what `spark-build doctor --log`, `--env` and `--image` look for, in what a server printed and
in an environment: [what is wrong with an environment](images.md#what-is-wrong-with-an-environment).
"""


def page(entries: tuple[Failure, ...] | None = None) -> str:
    """Return docs/failures.md."""
    lines = [_HEAD]
    for one in entries if entries is not None else load():
        lines += _section(one)
    return "\n".join(lines).rstrip("\n") + "\n"


def _section(one: Failure) -> Iterator[str]:
    yield from (f"## {one.id}", "", f"{_sentence(one.summary)}")
    where = [*(["only " + ", ".join(one.recipes)] if one.recipes else []), *_when(one)]
    if where:
        yield from ("", f"*{'; '.join(where)}*")
    yield from ("", one.cause, "", f"**What helps:** {one.fix}", "")
    if one.packages:
        yield from ("| header | package |", "|---|---|")
        yield from (f"| `{header}` | `{package}` |" for header, package in one.packages.items())
        yield ""
    if one.signature:
        yield from ("Found by:", "", "```text", *(pattern.pattern for pattern in one.signature), "```", "")
    if one.log:
        yield from ("and, anywhere in the log:", "", "```text", *(pattern.pattern for pattern in one.log), "```", "")
    if one.run:
        yield from ("```sh", *one.run, "```", "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _when(one: Failure) -> Iterator[str]:
    if one.phases:
        yield "in " + ", ".join("use, after the build" if phase == "use" else phase for phase in one.phases)
    if "killed" in one.needs:
        yield "only when a process was ended by a signal"
    if "crowded" in one.needs:
        yield "only when others ran beside it, or memory was short"
