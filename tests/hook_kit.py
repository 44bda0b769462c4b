"""Small real projects, one for each way of compiling; a broker that lets everything in and writes down what it was asked."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import os
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from builder.gate import ccache, hooks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CCACHE = Path(sys.executable).with_name("ccache")
SYSTEM = ("/usr/local/bin", "/usr/bin", "/bin")
CUDA = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")


def program(name: str) -> Path:
    """Return one of the native programs: of the build folder that SPARK_BUILD_PROGRAMS names, or as installed."""
    folder = os.environ.get("SPARK_BUILD_PROGRAMS")
    path = Path(folder) / name if folder else Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} isn't built")
    return path


def run(
    *argv: str | Path, env: Mapping[str, str], cwd: Path, code: int | None = 0, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in argv],
        env=dict(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if code is not None:
        assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
    return folder


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stripped(file: Path, folder: Path) -> str:
    """Return the digest of an object without its symbols for files: nvcc names one after its process id."""
    to = folder / "stripped.o"
    subprocess.run(["strip", "--strip-unneeded", "-o", str(to), str(file)], check=True)
    return sha(to)


class Bench:
    """A tree, a cache, and compiles with ccache as a build would do them; a launcher that writes down each real compile."""

    def __init__(self, root: Path, *, cache: Path | None = None) -> None:
        self.root = root
        self.src = root / "src"
        self.src.mkdir(parents=True, exist_ok=True)
        self.cache = cache or root.parent / "cache"
        self.leases = root / "leases"
        self.log = root / "stats"
        self.launcher = script(root / "launcher", f'echo "$*" >> {shlex.quote(str(self.leases))}\nexec "$@"')

    def env(self, *, name: str = "n", fixed: bool = True, **settings: object) -> dict[str, str]:
        made = ccache.Settings(
            folder=self.cache,
            namespace=name,
            root=self.root,
            fixed=fixed,
            launcher=self.launcher,
            log=self.log,
            **settings,  # type: ignore[arg-type]
        )
        return {"PATH": os.pathsep.join(SYSTEM), "HOME": str(self.root), "LC_ALL": "C", **ccache.variables(made)}

    def compile(self, *argv: str | Path, env: Mapping[str, str] | None = None, code: int | None = 0) -> str:
        done = run(CCACHE, *argv, env=env or self.env(), cwd=self.src, code=code)
        return done.stdout + done.stderr

    def compiled(self) -> int:
        """Return how many compilers were started, and forget them."""
        count = len(self.leases.read_text().splitlines()) if self.leases.exists() else 0
        self.leases.unlink(missing_ok=True)
        return count

    def statistics(self) -> ccache.Statistics:
        return ccache.statistics(self.log)


class Store(http.server.ThreadingHTTPServer):
    """A server for opaque values. `token` is what it wants as Authorization; `damage` replaces what it gives."""

    def __init__(self, token: str | None = None) -> None:
        self.values: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.token = token
        self.damage: bytes | None = None
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ccache"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.token and self.headers.get("Authorization") != self.server.token:
            self._reply(401)
        elif self.command == "PUT":
            self.server.values[self.path] = body
            self._reply(201)
        elif self.path in self.server.values:
            self._reply(200, self.server.damage or self.server.values[self.path])
        else:
            self._reply(404)

    do_GET = do_HEAD = do_PUT = _handle  # noqa: N815  # the library's names


@contextmanager
def serving(store: Store) -> Iterator[Store]:
    thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()


class Recorder:
    """A broker that lets every unit in at once. `units` holds what launchers asked for, `ends` how it ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units: list[dict[str, str]] = []
        self.ends: list[dict[str, str]] = []
        self.strange: list[str] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"broker-{os.getuid()}-{os.getpid()}.sock"
        self._listener = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        folder = os.open(self.folder, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{name}")
        os.close(folder)
        self._listener.listen(256)
        lock = self._stack.enter_context((self.folder / "broker.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{name}\n")
        lock.flush()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._stack.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while packet := client.recv(1 << 16):
                verb, *lines = packet.decode().splitlines()
                said = dict(line.partition(" ")[::2] for line in lines)
                with self._lock:
                    if verb == "unit":
                        self.units.append(said)
                    elif verb == "end":
                        self.ends.append(said)
                    elif verb != "at":
                        self.strange.append(packet.decode())
                if verb == "unit":
                    client.sendall(f"go\nbytes {1 << 30}\nattempt 1\nalone 0\n".encode())
                elif verb == "end":
                    client.sendall(b"done\n")

    def kinds(self) -> dict[str, int]:
        """Return how many units of each class asked."""
        with self._lock:
            kinds = [unit["kind"] for unit in self.units]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def sources(self) -> set[str]:
        with self._lock:
            return {unit.get("source", "") for unit in self.units if unit["kind"] != "link"}


class Site:
    """A build's tree with its environment, with the gate (`gated`) and without (`plain`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.src = root / "src"
        for folder in (self.src, root / "home", root / "tmp", root / "programs"):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("gcc", "g++", "cc", "c++"):
            (root / "programs" / name).symlink_to(f"/usr/bin/{name}")

    def plain(self, **more: str) -> dict[str, str]:
        before = more.pop("before", "")
        path = [*([before] if before else []), str(self.root / "programs"), str(CUDA / "bin"), *SYSTEM]
        env = {
            "PATH": os.pathsep.join(path),
            "CC": "gcc",
            "CXX": "g++",
            "CUDA_HOME": str(CUDA),
            "CUDACXX": str(CUDA / "bin" / "nvcc"),
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "LC_ALL": "C.UTF-8",
            "SOURCE_DATE_EPOCH": "1700000000",
            "CARGO_NET_OFFLINE": "true",
        }
        return env | more

    def gated(self, gate: Path, *, hook: str = "none", cache: Path | None = None, **more: str) -> dict[str, str]:
        links = self.root / "bin"
        env = self.plain(**more)
        folders = [Path(folder) for folder in env["PATH"].split(os.pathsep)]
        hooks.make_links(links, program(hooks.PROGRAM), hooks.compilers(folders))
        made: dict[str, str] = {}
        if cache is not None:
            made = ccache.variables(
                ccache.Settings(
                    folder=cache,
                    namespace="n",
                    root=self.root,
                    fixed=True,
                    launcher=links / hooks.PROGRAM,
                    log=self.root / "ccache.log",
                )
            )
        terms = hooks.Terms(
            gate=gate,
            build="0123456789-1",
            root=self.root,
            links=links,
            env=env,
            cores=4,
            slots=2,
            hook=hook,  # type: ignore[arg-type]
            jobs_env=("MAX_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL"),
            ccache=CCACHE if cache is not None else None,
            cache=made,
        )
        return env | hooks.variables(terms)

    def clean(self) -> None:
        """Forget what was built, not what it is built from."""
        for name in ("build", "out"):
            shutil.rmtree(self.src / name, ignore_errors=True)
