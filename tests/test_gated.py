"""A whole build under the gate, by the installed command: what compilers needed is seen, kept and used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from builder.wheelhouse.statement import facts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

#: Compiles its C++ files by make, which is told to run seven at once.
COMPILE = """
    import subprocess
    subprocess.run(["make", "-j7", "--no-print-directory"], cwd="src", check=True)
"""
MAKEFILE = """\
OBJECTS := a.o b.o c.o
all: lib.so
%.o: %.cpp
\t$(CXX) -O1 -MD -fPIC -c $< -o $@
lib.so: $(OBJECTS)
\t$(CXX) -shared $(OBJECTS) -o $@
"""


def project(world: World, *, broken: str = "") -> Path:
    folder = world.tiny(extra=COMPILE)
    (folder / "src" / "Makefile").write_text(MAKEFILE)
    for name in "abc":
        (folder / "src" / f"{name}.cpp").write_text(
            f"#include <vector>\nint {name}() {{ return std::vector<int>(3).size(); }}\n"
        )
    if broken:
        (folder / "src" / f"{broken}.cpp").write_text("#include <map>\nint wrong = std::map<int>();\n")
    world.recipe(
        "tiny",
        f'schema = 1\nname = "tiny"\n[[source]]\nkind = "local"\npath = "{folder}"\n[system]\ngcc = ">=9"\n'
        '[build]\nhook = "make"\n[[output]]\nname = "tiny"\n',
    )
    return folder


def events(world: World, kind: str) -> list[dict[str, Any]]:
    files = sorted(world.wheelhouse.glob("builds/*/logs/*/events.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def record(world: World) -> dict[str, Any]:
    (file,) = world.wheelhouse.glob("wheels/tiny/*.provenance.json")
    return facts(json.loads(file.read_bytes()))


def test_every_compile_is_admitted_measured_and_kept(world: World) -> None:
    project(world)
    world.wheels("tiny")
    assert sorted(event["name"] for event in events(world, "unit.ended")) == ["a.cpp", "b.cpp", "c.cpp", "lib.so"]
    assert all(event["ok"] and event["peak_bytes"] > 1 << 20 for event in events(world, "unit.ended"))
    told = record(world)
    assert told["gate"]["tiny"]["units"] == 4
    assert told["gate"]["tiny"]["cache"]["misses"] == 3
    assert {unit["source"] for unit in told["units"]["units"]} >= {"src/a.cpp", "src/b.cpp", "src/c.cpp"}


def test_a_second_build_takes_objects_from_the_cache_and_gives_the_same_bits(world: World) -> None:
    project(world)
    (wheel,) = world.wheels("tiny")
    before = wheel.read_bytes()
    said = world.run("recipe", "tiny", "--force").stderr
    assert "3 from the compile cache" in said
    assert wheel.read_bytes() == before
    said = world.run("recipe", "tiny", "--force", "--compile-cache", "off").stderr
    assert "cache" not in said
    assert wheel.read_bytes() == before


def test_what_units_needed_goes_to_another_machine(world: World) -> None:
    project(world)
    world.wheels("tiny")
    document = world.root / "tiny.json"
    document.write_text(world.run("history", "tiny", "--units").stdout)
    other = str(world.root / "other")
    assert "4 runs taken" in world.run("history", "--import", "tiny.json", "--wheelhouse", other).stderr
    assert "0 runs taken" in world.run("history", "--import", "tiny.json", "--wheelhouse", other).stderr
    (file,) = world.wheelhouse.glob("wheels/tiny/*.provenance.json")
    third = str(world.root / "third")
    assert "4 runs taken" in world.run("history", "--import", str(file), "--wheelhouse", third).stderr
    document.write_text("{}")
    error = world.json("history", "--import", "tiny.json", code=2)["error"]
    assert error["code"] == "history-document"


def test_a_failed_unit_is_named_and_goes_first_when_it_is_mended(world: World) -> None:
    folder = project(world, broken="b")
    error = world.json("recipe", "tiny", code=1)["error"]
    assert "b.cpp" in error["cause"]
    assert [event["name"] for event in events(world, "unit.ended") if not event["ok"]] == ["b.cpp"]
    (folder / "src" / "b.cpp").write_text("int b() { return 2; }\n")
    world.wheels("tiny")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "0"), "the gate can't be turned off"),
        (("--memory", "lots"), "is no size"),
        (("--reserve", "-1"), "no size"),
        (("--compile-cache", "ftp://a/b"), "neither on, off nor a URL"),
    ],
)
def test_wrong_caps_are_told(world: World, words: tuple[str, str], said: str) -> None:
    project(world)
    flag, value = words
    assert said in world.json("recipe", "tiny", f"{flag}={value}", code=2)["error"]["summary"]


def test_a_unit_that_can_never_fit_ends_with_7(world: World) -> None:
    project(world)
    world.wheels("tiny")
    words = ("recipe", "tiny", "--force", "--compile-cache", "off", "--memory", "8M")
    error = world.json(*words, code=7)["error"]
    assert error["code"] == "unit-too-large"
    assert error["run"][0].startswith("spark-build resume ")


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_build(world: World) -> None:
    project(world)
    (world.root / "sources").mkdir()
    (world.root / "sources" / "ccache").write_text("a file")
    done = world.run("recipe", "tiny")
    assert "no compile cache" in done.stderr
    assert record(world)["gate"]["tiny"]["units"] == 4
