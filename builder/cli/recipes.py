"""``spark-build recipes``: list, show, lint and start recipes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.request import add_variants, pairs, variants
from builder.errors import RecipeError, UsageError, scrubbed
from builder.recipe import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.cli.app import App
    from builder.recipe.find import Folder
    from builder.recipe.model import Loaded

EXAMPLES = """\
examples:
  spark-build recipes list
  spark-build recipes show flashinfer --origin      the merged recipe, and which file set which key
  spark-build recipes lint                          all of them
  spark-build recipes new mylib --from https://example.org/mylib.git"""

ABOUT = {
    "list": (
        "names, versions, outputs",
        "Every recipe that is found: the shipped ones, the site's, yours.",
        "spark-build recipes list --names                  one a line, for scripts",
    ),
    "show": (
        "one recipe, all layers merged",
        "The recipe as it is used, as TOML: every layer laid over the one before, and the variants that are in.",
        "spark-build recipes show flashinfer --origin --set resources.jobs=4",
    ),
    "lint": (
        "all mistakes in one report",
        "Reads recipes, each variant taken in and left out, and tells every mistake. Exit code 2 when there is one.",
        "spark-build recipes lint ./mylib.toml             a file that lies elsewhere",
    ),
    "new": (
        "start a recipe",
        "Writes a recipe that loads, and the JSON schema for editors, into your own folder. Never overwrites.",
        "spark-build recipes new mylib --from mylib==1.2",
    ),
    "schema": (
        "the JSON schema, for editors",
        "Prints the JSON schema (draft 2020-12) of recipe files.",
        "spark-build recipes schema > recipe.schema.json",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = {}
    for name, (summary, text, example) in ABOUT.items():
        made[name] = actions.add_parser(
            name,
            help=summary,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    made["list"].add_argument("--names", action="store_true", help="only the names, one a line")
    made["show"].add_argument("name", metavar="NAME", help="a recipe")
    made["show"].add_argument("--origin", action="store_true", help="behind each key the file and line that set it")
    made["show"].add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="lay this over it, too"
    )
    add_variants(made["show"])
    made["lint"].add_argument("name", nargs="*", metavar="NAME", help="recipes or files (default: every recipe)")
    made["new"].add_argument("name", metavar="NAME", help="lower case words joined by -")
    made["new"].add_argument(
        "--from", dest="origin", metavar="URL", help="a git repository, an archive, or PROJECT==VERSION for an sdist"
    )
    where = made["new"].add_mutually_exclusive_group()
    where.add_argument("--site", action="store_true", help="into /etc/spark-build/recipes instead of your own folder")
    where.add_argument("--dir", type=Path, metavar="DIR", help="into this folder")
    for one in made.values():
        one.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the action says."""
    action = {"list": _list, "show": _show, "lint": _lint, "new": _new, "schema": _schema}[args.action]
    return action(args, app)


def _folders(app: App) -> tuple[Folder, ...]:
    return find.folders(app.config().recipe_layers)


def _list(args: argparse.Namespace, app: App) -> int:
    folders = _folders(app)
    if args.names and not args.json:
        for name in find.names(folders):
            app.print(name)
        return 0
    from builder.recipe.load import read_all  # noqa: PLC0415  # completion asks for names at each keystroke

    good, problems = read_all(folders)
    rows = [_row(one) for one in good]
    if args.json:
        app.print_json({"recipes": rows, "mistakes": list(problems)})
        return 0
    table = [[str(row["name"]), str(row["default"]), str(row["layer"]), str(row["summary"])] for row in rows]
    widths = [max((len(line[column]) for line in table), default=0) for column in range(3)]
    for one, row, line in zip(good, rows, table, strict=True):
        start = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        app.print(f"{start}  {row['summary']}".rstrip())
        outputs = [output["name"] + ("" if output["default"] else " (on request)") for output in _outputs(row)]
        app.print(f"  {' ' * widths[0]}{', '.join(outputs)}")
        if one.recipe.variant:
            app.print(f"  {' ' * widths[0]}{_variants(one)}")
    if problems:
        app.stderr.write(f"{len(problems)} mistakes hide other recipes: spark-build recipes lint\n")
    return 0


def _outputs(row: dict[str, object]) -> list[dict[str, str]]:
    outputs = row["outputs"]
    assert isinstance(outputs, list)  # noqa: S101  # made in _row
    return outputs


def _variants(loaded: Loaded) -> str:
    words = [f"--without {one.id}" if one.default else f"--with {one.id}" for one in loaded.recipe.variant]
    return ", ".join(words)


def _row(loaded: Loaded) -> dict[str, object]:
    recipe, first = loaded.recipe, loaded.recipe.source[0]
    return {
        "name": recipe.name,
        "summary": recipe.about.summary,
        "source": first.kind,
        "default": first.version or first.ref or first.path or "",
        "outputs": [{"name": output.name, "default": output.default} for output in recipe.output],
        "variants": [{"id": one.id, "about": one.about, "default": one.default} for one in recipe.variant],
        "layer": "+".join(dict.fromkeys(layer.word for layer in loaded.layers)),
        "files": [str(layer.file) for layer in loaded.layers],
    }


def _show(args: argparse.Namespace, app: App) -> int:
    from builder.recipe.layers import origin_of  # noqa: PLC0415
    from builder.recipe.load import load  # noqa: PLC0415
    from builder.recipe.render import toml  # noqa: PLC0415

    loaded = load(args.name, _folders(app), settings=pairs(args.settings, "--set"), variants=variants(args))
    if args.json:
        origins = {path: str(origin) for path, origin in loaded.origins.items()}
        files = [str(layer.file) for layer in loaded.layers if layer.file]
        shown = {"recipe": dict(loaded.raw), "variants": list(loaded.variants), "files": files, "origins": origins}
        app.print_json(shown)
        return 0
    app.stdout.write(toml(loaded.raw, lambda path: str(origin_of(path, loaded.origins)) if args.origin else None))
    return 0


def _lint(args: argparse.Namespace, app: App) -> int:
    from builder.recipe.load import read_all, report  # noqa: PLC0415

    folders = _folders(app)
    good: list[Loaded] = []
    problems: list[str] = []
    for wanted, where in _wanted(args.name, folders, app):
        found, wrong = read_all(where, wanted)
        good += found
        problems += wrong
    problems += [text for one in good for text in _accepts(one)]
    if problems:
        raise report(problems)
    if args.json:
        app.print_json({"recipes": [one.recipe.name for one in good]})
    else:
        app.print(f"{len(good)} recipe{'s' if len(good) != 1 else ''}, no mistakes")
    return 0


def _accepts(loaded: Loaded) -> Iterator[str]:
    """Yield what a recipe lets pass that there is no such finding of, or that nobody can let pass."""
    from builder.recipe.layers import nearest  # noqa: PLC0415

    for number, check in enumerate(loaded.recipe.check):
        for slug in check.findings:
            from builder.pipeline import judged  # noqa: PLC0415  # brings every judge, and few recipes let anything pass

            if wrong := judged.unacceptable(slug):
                key = f"check[{number}].findings"
                yield f"{loaded.origins[nearest(key, loaded.origins)]}: {key}: {wrong}"


def _wanted(
    words: Sequence[str], folders: tuple[Folder, ...], app: App
) -> list[tuple[Sequence[str] | None, tuple[Folder, ...]]]:
    """Return names with the folders where they lie; a file counts as if it lay in the strongest folder."""
    if not words:
        return [(None, folders)]
    wanted: list[tuple[Sequence[str] | None, tuple[Folder, ...]]] = []
    for word in words:
        if "/" not in word and not word.endswith(".toml"):
            wanted.append(([word], folders))
            continue
        file = (app.cwd / word).resolve()
        if file.suffix != ".toml" or not file.exists():
            raise RecipeError("recipe-file", f"{word}: no such recipe file", run=("spark-build recipes list",))
        mine = find.Folder(layer="file", recipes=file.parent, patches=file.parent / "patches")
        others = tuple(folder for folder in folders if folder.recipes.resolve() != file.parent)
        wanted.append(([file.stem], folders if len(others) < len(folders) else (*others, mine)))
    return wanted


def _new(args: argparse.Namespace, app: App) -> int:
    from builder.recipe.reference import schema_text  # noqa: PLC0415
    from builder.recipe.skeleton import SCHEMA, skeleton, source_of  # noqa: PLC0415

    text = skeleton(args.name, source_of(args.origin and scrubbed(args.origin), args.name))
    layers = dict(app.config().recipe_layers)
    folder = app.cwd / args.dir if args.dir else layers["site" if args.site else "user"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{args.name}.toml"
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(
            "recipe-exists", f"{file} is there already", run=(f"spark-build recipes show {args.name} --origin",)
        ) from None
    (folder / SCHEMA).write_text(schema_text(), encoding="utf-8")
    following = f"spark-build recipes lint {file if args.dir else args.name}"
    if args.json:
        app.print_json({"path": str(file), "run": [following]})
    else:
        app.print(str(file))
        app.stderr.write(f"fill it in, then: {following}\n")
    return 0


def _schema(args: argparse.Namespace, app: App) -> int:
    from builder.recipe.reference import schema_text  # noqa: PLC0415
    from builder.recipe.schema import schema  # noqa: PLC0415

    if args.json:
        app.print_json({"schema": schema()})
    else:
        app.stdout.write(schema_text())
    return 0
