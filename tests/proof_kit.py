"""Builds that are watched, killed and examined from outside; real projects that compile, and an index that can stall."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import textwrap
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.world import World

#: The time of every commit: well before any object that a build makes, as `make` wants it.
COMMITTED = "2024-03-01T12:00:00+00:00"

#: An in-tree backend that runs `steps`, then packs the folder ``made``.
BACKEND = """
import base64, hashlib, os, pathlib, shutil, subprocess, sys, time, zipfile

NAME, VERSION, TAG = {name!r}, "1.0", {tag!r}
made = pathlib.Path("made")


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    made.mkdir(exist_ok=True)
{steps}
    module = NAME.replace("-", "_")
    info = f"{{module}}-{{VERSION}}.dist-info"
    files = {{f"{{module}}/{{p.relative_to(made)}}": p.read_bytes() for p in sorted(made.rglob("*")) if p.is_file()}}
    files[f"{{module}}/__init__.py"] = b""
    files[f"{{info}}/METADATA"] = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n".encode()
    files[f"{{info}}/WHEEL"] = f"Wheel-Version: 1.0\\nGenerator: kit\\nRoot-Is-Purelib: false\\nTag: {{TAG}}\\n".encode()
    rows = [
        f"{{path}},sha256={{base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}},{{len(data)}}"
        for path, data in files.items()
    ]
    files[f"{{info}}/RECORD"] = "\\n".join([*rows, f"{{info}}/RECORD,,", ""]).encode()
    target = f"{{module}}-{{VERSION}}-{{TAG}}.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, target), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return target
"""

#: Compile every C file of the project into a library of the wheel.
COMPILE = """
for source in sorted(pathlib.Path(".").glob("*.c")):
    subprocess.run(["cc", "-O2", "-g", "-fPIC", "-shared", "-o", f"made/{source.stem}.so", source.name], check=True)
"""


# --- projects


def project(
    world: World,
    name: str,
    steps: str = "pass",
    *,
    files: Mapping[str, str | bytes] = {},
    outputs: Sequence[str] = (),
    requires: Sequence[str] = (),
    more: str = "",
) -> Path:
    """Make a git repository and a recipe `name`; each of `outputs` is a project in a folder of its name."""
    repo = world.root / name
    for output in outputs or (name,):
        folder = repo / output if outputs else repo
        folder.mkdir(parents=True)
        (folder / "backend.py").write_text(
            BACKEND.format(name=output, tag=_tag(), steps=textwrap.indent(textwrap.dedent(steps), "    "))
        )
        (folder / "pyproject.toml").write_text(
            f'[build-system]\nrequires = {json.dumps(list(requires))}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text.encode() if isinstance(text, str) else text)
    commit(world, repo)
    text = f'schema = 1\nname = "{name}"\n[[source]]\nkind = "git"\nurl = "{repo.as_uri()}"\nref = "main"\n'
    for output in outputs or (name,):
        text += f'[[output]]\nname = "{output}"\n' + (f'path = "{output}"\n' if outputs else "")
    world.recipe(name, text + textwrap.dedent(more))
    return repo


def commit(world: World, repo: Path) -> None:
    """Commit all there is, as the same commit on every machine."""
    env = world.env(GIT_AUTHOR_DATE=COMMITTED, GIT_COMMITTER_DATE=COMMITTED)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=repo, env=env, check=True)


def _tag() -> str:
    return f"py3-none-linux_{os.uname().machine}"


def c_file(number: int) -> str:
    """Return a C file that a compiler needs a moment for."""
    lines = "\n".join(f"double f{number}_{n}(double x) {{ return x * {n} + {number}; }}" for n in range(40))
    return f"#include <stdio.h>\n#include <math.h>\nconst char *when = __DATE__ __TIME__ __FILE__;\n{lines}\n"


# --- runs


@dataclass
class Run:
    """A started command whose events are read as they come."""

    child: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, world: World, *words: str, before: Sequence[str] = (), **env: str) -> Run:
        """Start ``spark-build`` with `words` in a session of its own."""
        argv = [*before, str(COMMAND), *words, "--progress", "json"]
        return cls(
            subprocess.Popen(
                argv,
                env=world.env(**env),
                cwd=world.root,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        self.end()
        for stream in (self.child.stdout, self.child.stderr):
            if stream is not None:
                stream.close()

    def read(self) -> dict[str, Any] | None:
        """Return the next event, or None at the end."""
        assert self.child.stderr is not None
        while line := self.child.stderr.readline():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self.events.append(event)
                    return event
            self.text.append(line)
        return None

    def until(self, kind: str, **values: str) -> dict[str, Any]:
        """Read on to an event of that kind with these values."""
        while event := self.read():
            if event.get("kind") == kind and all(values[key] in str(event.get(key)) for key in values):
                return event
        raise AssertionError(f"{kind} {values} never came\n{''.join(self.text)}\n{self.events[-3:]}")

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Return when `holds()` is true; fail when the command ends before."""
        until(lambda: holds() or self.child.poll() is not None, what)
        if not holds():
            self.end()
            raise AssertionError(f"{what} never came\n{''.join(self.text)}")

    def kill(self, signum: int = signal.SIGKILL, *, group: bool = False) -> None:
        """Send a signal to the command alone, or to its whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signum) if group else os.kill(self.child.pid, signum)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self.read():
            pass
        return self.child.wait()

    def printed(self) -> list[Path]:
        """Return the paths on stdout, after the end."""
        self.end()
        assert self.child.stdout is not None
        return [Path(line) for line in self.child.stdout.read().splitlines()]

    def fingerprint(self) -> str:
        """Return the fingerprint of the build, or an empty text when it never began."""
        found = (event["fingerprint"] for event in self.events if event.get("kind") == "build.started")
        return next(found, "")


def alive(*marks: str | Path) -> list[str]:
    """Return the processes that name one of `marks` in their command, environment or working folder."""
    wanted = [os.fsencode(str(mark)) for mark in marks]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            told = b"\0".join([words, (entry / "environ").read_bytes(), os.fsencode((entry / "cwd").readlink())])
        except OSError:
            continue
        if any(mark in told for mark in wanted):
            found.append(f"{entry.name}: {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def until(holds: Callable[[], object], what: str, *, limit_s: float = 30.0) -> None:
    """Return when `holds()` is true; fail when it never becomes so."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.01)


# --- what a wheelhouse holds


def rows(house: Path, sql: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """Ask the catalogue as the next reader would find it, without touching it: on a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("catalog.sqlite3", "catalog.sqlite3-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(house / name, Path(folder, name))
        if not Path(folder, "catalog.sqlite3").exists():
            return []
        with contextlib.closing(sqlite3.connect(Path(folder, "catalog.sqlite3"))) as database:
            return database.execute(sql, values).fetchall()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_listed(house: Path) -> None:
    """Every listed wheel is there with the bytes that the catalogue names."""
    for project_name, filename, digest in rows(house, "SELECT project, filename, sha256 FROM wheels"):
        assert sha256(house / "wheels" / project_name / filename) == digest, filename


def check_whole(house: Path) -> None:
    """Nothing is half-done: files, catalogue and index name the same wheels, and nothing else is left."""
    check_listed(house)
    listed = dict(rows(house, "SELECT filename, sha256 FROM wheels"))
    names = {f"{name}{tail}" for name in listed for tail in ("", ".provenance.json")}
    assert {file.name for file in (house / "wheels").rglob("*") if file.is_file()} == names
    incoming = house / "wheels" / ".incoming"
    assert not incoming.exists() or not list(incoming.iterdir())
    pages = "".join(page.read_text() for page in (house / "index" / "simple").glob("*/index.html"))
    newest = {}  # of each version: its earlier builds are off the pages, and their files stay
    for project, version, name in rows(
        house, "SELECT project, version, filename FROM wheels ORDER BY created, filename"
    ):
        newest[project, version.partition("+")[0]] = name
    for name in newest.values():
        assert f"{listed[name]}/{name.replace('+', '%2B')}" in pages, f"the index doesn't list {name}"
    for name, digest in listed.items():
        assert (house / "index" / "files" / digest / name).exists(), f"the index doesn't hold {name}"


def settled(world: World, printed: dict[Path, str], *marks: str) -> None:
    """What must hold right after a kill: listed wheels are whole, printed ones are there, nothing of the build lives."""
    check_listed(world.wheelhouse)
    for path, digest in printed.items():
        assert sha256(path) == digest
    until(lambda: not alive(world.root, *marks), "the end of every process", limit_s=10)


def finished(world: World, name: str, *words: str, **env: Any) -> Path:  # noqa: ANN401  # variables, by name
    """Run to the end, check all there is, and return the one wheel."""
    (wheel,) = world.wheels(name, *words, **env)
    assert world.wheels(name, *words, **env) == [wheel]
    check_whole(world.wheelhouse)
    return wheel


def wheel_text(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


# --- an index that can stall


class Index:
    """A package index on loopback. A path that holds the word `stall` is answered by half, then by nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stall = ""
        self.reached = threading.Event()
        self.go_on = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/simple"

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0].strip("/")
        file = self.folder / path.removeprefix("files/")
        if path.startswith("simple/"):
            body = self._page(path.removeprefix("simple/"))
        elif file.is_file():
            body = file.read_bytes()
        else:
            request.send_error(404)
            return
        start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        kind = "application/vnd.pypi.simple.v1+json" if path.startswith("simple/") else "application/octet-stream"
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with contextlib.suppress(OSError):
            if self.stall and self.stall in path:
                request.wfile.write(body[: len(body) // 2])
                request.wfile.flush()
                self.reached.set()
                self.go_on.wait(60)
                request.close_connection = True
                return
            request.wfile.write(body)

    def _page(self, name: str) -> bytes:
        files = []
        for file in sorted(self.folder.glob(f"{name.replace('-', '[-_]')}-*")):
            if file.suffix == ".metadata":
                continue
            one: dict[str, Any] = {"filename": file.name, "url": f"/files/{file.name}", "size": file.stat().st_size}
            one |= {"hashes": {"sha256": sha256(file)}, "upload-time": COMMITTED.replace("+00:00", "Z")}
            if file.suffix == ".whl":
                one["core-metadata"] = {"sha256": sha256(file.with_name(f"{file.name}.metadata"))}
            files.append(one)
        return json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": files}).encode()

    def add_wheel(self, name: str) -> None:
        """Put a wheel of that name into the index, its metadata beside it."""
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        with zipfile.ZipFile(self.folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}/__init__.py", "# nothing\n" * 1000)
            archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
            archive.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n"
            )
            archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
        (self.folder / f"{name}-1.0-py3-none-any.whl.metadata").write_text(metadata)


@contextlib.contextmanager
def index(folder: Path) -> Iterator[Index]:
    """Serve `folder` as a package index."""
    folder.mkdir(parents=True, exist_ok=True)
    served = Index(folder)
    try:
        yield served
    finally:
        served.close()
