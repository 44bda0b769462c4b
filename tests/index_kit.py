"""Reading a static index without the code that wrote it, serving it, and clients with environments of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

UV = Path(sys.executable).with_name("uv")


class Page(HTMLParser):
    """The links of a page as (text, attributes), and its meta tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, dict[str, str]]] = []
        self.meta: dict[str, str] = {}
        self._inside = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "a":
            self.links.append(("", values))
            self._inside = True
        elif tag == "meta" and "name" in values:
            self.meta[values["name"]] = values["content"]

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._inside:
            text, values = self.links[-1]
            self.links[-1] = (text + data, values)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file but the manifest, whose second line is another after each change of the catalogue."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".spark-build-index"
    }


@dataclass
class Server:
    url: str
    requests: list[str]

    def wheels(self) -> list[str]:
        return [line for line in self.requests if line.endswith(".whl")]


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Server]:
    """The standard library's file server on a free port of the loopback, with its requests counted."""
    seen: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
            pass

        def log_request(self, code: object = "-", size: object = "-") -> None:  # noqa: ARG002
            seen.append(f"{self.command} {self.path.partition('?')[0]}")

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Server(url=f"http://127.0.0.1:{server.server_port}/simple/", requests=seen)
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Client:
    """pip or uv with an empty virtual environment; nothing of the caller's configuration reaches it."""

    name: str
    pip_python: Path
    venv: Path
    cache: Path

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.cache),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(self.cache / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False, cwd=self.venv)

    def install(self, url: str, *words: str) -> subprocess.CompletedProcess[str]:
        if self.name == "uv":
            command = [str(UV), "pip", "install", "--python", str(self.python), "--default-index", url]
        else:
            command = [str(self.pip_python), "-m", "pip", "--python", str(self.python), "install", "--index-url", url]
        return self.run(*command, *words)

    def version(self, project: str) -> str | None:
        """What the environment says that it holds, asked of the environment itself."""
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        done = self.run(str(self.python), "-c", code, project)
        return done.stdout.strip() if done.returncode == 0 else None
