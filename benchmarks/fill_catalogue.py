"""Make the recipes and the wheelhouse over which ``hit.py`` plans: every recipe with a history of builds.

    python benchmarks/fill_catalogue.py HOME WHEELHOUSE SOURCES [--recipes 200] [--builds 10] [--torch VERSION]

Each recipe is FlashInfer's with a small archive of its own as source, so that recipe, build environment, host and inputs
document have a real one's size. Plans and wheels come in by the program's own ways: evaluated, published. The last build of
each recipe is what it says now; the others had another variable. With ``--torch`` the first recipe has one more build, with
that torch in its lock.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from builder import config
from builder.pipeline.evaluate import evaluate_all
from builder.pipeline.world import World
from builder.recipe.find import shipped
from builder.stages import Request, Wheel
from builder.wheelhouse import Wheelhouse

if TYPE_CHECKING:
    from builder.events import Event
    from builder.pipeline.evaluate import Evaluation

#: What FlashInfer asks for, so that the locks are like its own.
PYPROJECT = """\
[build-system]
requires = ["setuptools>=77", "packaging>=24", "apache-tvm-ffi>=0.1.11,<0.2"]
build-backend = "setuptools.build_meta"
"""


class Silent:
    """A sink for nobody."""

    def emit(self, event: Event) -> None:
        """Pass over `event`."""


def archive(folder: Path, name: str) -> Path:
    """Make a source archive with a build file, and one file that is its own."""
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for inside, text in (("pyproject.toml", PYPROJECT), ("NAME", name)):
            entry = tarfile.TarInfo(f"{name}-1.0/{inside}")
            entry.size, entry.mtime = len(text), 1_790_000_000
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def recipe(name: str, source: Path) -> str:
    """Return FlashInfer's recipe for another project and source."""
    table = tomllib.loads((shipped().recipes / "flashinfer.toml").read_text())
    for key in ("patch", "variant", "check"):  # those are about FlashInfer's own files
        table.pop(key, None)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    made = {"kind": "archive", "url": source.as_uri(), "version": "1.0", "sha256": digest}
    return tomli_w.dumps({**table, "name": name, "source": [made, *table["source"]], "output": [{"name": name}]})


def wheel(folder: Path, one: Evaluation) -> Wheel:
    """Make the wheel that building `one` would make, if its project had one line of code."""
    project, version = one.outputs[0].name, f"1.0+{one.plan.label}"
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode()
    files = {
        f"{project}.py": b"VERSION = 1\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: made\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for inside, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{inside},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{project}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for inside, data in files.items():
            packed.writestr(inside, data)
    return Wheel(
        output=project,
        project=project,
        version=version,
        path=path,
        filename=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        metadata=metadata,
        requires_python=None,
    )


def file(house: Wheelhouse, folder: Path, one: Evaluation) -> None:
    """Publish a wheel for `one`."""
    built = wheel(folder, one)
    house.publish(
        [built],
        fingerprint=one.plan.inputs.fingerprint,
        recipe=one.plan.recipe,
        inputs=one.plan.inputs.document,
        provenance={"made": True},
    )
    built.path.unlink(missing_ok=True)


def main() -> int:
    """Make recipes, then publish a wheel for each of their builds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("home", "wheelhouse", "sources"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--builds", type=int, default=10)
    parser.add_argument("--torch", metavar="VERSION")
    args = parser.parse_args()
    env = dict(os.environ) | {"HOME": str(args.home), "SPARK_BUILD_SOURCES": str(args.sources)}
    recipes, made = args.home / ".config" / "spark-build" / "recipes", args.home / "made"
    for folder in (recipes, made, args.wheelhouse):
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"made{number:03}" for number in range(args.recipes)]
    for name in names:
        (recipes / f"{name}.toml").write_text(recipe(name, archive(made, name)))
    found = config.load(env, wheelhouse=str(args.wheelhouse), cwd=Path.cwd())
    with Wheelhouse.open(found.wheelhouse, clock=time.time) as house:
        world = World(config=found, env=env, cwd=Path.cwd(), clock=time.time, sink=Silent(), house=house)
        if args.torch:
            settings = {"build.torch": '"pinned"', "build.requires-add": '["torch"]'}
            file(house, made, evaluate_all([Request(recipe=names[0], torch=args.torch, settings=settings)], world)[0])
        for build in range(args.builds - 1, -1, -1):
            changed = {"BUILD": str(build)} if build else {}
            for one in evaluate_all([Request(recipe=name, env=changed) for name in names], world):
                file(house, made, one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
