"""Recipe folders as layers, and what goes into them."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import RecipeError
from builder.recipe.find import Folder
from builder.recipe.load import load

if TYPE_CHECKING:
    from builder.recipe.model import Loaded

SHIPPED = Path(__file__).resolve().parent.parent / "recipes"

GOOD = """\
schema = 1
name = "demo"
[[source]]
kind = "sdist"
project = "demo"
version = "1.0"
[[output]]
name = "demo"
"""

#: A good `fetch` table of each kind.
GIT = """\
[[fetch]]
id = "cutlass"
kind = "git"
url = "https://example.org/cutlass.git"
ref = "${tag}"
pin = [{ file = "cmake/cutlass.cmake", matches = 'GIT_TAG (?P<tag>\\S+)' }]
"""
CRATES = """\
[[fetch]]
id = "crates"
kind = "crates"
lockfile = "rust/Cargo.lock"
"""
ARCHIVE = """\
[[fetch]]
id = "llvm"
kind = "archive"
url = "https://example.org/llvm-${short}-${platform}.tar.gz"
sha256 = "${sha256}"
place = "${home}/.cache/${file}"
replaced = { "CMAKE_ARGS+" = "-DLLVM=${path}", LLVM_SYSPATH = "${path}" }
platform = { aarch64 = "sbsa", x86_64 = "x64" }
pin = [
  { file = "cmake/llvm.txt", matches = '(?P<short>[0-9a-f]{8})' },
  { file = "cmake/llvm.json", json = "sha256.${platform}", name = "sha256" },
]
"""

#: Two variants, the second one in by default.
VARIED = (
    GOOD
    + """\
[build.env]
A = "plain"
[[variant]]
id = "rust"
about = "the front end"
[variant.recipe.system]
rust = ">=1.95"
[variant.recipe.build.env]
A = "rust"
[[variant.recipe.output]]
name = "demo"
path = "rust"
[[variant.recipe.output]]
name = "demo-rust"
[[variant]]
id = "tools"
about = "the tools"
default = true
recipe = { build = { env = { A = "tools", TOOLS = "1" } } }
"""
)


@dataclass
class Layers:
    """Two folders of recipes: ``shipped`` and ``user``."""

    root: Path

    @property
    def folders(self) -> tuple[Folder, ...]:
        return tuple(
            Folder(layer=word, recipes=self.root / word, patches=self.root / word / "patches")
            for word in ("shipped", "user")
        )

    def write(self, text: str, *, layer: str = "shipped", name: str = "demo") -> Path:
        file = self.root / layer / f"{name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    def patch(self, file: str, text: str, *, layer: str, name: str = "demo") -> str:
        """Put a patch file into a layer's folder and return its sha256."""
        path = self.root / layer / "patches" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, name: str = "demo", **settings: str) -> Loaded:
        return load(name, self.folders, settings={key.replace("__", "."): text for key, text in settings.items()})

    def mistakes(self, name: str = "demo") -> list[str]:
        """Return the lines of the report that loading ends with; their files without the folder."""
        try:
            self.load(name)
        except RecipeError as error:
            return [line.replace(f"{self.root}/", "") for line in error.cause.splitlines()]
        return []
