"""The tree itself: pages, increments, and what happens to files that aren't ours."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag

import pytest

from builder import index
from builder.errors import HostError, UsageError, WheelhouseError
from builder.wheelhouse import Wheelhouse, reindex
from tests import wheelhouse_kit as kit
from tests.index_kit import Page, load, snapshot
from tests.wheel_kit import LABEL, open_house, publish, set_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.errors import SparkError
    from builder.stages import Stored
    from tests.world import World

MANIFEST = ".spark-build-index"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with open_house(tmp_path / "wheelhouse") as opened:
        yield opened


def stamps(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*.*") if path.name != MANIFEST}


def bare(root: Path) -> dict[str, bytes]:
    """What an export has in common with the wheelhouse's own index, which no web server shows."""
    return {
        path: data
        for path, data in snapshot(root).items()
        if path.startswith(("simple/", "files/")) and not path.endswith((".gz", ".provenance.json"))
    }


def caught_as(kind: type[SparkError], call: Callable[[], object]) -> SparkError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


# --- pages


def test_pages_say_what_the_catalogue_says(tmp_path: Path, house: Wheelhouse) -> None:
    one = publish(house, tmp_path, "Tiny.Name", version="1.0+cu130", headers=["Requires-Python: >=3.9,<4"])
    set_state(house, publish(house, tmp_path, "Tiny.Name", version="2.0"), "yanked")
    for state in ("quarantined", "unpublished"):
        set_state(house, publish(house, tmp_path, "Tiny.Name", version=f"3.{len(state)}"), state)
    publish(house, tmp_path, "other")
    dest = index.export(house, tmp_path / "dest").path

    root = Page(dest / "simple" / "index.html")
    assert root.links == [("other", {"href": "other/"}), ("tiny-name", {"href": "tiny-name/"})]
    assert root.meta["pypi:repository-version"] == "1.4"
    listed = load(dest / "simple" / "index.v1_json")
    assert listed == {"meta": {"api-version": "1.4"}, "projects": [{"name": "other"}, {"name": "tiny-name"}]}

    folder = dest / "simple" / "tiny-name"
    page, entries = Page(folder / "index.html"), load(folder / "index.v1_json")
    assert page.meta["pypi:repository-version"] == entries["meta"]["api-version"] == "1.4"
    assert entries["name"] == "tiny-name"
    assert entries["versions"] == [f"1.0+{LABEL}.cu130", f"2.0+{LABEL}"]
    assert [text for text, _ in page.links] == [entry["filename"] for entry in entries["files"]]
    for (_, attributes), entry in zip(page.links, entries["files"], strict=True):
        url, fragment = urldefrag(attributes["href"])
        assert url == entry["url"]
        assert "+" not in url
        assert "%2B" in url
        assert not url.startswith(("/", "http", "file"))
        file = folder / unquote(url)
        assert file.resolve().is_relative_to(dest.resolve())
        data, metadata = file.read_bytes(), file.with_name(file.name + ".metadata").read_bytes()
        assert fragment == f"sha256={hashlib.sha256(data).hexdigest()}"
        assert entry["hashes"] == {"sha256": hashlib.sha256(data).hexdigest()}
        assert entry["size"] == len(data)
        digest = hashlib.sha256(metadata).hexdigest()
        assert entry["core-metadata"] == {"sha256": digest}
        assert attributes["data-core-metadata"] == f"sha256={digest}"
        assert time.strptime(entry["upload-time"], "%Y-%m-%dT%H:%M:%SZ")
    first, second = entries["files"]
    assert first["filename"] == one.filename
    assert first["requires-python"] == page.links[0][1]["data-requires-python"] == ">=3.9,<4"
    assert "requires-python" not in second
    assert "data-requires-python" not in page.links[1][1]
    assert [entry["yanked"] for entry in entries["files"]] == [False, True]
    assert ["data-yanked" in attributes for _, attributes in page.links] == [False, True]
    assert "&gt;=3.9,&lt;4" in (folder / "index.html").read_text()


def test_project_of_which_all_is_withheld_keeps_an_empty_page(tmp_path: Path, house: Wheelhouse) -> None:
    set_state(house, publish(house, tmp_path), "quarantined")
    dest = index.export(house, tmp_path / "dest").path
    assert Page(dest / "simple" / "tiny" / "index.html").links == []
    assert load(dest / "simple" / "tiny" / "index.v1_json")["files"] == []
    assert not (dest / "files").exists()


def test_nothing_in_a_file_name_or_header_can_leave_its_attribute(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path, headers=["Requires-Python: >=3\"><script>alert('&')</script>"])
    dest = index.export(house, tmp_path / "dest").path
    ((_, attributes),) = Page(dest / "simple" / "tiny" / "index.html").links
    assert attributes["data-requires-python"] == ">=3\"><script>alert('&')</script>"
    assert "<script" not in (dest / "simple" / "tiny" / "index.html").read_text()


def test_channels_list_their_own(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path, "one", channel="team/stable")
    publish(house, tmp_path, "two")
    assert index.export(house, tmp_path / "a", channel="team/stable").projects == ("one",)
    assert index.export(house, tmp_path / "b").projects == ("two",)
    error = caught_as(UsageError, lambda: index.export(house, tmp_path / "c", channel="stable"))
    assert error.code == "channel-missing"
    assert "local, team/stable" in error.cause


# --- increments


def test_wheels_are_linked(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path)
    done = index.export(house, tmp_path / "dest")
    assert (tmp_path / "dest" / "files" / wheel.sha256 / wheel.filename).samefile(wheel.path)
    assert (done.written.linked, done.written.copied) == (1, 0)


def test_unchanged_files_are_not_touched(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path, "one")
    publish(house, tmp_path, "two")
    dest = tmp_path / "dest"
    index.export(house, dest)
    before = stamps(dest)
    again = index.export(house, dest).written
    assert stamps(dest) == before
    assert (again.linked, again.copied, again.pages, again.sidecars, again.removed) == (0, 0, 0, 0, 0)
    publish(house, tmp_path, "two", version="2.0")
    more = index.export(house, dest).written
    assert (more.linked, more.pages, more.sidecars) == (1, 4, 2)
    changed = {path.relative_to(dest).parts[1] for path, stamp in stamps(dest).items() if before.get(path) != stamp}
    assert "one" not in changed
    assert "index.html" not in changed


def test_what_is_no_longer_listed_goes_and_what_is_not_ours_stays(tmp_path: Path, house: Wheelhouse) -> None:
    gone, kept = publish(house, tmp_path, "gone"), publish(house, tmp_path, "kept")
    dest = tmp_path / "dest"
    index.export(house, dest)
    note, page = dest / "README.txt", dest / "simple" / "kept" / "notes.html"
    beside = dest / "simple" / "gone" / "notes.html"
    for file in (note, page, beside):
        file.write_text("mine")
    house.remove(gone)
    done = index.export(house, dest)
    assert done.written.removed == 3
    assert not (dest / "files" / gone.sha256).exists()
    assert Page(dest / "simple" / "gone" / "index.html").links == []  # a name that was ours is never anybody else's
    assert (dest / "files" / kept.sha256 / kept.filename).is_file()
    assert {file.read_text() for file in (note, page, beside)} == {"mine"}


def test_damaged_tree_is_mended(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path)
    dest = tmp_path / "dest"
    index.export(house, dest)
    whole = snapshot(dest)
    file = dest / "files" / wheel.sha256 / wheel.filename
    file.unlink()
    file.write_bytes(b"short")
    file.with_name(file.name + ".metadata").unlink()
    (dest / "simple" / "index.html").write_text("oops")
    index.export(house, dest)
    assert snapshot(dest) == whole


def test_folder_with_other_things_is_refused(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest = tmp_path / "home"
    dest.mkdir()
    (dest / "thesis.txt").write_text("mine")
    error = caught_as(UsageError, lambda: index.export(house, dest))
    assert error.code == "not-an-index"
    assert "thesis.txt" in error.cause
    assert error.run == (f"spark-build index export {dest}/index",)
    assert [path.name for path in dest.iterdir()] == ["thesis.txt"]


def test_manifest_can_not_name_files_outside(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest, precious = tmp_path / "dest", tmp_path / "precious"
    index.export(house, dest)
    precious.write_text("mine")
    (dest / "mine").write_text("mine")
    evil = [
        "../precious",
        str(precious),
        "mine",
        f"files/{'0' * 64}/../../mine",
        "simple/../index.html",
        "simple/../mine",
    ]
    with (dest / MANIFEST).open("a") as stream:
        stream.write("\n".join([*evil, f"files/{'0' * 64}/..", ""]))
    index.export(house, dest)
    assert precious.is_file()
    assert (dest / "mine").is_file()


@pytest.mark.parametrize("kind", ["simple", "wheel", "unknown"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path, house: Wheelhouse, kind: str) -> None:
    wheel = publish(house, tmp_path)
    dest, precious = index.export(house, tmp_path / "dest").path, tmp_path / "precious"
    precious.mkdir()
    (precious / "index.html").write_text("mine")
    folder = {"simple": "simple/tiny", "wheel": f"files/{wheel.sha256}", "unknown": f"files/{'0' * 64}"}[kind]
    if (dest / folder).exists():
        (dest / folder).rename(tmp_path / "before")
    (dest / folder).symlink_to(precious)
    with (dest / MANIFEST).open("a") as stream:
        stream.write(f"{folder}/index.html\n")
    publish(house, tmp_path, "base")
    with pytest.raises(UsageError, match="symbolic link") as caught:
        index.export(house, dest)
    assert caught.value.run == (f"rm {dest / folder}",)
    assert [path.name for path in precious.iterdir()] == ["index.html"]
    assert (precious / "index.html").read_text() == "mine"
    assert not (dest / "simple" / "base").exists()
    (dest / folder).unlink()
    index.export(house, dest)
    assert Page(dest / "simple" / "tiny" / "index.html").links


@pytest.mark.parametrize("folder", ["index", "wheels/new", "new/below"])
def test_no_export_goes_into_the_wheelhouse(tmp_path: Path, house: Wheelhouse, folder: str) -> None:
    publish(house, tmp_path)
    before = sorted(house.root.rglob("*"))
    (tmp_path / "link").symlink_to(house.root)
    for root in (house.root, tmp_path / "link"):
        with pytest.raises(UsageError, match="in the wheelhouse"):
            index.export(house, root / folder)
    assert sorted(house.root.rglob("*")) == before


def test_index_of_a_newer_format_is_left_alone(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest = tmp_path / "dest"
    index.export(house, dest)
    (dest / MANIFEST).write_text("spark-build index, format 99\n\n")
    before = snapshot(dest)
    assert caught_as(UsageError, lambda: index.export(house, dest)).code == "index-newer"
    assert snapshot(dest) == before


# --- what can't be listed


def _other_bytes(wheel: Stored) -> None:
    data = bytearray(wheel.path.read_bytes())
    data[40] ^= 1
    wheel.path.write_bytes(data)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    points = []

    def mounted(name: str, options: str) -> Path:
        point = tmp_path / name
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], check=True)
        points.append(point)
        return point

    yield mounted
    for point in points:
        subprocess.run(["umount", str(point)], check=True)


@pytest.mark.root
def test_copy_of_other_bytes_is_refused_and_nothing_lists_it(
    tmp_path: Path, house: Wheelhouse, mount: Callable[..., Path]
) -> None:
    wheel = publish(house, tmp_path)
    _other_bytes(wheel)
    dest = mount("dest", "size=1m")
    error = caught_as(WheelhouseError, lambda: index.export(house, dest))
    assert (error.code, error.exit_code) == ("wheel-changed", 6)
    assert wheel.filename in error.summary
    assert not (dest / "simple").exists()
    assert not list(dest.rglob("*.whl"))


def test_short_or_missing_wheel_is_refused(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path)
    os.truncate(wheel.path, 10)
    assert caught_as(WheelhouseError, lambda: index.export(house, tmp_path / "d")).code == "wheel-changed"
    wheel.path.unlink()
    error = caught_as(WheelhouseError, lambda: index.export(house, tmp_path / "d"))
    assert (error.code, error.cause) == ("wheel-missing", str(wheel.path))


@pytest.mark.root
def test_another_file_system_gets_copies(tmp_path: Path, house: Wheelhouse, mount: Callable[..., Path]) -> None:
    wheel = publish(house, tmp_path)
    dest = mount("stick", "size=1m")
    written = index.export(house, dest).written
    assert (written.linked, written.copied, written.copied_bytes) == (0, 1, wheel.size)
    assert (dest / "files" / wheel.sha256 / wheel.filename).read_bytes() == wheel.path.read_bytes()


@pytest.mark.root
def test_full_disk_leaves_the_old_pages_whole_and_is_gone_on_from(
    tmp_path: Path, house: Wheelhouse, mount: Callable[..., Path]
) -> None:
    publish(house, tmp_path, "small")
    dest = mount("stick", "size=256k")
    index.export(house, dest)
    before = snapshot(dest)
    publish(house, tmp_path, "large", files={"large.bin": os.urandom(1 << 20)})
    error = caught_as(HostError, lambda: index.export(house, dest))
    assert (error.code, error.exit_code) == ("disk-full", 3)
    assert snapshot(dest) == before
    subprocess.run(["mount", "-o", "remount,size=4m", str(dest)], check=True)
    index.export(house, dest)
    assert bare(dest) == bare(index.export(house, tmp_path / "fresh").path)


@pytest.mark.root
def test_unwritable_folder_says_so(tmp_path: Path, house: Wheelhouse, mount: Callable[..., Path]) -> None:
    publish(house, tmp_path)
    dest = mount("cd", "size=1m,ro")
    for folder in (dest, dest / "below"):
        error = caught_as(HostError, lambda folder=folder: index.export(house, folder))  # type: ignore[misc]
        assert (error.code, error.exit_code) == ("unwritable", 3)
        assert str(folder) in error.summary
    (tmp_path / "file").write_text("")
    assert caught_as(HostError, lambda: index.export(house, tmp_path / "file")).code == "unwritable"


# --- the wheelhouse's own index


def test_refresh_follows_every_change_and_is_idle_without_one(tmp_path: Path, house: Wheelhouse) -> None:
    own = house.root / "index"
    assert index.refresh(house) == own
    assert Page(own / "simple" / "index.html").links == []
    wheel = publish(house, tmp_path)
    index.refresh(house)
    assert (own / "files" / wheel.sha256 / wheel.filename).samefile(wheel.path)
    manifest, before = (own / MANIFEST).stat().st_ino, stamps(own)
    index.refresh(house)
    house.remember("lock", "x", {})  # a change that no page shows
    index.refresh(house)
    assert (manifest, before) == ((own / MANIFEST).stat().st_ino, stamps(own))
    set_state(house, wheel, "yanked")
    index.refresh(house)
    assert "data-yanked" in Page(own / "simple" / "tiny" / "index.html").links[0][1]
    house.remove(wheel)
    index.refresh(house)
    assert Page(own / "simple" / "tiny" / "index.html").links == []
    assert Page(own / "simple" / "index.html").links == []
    assert not (own / "files").exists()


def test_refresh_sees_a_catalogue_that_was_made_anew(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    index.refresh(house)
    whole, state = snapshot(house.root / "index"), (house.root / "index" / MANIFEST).read_text().split("\n")[1]
    house.close()
    reindex.reindex(house.root, clock=time.time)
    with open_house(house.root) as again:
        index.refresh(again)
    assert snapshot(house.root / "index") == whole
    assert (house.root / "index" / MANIFEST).read_text().split("\n")[1] != state


def test_refresh_leaves_out_a_lost_file_until_it_is_back(tmp_path: Path, house: Wheelhouse) -> None:
    lost = publish(house, tmp_path, "lost")
    index.refresh(house)
    away = lost.path.replace(tmp_path / "away")
    publish(house, tmp_path, "good")
    index.refresh(house)
    own = house.root / "index" / "simple"
    assert Page(own / "lost" / "index.html").links == []
    assert len(Page(own / "good" / "index.html").links) == 1
    away.replace(lost.path)
    index.refresh(house)
    assert len(Page(own / "lost" / "index.html").links) == 1


def test_refresh_of_read_only_media_changes_nothing(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    house.catalogue.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    with Wheelhouse.open(house.root, clock=time.time, read_only=True) as still:
        assert index.refresh(still) == house.root / "index"
        assert not (house.root / "index").exists()
        assert index.export(still, tmp_path / "dest").wheels == 1


_REFRESH = """
import sys, time
from pathlib import Path
from builder import index
from builder.wheelhouse import Wheelhouse
with Wheelhouse.open(Path(sys.argv[1]), clock=time.time) as house:
    for _ in range(int(sys.argv[2])):
        index.refresh(house)
"""

_PUBLISH = """
import sys, time
from pathlib import Path
from builder import index
from tests.wheel_kit import open_house, publish
with open_house(Path(sys.argv[1])) as house:
    print(flush=True)
    for number in range(int(sys.argv[3])):
        publish(house, Path(sys.argv[2]), Path(sys.argv[2]).name, version=f"1.{number}")
        index.refresh(house)
"""


def _start(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_publish_and_refresh_at_once(tmp_path: Path, house: Wheelhouse) -> None:
    running = [_start(_PUBLISH, house.root, tmp_path / f"p{number}", 12) for number in range(3)]
    running.append(_start(_REFRESH, house.root, 100))
    for process in running:
        _out, err = process.communicate()
        assert process.returncode == 0, err
    own = house.root / "index"
    assert [len(Page(own / "simple" / f"p{number}" / "index.html").links) for number in range(3)] == [12, 12, 12]
    assert bare(own) == bare(index.export(house, tmp_path / "fresh").path)


def test_kill_at_any_moment_is_repaired_by_the_next_refresh(tmp_path: Path, house: Wheelhouse) -> None:
    own, listed = house.root / "index", set[str]()
    for number in range(12):
        process = _start(_PUBLISH, house.root, tmp_path / f"k{number}", 1000)
        assert process.stdout is not None
        process.stdout.readline()  # from here on it publishes
        time.sleep(0.037 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        with open_house(house.root) as again:  # as the next command would
            index.refresh(again)
            listed = {wheel.filename for wheel in again.list_wheels()}
        shown = {text for page in own.glob("simple/*/index.html") for text, _ in Page(page).links}
        assert shown == listed
    assert listed  # publishes were under way
    assert not list(own.rglob(".new"))
    assert bare(own) == bare(index.export(house, tmp_path / "fresh").path)


def test_leftovers_of_a_killed_first_run_are_no_obstacle(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path)
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / ".new").write_text("half a manifest")
    index.export(house, dest)
    left = dest / "files" / wheel.sha256 / ".new"
    left.write_bytes(b"half a copy")
    house.remove(wheel)
    index.export(house, dest)
    assert not left.exists()
    assert not (dest / "files").exists()


# --- the command


def test_command_prints_the_url_and_json(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    done = world.run("index", "export", "out dir")
    url = (world.root / "out dir" / "simple").as_uri() + "/"
    assert done.stdout == f"{url}\n"
    assert "1 wheels of 1 projects: 1 linked" in done.stderr
    assert f"--default-index {url}" in done.stderr
    value = world.json("index", "export", "out dir", "--wheelhouse", str(world.wheelhouse))
    assert value["version"] == 1
    assert value["index"]["url"] == url
    assert (value["index"]["wheels"], value["index"]["linked"], value["index"]["copied"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("words", "code", "slug"),
    [
        (("index", "export", "full"), 2, "not-an-index"),
        (("index", "export", "new", "--channel", "none"), 2, "channel-missing"),
        (("index", "export", "new", "--wheelhouse", "nowhere"), 2, "wheelhouse-missing"),
        (("index", "export"), 2, "usage"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, world: World, words: tuple[str, ...], code: int, slug: str) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    (world.root / "full").mkdir()
    (world.root / "full" / "x").write_text("")
    assert world.json(*words, code=code)["error"]["code"] == slug
    assert not (world.root / "new").exists() or not any((world.root / "new").iterdir())


# --- bytes that were changed in place


def flip(path: Path) -> None:
    """Change one byte, and leave the size as it is."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_wheel_with_a_changed_byte_is_no_hit_is_never_exported_and_is_built_again(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (path,) = world.wheels("tiny")
    whole = path.read_bytes()
    flip(path)
    planned = world.json("plan", "tiny", code=10)["plans"][0]
    assert planned["reasons"] == [f"the stored wheel was changed: {path.name}"]
    assert f"because    the stored wheel was changed: {path.name[:20]}" in world.run("plan", "tiny", code=10).stdout
    refused = world.run("index", "export", str(world.root / "out"), code=6)
    assert "wheel-changed" in refused.stderr
    assert not list((world.root / "out").rglob("*.whl"))
    (again,) = world.wheels("tiny")
    assert again.read_bytes() == whole
    (listed,) = (world.wheelhouse / "index" / "files").rglob("*.whl")
    assert listed.read_bytes() == whole
    path.unlink()
    assert world.json("plan", "tiny", code=10)["plans"][0]["reasons"] == [f"the stored wheel is gone: {path.name}"]


def test_a_wheel_with_another_time_is_read_once_and_stays_a_hit(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        (stored,) = kit.publish(house, [kit.wheel(tmp_path)])
        os.utime(stored.path, ns=(1, 1))
        assert house.find("f" * 64) == (stored,)
        flip(stored.path)
        os.utime(stored.path, ns=(1, 1))
        # As kept by now: a stat is all that a hit costs, so this shows that the file wasn't read again.
        assert house.find("f" * 64) == (stored,)
        os.utime(stored.path)
        assert house.find("f" * 64) == ()


def test_a_catalogue_made_anew_keeps_the_times_of_its_files(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        (stored,) = kit.publish(house, [kit.wheel(tmp_path)])
    os.utime(stored.path, ns=(5, 5))
    reindex.reindex(tmp_path / "house", clock=lambda: 1.0)
    with kit.opened(tmp_path / "house") as house:
        assert house.catalogue.rows("SELECT mtime_ns FROM wheels") == [(5,)]


def test_another_file_of_the_same_size_in_the_place_of_a_wheel_is_replaced(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        kit.publish(house, [kit.wheel(tmp_path)])
        first = index.export(house, tmp_path / "out")
        (target,) = (tmp_path / "out" / "files").rglob("*.whl")
        data = target.read_bytes()
        target.unlink()
        target.write_bytes(bytes(len(data)))
        assert index.export(house, tmp_path / "out").written.linked == first.written.linked == 1
        assert target.read_bytes() == data
        assert index.export(house, tmp_path / "out").written.linked == 0
