from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.digest import canonical_json, sha256_json
from builder.inputs import SCHEMA, AppliedPatch, Change, diff
from builder.recipe.model import About, Check, Companion, Image, Output, Resources, Source
from builder.stages import Locked, Tool
from tests.base_kit import CLASSES, EVERYTHING, HOST, LOCK, NEVER, PIN, RECIPE, TARGET, collect

if TYPE_CHECKING:
    from builder.digest import Json

BESIDE = (Companion(of="tiny", name="tiny-data", why="slow without"),)
BUILD, SYSTEM = RECIPE.build, RECIPE.system
PYTHON = HOST.interpreter
CUDA = HOST.cuda
assert CUDA is not None

#: What changes a wheel's bytes.
INSIDE: dict[str, dict[str, Any]] = {
    "the tree": {"pin__tree": "git:" + "0" * 40},
    "the commit": {"pin__commit": "0" * 40},
    "the source's version": {"pin__version": "1.1"},
    "the source's time, which is SOURCE_DATE_EPOCH": {"pin__time": 1},
    "the kind of source": {"pin__kind": "local"},
    "a nested source": {"pin__submodules": (replace(PIN.submodules[0], commit="0" * 40),)},
    "where a nested source lies": {"pin__submodules": (replace(PIN.submodules[0], path="other"),)},
    "the tag that a version is made from": {"pin__describe": "v1.0-3-gbbbbbbb"},
    "a pull request's diff": {"pin__pulls": (replace(PIN.pulls[0], sha256="0" * 64),)},
    "one pull request less": {"pin__pulls": ()},
    "one byte of a patch": {"patches": [AppliedPatch(id="fix", sha256="0" * 64)]},
    "another patch": {"patches": [*EVERYTHING["patches"], AppliedPatch(id="second", sha256="9" * 64)]},
    "no patch": {"patches": []},
    "a variable of the recipe": {"recipe__build": replace(BUILD, env={"A": "2"})},
    "another variable of the recipe": {"recipe__build": replace(BUILD, env={"A": "1", "B": ""})},
    "config settings": {"recipe__build": replace(BUILD, config_settings={"x": ("y",)})},
    "requirements added": {"recipe__build": replace(BUILD, requires_add=("ninja",))},
    "requirements bound": {"recipe__build": replace(BUILD, requires_pin=("cmake<5",))},
    "the hook": {"recipe__build": replace(BUILD, hook="cmake")},
    "what is stripped": {"recipe__build": replace(BUILD, strip="debug")},
    "the version module": {"recipe__version": replace(RECIPE.version, module="other.py")},
    "the version variable": {"recipe__version": replace(RECIPE.version, env="X", value="+${label}")},
    "a variable of the output": {"recipe__output": (Output(name="tiny", env={"B": "1"}), RECIPE.output[1])},
    "the output's folder": {"recipe__output": (Output(name="tiny", path="python"), RECIPE.output[1])},
    "which outputs": {"outputs": ["tiny", "extra"]},
    "the recipe's name, which is the build's path": {"recipe__name": "small"},
    "the effective architecture": {"arch": ["12.1a"]},
    "the target": {"target__arch": "12.0f"},
    "the target's Python": {"target__python": "cp313"},
    "the machine": {"host__machine": "x86_64"},
    "the C library": {"host__libc": "2.41"},
    "a replaced nvcc of the same version": {"host__cuda": replace(CUDA, digest="0" * 64)},
    "another toolkit": {"host__cuda": replace(CUDA, version="13.1.0")},
    "no toolkit": {"host__cuda": None},
    "a replaced interpreter": {"host__interpreter": replace(PYTHON, digest="0" * 64)},
    "a rebuilt compiler": {"host__tools": (HOST.tools[0], replace(HOST.tools[1], digest="0" * 64))},
    "a newer system package": {"host__tools": (replace(HOST.tools[0], version="1:2.44"), HOST.tools[1])},
    "one tool more": {"host__tools": (*HOST.tools, Tool(name="rustc", version="1.95.0"))},
    "another build requirement": {
        "locks": [replace(LOCK, packages=(Locked(name="setuptools", version="81.0", sha256=()),))]
    },
    "a requirement's hash": {
        "locks": [replace(LOCK, packages=(Locked(name="setuptools", version="80.0", sha256=("0" * 64,)),))]
    },
    "torch": {"torch": EVERYTHING["torch"] | {"version": "2.14.1"}},
    "torch's C++ ABI": {"torch": EVERYTHING["torch"] | {"cxx11abi": False}},
    "no torch": {"torch": None},
    "a variable of site or user": {"env": {"SITE": "2"}},
    "a folder that a variable names": {"paths": {"/opt/llvm": "0" * 64}},
    "what it builds on": {"builds_on": {"base": "0" * 64}},
}

#: What doesn't.
OUTSIDE: dict[str, dict[str, Any]] = {
    "about": {"recipe__about": About(summary="other", homepage="https://x.invalid", license="MIT", notes=("n",))},
    "resources": {"recipe__resources": Resources(mem_per_job="9GiB", jobs=3, build_timeout="6h", classes=CLASSES)},
    "what images and bundles read": {
        "recipe__image": Image(
            cuda=("cuda-nvcc",), needs=("compiler",), env={"X": "1"}, imports=("tiny",), companions=BESIDE
        )
    },
    "checks": {"recipe__check": (Check(kind="size", max="1MiB"),)},
    "names of variables for the number of jobs": {"recipe__build": replace(BUILD, jobs_env=("JOBS",))},
    "sources that weren't taken": {"recipe__source": (*RECIPE.source, Source(kind="sdist", project="tiny"))},
    "the name by which the commit was asked for": {"pin__ref": "v1.0"},
    "where the source came from": {"pin__url": "https://fork.invalid/tiny"},
    "when the remote was asked": {"pin__asked_at": 5.0, "pin__stale": True},
    "the heads of pull requests with the same diff": {"pin__pulls": (replace(PIN.pulls[0], base="0", head="0"),)},
    "patches that don't apply": {"recipe__patch": ()},
    "what other words for the architecture would mean": {"recipe__arch_map": ()},
    "cores": {"host__cores": 1},
    "memory": {"host__memory_bytes": 1},
    "the interpreter's path": {"host__interpreter": replace(PYTHON, path="/home/me/python")},
    "the toolkit's path": {"host__cuda": replace(CUDA, path="/opt/cuda")},
    "a tool's path": {"host__tools": (HOST.tools[0], replace(HOST.tools[1], path="/opt/g++"))},
    "the order in which tools were found": {"host__tools": HOST.tools[::-1]},
    "the text uv reads": {"locks": [replace(LOCK, text="# elsewhere\n" + LOCK.text)]},
    "outputs that weren't asked for": {"recipe__output": (RECIPE.output[0], Output(name="extra", env={"X": "1"}))},
    "whether an output is built unasked": {
        "recipe__output": (replace(RECIPE.output[0], default=False, when=NEVER), RECIPE.output[1])
    },
}


def test_the_document_is_golden() -> None:
    """Whoever changes this changes every fingerprint, and raises SCHEMA where old wheels would be wrong."""
    made = collect()
    assert SCHEMA == 2
    assert sorted(made.document) == [
        "arch",
        "builds-on",
        "env",
        "host",
        "name",
        "patches",
        "paths",
        "recipe",
        "requires",
        "schema",
        "source",
        "target",
        "torch",
    ]
    document: Any = made.document
    assert document["host"] == {
        "machine": "aarch64",
        "libc": "2.39",
        "python": {"version": "3.12.3", "tag": "cp312", "digest": "3" * 64},
        "cuda": {"version": "13.0.88", "digest": "5" * 64},
        "tools": {"apt:git": {"version": "1:2.43", "digest": None}, "g++": {"version": "13.3.0", "digest": "4" * 64}},
    }
    assert document["source"] == {
        "kind": "git",
        "tree": "git:" + "a" * 40,
        "time": 1700000000,
        "version": "1.0",
        "commit": "b" * 40,
        "describe": None,
        "submodules": [{"path": "sub", "url": "https://git.invalid/sub", "commit": "c" * 40}],
        "pulls": [{"number": 7, "sha256": "2" * 64}],
    }
    assert document["patches"] == [{"id": "fix", "sha256": "1" * 64}]
    assert document["requires"] == {"tiny": [{"name": "setuptools", "version": "80.0", "sha256": ["6" * 64]}]}
    assert (document["arch"], document["env"]) == (["12.0f"], {"SITE": "1"})
    assert [output["name"] for output in document["recipe"]["output"]] == ["tiny"]
    assert {"about", "resources", "check", "source", "patch"} & document["recipe"].keys() == set()


def test_the_fingerprint_is_the_digest_of_the_document_and_nothing_else() -> None:
    made = collect()
    assert made.fingerprint == sha256_json(dict(made.document))
    assert collect() == made
    assert json.loads(canonical_json(dict(made.document))) == made.document


@pytest.mark.parametrize("name", INSIDE)
def test_another_wheel_after_a_change_of(name: str) -> None:
    before, after = collect(), collect(**INSIDE[name])
    assert after.fingerprint != before.fingerprint
    assert diff(dict(before.document), dict(after.document)) != ()


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_same_wheel_after_a_change_of(name: str) -> None:
    assert collect(**OUTSIDE[name]).fingerprint == collect().fingerprint


def test_every_change_gives_a_fingerprint_of_its_own() -> None:
    found = [collect(**change).fingerprint for change in INSIDE.values()]
    assert len(set(found)) == len(found)


def test_the_order_of_patches_counts() -> None:
    two = [AppliedPatch(id="a", sha256="0" * 64), AppliedPatch(id="b", sha256="0" * 64)]
    assert collect(patches=two).fingerprint != collect(patches=two[::-1]).fingerprint


def test_the_user_word_and_the_effective_arch_both_count() -> None:
    assert collect(target=replace(TARGET, arch="12.1")).fingerprint != collect().fingerprint


def test_a_difference_names_its_path_and_both_sides() -> None:
    before = collect()
    after = collect(
        recipe__build=replace(BUILD, env={"B": "2"}), patches=[AppliedPatch(id="fix", sha256="0" * 64)], torch=None
    )
    found = diff(dict(before.document), dict(after.document))
    assert [(one.path, one.kind) for one in found] == [
        ("patches[fix].sha256", "changed"),
        ("recipe.build.env.A", "removed"),
        ("recipe.build.env.B", "added"),
        ("torch", "changed"),
    ]
    assert (found[0].old, found[0].new) == ("1" * 64, "0" * 64)
    assert (found[1].old, found[1].new) == ("1", None)
    assert (found[2].old, found[2].new) == (None, "2")


def named(*names: str, key: str = "name") -> list[Json]:
    return [{key: name, "value": name.upper()} for name in names]


@pytest.mark.parametrize("key", ["name", "id", "path"])
def test_lists_of_named_things_are_compared_by_name(key: str) -> None:
    found = diff({"x": named("a", "b", key=key)}, {"x": named("b", "c", key=key)})
    assert [(one.path, one.kind) for one in found] == [("x[a]", "removed"), ("x[c]", "added")]


def test_another_order_of_the_same_things_is_one_difference() -> None:
    (found,) = diff({"x": named("a", "b", "c")}, {"x": named("c", "a", "b")})
    assert found == Change(path="x.order", kind="changed", old=["a", "b", "c"], new=["c", "a", "b"])


def test_the_first_named_thing_is_an_addition() -> None:
    assert [(one.path, one.kind) for one in diff({"x": []}, {"x": named("a")})] == [("x[a]", "added")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["a"], ["b"]),
        ([{"name": "a"}, {"name": "a"}], [{"name": "a"}]),
        ([1, {"name": "a"}], [{"name": "a"}]),
        ({}, []),
    ],
)
def test_other_lists_are_compared_as_a_whole(old: Json, new: Json) -> None:
    assert diff({"x": old}, {"x": new}) == (Change(path="x", kind="changed", old=old, new=new),)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "id", "x", "y"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc"), "v": inner}), max_size=3)
    ),
    max_leaves=12,
)


@given(DOCUMENTS, DOCUMENTS)
def test_no_difference_goes_unseen_and_none_is_made_up(old: Json, new: Json) -> None:
    """The only source of reasons for a rebuild: it may never be empty where bytes differ."""
    same = canonical_json(old) == canonical_json(new)
    assert (diff(old, new) == ()) == same
    assert len(diff(old, new)) == len(diff(new, old))
