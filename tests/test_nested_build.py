"""What a tree pulls in, from recipe to wheel: pinned out of the tree, brought in once, given back with no network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

UPSTREAM = "https://upstream.example"

#: A build as many are: it clones one source and downloads another unless it finds its own earlier download.
BUILD = f"""
import json, pathlib, subprocess, urllib.request
pins = json.loads(pathlib.Path("pins.json").read_text())
subprocess.run(["git", "clone", "-q", "--no-checkout", "{UPSTREAM}/kernels.git", "kernels"], check=True)
subprocess.run(["git", "-C", "kernels", "checkout", "-q", pins["kernels"]], check=True)
subprocess.run(["git", "-C", "kernels", "submodule", "-q", "update", "--init", "--recursive"], check=True)
url = f"{UPSTREAM}/blobs-{{pins['blobs']}}.tar.gz"
cache = pathlib.Path.home() / ".blobs"
stamp = cache / "version.txt"
if not stamp.exists() or stamp.read_text() != url:
    urllib.request.urlopen(url)
parts = [pathlib.Path("kernels/a.txt"), pathlib.Path("kernels/deep/b.txt"), cache / "blob.txt"]
pathlib.Path("src/__init__.py").write_text("".join(part.read_text() for part in parts))
"""

RECIPE = """
    schema = 1
    name = "puller"

    [[source]]
    kind = "git"
    url = "{repo}"
    ref = "main"

    [[output]]
    name = "puller"

    [[fetch]]
    id = "kernels"
    kind = "git"
    url = "{upstream}/kernels.git"
    ref = "${{rev}}"
    submodules = "all"
    pin = [{{ file = "pins.json", json = "kernels", name = "rev" }}]

    [[fetch]]
    id = "blobs"
    kind = "archive"
    url = "{upstream}/blobs-${{tag}}.tar.gz"
    pin = [{{ file = "pins.json", json = "blobs", name = "tag" }}]
    place = "${{home}}/.blobs"
    unpack = true
    strip = 1
    stamp = {{ "version.txt" = "${{url}}" }}
"""


def repository(world: World, folder: Path, **files: str) -> str:
    """Commit `files` (dots for ``__``) to a repository and return the commit."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        world.git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "more")
    return world.git(folder, "rev-parse", "HEAD")


def blobs(world: World, tag: str, text: str) -> Path:
    """Make the archive that upstream offers under `tag`, its one folder in front."""
    folder = world.root / f"blobs-{tag}"
    folder.mkdir()
    (folder / "blob.txt").write_text(text)
    file = world.root / "mirror" / f"blobs-{tag}.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        archive.add(folder, folder.name)
    return file


@pytest.fixture
def puller(world: World) -> World:
    """A project that pulls in a repository with a submodule and an archive; upstream's host exists only as a mirror."""
    mirror = world.root / "mirror"
    repository(world, mirror / "deep", b__txt="B = 2\n")
    repository(world, mirror / "kernels", a__txt="A = 1\n")
    world.git(
        mirror / "kernels", "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(mirror / "deep"), "deep"
    )
    modules = f'[submodule "deep"]\n\tpath = deep\n\turl = {UPSTREAM}/deep.git\n'
    commit = repository(world, mirror / "kernels", __gitmodules=modules)
    blobs(world, "1", "C = 3\n")
    world.tiny_repo("puller", extra=BUILD)
    pins = {"kernels": commit, "blobs": "1"}
    repository(world, world.root / "puller", pins__json=json.dumps(pins))
    (world.config / "config.toml").write_text(f'[mirrors]\n"{UPSTREAM}/" = "{mirror}/"\n')
    world.recipe("puller", RECIPE.format(repo=(world.root / "puller").as_uri(), upstream=UPSTREAM))
    return world


def module(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("puller/__init__.py").decode()


def inputs(wheel: Path) -> dict[str, dict[str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("spark-build/inputs.json")]
        return {one["id"]: one for one in json.loads(archive.read(name))["nested"]}


def test_a_build_finds_all_that_it_would_download(puller: World) -> None:
    plan = puller.run("recipe", "puller", "--plan", code=10).stdout
    assert "2 sources that the tree pulls in" in plan
    (wheel,) = puller.wheels("puller")
    assert module(wheel) == "A = 1\nB = 2\nC = 3\n"
    known = inputs(wheel)
    archive = (puller.root / "mirror" / "blobs-1.tar.gz").read_bytes()
    assert known["blobs"]["tree"] == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert known["kernels"]["commit"] == puller.git(puller.root / "mirror" / "kernels", "rev-parse", "HEAD")
    assert puller.wheels("puller") == [wheel]


def test_a_moved_pin_is_another_build_and_why_names_it(puller: World) -> None:
    (first,) = puller.wheels("puller")
    blobs(puller, "2", "C = 4\n")
    pins = json.loads((puller.root / "puller" / "pins.json").read_text())
    repository(puller, puller.root / "puller", pins__json=json.dumps(pins | {"blobs": "2"}))
    told = puller.run("why", "puller").stdout
    assert "nested source blobs" in told
    (second,) = puller.wheels("puller")
    assert second != first
    assert module(second).endswith("C = 4\n")


def test_nothing_is_needed_from_the_network_twice(puller: World) -> None:
    puller.run("fetch", "puller")
    (puller.root / "mirror").rename(puller.root / "gone")
    (wheel,) = puller.wheels("puller", "--offline")
    assert module(wheel) == "A = 1\nB = 2\nC = 3\n"


def test_what_is_missing_offline_is_named_with_the_command_that_brings_it(puller: World) -> None:
    puller.run("fetch", "puller")
    (archive,) = (puller.root / "sources" / "files").glob("*/blobs-1.tar.gz")
    archive.unlink()
    mirror = (puller.root / "mirror").rename(puller.root / "gone")  # a mirror in a folder is no network
    told = puller.run("recipe", "puller", "--offline", code=4).stderr
    assert "blobs" in told
    assert "fetch.blobs.path" in told
    assert "spark-build fetch puller" in told
    mirror.rename(puller.root / "mirror")
    puller.run("fetch", "puller")
    puller.run("recipe", "puller", "--offline")


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs mount namespaces",
)
def test_sources_that_can_only_be_read_are_enough(puller: World) -> None:
    puller.run("fetch", "puller")
    sources = puller.root / "sources"
    words = f'mount --bind {sources} {sources} && mount -o remount,bind,ro {sources} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", words, "sh", str(COMMAND), "recipe", "puller", "--offline"],
        env=puller.env(),
        cwd=puller.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert module(puller.root / done.stdout.strip()) == "A = 1\nB = 2\nC = 3\n"


def test_the_command_that_brings_it_asks_for_the_same_source(puller: World) -> None:
    puller.git(puller.root / "puller", "tag", "then")
    puller.run("lock", "puller", "--ref", "then", "--lock", "then.lock")
    pins = json.loads((puller.root / "puller" / "pins.json").read_text())
    repository(puller, puller.root / "puller", pins__json=json.dumps(pins | {"blobs": "2"}))
    (archive,) = (puller.root / "sources" / "files").glob("*/blobs-1.tar.gz")
    archive.unlink()
    mirror = (puller.root / "mirror").rename(puller.root / "gone")
    for words in (["--ref", "then"], ["--frozen", "--lock", "then.lock"]):
        error = puller.json("recipe", "puller", "--offline", *words, code=4)["error"]
        assert error["run"] == [" ".join(["spark-build fetch puller", *words])]
    mirror.rename(puller.root / "mirror")
    puller.run("fetch", "puller", "--frozen", "--lock=then.lock")
    assert archive.exists()


def test_another_can_be_put_in_its_place_and_counts(puller: World) -> None:
    (first,) = puller.wheels("puller")
    other = puller.root / "other"
    other.mkdir()
    (other / "blob.txt").write_text("C = 5\n")
    (other / "version.txt").write_text(f"{UPSTREAM}/blobs-1.tar.gz")
    (second,) = puller.wheels("puller", "--set", f"fetch.blobs.path={other}")
    assert module(second).endswith("C = 5\n")
    assert second != first
    assert "replaced" in inputs(second)["blobs"]
    (other / "blob.txt").write_text("C = 6\n")
    (third,) = puller.wheels("puller", "--set", f"fetch.blobs.path={other}")
    assert module(third).endswith("C = 6\n")


def test_a_pin_that_isnt_where_the_recipe_says_is_told(puller: World) -> None:
    pins = json.loads((puller.root / "puller" / "pins.json").read_text())
    repository(puller, puller.root / "puller", pins__json=json.dumps({"kernels": pins["kernels"], "blob": "1"}))
    told = puller.run("recipe", "puller", code=2).stderr
    assert "pins.json" in told
    assert "blobs" in told


def test_a_hit_reads_no_pin_again(puller: World) -> None:
    puller.run("recipe", "puller")
    done = puller.run("recipe", "puller", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "builder.pipeline.resolve" in imported
    assert not {"builder.source.nested", "builder.source.given", "builder.source.crates"} & imported


def test_a_compiler_that_is_too_old_is_told_before_anything_is_fetched(world: World) -> None:
    world.recipe(
        "modern",
        """
        schema = 1
        name = "modern"
        [[source]]
        kind = "git"
        url = "https://upstream.invalid/modern"
        ref = "main"
        [system]
        gcc = ">=99"
        [[output]]
        name = "modern"
        """,
    )
    told = world.run("recipe", "modern", code=3).stderr
    assert "g++" in told
    assert "upstream.invalid" not in told
    assert "upstream.invalid" in world.run("fetch", "modern", code=4).stderr


def test_a_plan_says_what_this_machine_lacks(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe(more='[system]\ngcc = ">=99"\n')
    told = world.run("plan", "tiny", code=10).stdout
    assert "not on this machine: g++ >=99 is needed" in told


def test_a_lock_that_lacks_what_the_tree_pulls_in_is_told_even_frozen(puller: World) -> None:
    whole = (puller.recipes / "puller.toml").read_text()
    first, _blobs, second = whole.rpartition("[[fetch]]")
    puller.recipe("puller", first)
    puller.run("lock", "puller")
    puller.recipe("puller", f"{first}[[fetch]]{second}")
    told = puller.run("recipe", "puller", "--frozen", code=2).stderr
    assert "lock-stale" in told
    assert "blobs" in told
    puller.run("lock", "puller")
    puller.run("recipe", "puller", "--frozen")
