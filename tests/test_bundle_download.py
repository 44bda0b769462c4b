"""Downloads: gone on with where they stopped, by whatever they were stopped; never twice; never the wrong bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from builder.bundle import download
from builder.bundle.resolve import Piece
from builder.errors import SourceError
from builder.source import Sources
from tests.bundle_kit import HERE, Index, export, serving, stored
from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Event
    from tests.bundle_kit import Served
    from tests.world import World

NAME = "big-1.0-py3-none-any.whl"
SIZE = 3_000_000


class Quiet:
    def emit(self, event: Event) -> None:
        pass


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(
        root=tmp_path / "sources", mirrors=(), index_url=None, offline=False, env={}, clock=time.time, sink=Quiet()
    )


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    made = random.Random(1).randbytes(SIZE)  # noqa: S311  # just bytes
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / NAME).write_bytes(made)
    return made


def piece(server: Served, data: bytes, **more: Any) -> Piece:  # noqa: ANN401  # fields
    url = f"{server.url.removesuffix('simple')}{NAME}"
    told: dict[str, Any] = {"project": "big", "version": "1.0", "filename": NAME, "url": url, "size": len(data)}
    return Piece(**{**told, "sha256": hashlib.sha256(data).hexdigest(), **more})


def test_a_connection_that_breaks_is_gone_on_with_to_the_byte(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www", breaks={NAME: [1_000_000, 1, 0, 1_500_000]}) as server:
        done = download.bring([piece(server, data)], sources)
    assert download.place_of(piece(server, data), sources).read_bytes() == data
    assert [(start, sent) for _name, start, sent in server.asked] == [
        (0, 1_000_000),
        (1_000_000, 1),
        (1_000_001, 0),
        (1_000_001, 1_500_000),
        (2_500_001, SIZE - 2_500_001),
    ]
    assert done.received == SIZE
    assert done.here == SIZE


def test_a_file_that_changed_meanwhile_is_taken_anew(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www", tag="new") as server:
        wanted = piece(server, data)
        part = sources.root / "files" / wanted.sha256 / f"{NAME}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"old" * 1000)
        part.with_name(f"{NAME}.part.mark").write_text('"old"')
        download.bring([wanted], sources)
    assert server.asked == [(NAME, 0, SIZE)]
    assert download.place_of(wanted, sources).read_bytes() == data


def test_half_a_file_of_something_else_costs_one_more_try(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www") as server:
        wanted = piece(server, data)
        part = sources.root / "files" / wanted.sha256 / f"{NAME}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 1000)
        done = download.bring([wanted], sources)
    assert [(start, sent) for _name, start, sent in server.asked] == [(1000, SIZE - 1000), (0, SIZE)]
    assert download.place_of(wanted, sources).read_bytes() == data
    assert done.here == SIZE


def test_a_server_without_ranges_is_read_from_the_start(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www", ranges=False, breaks={NAME: [1_000_000]}) as server:
        done = download.bring([piece(server, data)], sources)
    assert [start for _name, start, _sent in server.asked] == [0, 0]
    assert done.here == SIZE


def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www", changed=lambda _name, data: data[:-1] + b"!") as server:
        with pytest.raises(SourceError, match="isn't what the index says") as caught:
            download.bring([piece(server, data)], sources)
        assert caught.value.code == "hash-mismatch"
    assert not list(sources.root.rglob(f"{NAME}*"))


def test_a_file_that_rotted_on_this_disk_is_fetched_again(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www") as server:
        wanted = piece(server, data)
        download.bring([wanted], sources)
        download.place_of(wanted, sources).write_bytes(b"\0" * SIZE)
        done = download.bring([wanted], sources)
    assert done.received == SIZE
    assert download.place_of(wanted, sources).read_bytes() == data


def test_a_server_in_trouble_is_asked_again_and_a_refusal_ends_it(
    tmp_path: Path, sources: Sources, data: bytes
) -> None:
    with serving(tmp_path / "www", refuses={NAME: [503, 429]}) as server:
        download.bring([piece(server, data)], sources)
        server.refuses[NAME] = [403]
        with pytest.raises(SourceError) as caught:
            download.bring([piece(server, data, filename="other.whl", sha256="0" * 64)], sources)
    assert caught.value.code == "access-denied"
    assert "netrc" in caught.value.help


def test_all_that_is_missing_is_told_and_the_others_are_kept(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www") as server:
        gone = [piece(server, data, url=f"{server.url}/{one}", sha256=str(one) * 64) for one in range(2)]
        with pytest.raises(SourceError, match="2 of 3 files") as caught:
            download.bring([*gone, piece(server, data)], sources)
    assert caught.value.cause.count("404") == 2
    assert download.place_of(piece(server, data), sources).exists()


def test_two_at_once_fetch_a_file_once(tmp_path: Path, sources: Sources, data: bytes) -> None:
    with serving(tmp_path / "www") as server:
        download.bring([piece(server, data), piece(server, data)], sources, jobs=2)
    assert len(server.asked) == 1


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_no_finished_file_is_fetched_twice(world: World, tmp_path: Path, times: int) -> None:
    index = Index(tmp_path / "public")
    names = [f"part{number}" for number in range(times // 2 + 3)]
    for name in names:
        index.add(name, size=1_000_000)
    index.add("whole", requires=names)
    with serving(index.root, per_chunk_s=0.012) as server:
        words = [str(COMMAND), "bundle", "export", "bundle", "whole", *HERE, "--jobs", "2"]
        env = world.env(SPARK_BUILD_INDEX_URL=server.url, UV_NO_CONFIG="1")
        for _kill in range(times):
            finished, before = stored(world), len(server.asked)
            run = subprocess.Popen(words, env=env, cwd=world.root, stderr=subprocess.DEVNULL, start_new_session=True)
            seen = _bytes(world)
            while run.poll() is None and _bytes(world) < seen + 300_000:
                time.sleep(0.002)
            assert run.poll() is None, "the export ended before it could be killed"
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            assert finished.isdisjoint(name for name, _start, _sent in server.asked[before:])
        finished, before = stored(world), len(server.asked)
        assert finished
        server.per_chunk_s = 0
        export(world, server.url, "whole")
        assert finished.isdisjoint(name for name, _start, _sent in server.asked[before:])
    assert len(stored(world)) == len(names) + 1
    world.run("bundle", "verify", "bundle")


def _bytes(world: World) -> int:
    total = 0
    for folder, _folders, names in os.walk(world.root / "sources" / "files"):  # what goes meanwhile is no error there
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{folder}/{name}").st_size  # noqa: PTH116  # thousands of times
    return total
