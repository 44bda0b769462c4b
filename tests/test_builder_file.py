"""Dockerfile.builder as text: what it is generated from, and ``doctor --recipe``, which its last step runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.reference import files
from builder.image import builder_file, system
from builder.recipe import find

if TYPE_CHECKING:
    from tests.world import World

ROOT = Path(__file__).resolve().parent.parent

# the file


def test_the_file_is_that_of_the_recipes() -> None:
    assert (ROOT / builder_file.FILE).read_text() == files()[builder_file.FILE], (
        "Dockerfile.builder is out of date; run: python -m builder.cli.reference"
    )


def linted(text: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "-"], cwd=ROOT, input=text, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing_in_it() -> None:
    text = builder_file.text()
    assert linted(text).stdout == ""
    planted = text.replace("USER 1000", "USER root").replace(" -y --no-install-recommends", " --no-install-recommends")
    assert {"DL3002", "DL3014"} <= set(re.findall(r"DL\d+", linted(planted).stdout))


def test_only_versions_of_packages_are_excepted() -> None:
    rules = [line for line in (ROOT / ".hadolint.yaml").read_text().splitlines() if not line.startswith("#")]
    assert rules == ["ignored:", "  - DL3008"]


def test_the_file_keeps_to_what_every_engine_takes() -> None:
    """Each of these is refused by docker 20.10, podman 4 or buildah 1.28, or does something else there."""
    lines = builder_file.text().splitlines()
    for word in ("<<", "COPY --link", "RUN --network", "# syntax", "SHELL", "type=bind", "ADD ", "VOLUME"):
        assert not [line for line in lines if word in line], word
    assert next(line for line in lines if not line.startswith("#") and line).startswith("ARG BASE=docker.io/")


def test_packages_come_from_the_recipes(world: World) -> None:
    world.recipe(
        "first",
        """
        schema = 1
        name = "first"
        [[source]]
        kind = "local"
        path = "."
        [system]
        apt = ["libfoo-dev"]
        tools = ["protoc", "ninja"]
        clang = ">=17"
        headers = true
        [image]
        cuda = ["cuda-nvcc", "libcublas-dev"]
        [[output]]
        name = "first"
        [[variant]]
        id = "iron"
        about = "a part in Rust"
        [variant.recipe.system]
        rust = ">=1.95"
        apt = ["libfoo-dev", "libiron-dev"]
        """,
    )
    world.recipe(
        "plain", 'schema = 1\nname = "plain"\n[[source]]\nkind = "local"\npath = "."\n[[output]]\nname = "p"\n'
    )
    found = system.needs((find.Folder(layer="user", recipes=world.recipes, patches=world.patches),))
    assert found.recipes == ("first", "plain")
    assert found.packages == ("clang", "g++", "libfoo-dev", "lld", "ninja-build", "protobuf-compiler", "python3-dev")
    assert found.rust_packages == ("libiron-dev",)
    assert found.rusty == (system.Rusty(recipe="first", variant="iron"),)
    text = builder_file.text(found)
    for package in (*found.packages, *builder_file.OWN):
        assert f"\n        {package}" in text
    assert '\n        "cuda-nvcc-${CUDA}"' in text
    assert text.index("rustup") < text.index("\n        libiron-dev")
    assert "doctor --recipe first --recipe plain" in text
    assert 'if [ -z "${RUST}" ]; then set -- "$@" --without iron; fi' in text


def pinned(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE))


def test_the_lock_has_every_library_in_the_version_that_is_tested() -> None:
    ours, tested = pinned(builder_file.LOCK), pinned("requirements.txt")
    listed = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert listed
    wanted = set(re.findall(r'^\s*"([a-z0-9-]+)', listed[1], re.MULTILINE))
    assert len(wanted) > 5
    assert wanted | {"cmake", "ninja", "scikit-build-core"} <= set(ours)
    assert {name: version for name, version in ours.items() if tested.get(name, version) != version} == {}
    for block in re.split(r"^(?=[a-z])", (ROOT / builder_file.LOCK).read_text(), flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block


# doctor --recipe, which the file's last step runs


def verdict(world: World, *words: str, code: int) -> dict[str, dict[str, str]]:
    return {one["id"]: one for one in world.json("doctor", *words, code=code)["findings"]}


def test_doctor_judges_the_toolchain_for_recipes_alone(world: World) -> None:
    """Each recipe asks for one thing that isn't here, or that comes later."""
    systems = {
        "package": 'apt = ["no-such-package"]\ntools = ["no-such-program"]',
        "old": 'gcc = ">=99"',
        "toolkit": 'cuda = ">=99"',
        "iron": '[[variant]]\nid = "iron"\nabout = "in Rust"\ndefault = true\n[variant.recipe.system]\nrust = ">=99"',
    }
    for name, text in systems.items():
        source = '[[source]]\nkind = "local"\npath = "."'
        world.recipe(name, f'schema = 1\nname = "{name}"\n{source}\n[[output]]\nname = "x"\n[system]\n{text}\n')
    every = [word for name in systems for word in ("--recipe", name)]
    found = verdict(world, *every, "--cuda", "none", code=5)
    assert set(found) == {"compiler", "python", "git", *systems}
    assert "packages no-such-package: not installed" in found["package"]["found"]
    assert "no-such-program: none on PATH" in found["package"]["found"]
    assert "sudo apt install no-such-package" in found["package"]["run"]
    assert found["old"]["wanted"] == "g++ >=99"
    assert found["iron"]["wanted"] == "rustc >=99"
    assert found["toolkit"]["status"] == "ok"
    found = verdict(world, "--recipe", "toolkit", "--recipe", "iron", "--without", "iron", code=5)
    assert "nvcc" in found
    assert (found["toolkit"]["wanted"], found["iron"]["status"]) == ("CUDA toolkit >=99", "ok")


def test_doctor_refuses_a_recipe_or_variant_that_is_not_there(world: World) -> None:
    assert (
        json.loads(world.run("doctor", "--recipe", "vlm", "--json", code=2).stdout)["error"]["code"] == "recipe-missing"
    )
    error = json.loads(world.run("doctor", "--recipe", "vllm", "--without", "rst", "--json", code=2).stdout)["error"]
    assert error["code"] == "variant-unknown"
