"""A folder as it is: what counts, what is copied, and that both are the same."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from builder import source
from builder.errors import SourceError
from builder.recipe.model import Source
from tests.source_kit import Outside, Repo, request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "user")


def pin(outside: Outside, folder: Path) -> source.Pin:  # type: ignore[name-defined]
    made = Source(kind="local", path=str(folder))
    return source.pin(made, request(source=folder), outside.sources, recipe="tiny", base=outside.root)


def laid(outside: Outside, pinned: source.Pin, name: str = "tree") -> Path:  # type: ignore[name-defined]
    source.materialize(pinned, outside.root / name, outside.sources)
    return outside.root / name


def names(tree: Path) -> set[str]:
    found = (path.relative_to(tree) for path in tree.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path) for path in found if ".git" not in path.parts}


def test_uncommitted_changes_count_and_ignored_files_dont(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "work", files={".gitignore": "*.o\nbuild/\n", "gone.txt": "x"})
    clean = pin(outside, repo.folder)
    repo.write(**{"x.o": "ignored", "build/y": "ignored"})
    assert pin(outside, repo.folder) == clean
    repo.write(**{"a.txt": "changed", "new ü.txt": "new", "gone.txt": None})
    (repo.folder / "link").symlink_to("a.txt")
    dirty = pin(outside, repo.folder)
    assert dirty.tree != clean.tree
    assert dirty.commit == clean.commit
    tree = laid(outside, dirty)
    assert names(tree) == {".gitignore", "a.txt", "new ü.txt", "link"}
    assert (tree / "a.txt").read_text() == "changed"
    assert {path.lstat().st_mtime for path in tree.iterdir() if path.name != ".git"} == {float(dirty.time)}
    assert source.read(dirty, "a.txt", outside.sources) == b"changed"
    assert source.read(dirty, "nope/x", outside.sources) is None


def test_versions_can_be_made_from_the_copy_and_a_tag_changes_the_pin(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "work")
    untagged = pin(outside, repo.folder)
    repo("tag", "v1.5")
    commit = repo.commit(b="2")
    repo("tag", "unrelated")
    repo.write(**{"a.txt": "dirty"})
    pinned = pin(outside, repo.folder)
    assert pinned.describe == f"v1.5-1-g{commit}"
    tree = laid(outside, pinned)
    assert repo("-C", str(tree), "describe", "--tags", "--dirty") == f"v1.5-1-g{commit[:9]}-dirty"
    assert repo("-C", str(tree), "for-each-ref", "--format=%(refname)") == "refs/tags/v1.5"
    assert repo("-C", str(tree), "status", "--porcelain") == "M a.txt"
    repo("checkout", "-q", "-f", untagged.commit or "")
    assert pin(outside, repo.folder).identity() != untagged.identity()
    assert pin(outside, repo.folder).version == "1.5"


def test_a_linked_work_tree_is_laid_out_like_any_other(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "work")
    repo("tag", "v1.0")
    repo("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    here, there = pin(outside, repo.folder), pin(outside, tmp_path / "linked")
    assert here.identity() == there.identity()
    assert repo("-C", str(laid(outside, there)), "describe", "--tags") == "v1.0"


def test_submodules_and_nested_repositories_belong_to_it(outside: Outside, tmp_path: Path) -> None:
    Repo(tmp_path / "dep", files={".gitignore": "*.o\n", "d.txt": "d"})
    repo = Repo(tmp_path / "work")
    repo.submodule("../dep", "third/dep")
    Repo(repo.folder / "nested", files={"n.txt": "n"})
    first = pin(outside, repo.folder)
    (repo.folder / "third/dep/x.o").write_text("ignored there")
    assert pin(outside, repo.folder).tree == first.tree
    (repo.folder / "third/dep/d.txt").write_text("dirty")
    changed = pin(outside, repo.folder)
    assert changed.tree != first.tree
    tree = laid(outside, changed)
    assert {"third/dep/d.txt", "nested/n.txt", ".gitmodules"} <= names(tree)
    assert "third/dep/x.o" not in names(tree)


def test_a_folder_inside_of_a_repository_has_no_history_of_its_own(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "mono", files={".gitignore": "out/\n", "pkg/x.txt": "x", "other/y.txt": "y"})
    pinned = pin(outside, repo.folder / "pkg")
    repo.commit(**{"other/y.txt": "elsewhere"})
    repo("tag", "v9")
    assert pin(outside, repo.folder / "pkg") == pinned
    assert pinned.commit is None
    assert names(laid(outside, pinned)) == {"x.txt"}
    (repo.folder / "out/pkg").mkdir(parents=True)
    (repo.folder / "out/pkg/z.txt").write_text("in a folder that git ignores")
    assert names(laid(outside, pin(outside, repo.folder / "out/pkg"), "ignored")) == {"z.txt"}


def test_a_plain_folder_is_taken_without_what_tools_leave(outside: Outside, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    for name in (
        "a/b.txt",
        ".venv/x",
        "p/__pycache__/y.pyc",
        "target/CACHEDIR.TAG",
        "target/z",
        "house/catalog.sqlite3",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()
    (folder / "run").write_text("x")
    (folder / "run").chmod(0o711)
    (folder / "out").symlink_to("/nonexistent/passwd")
    os.mkfifo(folder / "pipe")
    pinned = pin(outside, folder)
    assert (pinned.commit, pinned.time) == (None, 315532800)
    tree = laid(outside, pinned)
    assert names(tree) == {"a/b.txt", "run", "out"}
    assert os.fspath((tree / "out").readlink()) == "/nonexistent/passwd"
    assert (tree / "run").stat().st_mode & 0o777 == 0o755
    (folder / "run").chmod(0o644)
    assert pin(outside, folder).tree != pinned.tree


def test_a_store_inside_of_the_folder_is_never_copied_into_itself(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/x.txt").write_text("x")
    inner = Outside(folder / ".cache")
    (inner.root / "sources/git").mkdir(parents=True)
    (inner.root / "sources/git/x").write_text("x")
    house = folder / "wheelhouse"
    (house / "builds").mkdir(parents=True)
    pinned = pin(inner, folder)
    (house / "catalog.sqlite3").write_text("made in between")
    (house / "builds/half").write_text("a build")
    source.materialize(pinned, house / "builds/tree", inner.sources)
    assert names(house / "builds/tree") == {"src/x.txt"}


def test_a_change_between_plan_and_copy_is_seen(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "work")
    for change in (
        lambda: repo.write(**{"a.txt": "later"}),
        lambda: repo.write(new="x"),
        lambda: repo.write(**{"a.txt": None}),
        repo.commit,
        lambda: repo("tag", "v3.0"),
    ):
        pinned = pin(outside, repo.folder)
        change()
        with pytest.raises(SourceError) as caught:
            laid(outside, pinned)
        assert caught.value.code == "source-changed"
        assert not (outside.root / "tree").exists()
        assert not list(outside.root.glob(".tree*"))


def test_a_repository_without_a_commit_is_a_folder(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "seed")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    repo("init", "-q", str(fresh))
    (fresh / "x.txt").write_text("x")
    pinned = pin(outside, fresh)
    assert (pinned.commit, pinned.describe) == (None, None)
    assert names(laid(outside, pinned)) == {"x.txt"}


def test_a_folder_that_isnt_there_or_is_empty_is_told(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, code in ((tmp_path / "nope", "source-folder"), (tmp_path / "empty", "source-empty")):
        with pytest.raises(SourceError) as caught:
            pin(outside, folder)
        assert caught.value.code == code


def test_the_path_of_the_recipe_is_relative_to_it(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    Repo(tmp_path / "with space")
    made = Source(kind="local", path="../with space")
    pinned = source.pin(made, request(), outside.sources, recipe="tiny", base=tmp_path / "recipes")
    assert (laid(outside, pinned) / "a.txt").exists()


@pytest.mark.parametrize("how", ["absolute", "relative", "folder", "chain", "within"])
def test_a_link_out_of_the_folder_is_refused_with_its_target(outside: Outside, tmp_path: Path, how: str) -> None:
    folder, other = tmp_path / "plain", tmp_path / "other"
    (folder / "sub").mkdir(parents=True)
    other.mkdir()
    (folder / "x.txt").write_text("x")
    (other / "data.h").write_text("1")
    if how == "chain":
        (folder / "sub/step").symlink_to("..")
    text = {
        "absolute": str(other / "data.h"),
        "relative": "../../other/data.h",
        "folder": "../../other",
        "chain": "step/../other",
        "within": str(folder / "x.txt"),
    }[how]
    (folder / "sub/link").symlink_to(text)
    with pytest.raises(SourceError) as caught:
        pin(outside, folder)
    assert (caught.value.code, caught.value.exit_code) == ("link-outside", 4)
    assert caught.value.summary == f"the link sub/link leads out of the source, to {text}"
    assert caught.value.help
    assert caught.value.help


def test_names_that_are_no_utf_8_and_nested_repositories_in_any_state(outside: Outside, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "work")
    fresh, gone, deep = repo.folder / "fresh", repo.folder / "gone", repo.folder / "sub/deep"
    for folder in (fresh, gone, deep, repo.folder / "empty"):
        folder.mkdir(parents=True)
        repo("init", "-q", str(folder))
        (folder / "n.txt").write_text("n")
    (repo.folder / "empty/n.txt").unlink()
    shutil.rmtree(gone / ".git")
    (gone / ".git").write_text("gitdir: /nonexistent\n")
    odd = os.fsdecode(b"bad\xff name")
    (repo.folder / odd).write_text("x")
    (deep / odd).write_text("x")
    wanted = {"a.txt", odd, f"sub/deep/{odd}", "sub/deep/n.txt", "fresh/n.txt", "gone/n.txt"}
    pinned = pin(outside, repo.folder)
    assert names(laid(outside, pinned)) == wanted
    (repo.folder / "sub/deep/n.txt").write_text("changed")
    assert pin(outside, repo.folder).tree != pinned.tree
    assert names(laid(outside, pin(outside, repo.folder / "sub"), "sub")) == {f"deep/{odd}", "deep/n.txt"}
