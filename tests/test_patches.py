"""Patches as git and diff write them: tried on what they touch, applied to a tree, with the same outcome."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from builder import patches, source
from builder.errors import PatchDrift, RecipeError, SparkError
from builder.patches import Candidate
from builder.source.unpack import unpack
from builder.values import replace
from tests.source_kit import Outside, Repo, git_source, request, sha256, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import World

ENV = {"PATH": os.environ["PATH"]}
LINES = "".join(f"line {number}\n" for number in range(1, 21))
BINARY = bytes(range(256)) * 4


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    files: dict[str, Any] = {
        "a.txt": LINES,
        "sub/b.py": "x = 1\n",
        "odd ü name.txt": "odd\n",
        "blob.bin": BINARY,
        "crlf.txt": b"a\r\nb\r\nc\r\n",
    }
    return Repo(tmp_path / "up", files={**files, "run.sh": "#!/bin/sh\n", "noend.txt": "no end", "gone.txt": "x\n"})


def diff(repo: Repo, *flags: str, **files: Any) -> bytes:  # noqa: ANN401  # as `Repo.write` takes them
    """Return the patch that makes these changes; the repository stays as it is."""
    repo.write(**files)
    repo("add", "-A")
    done = subprocess.run(
        ["git", "diff", "--cached", "--binary", "-M", *flags], cwd=repo.folder, check=True, capture_output=True
    )
    repo("reset", "-q", "--hard")
    return done.stdout


def candidate(tmp_path: Path, data: bytes, name: str = "p", on_upstream: str = "skip") -> Candidate:
    file = tmp_path / f"{name}.patch"
    file.write_bytes(data)
    return Candidate(id=name, file=file, sha256=sha256(data), on_upstream=on_upstream)


def reader(tree: Path) -> Callable[[str], bytes | None]:
    return lambda path: (tree / path).read_bytes() if (tree / path).is_file() else None


def tried(tree: Path, *candidates: Candidate) -> patches.Evaluation:
    return patches.evaluate(candidates, reader(tree), scratch=tree.parent / "scratch", env=ENV)


def unpacked(repo: Repo, tmp_path: Path) -> Path:
    """The repository's tree as an sdist would give it: no .git."""
    data = {f"up-1/{name}": (repo.folder / name).read_bytes() for name in repo("ls-files", "-z").split("\0") if name}
    (tmp_path / "up-1.tar.gz").write_bytes(tar_of(data))
    unpack(tmp_path / "up-1.tar.gz", tmp_path / "tree", epoch=1_600_000_000)
    return tmp_path / "tree"


def contents(tree: Path) -> dict[str, bytes]:
    found = (path for path in tree.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(tree)): path.read_bytes() for path in found}


def _set_mode(repo: Repo) -> bytes:
    (repo.folder / "run.sh").chmod(0o755)
    return diff(repo)


def _dashes(repo: Repo) -> bytes:
    """Lines of a hunk that look like the head of a file."""
    repo.commit(**{"sql.txt": "-- /etc/passwd\n-- ../x\nselect\n"})
    return diff(repo, **{"sql.txt": "++ /etc/x\nselect\n"})


CHANGES: dict[str, Callable[[Repo], bytes]] = {
    "edit": lambda repo: diff(repo, **{"a.txt": LINES.replace("line 7\n", "LINE 7\n")}),
    "new": lambda repo: diff(repo, **{"fresh/new.txt": "new\n", "fresh/empty": ""}),
    "delete": lambda repo: diff(repo, **{"gone.txt": None, "sub/b.py": None}),
    "rename": lambda repo: diff(repo, **{"a.txt": None, "moved/a2.txt": LINES.replace("line 3\n", "LINE 3\n")}),
    "binary": lambda repo: diff(repo, **{"blob.bin": BINARY + b"more"}),
    "odd-name": lambda repo: diff(repo, **{"odd ü name.txt": "changed\n"}),
    "crlf": lambda repo: diff(repo, **{"crlf.txt": b"a\r\nB\r\nc\r\n"}),
    "no-newline": lambda repo: diff(repo, **{"noend.txt": "still no end"}),
    "mode": _set_mode,
    "no-context": lambda repo: diff(repo, "-U1", **{"a.txt": LINES.replace("line 7\n", "")}),
    "dashes": _dashes,
}


def change_of(repo: Repo, kind: str) -> bytes:
    return CHANGES[kind](repo)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("where", ["git", "sdist"])
def test_what_git_can_say_is_applied_and_then_known_as_there(tmp_path: Path, repo: Repo, kind: str, where: str) -> None:
    one = candidate(tmp_path, change_of(repo, kind))
    repo("apply", "--index", "--binary", str(one.file))
    expected, executable = contents(repo.folder), os.access(repo.folder / "run.sh", os.X_OK)
    repo("reset", "-q", "--hard")
    tree = unpacked(repo, tmp_path) if where == "sdist" else _laid(repo, tmp_path)
    found = tried(tree, one)
    assert ([applied.id for applied in found.applied], found.skipped) == (["p"], ())
    for path, data in found.files.items():
        assert expected[path] == data
    times = {path.lstat().st_mtime for path in tree.rglob("*") if ".git" not in path.parts}
    patches.apply([one], tree, env=ENV)
    assert contents(tree) == expected
    assert os.access(tree / "run.sh", os.X_OK) == executable
    assert {path.lstat().st_mtime for path in [tree, *tree.rglob("*")] if ".git" not in path.parts} == times
    again = tried(tree, one)
    if kind != "mode":  # one that is set already is no difference to git apply
        assert (again.applied, again.skipped) == ((), ("p",))
    assert not [path for path in tree.parent.iterdir() if ".patches-" in path.name]


def _laid(repo: Repo, tmp_path: Path) -> Path:
    outside = Outside(tmp_path / "user")
    pinned = source.pin(git_source(repo.folder), request(), outside.sources, recipe="tiny", base=tmp_path)
    source.materialize(pinned, tmp_path / "tree", outside.sources)
    return tmp_path / "tree"


def test_other_line_numbers_are_fine_and_fuzz_isnt(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, change_of(repo, "edit"))
    repo.commit(**{"a.txt": "above\n" * 30 + LINES})
    assert tried(repo.folder, one).applied
    repo.commit(**{"a.txt": LINES.replace("line 4\n", "line four\n")})  # the outermost line of context
    with pytest.raises(PatchDrift):
        tried(repo.folder, one)


def test_drift_shows_file_and_hunk_with_what_is_wanted_and_what_is_there(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, diff(repo, **{"a.txt": LINES.replace("line 2\n", "2\n").replace("line 15\n", "15\n")}))
    repo.commit(**{"a.txt": LINES.replace("line 15\n", "line fifteen\n")})
    tree = unpacked(repo, tmp_path)
    before = contents(tree)
    for attempt in (lambda: tried(tree, one), lambda: patches.apply([one], tree, env=ENV)):
        with pytest.raises(PatchDrift) as caught:
            attempt()
        error = caught.value
        assert (error.code, error.exit_code) == ("patch-drift", 2)
        assert error.cause.startswith("a.txt:12: wanted:")
        wanted, _found, there = error.cause.partition("found:")
        assert "  line 15" in wanted
        assert "  line fifteen" in there
        assert f"git apply --check {one.file}" in error.run
    assert contents(tree) == before


def test_drift_that_lines_dont_show_is_told_in_words(tmp_path: Path, repo: Repo) -> None:
    data = diff(repo, **{"crlf.txt": b"a\r\nB\r\nc\r\n"})
    with pytest.raises(PatchDrift) as ends:
        tried(repo.folder, candidate(tmp_path, data.replace(b"\r\n", b"\n")))
    assert ends.value.cause.endswith("crlf.txt has other line ends (CR LF or LF) than the patch")
    repo.write(**{"blob.bin": BINARY + b"more"})
    bare = repo("diff").encode() + b"\n"
    repo("checkout", "-q", ".")
    with pytest.raises(PatchDrift) as binary:
        tried(repo.folder, candidate(tmp_path, bare))
    assert binary.value.cause.startswith("cannot apply binary patch to 'blob.bin' without full index line")


@pytest.mark.parametrize("kind", ["delete", "rename", "new", "binary"])
def test_drift_of_whole_files_is_told(tmp_path: Path, repo: Repo, kind: str) -> None:
    one = candidate(tmp_path, change_of(repo, kind))
    repo.commit(**{"gone.txt": None, "a.txt": None, "fresh/new.txt": "other\n", "blob.bin": b"\0other"})
    with pytest.raises(PatchDrift) as caught:
        tried(repo.folder, one)
    assert caught.value.cause


def test_several_go_in_order_and_all_or_none(tmp_path: Path, repo: Repo) -> None:
    first = candidate(tmp_path, change_of(repo, "edit"), "first")
    repo("apply", str(first.file))
    repo.commit()
    second = candidate(
        tmp_path, diff(repo, **{"a.txt": (repo.folder / "a.txt").read_text().replace("LINE 7", "7")}), "second"
    )
    repo("reset", "-q", "--hard", "HEAD~1")
    tree = unpacked(repo, tmp_path)
    assert [one.id for one in tried(tree, first, second).applied] == ["first", "second"]
    assert b"\n7\n" in tried(tree, first, second).files["a.txt"]
    before = contents(tree)
    with pytest.raises(PatchDrift) as caught:
        tried(tree, second, first)
    assert "second" in caught.value.summary
    repo.write(**{"sub/b.py": "y = 2\n"})
    bad = candidate(tmp_path, change_of(repo, "edit").replace(b"line 8", b"line eight"), "bad")
    with pytest.raises(PatchDrift):
        patches.apply([first, bad], tree, env=ENV)
    assert contents(tree) == before
    patches.apply([first, second], tree, env=ENV)
    assert b"\n7\n" in (tree / "a.txt").read_bytes()


def test_merged_upstream_is_skipped_and_a_revert_brings_it_back(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, change_of(repo, "edit"))
    repo("apply", str(one.file))
    repo.commit()
    assert tried(repo.folder, one).skipped == ("p",)
    with pytest.raises(RecipeError) as caught:
        tried(repo.folder, candidate(tmp_path, one.file.read_bytes(), on_upstream="fail"))
    assert caught.value.code == "patch-upstream"
    repo("revert", "--no-edit", "HEAD")
    assert [applied.id for applied in tried(repo.folder, one).applied] == ["p"]


def test_code_that_repeats_itself_doesnt_hide_that_a_patch_is_there(tmp_path: Path, repo: Repo) -> None:
    block = "def f():\n    one()\n    two()\n    return\n"
    repo.commit(**{"r.py": block + "\n" * 5 + block})
    one = candidate(tmp_path, diff(repo, **{"r.py": block.replace("two()", "two()\n    extra()") + "\n" * 5 + block}))
    assert tried(repo.folder, one).applied
    repo("apply", str(one.file))
    repo.commit()
    assert tried(repo.folder, one).skipped == ("p",)


def test_half_of_it_upstream_is_drift(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, diff(repo, **{"a.txt": LINES.replace("line 7\n", "7\n"), "sub/b.py": "x = 2\n"}))
    repo.commit(**{"sub/b.py": "x = 2\n"})
    with pytest.raises(PatchDrift):
        tried(repo.folder, one)


def test_a_mail_with_a_patch_and_a_plain_diff_are_read(tmp_path: Path, repo: Repo) -> None:
    repo.commit(**{"a.txt": LINES.replace("line 7\n", "LINE 7\n")})
    mail = candidate(tmp_path, repo("format-patch", "-1", "--stdout").encode() + b"\n", "mail")
    repo("reset", "-q", "--hard", "HEAD~1")
    plain = b"--- a/sub/b.py\t2024-01-01 00:00:00\n+++ b/sub/b.py\t2024-01-02 00:00:00\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    both = [mail, candidate(tmp_path, plain, "plain")]
    assert [one.id for one in tried(repo.folder, *both).applied] == ["mail", "plain"]


def edit(path: str, *, mode: str = "100644") -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1234567\n--- /dev/null\n+++ b/{path}\n"
        "@@ -0,0 +1 @@\n+x\n"
    ).encode()


BAD = {
    "parent": (edit("../out"), "patch-path"),
    "absolute": (b"--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n", "patch-path"),
    "git": (edit(".git/config"), "patch-path"),
    "nested-git": (edit("third/.GIT/hooks/x"), "patch-path"),
    "link": (edit("ln", mode="120000"), "patch-link"),
    "submodule": (edit("sm", mode="160000"), "patch-link"),
    "empty": (b"", "patch-empty"),
    "text": (b"only words\n", "patch-empty"),
    "cut": (edit("x").replace(b"+1 @@", b"+1,9 @@"), "patch-broken"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_patch_that_cant_be_is_refused(tmp_path: Path, repo: Repo, name: str) -> None:
    data, code = BAD[name]
    tree = unpacked(repo, tmp_path)
    before = contents(tmp_path)
    one = candidate(tmp_path, data)
    for attempt in (lambda: tried(tree, one), lambda: patches.apply([one], tree, env=ENV)):
        with pytest.raises(RecipeError) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit_code) == (code, 2)
        assert caught.value.run
    assert {name: data for name, data in contents(tmp_path).items() if not name.endswith("p.patch")} == before


def test_another_digest_or_no_file_is_refused(tmp_path: Path, repo: Repo) -> None:
    good = candidate(tmp_path, change_of(repo, "edit"))
    good.file.write_bytes(good.file.read_bytes() + b"\n")
    for file, code in ((good.file, "patch-hash"), (tmp_path / "none.patch", "patch-missing")):
        with pytest.raises(RecipeError) as caught:
            tried(repo.folder, Candidate(id="p", file=file, sha256=good.sha256, on_upstream="skip"))
        assert caught.value.code == code


@pytest.mark.parametrize("link", ["file", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, repo: Repo, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.py").write_text("x = 1\n")
    one = candidate(tmp_path, diff(repo, **{"sub/b.py": "x = 2\n"}))
    tree = unpacked(repo, tmp_path)
    (tree / "sub/b.py").unlink()
    if link == "file":
        (tree / "sub/b.py").symlink_to(outside / "b.py")
    else:
        (tree / "sub").rmdir()
        (tree / "sub").symlink_to(outside)
    with pytest.raises(SparkError) as caught:
        patches.apply([one], tree, env=ENV)
    assert caught.value.code == "patch-link"
    assert (outside / "b.py").read_text() == "x = 1\n"


def test_a_repository_around_the_tree_has_no_say(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, change_of(repo, "edit"))
    around = Repo(tmp_path / "around", files={".gitignore": "builds/\n", ".gitattributes": "* text eol=crlf\n"})
    tree = around.folder / "builds" / "tree"
    tree.parent.mkdir()
    unpacked(repo, tmp_path).rename(tree)
    (tree / ".gitattributes").write_text("*.txt text eol=crlf whitespace=error\n")
    assert tried(tree, one).applied
    patches.apply([one], tree, env=ENV)
    assert (tree / "a.txt").read_bytes() == LINES.replace("line 7\n", "LINE 7\n").encode()


def test_every_umask_gives_the_same_modes(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, change_of(repo, "new"))
    tree = unpacked(repo, tmp_path)
    old = os.umask(0o077)
    try:
        patches.apply([one], tree, env=ENV)
    finally:
        os.umask(old)
    assert (tree / "fresh").stat().st_mode & 0o777 == 0o755
    assert (tree / "fresh/new.txt").stat().st_mode & 0o777 == 0o644


def test_a_file_that_a_patch_deletes_is_told_as_touched(repo: Repo, tmp_path: Path) -> None:
    found = tried(unpacked(repo, tmp_path), candidate(tmp_path, diff(repo, **{"gone.txt": None, "a.txt": "new\n"})))
    assert set(found.touched) == {"gone.txt", "a.txt"}
    assert dict(found.files) == {"a.txt": b"new\n"}


def test_a_pyproject_that_a_patch_deletes_asks_for_nothing(world: World) -> None:
    folder = world.tiny_repo()
    text = (folder / "pyproject.toml").read_text().replace("requires = []", 'requires = ["nowhere-to-be-found"]')
    (folder / "pyproject.toml").write_text(text)
    world.git(folder, "commit", "-qam", "second")
    (folder / "pyproject.toml").unlink()
    data = world.git(folder, "diff") + "\n"
    world.git(folder, "checkout", "-q", ".")
    (world.patches / "tiny").mkdir()
    (world.patches / "tiny/gone.patch").write_text(data)
    patch = f'[[patch]]\nid = "gone"\nfile = "gone.patch"\nsha256 = "{sha256(data.encode())}"\n'
    world.tiny_recipe(more=f'[build]\nrequires-remove = ["setuptools"]\n{patch}')
    world.run("plan", "tiny", code=10, UV_DEFAULT_INDEX="file:///nonexistent", UV_OFFLINE="1")


def test_what_a_merge_makes_is_part_of_the_plan(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, diff(repo, **{"a.txt": LINES.replace("line 7\n", "LINE 7\n")}))
    commit = repo.commit(**{"a.txt": LINES.replace("line 5\n", "line five\n")})
    git = repo.folder / ".git"
    how: dict[str, Any] = {"scratch": tmp_path / "scratch", "env": ENV}
    with pytest.raises(PatchDrift):
        patches.evaluate([one], reader(repo.folder), **how)  # nobody knows what it was made from
    found = patches.evaluate([one], reader(repo.folder), objects=git, commit=commit, **how)
    (applied,) = found.applied
    assert found.verdicts[0].kind == "3-way"
    assert b"line five\nline 6\nLINE 7\n" in found.files["a.txt"]
    tree = _laid(repo, tmp_path)
    before = contents(tree)
    with pytest.raises(PatchDrift) as caught:
        patches.apply([one], tree, env=ENV)  # a plan without a merge gets none
    assert caught.value.code == "patch-drift"
    with pytest.raises(PatchDrift) as caught:
        patches.apply([replace(one, result="0" * 64)], tree, env=ENV)
    assert caught.value.code == "patch-result"
    assert contents(tree) == before
    patches.apply([replace(one, result=applied.result)], tree, env=ENV)
    assert (tree / "a.txt").read_bytes() == found.files["a.txt"]
    assert not [path for path in tree.parent.iterdir() if ".patches-" in path.name or ".merge-" in path.name]


def test_a_merge_with_a_conflict_is_drift(tmp_path: Path, repo: Repo) -> None:
    one = candidate(tmp_path, change_of(repo, "edit"))
    commit = repo.commit(**{"a.txt": LINES.replace("line 7\n", "line seven\n")})
    with pytest.raises(PatchDrift) as caught:
        patches.evaluate(
            [one],
            reader(repo.folder),
            scratch=tmp_path / "scratch",
            env=ENV,
            objects=repo.folder / ".git",
            commit=commit,
        )
    assert "line seven" in caught.value.cause
