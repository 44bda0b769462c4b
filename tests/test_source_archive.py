"""Archives that nobody vouches for: the good ones give one tree everywhere, the bad ones give nothing."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import source
from builder.errors import SourceError, SparkError
from builder.recipe.model import Source
from builder.source.unpack import newest, unpack
from tests.source_kit import Outside, Reply, member, request, serving, sha256, tar_of, tar_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.source_kit import Server

FILES = {"top/a.txt": "a", "top/deep/b.txt": "b", "top/ünï.txt": "u"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "user")


def zip_of(
    files: dict[str, str], *, links: tuple[tuple[str, str], ...] = (), kind: int = zipfile.ZIP_DEFLATED
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2022, 7, 1, 12, 0, 0)), text)
        for name, target in links:
            info = zipfile.ZipInfo(name, (2022, 7, 1, 12, 0, 0))
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return stream.getvalue()


def kept(tmp_path: Path, data: bytes, name: str = "x.tar.gz") -> Path:
    file = tmp_path / "in" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file


def listing(tree: Path) -> dict[str, tuple[int, float, bytes | None]]:
    return {
        str(path.relative_to(tree)): (
            path.lstat().st_mode,
            path.lstat().st_mtime,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [tree, *tree.rglob("*")]
    }


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "w:bz2", "w", "zip"])
def test_every_format_gives_the_same_tree(tmp_path: Path, kind: str) -> None:
    data = zip_of(FILES) if kind == "zip" else tar_of(FILES, mode=kind)
    unpack(kept(tmp_path, data), tmp_path / "tree", epoch=1_600_000_000)
    found = listing(tmp_path / "tree")
    assert {name for name, (_mode, _time, content) in found.items() if content is not None} == {
        name.removeprefix("top/") for name in FILES
    }
    assert {time for _mode, time, _content in found.values()} == {1_600_000_000.0}
    assert {stat.S_IMODE(mode) for mode, _time, content in found.values() if content is not None} == {0o644}


UNPACK = """
import os, sys
from pathlib import Path
from builder.source.unpack import newest, unpack
import encodings.cp437, encodings.utf_8, encodings.ascii, gzip
user = int(sys.argv[3])
os.setgroups([])
os.setgid(user)
os.setuid(user)
os.umask(int(sys.argv[4], 8))
unpack(Path(sys.argv[1]), Path(sys.argv[2]), epoch=1_600_000_000)
print(newest(Path(sys.argv[1])))
"""


@pytest.mark.root
@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_user_umask_zone_and_locale_dont_show(name: str) -> None:
    odd = [
        member("top/run", mode=0o6777),
        member("top/secret", mode=0o600),
        member("top/d", tarfile.DIRTYPE, mode=0o700),
    ]
    odd[1].uid = odd[1].gid = 12345
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        base = Path(folder)
        base.chmod(0o755)
        archive = kept(base, zip_of(FILES) if name.endswith("zip") else tar_with(*odd), name)
        for user, mask, zone, locale in ((0, "077", "UTC", "C"), (65534, "002", "Pacific/Auckland", "C.UTF-8")):
            room = base / f"room{user}"
            room.mkdir()
            os.chown(room, user, user)
            env = {"PATH": os.environ["PATH"], "TZ": zone, "LC_ALL": locale}
            words = [sys.executable, "-c", UNPACK, str(archive), str(room / "tree"), str(user), mask]
            done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert (room / "tree").stat().st_uid == user
            outcomes.append((done.stdout, listing(room / "tree")))
    assert outcomes[0] == outcomes[1]
    assert {stat.S_IMODE(mode) for mode, _time, _content in outcomes[0][1].values()} <= {0o644, 0o755}


def test_a_zips_time_is_utc_everywhere(tmp_path: Path) -> None:
    assert newest(kept(tmp_path, zip_of(FILES))) == 1656676800


def test_an_archive_without_a_top_folder_is_taken_as_it_is(outside: Outside, tmp_path: Path) -> None:
    for number, data in enumerate(
        (tar_of({"a": "1", "b/c": "2"}), zip_of({"a": "1", "b/c": "2"}), tar_of({"./a": "1"}))
    ):
        archive = kept(tmp_path, data, f"flat{number}.tar.gz")
        made = Source(kind="archive", url=archive.as_uri())
        pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
        source.materialize(pinned, tmp_path / f"flat{number}", outside.sources)
        assert (tmp_path / f"flat{number}" / "a").read_text() == "1"
        assert source.read(pinned, "a", outside.sources) == b"1"
        assert source.read(pinned, "c", outside.sources) is None


def test_reading_agrees_with_unpacking(outside: Outside, tmp_path: Path) -> None:
    big = "x" * 2_000_000
    members = [
        member("./top/a"),
        member("./top/soft", tarfile.SYMTYPE, "a"),
        member("./top/big"),
        member("./top/dir", tarfile.DIRTYPE),
    ]
    members.append(member("./top/hard", tarfile.LNKTYPE, "./top/a"))
    data = tar_with(*members, contents={"./top/a": b"A", "./top/big": big.encode()})
    made = Source(kind="archive", url=kept(tmp_path, data).as_uri())
    pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
    source.materialize(pinned, tmp_path / "tree", outside.sources)
    for name in ("a", "soft", "hard", "big", "dir", "nope", "top/a"):
        path = tmp_path / "tree" / name
        expected = path.read_bytes() if path.is_file() else None
        for _time in range(2):  # the second time from what was kept
            assert source.read(pinned, name, outside.sources) == expected, name


def link(name: str, to: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, to)


BAD = {
    "parent": tar_with(member("top/../../x")),
    "absolute": tar_with(member("/etc/x")),
    "link-out": tar_with(link("top/x", "../../etc/passwd")),
    "link-absolute": tar_with(link("top/x", "/etc/passwd")),
    "link-out-of-top": tar_with(member("top/a"), link("top/x", "../y")),
    "link-by-links": tar_with(member("top/a"), link("top/l", "."), link("top/m", "l/.."), link("top/n", "m/..")),
    "hard-link-out": tar_with(member("top/x", tarfile.LNKTYPE, "../../etc/passwd")),
    "hard-link-absolute": tar_with(member("top/x", tarfile.LNKTYPE, "/etc/passwd")),
    "through-link": tar_with(link("top/d", "."), member("top/d/x")),
    "over-link": tar_with(link("top/d", "a"), member("top/d")),
    "device": tar_with(member("top/null", tarfile.CHRTYPE)),
    "pipe": tar_with(member("top/fifo", tarfile.FIFOTYPE)),
    "twice": tar_with(member("top/a"), member("top/a")),
    "twice-spelled": tar_with(member("top/a"), member("top/./a")),
    "file-and-folder": tar_with(member("top/a"), member("top/a/b")),
    "folder-and-file": tar_with(member("top/a/b"), member("top/a")),
    "backslash": tar_with(member("top\\..\\x")),
    "zip-parent": zip_of({"top/../../x": ""}),
    "zip-absolute": zip_of({"/etc/x": ""}),
    "zip-drive": zip_of({"C:/x": ""}),
    "zip-link": zip_of({}, links=(("top/x", "../../y"),)),
    "zip-through": zip_of({"top/d/x": ""}, links=(("top/d", "."),)),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    dest = tmp_path / "room" / "tree"
    dest.parent.mkdir()
    with pytest.raises(SourceError) as caught:
        unpack(kept(tmp_path, BAD[name]), dest, epoch=0)
    assert (caught.value.code, caught.value.exit_code) == ("archive-unsafe", 4)
    assert caught.value.cause
    assert caught.value.run
    assert list(dest.parent.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "room"]


def test_links_inside_are_kept(tmp_path: Path) -> None:
    data = tar_with(
        member("top/a"), link("top/d/up", "../a"), member("top/hard", tarfile.LNKTYPE, "top/a"), link("top/gone", "x")
    )
    unpack(kept(tmp_path, data), tmp_path / "tree", epoch=0)
    assert os.fspath((tmp_path / "tree/d/up").readlink()) == "../a"
    assert os.fspath((tmp_path / "tree/gone").readlink()) == "x"
    assert (tmp_path / "tree/hard").is_file()


GOOD = tar_of({"top/a": os.urandom(300_000)})
BROKEN = {
    "header.tar": tar_of({"top/a": "a", "top/b": "b"}, mode="w").replace(b"top/b", b"top/c"),
    "cut.tar.gz": GOOD[:200_000],
    "cut-late.tar.gz": GOOD[:-10],
    "cut.tar.xz": tar_of({"top/a": os.urandom(300_000)}, mode="w:xz")[:200_000],
    "cut.tar.bz2": tar_of({"top/a": os.urandom(300_000)}, mode="w:bz2")[:200_000],
    "cut.tar": tar_of({"top/a": os.urandom(300_000)}, mode="w")[:200_000],
    "cut.zip": zip_of(FILES)[:-30],
    "flipped.zip": zip_of({"top/a": "a" * 1000}, kind=zipfile.ZIP_STORED).replace(b"aaaaaaaa", b"aaabaaaa", 1),
    "flipped.tar.gz": GOOD[:1000] + bytes([GOOD[1000] ^ 255]) + GOOD[1001:],
    "text.tar.gz": b"<html>please log in</html>",
    "empty.tar.gz": b"",
    "long-name.tar.gz": tar_with(member("top/" + "x" * 300)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_archive_is_told_and_leaves_nothing(outside: Outside, tmp_path: Path, name: str) -> None:
    archive = kept(tmp_path, BROKEN[name], name)
    dest = tmp_path / "room" / "tree"
    dest.parent.mkdir()
    with pytest.raises(SparkError) as caught:
        unpack(archive, dest, epoch=0)
    assert (caught.value.code, caught.value.exit_code) == ("archive-damaged", 4)
    assert list(dest.parent.iterdir()) == []
    if name.startswith(("flipped.zip", "long-name")):
        return  # its directory is whole: only unpacking tells
    with pytest.raises(SourceError) as caught:
        source.pin(Source(kind="archive", url=archive.as_uri()), request(), outside.sources, recipe="t", base=tmp_path)
    assert caught.value.code == "archive-damaged"
    assert not [file for file in (outside.root / "sources" / "files").rglob("*") if file.is_file()]


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    unpack(kept(tmp_path, tar_of({"top/a": "a", "top/z.zip": zip_of(FILES)}, mode="w")), tmp_path / "tree", epoch=0)
    assert (tmp_path / "tree/z.zip").is_file()


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    class Zeros(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("top/zeros")
        info.size = 100
        tar.addfile(info, Zeros())
        info = tarfile.TarInfo("top/bomb")
        info.size = 3 << 30
        stream_info = info.tobuf()
        tar.fileobj.write(stream_info)
    with pytest.raises(SourceError) as caught:
        unpack(kept(tmp_path, stream.getvalue()), tmp_path / "tree", epoch=0)
    assert caught.value.code == "archive-unsafe"
    assert "100 times" in caught.value.summary


# --- by URL ---


def test_an_archive_by_url_is_trusted_once_and_kept(outside: Outside, server: Server, tmp_path: Path) -> None:
    server.replies["/tiny-1.0.tar.gz"] = Reply(tar_of(FILES))
    made = Source(kind="archive", url=f"{server.url}/tiny-${{version}}.tar.gz", version="1.0")
    pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
    assert (pinned.tree, pinned.time) == (f"sha256:{sha256(tar_of(FILES))}", 1_650_000_000)
    server.replies["/tiny-1.0.tar.gz"] = Reply(tar_of({"other": "x"}))
    server.replies["/tiny-1.1.tar.gz"] = Reply(tar_of({"top/new": "x"}))
    assert source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path) == pinned
    outside.offline = True
    source.materialize(pinned, tmp_path / "tree", outside.sources)
    assert (tmp_path / "tree/deep/b.txt").exists()
    with pytest.raises(SourceError) as caught:
        source.pin(made, request(version="1.1"), outside.sources, recipe="tiny", base=tmp_path)
    assert caught.value.code == "offline-missing"
    outside.offline = False
    newer = source.pin(made, request(version="1.1"), outside.sources, recipe="tiny", base=tmp_path)
    assert (newer.version, source.read(newer, "new", outside.sources)) == ("1.1", b"x")


def test_the_recipes_digest_decides(outside: Outside, server: Server, tmp_path: Path) -> None:
    server.replies["/x.tar.gz"] = Reply(tar_of(FILES))
    made = Source(kind="archive", url=f"{server.url}/x.tar.gz", sha256=sha256(tar_of(FILES)))
    pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
    assert pinned.tree == f"sha256:{made.sha256}"
    wrong = Source(kind="archive", url=f"{server.url}/x.tar.gz", sha256="0" * 64)
    with pytest.raises(SourceError) as caught:
        source.pin(wrong, request(), outside.sources, recipe="tiny", base=tmp_path)
    assert caught.value.code == "hash-mismatch"
    # What was there before is still there.
    server.replies.clear()
    assert source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path) == pinned


def test_archives_come_through_mirrors_and_without_credentials_in_what_is_kept(
    outside: Outside, server: Server, tmp_path: Path
) -> None:
    kept(tmp_path, tar_of(FILES), "x.tar.gz")
    outside.mirrors = {"https://host.invalid/releases/": str(tmp_path / "in")}
    made = Source(kind="archive", url="https://us3r:s3cret@host.invalid/releases/x.tar.gz")
    pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
    assert pinned.url == "https://host.invalid/releases/x.tar.gz"
    login = "Basic dXMzcjpzM2NyZXQ="
    server.replies["/y.tar.gz"] = lambda asked: Reply(GOOD, 200 if asked.get("authorization") == login else 401)
    made = Source(kind="archive", url=f"{server.url.replace('://', '://us3r:s3cret@')}/y.tar.gz")
    source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)
    assert b"s3cret" not in outside.kept()


@pytest.mark.parametrize(
    "url", ["ftp://host.invalid/x.tar.gz", "https://host.invalid/", "file:///nonexistent/x.tar.gz"]
)
def test_a_url_that_cant_be_is_told(outside: Outside, tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError) as caught:
        source.pin(Source(kind="archive", url=url), request(), outside.sources, recipe="tiny", base=tmp_path)
    assert caught.value.code in {"url-scheme", "archive-name", "not-found"}


def test_a_token_in_a_query_is_sent_and_neither_shown_nor_kept(
    outside: Outside, server: Server, tmp_path: Path
) -> None:
    data = tar_of({"tiny-1.0/a.txt": "a"})
    server.replies["/tiny-1.0.tar.gz?v=2&token=S3CRET"] = Reply(data)
    url = f"{server.url}/tiny-1.0.tar.gz?v=2&token=S3CRET"

    def pin(url: str) -> source.Pin:  # type: ignore[name-defined]
        made = Source(kind="archive", url=url)
        return source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path)

    pinned = pin(url)
    assert pinned.url == f"{server.url}/tiny-1.0.tar.gz?v=2&token=***"
    shutil.rmtree(outside.root / "sources/files")
    source.materialize(pinned, tmp_path / "tree", outside.sources)
    assert (tmp_path / "tree/a.txt").read_text() == "a"
    with pytest.raises(SourceError) as caught:
        pin(url.replace("tiny-1.0", "gone"))
    assert "token=***" in str(caught.value.as_json())
    assert "S3CRET" not in str(caught.value.as_json())
    assert b"S3CRET" not in outside.kept()
    assert "S3CRET" not in outside.heard.text()
