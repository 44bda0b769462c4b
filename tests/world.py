"""A user with a home of their own, small real projects, and the installed command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("spark-build")
#: Commands that look at the machine's tools.
MEETS = {"recipe", "plan", "lock", "stack", "patch"}

#: An in-tree PEP 517 backend that needs no requirement: real hooks, a real wheel, no index.
BACKEND = """
import base64, hashlib, os, pathlib, zipfile

NAME, VERSION = {name!r}, {version!r}


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
{extra}
    info = f"{{NAME.replace('-', '_')}}-{{VERSION}}.dist-info"
    module = NAME.replace("-", "_")
    files = {{f"{{module}}/__init__.py": pathlib.Path("src/__init__.py").read_bytes()}}
    for name in sorted(os.environ.get("TINY_EXTRA", "").split()):
        files[f"{{module}}/{{name}}"] = name.encode()
    files[f"{{info}}/METADATA"] = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n".encode()
    files[f"{{info}}/WHEEL"] = b"Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    rows = [
        f"{{path}},sha256={{base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}},{{len(data)}}"
        for path, data in files.items()
    ]
    files[f"{{info}}/RECORD"] = "\\n".join([*rows, f"{{info}}/RECORD,,", ""]).encode()
    target = f"{{module}}-{{VERSION}}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, target), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return target
"""


@dataclass
class World:
    """Folders of one user; `run` starts the installed command in them.

    `tools` is what another user's first command found out about this machine's tools: with it, each plan of a new user
    needn't read the whole toolkit, which takes a second.
    """

    root: Path
    tools: Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for folder in (self.recipes, self.home, self.patches):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def config(self) -> Path:
        return self.home / ".config" / "spark-build"

    @property
    def recipes(self) -> Path:
        return self.config / "recipes"

    @property
    def patches(self) -> Path:
        return self.recipes / "patches"

    @property
    def wheelhouse(self) -> Path:
        return self.root / "wheelhouse"

    def env(self, **more: str) -> dict[str, str]:
        keep = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "CUDA_HOME")
        env = {key: os.environ[key] for key in keep if key in os.environ}
        env |= {key: value for key, value in os.environ.items() if key.startswith("UV_")}
        env |= {
            "HOME": str(self.home),
            "SPARK_BUILD_WHEELHOUSE": str(self.wheelhouse),
            "SPARK_BUILD_SOURCES": str(self.root / "sources"),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.invalid",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.invalid",
            "SPARK_BUILD_DEBUG": "1",
        }
        return env | more

    def run(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        if self.tools and MEETS & set(words[:1]) and not (self.root / "sources").exists():
            shutil.copytree(self.tools, self.root / "sources" / "host")
        done = subprocess.run(
            [str(COMMAND), *words], env=self.env(**env), cwd=self.root, capture_output=True, text=True, check=False
        )
        if code is not None:
            assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.run(*words, "--json", code=code, **env).stdout)
        return loaded

    def wheels(self, *words: str, code: int = 0, **env: str) -> list[Path]:
        """Run ``recipe`` and return the paths that it prints."""
        return [Path(line) for line in self.run("recipe", *words, code=code, **env).stdout.splitlines()]

    def git(self, folder: Path, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, env=self.env(), capture_output=True, text=True, check=True
        ).stdout.strip()

    def tiny(self, name: str = "tiny", version: str = "1.0", *, extra: str = "", text: str = "VALUE = 1\n") -> Path:
        """Make a project folder under `root` whose wheel holds `src/__init__.py`; `extra` is code at build_wheel's start."""
        extra = textwrap.indent(textwrap.dedent(extra), "    ")
        folder = self.root / name
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "__init__.py").write_text(text)
        (folder / "backend.py").write_text(BACKEND.format(name=name, version=version, extra=extra))
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        return folder

    def tiny_repo(self, name: str = "tiny", **more: str) -> Path:
        """Make that project a git repository with one commit on ``main`` and the tag ``v1.0``."""
        folder = self.tiny(name, **more)
        self.git(folder, "init", "-q", "-b", "main")
        self.git(folder, "add", "-A")
        self.git(folder, "commit", "-qm", "first")
        self.git(folder, "tag", "v1.0")
        return folder

    def recipe(self, name: str, text: str) -> Path:
        file = self.recipes / f"{name}.toml"
        file.write_text(textwrap.dedent(text))
        return file

    def tiny_recipe(self, name: str = "tiny", *, url: str | None = None, more: str = "") -> Path:
        """Write a recipe for the repository that `tiny_repo` made."""
        url = url or (self.root / name).as_uri()
        text = f'schema = 1\nname = "{name}"\n[[source]]\nkind = "git"\nurl = "{url}"\nref = "main"\n'
        return self.recipe(name, text + f'[[output]]\nname = "{name}"\n{textwrap.dedent(more)}')
