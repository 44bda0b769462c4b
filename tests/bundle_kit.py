"""A small public index as files, a server that can go on, break off and be slow, and what a bundle is looked at with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import wheelhouse_kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.world import World

PLATFORM, PYTHON = "x86_64-manylinux_2_36", f"3.{sys.version_info[1]}"
HERE = ["--platform", PLATFORM, "--target-python", PYTHON]
UV = Path(sys.executable).with_name("uv")


@dataclass
class Index:
    """Simple pages over wheels, as any index has them."""

    root: Path
    made: Path = field(init=False)

    def __post_init__(self) -> None:
        self.made = self.root.parent / f"{self.root.name}-made"
        (self.root / "simple").mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return (self.root / "simple").as_uri()

    def add(self, name: str, version: str = "1.0", *, tag: str = "py3-none-any", **more: Any) -> Path:  # noqa: ANN401
        """List a wheel and return its file; `tag` is that of its name."""
        file = wheelhouse_kit.make_wheel(self.made / f"{name}-{version}-{tag}", name, version, **more)
        return self.list(file, name, file.name.replace("py3-none-any", tag))

    def list(self, file: Path, project: str, filename: str | None = None) -> Path:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        filename = filename or file.name
        target = self.root / "files" / digest / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        page = self.root / "simple" / project.replace("_", "-") / "index.html"
        page.parent.mkdir(exist_ok=True)
        with page.open("a") as stream:
            stream.write(f'<a href="../../files/{digest}/{filename}#sha256={digest}">{filename}</a>\n')
        return target

    def add_uv(self, program: bytes | None = None) -> None:
        """List uv as its own index does: a wheel with the program in it, uv or another one."""
        target = self.made / f"uv-9.0-py3-none-{PLATFORM.partition('-')[2]}_x86_64.whl"
        self.made.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("uv-9.0.data/scripts/uv", program or UV.read_bytes())
            archive.writestr("uv-9.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 9.0\n")
            archive.writestr("uv-9.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr("uv-9.0.dist-info/RECORD", "")
        self.list(target, "uv")


def public(folder: Path) -> Index:
    """Return an index of an app that needs a base."""
    made = Index(folder)
    made.add("app", "2.0", requires=["base"], text=b"VALUE = 42\n")
    made.add("base", "1.0")
    return made


@dataclass
class Served:
    """How a server behaves, and what bundles fetched from it; what uv itself reads isn't there."""

    url: str = ""
    log: list[list[Any]] = field(default_factory=list)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    refuses: dict[str, list[int]] = field(default_factory=dict)
    per_chunk_s: float = 0.0
    ranges: bool = True
    tag: str = "one"
    changed: Callable[[str, bytes], bytes] = lambda _path, data: data

    @property
    def asked(self) -> list[tuple[str, int, int]]:
        """File name, first byte and bytes sent of each request, in their order."""
        return [(name, start, sent) for name, start, sent in self.log]


class Handler(BaseHTTPRequestHandler):
    """Answers as an index does, and misbehaves as `served` says."""

    protocol_version = "HTTP/1.1"
    served: Served
    root: Path

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].partition("#")[0]
        name = path.rsplit("/", 1)[-1]
        file = self.root / path.strip("/")
        file = file / "index.html" if file.is_dir() else file
        refuses = self.served.refuses.get(name) if self._is_ours() else None
        if refuses or not file.is_file():
            self._empty(refuses.pop(0) if refuses else 404)
        else:
            self._send(path, name, self.served.changed(name, file.read_bytes()))

    def _is_ours(self) -> bool:
        return self.headers.get("User-Agent") == "spark-build"

    def _empty(self, state: int) -> None:
        self.send_response(state)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, path: str, name: str, data: bytes) -> None:
        tag = f'"{self.served.tag}"'
        start = 0
        if self.served.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
        if start and start >= len(data):
            self._empty(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self._body(name, data, start)

    def _body(self, name: str, data: bytes, start: int) -> None:
        breaks = self.served.breaks.get(name)
        limit = min(len(data), start + breaks.pop(0)) if breaks else len(data)
        sent, entry = start, [name, start, 0]
        if self._is_ours() and name.endswith(".whl"):
            self.served.log.append(entry)
        try:
            while sent < limit:
                some = data[sent : min(sent + (64 << 10), limit)]
                self.wfile.write(some)
                sent += len(some)
                entry[2] = sent - start
                if self.served.per_chunk_s and name.endswith(".whl"):
                    time.sleep(self.served.per_chunk_s)
        except ConnectionError:
            self.close_connection = True
        self.close_connection = self.close_connection or limit < len(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(root: Path, **how: Any) -> Iterator[Served]:  # noqa: ANN401  # fields of Served
    """Serve `root` with ranges and entity tags. `breaks` cuts answers after so many bytes, `refuses` gives states first."""
    served = Served(**how)
    handler = type("Bound", (Handler,), {"served": served, "root": root})
    with Server(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def export(world: World, url: str, *words: str, code: int = 0, to: str = "bundle") -> subprocess.CompletedProcess[str]:
    """Run ``bundle export`` for this machine's Python against the index at `url`, and nothing of the caller's uv."""
    return world.run("bundle", "export", to, *words, *HERE, code=code, SPARK_BUILD_INDEX_URL=url, UV_NO_CONFIG="1")


def manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return loaded


def retell(folder: Path) -> None:
    """Write a manifest that agrees with what lies in the folder."""
    document = manifest(folder)
    document["files"] = {
        path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for path, data in tree(folder).items()
        if not path.startswith("manifest.json")
    }
    (folder / "manifest.json").write_text(json.dumps(document))


def stored(world: World) -> set[str]:
    """Names of the wheels in the cache."""
    return {path.name for path in (world.root / "sources" / "files").glob("[0-9a-f]*/*.whl")}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut_off(words: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401  # passed on
    """Run a command in a network namespace of its own, where even loopback is down."""
    unshare = shutil.which("unshare") or "unshare"
    return subprocess.run([unshare, "-n", *words], capture_output=True, text=True, check=False, **more)
