"""A lock: what it holds, what it is held to, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder import lockfile
from builder.errors import UsageError
from builder.lockfile import Lock, LockedRecipe
from builder.stages import EnvLock, Locked, Pin, Submodule
from builder.values import replace
from tests.source_kit import index_pages, sha256, tar_of, tiny_wheel
from tests.world import COMMAND

if TYPE_CHECKING:
    from tests.world import World

HEX = "a" * 64


def entry(**more: Any) -> LockedRecipe:  # noqa: ANN401  # fields
    pin = Pin(
        kind="git",
        url="https://example.org/x.git",
        tree="git:" + "1" * 40,
        time=1_700_000_000,
        ref="main",
        commit="c" * 40,
        submodules=(Submodule(path="3rdparty/y", url="https://example.org/y.git", commit="d" * 40),),
    )
    archive = Pin(kind="archive", url="https://example.org/llvm.tar.gz", tree=f"sha256:{HEX}", time=1, size=12)
    packages = (Locked(name="ninja", version="1.13", sha256=(HEX, "b" * 64)),)
    values: dict[str, Any] = {
        "name": "demo",
        "asked": {"ref": "main", "settings": {"build.strip": "none"}, "variants": {"rust": False}},
        "layer": {"build": {"env": {"X": "1"}}},
        "tables": {"build": "12" * 8},
        "target": {"machine": "aarch64", "python": "cp312", "arch": "12.1a", "cuda": "13.0"},
        "arch": ("12.0f",),
        "torch": {"version": "2.14.0", "cuda": None, "cxx11abi": True, "from": "index"},
        "source": pin,
        "nested": {"llvm": archive},
        "replaced": {"ptxas": HEX},
        "patches": {"one": HEX, "two": HEX},
        "env": {"A": "b"},
        "envs": {"demo": EnvLock(output="demo", packages=packages, text="")},
        "outputs": ("demo",),
        "overrides": ("triton==3.9.0+sb1.g2",),
    }
    return LockedRecipe(**{**values, **more})


def lock(*entries: LockedRecipe) -> Lock:
    return Lock(recipes={one.name: one for one in entries})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / lockfile.NAME
    written = lock(entry(), entry(name="other", torch=None, nested={}, layer={}))
    assert lockfile.write(path, written)
    assert not lockfile.write(path, written)
    read = lockfile.read(path)
    assert lockfile.text_of(read) == path.read_text()
    assert lockfile.differences(written, read) == ()
    assert read.recipes["demo"].source == written.recipes["demo"].source
    assert read.recipes["demo"].nested["llvm"].size == 12
    env = read.recipes["demo"].envs["demo"]
    assert env.text == f"ninja==1.13 --hash=sha256:{HEX} --hash=sha256:{'b' * 64}\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": replace(entry().source, commit="e" * 40)}, f"demo: source: main {'c' * 12} → main {'e' * 12}"),
        ({"source": replace(entry().source, describe="v1")}, f"demo: source: main {'c' * 12}, with other bytes"),
        ({"nested": {}}, "demo: nested source llvm is gone (sha256:aaaaaaaaaaaa)"),
        ({"replaced": {"ptxas": "b" * 64}}, f"demo: path in place of ptxas: {'a' * 12} → {'b' * 12}"),
        ({"patches": {"two": HEX, "one": HEX}}, "demo: order of patches: one, two → two, one"),
        ({"env": {}}, "demo: variable A is gone (b)"),
        ({"arch": ("12.1a",)}, "demo: arch of the project: 12.0f → 12.1a"),
        ({"outputs": ("demo", "shim")}, "demo: outputs: demo → demo, shim"),
        ({"tables": {"build": "34" * 8}}, "demo: [build] of the recipe: 1212121212121212 → 3434343434343434"),
        (
            {"torch": {"version": "2.15.0", "cuda": None, "cxx11abi": True, "from": "index"}},
            "demo: torch: 2.14.0 (index) → 2.15.0 (index)",
        ),
        (
            {
                "envs": {
                    "demo": EnvLock(
                        output="demo", packages=(Locked(name="ninja", version="1.13", sha256=(HEX,)),), text=""
                    )
                }
            },
            "demo: ninja in the build of demo: 1.13, with other bytes",
        ),
        ({"target": {**entry().target, "python": "cp313"}}, "demo: python: cp312 → cp313"),
    ],
)
def test_differences_are_told_in_words(change: dict[str, Any], told: str) -> None:
    assert lockfile.differences(lock(entry()), lock(entry(**change))) == (told,)


def test_what_says_nothing_about_the_build_is_no_difference() -> None:
    other = entry(asked={}, overrides=(), source=replace(entry().source, ref="v2"))
    assert lockfile.differences(lock(entry()), lock(other)) == ()
    assert lockfile.differences(lock(entry()), lock()) == ("demo: is gone",)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (HEX, "f" * 64, "lock-damaged"),
        ('commit = "ccc', 'commit = "ddd', "lock-damaged"),
        ("schema = 1", "schema = 2", "lock-schema"),
        ("schema = 1", "schema = ", "lock-damaged"),
        ("[[recipe]]", "<<<<<<< ours\n[[recipe]]", "lock-damaged"),
        ('name = "demo"', 'name = "Demo"', "lock-damaged"),
        ("time = 1700000000", "time = 1.5", "lock-damaged"),
        ("time = 1700000000", "time = 2020-01-01", "lock-damaged"),
        ("[recipe.target]", "[recipe.goal]", "lock-damaged"),
    ],
)
def test_a_changed_lock_is_refused_whatever_was_changed(tmp_path: Path, old: str, new: str, code: str) -> None:
    path = tmp_path / lockfile.NAME
    text = lockfile.text_of(lock(entry()))
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        lockfile.read(path)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert caught.value.run


def test_a_lock_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / lockfile.NAME
    with pytest.raises(UsageError, match="there is no lock"):
        lockfile.read(path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(UsageError) as caught:
        lockfile.read(path)
    assert caught.value.code == "lock-damaged"
    path.write_text("schema = 1\nrecipe = 3\n")
    with pytest.raises(UsageError):
        lockfile.read(path)


# --- by the command


@pytest.fixture
def tiny(world: World) -> World:
    world.tiny_repo()
    world.tiny_recipe()
    return world


def move(world: World, name: str = "tiny", text: str = "VALUE = 2\n") -> str:
    """Let upstream's main move."""
    folder = world.root / name
    (folder / "src" / "__init__.py").write_text(text)
    world.git(folder, "commit", "-qam", "second")
    return world.git(folder, "rev-parse", "HEAD")


def refused(world: World, *words: str, code: int = 2, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.run(*words, "--json", code=code, **env).stdout)["error"]
    return found


def table(world: World, name: str = "tiny") -> dict[str, Any]:
    entries = tomllib.loads((world.root / lockfile.NAME).read_text())["recipe"]
    found: dict[str, Any] = next(one for one in entries if one["name"] == name)
    return found


def test_a_locked_build_stays_at_its_commit_while_upstream_moves(tiny: World) -> None:
    first = tiny.git(tiny.root / "tiny", "rev-parse", "HEAD")
    assert tiny.run("lock", "tiny").stdout == f"{tiny.root / lockfile.NAME}\n"
    assert table(tiny)["source"]["commit"] == first
    second = move(tiny)
    (held,) = tiny.json("recipe", "tiny", "--locked")["wheels"]
    (fresh,) = tiny.json("recipe", "tiny")["wheels"]
    (frozen,) = tiny.json("recipe", "tiny", "--frozen")["wheels"]
    assert (held["commit"], fresh["commit"]) == (first, second)
    assert frozen == held | {"cached": True}
    told = tiny.run("lock").stderr
    assert f"tiny: source: main {first[:12]} → main {second[:12]}" in told
    (held,) = tiny.json("recipe", "tiny", "--locked")["wheels"]
    assert held == fresh | {"cached": True}


@pytest.mark.slow
def test_the_plan_of_a_locked_build_repeats_the_lock(tiny: World) -> None:
    tiny.run("lock", "tiny", "--lock", "my.lock")
    told = tiny.run("recipe", "tiny", "--plan", "--locked", "--lock", "my.lock", code=10).stdout
    assert "  Run: spark-build recipe tiny --locked --lock my.lock\n" in told


@pytest.mark.slow
def test_locking_again_changes_nothing(tiny: World) -> None:
    tiny.run("lock", "tiny")
    before = (tiny.root / lockfile.NAME).read_bytes()
    assert tiny.json("lock", "tiny")["lock"]["changed"] is False
    assert tiny.json("lock")["lock"]["recipes"] == ["tiny"]
    assert (tiny.root / lockfile.NAME).read_bytes() == before
    tiny.run("lock", "--check")
    move(tiny)
    error = refused(tiny, "lock", "--check")
    assert error["code"] == "lock-stale"
    assert (tiny.root / lockfile.NAME).read_bytes() == before


def test_words_that_ask_for_something_else_are_refused(tiny: World) -> None:
    tiny.run("lock", "tiny", "--ref", "main", "--env", "X=1")
    cases = (
        (("--ref", "other"), "--ref other: the lock has main"),
        (("--arch", "12.0f"), "--arch 12.0f: the lock has 12.1a"),
        (("--set", "build.strip=all"), "--set build.strip=all: the lock has none"),
        (("--env", "X=2"), "--env X=2: the lock has 1"),
        (("--pr", "7"), "--pr 7: the lock has none"),
        (("--repo", "https://user:secret@example.org/x"), "--repo https://example.org/x: the lock has file:///"),
        (("--output", "more"), "--output more: the lock has none"),
        (("--source", str(tiny.root / "tiny")), f"--source {tiny.root / 'tiny'}: the lock has none"),
        (("--version", "2.0"), "--version 2.0: the lock has 1.0"),
    )
    for number, (words, told) in enumerate(cases):
        error = refused(tiny, "recipe", "tiny", *words, "--frozen" if number % 2 else "--locked")
        assert error["code"] == "lock-stale"
        assert error["cause"].startswith(f"tiny: {told}")
        assert "\n" not in error["cause"]
        assert error["run"][0].startswith("spark-build lock tiny ")
        assert "secret" not in json.dumps(error)


@pytest.mark.slow
def test_words_that_mean_what_is_locked_are_taken(tiny: World) -> None:
    tiny.run("lock", "tiny")
    commit = tiny.git(tiny.root / "tiny", "rev-parse", "HEAD")
    python = f"{table(tiny)['target']['python'][2:3]}.{table(tiny)['target']['python'][3:]}"
    for words in (
        ("--ref", "main"),
        ("--ref", commit[:9]),
        ("--output", "tiny"),
        ("--arch", "12.1a"),
        ("--python", python),
    ):
        tiny.run("recipe", "tiny", "--locked", "--plan", *words, code=10)


def test_a_changed_recipe_is_refused_and_frozen_does_not_look(tiny: World) -> None:
    tiny.run("lock", "tiny")
    for more, name in (
        ("[build]\nstrip = 'all'\n", "build"),
        ("[build.env]\nX = '1'\n", "build"),
        ("[[arch-map]]\narch = '12.1a'\nto = ['12.0f']\n", "arch-map"),
        ("[version]\nenv = 'X'\n", "version"),
    ):
        tiny.tiny_recipe(more=f"{more}\n[about]\nsummary = 'new'\n[resources]\njobs = 1\n")
        error = refused(tiny, "recipe", "tiny", "--locked")
        assert (error["code"], error["cause"]) == ("lock-stale", f"tiny: [{name}] of the recipe was changed since")
    tiny.run("recipe", "tiny", "--frozen", "--plan", code=10)


def test_what_this_machine_and_tree_are_is_held_against_the_lock(tiny: World) -> None:
    """As if the lock came from elsewhere: the words fit, what is found doesn't."""
    tiny.run("lock", "tiny")
    path = tiny.root / lockfile.NAME
    good = lockfile.read(path).recipes["tiny"]
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"target": {**good.target, "machine": "riscv64"}}, "tiny: machine: riscv64 → "),
        ({"target": {**good.target, "python": "cp399"}}, "tiny: python: cp399 → "),
        ({"target": {**good.target, "cuda": "13.9"}}, "tiny: cuda: 13.9 → none"),
        ({"arch": ("12.0f",)}, "tiny: arch of the project: 12.0f → 12.1a"),
        ({"outputs": ("tiny", "more")}, "tiny: outputs: tiny, more → tiny"),
        ({"patches": {"one": HEX}}, "tiny: patch one is gone"),
        ({"nested": entry().nested}, "tiny: nested source llvm is gone"),
        ({"replaced": {"ptxas": HEX}}, "tiny: path in place of ptxas is gone"),
        ({"torch": entry().torch}, "tiny: torch is gone (2.14.0 (index))"),
    )
    for number, (change, told) in enumerate(cases):
        lockfile.write(path, lock(replace(good, **change)))
        words = ("plan", "tiny") if number % 2 else ("recipe", "tiny", "--plan")
        error = refused(tiny, *words, "--locked")
        assert error["code"] == "lock-stale"
        assert error["cause"].startswith(told)
        tiny.run(*words, "--frozen", code=10)


@pytest.mark.slow
def test_what_never_counts_in_a_wheel_may_change(tiny: World) -> None:
    tiny.run("lock", "tiny")
    tiny.tiny_recipe(more="[about]\nsummary = 'new'\n[resources]\njobs = 1\n[[check]]\nkind = 'size'\nmax = '1MiB'\n")
    tiny.run("recipe", "tiny", "--locked")


def test_what_is_found_otherwise_than_locked_is_refused(tiny: World) -> None:
    """Variables of the site count, too: the lock brings those of its day, and a new one is a difference."""
    tiny.config.mkdir(exist_ok=True)
    (tiny.config / "config.toml").write_text('[build]\nenv = { SITE = "1" }\n')
    tiny.run("lock", "tiny")
    (tiny.config / "config.toml").write_text('[build]\nenv = { MORE = "1" }\n')
    error = refused(tiny, "recipe", "tiny", "--locked")
    assert error["cause"] == "tiny: variable MORE is new (1)"
    (tiny.config / "config.toml").unlink()
    tiny.run("recipe", "tiny", "--locked")


def test_no_secret_gets_into_a_lock(tiny: World) -> None:
    words = ("--env", "MY_TOKEN=hunter2", "--env", "INDEX=https://me:hunter2@example.org/simple")
    tiny.run("lock", "tiny", *words)
    assert "hunter2" not in (tiny.root / lockfile.NAME).read_text()
    error = refused(tiny, "recipe", "tiny", "--locked")
    assert "--env MY_TOKEN: its value isn't written into locks" in error["cause"]
    tiny.run("recipe", "tiny", "--locked", *words)
    error = refused(tiny, "lock")
    assert "--env MY_TOKEN: its value isn't written into locks" in error["cause"]


def test_a_secret_of_a_stack_file_is_given_again_and_one_of_the_site_is_known(tiny: World) -> None:
    tiny.config.mkdir(exist_ok=True)
    (tiny.config / "config.toml").write_text('[build]\nenv = { SITE_TOKEN = "hunter2" }\n')
    head = 'schema = 1\nname = "set"\n[[member]]\nrecipe = "tiny"\n[recipe.tiny.build.env]\n'
    url = "https://me:hunter2@example.org/simple"
    (tiny.root / "stack.toml").write_text(f'{head}MY_TOKEN = "hunter2"\nINDEX = "{url}"\nX = "1"\n')
    tiny.run("lock", "stack.toml")
    text = (tiny.root / lockfile.NAME).read_text()
    assert "hunter2" not in text
    assert 'X = "1"' in text
    tiny.run("stack", "--locked", "--plan", code=10)
    error = refused(tiny, "recipe", "tiny", "--frozen")
    assert "--set build.env.MY_TOKEN: its value isn't written into locks" in error["cause"]
    again = ("--set", "build.env.MY_TOKEN=hunter2", "--set", f"build.env.INDEX={url}")
    tiny.run("recipe", "tiny", "--locked", "--plan", *again, code=10)
    (tiny.config / "config.toml").unlink()
    error = refused(tiny, "stack", "--locked")
    assert "--env SITE_TOKEN: its value isn't written into locks" in error["cause"]
    assert error["run"] == ["spark-build lock stack.toml"]


def test_a_recipe_that_is_not_in_the_lock_and_no_lock_at_all_are_told(tiny: World) -> None:
    assert refused(tiny, "recipe", "tiny", "--locked")["code"] == "lock-missing"
    tiny.run("lock", "tiny")
    tiny.tiny_repo("other")
    tiny.tiny_recipe("other")
    error = refused(tiny, "recipe", "other", "--frozen")
    assert (error["code"], error["run"]) == ("lock-stale", ["spark-build lock other"])
    tiny.run("lock", "other")
    assert sorted(one["name"] for one in tomllib.loads((tiny.root / lockfile.NAME).read_text())["recipe"]) == [
        "other",
        "tiny",
    ]
    assert refused(tiny, "recipe", "tiny", "--locked", "--relock")["code"] == "usage"
    assert refused(tiny, "recipe", "tiny", "--lock", "x")["code"] == "usage"


@pytest.mark.slow
def test_a_local_folder_that_has_changed_is_not_what_was_locked(tiny: World) -> None:
    folder = tiny.root / "tiny"
    tiny.run("lock", "tiny", "--source", str(folder))
    tiny.run("recipe", "tiny", "--locked")
    (folder / "src" / "__init__.py").write_text("VALUE = 3\n")
    error = refused(tiny, "recipe", "tiny", "--locked")
    assert error["cause"].startswith("tiny: source: ")
    (frozen,) = tiny.json("recipe", "tiny", "--frozen")["wheels"]
    (plain,) = tiny.json("recipe", "tiny", "--source", str(folder))["wheels"]
    assert frozen["fingerprint"] == plain["fingerprint"]


def cut(world: World, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no network at all."""
    done = subprocess.run(
        ["unshare", "-rn", str(COMMAND), *words],
        env=world.env(),
        cwd=world.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs network namespaces",
)
def test_frozen_and_offline_builds_without_a_network_and_without_upstream(tiny: World) -> None:
    tiny.run("lock", "tiny")
    tiny.run("fetch", "tiny")
    move(tiny)
    (tiny.root / "tiny").rename(tiny.root / "gone")
    wheel = Path(cut(tiny, "recipe", "tiny", "--offline", "--frozen").stdout.strip())
    assert wheel.is_file()
    (tiny.root / "sources" / "git").rename(tiny.root / "hidden")
    tiny.run("wheels", "rm", wheel.name, "--yes")
    error = json.loads(cut(tiny, "recipe", "tiny", "--offline", "--frozen", "--force", "--json", code=4).stdout)[
        "error"
    ]
    assert error["code"] == "offline-unknown"


def test_a_lock_holds_on_a_machine_that_has_seen_nothing(tiny: World, tmp_path: Path) -> None:
    """Another home, wheelhouse and store of sources; the same lock and recipes give the same fingerprint."""
    tiny.run("lock", "tiny")
    (first,) = tiny.json("recipe", "tiny", "--locked")["wheels"]
    move(tiny)
    elsewhere = {
        "SPARK_BUILD_WHEELHOUSE": str(tmp_path / "house2"),
        "SPARK_BUILD_SOURCES": str(tmp_path / "sources2"),
    }
    (second,) = tiny.json("recipe", "tiny", "--locked", code=0, **elsewhere)["wheels"]
    assert (second["fingerprint"], second["commit"]) == (first["fingerprint"], first["commit"])


@pytest.mark.slow
def test_a_commit_condition_holds_for_a_locked_source_that_was_never_fetched(tiny: World, tmp_path: Path) -> None:
    """Whether the pinned commit has another one behind it is asked of its history, which has to be there for that."""
    first = tiny.git(tiny.root / "tiny", "rev-parse", "HEAD")
    move(tiny)
    tiny.tiny_recipe(more=f'when = {{ contains = "{first}" }}\n')
    tiny.run("lock", "tiny")
    tiny.run("recipe", "tiny", "--locked", "--plan", SPARK_BUILD_SOURCES=str(tmp_path / "sources2"), code=10)


def test_what_a_recipe_builds_on_is_locked_with_it(tiny: World) -> None:
    tiny.tiny_repo("upper")
    tiny.recipe(
        "upper",
        f"""
        schema = 1
        name = "upper"
        builds-on = ["tiny"]
        [[source]]
        kind = "git"
        url = "{(tiny.root / "upper").as_uri()}"
        ref = "main"
        [[output]]
        name = "upper"
        """,
    )
    tiny.run("lock", "upper")
    before = {one["recipe"]: one["commit"] for one in tiny.json("recipe", "upper", "--locked")["wheels"]}
    move(tiny)
    move(tiny, "upper")
    after = {one["recipe"]: one["commit"] for one in tiny.json("recipe", "upper", "--locked")["wheels"]}
    assert before == after == {name: table(tiny, name)["source"]["commit"] for name in ("tiny", "upper")}


def with_index(world: World, *versions: str) -> str:
    for version in versions:
        tiny_wheel(world.root / "index" / "helper", "helper", version)
    return index_pages(world.root / "index")


def test_build_requirements_stay_at_version_and_hash(world: World) -> None:
    folder = world.tiny(extra="import helper")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("requires = []", 'requires = ["helper"]'))
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    world.tiny_recipe()
    index = {"SPARK_BUILD_INDEX_URL": with_index(world, "1.0"), "UV_CACHE_DIR": str(world.root / "uv")}
    world.run("lock", "tiny", code=0, **index)
    (package,) = table(world)["requires"][0]["package"]
    assert (package["name"], package["version"], len(package["sha256"])) == ("helper", "1.0", 1)
    with_index(world, "2.0")
    clean = index | {"SPARK_BUILD_WHEELHOUSE": str(world.root / "house2"), "UV_CACHE_DIR": str(world.root / "uv2")}
    (held,) = world.json("recipe", "tiny", "--locked", code=0, **clean)["wheels"]
    inputs = json.loads(world.run("wheels", "show", held["sha256"][:12], "--inputs", code=0, **clean).stdout)
    assert [one["version"] for one in inputs["requires"]["tiny"]] == ["1.0"]
    tiny_wheel(world.root / "index" / "helper", "helper", "1.0", more="Summary: other bytes\n")
    with_index(world)
    other = clean | {"SPARK_BUILD_WHEELHOUSE": str(world.root / "house3"), "UV_CACHE_DIR": str(world.root / "uv3")}
    assert refused(world, "recipe", "tiny", "--frozen", code=4, **other)["code"] == "requirement-hash"


@pytest.mark.slow
def test_what_a_backend_asks_for_while_it_builds_is_told_and_then_locked(world: World) -> None:
    folder = world.tiny(extra="import helper")
    backend = folder / "backend.py"
    backend.write_text(backend.read_text().replace("    return []", '    return ["helper>=1"]', 1))
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    world.tiny_recipe()
    index = {"SPARK_BUILD_INDEX_URL": with_index(world, "1.0"), "UV_CACHE_DIR": str(world.root / "uv")}
    assert "lock once more" in world.run("lock", "tiny", code=0, **index).stderr
    error = refused(world, "recipe", "tiny", "--locked", code=2, **index)
    assert (error["code"], error["run"]) == ("lock-stale", ["spark-build lock tiny"])
    assert "helper>=1" in error["cause"]
    assert "helper in the build of tiny is new (1.0)" in world.run("lock", "tiny", code=0, **index).stderr
    world.run("recipe", "tiny", "--locked", code=0, **index)
    fresh = index | {"SPARK_BUILD_WHEELHOUSE": str(world.root / "house2")}
    world.run("recipe", "tiny", "--locked", code=0, **fresh)


def test_nested_sources_are_locked_with_digest_and_size(world: World, tmp_path: Path) -> None:
    """The digest of the first use holds: other bytes under the same URL are refused, without a network nothing is asked."""
    archive = world.root / "far" / "data.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(tar_of({"data/x": "1"}))
    world.tiny_repo(extra='assert pathlib.Path(os.environ["HOME"], ".cache", "data.tar.gz").is_file()')
    fetch = 'id = "data"\nkind = "archive"\nplace = "${home}/.cache/${file}"'
    world.tiny_recipe(more=f'[[fetch]]\n{fetch}\nurl = "{archive.as_uri()}"\n')
    world.run("lock", "tiny")
    (nested,) = table(world)["nested"]
    assert nested["tree"] == f"sha256:{sha256(archive.read_bytes())}"
    assert nested["size"] == archive.stat().st_size
    archive.write_bytes(tar_of({"data/x": "2"}))
    far = {"SPARK_BUILD_SOURCES": str(tmp_path / "sources2"), "SPARK_BUILD_WHEELHOUSE": str(tmp_path / "house2")}
    for flag in ("--locked", "--frozen"):
        assert refused(world, "recipe", "tiny", flag, code=4, **far)["code"] == "hash-mismatch"
    archive.unlink()
    world.run("recipe", "tiny", "--offline", "--frozen")
    error = refused(world, "recipe", "tiny", "--offline", "--frozen", code=4, **far)
    assert error["code"] in {"offline-unknown", "nested-missing", "not-found"}


@pytest.mark.slow
def test_a_released_source_stays_at_its_file(world: World, tmp_path: Path) -> None:
    """An index that gives other bytes for the version later is told; a newer version is never taken."""
    folder = world.tiny()
    files = {f"tiny-1.0/{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    sdist = world.root / "index" / "tiny" / "tiny-1.0.tar.gz"
    sdist.parent.mkdir(parents=True)
    sdist.write_bytes(tar_of(files))
    index = {"SPARK_BUILD_INDEX_URL": index_pages(world.root / "index")}
    source = '[[source]]\nkind = "sdist"\nproject = "tiny"\nversion = "1.0"\n'
    world.recipe("tiny", f'schema = 1\nname = "tiny"\n{source}[[output]]\nname = "tiny"\n')
    world.run("lock", "tiny", code=0, **index)
    source_table = table(world)["source"]
    assert (source_table["tree"], source_table["size"]) == (
        f"sha256:{sha256(sdist.read_bytes())}",
        sdist.stat().st_size,
    )
    world.run("recipe", "tiny", "--locked", "--version", "1.0", code=0, **index)
    sdist.write_bytes(tar_of(files | {"tiny-1.0/more": "1"}))
    index_pages(world.root / "index")
    far = {"SPARK_BUILD_SOURCES": str(tmp_path / "sources2"), "SPARK_BUILD_WHEELHOUSE": str(tmp_path / "house2")}
    assert refused(world, "recipe", "tiny", "--frozen", code=4, **index, **far)["code"] == "hash-mismatch"
    sdist.unlink()
    world.run("recipe", "tiny", "--offline", "--frozen", code=0, **index)


def test_two_processes_lock_into_one_file(tiny: World) -> None:
    names = ["tiny", "two", "three"]
    for name in names[1:]:
        tiny.tiny_repo(name)
        tiny.tiny_recipe(name)
    running = [
        subprocess.Popen(
            [str(COMMAND), "lock", name], env=tiny.env(), cwd=tiny.root, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in names
    ]
    for process in running:
        _out, err = process.communicate()
        assert process.returncode == 0, err
    assert sorted(lockfile.read(tiny.root / lockfile.NAME).recipes) == sorted(names)


def test_a_damaged_lock_is_refused_and_never_written_over(tiny: World) -> None:
    tiny.run("lock", "tiny")
    path = tiny.root / lockfile.NAME
    damaged = path.read_text().replace('ref = "main"', 'ref = "mine"')
    path.write_text(damaged)
    for words in (("recipe", "tiny", "--frozen"), ("recipe", "tiny", "--locked"), ("lock", "tiny"), ("lock",)):
        assert refused(tiny, *words)["code"] == "lock-damaged"
    assert path.read_text() == damaged


@pytest.mark.slow
def test_a_lock_in_a_folder_that_cannot_be_written_is_an_error_of_the_host(tiny: World) -> None:
    if os.geteuid() == 0:
        assert refused(tiny, "lock", "tiny", "--lock", "/proc/spark.lock", code=3)["code"] in {"system", "unwritable"}
    assert refused(tiny, "lock", "tiny", "--lock", "no/such/folder.lock")["code"] == "usage"


@pytest.mark.slow
def test_a_build_that_failed_is_resumed_from_its_lock(world: World) -> None:
    """`resume` gives the commit of then, and the lock answers to that, too."""
    go = world.root / "go"
    world.tiny_repo(extra=f'assert os.path.exists({str(go)!r}), "not yet"')
    world.tiny_recipe()
    world.run("lock", "tiny")
    world.run("recipe", "tiny", "--locked", code=1)
    commit = world.git(world.root / "tiny", "rev-parse", "HEAD")
    move(world)
    go.touch()
    (wheel,) = world.json("resume")["wheels"]
    assert wheel["commit"] == commit
