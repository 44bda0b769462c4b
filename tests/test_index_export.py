"""An export for web servers: all channels, packed pages, records, one step for all pages of a channel, pages for people."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import index
from builder.index import nginx
from builder.wheelhouse import channel
from tests.index_kit import Page, load, snapshot
from tests.wheel_kit import open_house, publish, set_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse
    from tests.world import World

OLD, NEW = "sb20261123101112.gffffffffff", "sb20261124101112.g0000000000"
PROJECTS = [f"p{number}" for number in range(8)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with open_house(tmp_path / "wheelhouse") as opened:
        yield opened


def texts(dest: Path, project: str, folder: str = "simple") -> list[str]:
    return [text for text, _ in Page(dest / folder / project / "index.html").links]


# --- what is in it


def test_what_is_told_to_try_can_be_installed(tmp_path: Path, house: Wheelhouse) -> None:
    set_state(house, publish(house, tmp_path, "aheld"), "quarantined")
    set_state(house, publish(house, tmp_path, "byanked"), "yanked")
    assert index.export(house, tmp_path / "dest").example == ""
    channel.promote(house, "team/x", [publish(house, tmp_path)])
    done = index.export(house, tmp_path / "dest", channel=None)
    assert (done.example, done.projects) == ("tiny", ("aheld", "byanked", "tiny"))


def test_every_page_is_there_packed_too_and_always_the_same(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    one, other = (index.export(house, tmp_path / name).path for name in ("one", "other"))
    pages = [path for path in snapshot(one) if path.startswith("simple/") and not path.endswith(".gz")]
    assert sorted(pages) == sorted(
        f"simple/{folder}index.{kind}" for folder in ("", "tiny/") for kind in ("html", "v1_json")
    )
    for page in pages:
        assert gzip.decompress((one / f"{page}.gz").read_bytes()) == (one / page).read_bytes()
    two, same = snapshot(one), snapshot(other)
    assert two.pop("nginx.conf") != same.pop("nginx.conf")  # it names the folder
    assert two == same


def test_records_and_signatures_lie_beside_their_wheels(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path)
    Path(f"{wheel.path}.provenance.json.sig").write_text("signed")
    dest = index.export(house, tmp_path / "dest").path
    beside = dest / "files" / wheel.sha256 / f"{wheel.filename}.provenance.json"
    assert json.loads(beside.read_bytes())["subject"][0]["digest"]["sha256"] == wheel.sha256
    assert beside.with_name(f"{beside.name}.sig").read_text() == "signed"
    assert index.export(house, dest).written.sidecars == 0


def test_all_channels_lie_as_a_server_has_them(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path, "one")
    publish(house, tmp_path, "two")
    channel.promote(house, "team/stable", [wheel])
    done = index.export(house, tmp_path / "dest", channel=None)
    dest = done.path
    assert (done.channels, done.projects, done.wheels) == (("local", "team/stable"), ("one", "two"), 2)
    folder = dest / "team" / "stable" / "simple"
    assert [name for name, _ in Page(folder / "index.html").links] == ["one"]
    for start in (folder, dest / "simple", dest / "local" / "simple"):
        (entry,) = load(start / "one" / "index.v1_json")["files"]
        assert (start / "one" / entry["url"].replace("%2B", "+")).resolve().samefile(wheel.path)
    # `two` is ours, though this channel lists none: who asks here is not sent on to a stranger.
    assert load(folder / "two" / "index.v1_json")["files"] == []
    assert index.export(house, dest).channels == ("local",)
    assert not (dest / "team").exists()
    assert not (dest / "local").exists()


def test_replaced_builds_leave_the_pages_and_stay_for_locks(tmp_path: Path, house: Wheelhouse) -> None:
    old, new = publish(house, tmp_path, label=OLD), publish(house, tmp_path, label=NEW)
    dest = index.export(house, tmp_path / "dest").path
    assert texts(dest, "tiny") == [new.filename]
    assert (dest / "files" / old.sha256 / old.filename).is_file()
    index.export(house, dest, superseded="list")
    assert texts(dest, "tiny") == [old.filename, new.filename]
    index.export(house, dest, keep=False)
    assert not (dest / "files" / old.sha256).exists()
    set_state(house, new, "quarantined")
    index.export(house, dest)
    assert texts(dest, "tiny") == [old.filename]
    assert not (dest / "files" / new.sha256).exists()


def test_reserved_names_have_an_empty_page(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest = index.export(house, tmp_path / "dest", reserve=["triton", "flashinfer-*"]).path
    assert load(dest / "simple" / "triton" / "index.v1_json")["files"] == []
    assert [name for name, _ in Page(dest / "simple" / "index.html").links] == ["tiny"]
    assert "flashinfer" in (dest / "nginx.conf").read_text()


def test_reserved_names_are_normalised_and_name_no_place(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest = index.export(house, tmp_path / "dest", reserve=["Flash_Attn", "../../out", "a b", "?x", "/etc"]).path
    assert sorted(path.name for path in (dest / "simple").iterdir() if path.is_dir()) == ["flash-attn", "tiny"]
    assert not (tmp_path / "out").exists()


def test_only_pages_of_ours_are_written(tmp_path: Path, house: Wheelhouse) -> None:
    for evil in ("../x", "simple/tiny/index.html", "wheels/../../x", "/etc/x", "notes.txt", "wheels//x"):
        publish(house, tmp_path)
        with pytest.raises(ValueError, match="can lie at"):
            index.export(house, tmp_path / "dest", more=lambda evil=evil: [(evil, b"x")])  # type: ignore[misc]
    assert not (tmp_path / "x").exists()


def test_pages_for_people_come_along_change_and_go(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    first = world.json("index", "export", "out")["index"]
    out = world.root / "out"
    assert "tiny" in (out / "index.html").read_text()
    assert (out / "projects" / "tiny" / "index.html").is_file()
    assert first["pages_written"] > 4
    assert world.json("index", "export", "out")["index"]["pages_written"] == 0
    world.json("index", "export", "out", "--no-pages")
    assert {path.name for path in out.iterdir()} == {"simple", "files", "nginx.conf", ".spark-build-index"}


def test_index_of_an_older_format_is_taken_over(tmp_path: Path, house: Wheelhouse) -> None:
    publish(house, tmp_path)
    dest = index.export(house, tmp_path / "dest").path
    whole = snapshot(dest)
    manifest = dest / ".spark-build-index"
    for old in ("simple/index.json", "simple/tiny/index.json"):
        (dest / old).write_text("{}")
    text = manifest.read_text().replace("format 2", "format 1")
    manifest.write_text(f"{text}simple/index.json\nsimple/tiny/index.json\n")
    index.export(house, dest)
    assert snapshot(dest) == whole


# --- how it changes


def test_a_new_page_is_later_than_the_one_before(tmp_path: Path, house: Wheelhouse) -> None:
    """Web servers make an ETag of seconds and size: the same one for other bytes would keep clients on the old page."""
    page = tmp_path / "dest" / "simple" / "index.html"
    seen = set()
    for number in range(4):  # all in the same second, of the same size
        publish(house, tmp_path, f"p{number}")
        index.export(house, tmp_path / "dest", channel="local")
        found = page.stat()
        seen.add(int(found.st_mtime))
    assert len(seen) == 4


def fill(house: Wheelhouse, folder: Path, number: int) -> list[Stored]:
    return [publish(house, folder, name, version=f"1.{number}") for name in PROJECTS]


def seen_at_once(simple: Path) -> list[set[str]]:
    """What one look at the folder shows of each project, whatever becomes of the folder's name meanwhile."""
    folder = os.open(simple, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = []
        for name in PROJECTS:
            page = os.open(f"{name}/index.v1_json", os.O_RDONLY, dir_fd=folder)
            with os.fdopen(page) as stream:
                found.append({entry["filename"].split("-")[1][:3] for entry in json.load(stream)["files"]})
        return found
    finally:
        os.close(folder)


def test_all_pages_of_a_channel_change_in_one_step(tmp_path: Path, house: Wheelhouse) -> None:
    wheels = fill(house, tmp_path, 0)
    channel.promote(house, "stable", wheels)
    dest = index.export(house, tmp_path / "dest", channel="stable").path
    looks: list[list[set[str]]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            with contextlib.suppress(FileNotFoundError):  # the old folder was taken away under the look: it begins anew
                looks.append(seen_at_once(dest / "simple"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for number in range(1, 6):
            wheels += fill(house, tmp_path, number)
            channel.promote(house, "stable", wheels)
            index.export(house, dest, channel="stable")
    finally:
        ended.set()
        looking.join()
    assert len({len(look[0]) for look in looks}) > 1, "no look saw a change"
    assert [look for look in looks if any(one != look[0] for one in look)] == []


def test_what_is_not_ours_stays_through_a_swap(tmp_path: Path, house: Wheelhouse) -> None:
    dest = tmp_path / "dest"
    fill(house, tmp_path, 0)
    index.export(house, dest)
    before = (dest / "simple").stat().st_ino
    note, link = dest / "simple" / "notes" / "deep" / "mine.txt", dest / "simple" / "p1" / "link"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    link.symlink_to("nowhere")
    fill(house, tmp_path, 1)
    index.export(house, dest)
    assert (dest / "simple").stat().st_ino != before
    assert note.read_text() == "mine"
    assert os.readlink(link) == "nowhere"  # noqa: PTH115
    assert not (dest / ".spark-build-new").exists()


@pytest.mark.root
def test_where_folders_can_not_be_exchanged_pages_change_one_by_one(tmp_path: Path, house: Wheelhouse) -> None:
    fill(house, tmp_path, 0)
    dest = index.export(house, tmp_path / "dest").path
    before, inside = (dest / "simple").stat().st_ino, dest / "simple" / "mounted"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inside)], check=True)
    try:
        (inside / "mine").write_text("mine")
        fill(house, tmp_path, 1)
        index.export(house, dest)
        assert (dest / "simple").stat().st_ino == before
        assert (inside / "mine").read_text() == "mine"
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    inside.rmdir()
    fresh = snapshot(index.export(house, tmp_path / "fresh").path)
    assert {**snapshot(dest), "nginx.conf": b""} == {**fresh, "nginx.conf": b""}


_EXPORT = """
import sys, time
from pathlib import Path
from builder import index
from builder.wheelhouse import Wheelhouse, channel
with Wheelhouse.open(Path(sys.argv[1]), clock=time.time) as house:
    wheels = channel.members(house, "local")
    print(flush=True)
    while True:
        for name in ("old", "new"):
            index.export(house, Path(sys.argv[2]), channel=name)
"""


def test_a_kill_at_any_moment_leaves_the_old_pages_or_the_new(tmp_path: Path, house: Wheelhouse) -> None:
    old = fill(house, tmp_path, 0)
    channel.promote(house, "old", old)
    channel.promote(house, "new", [*old, *fill(house, tmp_path, 1)])
    dest, either = tmp_path / "dest", [[{"1.0"}] * 8, [{"1.0", "1.1"}] * 8]
    index.export(house, dest, channel="old")
    met: set[bool] = set()
    for number in range(60):
        if number > 12 and met == {True, False}:  # kills met runs in the midst and between
            break
        process = subprocess.Popen(
            [sys.executable, "-c", _EXPORT, str(house.root), str(dest)],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * (number % 13) ** 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        shown = seen_at_once(dest / "simple")
        assert shown in either
        met.add((dest / ".spark-build-new").exists())
        assert _whole(dest)
    assert met == {True, False}, "no kill met a run in the midst, or every one did"
    index.export(house, dest, channel="new")
    assert not (dest / ".spark-build-new").exists()
    fresh = snapshot(index.export(house, tmp_path / "fresh", channel="new").path)
    assert {**snapshot(dest), "nginx.conf": b""} == {**fresh, "nginx.conf": b""}


def _whole(dest: Path) -> bool:
    """Whether every file that a page names is there in full size."""
    for name in PROJECTS:
        for entry in load(dest / "simple" / name / "index.v1_json")["files"]:
            file = dest / "simple" / name / entry["url"].replace("%2B", "+")
            if file.stat().st_size != entry["size"] or not file.with_name(f"{file.name}.metadata").is_file():
                return False
    return True


def test_bytes_are_told_while_wheels_are_brought(tmp_path: Path, house: Wheelhouse) -> None:
    sizes = [wheel.size for wheel in fill(house, tmp_path, 0)]
    told: list[tuple[int, int]] = []
    index.export(house, tmp_path / "dest", tell=lambda done, total: told.append((done, total)))
    assert told[-1] == (sum(sizes), sum(sizes))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("name", ["with space", 'quo"te', "back\\slash"])
def test_nginx_is_told_the_folder_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    text = nginx.text(tmp_path / name)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert f'root "{tmp_path}/{quoted}";' in text
