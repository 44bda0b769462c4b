"""What recipes say of the place where their wheels run, put together."""

from __future__ import annotations

import typing
from dataclasses import replace

from builder.bundle import companions
from builder.recipe import find
from builder.recipe.convert import hints
from builder.recipe.outside import Companion, Image
from tests.base_kit import RECIPE

if typing.TYPE_CHECKING:
    from builder.recipe.model import Recipe


def recipe(name: str, image: Image, *, default: bool = True) -> Recipe:
    output = replace(RECIPE.output[0], name=name, default=default)
    return replace(RECIPE, name=name.lower(), output=(output,), image=image)


def test_every_need_that_recipes_may_name_is_known() -> None:
    (words,) = {word for word in typing.get_args(hints(Image)["needs"]) if word is not ...}
    assert tuple(companions.NEEDS) == typing.get_args(words)
    assert all(one.packages and one.run for one in companions.NEEDS.values())


def test_what_the_shipped_recipes_say() -> None:
    known = companions.read(find.folders(()))
    assert known.problems == ()
    names = ["flashinfer_python", "Triton", "torch", "numpy"]
    assert [one.id for one in known.needs(names)] == ["compiler", "headers", "nvcc"]
    assert known.run(names) == {
        "env": {"FLASHINFER_NO_DOWNLOAD": "1"},
        "imports": ["torch", "flashinfer", "triton"],
    }
    (one,) = known.companions(names)
    assert (one.of, one.name) == ("flashinfer-python", "flashinfer-jit-cache")
    assert known.companions([*names, "flashinfer-jit-cache"]) == ()
    assert [one.id for one in known.needs(["vllm"])] == ["compiler", "headers"]
    assert [one.id for one in known.needs(["tilelang"])] == ["compiler", "headers", "nvcc"]
    assert (known.needs(["numpy"]), known.run(["numpy"])) == ((), {"env": {}, "imports": []})
    assert known.needs(["triton-kernels"]) == ()  # built only when it is asked for


def test_later_recipes_count_before_earlier_ones() -> None:
    old = Companion(of="One", name="data", why="slow")
    new = replace(old, name="Data", why="slower")
    known = companions.known(
        [
            recipe("One", Image(env={"A": "1", "B": "1"}, imports=("one", "both"), companions=(old,))),
            recipe("two", Image(env={"A": "2"}, imports=("both", "two"), companions=(new,))),
            recipe("torch", Image(imports=("torch.cuda",))),
            recipe("three", Image(needs=("headers",)), default=False),
        ]
    )
    assert known.env(["one", "two"]) == {"A": "2", "B": "1"}
    assert known.imports(["two", "one"]) == ("one", "both", "two")
    assert [one.why for one in known.companions(["one", "two"])] == ["slower"]
    assert known.companions(["two"]) == ()
    assert known.imports(["torch"]) == ("torch", "torch.cuda")
    assert known.needs(["three"]) == ()
