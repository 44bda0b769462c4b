"""Making patches: a tree to work in, what becomes of one that drifted, and the files that come of it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from builder import patches
from builder.digest import sha256_bytes
from builder.errors import PatchDrift, UsageError
from builder.events import Note
from builder.executor import workspace
from builder.patch import bench
from builder.pipeline import overlay, patching, worktree
from builder.recipe import find
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.patching import Ground
    from builder.pipeline.worktree import Tree
    from builder.pipeline.world import World
    from builder.stages import Pin, Request, Workspace

__all__ = ["Saved", "from_kept", "new", "refresh", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A patch that was written: its file, the recipe file that names it, and whether that entry is new there.

    `elsewhere` says that no recipe is read from that folder.
    """

    id: str
    file: Path
    recipe_file: Path
    sha256: str
    added: bool
    elsewhere: bool

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "id": self.id,
            "file": str(self.file),
            "recipe": str(self.recipe_file),
            "sha256": self.sha256,
            "added": self.added,
        }


def new(request: Request, name: str, world: World, *, pulls: Sequence[int] = ()) -> Tree:
    """Leave a tree for the patch `name`: the source with the recipe's patches as its base, diffs of `pulls` as changes.

    Raises UsageError ``patch-id`` or ``patch-exists``, and what pinning, fetching and patching raise.
    """
    worktree.place(world, request.recipe, name)
    place = patching.ground(request, world)
    recipe = place.loaded.recipe
    if any(one.id == name for one in recipe.patch):
        raise UsageError(
            "patch-exists",
            f"the recipe {recipe.name} has a patch {name}",
            help="make that one anew, or choose another name",
            run=(f"spark-build patch refresh {recipe.name} {name} --edit",),
        )
    tree = _tree(place, _fitting(place, [one.id for one in recipe.patch]), name)
    if pulls:
        _lay_pulls(place, tree, patching.ground(replace(request, pulls=tuple(pulls)), world).pin)
    return tree


def refresh(request: Request, name: str, world: World, *, edit: bool = False) -> tuple[patches.Verdict, Tree | None]:
    """Make the patch `name` fit a source again; return what became of it there, and the tree that it was remade in.

    There is no tree where nothing has to be done: the patch fits, or the source has it. With `edit` there is one all the
    same. Raises PatchDrift ``patch-conflict`` where somebody has to choose: the tree has it as far as git could.
    """
    place = patching.ground(request, world)
    one = _named(place, name)
    before = _fitting(place, _before(place, name))
    verdict = patching.evaluated(place, [*before, one]).verdicts[-1]
    if not edit and (verdict.kind in {"applies", "upstream"} or (verdict.kind == "reverted" and not verdict.result)):
        return verdict, None
    tree = _tree(place, before, name)
    left = _relay(tree, replace(one, result=verdict.result), verdict)
    if left:
        many = f"{len(left)} files" if len(left) > 1 else "a file"
        raise PatchDrift(
            "patch-conflict",
            f"the patch {name} meets other changes in {many}: somebody has to choose",
            cause="\n".join([str(tree.root), *(f"  {path}" for path in left)]),
            help="edit these files there, then save",
            run=(f"cd {tree.root}", f"spark-build patch save {place.loaded.recipe.name} {name}"),
        )
    return verdict, tree


def from_kept(one: Evaluation, space: Workspace, name: str, world: World, added: Sequence[str]) -> Tree:
    """Leave a tree for the patch `name` that holds what was changed in the kept workspace of a build, and the files `added`.

    A patch of that name that the build has is part of the changes. Raises UsageError ``patch-order`` where others come
    behind it, ``patch-add`` for what isn't a file of the workspace's source, ``patch-empty`` where nothing is changed.
    """
    names = [*workspace.changed(space), *(_added(space, path) for path in added)]
    if not names:
        raise UsageError(
            "patch-empty",
            f"nothing is changed in the kept tree of {one.plan.recipe} {one.plan.inputs.fingerprint[:10]}",
            cause=str(space.src),
            help="new files want --add PATH; for a tree without a build: patch new",
            run=(f"spark-build patch new {one.plan.recipe} {name}",),
        )
    ids = [candidate.id for candidate in one.patches]
    before = one.patches
    if name in ids:
        if ids[-1] != name:
            raise UsageError(
                "patch-order",
                f"patches come behind {name}, so what is changed in the kept tree can't become part of it",
                cause=", ".join(ids[ids.index(name) + 1 :]),
                run=(f"spark-build patch refresh {one.plan.recipe} {name} --edit",),
            )
        before = one.patches[:-1]
    pin, recipe = one.plan.pin, one.plan.recipe
    sources = world.sources(offline=one.request.offline, recipe=recipe)
    variant = patching.variant_of(one.loaded, name)
    tree = worktree.make(
        pin, before, recipe=recipe, name=name, text=_told(pin), variant=variant, sources=sources, world=world
    )
    if name in ids:
        patches.apply(one.patches[-1:], tree.root, env=world.env)
    for path in names:
        source, target = space.src / path, tree.root / path
        target.unlink(missing_ok=True)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return tree


def _added(space: Workspace, path: str) -> str:
    """Return a new file of a workspace by its path in the source."""
    file = Path(os.path.normpath(space.src / path))
    if not file.is_file() or not file.resolve().is_relative_to(space.src.resolve()):
        raise UsageError(
            "patch-add",
            f"{path} isn't a file of the kept source",
            cause=str(space.src),
            help="name it as it is called from there",
            run=(f"ls {space.src}",),
        )
    return str(file.relative_to(space.src))


def save(tree: Tree, world: World, *, into: Path | None, more: Mapping[str, str]) -> Saved:
    """Write what is changed in `tree` as a patch file, and its entry into the recipe file of the folder `into`.

    `into` is the user's own folder where it is None. `more` holds texts of other keys of the entry. The patch was tried on
    the tree's base. Raises UsageError as `worktree.changes` and `overlay.with_patch` do.
    """
    data = worktree.changes(tree)
    folder = _folder(into, world)
    file = folder.patches / tree.recipe / f"{tree.id}.patch"
    # Somebody's link to where they keep their settings stays one.
    recipe_file = (folder.recipes / f"{tree.recipe}.toml").resolve()
    entry = {"id": tree.id, "file": file.name, "sha256": sha256_bytes(data), **more}
    with worktree.alone(world, tree.recipe):
        _write_patch(tree, file, data, world)
        raw = recipe_file.read_bytes() if recipe_file.exists() else b""
        old = raw.decode().replace("\r\n", "\n")
        text = overlay.with_patch(
            old,
            entry,
            recipe=tree.recipe,
            file=recipe_file,
            comment=f"Made from {tree.source}.",
            variant=tree.variant,
        )
        recipe_file.parent.mkdir(parents=True, exist_ok=True)
        written = recipe_file.with_name(f".{recipe_file.name}.new")
        written.write_text(text, encoding="utf-8", newline="\r\n" if b"\r\n" in raw else "\n")
        written.replace(recipe_file)
    worktree.keep_saved(tree, data)
    added = len(text.splitlines()) > len(old.splitlines())
    return Saved(
        id=tree.id,
        file=file,
        recipe_file=recipe_file,
        sha256=entry["sha256"],
        added=added,
        elsewhere=folder.layer == "file",
    )


def _write_patch(tree: Tree, file: Path, data: bytes, world: World) -> None:
    beside = file.with_name(f".{file.name}.new")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(data)
    try:
        _prove(tree, beside, sha256_bytes(data), world)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _prove(tree: Tree, file: Path, sha256: str, world: World) -> None:
    """Raise RecipeError where the patch can't be one, such as one that changes a link."""
    one = patches.Candidate(id=tree.id, file=file, sha256=sha256, on_upstream="fail", recipe=tree.recipe)
    patches.evaluate([one], tree.read, scratch=world.builds, env=world.env)


def _folder(into: Path | None, world: World) -> find.Folder:
    layers = dict(world.config.recipe_layers)
    recipes = into or layers["user"]
    known = find.folders(world.config.recipe_layers)
    same = [one for one in known if one.recipes.resolve() == recipes.resolve()]
    layer = "file" if into else "user"
    return same[0] if same else find.Folder(layer=layer, recipes=recipes, patches=recipes / "patches")


def _named(place: Ground, name: str) -> patches.Candidate:
    names = [one.id for one in place.loaded.recipe.patch]
    if name in names:
        return patching.candidate(place.loaded, name)
    import difflib  # noqa: PLC0415  # only for the message

    recipe = place.loaded.recipe.name
    if variant := patching.variant_of(place.loaded, name):
        raise UsageError(
            "patch-variant",
            f"the patch {name} comes with the variant {variant} of {recipe}",
            help=f"say so: --with {variant}",
            run=(f"spark-build patch status {recipe} --with {variant}",),
        )
    near = difflib.get_close_matches(name, names, 3)
    raise UsageError(
        "patch-unknown",
        f"the recipe {recipe} has no patch {name}{f', did you mean {near[0]}?' if near else ''}",
        cause=f"its patches: {', '.join(names) or 'none'}",
        run=(f"spark-build patch new {recipe} {name}",),
    )


def _before(place: Ground, name: str) -> list[str]:
    names = [one.id for one in place.loaded.recipe.patch]
    return names[: names.index(name)]


def _fitting(place: Ground, names: Sequence[str]) -> list[patches.Candidate]:
    """Return those of the patches `names` that this source gets; one that doesn't fit is told and left out."""
    found = []
    for verdict in patching.judged(place, names):
        if verdict.applied:
            found.append(replace(patching.candidate(place.loaded, verdict.id), result=verdict.result))
        elif verdict.misfit:
            text = f"without {patching.line(verdict)}"
            place.world.sink.emit(Note(level="warning", text=text))
    return found


def _tree(place: Ground, before: Sequence[patches.Candidate], name: str) -> Tree:
    recipe, variant = place.loaded.recipe.name, patching.variant_of(place.loaded, name)
    text, sources, world = _told(place.pin), place.sources, place.world
    return worktree.make(
        place.pin, before, recipe=recipe, name=name, text=text, variant=variant, sources=sources, world=world
    )


def _told(pin: Pin) -> str:
    return pin.filename or f"{pin.url} {pin.describe or pin.commit or pin.version or pin.tree}"


def _relay(tree: Tree, one: patches.Candidate, verdict: patches.Verdict) -> list[str]:
    """Lay a patch on its tree; return the files in which somebody has to choose, none when it is whole."""
    if verdict.applied:
        patches.apply([one], tree.root, env=tree.env)
        return []
    if verdict.kind == "upstream":
        return []
    from builder.patch.merge import three_way  # noqa: PLC0415

    paths = bench.touched(one, tree.root, tree.env)
    renamed = [name for _path, name in verdict.moved]
    made = three_way(one, tree.root, paths, objects=tree.root / ".git", env=tree.env, renamed=renamed)
    if made is None:
        return _rejects(tree, one)
    for path, what in made.files.items():
        (tree.root / path).unlink(missing_ok=True)
        if what is not None:
            bench.place(tree.root / path, what[1])
            (tree.root / path).chmod(what[0] | 0o600)
    return list(dict.fromkeys(made.conflicts))


def _rejects(tree: Tree, one: patches.Candidate) -> list[str]:
    """Lay on the hunks that fit; the others lie beside their files, in ``.rej`` files."""
    done = bench.git_apply(one, tree.root, tree.env, "--reject")
    names = tree.git("ls-files", "-z", "--others").out.split("\0")
    rejects = [name for name in names if name.endswith(".rej")]
    gone = re.findall(r"error: (.+): No such file or directory", done.err)
    return [*rejects, *(f"{name} (not in this source)" for name in dict.fromkeys(gone))]


def _lay_pulls(place: Ground, tree: Tree, pin: Pin) -> None:
    """Leave what pull requests change as changes of the tree."""
    from builder.source.mirror import Mirror  # noqa: PLC0415

    mirror = Mirror(pin.url, place.sources)
    words = ("diff", "--binary", "--full-index", f"{pin.commit}^{{tree}}", pin.tree.removeprefix("git:"))
    file = tree.root / ".git" / "pulls.patch"
    file.write_bytes(mirror.git(*words).raw)
    done = tree.git("apply", "--whitespace=nowarn", "--binary", str(file))
    if not done.ok:
        done = tree.git("apply", "--whitespace=nowarn", "--binary", "--reject", str(file))
