"""Bundles, indexes and command lines that mean harm, or go wrong: nothing lands where it shouldn't, and each is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from builder.bundle import admit, parts
from builder.bundle import manifest as manifests
from builder.bundle.manifest import Entry
from builder.digest import sha256_file
from builder.errors import CheckRefused, UsageError
from tests import wheelhouse_kit
from tests.bundle_kit import export, manifest, public, retell, tree
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bundle_kit import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return public(tmp_path / "public")


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(folder / "install.sh"), *words], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def evil(file: Path) -> Iterator[str]:
    """An index whose file has a fine name and a URL that leads upwards."""
    data, digest = file.read_bytes(), sha256_file(file)
    row = {
        "filename": file.name,
        "url": f"/files/..%2F..%2F..%2F{file.name}",
        "hashes": {"sha256": digest},
        "size": len(data),
    }
    page = json.dumps(
        {"meta": {"api-version": "1.1"}, "name": "evil", "versions": ["1.0"], "files": [{**row, "core-metadata": True}]}
    )
    answers = {".metadata": b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n", ".whl": data, "/evil/": page.encode()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
            pass

        def do_GET(self) -> None:
            body = next((one for end, one in answers.items() if self.path.endswith(end)), None)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def test_an_index_names_no_place_on_this_disk(world: World) -> None:
    file = wheelhouse_kit.make_wheel(world.root / "made", "evil", "1.0")
    with evil(file) as url:
        assert "error[wheel-name]" in export(world, url, "evil", code=4).stderr
    assert [path.parent.name for path in world.root.rglob("evil-*.whl")] == ["made"]


def test_a_folder_with_a_manifest_of_something_else_is_left_alone(world: World, index: Index) -> None:
    folder = world.root / "bundle"
    (folder / "sources").mkdir(parents=True)
    (folder / "sources" / "main.c").write_text("mine")
    (folder / "manifest.json").write_text('{"name": "an extension of a browser"}')
    before = tree(folder)
    assert "holds no bundle" in export(world, index.url, "app", code=2).stderr
    assert tree(folder) == before


ODD: tuple[dict[str, Any], ...] = (
    {"wheels": [{"project": "app"}]},
    {"below": ["x"]},
    {"below": [{"project": "a", "version": "1", "path": "../../a.whl", "ours": {}}]},
    {"tools": {"uv": "../uv.whl"}},
    {"tools": 3},
    {"needs": [{"id": "compiler"}]},
    {"run": {"env": {"A": "1\nUSER root"}, "imports": []}},
    {"run": {"env": {"A B": "1"}, "imports": []}},
    {"run": {"env": {}, "imports": ["os; evil()"]}},
    {"run": {}},
    {"target": {}},
    {"files": {"a\ud800": {"sha256": "0" * 64, "size": 0}}},
)


def test_a_manifest_that_says_odd_things_is_damaged(world: World, index: Index) -> None:
    export(world, index.url, "app")
    folder = world.root / "bundle"
    document = manifest(folder)
    assert manifests.parse(json.dumps(document).encode()).facts["run"] == {"env": {}, "imports": []}
    del document["run"]  # bundles of before have none
    assert manifests.parse(json.dumps(document).encode()).wheels
    for more in ODD:
        with pytest.raises(CheckRefused) as caught:
            manifests.parse(json.dumps({**document, **more}).encode())
        assert caught.value.code == "manifest-damaged"
    (folder / "manifest.json").write_text(json.dumps({**document, **ODD[0]}))
    assert "error[manifest-damaged]" in world.run("bundle", "verify", "bundle", code=5).stderr


@pytest.mark.parametrize("more", ['url = "https://example.invalid/app.whl"\n', '[packages.sdist]\npath = "x.tar.gz"\n'])
def test_a_lock_that_offers_another_source_beside_the_wheel_is_seen(world: World, index: Index, more: str) -> None:
    export(world, index.url, "app")
    folder = world.root / "bundle"
    lock = folder / "pylock.toml"
    text = lock.read_text()
    lock.write_text(text.replace("name = ", f"{more}name = ", 1) if more.startswith("url") else text + more)
    retell(folder)
    assert "pylock.toml: says more" in world.run("bundle", "verify", "bundle", code=5).stderr


def delta(world: World, index: Index) -> tuple[Path, Path]:
    """Return a bundle, and a delta against it."""
    index.add_uv()
    export(world, index.url, "app")
    index.add("app", "3.0", requires=["base"])
    done = export(world, index.url, "app", "--since", "bundle", to="delta")
    assert f"there: sh BASE/install.sh --delta {world.root / 'delta'} VENV" in done.stderr  # it has none of its own
    return world.root / "bundle", world.root / "delta"


def test_a_delta_is_completed_by_right_bytes_inside_of_it_only(world: World, index: Index) -> None:
    base, new = delta(world, index)
    outside, document = world.root / "outside", manifest(new)
    outside.mkdir()
    wheel = next(path for path in document["delta"]["lacks"] if path.endswith(".whl") and "/base-" in path)

    spoilt, copy = world.root / "spoilt", world.root / "copy"
    shutil.copytree(base, spoilt)
    shutil.copytree(new, copy)
    (spoilt / wheel).write_bytes(bytes((base / wheel).stat().st_size))
    assert f"{wheel}: is missing" in script(spoilt, "--delta", str(copy), str(world.root / "venv")).stderr
    (copy / wheel).parent.mkdir(exist_ok=True, parents=True)
    (copy / wheel).write_bytes(b"half")  # of a copy that was killed
    assert script(base, "--delta", str(copy), str(world.root / "venv")).returncode == 0

    for name, place in (("sub/.bashrc", "sub"), (".bashrc", ".bashrc")):
        bad = world.root / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(new, bad)
        document = manifest(new)
        document["files"][name] = document["files"][wheel]
        document["delta"]["lacks"].append(name)
        (bad / "manifest.json").write_text(json.dumps(document))
        (bad / place).symlink_to(outside if place == "sub" else outside / ".bashrc")
        script(base, "--delta", str(bad), str(world.root / "other"))
        world.run("bundle", "install", "bad", "other", "--base", "bundle", code=None)
        assert list(outside.iterdir()) == []


@pytest.mark.root
def test_a_medium_that_cannot_be_written_is_told_of(world: World, index: Index) -> None:
    base, new = delta(world, index)
    stick = world.root / "stick"
    stick.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(stick)], check=True)
    try:
        shutil.copytree(base, stick / "base")
        shutil.copytree(new, stick / "new")
        subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
        done = script(stick / "base")  # beside the bundle, as is the default
        assert (done.returncode, "Traceback" in done.stderr) == (3, False)
        assert "Read-only" in done.stderr
        done = script(stick / "base", "--delta", str(stick / "new"), str(world.root / "venv"))
        assert done.returncode == 3
        assert "copy it" in done.stderr
        words = ["stick/new", "venv", "--base", "stick/base"]
        assert "cp -r" in world.run("bundle", "install", *words, code=3).stderr
        assert script(stick / "base", str(world.root / "venv")).returncode == 0
    finally:
        subprocess.run(["umount", str(stick)], check=True)


def test_what_is_missing_is_told_without_a_traceback(world: World, index: Index) -> None:
    base, _new = delta(world, index)
    assert "no bundle" in world.run("bundle", "install", "delta", "venv", "--base", "nowhere", code=2).stderr
    (base / "manifest.json").unlink()
    done = script(base, str(world.root / "venv"))
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert "manifest.json: No such file" in done.stderr


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("gitconfig", b"[core]\n\tsshCommand = touch /tmp/x\n"),
        ("git/x-0123456789ab.git/config", b"[core]\n\tbare = true\n\tsshCommand = touch x\n"),
        ("git/x-0123456789ab.git/hooks/post-checkout", b"#!/bin/sh\n"),
        ("git/x-0123456789ab.git/info/attributes", b"* filter=x\n"),
        ("git/x-0123456789ab.git/objects/info/alternates", b"/\n"),
        ("git/x-0123456789ab.git/objects/00/" + "0" * 38, b"x"),
        ("git/x-0123456789ab.git/objects/pack/pack-1.idx", b"x"),
        ("files/" + "0" * 64 + "/x.tar.gz", b"x"),
    ],
)
def test_sources_that_are_none_are_seen(tmp_path: Path, path: str, data: bytes) -> None:
    file = tmp_path / "sources" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    inner = f"sources/{path}"
    known = {inner: Entry(sha256=sha256_file(file), size=len(data))}
    with pytest.raises(CheckRefused, match=re.escape(path)) as caught:
        admit.check(tmp_path, [inner], known, env=os.environ)
    assert caught.value.code == "sources-odd"


def test_sources_that_are_none_do_not_reach_the_cache(world: World, index: Index) -> None:
    path = "git/x-0123456789ab.git/config"
    export(world, index.url, "app")
    folder = world.root / "bundle"
    (folder / "sources" / path).parent.mkdir(parents=True)
    (folder / "sources" / path).write_text("[core]\n\tbare = true\n\tsshCommand = touch x\n")
    retell(folder)
    far = World(world.root / "far")
    assert "error[sources-odd]" in far.run("bundle", "import", str(folder), code=5).stderr
    assert not (far.root / "sources" / path).exists()


@pytest.mark.parametrize("place", ["my media", "media/sub/.."])
def test_parts_go_by_any_name_and_are_unpacked_again(world: World, index: Index, place: str) -> None:
    (world.root / "media" / "sub").mkdir(parents=True)
    export(world, index.url, "app", "--split", "1MiB", to=place)
    assert "1 parts" in world.run("bundle", "verify", place).stdout
    for _again in range(2):
        world.run("bundle", "import", place, "--unpack", "joined")
    export(world, index.url, "base", "--split", "1MiB", to=place)
    world.run("bundle", "import", place, "--unpack", "joined")


@pytest.mark.parametrize(
    "line",
    [
        "app==2.0 --hash=sha256:00",
        "app @ https://me:s3cret@example.invalid/app-1.0-py3-none-any.whl",
        "./app.whl",
        "-e .",
    ],
)
def test_what_is_no_name_is_refused_with_a_way_on(world: World, index: Index, line: str) -> None:
    (world.root / "wanted.txt").write_text(f"{line}\n")
    for words in (["-r", "wanted.txt"], ["--", line]):
        done = world.run("bundle", "export", "bundle", *words, code=2)
        assert "error[requirements-odd]" in done.stderr
        assert "wheels add" in done.stderr
        assert "s3cret" not in done.stderr
    (world.root / "wanted.txt").write_bytes(b"app\xff\n")
    assert "error[requirements-missing]" in export(world, index.url, "-r", "wanted.txt", code=2).stderr


def test_a_terminated_install_leaves_nothing_beside(world: World, index: Index) -> None:
    slow = "#!/bin/sh\n[ $1 = --version ] && exit\necho $* >started\nexec sleep 60\n".replace(
        "started", str(world.root / "started")
    )
    index.add_uv(slow.encode())
    export(world, index.url, "app")
    there = world.root / "there"
    with subprocess.Popen(["sh", "bundle/install.sh", str(there / "venv")], cwd=world.root) as running:
        while not (world.root / "started").exists():
            assert running.poll() is None
            time.sleep(0.02)
        running.terminate()
    assert running.returncode == 130
    assert list(there.iterdir()) == []


def test_markers_that_leave_nothing_make_no_bundle(world: World, index: Index) -> None:
    done = export(world, index.url, "app; sys_platform == 'win32'", code=2)
    assert "nothing of that is for" in done.stderr
    assert not (world.root / "bundle").exists()


def test_names_stand_before_and_behind_options(world: World, index: Index) -> None:
    (world.root / "wanted.txt").write_text("base\n")
    export(world, index.url, "-r", "wanted.txt", "app")
    assert manifest(world.root / "bundle")["asked"] == ["app", "base"]
    world.run("bundle", "install", "--signers", "none", "bundle", "venv", code=2)
    assert "bundle export" in world.run("bundle", "export", "--json", code=2).stdout


def test_more_parts_than_three_digits_count_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "wheel").open("wb") as stream:
        stream.truncate(1000 << 20)
    with pytest.raises(UsageError, match="more than 999 parts"):
        parts.cut(tmp_path, tmp_path / "media", name="x", size=1 << 20, sign=None)
    assert not (tmp_path / "media").exists()


@pytest.mark.root
@pytest.mark.parametrize("more", [[], ["--split", "1MiB"]])
def test_a_full_stick_is_told_by_its_own_name(world: World, index: Index, more: list[str]) -> None:
    index.add("large", size=3 << 20)
    stick = world.root / "stick"
    stick.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(stick)], check=True)
    try:
        done = export(world, index.url, "large", *more, to="stick/bundle", code=3)
        assert f"no space left at {stick / 'bundle'}" in done.stderr
        assert "df -h" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=9m", str(stick)], check=True)
        export(world, index.url, "large", *more, to="stick/bundle")
        world.run("bundle", "verify", "stick/bundle")
    finally:
        subprocess.run(["umount", str(stick)], check=True)


def test_a_pack_whose_index_calls_an_object_by_another_name_stays_out(world: World, tmp_path: Path) -> None:
    """Git itself doesn't look: it gives the evil bytes for the good name."""
    world.git(tmp_path, "init", "-q", "--bare", "x-1.git")
    mirror = tmp_path / "x-1.git"
    told = ["git", "--git-dir", str(mirror)]
    name = subprocess.run(
        [*told, "hash-object", "-w", "--stdin"], input=b"evil\n", capture_output=True, check=True
    ).stdout
    pack = [*told, "pack-objects", "-q", str(mirror / "objects" / "pack" / "pack")]
    subprocess.run(pack, input=name, capture_output=True, check=True)
    subprocess.run([*told, "prune-packed"], check=True)
    index = next(mirror.glob("objects/pack/*.idx"))
    data, good = bytearray(index.read_bytes()), hashlib.sha1(b"blob 5\0good\n").digest()  # noqa: S324  # git's names
    for number in range(256):
        data[8 + 4 * number : 12 + 4 * number] = (number >= good[0]).to_bytes(4, "big")
    data[1032:1052] = good
    data[-20:] = hashlib.sha1(bytes(data[:-20])).digest()  # noqa: S324
    index.unlink()
    index.write_bytes(data)
    for reverse in mirror.glob("objects/pack/*.rev"):
        reverse.unlink()
    assert subprocess.run([*told, "cat-file", "-p", good.hex()], capture_output=True, check=True).stdout == b"evil\n"
    folder = tmp_path / "bundle"
    shutil.copytree(
        mirror, folder / "sources" / "git" / mirror.name, ignore=shutil.ignore_patterns("hooks", "description")
    )
    files = {f"sources/git/{mirror.name}/objects/pack/{one.name}": one for one in mirror.glob("objects/pack/*")}
    entries = {path: Entry(sha256=sha256_file(file), size=file.stat().st_size) for path, file in files.items()}
    with pytest.raises(CheckRefused, match="the pack isn't what its index says"):
        admit.check(folder, files, entries, env=world.env())
