"""Patches made, renewed and kept: from an editable tree, from the kept workspace of a build, by a merge."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import UsageError
from builder.pipeline.overlay import with_patch
from tests.patch_kit import LINES, changed, diff, entry, recipe, upstream, verdicts
from tests.source_kit import sha256

if TYPE_CHECKING:
    from tests.source_kit import Repo
    from tests.world import World

EDIT = {"lib/a.txt": changed(LINES, l20="LINE 20")}


@pytest.fixture
def repo(world: World) -> Repo:
    return upstream(world, **{".gitignore": "*.o\n"})


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_new_edit_save_build(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "first", diff(repo, **EDIT)))
    made = world.run("patch", "new", "tiny", "second")
    tree = Path(made.stdout.strip())
    assert "then: spark-build patch save tiny second" in made.stderr
    assert "LINE 20" in (tree / "lib/a.txt").read_text()
    assert world.git(tree, "status", "--porcelain") == ""
    edit(tree / "src/__init__.py", "VALUE = 1", "VALUE = 2")
    (tree / "src/new.py").write_text("NEW = 1\n")
    (tree / "src/made.o").write_text("ignored\n")
    saved = world.run("patch", "save", "tiny", "second", "--upstream", "https://example.org/1", "--license", "MIT")
    file = Path(saved.stdout.strip())
    assert file == world.patches / "tiny/second.patch"
    text = (world.recipes / "tiny.toml").read_text()
    assert f"# Made from {repo.folder.as_uri()}" in text
    assert f'id = "second"\nfile = "second.patch"\nsha256 = "{sha256(file.read_bytes())}"\n' in text
    assert 'upstream = "https://example.org/1"\nlicense = "MIT"\n' in text
    digest = sha256(file.read_bytes())
    assert b"made.o" not in file.read_bytes()
    assert [one["verdict"] for one in verdicts(world).values()] == ["applies", "applies"]
    (wheel,) = world.wheels("tiny")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("tiny/__init__.py") == b"VALUE = 2\n"
    # Edited on and saved again: the entry stays one, its digest is new.
    edit(tree / "src/__init__.py", "VALUE = 2", "VALUE = 3")
    world.run("patch", "save", "tiny", "second")
    after = (world.recipes / "tiny.toml").read_text()
    assert after == text.replace(digest, sha256(file.read_bytes()))
    exists = world.run("patch", "new", "tiny", "second", code=2)
    assert "spark-build patch refresh tiny second --edit" in exists.stderr


def test_an_unsaved_tree_is_never_made_over(world: World, repo: Repo) -> None:
    recipe(world, repo)
    tree = Path(world.run("patch", "new", "tiny", "p").stdout.strip())
    world.run("patch", "new", "tiny", "p")  # nothing was changed in it
    edit(tree / "lib/a.txt", "line 3\n", "three\n")
    refused = world.run("patch", "new", "tiny", "p", code=2)
    assert "error[tree-unsaved]" in refused.stderr
    assert "spark-build patch save tiny p" in refused.stderr
    world.run("patch", "save", "tiny", "p", "--into", "elsewhere")
    world.run("patch", "new", "tiny", "p")
    assert (world.root / "elsewhere/patches/tiny/p.patch").is_file()
    assert "[[patch]]" in (world.root / "elsewhere/tiny.toml").read_text()
    assert "[[patch]]" not in (world.recipes / "tiny.toml").read_text()


def test_what_cant_be_a_patch_isnt_saved(world: World, repo: Repo) -> None:
    recipe(world, repo)
    nothing = world.run("patch", "save", "tiny", "p", code=2)
    assert "nothing was built" in nothing.stderr
    tree = Path(world.run("patch", "new", "tiny", "p").stdout.strip())
    assert "error[patch-empty]" in world.run("patch", "save", "tiny", "p", code=2).stderr
    (tree / "link").symlink_to("lib")
    assert "error[patch-link]" in world.run("patch", "save", "tiny", "p", code=2).stderr
    assert not (world.patches / "tiny").exists() or not list((world.patches / "tiny").iterdir())
    for words in (("new", "tiny", "../p"), ("save", "tiny", "../p"), ("save", "tiny", "../p", "--kept")):
        assert "error[patch-id]" in world.run("patch", *words, code=2).stderr


def test_commands_at_once_lose_nothing_and_a_linked_recipe_stays_linked(world: World, repo: Repo) -> None:
    file = recipe(world, repo)
    kept = world.root / "settings.toml"
    before = file.read_bytes().replace(b"\n", b"\r\n")  # as an editor elsewhere writes lines
    kept.write_bytes(before)
    file.unlink()
    file.symlink_to(kept)
    names = ("a", "b", "c")
    with ThreadPoolExecutor() as pool:
        trees = list(pool.map(lambda name: world.run("patch", "new", "tiny", name).stdout.strip(), (*names, *names)))
        for name, tree in zip(names, trees, strict=False):
            Path(tree, f"src/{name}.py").write_text("NEW = 1\n")
        list(pool.map(lambda name: world.run("patch", "save", "tiny", name), names))
    assert file.is_symlink()
    assert kept.read_bytes().startswith(before)
    assert sorted(line for line in kept.read_text().splitlines() if line.startswith("id = ")) == [
        f'id = "{name}"' for name in names
    ]
    assert {one["verdict"] for one in verdicts(world).values()} == {"applies"}


def test_refresh_makes_a_merged_and_a_moved_one_anew(world: World, repo: Repo) -> None:
    text = "".join(f"{word} = {number}\n" for number, word in enumerate("abcdefgh"))
    repo.commit(**{"src/mod.py": text})
    other = entry(world, "other", diff(repo, **EDIT))
    change = diff(repo, **{"src/mod.py": text.replace("h = 7", "h = 77")})
    recipe(world, repo, entry(world, "p", change), other)
    assert "nothing to make anew" in world.run("patch", "refresh", "tiny", "p").stderr
    repo.commit(**{"src/mod.py": text.replace("f = 5", "f = 55")})
    assert verdicts(world)["p"]["verdict"] == "3-way"
    world.run("patch", "refresh", "tiny", "p")
    assert verdicts(world)["p"]["verdict"] == "applies"
    repo.commit(**{"src/mod.py": None, "lib/moved.py": text.replace("f = 5", "f = 56")})
    assert verdicts(world, code=2)["p"]["moved"] == {"src/mod.py": "lib/moved.py"}
    saved = world.json("patch", "refresh", "tiny", "p")
    assert saved["saved"]["added"] is False
    assert b"+++ b/lib/moved.py" in Path(saved["saved"]["file"]).read_bytes()
    found = verdicts(world)
    assert [(name, one["verdict"]) for name, one in found.items()] == [("p", "applies"), ("other", "applies")]


def test_refresh_leaves_conflicts_to_somebody_and_save_goes_on(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    repo.commit(**{"lib/a.txt": changed(LINES, l20="line twenty")})
    left = world.run("patch", "refresh", "tiny", "p", code=2)
    assert "error[patch-conflict]" in left.stderr
    assert "spark-build patch save tiny p" in left.stderr
    tree = world.wheelhouse / "patching/tiny/p"
    text = (tree / "lib/a.txt").read_text()
    assert "<<<<<<< the source\nline twenty\n=======\nLINE 20\n>>>>>>> the patch p\n" in text
    early = world.run("patch", "save", "tiny", "p", code=2)
    assert "error[patch-markers]" in early.stderr
    assert "lib/a.txt:20" in early.stderr
    assert "error[tree-unsaved]" in world.run("patch", "refresh", "tiny", "p", code=2).stderr
    (tree / "lib/a.txt").write_text(changed(LINES, l20="LINE twenty"))
    world.run("patch", "save", "tiny", "p")
    assert verdicts(world)["p"]["verdict"] == "applies"
    assert b"-line twenty\n+LINE twenty" in (world.patches / "tiny/p.patch").read_bytes()


def test_a_patch_without_known_contents_leaves_its_rejects(world: World, repo: Repo) -> None:
    data = diff(repo, **{"lib/a.txt": changed(LINES, l5="5", l20="20")})
    plain = b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b"index "))
    recipe(world, repo, entry(world, "p", plain))
    repo.commit(**{"lib/a.txt": changed(LINES, l20="line twenty")})
    left = world.run("patch", "refresh", "tiny", "p", code=2)
    assert "lib/a.txt.rej" in left.stderr
    tree = world.wheelhouse / "patching/tiny/p"
    assert (tree / "lib/a.txt").read_text() == changed(LINES, l5="5", l20="line twenty")
    assert "error[patch-rejects]" in world.run("patch", "save", "tiny", "p", code=2).stderr
    (tree / "lib/a.txt.rej").unlink()
    world.run("patch", "save", "tiny", "p")
    assert verdicts(world)["p"]["verdict"] == "applies"


def test_a_shipped_patch_is_changed_by_the_users_own_layer(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    before = (world.recipes / "tiny.toml").read_text()
    (world.root / "mine").mkdir()
    (world.root / "mine/tiny.toml").write_text("# my own\nschema = 1  # as all\n")
    tree = Path(world.run("patch", "refresh", "tiny", "p", "--edit").stdout.strip())
    assert "LINE 20" in (tree / "lib/a.txt").read_text()
    assert "+LINE 20" in world.git(tree, "diff")
    edit(tree / "lib/a.txt", "LINE 20", "LINE zwanzig")
    world.run("patch", "save", "tiny", "p", "--into", "mine")
    assert (world.recipes / "tiny.toml").read_text() == before
    text = (world.root / "mine/tiny.toml").read_text()
    assert text.startswith("# my own\nschema = 1  # as all\n\n# Made from ")


OVERLAY = """\
# what this is for
schema = 1

[[patch]]
id = "other"
sha256 = "1"

[[patch]]  # mine
id = "p"
  sha256 = 'old'  # of Monday
about = "why"
"""


def test_an_entry_is_changed_in_its_lines_and_nothing_else_is() -> None:
    new = {"id": "p", "file": "p.patch", "sha256": "new"}
    made = with_patch(OVERLAY, new, recipe="tiny", file=Path("tiny.toml"))
    wanted = OVERLAY.replace("'old'", '"new"').replace('id = "p"\n', 'id = "p"\nfile = "p.patch"\n')
    assert made == wanted
    added = with_patch(OVERLAY, {"id": "q", "sha256": "x"}, recipe="tiny", file=Path("tiny.toml"), comment="c")
    assert added == OVERLAY + '\n# c\n[[patch]]\nid = "q"\nsha256 = "x"\n'
    for odd in ('patch = [{ id = "p", sha256 = "old" }]\n', 'patch = [{ id = "o" }]\n'):
        with pytest.raises(UsageError) as caught:
            with_patch(odd, new, recipe="tiny", file=Path("tiny.toml"))
        assert caught.value.code == "overlay-edit"
        assert '[[patch]]\nid = "p"' in caught.value.cause


def test_an_entry_of_a_variant_stays_in_it() -> None:
    new = {"id": "p", "file": "p.patch", "sha256": "new"}
    laid = partial(with_patch, recipe="tiny", file=Path("tiny.toml"), variant="more")
    made = laid(OVERLAY, new)
    block = '[[variant.recipe.patch]]\nid = "p"\nfile = "p.patch"\nsha256 = "new"\n'
    assert made == OVERLAY + '\n[[variant]]\nid = "more"\n\n' + block
    assert laid(made, {**new, "sha256": "newer"}) == made.replace('"new"', '"newer"')
    assert laid(OVERLAY + '\n[[variant]]\nid = "more"\n', new).endswith(f'id = "more"\n\n{block}')
    with pytest.raises(UsageError) as caught:  # the end of the file belongs to another variant
        laid(OVERLAY + '[[variant]]\nid = "more"\n[[variant]]\nid = "other"\n', new)
    assert (caught.value.code, caught.value.cause) == ("overlay-edit", block.rstrip())


def test_a_patch_of_a_variant_is_made_anew_in_it(world: World, repo: Repo) -> None:
    made = entry(world, "p", diff(repo, **EDIT)).replace("[[patch]]", "[[variant.recipe.patch]]")
    recipe(world, repo, '[[variant]]\nid = "more"\nabout = "x"\n', made)
    repo.commit(**{"lib/a.txt": None, "lib/b.txt": LINES})
    told = world.run("patch", "status", "tiny", code=2)
    assert "spark-build patch refresh tiny p --with more" in told.stderr
    assert "error[patch-variant]" in world.run("patch", "refresh", "tiny", "p", code=2).stderr
    world.run("patch", "refresh", "tiny", "p", "--with", "more")
    assert verdicts(world)["p"]["text"] == "only --with more"
    assert verdicts(world, "--with", "more")["p"]["verdict"] == "applies"
