"""A build's folder, cut off as builds are, for tests of what it is given back."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder import source
from builder.digest import sha256_file
from builder.executor import isolation
from builder.source import archive, given
from builder.stages import Given, Nested, Pin, Workspace
from tests.source_kit import Outside, Repo, git_source, request

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where upstream says that its repositories are; nothing answers there.
UPSTREAM = "https://example.invalid/org"


@dataclass
class Bench:
    """One build: `root` holds upstream's repositories (``up``), the user's sources and the build's folder."""

    root: Path
    cut: Literal["auto", "none"] = "auto"
    outside: Outside = field(init=False)
    space: Workspace = field(init=False)

    def __post_init__(self) -> None:
        self.outside = Outside(self.root / "user", mirrors={UPSTREAM: str(self.root / "up")})
        self.level = isolation.probe({"PATH": os.environ["PATH"]}, wanted=self.cut)
        top = self.root / "builds" / "f00"
        for name in ("home", "tmp", "src"):
            (top / name).mkdir(parents=True)
        inside = Path("/sb/tiny") if self.level.fixed_path else top
        self.space = Workspace(root=top, inside=inside, attempt=1)

    def repo(self, name: str, **files: str) -> Repo:
        return Repo(self.root / "up" / f"{name}.git", files=files)

    def git(self, name: str, ref: str, *, url: str = "", submodules: str | tuple[str, ...] = "none") -> Nested:
        """Pin and fetch ``<UPSTREAM>/<name>.git`` at `ref`."""
        made = git_source(url or f"{UPSTREAM}/{name}.git", ref=ref, submodules=submodules)
        pin = source.pin(made, request(), self.outside.sources, recipe="tiny", base=self.root)
        source.fetch(pin, self.outside.sources)
        return Nested(id=name, kind="git", origin="tree", given=Given(), pin=pin)

    def archive(self, name: str, file: Path, **more: object) -> Nested:
        """Keep `file` as the archive that upstream gives under its name."""
        known = archive.keep(file.as_uri(), self.outside.sources, sha256=sha256_file(file))
        url = f"{UPSTREAM}/{file.name}"
        pin = Pin(kind="archive", url=url, tree=f"sha256:{known['sha256']}", time=known["time"], filename=file.name)
        return Nested(id=name, kind="archive", origin="tree", given=Given(**more), pin=pin)  # type: ignore[arg-type]

    def lay_out(self, *nested: Nested) -> dict[str, str]:
        return given.lay_out(nested, self.space, self.outside.sources, src=self.space.src)

    def run(
        self, *words: str, given: Mapping[str, str], code: int | None = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command as a build runs it, network cut, and return what it printed."""
        own = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "HOME": str(self.space.inside / "home"),
            "TMPDIR": str(self.space.inside / "tmp"),
            "GIT_TERMINAL_PROMPT": "0",
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
            **(env or {}),
        }
        cwd = str(self.space.inside / "src")
        done = subprocess.run(
            self.level.wrap(list(words), root=self.space.root, inside=self.space.inside, cwd=cwd),
            env=merged(own, given),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}"
        return done.stdout


merged = given.merged
