"""What types can't say about a recipe: names, ranges, units, patterns, digests, and what must go together.

Works on what `convert` made of a wrong recipe, too, so that one report holds everything: a wrong value is None there.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from builder.recipe import texts
from builder.recipe.convert import Mistake
from builder.recipe.layers import NAMED, UNVARIED
from builder.recipe.model import INTERPOLATED
from builder.recipe.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.recipe.model import Build, Image, Recipe, Resources, Version

__all__ = ["check"]

_SOURCE_NEEDS = {"git": ("url", "ref"), "sdist": ("project", "version"), "archive": ("url",), "local": ("path",)}
_CHECK_NEEDS = {
    "import": ("run",),
    "command": ("run",),
    "script": ("script",),
    "accept": ("findings", "reason"),
    "size": ("max",),
    "device-code": ("target",),
    "log": ("forbid",),
}


def check(recipe: Recipe, name: str) -> Iterator[Mistake]:
    """Yield every mistake of `recipe`, whose file is called `name`."""
    if recipe.name not in {name, None}:
        yield Mistake(path="name", text=f"is `{recipe.name}`, and the file is called {name}.toml")
    yield from texts.word(name, "name")
    yield from _twice(recipe)
    yield from _sources(recipe)
    yield from _outputs(recipe)
    yield from _build(recipe.build)
    yield from _version(recipe.version)
    yield from _resources(recipe.resources)
    yield from _image(recipe.image, [output.name for _number, output in texts.each(recipe.output)])
    for key in ("cuda", "gcc", "clang", "rust"):
        yield from texts.version_range(getattr(recipe.system, key, None), f"system.{key}")
    for table in ("output", "patch", "arch_map"):
        for number, item in texts.each(getattr(recipe, table)):
            yield from texts.condition(item.when, f"{table.replace('_', '-')}[{number}].when")
    for number, patch in texts.each(recipe.patch):
        yield from texts.digest(patch.sha256, f"patch[{number}].sha256")
        yield from texts.commit(patch.merged, f"patch[{number}].merged")
    yield from _arch_rules(recipe)
    yield from _advice(recipe)
    yield from _variants(recipe)
    if recipe.fetch:
        from builder.recipe.check_nested import check_nested  # noqa: PLC0415  # most recipes have none

        yield from check_nested(recipe.fetch)
    yield from _checks(recipe)


def _twice(recipe: Recipe) -> Iterator[Mistake]:
    for table, word in NAMED.items():
        seen = set[str]()
        for number, item in texts.each(getattr(recipe, table)):
            value = getattr(item, word)
            if value is None:
                continue
            plain = re.sub(r"[-_.]+", "-", value).lower() if table == "output" else value
            if plain in seen:
                yield Mistake(path=f"{table}[{number}].{word}", text=f"`{value}` is there twice")
            seen.add(plain)
    for number, name in texts.each(recipe.builds_on):
        if name == recipe.name:
            yield Mistake(path=f"builds-on[{number}]", text=f"{name} can't build on itself")


def _sources(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.source == ():
        yield Mistake(path="source", text="is empty, wanted at least one [[source]]")
    for number, one in texts.each(recipe.source):
        path = f"source[{number}]"
        for key in _SOURCE_NEEDS.get(one.kind, ()):
            if not getattr(one, key):
                yield Mistake(path=f"{path}.{key}", text=f"`{key}` is missing: a {one.kind} source needs it")
        yield from texts.digest(one.sha256, f"{path}.sha256")
        if one.kind == "archive":
            yield from texts.names(one.url, ("version",), f"{path}.url")
        yield from texts.project(one.project, f"{path}.project")
        if isinstance(one.submodules, tuple):
            for count, inner in enumerate(one.submodules):
                yield from texts.inside(inner, f"{path}.submodules[{count}]")


def _outputs(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.output == ():
        yield Mistake(path="output", text="is empty, wanted at least one [[output]]")
    for number, output in texts.each(recipe.output):
        path = f"output[{number}]"
        yield from texts.project(output.name, f"{path}.name")
        yield from texts.inside(output.path, f"{path}.path")
        yield from texts.variables(output.env, f"{path}.env", getattr(recipe.build, "jobs_env", ()))
        yield from texts.interpolated(output.config_settings, f"{path}.config-settings")
        yield from texts.requirements(output.requires_add, f"{path}.requires-add")
        for count, project in texts.each(output.pinned_by):
            yield from texts.project(project, f"{path}.pinned-by[{count}]")


def _build(build: Build | None) -> Iterator[Mistake]:
    if build is None:
        return
    yield from texts.variables(build.env, "build.env", build.jobs_env)
    yield from texts.interpolated(build.config_settings, "build.config-settings")
    yield from texts.requirements(build.requires_add, "build.requires-add")
    yield from texts.requirements(build.requires_pin, "build.requires-pin")
    for number, name in texts.each(build.requires_remove):
        yield from texts.project(name, f"build.requires-remove[{number}]")
    for number, module in texts.each(build.modules):
        if not re.fullmatch(r"[^\s,]+", module):
            yield Mistake(path=f"build.modules[{number}]", text=f"`{module}` must be one shell pattern")
    if build.torch_version is not None and not re.fullmatch(rf"{texts.VERSION}(\+[a-z0-9.]+)?", build.torch_version):
        yield Mistake(path="build.torch-version", text=f"`{build.torch_version}` is no exact version; write 2.14.0")


def _version(version: Version | None) -> Iterator[Mistake]:
    if version is None:
        return
    yield from texts.names(version.value, INTERPOLATED, "version.value")
    if version.value is not None and version.env is None:
        yield Mistake(path="version.value", text="has no effect without `env`, the variable that gets it")


def _arch_rules(recipe: Recipe) -> Iterator[Mistake]:
    for number, rule in texts.each(recipe.arch_map):
        path = f"arch-map[{number}]"
        if not rule.to and rule.refuse is None:
            yield Mistake(path=f"{path}.to", text="`to` is missing, wanted what the project gets, or `refuse`")
        if rule.to and rule.refuse is not None:
            yield Mistake(path=f"{path}.refuse", text="stands beside `to`; give one of them")
        yield from texts.said(rule.refuse, f"{path}.refuse")


def _advice(recipe: Recipe) -> Iterator[Mistake]:
    for number, one in texts.each(getattr(recipe.about, "advice", ())):
        path = f"about.advice[{number}]"
        yield from texts.condition(one.when, f"{path}.when")
        yield from texts.names(one.run, ("version", "commit"), f"{path}.run")
        yield from texts.said(one.text, f"{path}.text")


def _variants(recipe: Recipe) -> Iterator[Mistake]:
    for number, variant in texts.each(recipe.variant):
        path = f"variant[{number}]"
        yield from texts.word(variant.id, f"{path}.id")
        if variant.recipe == {}:
            yield Mistake(path=f"{path}.recipe", text="`recipe` is missing: without it the variant changes nothing")
        for key in UNVARIED:
            if key in (variant.recipe or {}):
                yield Mistake(path=f"{path}.recipe.{key}", text=f"no variant can change `{key}`")


def _resources(resources: Resources | None) -> Iterator[Mistake]:
    if resources is None:
        return
    for key in ("mem_per_job", "link_mem", "disk"):
        yield from texts.unit(parse_bytes, getattr(resources, key), f"resources.{key.replace('_', '-')}")
    for number, one in texts.each(resources.classes):
        yield from texts.unit(parse_bytes, one.mem, f"resources.classes[{number}].mem")
    for key in ("unit_timeout", "build_timeout"):
        yield from texts.unit(parse_seconds, getattr(resources, key), f"resources.{key.replace('_', '-')}")
    if resources.jobs is not None and resources.jobs < 1:
        yield Mistake(path="resources.jobs", text=f"is {resources.jobs}, wanted at least 1")


def _image(image: Image | None, outputs: Sequence[str | None]) -> Iterator[Mistake]:
    if image is None:
        return
    for number, part in texts.each(image.cuda):
        yield from texts.word(part, f"image.cuda[{number}]")
    for key, value in (image.env or {}).items():
        yield from texts.variable(key, f"image.env.{key}")
        yield from texts.line(value, f"image.env.{key}")
        yield from texts.names(value, (), f"image.env.{key}")
    for number, module in texts.each(image.imports):
        if not texts.MODULE.fullmatch(module):
            yield Mistake(path=f"image.imports[{number}]", text=f"`{module}` is no module's name")
    for number, one in texts.each(image.companions):
        path = f"image.companions[{number}]"
        if one.of not in {None, *outputs}:
            yield Mistake(path=f"{path}.of", text=f"`{one.of}` is no output of this recipe")
        yield from texts.project(one.name, f"{path}.name")
        yield from texts.said(one.why, f"{path}.why")
        yield from texts.names(one.run, ("version",), f"{path}.run")
        for key in ("why", "run"):
            yield from texts.line(getattr(one, key), f"{path}.{key}")


def _is_line(text: str, *, command: bool) -> bool:
    """Whether `text` says something, and for a command has no open quotation."""
    try:
        return bool(shlex.split(text)) if command else bool(text.strip())
    except ValueError:
        return False


def _checks(recipe: Recipe) -> Iterator[Mistake]:
    outputs = [output.name for _number, output in texts.each(recipe.output)]
    for number, one in texts.each(recipe.check):
        path = f"check[{number}]"
        for key in _CHECK_NEEDS.get(one.kind, ()):
            if not getattr(one, key):
                yield Mistake(path=f"{path}.{key}", text=f"`{key}` is missing: checks of kind {one.kind} need it")
        if one.output is not None and one.output not in outputs:
            known = ", ".join(name for name in outputs if name)
            yield Mistake(path=f"{path}.output", text=f"`{one.output}` is no output of this recipe; known: {known}")
        if (
            one.kind in {"import", "command"}
            and one.run is not None
            and not _is_line(one.run, command=one.kind == "command")
        ):
            yield Mistake(path=f"{path}.run", text=f"`{one.run}` is no whole line")
        if one.script is not None and ("/" in one.script or not one.script.endswith(".py")):
            yield Mistake(path=f"{path}.script", text=f"`{one.script}` is no name of a Python file in `checks/`")
        if one.target is not None and not re.fullmatch(r"\d+\.\d", one.target):
            yield Mistake(path=f"{path}.target", text=f"`{one.target}` is no compute capability; write 12.1")
        yield from texts.requirements(one.requires, f"{path}.requires")
        yield from texts.pattern(one.matches, f"{path}.matches")
        yield from texts.unit(parse_bytes, one.max, f"{path}.max")
