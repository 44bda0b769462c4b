from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError, UsageError, WheelhouseError
from builder.wheelhouse import Wheelhouse, filesystem
from builder.wheelhouse.reindex import reindex
from builder.wheelhouse.verify import verify
from tests import wheelhouse_kit as kit

if TYPE_CHECKING:
    from builder.errors import SparkError


def refused(code: str, error: SparkError, exit_code: int) -> None:
    assert (error.code, error.exit_code) == (code, exit_code), error
    assert error.run or error.help


# --- publishing


def test_a_publish_is_a_hit_with_all_that_pages_need(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        made = [kit.wheel(tmp_path, "one"), kit.wheel(tmp_path, "two")]
        kit.publish(house, made, inputs={"name": "x"})
        found = house.find("f" * 64)
        assert {one.output for one in found} == {"one", "two"}
        assert house.metadata(found[0].sha256) == made[0].metadata
        record = json.loads(Path(f"{found[0].path}.provenance.json").read_text())
        assert record["subject"] == [{"name": found[0].filename, "digest": {"sha256": found[0].sha256}}]
        assert kit.publish(house, made) == found
    kit.whole(tmp_path / "house")


def test_a_name_never_gets_other_bytes_also_when_the_wheel_is_gone(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        (stored,) = kit.publish(house, [kit.wheel(tmp_path / "a")])
        other = kit.wheel(tmp_path / "b", text=b"other")
        for _turn in range(2):
            with pytest.raises(UsageError) as caught:
                kit.publish(house, [kit.wheel(tmp_path / "a", "new"), other])
            refused("name-taken", caught.value, 2)
            if house.list_wheels():
                house.remove(stored)
        assert kit.publish(house, [kit.wheel(tmp_path / "a")])[0].sha256 == stored.sha256
        assert [one.project for one in house.list_wheels()] == ["tiny"]  # nothing of a refused set


def test_a_wheel_that_changes_after_it_was_judged_isn_t_published(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        judged = kit.wheel(tmp_path)
        judged.path.write_bytes(judged.path.read_bytes() + b"x")
        with pytest.raises(WheelhouseError) as caught:
            kit.publish(house, [judged])
        refused("copy-differs", caught.value, 6)
    assert kit.whole(tmp_path / "house") == {}


def test_a_lost_file_comes_back_with_the_next_build_and_keeps_its_state(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "house") as house:
        (stored,) = kit.publish(house, [kit.wheel(tmp_path)])
        with house.writing(), house.catalogue.transaction() as db:
            db.execute("UPDATE wheels SET state='yanked'")
        stored.path.unlink()
        assert kit.publish(house, [kit.wheel(tmp_path)])[0].state == "yanked"
        assert house.get(stored.filename).created == stored.created
    kit.whole(tmp_path / "house")


def test_an_unpublished_wheel_is_published_by_publishing_it(tmp_path: Path) -> None:
    folder = tmp_path / "house" / "wheels" / "tiny"
    with kit.opened(tmp_path / "house"):
        kit.make_wheel(folder)
    reindex(tmp_path / "house", clock=time.time)
    with kit.opened(tmp_path / "house") as house:
        assert house.get("tiny-1.0-py3-none-any.whl").state == "unpublished"
        assert house.list_wheels() == ()
        kit.publish(house, [kit.wheel(folder)], fingerprint="a" * 64)
        assert [one.output for one in house.find("a" * 64)] == ["tiny"]
    kit.whole(tmp_path / "house")


# --- several processes

SETS = """
import pathlib, sys
from tests import wheelhouse_kit as kit
root, dist, own = map(pathlib.Path, sys.argv[1:])
with kit.opened(root) as house:
    for number in range(8):
        for names, fingerprint in ((("a", "b"), f"{number:064x}"), ((own.name,), f"{own.name:0>64}")):
            made = [kit.wheel(dist / own.name, name, f"{number}.0") for name in names]
            for one in kit.publish(house, made, fingerprint=fingerprint, inputs={"n": number}):
                print(one.path, one.sha256)
        house.remember("lock", f"{own.name}{number}", {"n": number})
        print("first", fingerprint[:4], house.first_planned(fingerprint))
"""


def test_processes_that_publish_the_same_and_other_sets_at_once_agree(tmp_path: Path) -> None:
    """The wheelhouse doesn't exist yet: they make it at once, too."""
    root = tmp_path / "house"
    processes = [kit.child(SETS, str(root), str(tmp_path / "dist"), str(tmp_path / f"p{n}")) for n in range(3)]
    outs = [kit.finished(one).splitlines() for one in processes]
    paths = [{line for line in out if line.startswith("/") and ("/a/" in line or "/b/" in line)} for out in outs]
    assert paths[0] == paths[1] == paths[2]
    assert len(paths[0]) == 16
    assert len(kit.whole(root)) == 16 + 3 * 8
    seqs = [json.loads(line)["seq"] for line in (root / "journal.jsonl").read_text().splitlines()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_labels_of_plans_of_one_second_differ_in_time(tmp_path: Path) -> None:
    with Wheelhouse.open(tmp_path, clock=lambda: 1_700_000_000.5) as house:
        times = [house.first_planned(f"{number:064x}") for number in range(3)]
        assert times == [1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0]
        assert house.first_planned(f"{0:064x}") == times[0]


def test_the_catalogue_held_by_another_process_is_waited_for_and_named(tmp_path: Path) -> None:
    made = kit.wheel(tmp_path)
    kit.opened(tmp_path / "house").close()
    code = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
    holder = kit.child(code, str(tmp_path / "house" / "catalog.sqlite3"), stdin=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with kit.opened(tmp_path / "house", busy_s=0.2) as house:
        with pytest.raises(HostError) as caught:
            kit.publish(house, [made])
        refused("catalogue-locked", caught.value, 3)
        with pytest.raises(HostError):
            house.remember("a", "b", {})
        assert house.list_wheels() == ()
        assert not list((tmp_path / "house" / "wheels").rglob("*.whl"))
        kit.finished(holder)
        kit.publish(house, [made])
        assert house.recall("a", "b") is None
    kit.whole(tmp_path / "house")


# --- making the catalogue anew


def lived_in(root: Path) -> None:
    """Leave a wheelhouse in which all happened that can happen."""
    with kit.opened(root) as house:
        for number in range(4):
            made = [kit.wheel(root.parent / "dist", name, f"{number}.0") for name in ("zeta", "alpha")]
            kit.publish(house, made, fingerprint=f"{number:064x}", inputs={"name": "x", "n": number})
            house.first_planned(f"{number:064x}")
            house.remember("lock", f"k{number}", {"text": "ä" * 100, "b": [1, {"c": None}]})
        house.remember("lock", "k1", {"again": True})
        kit.publish(house, [kit.wheel(root.parent / "dist", "gone")], fingerprint="", channel="stable")
        house.remove(house.get("gone-1.0-py3-none-any.whl"))
        time.sleep(0.01)
        kit.publish(house, [kit.wheel(root.parent / "dist", "other")], fingerprint="", channel="stable")
        kit.publish(house, [kit.wheel(root.parent / "dist", "hidden")], fingerprint="", channel=None)
        house.remove(house.get("zeta-0.0-py3-none-any.whl"))
        house.remove(house.get("zeta-3.0-py3-none-any.whl"))
        kit.publish(
            house,
            [kit.wheel(root.parent / "dist", "zeta", "3.0")],
            fingerprint=f"{3:064x}",
            inputs={"name": "x", "n": 3},
        )


def test_a_deleted_catalogue_comes_back_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "house"
    lived_in(root)
    before = kit.contents(root)
    assert all(before.values())
    with kit.opened(root) as house:
        listing = house.list_wheels(include_unpublished=True)
        times = [house.first_planned(f"{number:064x}") for number in range(4)]
    for file in root.glob("catalog.sqlite3*"):
        file.unlink()
    with pytest.raises(WheelhouseError) as caught:
        kit.opened(root)
    refused("catalogue-missing", caught.value, 6)
    report = reindex(root, clock=time.time)
    assert (report.listed, report.unpublished, report.left_out, report.missing) == (len(listing), (), (), ())
    assert kit.contents(root) == before
    with kit.opened(root) as house:
        assert house.list_wheels(include_unpublished=True) == listing
        assert [house.first_planned(f"{number:064x}") for number in range(4)] == times
        assert house.taken("zeta-0.0-py3-none-any.whl", "0" * 64)
        assert verify(house) == ()


def test_files_that_nobody_published_come_back_unpublished_and_bad_ones_not(tmp_path: Path) -> None:
    root = tmp_path / "house"
    lived_in(root)
    wheels = root / "wheels"
    kit.make_wheel(wheels / "stranger", "stranger")
    kit.make_wheel(wheels / "wrong-folder", "stray")
    kit.make_wheel(wheels / "zeta", "zeta", "0.0", text=b"the name stands for other bytes")
    kit.make_wheel(wheels / "liar", "liar", record=b"liar/__init__.py,sha256=AAAA,1\n")
    (wheels / "alpha" / "alpha-1.0-py3-none-any.whl").write_bytes(b"changed")
    (wheels / "alpha" / "alpha-2.0-py3-none-any.whl").unlink()
    shutil.copy(wheels / "other" / "other-1.0-py3-none-any.whl", wheels / "other" / "other-1.0-1-py3-none-any.whl")
    report = reindex(root, clock=time.time)
    assert report.unpublished == ("stranger-1.0-py3-none-any.whl",)
    assert report.missing == ("alpha-2.0-py3-none-any.whl",)
    assert {text.split(":")[0] for text in report.left_out} == {
        "stray-1.0-py3-none-any.whl",
        "zeta-0.0-py3-none-any.whl",
        "liar-1.0-py3-none-any.whl",
        "alpha-1.0-py3-none-any.whl",
        "other-1.0-1-py3-none-any.whl",
    }
    with kit.opened(root) as house:
        assert house.get("stranger-1.0-py3-none-any.whl").state == "unpublished"


def test_others_that_have_the_catalogue_open_go_on_with_the_new_one(tmp_path: Path) -> None:
    root = tmp_path / "house"
    with kit.opened(root) as old:
        kit.publish(old, [kit.wheel(tmp_path, "one")])
        reindex(root, clock=time.time)
        with kit.opened(root) as new:
            kit.publish(new, [kit.wheel(tmp_path, "two")], fingerprint="a" * 64)
            assert [one.project for one in old.list_wheels()] == ["one"]  # whole, and as it was
            kit.publish(old, [kit.wheel(tmp_path, "three")], fingerprint="b" * 64)
            assert {one.project for one in old.list_wheels()} == {"one", "two", "three"}
            reindex(root, clock=time.time)
            old.close()  # the last of its file: SQLite must not take the new one's -wal away
            kit.publish(new, [kit.wheel(tmp_path, "four")], fingerprint="c" * 64)
    assert len(kit.whole(root)) == 4


@pytest.mark.parametrize("damage", ["head", "cut", "empty", "middle", "not a database"])
def test_a_damaged_catalogue_is_named_and_mended_by_reindex(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "house"
    lived_in(root)
    before = kit.contents(root)
    file = root / "catalog.sqlite3"
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = file.read_bytes()
    file.write_bytes(
        {
            "head": b"\0" * 100 + data[100:],
            "cut": data[: len(data) // 2],
            "empty": b"",
            "middle": data[:4096] + os.urandom(len(data) - 8192) + data[-4096:],
            "not a database": b"x" * 10_000,
        }[damage]
    )
    with pytest.raises(WheelhouseError) as caught:
        kit.read_all(root)
    refused("catalogue-damaged", caught.value, 6)
    assert caught.value.run == ("spark-build wheels reindex",)
    reindex(root, clock=time.time)
    assert kit.contents(root) == before
    kit.whole(root)


def test_a_damaged_journal_keeps_the_old_catalogue_and_reindex_goes_on_without_its_bad_line(tmp_path: Path) -> None:
    root = tmp_path / "house"
    lived_in(root)
    journal = root / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    bad = next(number for number, line in enumerate(lines) if b"publish.begin" in line)
    lines[bad] = lines[bad].replace(b"publish.begin", b"publish.began")
    journal.write_bytes(b"".join(lines))
    before = kit.contents(root)
    with pytest.raises(WheelhouseError) as caught:
        reindex(root, clock=time.time)
    refused("journal-damaged", caught.value, 6)
    assert kit.contents(root) == before
    subprocess.run(["sh", "-c", caught.value.run[0]], check=True)
    report = reindex(root, clock=time.time)
    assert report.unpublished == ("alpha-0.0-py3-none-any.whl",)  # only that line knew it
    with kit.opened(root) as house:
        kit.publish(house, [kit.wheel(tmp_path / "dist", "more")])


def test_a_catalogue_of_a_newer_version_isn_t_touched(tmp_path: Path) -> None:
    kit.opened(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(WheelhouseError) as caught:
        kit.opened(tmp_path)
    refused("catalogue-version", caught.value, 6)


# --- verify


def test_verify_names_each_kind_of_damage_and_its_cure(tmp_path: Path) -> None:
    root = tmp_path / "house"
    lived_in(root)
    wheels = root / "wheels"
    with kit.opened(root) as house:
        assert verify(house) == ()
        target = wheels / "alpha" / "alpha-0.0-py3-none-any.whl"
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
        (wheels / "alpha" / "alpha-1.0-py3-none-any.whl").unlink()
        (wheels / "alpha" / "alpha-2.0-py3-none-any.whl.provenance.json").unlink()
        (wheels / "alpha" / "alpha-3.0-py3-none-any.whl.provenance.json").write_text('{"subject": {"sha256": "0"}}')
        kit.make_wheel(wheels / "new", "new")
        with house.writing(), house.catalogue.transaction() as db:
            db.execute("UPDATE wheels SET metadata='x' WHERE project='zeta' AND version='1.0'")
            db.execute("UPDATE wheels SET metadata_sha256='0' WHERE project='zeta' AND version='2.0'")
        found = {(one.path.name, one.kind) for one in verify(house)}
        assert found == {
            ("alpha-0.0-py3-none-any.whl", "changed"),
            ("alpha-1.0-py3-none-any.whl", "missing"),
            ("alpha-2.0-py3-none-any.whl.provenance.json", "sidecar"),
            ("alpha-3.0-py3-none-any.whl.provenance.json", "sidecar"),
            ("new-1.0-py3-none-any.whl", "unlisted"),
            ("catalog.sqlite3", "catalogue"),
            ("zeta-2.0-py3-none-any.whl", "metadata"),
        }
        assert all(one.run for one in verify(house))
        only = [house.get("zeta-3.0-py3-none-any.whl")]
        assert verify(house, only) == ()


# --- places


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/u/w", "ext4"),
        ("/data/w", "nfs4"),
        ("/data", "nfs4"),
        ("/database/w", "ext4"),
        ("/data/local/w", "xfs"),
        ("/with blank/w", "fuse.sshfs"),
        ("/twice/w", "9p"),
        ("/bind/w", "virtiofs"),
    ],
)
def test_the_type_of_a_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    text = "\n".join(  # noqa: FLY002  # a line each
        [
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
            "30 22 0:40 / /data rw shared:2 master:3 - nfs4 host:/x rw",
            "31 30 8:2 / /data/local rw - xfs /dev/sdb rw",
            r"32 22 0:41 / /with\040blank rw - fuse.sshfs u@h:/ rw",
            "33 22 8:3 / /twice rw - ext4 /dev/sdc rw",
            "34 22 0:42 / /twice rw - 9p share rw",
            "35 22 0:43 /sub/folder /bind rw - virtiofs tag rw",
            "a line that is none",
        ]
    )
    assert filesystem.type_of(Path(path), text) == kind
    assert (kind in filesystem.NETWORK) == (kind not in {"ext4", "xfs"})


def test_a_network_file_system_is_refused_with_the_way_out() -> None:
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [Path(fields[1]) for fields in mounts if fields[2] in filesystem.NETWORK]
    if not places:
        pytest.skip("no network file system is mounted here")
    with pytest.raises(HostError) as caught:
        kit.opened(places[0] / "wheelhouse")
    refused("network-filesystem", caught.value, 3)
    assert "index export" in caught.value.run[0]


READ = """
import pathlib, sys
from tests import wheelhouse_kit as kit
with kit.opened(pathlib.Path(sys.argv[1])) as house:
    print(house.read_only, [one.project for one in house.list_wheels()], house.first_planned("9" * 64) > 0)
    house.remember("a", "b", {})
"""


@pytest.mark.root
def test_a_wheelhouse_of_somebody_else_is_read_while_they_write(readable: Path) -> None:
    with kit.opened(readable / "house") as house:
        kit.publish(house, [kit.wheel(readable, "one")])  # still in the -wal
        assert (readable / "house" / "catalog.sqlite3-wal").stat().st_size
        assert kit.finished(kit.child(READ, str(readable / "house"), prefix=kit.NOBODY)) == "True ['one'] True\n"
    assert kit.finished(kit.child(READ, str(readable / "house"), prefix=kit.NOBODY)) == "True ['one'] True\n"


@pytest.mark.root
def test_what_is_only_in_a_left_wal_is_seen_on_read_only_media(readable: Path) -> None:
    """Copied to a stick while it was open, or after a kill: without its -shm."""
    with kit.opened(readable / "house") as house:
        kit.publish(house, [kit.wheel(readable, "one")])
        shutil.copytree(readable / "house", readable / "stick")
    (readable / "stick" / "catalog.sqlite3-shm").unlink()
    assert (readable / "stick" / "catalog.sqlite3-wal").stat().st_size
    assert kit.finished(kit.child(READ, str(readable / "stick"), prefix=kit.NOBODY)) == "True ['one'] True\n"


@pytest.mark.root
def test_a_read_only_mount_is_opened_immutable(readable: Path) -> None:
    with kit.opened(readable / "house") as house:
        kit.publish(house, [kit.wheel(readable, "one")])
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, "sh", str(readable / "house")]
    assert kit.finished(kit.child(READ, str(readable / "house"), prefix=prefix)) == "True ['one'] True\n"


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A folder that other users can get to."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp/pytest-of-root"):  # noqa: S108
            folder.chmod(0o755)
    return tmp_path


@pytest.mark.root
@pytest.mark.parametrize("place", ["house", "new", "file/house"])
def test_a_place_that_can_t_be_written_is_exit_3(readable: Path, place: str) -> None:
    (readable / "file").write_text("")
    kit.opened(readable / "house").close()
    code = """
import pathlib, sys
from builder.errors import SparkError
from tests import wheelhouse_kit as kit
try:
    with kit.opened(pathlib.Path(sys.argv[1])) as house:
        kit.publish(house, [kit.read.inspect(pathlib.Path(sys.argv[2]))])
except SparkError as error:
    print(error.code, error.exit_code, bool(error.run or error.help))
"""
    out = kit.finished(kit.child(code, str(readable / place), str(kit.make_wheel(readable)), prefix=kit.NOBODY))
    assert out == "unwritable 3 True\n"
    assert kit.whole(readable / "house") == {}


# --- full disks


@pytest.mark.root
def test_a_disk_that_fills_up_anywhere_in_a_publish_leaves_nothing_half(tmp_path: Path) -> None:
    """From no room at all to room for all of it, 4 KiB more each time: wheel, record, journal, catalogue, in turn."""
    failed, done = 0, 0
    made = [kit.wheel(tmp_path / "dist", name, size=9_000) for name in ("a", "b")]
    with kit.small_disk(tmp_path / "disk", "1m") as disk:
        kit.opened(disk / "house").close()
        for leave in itertools.count(0, 4096):
            with kit.opened(disk / "house") as house:
                before = kit.contents(disk / "house")
                ballast = kit.fill(disk, leave=leave)
                try:
                    kit.publish(house, made, inputs={"text": "x" * 6000})
                except HostError as error:
                    refused("disk-full", error, 3)
                    failed += 1
                    ballast.unlink()
                    assert house.list_wheels() == ()
                else:
                    done += 1
                    ballast.unlink()
            listed = kit.whole(disk / "house")
            assert bool(listed) == bool(done)
            if done:
                break
            assert kit.contents(disk / "house") == before
        assert failed > 5
        report = reindex(disk / "house", clock=time.time)
        assert report.listed == 2


@pytest.mark.root
def test_a_disk_that_is_full_when_it_is_opened_says_so(tmp_path: Path) -> None:
    with kit.small_disk(tmp_path / "disk", "1m") as disk:
        kit.opened(disk / "house").close()
        ballast = kit.fill(disk)
        with pytest.raises(HostError) as caught:
            kit.opened(disk / "house")
        refused("disk-full", caught.value, 3)
        assert caught.value.run == ("spark-build gc",)
        with pytest.raises(HostError) as caught:
            kit.opened(disk / "other")
        refused("disk-full", caught.value, 3)
        ballast.unlink()
        kit.opened(disk / "house").close()
        kit.opened(disk / "other").close()


@pytest.mark.root
def test_what_is_remembered_on_a_full_disk_is_an_error_and_not_half_kept(tmp_path: Path) -> None:
    with kit.small_disk(tmp_path / "disk", "1m") as disk, kit.opened(disk / "house") as house:
        house.remember("k", "a", {"n": 1})
        ballast = kit.fill(disk)
        for text in ("x" * 50_000, "x" * 5000):
            with pytest.raises(HostError) as caught:
                house.remember("k", "a", {"text": text})
            refused("disk-full", caught.value, 3)
        assert house.recall("k", "a") == {"n": 1}
        ballast.unlink()
        house.remember("k", "a", {"n": 2})
        before = kit.contents(disk / "house")
        reindex(disk / "house", clock=time.time)
        assert kit.contents(disk / "house") == before


def test_a_wheelhouse_that_isn_t_there_is_said_where_it_isn_t_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        kit.opened(tmp_path / "none", create=False)
    refused("wheelhouse-missing", caught.value, 2)
    with pytest.raises(UsageError):
        reindex(tmp_path / "none", clock=time.time)
    assert not (tmp_path / "none").exists()
