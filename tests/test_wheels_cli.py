from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.digest import sha256_json
from tests import wheelhouse_kit as kit
from tests.world import COMMAND

if TYPE_CHECKING:
    from tests.world import World

INPUTS = {
    "schema": 1,
    "name": "tiny",
    "source": {"kind": "git", "tree": "git:1", "commit": "c" * 40, "version": "1.0"},
    "patches": [{"id": "fix-one", "sha256": "0" * 64}],
    "requires": {"Tiny_Wheel": []},
}


def added(world: World, name: str = "foreign", version: str = "1.0") -> str:
    return world.run("wheels", "add", str(kit.make_wheel(world.root / "dist", name, version))).stdout.strip()


def test_list_is_one_line_a_wheel_within_80_columns(world: World) -> None:
    own = kit.own_wheel(world.root / "dist", "flashinfer_python", "0.6.14", inputs={**INPUTS, "name": "flashinfer"})
    world.run("wheels", "add", str(own))
    added(world)
    done = world.run("wheels", "list")
    assert done.stderr.split() == ["PROJECT", "VERSION", "SIZE", "AGE", "RECIPE", "STATE"]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["flashinfer-python", "foreign"]
    assert all(len(line) <= 80 for line in lines)
    assert len(world.run("wheels", "list", "Flashinfer.Python").stdout.splitlines()) == 1
    assert "no such wheels" in world.run("wheels", "list", "nothing").stderr
    rows = world.json("wheels", "list")["wheels"]
    assert rows[0]["wheel_version"].startswith("0.6.14+sb")
    assert Path(rows[1]["path"]).exists()


def test_what_isn_t_published_is_listed_with_all_only(world: World) -> None:
    added(world)
    kit.make_wheel(world.wheelhouse / "wheels" / "stranger", "stranger")
    done = world.run("wheels", "reindex")
    assert done.stdout.splitlines() == ["1 wheel listed", "unpublished: stranger-1.0-py3-none-any.whl"]
    assert "stranger" not in world.run("wheels", "list").stdout
    assert "unpublished" in world.run("wheels", "list", "--all").stdout


def test_a_wheel_of_ours_is_filed_under_what_it_says_of_its_making(world: World) -> None:
    own = kit.own_wheel(world.root / "dist", "tiny_wheel", inputs=INPUTS)
    path = world.run("wheels", "add", str(own)).stdout.strip()
    fingerprint = sha256_json(INPUTS)
    shown = world.json("wheels", "show", fingerprint[:8])["wheel"]
    assert (shown["path"], shown["fingerprint"], shown["recipe"]) == (path, fingerprint, "tiny")
    assert (shown["output"], shown["patches"], shown["channels"]) == ("Tiny_Wheel", ["fix-one"], ["local"])
    assert json.loads(world.run("wheels", "show", path, "--inputs").stdout) == INPUTS
    lines = dict(line.split(maxsplit=1) for line in world.run("wheels", "show", path).stdout.splitlines())
    assert lines["source"] == f"commit={'c' * 40} version=1.0 tree=git:1 (claimed by the wheel itself)"
    assert lines["label"].startswith("sb")
    with kit.opened(world.wheelhouse) as house:
        assert [one.output for one in house.find(fingerprint)] == ["Tiny_Wheel"]


def test_a_label_that_isn_t_of_the_inputs_is_refused(world: World) -> None:
    folder = world.root / "dist"
    honest = kit.own_wheel(folder, "tiny_wheel", inputs=INPUTS)
    version = honest.name.split("-")[1]
    for lying in (
        kit.make_wheel(folder / "none", "tiny_wheel", version),
        kit.make_wheel(folder / "other", "tiny_wheel", version, inputs={**INPUTS, "name": "other"}),
        kit.make_wheel(folder / "plain", "tiny_wheel", "1.0", inputs=INPUTS),
    ):
        assert "label-lies" in world.run("wheels", "add", str(lying), code=5).stderr
    assert "wheelhouse-missing" in world.run("wheels", "list", code=2).stderr


def test_add_checks_first_and_never_gives_a_name_other_bytes(world: World) -> None:
    path = added(world)
    again = world.run("wheels", "add", str(world.root / "dist" / Path(path).name))
    assert again.stdout.strip() == path
    assert "the same bytes" in again.stderr
    assert world.json("wheels", "add", path)["wheels"][0]["cached"] is True
    other = kit.make_wheel(world.root / "other", "foreign", text=b"other")
    assert "name-taken" in world.run("wheels", "add", str(other), code=2).stderr
    good = kit.make_wheel(world.root / "dist", "good")
    liar = kit.make_wheel(world.root / "dist", "liar", record=b"liar/__init__.py,sha256=AAAA,1\n")
    world.run("wheels", "add", str(good), str(liar), code=5)
    assert "wheel-missing" in world.run("wheels", "add", str(good), "nothing.whl", code=2).stderr
    assert [row["project"] for row in world.json("wheels", "list")["wheels"]] == ["foreign"]


def test_what_was_added_is_installed_from_the_index_of_the_wheelhouse(world: World) -> None:
    added(world)
    page = world.wheelhouse / "index" / "simple" / "foreign" / "index.html"
    assert "foreign-1.0-py3-none-any.whl" in page.read_text()
    world.run("wheels", "rm", "foreign-1.0-py3-none-any.whl", "--yes")
    assert not page.exists() or "foreign-1.0" not in page.read_text()


def test_the_record_beside_a_wheel_comes_with_it(world: World) -> None:
    path = Path(added(world))
    shutil.copytree(path.parent, world.root / "elsewhere")
    world.run(
        "wheels", "add", str(world.root / "elsewhere" / path.name), SPARK_BUILD_WHEELHOUSE=str(world.root / "two")
    )
    record = json.loads((world.root / "two" / "wheels" / "foreign" / f"{path.name}.provenance.json").read_text())
    assert record["subject"][0]["name"] == path.name


def test_verify_says_what_is_damaged_and_what_to_type(world: World) -> None:
    good, bad = Path(added(world)), Path(added(world, "bad"))
    assert world.run("wheels", "verify").stdout == "2 wheels whole\n"
    bad.write_bytes(bad.read_bytes()[:-1])
    done = world.run("wheels", "verify", code=5)
    assert str(bad) in done.stderr
    assert f"spark-build wheels rm {bad.name} --yes" in done.stderr
    assert str(good) not in done.stderr
    world.run("wheels", "verify", good.name)
    document = world.json("wheels", "verify", code=5)
    found = [(row["kind"], row["path"]) for row in document["findings"] if row["kind"] != "index"]
    assert found == [("changed", str(bad))]
    world.run("wheels", "rm", bad.name, "--yes")
    assert world.json("wheels", "verify")["findings"] == []


def test_verify_misses_what_the_index_lists(world: World) -> None:
    path = Path(added(world))
    page = world.wheelhouse / "index" / "simple" / "foreign" / "index.html"
    (linked,) = (world.wheelhouse / "index" / "files").glob("*/*.whl")
    page.unlink()
    linked.unlink()
    done = world.run("wheels", "verify", code=5)
    assert "2 things" in done.stderr
    assert all(str(one) in done.stderr for one in (page, linked))
    world.run("wheels", "verify", path.name)
    world.run("wheels", "reindex")
    world.run("wheels", "verify")
    assert page.exists()
    page.unlink()
    assert "1 thing in " in (told := world.run("wheels", "verify", code=5).stderr)
    assert "isn't what" in told


def test_rm_without_a_terminal_needs_yes_and_keeps_the_name(world: World) -> None:
    path = Path(added(world))
    refused = world.run("wheels", "rm", path.name, code=2)
    assert f"spark-build wheels rm {path.name} --yes" in refused.stderr
    assert path.exists()
    assert world.run("wheels", "rm", path.name, "--yes").stdout.strip() == str(path)
    assert kit.whole(world.wheelhouse) == {}
    other = kit.make_wheel(world.root / "other", "foreign", text=b"other")
    assert "name-taken" in world.run("wheels", "add", str(other), code=2).stderr
    world.run("wheels", "rm", path.name, "--yes", code=2)


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_rm_asks_on_a_terminal(world: World, answer: str, gone: bool) -> None:  # noqa: FBT001  # a case
    path = Path(added(world))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(COMMAND), "wheels", "rm", path.name], env=world.env(), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(ours, 1000)
    os.write(ours, answer.encode())
    assert process.wait() == 0
    os.close(ours)
    assert path.exists() != gone
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("verb", [("rm", "--yes"), ("verify",), ("show",)])
def test_a_path_counts_by_its_bytes_and_not_by_its_name(world: World, verb: tuple[str, ...]) -> None:
    own = kit.own_wheel(world.root / "dist", "tiny_wheel", inputs=INPUTS)
    stored = Path(world.run("wheels", "add", str(own)).stdout.strip())
    (world.root / "other").mkdir()
    other = Path(shutil.copy(stored, world.root / "other"))
    other.write_bytes(other.read_bytes() + b"\0")
    assert "wheel-other" in world.run("wheels", verb[0], str(other), *verb[1:], code=5).stderr
    assert "wheel-missing" in world.run("wheels", verb[0], f"/nowhere/{stored.name}", *verb[1:], code=2).stderr
    assert stored.is_file()
    shutil.copy(stored, world.root / "other")
    world.run("wheels", verb[0], str(other), *verb[1:])


def test_what_another_channel_names_stays(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        kit.publish(house, [kit.wheel(world.root / "dist")], channel="stable")
    assert "stable" in world.run("wheels", "rm", "tiny-1.0-py3-none-any.whl", "--yes", code=2).stderr
    assert len(kit.whole(world.wheelhouse)) == 1


@pytest.mark.parametrize("ref", ["0123", "nothing.whl", "%", ""])
def test_a_ref_that_names_nothing_is_said(world: World, ref: str) -> None:
    added(world)
    assert "wheel-ref" in world.run("wheels", "show", ref, code=2).stderr


def test_reindex_of_a_damaged_catalogue_mends_it(world: World) -> None:
    added(world)
    listing = world.json("wheels", "list")
    (world.wheelhouse / "catalog.sqlite3").write_bytes(b"x" * 4096)
    for words in (("wheels", "list"), ("wheels", "add", str(world.root / "dist" / "foreign-1.0-py3-none-any.whl"))):
        assert "spark-build wheels reindex" in world.run(*words, code=6).stderr
    assert world.json("wheels", "reindex")["reindexed"]["listed"] == 1
    assert world.json("wheels", "list") == listing
