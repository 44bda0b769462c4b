"""A stack: its file, the order, one torch, the set as a whole, the channel."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.errors import SparkError, UsageError
from builder.recipe import stack as files
from builder.wheelhouse import channel
from builder.wheelhouse.reindex import reindex
from tests import wheelhouse_kit as kit
from tests.source_kit import index_pages, tiny_wheel

if TYPE_CHECKING:
    from builder.wheelhouse import Wheelhouse
    from tests.world import World

ROOT = Path(__file__).resolve().parent.parent


def stack_file(world: World, text: str, *members: str, name: str = "stack.toml") -> Path:
    path = world.root / name
    tables = "".join(f'[[member]]\nrecipe = "{member}"\n' for member in members)
    path.write_text(f'schema = 1\nname = "set"\n{text}\n{tables}')
    return path


def project(world: World, name: str, *, requires: str = "", more: str = "", asks: str = "", **how: str) -> None:
    """Make a repository and a recipe; `requires` is a line of METADATA, `asks` what the backend wants while it builds."""
    folder = world.tiny(name, **how)
    backend = folder / "backend.py"
    text = backend.read_text()
    if requires:
        text = text.replace("Version: {VERSION}\\n", f"Version: {{VERSION}}\\nRequires-Dist: {requires}\\n")
    if asks:
        text = text.replace("    return []", f"    return [{asks!r}]", 1)
    backend.write_text(text)
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    head, _line, rest = more.partition("\n---\n")
    file = world.tiny_recipe(name, more=rest)
    file.write_text(file.read_text().replace("[[source]]", f"{head}\n[[source]]", 1))


def refused(world: World, *words: str, code: int, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.run(*words, "--json", code=code, **env).stdout)["error"]
    return found


def listed(world: World, name: str) -> list[str]:
    return [one["path"] for one in world.json("wheels", "list", "--channel", name)["wheels"]]


# --- the file


def test_the_shipped_example_is_one() -> None:
    loaded = files.load(ROOT / "docs" / "examples" / "stack.toml")
    assert [member.recipe for member in loaded.stack.member] == ["triton", "flashinfer", "vllm"]
    assert loaded.stack.channel == "team/nightly"
    assert loaded.layers["triton"].values == {"resources": {"jobs": 16}}


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    path.write_text(
        'schema = 1\nname = "My stack"\nchannel = "A"\ntorch = ">=2"\n'
        '[[member]]\nrecipe = "one"\nversion = "1.0"\nref = "main"\n'
        '[[member]]\nrecipe = "one"\n[recipe.two]\nx = 1\n[check]\naccept = [{ findings = [], reason = "" }]\n'
    )
    with pytest.raises(SparkError) as caught:
        files.load(path)
    assert (caught.value.code, caught.value.exit_code) == ("stack-wrong", 2)
    told = caught.value.cause.splitlines()
    for number, key in ((2, "name"), (3, "channel"), (4, "torch"), (7, "member[0].version"), (10, "member[1].recipe")):
        assert any(line.startswith(f"{path}:{number}: {key}: ") for line in told), (key, told)
    assert any(": recipe.two: `two` is no member" in line for line in told)
    assert any("check.accept[0]" in line for line in told)
    path.write_text('schema = 1\nname = "x"\narch = "sm_121"\npython = ""\n[[member]]\nrecipe = "one"\nref = ""\n')
    with pytest.raises(SparkError, match="3 mistakes") as caught:
        files.load(path)
    for number, key in ((3, "arch"), (4, "python"), (7, "member[0].ref")):
        assert f"{path}:{number}: {key}: " in caught.value.cause
    path.write_text('schema = 1\nname = "x"\nmembers = []\n')
    with pytest.raises(SparkError, match="2 mistakes") as caught:
        files.load(path)
    assert "did you mean `member`?" in caught.value.cause


@pytest.mark.parametrize("name", ["simple", "team/files", "a/b/c", "Team", "", "a/", "local", "a b", "metrics", "ä"])
def test_a_channel_is_one_or_two_words_and_none_that_is_taken(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        channel.check(name)
    assert caught.value.code == "channel-name"


def test_a_channel_that_cannot_be_is_told_before_anything_is_built(world: World) -> None:
    project(world, "tiny")
    stack_file(world, 'channel = "team/simple"', "tiny")
    assert refused(world, "stack", code=2)["code"] == "channel-name"
    stack_file(world, "", "tiny")
    assert refused(world, "stack", "--channel", "files", code=2)["code"] == "channel-name"
    assert refused(world, "stack", "no.toml", code=2)["code"] == "stack-missing"
    assert not world.wheelhouse.exists()
    assert refused(world, "stack", "--locked", code=2)["code"] == "lock-missing"


# --- building and promoting


def test_a_set_is_built_in_order_and_promoted_as_one(world: World) -> None:
    project(world, "upper", more='builds-on = ["base"]', requires="base>=1")
    project(world, "base")
    old = world.git(world.root / "base", "rev-parse", "HEAD")
    world.git(world.root / "base", "tag", "v1")
    (world.root / "base" / "src" / "__init__.py").write_text("VALUE = 2\n")
    world.git(world.root / "base", "commit", "-qam", "second")
    path = stack_file(world, 'channel = "team/set"', "upper")
    layers = '[recipe.upper.build.env]\nX = "1"\n[recipe.base.build.env]\nY = "2"\n'
    path.write_text(f'{path.read_text()}[[member]]\nrecipe = "base"\nref = "v1"\n{layers}')
    plan = world.run("stack", "--plan", code=10).stdout
    assert plan.startswith("base ")
    assert "  Run: spark-build stack stack.toml\n" in plan
    made = world.json("stack")["stack"]
    assert [one["recipe"] for one in made["wheels"]] == ["base", "upper"]
    assert (made["channel"], made["changed"]) == ("team/set", True)
    base, upper = made["wheels"]
    assert base["commit"] == old
    inputs = json.loads(world.run("wheels", "show", upper["sha256"][:12], "--inputs").stdout)
    assert inputs["builds-on"] == {"base": base["fingerprint"]}
    assert inputs["recipe"]["build"]["env"] == {"X": "1"}
    assert listed(world, "team/set") == [base["path"], upper["path"]]
    world.run("rebuild", base["sha256"][:12], "--check")
    again = world.run("stack")
    assert again.stdout.splitlines() == [base["path"], upper["path"]]
    assert "team/set lists 2 wheels already" in again.stderr
    world.run("index", "export", str(world.root / "out"), "--channel", "team/set")
    names = sorted(file.name for file in (world.root / "out" / "files").rglob("*.whl"))
    assert names == sorted(Path(one["path"]).name for one in made["wheels"])
    assert "team/set" in world.run("wheels", "show", base["sha256"][:12]).stdout


@pytest.mark.slow
def test_a_stack_without_a_channel_is_built_and_checked_only(world: World) -> None:
    project(world, "tiny")
    stack_file(world, "", "tiny")
    made = world.json("stack")["stack"]
    assert (made["channel"], made["changed"]) == (None, False)
    assert world.json("stack", "--channel", "mine")["stack"]["changed"] is True
    assert listed(world, "mine") == [made["wheels"][0]["path"]]


def test_a_set_whose_parts_do_not_fit_promotes_nothing(world: World) -> None:
    """What was promoted before stays; what was built stays in the wheelhouse."""
    project(world, "base")
    project(world, "upper", requires="base>=1")
    stack_file(world, 'channel = "set"', "base", "upper")
    world.run("stack")
    before = listed(world, "set")
    folder = world.root / "upper"
    (folder / "backend.py").write_text((folder / "backend.py").read_text().replace("base>=1", "base>=2"))
    world.git(folder, "commit", "-qam", "wants more")
    error = refused(world, "stack", code=5)
    assert error["code"] == "stack-refused"
    assert "dependency-conflict" in error["cause"]
    assert listed(world, "set") == before
    assert len(world.json("wheels", "list")["wheels"]) == 3
    path = stack_file(world, 'channel = "set"', "base", "upper")
    reason = '[[check.accept]]\nfindings = ["dependency-conflict"]\nreason = "an override tells otherwise"\n'
    path.write_text(path.read_text() + reason)
    world.run("stack")
    assert listed(world, "set")[0] == before[0]
    assert listed(world, "set")[1] != before[1]
    path.write_text(path.read_text().replace("dependency-conflict", "dependency-conflicts"))
    assert refused(world, "stack", code=2)["code"] == "accept-unknown"


def test_flashinfer_of_two_builds_is_no_set(world: World) -> None:
    project(world, "flashinfer-python")
    project(world, "flashinfer-jit-cache")
    stack_file(world, 'channel = "set"', "flashinfer-python", "flashinfer-jit-cache")
    error = refused(world, "stack", code=5)
    assert "flashinfer-set" in error["cause"]
    assert refused(world, "wheels", "list", "--channel", "set", code=2)["code"] == "channel-missing"


@pytest.mark.slow
def test_a_failed_member_promotes_nothing(world: World) -> None:
    project(world, "tiny")
    project(world, "bad", extra='raise SystemExit("no")')
    stack_file(world, 'channel = "set"', "tiny", "bad")
    world.run("stack", code=1)
    assert refused(world, "wheels", "list", "--channel", "set", code=2)["code"] == "channel-missing"
    assert len(world.json("wheels", "list")["wheels"]) == 1
    error = refused(world, "resume", code=2)
    assert (error["code"], error["run"]) == ("not-kept", ["spark-build stack"])


@pytest.mark.slow
def test_a_member_that_others_pin_is_told_with_its_override(world: World) -> None:
    project(world, "pinned", more='\n---\npinned-by = ["torch"]\n')
    stack_file(world, 'channel = "set"', "pinned")
    done = world.run("stack")
    version = Path(done.stdout.strip()).name.split("-")[1]
    assert f"--overrides <(echo pinned=={version})" in done.stderr
    world.run("lock", "stack.toml")
    assert f'"pinned=={version}"' in (world.root / "spark-build.lock").read_text()


def torch_index(world: World, *, more: str = "") -> dict[str, str]:
    tiny_wheel(world.root / "index" / "torch", "torch", "2.14.0", more=more)
    url = index_pages(world.root / "index")
    return {"SPARK_BUILD_INDEX_URL": url, "UV_CACHE_DIR": str(world.root / f"uv{len(more)}")}


@pytest.mark.slow
def test_one_torch_goes_to_the_members_that_build_with_it(world: World) -> None:
    env = torch_index(world)
    for name in ("one", "two"):
        project(world, name, more='\n---\n[build]\ntorch = "pinned"\n')
    project(world, "three")
    stack_file(world, 'channel = "set"\ntorch = "2.14.0"', "one", "three", "two")
    made = {one["recipe"]: one for one in world.json("stack", code=0, **env)["stack"]["wheels"]}
    for name, wheel in made.items():
        inputs = json.loads(world.run("wheels", "show", wheel["sha256"][:12], "--inputs").stdout)
        assert (inputs["torch"] or {}).get("version") == (None if name == "three" else "2.14.0")


@pytest.mark.slow
def test_members_that_were_built_against_other_bytes_of_torch_are_no_set(world: World) -> None:
    project(world, "one", more='\n---\n[build]\ntorch = "pinned"\n')
    project(world, "two", more='\n---\n[build]\ntorch = "pinned"\n')
    stack_file(world, 'channel = "set"\ntorch = "2.14.0"', "one")
    world.run("stack", code=0, **torch_index(world))
    before = listed(world, "set")
    stack_file(world, 'channel = "set"\ntorch = "2.14.0"', "one", "two")
    error = refused(world, "stack", code=5, **torch_index(world, more="Summary: other bytes\n"))
    assert error["code"] == "stack-refused"
    assert "not built for one torch" in error["cause"]
    assert listed(world, "set") == before


@pytest.mark.slow
def test_what_is_built_on_is_planned_anew_when_it_needed_more(world: World) -> None:
    """The plan for the upper one was made before the backend of the base asked for a requirement."""
    tiny_wheel(world.root / "index" / "helper", "helper", "1.0")
    env = {"SPARK_BUILD_INDEX_URL": index_pages(world.root / "index"), "UV_CACHE_DIR": str(world.root / "uv")}
    project(world, "base", asks="helper", extra="import helper")
    project(world, "upper", more='builds-on = ["base"]', extra="import base")
    stack_file(world, 'channel = "set"', "upper", "base")
    base, upper = world.json("stack", code=0, **env)["stack"]["wheels"]
    inputs = json.loads(world.run("wheels", "show", upper["sha256"][:12], "--inputs").stdout)
    assert inputs["builds-on"] == {"base": base["fingerprint"]}


def test_torch_that_pins_another_member_is_told_with_the_override(world: World) -> None:
    """torch's own METADATA is looked at, as it was locked for the builds; a set that warns is looked at each time."""
    tiny_wheel(world.root / "index" / "triton", "triton", "3.8.0")
    env = torch_index(world, more="Requires-Dist: triton==3.8.0\n")
    project(world, "one", more='\n---\n[build]\ntorch = "pinned"\n')
    stack_file(world, 'channel = "set"\ntorch = "2.14.0"', "one", "mine")
    project(world, "triton")
    file = (world.recipes / "triton.toml").rename(world.recipes / "mine.toml")
    file.write_text(file.read_text().replace('name = "triton"', 'name = "mine"', 1))
    for _time in range(2):
        told = world.run("stack", code=0, **env).stderr
        assert "torch 2.14.0 requires triton==3.8.0 (triton-pin)" in told
    assert not list((world.wheelhouse / "builds").glob(".torch-*"))


@pytest.mark.slow
def test_a_stack_that_is_detached_goes_on_by_itself(world: World) -> None:
    project(world, "tiny")
    stack_file(world, 'channel = "set"', "tiny")
    ref = world.run("stack", "--detach").stdout.strip()
    world.run("attach", ref, code=None)
    for _try in range(200):
        if world.run("wheels", "list", "--channel", "set", code=None).returncode == 0:
            break
        time.sleep(0.1)
    assert len(listed(world, "set")) == 1


# --- from a lock


def test_a_stack_is_locked_and_held_as_a_whole(world: World) -> None:
    project(world, "base")
    project(world, "upper", more='builds-on = ["base"]')
    path = stack_file(world, 'channel = "set"', "base", "upper")
    path.write_text(path.read_text() + '[recipe.base.build.env]\nX = "1"\n')
    world.run("lock", "stack.toml")
    first = {one["recipe"]: one for one in world.json("stack", "--locked")["stack"]["wheels"]}
    for name in ("base", "upper"):
        (world.root / name / "src" / "__init__.py").write_text("VALUE = 2\n")
        world.git(world.root / name, "commit", "-qam", "second")
    for flag in ("--locked", "--frozen"):
        held = {one["recipe"]: one for one in world.json("stack", flag)["stack"]["wheels"]}
        assert {name: one["fingerprint"] for name, one in held.items()} == {
            name: one["fingerprint"] for name, one in first.items()
        }
        (_base, upper) = world.json("recipe", "upper", flag)["wheels"]
        assert upper["fingerprint"] == first["upper"]["fingerprint"]
        (base,) = world.json("recipe", "base", flag)["wheels"]
        assert base["fingerprint"] == first["base"]["fingerprint"]
    path.write_text(path.read_text().replace('X = "1"', 'X = "2"'))
    error = refused(world, "stack", "--locked", code=2)
    assert (error["code"], error["cause"]) == ("lock-stale", "base: [build] of the recipe was changed since")
    whole = path.read_text()
    path.write_text(whole.partition("[recipe.")[0])
    assert refused(world, "stack", "--locked", code=2)["cause"] == error["cause"]
    path.write_text(whole)
    told = world.run("lock").stderr  # what the stack file said when it was locked still counts
    assert "source" in told
    assert "[build]" not in told
    world.run("lock", "stack.toml")
    world.run("stack", "--locked")


@pytest.mark.slow
def test_words_for_one_recipe_are_refused_beside_a_stack_file(world: World) -> None:
    project(world, "tiny")
    stack_file(world, "", "tiny")
    assert refused(world, "lock", "stack.toml", "--ref", "main", code=2)["code"] == "usage"
    assert refused(world, "lock", "stack.toml", "--with", "x", code=2)["code"] == "usage"
    assert refused(world, "lock", "stack.toml", "tiny", code=2)["code"] == "usage"
    assert refused(world, "lock", "--lock", "x.lock", "--without", "x", code=2)["code"] == "usage"
    assert world.json("lock")["lock"]["recipes"] == ["tiny"]  # without a lock, stack.toml is meant


# --- channels


def wheels_of(house: Wheelhouse, root: Path, *names: str) -> list[Any]:
    return [
        kit.publish(house, [kit.wheel(root / "dist", name)], fingerprint=name * 64, inputs={"name": name})[0]
        for name in names
    ]


def names_of(house: Wheelhouse, name: str) -> list[str]:
    return [wheel.project for wheel in channel.members(house, name)]


def test_a_reindex_brings_channels_back_as_they_were(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        a, b, c = wheels_of(house, tmp_path, "a", "b", "c")
        channel.promote(house, "set", [a, b])
        channel.promote(house, "set", [c, b])
        channel.promote(house, "other", [a])
        kit.publish(house, [kit.wheel(tmp_path / "dist", "d")], fingerprint="d" * 64, channel="set")
        house.remove(b)
        kit.publish(house, [kit.wheel(tmp_path / "dist", "b")], fingerprint="b" * 64)
    before = kit.contents(tmp_path / "house")
    reindex(tmp_path / "house", clock=time.time)
    assert kit.contents(tmp_path / "house") == before
    with kit.opened(tmp_path / "house") as house:
        assert names_of(house, "set") == ["c", "d"]
        assert names_of(house, "other") == ["a"]


def test_what_is_not_published_is_not_promoted(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        a, b = wheels_of(house, tmp_path, "a", "b")
        channel.promote(house, "set", [a])
        b.path.write_bytes(b"other")
        with pytest.raises(UsageError) as caught:
            channel.promote(house, "set", [a, b])
        assert caught.value.code == "wheel-unpublished"
        house.remove(b)
        with pytest.raises(UsageError):
            channel.promote(house, "set", [b])
        assert names_of(house, "set") == ["a"]
        assert not list((tmp_path / "house" / "wheels" / ".incoming").iterdir())
        assert not channel.promote(house, "set", [a])


KILLED = """
import pathlib, sys
from builder.wheelhouse import channel
from tests import wheelhouse_kit as kit
root = pathlib.Path(sys.argv[1])
with kit.opened(root / "house") as house:
    wheels = house.list_wheels()
    kit.kill_in("enter")
    channel.promote(house, "set", wheels[1:])
"""


@pytest.mark.parametrize("way", ["open", "reindex"])
def test_a_promotion_that_was_announced_is_completed(tmp_path: Path, way: str) -> None:
    """Killed between the journal and the catalogue."""
    root = tmp_path / "house"
    with kit.opened(root) as house:
        channel.promote(house, "set", wheels_of(house, tmp_path, "a", "b", "c"))
    kit.finished(kit.child(KILLED, str(tmp_path)), code=-9)
    if way == "reindex":
        reindex(root, clock=time.time)
    with kit.opened(root) as house:
        assert names_of(house, "set") == ["b", "c"]
    assert kit.whole(root)


def test_a_later_promotion_is_not_undone_by_the_rest_of_a_killed_one(tmp_path: Path) -> None:
    """Another process that was open all the while promotes before the next opening settles what was left."""
    root = tmp_path / "house"
    with kit.opened(root) as house:
        a, b, c = wheels_of(house, tmp_path, "a", "b", "c")
        channel.promote(house, "set", [a, b, c])
        kit.finished(kit.child(KILLED, str(tmp_path)), code=-9)
        assert len(list((root / "wheels" / ".incoming").iterdir())) == 1
        channel.promote(house, "set", [c])
    with kit.opened(root) as house:
        assert names_of(house, "set") == ["c"]
    assert not list((root / "wheels" / ".incoming").iterdir())
