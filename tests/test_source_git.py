"""Git sources against real repositories: what is pinned, what is asked, what is laid out."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import source
from builder.errors import HostError, SourceError
from builder.events import Note
from builder.source.mirror import asking, insteadof
from tests.host_kit import program
from tests.source_kit import Outside, Repo, git_source, request
from tests.world import COMMAND

if TYPE_CHECKING:
    from tests.world import World


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "user")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "up" / "tiny")


def pin(outside: Outside, repo: Repo | str, ref: str | None = "main", **more: object) -> source.Pin:  # type: ignore[name-defined]
    where = repo if isinstance(repo, str) else repo.folder.as_uri()
    submodules = more.pop("submodules", "none")
    made = git_source(where, ref=None, submodules=submodules)  # type: ignore[arg-type]
    return source.pin(made, request(ref=ref, **more), outside.sources, recipe="tiny", base=outside.root)


def laid(outside: Outside, pinned: source.Pin, name: str = "tree") -> Path:  # type: ignore[name-defined]
    dest = outside.root / name
    source.materialize(pinned, dest, outside.sources)
    return dest


def mirrors(outside: Outside) -> list[Path]:
    return sorted((outside.root / "sources" / "git").glob("*.git"))


def test_every_way_to_name_a_commit_gives_that_commit(outside: Outside, repo: Repo) -> None:
    first = repo("rev-parse", "HEAD")
    repo("tag", "light")
    repo("tag", "-a", "-m", "note", "v1.2.0")
    repo("checkout", "-q", "-b", "feature/x")
    second = repo.commit(b="2")
    head = repo.pull(7, since="feature/x", c="3")
    repo("checkout", "-q", "main")
    asked = {
        "main": first,
        "feature/x": second,
        "refs/heads/feature/x": second,
        "light": first,
        "v1.2.0": first,
        "refs/tags/v1.2.0": first,
        second: second,
        second.upper(): second,
        second[:9]: second,
        "refs/pull/7/head": head,
        repo("rev-parse", "v1.2.0"): first,  # the tag object itself
        None: first,  # the remote's HEAD
    }
    for ref, commit in asked.items():
        pinned = pin(outside, repo, ref)
        assert pinned.commit == commit, ref
        assert pinned.tree == "git:" + repo("rev-parse", f"{commit}^{{tree}}")
    assert pin(outside, repo, "v1.2.0").version == "1.2.0"
    assert pin(outside, repo, "v1.2.0").describe == f"v1.2.0-0-g{first}"
    assert pin(outside, repo, "feature/x").describe == f"v1.2.0-1-g{second}"
    assert pin(outside, repo, "main").time == 1_600_000_100


def test_a_branch_that_moves_or_is_pushed_by_force_is_seen(outside: Outside, repo: Repo) -> None:
    first = pin(outside, repo)
    second = repo.commit(b="2")
    assert pin(outside, repo).commit == second
    repo("reset", "-q", "--hard", first.commit or "")
    third = repo.commit(c="3")
    assert pin(outside, repo).commit == third
    # What was pinned before the push can still be laid out, from the mirror alone.
    shutil.rmtree(repo.folder)
    outside.offline = True
    old = dataclasses.replace(first, commit=second, tree=f"git:{_tree(outside, second)}", describe=None)
    assert (laid(outside, old) / "b").read_text() == "2"


def _tree(outside: Outside, commit: str) -> str:
    words = ["git", f"--git-dir={mirrors(outside)[0]}", "rev-parse", f"{commit}^{{tree}}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_branches_that_take_the_place_of_a_folder_of_branches_are_fetched(outside: Outside, repo: Repo) -> None:
    repo("branch", "release")
    pin(outside, repo, "release")
    repo("branch", "-m", "release", "release/3.5")
    commit = repo.commit(b="2")
    repo("branch", "-f", "release/3.5", commit)
    assert pin(outside, repo, "release/3.5").commit == commit


def test_nothing_is_fetched_when_nothing_is_new(outside: Outside, repo: Repo) -> None:
    pinned = pin(outside, repo)
    packs = {file: file.stat().st_mtime_ns for file in mirrors(outside)[0].rglob("*") if file.suffix == ".pack"}
    assert packs
    assert pin(outside, repo) == dataclasses.replace(pinned, asked_at=outside.now)
    assert source.fetch(pinned, outside.sources) == 0
    assert packs == {file: file.stat().st_mtime_ns for file in mirrors(outside)[0].rglob("*") if file.suffix == ".pack"}
    shutil.rmtree(mirrors(outside)[0])
    assert source.fetch(pinned, outside.sources) > 100


@pytest.mark.parametrize(
    "ref", ["mian", "feature-1", "v1.0", "0123456789" * 4, "abcdef1", "refs/pull/9/head", "-x", "ma*"]
)
def test_a_missing_ref_is_an_error_and_never_another_branch(outside: Outside, repo: Repo, ref: str) -> None:
    repo("branch", "feature-10")
    repo("tag", "v1.0.0")
    with pytest.raises(SourceError) as caught:
        pin(outside, repo, ref)
    assert caught.value.code == "ref-missing"
    assert caught.value.exit_code == 4
    near = {"mian": "main", "feature-1": "feature-10", "v1.0": "v1.0.0"}.get(ref, "")
    assert near in caught.value.cause
    assert caught.value.run


def test_a_ref_that_was_deleted_is_missing_though_its_commit_is_here(outside: Outside, repo: Repo) -> None:
    repo("branch", "gone")
    pin(outside, repo, "gone")
    repo("branch", "-D", "gone")
    with pytest.raises(SourceError) as caught:
        pin(outside, repo, "gone")
    assert caught.value.code == "ref-missing"


def test_an_unreachable_remote_tells_the_last_commit_and_its_age(outside: Outside, repo: Repo) -> None:
    commit = pin(outside, repo).commit
    shutil.move(repo.folder, repo.folder.with_name("moved"))
    outside.now += 3 * 3600
    with pytest.raises(SourceError) as caught:
        pin(outside, repo)
    assert (caught.value.code, caught.value.exit_code) == ("remote-unreachable", 4)
    assert f"last known main: {commit}, asked 3h00m ago" in caught.value.cause
    assert caught.value.run[0] == "spark-build recipe tiny --ref main --offline"
    outside.offline = True
    pinned = pin(outside, repo)
    assert (pinned.commit, pinned.stale, pinned.asked_at) == (commit, True, 1_700_000_000.0)


def test_a_closed_port_is_unreachable(outside: Outside) -> None:
    with pytest.raises(SourceError) as caught:
        pin(outside, "http://127.0.0.1:9/x/y.git")
    assert caught.value.code == "remote-unreachable"
    assert "127.0.0.1" in caught.value.cause


def test_offline_knows_branches_that_came_along_and_refuses_the_rest(outside: Outside, repo: Repo) -> None:
    other = repo.commit(b="2")
    repo("branch", "other")
    repo("tag", "v2.0")
    first = repo.commit(c="3")
    pin(outside, repo)
    shutil.rmtree(repo.folder)
    outside.offline = True
    assert pin(outside, repo, "other").commit == other
    assert pin(outside, repo, "v2.0").commit == other
    assert pin(outside, repo, first).stale is False
    assert pin(outside, repo, first[:8]).stale is False
    for ref in ("never", "f" * 40, "main~1", "HEAD"):
        with pytest.raises(SourceError) as caught:
            pin(outside, repo, ref)
        assert caught.value.code == "offline-unknown", ref
        assert caught.value.run == (f"spark-build fetch tiny --ref {shlex.quote(ref)}",)


@pytest.mark.root
def test_offline_needs_no_network_at_all(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    url = "https://git.example.invalid/org/tiny"
    outside.mirrors = {url: str(repo.folder)}
    pinned = pin(outside, url)
    repo.folder.rename(tmp_path / "moved")
    code = f"""
import sys
from pathlib import Path
from builder import source
from tests.source_kit import Outside, git_source, request
outside = Outside(Path({str(outside.root)!r}), offline={{offline}})
pinned = source.pin(git_source({url!r}), request(), outside.sources, recipe="tiny", base=outside.root)
source.materialize(pinned, outside.root / "tree", outside.sources)
print(pinned.commit)
"""
    python = ["unshare", "-n", "--", sys.executable]
    done = subprocess.run(
        [*python, "-c", code.format(offline=True)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.stdout.strip() == pinned.commit, done.stderr
    done = subprocess.run(
        [*python, "-c", code.format(offline=False)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert "can't be asked for main" in done.stderr


def test_credentials_stay_where_they_were_given(outside: Outside, repo: Repo) -> None:
    with pytest.raises(SourceError) as caught:
        pin(outside, "http://us3r:s3cret@127.0.0.1:9/x/y.git")
    assert "s3cret" not in str(caught.value.as_json())
    assert "us3r" not in str(caught.value.as_json())
    secret = f"file://us3r:s3cret@localhost{repo.folder}"
    outside.mirrors = {f"file://localhost{repo.folder}": str(repo.folder)}
    pinned = pin(outside, secret)
    assert pinned.url == f"file://localhost{repo.folder}"
    laid(outside, pinned)
    assert "s3cret" not in str(pinned)
    assert b"s3cret" not in outside.kept()
    assert "s3cret" not in outside.heard.text()


def test_mirrors_serve_repository_and_submodules(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    dep = Repo(tmp_path / "up" / "dep", files={"d.txt": "dep"})
    repo.submodule("../dep", "third/dep")
    repo("config", "-f", ".gitmodules", "submodule.third/dep.url", "https://host.invalid/org/dep.git")
    repo.commit()
    outside.mirrors = {"https://host.invalid/org/": f"{tmp_path}/up"}
    pinned = pin(outside, "https://host.invalid/org/tiny.git", submodules="all")
    assert pinned.url == "https://host.invalid/org/tiny.git"
    assert [(one.path, one.url) for one in pinned.submodules] == [("third/dep", "https://host.invalid/org/dep.git")]
    assert (laid(outside, pinned) / "third/dep/d.txt").read_text() == "dep"
    outside.mirrors = {"https://host.invalid/org/dep": str(dep.folder), "https://host.invalid": "https://else.invalid"}
    sources = outside.sources
    assert sources.mirrored("https://host.invalid/org/dep.git") == dep.folder.as_uri()
    assert sources.mirrored("https://host.invalid/org/depot") == "https://else.invalid/org/depot"
    assert sources.mirrored("https://a:b@host.invalid/x") == "https://else.invalid/x"


def test_clones_inside_a_build_go_to_the_mirrors(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    outside.mirrors = {"https://host.invalid/org/": f"{tmp_path}/up", "https://one.invalid/tiny.git": str(repo.folder)}
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **insteadof(outside.sources)}
    for number, url in enumerate(("https://host.invalid/org/tiny", "https://one.invalid/tiny.git")):
        subprocess.run(["git", "clone", "-q", url, str(tmp_path / f"clone{number}")], env=env, check=True)
        assert (tmp_path / f"clone{number}" / "a.txt").exists()


@pytest.mark.root
def test_a_build_clones_from_a_mirror_in_a_folder(world: World, repo: Repo) -> None:
    (world.config / "config.toml").write_text(f'[mirrors]\n"https://host.invalid/org/" = "{repo.folder.parent}"\n')
    clone = "['git', 'clone', '-q', 'https://host.invalid/org/tiny', 'nested']"
    folder = world.tiny(extra=f"import subprocess; subprocess.run({clone}, check=True)")
    (folder / "src" / "__init__.py").unlink()
    (folder / "src" / "__init__.py").symlink_to("../nested/a.txt")
    world.recipe(
        "tiny",
        f"""
        schema = 1
        name = "tiny"
        [[source]]
        kind = "local"
        path = "{folder}"
        [[output]]
        name = "tiny"
        """,
    )
    for path in [repo.folder, *repo.folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    (wheel,) = world.wheels("tiny")
    assert zipfile.ZipFile(wheel).read("tiny/__init__.py") == (repo.folder / "a.txt").read_bytes()


def test_submodules_nested_relative_selected_and_missing(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    Repo(tmp_path / "up" / "leaf", files={"leaf.txt": "leaf"})
    dep = Repo(tmp_path / "up" / "dep", files={"d.txt": "dep"})
    dep.submodule("../leaf", "leaf")
    repo.submodule("../dep", "third party/dep")
    repo.submodule("../leaf", "direct")
    pinned = pin(outside, repo, submodules="all")
    assert [one.path for one in pinned.submodules] == ["direct", "third party/dep", "third party/dep/leaf"]
    tree = laid(outside, pinned)
    assert (tree / "third party/dep/leaf/leaf.txt").read_text() == "leaf"
    assert source.read(pinned, "third party/dep/leaf/leaf.txt", outside.sources) == b"leaf"
    assert source.read(pinned, "third party/dep/d.txt", outside.sources) == b"dep"
    some = pin(outside, repo, submodules=("direct",))
    assert [one.path for one in some.submodules] == ["direct"]
    tree = laid(outside, some, "some")
    assert (tree / "direct/leaf.txt").exists()
    assert list((tree / "third party/dep").iterdir()) == []
    with pytest.raises(SourceError) as caught:
        pin(outside, repo, submodules=("nope",))
    assert caught.value.code == "submodule-missing"
    assert "direct, third party/dep" in caught.value.cause


def test_a_submodules_commit_that_is_nowhere_is_told(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    dep = Repo(tmp_path / "up" / "dep")
    repo.submodule("../dep", "dep")
    shutil.rmtree(dep.folder)
    Repo(tmp_path / "up" / "dep", files={"other": "history"})
    pinned = pin(outside, repo, submodules=("dep",))
    with pytest.raises(SourceError) as caught:
        source.fetch(pinned, outside.sources)
    assert caught.value.code == "submodule-unreachable"
    shutil.rmtree(dep.folder)
    with pytest.raises(SourceError) as caught:
        source.fetch(pinned, outside.sources)
    assert caught.value.code == "fetch-failed"
    outside.offline = True
    with pytest.raises(SourceError) as caught:
        source.fetch(pinned, outside.sources)
    assert caught.value.code == "offline-unknown"


def test_a_repository_that_was_a_submodule_gets_its_history_when_it_is_built(
    outside: Outside, repo: Repo, tmp_path: Path
) -> None:
    dep = Repo(tmp_path / "up" / "dep")
    first = dep("rev-parse", "HEAD")
    dep("tag", "v0.1")
    dep.commit(x="1")
    repo.submodule("../dep", "dep")
    source.fetch(pin(outside, repo, submodules="all"), outside.sources)
    pinned = pin(outside, dep)
    assert source.contains(pinned, first, outside.sources)
    assert (pinned.describe or "").startswith("v0.1-1-g")


# --- pull requests ---


def test_a_pull_request_is_laid_onto_the_ref(outside: Outside, repo: Repo) -> None:
    old = repo("rev-parse", "HEAD")
    binary = bytes(range(256)) * 8
    head = repo.pull(1, **{"a.txt": "one\ntwo\nTHREE\n", "new/file.txt": "new", "blob.bin": binary})
    main = repo.commit(**{"a.txt": "ONE\ntwo\nthree\n", "other": "x"})
    pinned = pin(outside, repo, pulls=(1,))
    assert pinned.commit == main
    assert [(one.number, one.base, one.head) for one in pinned.pulls] == [(1, old, head)]
    tree = laid(outside, pinned)
    assert (tree / "a.txt").read_text() == "ONE\ntwo\nTHREE\n"
    assert (tree / "blob.bin").read_bytes() == binary
    assert (tree / "new/file.txt").exists()
    assert (tree / "other").exists()
    assert source.read(pinned, "a.txt", outside.sources) == b"ONE\ntwo\nTHREE\n"
    assert pinned.tree != pin(outside, repo).tree


def test_two_pull_requests_and_their_order(outside: Outside, repo: Repo) -> None:
    repo.pull(1, **{"a.txt": "ONE\ntwo\nthree\n"})
    repo.pull(2, b="2")
    both, turned = pin(outside, repo, pulls=(1, 2)), pin(outside, repo, pulls=(2, 1))
    assert both.tree == turned.tree
    assert [one.number for one in turned.pulls] == [2, 1]
    outside.offline = True
    shutil.rmtree(repo.folder)
    assert pin(outside, repo, pulls=(1, 2)).tree == both.tree


def test_a_pull_request_that_conflicts_names_the_files(outside: Outside, repo: Repo) -> None:
    repo.pull(3, **{"a.txt": "one\nTWO\nthree\n", "b.bin": b"\0\1", "fine": "x"})
    repo.commit(**{"a.txt": "one\n2\nthree\n", "b.bin": b"\0\2"})
    with pytest.raises(SourceError) as caught:
        pin(outside, repo, pulls=(3,))
    assert caught.value.code == "pull-conflict"
    assert caught.value.cause.splitlines() == ["a.txt", "b.bin"]
    assert caught.value.run == ("spark-build recipe tiny --ref refs/pull/3/head",)


@pytest.mark.parametrize("way", ["squash", "merge"])
def test_a_pull_request_that_is_merged_changes_nothing(outside: Outside, repo: Repo, way: str) -> None:
    head = repo.pull(4, **{"a.txt": "one\nTWO\nthree\n", "new.txt": "new", "b.bin": b"\0\1"})
    repo.commit(other="x")
    repo("merge", "-q", *(["--squash"] if way == "squash" else ["--no-ff", "-m", "merge"]), head)
    repo.commit(another="y")
    assert pin(outside, repo, pulls=(4,)).tree == pin(outside, repo).tree
    assert any(isinstance(event, Note) and "already" in event.text for event in outside.heard.events)


def test_a_pull_request_that_moves_a_submodule_moves_it(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    dep = Repo(tmp_path / "up" / "dep")
    repo.submodule("../dep", "dep")
    newer = dep.commit(x="newer")
    repo("checkout", "-q", "--detach")
    repo("update-index", "--cacheinfo", f"160000,{newer},dep")
    repo("commit", "-q", "-m", "bump")
    repo("update-ref", "refs/pull/5/head", "HEAD")
    repo("checkout", "-q", "main")
    repo.commit(b="2")
    pinned = pin(outside, repo, pulls=(5,), submodules="all")
    assert pinned.submodules[0].commit == newer
    assert (laid(outside, pinned) / "dep/x").read_text() == "newer"


def test_a_missing_pull_request_is_told(outside: Outside, repo: Repo) -> None:
    with pytest.raises(SourceError) as caught:
        pin(outside, repo, pulls=(99,))
    assert caught.value.code == "ref-missing"


def test_the_users_git_settings_dont_change_a_tree(outside: Outside, repo: Repo) -> None:
    repo.pull(1, **{"a.txt": "one\ntwo\nTHREE\n"})
    plain = pin(outside, repo, pulls=(1,))
    home = outside.root / "home"
    (home / "attributes").write_text("*.txt text eol=crlf\n")
    (home / ".gitconfig").write_text(
        f"[core]\nautocrlf = true\nattributesFile = {home}/attributes\n[diff]\nnoprefix = true\nalgorithm = histogram\n"
        "[apply]\nwhitespace = fix\n[init]\ndefaultBranch = odd\n[commit]\ngpgSign = true\n"
    )
    shutil.rmtree(outside.root / "sources")
    assert dataclasses.replace(pin(outside, repo, pulls=(1,)), asked_at=None) == dataclasses.replace(
        plain, asked_at=None
    )
    assert (laid(outside, plain) / "a.txt").read_bytes() == b"one\ntwo\nTHREE\n"


# --- the tree ---


def test_the_tree_is_what_git_holds(outside: Outside, repo: Repo) -> None:
    (repo.folder / "link").symlink_to("a.txt")
    (repo.folder / "out").symlink_to("/nonexistent/passwd")
    (repo.folder / "run.sh").write_text("#!/bin/sh\n")
    (repo.folder / "run.sh").chmod(0o755)
    files = {
        "dos.txt": b"a\r\nb\r\n",
        "unix.bat": b"a\nb\n",
        "version.txt": b"$Format:%H$ $Id$\n",
        "weights.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    repo.write(**files)
    repo("add", "-A")  # before the attributes: the blobs are these bytes
    attributes = "*.bat eol=crlf\nversion.txt export-subst ident\n*.bin filter=lfs diff=lfs\n"
    repo.commit(**{".gitattributes": attributes})
    pinned = pin(outside, repo)
    tree = laid(outside, pinned)
    for name, content in files.items():
        assert (tree / name).read_bytes() == content, name
        assert source.read(pinned, name, outside.sources) == content
    assert os.fspath((tree / "link").readlink()) == "a.txt"
    assert os.fspath((tree / "out").readlink()) == "/nonexistent/passwd"
    assert source.read(pinned, "link", outside.sources) == b"one\ntwo\nthree\n"
    assert source.read(pinned, "out", outside.sources) is None
    assert source.read(pinned, "nope", outside.sources) is None
    assert source.read(pinned, ".", outside.sources) is None
    assert repo("-C", str(tree), "status", "--porcelain") == ""
    assert os.access(tree / "run.sh", os.X_OK)
    assert not os.access(tree / "a.txt", os.X_OK)


@pytest.mark.root
def test_modes_and_times_dont_depend_on_who_lays_it_out(outside: Outside, repo: Repo) -> None:
    repo.commit(**{"deep/er/x.txt": "x"})
    pinned = pin(outside, repo)
    found = []
    for name, mask, zone in (("one", 0o077, "UTC"), ("two", 0o002, "Asia/Tokyo")):
        old = os.umask(mask)
        outside.env["TZ"] = zone
        try:
            tree = laid(outside, pinned, name)
        finally:
            os.umask(old)
        entries = {
            path.relative_to(tree): path.lstat() for path in [tree, *tree.rglob("*")] if ".git" not in path.parts
        }
        found.append({name: (stat.S_IMODE(one.st_mode), one.st_mtime) for name, one in entries.items()})
    assert found[0] == found[1]
    assert set(found[0].values()) == {(0o755, pinned.time), (0o644, pinned.time)}


def test_history_is_there_for_versions_and_depends_on_the_pin_alone(outside: Outside, repo: Repo) -> None:
    repo("tag", "v1.0")
    commit = repo.commit(b="2")
    pinned = pin(outside, repo)
    repo("tag", "unrelated", "main")
    repo("branch", "later")
    pin(outside, repo, "later")
    tree = laid(outside, pinned)
    words = ("describe", "--dirty", "--tags", "--long", "--match", "*[0-9]*")
    assert repo("-C", str(tree), *words) == f"v1.0-1-g{commit[:9]}"
    assert repo("-C", str(tree), "rev-parse", "HEAD") == commit
    assert repo("-C", str(tree), "for-each-ref", "--format=%(refname)") == "refs/tags/v1.0"
    assert repo("-C", str(tree), "remote", "get-url", "origin") == repo.folder.as_uri()


def test_a_tag_that_comes_later_is_another_source(outside: Outside, repo: Repo) -> None:
    pinned = pin(outside, repo)
    repo("tag", "v1.0")
    outside_again = pin(outside, repo, "v1.0")
    assert outside_again.commit == pinned.commit
    assert outside_again.identity() != pinned.identity()
    repo("tag", "-f", "v1.0", repo.commit(b="2"))
    pin(outside, repo, "v1.0")
    with pytest.raises(SourceError) as caught:
        laid(outside, outside_again)
    assert caught.value.code == "tag-moved"
    assert not (outside.root / "tree").exists()


def test_laying_out_leaves_nothing_on_failure_and_doesnt_touch_what_is_there(outside: Outside, repo: Repo) -> None:
    pinned = pin(outside, repo)
    tree = laid(outside, pinned)
    with pytest.raises(OSError, match="not empty"):
        laid(outside, pinned)
    assert sorted(path.name for path in tree.parent.iterdir()) == ["home", "sources", "tree"]


# --- the mirror ---


def test_a_mirror_that_lost_objects_says_so(outside: Outside, repo: Repo) -> None:
    big = os.urandom(50_000)
    pinned = pin(outside, repo, repo.commit(**{"deep/big.bin": big}))
    mirror = mirrors(outside)[0]
    blob = repo("rev-parse", "HEAD:deep/big.bin")
    packs = list(mirror.rglob("*.pack"))
    for pack in packs:
        moved = pack.rename(mirror / "moved.pack")
        with moved.open("rb") as stream:
            subprocess.run(["git", f"--git-dir={mirror}", "unpack-objects", "-q"], stdin=stream, check=True)
        pack.with_suffix(".idx").unlink()
    (mirror / "objects" / blob[:2] / blob[2:]).unlink()
    for attempt in (lambda: laid(outside, pinned), lambda: source.read(pinned, "deep/big.bin", outside.sources)):
        with pytest.raises(SourceError) as caught:
            attempt()
        assert caught.value.code == "mirror-damaged"
        assert caught.value.run == (f"rm -rf {mirror}", "spark-build fetch tiny") or "NAME" in caught.value.run[1]
    shutil.rmtree(mirror)
    assert (laid(outside, pinned) / "deep/big.bin").read_bytes() == big


@pytest.mark.parametrize("left", ["HEAD.lock", "HEAD", "config.lock", "refs/heads/x"])
def test_a_mirror_that_was_killed_while_it_was_made_is_made_anew(outside: Outside, repo: Repo, left: str) -> None:
    pinned = pin(outside, repo)
    mirror = mirrors(outside)[0]
    shutil.rmtree(mirror)
    (mirror / left).parent.mkdir(parents=True)
    (mirror / left).write_text("")
    assert pin(outside, repo) == pinned


def test_locks_and_halves_of_a_killed_git_are_cleared(outside: Outside, repo: Repo) -> None:
    pin(outside, repo)
    mirror = mirrors(outside)[0]
    left = ("config.lock", "packed-refs.lock", "shallow.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x")
    for name in left:
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_text("")
    commit = repo.commit(b="2")
    assert pin(outside, repo).commit == commit
    assert not [name for name in left if (mirror / name).exists()]


CHILD = """
import sys, time
from pathlib import Path
from builder import source
from tests.source_kit import Outside, git_source, request
outside = Outside(Path(sys.argv[1]))
print("go", flush=True)
pinned = source.pin(git_source(sys.argv[2]), request(), outside.sources, recipe="tiny", base=outside.root)
print(pinned.commit)
"""


def _child(outside: Outside, repo: Repo) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(outside.root), repo.folder.as_uri()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_processes_share_a_mirror(outside: Outside, repo: Repo) -> None:
    commit = repo.commit(**{"big.bin": os.urandom(3_000_000)})
    children = [_child(outside, repo) for _number in range(4)]
    assert [child.communicate()[0].split()[-1] for child in children] == [commit] * 4
    assert len(mirrors(outside)) == 1


def test_a_kill_in_the_middle_of_a_fetch_leaves_a_mirror_that_works(outside: Outside, repo: Repo) -> None:
    commit = repo.commit(**{"big.bin": os.urandom(30_000_000)})
    for delay in (0.02, 0.1, 0.2, 0.35, 0.5):
        with _child(outside, repo) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay)
            child.kill()
    assert pin(outside, repo).commit == commit
    assert not list(mirrors(outside)[0].rglob("tmp_*"))
    words = ["git", f"--git-dir={mirrors(outside)[0]}", "fsck", "--full", "--strict"]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.root
def test_a_full_disk_is_told_as_such(outside: Outside, repo: Repo) -> None:
    commit = repo.commit(**{"big.bin": os.urandom(3_000_000)})
    small = outside.root / "sources"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], check=True)
    try:
        with pytest.raises(HostError) as caught:
            pin(outside, repo)
        assert (caught.value.code, caught.value.exit_code) == ("disk-full", 3)
        assert caught.value.run == ("spark-build gc",)
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert pin(outside, repo).commit == commit
        pinned = pin(outside, repo)
        tree = small / "tree"
        subprocess.run(["mount", "-o", "remount,size=5m", str(small)], check=True)
        with pytest.raises(HostError) as caught:
            source.materialize(pinned, tree, outside.sources)
        assert caught.value.code == "disk-full"
        assert not tree.exists()
        assert not list(small.glob(".tree*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_link_out_of_the_tree_is_refused_wherever_it_leads(outside: Outside, repo: Repo) -> None:
    """The build sees the tree at another place than the one where it is laid out: what dangles here may lead there."""
    (repo.folder / "deep").mkdir()
    (repo.folder / "deep/inside").symlink_to("../a.txt")
    (repo.folder / "deep/dangles").symlink_to("nothing")
    repo.commit()
    pinned = pin(outside, repo)
    assert (laid(outside, pinned) / "deep/inside").read_text() == "one\ntwo\nthree\n"
    (repo.folder / "deep/link.h").symlink_to("../../elsewhere.h")
    repo.commit()
    with pytest.raises(SourceError) as caught:
        laid(outside, pin(outside, repo), "again")
    assert (caught.value.code, caught.value.exit_code) == ("link-outside", 4)
    assert "deep/link.h" in caught.value.summary
    assert "../../elsewhere.h" in caught.value.summary
    assert not (outside.root / "again").exists()


def logged(outside: Outside) -> Path:
    """Put a git before the real one that writes down what it is asked to do."""
    folder, log = outside.root / "bin", outside.root / "asked.log"
    program(folder, "git", f'echo "$@" >> {log}\nexec {shutil.which("git")} "$@"\n')
    outside.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    return log


def test_a_tag_that_is_pushed_later_is_seen_and_deleted_ones_too(outside: Outside, repo: Repo, tmp_path: Path) -> None:
    pin(outside, repo)
    for change in (("tag", "v2.0"), ("tag", "-a", "-m", "note", "v3.0"), ("tag", "-d", "v3.0"), ("tag", "-d", "v2.0")):
        repo(*change)
        found, fresh = pin(outside, repo), pin(Outside(tmp_path / "-".join(change)), repo)
        assert found.identity() == fresh.identity(), change
    repo("tag", "v4.0")
    assert pin(outside, repo).version == "4.0"
    log = logged(outside)
    pin(outside, repo)
    remote = [line for line in log.read_text().splitlines() if "ls-remote" in line or "fetch" in line]
    assert len(remote) == 1, remote


@pytest.mark.root
def test_a_mirror_in_a_folder_of_another_owner_is_used(outside: Outside, repo: Repo) -> None:
    (outside.root / "home").mkdir(parents=True)
    (outside.root / "home/.gitconfig").write_text("[core]\n\texcludesFile = ~/ignored\n")
    outside.mirrors = {"https://host.invalid/tiny": str(repo.folder)}
    for path in [repo.folder, *repo.folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    pinned = pin(outside, "https://host.invalid/tiny")
    assert (laid(outside, pinned) / "a.txt").exists()
    words = ["git", "config", "core.excludesFile"]
    told = subprocess.run(words, env=asking(outside.sources, ""), check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "~/ignored"  # the user's settings hold, too


def test_a_git_without_a_home_asks_too(outside: Outside, repo: Repo) -> None:
    sources = dataclasses.replace(outside.sources, env={"PATH": os.environ["PATH"]})
    found = source.pin(git_source(repo.folder), request(), sources, recipe="tiny", base=outside.root)
    assert found.commit == repo("rev-parse", "HEAD")


LOGIN = "https://b0b:S3CRET@host.invalid/tiny"


def kept(world: World) -> list[Path]:
    """Return the files below the world's root that hold the secret."""
    files = (file for file in world.root.rglob("*") if file.is_file() and not file.is_symlink())
    return [file for file in files if b"S3CRET" in file.read_bytes()]


def test_a_login_on_the_command_line_is_kept_nowhere(world: World) -> None:
    folder = world.tiny_repo()
    world.tiny_recipe()
    (world.config / "config.toml").write_text(f'[mirrors]\n"https://host.invalid/tiny" = "{folder}"\n')
    query = "https://host.invalid/tiny?private_token=S3CRET"
    for words in (
        ("plan", "tiny", "--repo", LOGIN),
        ("recipe", "tiny", "--repo", LOGIN),
        ("recipe", "tiny", "--repo", LOGIN, "--force", "--json"),
        ("recipe", "tiny", f"--repo={LOGIN}", "--ref", "nope"),
        ("recipe", "tiny", "--repo", LOGIN.replace("invalid/tiny", "invalid/other")),
        ("recipe", "tiny", "--repo", query),
        ("history",),
        ("recipes", "new", "fresh", "--from", LOGIN),
        ("recipes", "new", "other", "--from", f"git+{query}"),
    ):
        done = world.run(*words, code=None)
        assert "S3CRET" not in done.stdout + done.stderr, words
        assert kept(world) == [], words
    assert "https://host.invalid/tiny" in (world.recipes / "fresh.toml").read_text()


def test_an_interrupted_run_shows_and_keeps_no_login(world: World) -> None:
    folder = world.tiny_repo(extra="import time\nopen(os.environ['HOME'] + '/go', 'w')\ntime.sleep(60)\n")
    world.tiny_recipe()
    (world.config / "config.toml").write_text(f'[mirrors]\n"https://host.invalid/tiny" = "{folder}"\n')
    words = [str(COMMAND), "recipe", "tiny", "--repo", LOGIN]
    with subprocess.Popen(
        words, env=world.env(), cwd=world.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None and not list(world.wheelhouse.glob("builds/*/home/go")):
            time.sleep(0.05)
        assert kept(world) == []
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert child.returncode == 130
    assert "S3CRET" not in out + err
    assert "spark-build recipe tiny --repo https://host.invalid/tiny" in err
