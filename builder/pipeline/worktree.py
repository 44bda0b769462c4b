"""A tree to make a patch in: a source with the patches before it as one commit, and what is changed since as the patch.

It lies at ``<wheelhouse>/patching/<recipe>/<patch>``; ``.git/spark-build.json`` says what it was made from. It stays until
somebody deletes it or makes it again, and what isn't saved is never made again over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import HostError, UsageError
from builder.events import Note
from builder.patch.bench import environment
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder import patches, source
    from builder.pipeline.world import World
    from builder.stages import Pin

__all__ = ["Tree", "alone", "changes", "make", "opened", "place", "require_free"]

_MARK = ".git/spark-build.json"

#: No line ends or filters of a ``.gitattributes`` have a say.
_ATTRIBUTES = "* -text -eol -crlf -ident -filter -working-tree-encoding !diff !merge !whitespace\n"

_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "spark-build"), ("EMAIL", "spark-build@invalid"), ("DATE", "@0 +0000"))
}

_ID = re.compile(r"[A-Za-z0-9]+(?:[-_.+][A-Za-z0-9]+)*")

#: What a merge leaves where somebody has to choose.
_MARKER = re.compile(rb"^\+(?:<<<<<<< |>>>>>>> )", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree in which the patch `id` of `recipe` is made: `base` is the commit that it starts from, `source` for people.

    `variant` names the recipe's variant that brings the patch, where one does.
    """

    root: Path
    recipe: str
    id: str
    base: str
    source: str
    env: dict[str, str]
    variant: str = ""

    def git(self, *words: str, **more: str) -> proc.Finished:
        """Run git in the tree; nobody's settings have a say."""
        env = {**environment(self.env, self.root), **_NOBODY, **more}
        return proc.capture(["git", "-c", "safe.directory=*", *words], env=env, cwd=self.root)

    def read(self, path: str) -> bytes | None:
        """Return a file as it was before the patch."""
        done = self.git("cat-file", "blob", f"{self.base}:{path}")
        return done.raw if done.ok else None


def place(world: World, recipe: str, name: str) -> Path:
    """Return where the tree of a patch lies. Raises UsageError ``patch-id`` for a name that would lead elsewhere."""
    if not _ID.fullmatch(name):
        raise UsageError("patch-id", f"{name} can't name a patch", help="words joined by -, such as fix-fp4")
    return world.house.root / "patching" / recipe / name


@contextlib.contextmanager
def alone(world: World, recipe: str) -> Iterator[None]:
    """Hold the right to make trees of a recipe's patches, and to write its entries; others wait."""

    def wait(holder: str) -> None:
        world.sink.emit(Note(level="info", text=f"waiting for another patch command of {recipe}: {holder}"))

    with world.house.build_lock(f"patches-{recipe}", on_wait=wait):
        yield


def opened(world: World, recipe: str, name: str) -> Tree | None:
    """Return the tree of a patch, or None where there is none."""
    root = place(world, recipe, name)
    try:
        told = json.loads((root / _MARK).read_bytes())
        base, text, variant = str(told["base"]), str(told["source"]), str(told["variant"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Tree(root=root, recipe=recipe, id=name, base=base, source=text, env=dict(world.env), variant=variant)


def require_free(world: World, recipe: str, name: str) -> None:
    """Raise UsageError ``tree-unsaved`` where the patch's tree holds changes that no patch file has."""
    tree = opened(world, recipe, name)
    if tree is None or not (data := _diff(tree)) or _saved(tree) == sha256_bytes(data):
        return
    raise UsageError(
        "tree-unsaved",
        f"the tree of the patch {name} holds changes that aren't saved",
        cause=str(tree.root),
        help="save them, or delete the tree",
        run=(f"spark-build patch save {recipe} {name}", f"rm -rf {tree.root}"),
    )


def make(
    pin: Pin,
    before: Sequence[patches.Candidate],
    *,
    recipe: str,
    name: str,
    text: str,
    variant: str,
    sources: source.Sources,
    world: World,
) -> Tree:
    """Leave the source `pin` with the patches `before` as a repository of one commit, and return it; an older one goes.

    `text` tells people what it is; `variant` is that which brings the patch, if any.
    Raises what `require_free` raises and what fetching and patching do.
    """
    root = place(world, recipe, name)
    tree = Tree(root=root, recipe=recipe, id=name, base="", source=text, env=dict(world.env), variant=variant)
    with alone(world, recipe):
        require_free(world, recipe, name)
        _lay_out(pin, before, root, sources, world)
        stores = _flattened(root)
        _must(tree, "init", "-q", "--template=", "-b", "base")
        (root / ".git" / "info").mkdir(exist_ok=True)
        (root / ".git" / "info" / "attributes").write_text(_ATTRIBUTES)
        (root / ".git" / "objects" / "info" / "alternates").write_text("".join(f"{store}\n" for store in stores))
        _must(tree, "add", "-A", "-f", ".")
        _must(tree, "commit", "-q", "--allow-empty", "--no-verify", "-m", text)
        base = _must(tree, "rev-parse", "HEAD")
        _note(tree, base=base)
    return replace(tree, base=base)


def _lay_out(pin: Pin, before: Sequence[patches.Candidate], root: Path, sources: source.Sources, world: World) -> None:
    from builder import patches, source  # noqa: PLC0415

    source.fetch(pin, sources)
    root.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    source.materialize(pin, root, sources)
    patches.apply(before, root, env=world.env)


def _flattened(root: Path) -> list[str]:
    """Remove the repositories of a tree and its submodules; return where their objects lie."""
    stores = []
    for folder, folders, files in os.walk(root):
        if ".git" in folders:
            folders.remove(".git")
            git = Path(folder, ".git")
            alternates = git / "objects" / "info" / "alternates"
            stores += alternates.read_text().split("\n")[:-1] if alternates.is_file() else []
            shutil.rmtree(git)
        elif ".git" in files:
            Path(folder, ".git").unlink()
    return list(dict.fromkeys(stores))


def changes(tree: Tree) -> bytes:
    """Return what is changed in the tree, new files too, as a patch. What the project's ``.gitignore`` names isn't among it.

    Raises UsageError: ``patch-empty``, ``patch-markers`` for conflicts that are left, ``patch-rejects`` for hunks that are.
    """
    data = _diff(tree)
    if not data:
        raise UsageError(
            "patch-empty",
            f"nothing is changed in the tree of the patch {tree.id}",
            cause=str(tree.root),
            help="edit it, then save; new files that .gitignore names want `git add -f`",
            run=(f"cd {tree.root}", f"spark-build patch save {tree.recipe} {tree.id}"),
        )
    names = tree.git("ls-files", "-z", "--others", "--exclude-standard").out.split("\0")
    if left := [name for name in names if name.endswith(".rej")]:
        raise UsageError(
            "patch-rejects",
            f"the patch {tree.id} isn't done: hunks that found no place are left",
            cause="\n".join(left),
            help="do by hand what they say, delete them, then save",
            run=(f"cd {tree.root}", f"spark-build patch save {tree.recipe} {tree.id}"),
        )
    if _MARKER.search(data):
        raise UsageError(
            "patch-markers",
            f"the patch {tree.id} isn't done: conflicts are left",
            cause="\n".join(_conflicted(tree)),
            help="choose between <<<<<<< and >>>>>>>, then save",
            run=(f"cd {tree.root}", f"spark-build patch save {tree.recipe} {tree.id}"),
        )
    return data


def keep_saved(tree: Tree, data: bytes) -> None:
    """Remember that the changes `data` are in a patch file."""
    _note(tree, base=tree.base, saved=sha256_bytes(data))


def _conflicted(tree: Tree) -> list[str]:
    found = tree.git("grep", "-n", "--untracked", "-e", "^<<<<<<< ", "--", ".")
    return found.out.splitlines()[:8]


def _diff(tree: Tree) -> bytes:
    """Return the patch from the base to the files as they are, by an index of its own: the user's stays as it is."""
    with tempfile.TemporaryDirectory(prefix=".index-", dir=tree.root.parent) as folder:
        index = Path(folder, "index")
        if (tree.root / ".git" / "index").is_file():
            shutil.copy2(tree.root / ".git" / "index", index)
        _must(tree, "add", "-A", ".", GIT_INDEX_FILE=str(index))
        words = ("--cached", "--binary", "--full-index", "-M", "--no-color", "--no-ext-diff", "--no-textconv")
        done = tree.git("diff", *words, tree.base, GIT_INDEX_FILE=str(index))
    if not done.ok:
        raise _broken(tree, done)
    return done.raw


def _saved(tree: Tree) -> str:
    return str(json.loads((tree.root / _MARK).read_bytes()).get("saved", ""))


def _note(tree: Tree, *, base: str, saved: str = "") -> None:
    told = {"version": 1, "recipe": tree.recipe, "id": tree.id, "base": base, "source": tree.source}
    told |= {"variant": tree.variant, "saved": saved}
    (tree.root / _MARK).write_text(json.dumps(told, indent=2) + "\n")


def _must(tree: Tree, *words: str, **more: str) -> str:
    done = tree.git(*words, **more)
    if not done.ok:
        raise _broken(tree, done)
    return done.out.strip()


def _broken(tree: Tree, done: proc.Finished) -> HostError:
    return HostError(
        "tree-broken",
        f"git can't work in the tree of the patch {tree.id}",
        cause=done.err.strip()[-500:],
        run=(f"git -C {tree.root} status",),
    )
