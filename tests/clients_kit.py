"""pip and uv, of today and a year old, as a user with nothing configured has them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

UV = Path(sys.executable).with_name("uv")
OLD = ("pip==25.3", "uv==0.9.10")


@dataclass
class Client:
    """One client. `home` holds its caches; pip keeps nothing over plain http unless `caches` lets it trust the host."""

    name: str
    program: Path
    home: Path
    caches: bool = False

    @property
    def is_pip(self) -> bool:
        return self.name.startswith("pip")

    @property
    def is_old(self) -> bool:
        return self.name.endswith("-old")

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Start it with `words`; the caller's configuration doesn't reach it. `more` is its environment, empty: without."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CACHE_DIR": str(self.home / "pip"),
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(self.home / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",
            **more,
        }
        if self.is_pip and not self.caches:
            env["PIP_NO_CACHE_DIR"] = "1"
        env = {key: value for key, value in env.items() if value}
        command = [str(self.program), "-m", "pip"] if self.is_pip else [str(self.program)]
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.run([*command, *words], env=env, capture_output=True, text=True, check=False, cwd=self.home)

    def install(self, url: str, target: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Install from the one index at `url` into the folder `target`."""
        if self.is_pip:
            trusted = ["--trusted-host", "127.0.0.1"] if self.caches else []
            return self.run("install", "--index-url", url, *trusted, "--target", str(target), *words, **more)
        python = ["--python", sys.executable, "--target", str(target)]
        return self.run("pip", "install", "--default-index", url, *python, *words, **more)

    def look(self, url: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Resolve without installing; what was chosen is in stdout."""
        if self.is_pip:
            trusted = ["--trusted-host", "127.0.0.1"] if self.caches else []
            report = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
            return self.run("install", "--index-url", url, *trusted, *report, *words)
        asked = self.home / "requirements.in"
        self.home.mkdir(parents=True, exist_ok=True)
        plain = [word for word in words if not word.startswith("--")]
        asked.write_text("".join(f"{word}\n" for word in plain))
        options = [word for word in words if word.startswith("--")]
        return self.run("pip", "compile", "--default-index", url, "--python", sys.executable, *options, str(asked))


def installed(target: Path) -> dict[str, str]:
    """What a folder holds, by normalised name: the version that its METADATA says."""
    found = {}
    for info in target.glob("*.dist-info"):
        name, _dash, version = info.name.removesuffix(".dist-info").partition("-")
        found[name.replace("_", "-").lower()] = version
    return found


@cache
def old_clients(base: Path) -> Path:
    """Return where the clients of a year ago are, in an environment of their own that is made once a session."""
    folder = base / "clients of a year ago"
    subprocess.run([str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([str(UV), "pip", "install", "--quiet", "--python", python, *OLD], check=True)
    return folder / "bin"


def client(name: str, home: Path, factory: pytest.TempPathFactory, *, caches: bool = False) -> Client:
    """Return a client by name: pip, uv, pip-old, uv-old."""
    folder = old_clients(factory.getbasetemp()) if name.endswith("-old") else Path(sys.executable).parent
    return Client(name, folder / ("python" if name.startswith("pip") else "uv"), home, caches)
