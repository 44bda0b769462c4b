"""``spark-build patch``: which patches fit a source, and making, renewing and keeping them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.request import add_progress, add_variants, pairs, repository, variants
from builder.errors import Interrupted, SparkError, UsageError
from builder.stages import Request
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.cli.app import App
    from builder.patches import Verdict
    from builder.pipeline.patchwork import Saved
    from builder.pipeline.worktree import Tree
    from builder.pipeline.world import World
    from builder.ui.patches import Row

EXAMPLES = """\
examples:
  spark-build patch status                          all recipes' patches on their default sources
  spark-build patch status vllm --ref main          on what upstream has now; exit code 2 when one drifted
  spark-build patch new vllm fix-fp4                a tree to edit; then: spark-build patch save vllm fix-fp4
  spark-build patch refresh vllm fix-fp4 --ref main"""

ABOUT = {
    "status": (
        "what becomes of each patch on a source",
        "Pins the source of each recipe and tries its patches in order. Exit code 2 when one doesn't fit.",
        "spark-build patch status triton --ref main --json",
    ),
    "new": (
        "a tree to make a patch in",
        "Lays out the pinned source with the recipe's patches as its first commit, and says what to type next.",
        "spark-build patch new vllm fix-fp4 --pr 12345     with that pull request's diff as the change",
    ),
    "save": (
        "make the patch of what was changed",
        (
            "Writes patches/NAME/ID.patch and its [[patch]] entry into your own recipe folder, from what was changed in the "
            "tree of `patch new` and `refresh`, else in the kept workspace of the newest build of NAME."
        ),
        "spark-build patch save vllm fix-fp4 --upstream https://example.org/vllm/pull/1",
    ),
    "refresh": (
        "make a patch anew that drifted",
        (
            "Merges the patch with what changed around it and saves it. Where somebody has to choose, a tree with conflict "
            "markers is left, and the exit code is 2."
        ),
        "spark-build patch refresh vllm drop-fa3 --ref main",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = {}
    for name, (summary, text, example) in ABOUT.items():
        made[name] = one = actions.add_parser(
            name,
            help=summary,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "status":
            one.add_argument("name", nargs="*", metavar="NAME", help="recipes (default: every one that has patches)")
        else:
            one.add_argument("name", metavar="NAME", help="a recipe")
            one.add_argument("id", metavar="ID", help="the patch's name")
    for name in ("status", "new", "refresh"):
        _add_source(made[name])
    for name in ("save", "refresh"):
        made[name].add_argument("--into", type=Path, metavar="DIR", help="into this recipe folder, not your own")
    made["refresh"].add_argument("--edit", action="store_true", help="leave the tree to edit, whether it fits or not")
    _add_save(made["save"])
    for one in made.values():
        one.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept, and trees of patches")
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        add_progress(one)


def _add_source(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("on which source")
    what.add_argument("--ref", help="git: a branch, tag, commit, or refs/pull/N/head")
    what.add_argument("--pr", type=int, action="append", default=[], metavar="N", help="this pull request, too")
    what.add_argument("--repo", metavar="URL", help="another git repository")
    what.add_argument("--version", dest="source_version", metavar="V", help="a released source by version")
    what.add_argument("--source", type=Path, metavar="DIR", help="a local folder")
    what.add_argument("--output", action="append", default=[], metavar="NAME", help="the outputs that would be built")
    what.add_argument("--arch", metavar="A", help="the GPU architecture that conditions ask for (default: 12.1a)")
    what.add_argument("--torch", metavar="V", help="the version of torch that conditions ask for")
    what.add_argument("--cuda", metavar="C", help="a toolkit: path or version")
    what.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a recipe key, dotted"
    )
    add_variants(what)
    what.add_argument("--offline", action="store_true", help="never use the network")


def _add_save(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kept",
        nargs="?",
        const="",
        metavar="REF",
        help="what was changed in the kept workspace of this build (default: the newest of NAME)",
    )
    parser.add_argument(
        "--add", action="append", default=[], metavar="PATH", help="a new file of the kept workspace; may be repeated"
    )
    entry = parser.add_argument_group("what its entry says")
    entry.add_argument("--upstream", metavar="URL", help="the change's own page")
    entry.add_argument("--license", metavar="SPDX", help="the licence of its context lines")
    entry.add_argument("--about", metavar="TEXT", help="why it is needed and what it changes")
    entry.add_argument("--merged", metavar="COMMIT", help="the commit that brought it upstream")


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the action says."""
    return {"status": _status, "new": _new, "save": _save, "refresh": _refresh}[args.action](args, app)


def _request(name: str, args: argparse.Namespace, app: App, *, pulls: Sequence[int] = ()) -> Request:
    if args.source and (args.ref or args.repo or args.source_version):
        raise UsageError("source-twice", "--source and another word choose the source; give one of them")
    return Request(
        recipe=name,
        ref=args.ref,
        pulls=tuple(pulls),
        repo=repository(args.repo, app),
        version=args.source_version,
        source=(app.cwd / args.source).resolve() if args.source else None,
        outputs=tuple(args.output),
        arch=args.arch,
        torch=args.torch,
        cuda=args.cuda,
        settings=pairs(args.settings, "--set"),
        offline=args.offline,
        variants=variants(args),
    )


def _status(args: argparse.Namespace, app: App) -> int:
    from builder.cli.session import opened  # noqa: PLC0415
    from builder.ui.patches import status_json, status_lines  # noqa: PLC0415
    from builder.ui.style import columns  # noqa: PLC0415

    if args.pr and len(args.name) != 1:
        raise UsageError("one-recipe", "--pr is about the source of one recipe: name it")
    failed: list[SparkError] = []
    following: list[str] = []
    with opened(args, app) as world:
        names = args.name or _with_patches(app)
        rows = [_judged(name, args, app, world, failed, following) for name in names]
    if args.json:
        app.print_json({"recipes": status_json(rows)})
    else:
        for text in status_lines(rows, width=columns(app.stdout)):
            app.print(text)
        app.stderr.writelines(f"{text}\n" for text in following)
    if any(row.misfits for row in rows):
        return 2
    return failed[0].exit_code if failed else 0


def _with_patches(app: App) -> list[str]:
    from builder.recipe import find  # noqa: PLC0415
    from builder.recipe.load import read_all  # noqa: PLC0415

    good, problems = read_all(find.folders(app.config().recipe_layers))
    if problems:
        app.stderr.write(f"{len(problems)} mistakes hide other recipes: spark-build recipes lint\n")
    brought = {one.recipe.name for one in good if any("patch" in variant.recipe for variant in one.recipe.variant)}
    return [one.recipe.name for one in good if one.recipe.patch or one.recipe.name in brought]


def _judged(  # `failed` and `following` gather what is said in the end
    name: str, args: argparse.Namespace, app: App, world: World, failed: list[SparkError], following: list[str]
) -> Row:
    """Return what becomes of a recipe's patches; one whose source can't be had is told among the others."""
    from builder.pipeline import patching  # noqa: PLC0415
    from builder.ui.patches import Row  # noqa: PLC0415

    request = _request(name, args, app)
    try:
        place = patching.ground(request, world)
        verdicts = patching.judged(place) + patching.optional(place, request)
        verdicts += tuple(patching.pull(place, replace(request, pulls=(number,))) for number in args.pr)
    except SparkError as error:
        if len(args.name) == 1 or isinstance(error, Interrupted):
            raise
        failed.append(error)
        return Row(recipe=name, trouble=f"{error.summary} ({error.code})")
    fails = {one.id for one in place.loaded.recipe.patch if one.on_upstream == "fail"}
    refused = frozenset(one.id for one in verdicts if one.kind == "upstream" and one.id in fails)
    row = Row(recipe=name, source=place.source, verdicts=verdicts, refused=refused)
    for patch in row.misfits:
        if not patch.startswith("PR "):
            line = _refresh_line(request, patch, patching.variant_of(place.loaded, patch))
            following.append(f"{name} {patch}: {line}")
    return row


def _refresh_line(request: Request, patch: str, variant: str) -> str:
    """Return the command that makes a patch anew on the source of `request`."""
    from builder.pipeline.advice import source_words  # noqa: PLC0415

    asked = replace(request, variants={**request.variants, **({variant: True} if variant else {})})
    return f"spark-build patch refresh {request.recipe} {patch}{source_words(asked)}"


def _new(args: argparse.Namespace, app: App) -> int:
    from builder.cli.session import opened  # noqa: PLC0415
    from builder.pipeline import patchwork  # noqa: PLC0415

    with opened(args, app) as world:
        tree = patchwork.new(_request(args.name, args, app), args.id, world, pulls=args.pr)
    return _show_tree(tree, app, as_json=args.json)


def _show_tree(tree: Tree, app: App, *, as_json: bool) -> int:
    following = f"spark-build patch save {tree.recipe} {tree.id}"
    if as_json:
        app.print_json({"tree": str(tree.root), "source": tree.source, "run": [following]})
    else:
        app.print(str(tree.root))
        app.stderr.write(f"{tree.source}: edit it there, then: {following}\n")
    return 0


def _save(args: argparse.Namespace, app: App) -> int:
    from builder.cli.session import opened  # noqa: PLC0415
    from builder.pipeline import patchwork, worktree  # noqa: PLC0415

    names = ("upstream", "license", "about", "merged")
    more = {name: getattr(args, name) for name in names if getattr(args, name)}
    into = (app.cwd / args.into).resolve() if args.into else None
    with opened(args, app) as world:
        there = worktree.opened(world, args.name, args.id)
    tree = there if args.kept is None and not args.add else None
    if tree is None:
        tree = _kept_tree(args, app)
    with opened(args, app) as world:
        saved = patchwork.save(tree, world, into=into, more=more)
    return _show_saved(saved, args.name, app, as_json=args.json)


def _kept_tree(args: argparse.Namespace, app: App) -> Tree:
    """Return a tree with what was changed in a kept workspace."""
    from builder.cli.resume import kept, reopened  # noqa: PLC0415
    from builder.pipeline import patchwork  # noqa: PLC0415
    from builder.pipeline.kept import space_of  # noqa: PLC0415

    one = kept(app, args.kept or args.name)
    if one.recipe != args.name:
        text = f"{one.recipe} {one.fingerprint[:10]} is no build of {args.name}"
        raise UsageError(
            "other-recipe", text, run=(f"spark-build patch save {one.recipe} {args.id} --kept {args.kept}",)
        )
    with reopened(one, args, app) as (world, evaluation):
        return patchwork.from_kept(evaluation, space_of(one, world), args.id, world, args.add)


def _show_saved(saved: Saved, recipe: str, app: App, *, as_json: bool) -> int:
    next_one = f"recipes lint {saved.recipe_file}" if saved.elsewhere else f"patch status {recipe}"
    following = [f"spark-build {next_one}"]
    if as_json:
        app.print_json({"saved": saved.as_json(), "run": following})
    else:
        app.print(str(saved.file))
        what = "its entry was added to" if saved.added else "its digest was put into"
        app.stderr.write(f"{what} {saved.recipe_file}; next: {following[0]}\n")
    return 0


def _refresh(args: argparse.Namespace, app: App) -> int:
    from builder.cli.session import opened  # noqa: PLC0415
    from builder.pipeline import patchwork  # noqa: PLC0415

    into = (app.cwd / args.into).resolve() if args.into else None
    with opened(args, app) as world:
        request = _request(args.name, args, app, pulls=args.pr)
        verdict, tree = patchwork.refresh(request, args.id, world, edit=args.edit)
        if tree is not None and not args.edit:
            saved = patchwork.save(tree, world, into=into, more={})
            return _show_saved(saved, args.name, app, as_json=args.json)
    if tree is not None:
        return _show_tree(tree, app, as_json=args.json)
    return _show_as_it_is(verdict, app, as_json=args.json)


def _show_as_it_is(verdict: Verdict, app: App, *, as_json: bool) -> int:
    from builder.pipeline.patching import line  # noqa: PLC0415

    if as_json:
        app.print_json({"saved": None, "verdict": verdict.as_json()})
    else:
        app.stderr.write(f"{line(verdict)}; nothing to make anew\n")
    return 0
