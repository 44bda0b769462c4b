"""Real repositories, archives, servers and wheels for the tests of sources, patches and build environments."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from builder.recipe.model import Source
from builder.source import Sources
from builder.stages import Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.events import Event

WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "t"), ("EMAIL", "t@example.invalid"))
}


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def text(self) -> str:
        return "\n".join(str(event) for event in self.events)


@dataclass
class Outside:
    """What `Sources` is made of, changeable by a test."""

    root: Path
    mirrors: dict[str, str] = field(default_factory=dict)
    index_url: str | None = None
    offline: bool = False
    env: dict[str, str] = field(default_factory=dict)
    now: float = 1_700_000_000.0
    heard: Heard = field(default_factory=Heard)

    @property
    def sources(self) -> Sources:
        home = self.root / "home"
        home.mkdir(parents=True, exist_ok=True)
        return Sources(
            root=self.root / "sources",
            mirrors=tuple(sorted(self.mirrors.items(), key=lambda item: -len(item[0]))),
            index_url=self.index_url,
            offline=self.offline,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **self.env},
            clock=lambda: self.now,
            sink=self.heard,
        )

    def kept(self) -> bytes:
        """All bytes and names that lie below the root: what must not hold a secret."""
        parts = []
        for file in self.root.rglob("*"):
            parts.append(os.fsencode(file))
            if file.is_file() and not file.is_symlink():
                parts.append(file.read_bytes())
        return b"\n".join(parts)


def git_source(url: str | Path, *, ref: str | None = "main", submodules: str | tuple[str, ...] = "none") -> Source:
    text = url if isinstance(url, str) else url.as_uri()
    return Source(kind="git", url=text, ref=ref, submodules=submodules)  # type: ignore[arg-type]


def request(**more: Any) -> Request:  # noqa: ANN401  # a request's fields
    return Request(recipe="tiny", **more)


class Repo:
    """A real repository in a folder; commits have times that follow each other."""

    def __init__(self, folder: Path, *, files: Mapping[str, str | bytes] | None = None) -> None:
        self.folder = folder
        self.time = 1_600_000_000
        folder.mkdir(parents=True)
        self("init", "-q", "-b", "main")
        self.commit(**{"a.txt": "one\ntwo\nthree\n", **(files or {})})

    def __call__(self, *words: str, stdin: str | None = None, **env: str) -> str:
        base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **WHO}
        dates = {"GIT_AUTHOR_DATE": f"@{self.time} +0000", "GIT_COMMITTER_DATE": f"@{self.time} +0000"}
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *words],
            cwd=self.folder,
            env={**base, **dates, **env},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def write(self, **files: Any) -> None:  # noqa: ANN401  # str, bytes, or None to delete
        for name, content in files.items():
            path = self.folder / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, **files: Any) -> str:  # noqa: ANN401  # as `write` takes them
        self.write(**files)
        self.time += 100
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", "change")
        return self("rev-parse", "HEAD")

    def pull(self, number: int, *, since: Any = "main", **files: Any) -> str:  # noqa: ANN401  # as `write` takes them
        """Make refs/pull/<number>/head: one commit on `since`; come back to main."""
        self("checkout", "-q", "--detach", since)
        head = self.commit(**files)
        self("update-ref", f"refs/pull/{number}/head", head)
        self("checkout", "-q", "main")
        return head

    def submodule(self, other: str, path: str) -> str:
        self("submodule", "-q", "add", other, path)
        return self.commit()


@dataclass
class Reply:
    """One answer of a server."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # close the connection after so many bytes of the body
    hold: threading.Event | None = None  # but not before this
    ranges: bool = True


Answer = Reply | Callable[[Mapping[str, str]], Reply]


def guarded(good: Answer, login: str) -> Answer:
    """Return what gives `good` to who sends this ``Authorization`` header, else 401."""
    refused = Reply(status=401, headers={"WWW-Authenticate": "Basic"})
    return lambda asked: given(good, asked) if asked.get("authorization") == login else refused


def in_turn(*answers: Answer) -> Answer:
    """Return what gives one answer after the other, the last for ever."""
    left = list(answers)
    return lambda asked: given(left.pop(0) if len(left) > 1 else left[0], asked)


def given(answer: Answer, asked: Mapping[str, str]) -> Reply:
    return answer if isinstance(answer, Reply) else answer(asked)


class Server:
    """An HTTP server on loopback: `replies` maps a path to an answer, or to what makes one of the request's headers."""

    def __init__(self) -> None:
        self.replies: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = {key.lower(): value for key, value in handler.headers.items()}
        self.seen.append((handler.path, asked))
        known = self.replies.get(handler.path)
        reply = given(known, asked) if known else Reply(status=404)
        body, status, headers = reply.body, reply.status, dict(reply.headers)
        if reply.ranges and status == 200 and (wanted := re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))):
            start = int(wanted[1])
            if start >= len(body):
                status, body = 416, b""
            else:
                status, headers["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        with contextlib.suppress(OSError):
            handler.wfile.write(body if reply.cut is None else body[: reply.cut])
            handler.wfile.flush()
        if reply.hold is not None:
            reply.hold.wait(60)
        if reply.cut is not None:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(2)

    def ranges(self, path: str) -> list[str]:
        return [headers.get("range", "") for seen, headers in self.seen if seen == path]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(files: Mapping[str, str | bytes], *, mode: str = "w:gz", mtime: int = 1_650_000_000) -> bytes:
    """Return a tar of these files, folders left implicit."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_with(*members: tarfile.TarInfo, contents: Mapping[str, bytes] | None = None) -> bytes:
    """Return a tar of just these members, as wrong as they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for member in members:
            data = (contents or {}).get(member.name, b"")
            member.size = len(data) if member.isreg() else member.size
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1_650_000_000
    return info


def tiny_wheel(
    folder: Path, name: str, version: str, *, requires: tuple[str, ...] = (), more: str = "", script: bool = False
) -> Path:
    """Write a wheel that pip and uv take: `requires` are its Requires-Dist, `more` more lines of METADATA."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{module}/__init__.py": f"version = {version!r}\n\n\ndef main():\n    print(version)\n".encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}{more}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {module}:main\n".encode()
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return target


def index_pages(root: Path) -> str:
    """Write PEP 503 pages for the files in `root`'s folders (one a project); return the index's URL."""
    for folder in root.iterdir():
        if folder.is_dir():
            links = "".join(
                f'<a href="{file.name}#sha256={sha256(file.read_bytes())}">{file.name}</a><br>\n'
                for file in sorted(folder.iterdir())
                if file.suffix in {".whl", ".gz"}
            )
            (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
    return root.as_uri()


def json_page(name: str, *files: Mapping[str, Any]) -> Reply:
    """Return a PEP 691 page."""
    body = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": list(files)}).encode()
    return Reply(body, headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
