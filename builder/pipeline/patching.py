"""A recipe's patches on a source: which are for it, which fit, and what became of those that don't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import digest
from builder.inputs import AppliedPatch
from builder.recipe import conditions
from builder.recipe.condition import Condition, FileCondition
from builder.values import dataclass, fields, replace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder import patches, source
    from builder.pipeline.resolve import Basis
    from builder.pipeline.select import Facts
    from builder.pipeline.world import World
    from builder.recipe.model import Loaded, Output
    from builder.stages import Pin, Request

__all__ = [
    "Ground",
    "applied",
    "candidate",
    "evaluated",
    "ground",
    "history",
    "judged",
    "line",
    "optional",
    "pull",
    "variant_of",
]

#: Raised when a verdict that was remembered would be another one today.
_RULES = 1


def history(pin: Pin, sources: source.Sources) -> tuple[Path | None, str | None]:
    """Return the git directory that has a source's history and the commit in it; nothing for what has none."""
    if pin.kind != "git":
        return None, None
    from builder.source.mirror import Mirror  # noqa: PLC0415  # sdists do without

    return Mirror(pin.url, sources).path, pin.commit


def candidate(loaded: Loaded, name: str) -> patches.Candidate:
    """Return the patch `name` of a recipe, as what tries it wants it."""
    from builder.patch.values import Candidate  # noqa: PLC0415  # few recipes have any

    patch = next(patch for patch in loaded.recipe.patch if patch.id == name)
    return Candidate(
        id=name,
        file=loaded.patches[name],
        sha256=patch.sha256,
        on_upstream=patch.on_upstream,
        recipe=loaded.recipe.name,
        merged=patch.merged,
    )


def variant_of(loaded: Loaded, name: str) -> str:
    """Return the variant that brings the patch `name`, or an empty text."""
    for one in loaded.recipe.variant:
        if any(patch.get("id") == name and "sha256" in patch for patch in one.recipe.get("patch", ())):
            return one.id
    return ""


def applied(
    basis: Basis, outputs: Sequence[Output]
) -> tuple[tuple[patches.Candidate, ...], tuple[AppliedPatch, ...], tuple[str, ...]]:
    """Return the patches to apply, in order, those as inputs, and what has to be said: a line for each that isn't plain.

    The tree is one for all `outputs`: a patch that asks for an output applies where one of them matches. Raises PatchDrift
    for one that doesn't fit.
    """
    recipe, facts, house = basis.loaded.recipe, basis.facts, basis.world.house
    if not recipe.patch:
        return (), (), ()
    key = digest.sha256_json(
        {
            "rules": _RULES,
            "pin": basis.pin.identity(),
            "patches": [[one.id, one.sha256, one.on_upstream, one.merged, repr(one.when)] for one in recipe.patch],
            "facts": [facts.arch, facts.cuda, facts.torch],
            "outputs": [output.name for output in outputs],
        }
    )
    known = house.recall("patches", key)
    if known is None:
        from builder import patches  # noqa: PLC0415  # not on the hit path

        wanted = [
            candidate(basis.loaded, one.id) for one in recipe.patch if not _unmet(one.when, _each(facts, outputs))
        ]
        objects, commit = history(basis.pin, basis.sources)
        tried = patches.evaluate(
            wanted, facts.read, scratch=basis.world.builds, env=basis.world.env, objects=objects, commit=commit
        )
        said = [line(one) for one in tried.verdicts if one.kind != "applies"]
        known = {"applied": [[one.id, one.result] for one in tried.applied], "said": said}
        house.remember("patches", key, known)
    chosen = tuple(replace(candidate(basis.loaded, name), result=result) for name, result in known["applied"])
    inputs = tuple(AppliedPatch(id=one.id, sha256=one.sha256, result=one.result) for one in chosen)
    return chosen, inputs, tuple(known["said"])


def line(verdict: patches.Verdict) -> str:
    """Return what became of a patch in one line that begins with its name."""
    why = f" ({verdict.text})" if verdict.text else ""
    said = {
        "applies": "applies",
        "3-way": "is laid on by a 3-way merge",
        "upstream": "the source has it already: left out",
        "reverted": "upstream took it back: laid on again",
        "drifted": "doesn't fit any more",
        "moved": "its file has another name now",
        "elsewhere": "isn't for this source",
    }
    return f"{verdict.id}: {said[verdict.kind]}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A recipe's source as patches meet it: pinned, with what conditions ask about, and the outputs that they may name."""

    loaded: Loaded
    pin: Pin
    sources: source.Sources
    facts: Facts
    outputs: tuple[Output, ...]
    world: World

    @property
    def source(self) -> str:
        """The source for people."""
        name = self.pin.ref or self.pin.version or self.pin.filename or self.pin.url
        return f"{name} = {self.pin.commit[:12]}" if self.pin.commit and self.pin.commit != name else name


def ground(request: Request, world: World) -> Ground:
    """Pin the source of a recipe; nothing of the machine counts but the toolkit's version, where a condition asks for it.

    Raises what pinning raises.
    """
    from builder import source  # noqa: PLC0415
    from builder.pipeline.evaluate import DEFAULT_ARCH  # noqa: PLC0415
    from builder.pipeline.select import Facts, choose_source, select_outputs  # noqa: PLC0415
    from builder.recipe import find, load  # noqa: PLC0415

    folders = find.folders(world.config.recipe_layers)
    loaded = load.load(request.recipe, folders, settings=request.settings, variants=request.variants)
    recipe = loaded.recipe
    sources = world.sources(offline=request.offline, recipe=recipe.name)
    chosen, base = choose_source(loaded, request), loaded.path.parent
    pin = request.pinned or source.pin(chosen, request, sources, recipe=recipe.name, base=base)
    facts = Facts(
        pin=pin,
        sources=sources,
        arch=request.arch or DEFAULT_ARCH,
        cuda=_cuda(loaded, request, world),
        torch=request.torch or recipe.build.torch_version,
    )
    outputs = select_outputs(loaded, request, facts)
    return Ground(loaded=loaded, pin=pin, sources=sources, facts=facts, outputs=outputs, world=world)


def _cuda(loaded: Loaded, request: Request, world: World) -> str | None:
    """Return the toolkit's version where a condition asks for it; a machine without one can judge all else."""
    recipe = loaded.recipe
    conditions_of = [*(one.when for one in recipe.patch), *(one.when for one in recipe.output)]
    asked = any(one is not None and one.cuda for one in conditions_of)
    if not asked or not recipe.system.cuda:
        return None
    from builder import host  # noqa: PLC0415

    with host.Machine(env=world.env, cache=world.cache) as machine:
        found = machine.probe(recipe.system, python=request.python, cuda=request.cuda).cuda
    return found.version if found else None


def judged(place: Ground, names: Sequence[str] | None = None) -> tuple[patches.Verdict, ...]:
    """Return what becomes of each patch of a recipe (or of `names`), in order, whatever becomes of the others."""
    from builder import patches  # noqa: PLC0415

    each = _each(place.facts, place.outputs)
    elsewhere: dict[str, str] = {}
    wanted = []
    for one in place.loaded.recipe.patch:
        if names is not None and one.id not in names:
            continue
        if unmet := _unmet(one.when, each):
            elsewhere[one.id] = f"wants {unmet}"
        else:
            wanted.append(candidate(place.loaded, one.id))
    tried = evaluated(place, wanted)
    known = {one.id: one for one in tried.verdicts}
    known |= {name: patches.Verdict(id=name, kind="elsewhere", text=text) for name, text in elsewhere.items()}
    return tuple(known[one.id] for one in place.loaded.recipe.patch if one.id in known)


def optional(place: Ground, request: Request) -> tuple[patches.Verdict, ...]:
    """Return what becomes of patches that only a variant brings which nobody asked for, each variant by itself."""
    known = {one.id for one in place.loaded.recipe.patch}
    found = []
    for variant in place.loaded.recipe.variant:
        if variant.default or "patch" not in variant.recipe or variant.id in request.variants:
            continue
        other = ground(replace(request, variants={variant.id: True}, pinned=place.pin), place.world)
        for one in judged(other):
            if one.id not in known:
                text = f"only --with {variant.id}" + (f"; {one.text}" if one.text else "")
                found.append(replace(one, text=text))
    return tuple(found)


def evaluated(place: Ground, wanted: Sequence[patches.Candidate]) -> patches.Evaluation:
    """Try patches on a source, each whatever becomes of the others."""
    from builder import patches  # noqa: PLC0415

    objects, commit = history(place.pin, place.sources)
    scratch, env = place.world.builds, place.world.env
    return patches.evaluate(
        wanted, place.facts.read, scratch=scratch, env=env, objects=objects, commit=commit, strict=False
    )


def _each(facts: Facts, outputs: Sequence[Output]) -> list[Facts]:
    return [replace(facts, output=output.name) for output in outputs]


def _unmet(condition: Condition | None, each: Sequence[Facts]) -> str:
    """Return what of a condition no output meets, as a recipe says it; empty where one meets all of it."""
    if any(conditions.holds(condition, facts) for facts in each):
        return ""
    given = [(one.name, getattr(condition, one.name)) for one in fields(Condition)]
    unmet = [
        f"{name} = {_shown(value)}"
        for name, value in given
        if value is not None and not any(conditions.holds(Condition(**{name: value}), facts) for facts in each)
    ]
    return ", ".join(unmet) or "conditions that no output meets together"


def _shown(value: object) -> str:
    if not isinstance(value, FileCondition):
        return f'"{value}"' if isinstance(value, str) else str(value).lower()
    pairs = [(one.name, getattr(value, one.name)) for one in fields(FileCondition)]
    return "{ " + ", ".join(f"{name} = {_shown(item)}" for name, item in pairs if item is not None) + " }"


def pull(place: Ground, request: Request) -> patches.Verdict:
    """Return what becomes of the one pull request of `request` on a source that is pinned without it."""
    from builder import source  # noqa: PLC0415
    from builder.errors import SourceError  # noqa: PLC0415
    from builder.patch.values import Verdict  # noqa: PLC0415
    from builder.pipeline.select import choose_source  # noqa: PLC0415

    (number,) = request.pulls
    name = f"PR {number}"
    chosen, base = choose_source(place.loaded, request), place.loaded.path.parent
    try:
        pin = source.pin(chosen, request, place.sources, recipe=place.loaded.recipe.name, base=base)
    except SourceError as error:
        if error.code not in {"pull-conflict", "pull-base"}:
            raise
        return Verdict(id=name, kind="drifted", text="\n".join([error.summary, *error.cause.splitlines()]))
    (found,) = pin.pulls
    merged = source.contains(place.pin, found.head, place.sources)
    if pin.tree == place.pin.tree:
        return Verdict(id=name, kind="upstream", text=f"{found.head[:10]} is in it" if merged else "all of it is there")
    if merged:
        return Verdict(id=name, kind="reverted", text=f"{found.head[:10]} is in it, and its change isn't")
    return Verdict(id=name, kind="applies", text=f"from {found.base[:10]} to {found.head[:10]}")
