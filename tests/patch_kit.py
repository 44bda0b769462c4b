"""An upstream with a patch for it, as a user has them: a real repository, a recipe, a patch file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from tests.source_kit import Repo, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

#: A file of some length, so that changes can be near each other or far apart.
LINES = "".join(f"line {number}\n" for number in range(1, 41))


def upstream(world: World, name: str = "tiny", **files: str) -> Repo:
    """Make a project that builds without any requirement a repository with the file `lib/a.txt`."""
    folder = world.tiny(name)
    repo = Repo(world.root / f"{name}-up", files={"lib/a.txt": LINES, **files})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            repo.write(**{str(path.relative_to(folder)): path.read_bytes()})
    repo.commit()
    return repo


def changed(text: str, **lines: str) -> str:
    """Return `text` with lines replaced: ``changed(LINES, l7="new")``."""
    rows = text.split("\n")
    for name, new in lines.items():
        rows[int(name[1:]) - 1] = new
    return "\n".join(rows)


def diff(repo: Repo, **files: Any) -> bytes:  # noqa: ANN401  # as `Repo.write` takes them
    """Return the patch that makes these changes, as git writes it; the repository stays as it is."""
    repo.write(**files)
    repo("add", "-A")
    words = ["git", "diff", "--cached", "--binary", "-M"]
    data = subprocess.run(words, cwd=repo.folder, check=True, capture_output=True).stdout
    repo("reset", "-q", "--hard")
    return data


def entry(world: World, name: str, data: bytes, *, recipe: str = "tiny", more: str = "") -> str:
    """Put a patch file into the user's folder and return its entry."""
    folder = world.patches / recipe
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.patch").write_bytes(data)
    return f'[[patch]]\nid = "{name}"\nfile = "{name}.patch"\nsha256 = "{sha256(data)}"\n{more}\n'


def recipe(world: World, repo: Repo, *entries: str, name: str = "tiny", ref: str = "main") -> Path:
    """Write the recipe of an upstream with these patches."""
    return world.recipe(
        name,
        f'schema = 1\nname = "{name}"\n[[source]]\nkind = "git"\nurl = "{repo.folder.as_uri()}"\nref = "{ref}"\n'
        f'[[output]]\nname = "{name}"\n' + "".join(entries),
    )


def verdicts(world: World, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return what ``patch status`` says of the recipe ``tiny``, by patch."""
    told = world.json("patch", "status", "tiny", *words, code=code)
    (row,) = told["recipes"]
    return {one["id"]: one for one in row["patches"]}
