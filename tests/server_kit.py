"""The real server in a process of its own, tokens for it, and requests of which every byte is ours."""

from __future__ import annotations

import contextlib
import http.client
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.world import COMMAND, World

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
#: What uv and pip send.
UV_ACCEPT = f"{JSON}, {HTML};q=0.2, text/html;q=0.01"
PIP_ACCEPT = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Server:
    """A server that runs; `url` ends with a slash. `log` is what it wrote to stderr so far."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    context: ssl.SSLContext | None = None
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Ask over one connection that is kept; underscores of header names stand for dashes."""
        if self._connection is None:
            if self.url.startswith("https"):
                self._connection = http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.context)
            else:
                self._connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, body=body, headers=named)
            answer = self._connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise

    def raw(self, data: bytes, *, timeout: float = 10.0, shut: bool = False) -> bytes:
        """Send bytes as they are and return all that comes back until the server hangs up, or is silent for a while."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as client:
            client.sendall(data)
            if shut:
                client.shutdown(socket.SHUT_WR)
            return drained(client)

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, signum: int = signal.SIGTERM, *, timeout: float = 30.0) -> int:
        """Ask it to end and return its exit code."""
        if self._connection is not None:
            self._connection.close()
        self.process.send_signal(signum)
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


def drained(client: socket.socket) -> bytes:
    """All that comes until the other side hangs up; ends at a time-out, too."""
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while data := client.recv(65536):
            found += data
    return found


def tuned(root: Path, *, first: str = "", **settings: object) -> Server:
    """Start a server with other limits than the command's: what takes a minute there can be seen in a second.

    `first` is code that runs before it, to make something slow.
    """
    code = (
        f"{first}\n"
        "import sys, time; from pathlib import Path; from builder.server.run import serve; "
        "from builder.server.settings import Settings; "
        f"sys.exit(serve(Settings(root=Path(sys.argv[1]), port=0, **{settings!r}), clock=time.time, "
        "announce=lambda url: print(url, flush=True)))"
    )
    return _launched([sys.executable, "-c", code, str(root)], root, None, None)


def started(root: Path, *options: str, env: Mapping[str, str] | None = None, log: Path | None = None) -> Server:
    """Start the command on a free port; whoever calls stops it. An empty folder becomes a wheelhouse."""
    root.mkdir(parents=True, exist_ok=True)
    words = [str(COMMAND), "index", "serve", "--port", "0", "--wheelhouse", str(root), *options]
    return _launched(words, root, env, log)


def _launched(words: list[str], root: Path, env: Mapping[str, str] | None, log: Path | None) -> Server:
    log = log or root.parent / f"server-{time.monotonic_ns()}.log"
    base = {"PATH": os.environ["PATH"], "HOME": str(root.parent), "SPARK_BUILD_DEBUG": "1"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, env={**base, **(env or {})})
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.select(30)
    line = process.stdout.readline().decode().strip()
    if not line.startswith("http"):
        process.kill()
        process.wait()
        process.stdout.close()
        msg = f"the server didn't start: {line!r}\n{log.read_text()}"
        raise AssertionError(msg)
    return Server(url=line, process=process, log_file=log)


@contextlib.contextmanager
def serving(place: World | Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Give a server over the wheelhouse of a world, or at a path; it is ended at the end, and its log shown on failure."""
    if isinstance(place, World):
        server = started(place.wheelhouse, *options, env={**place.env(), **(env or {})})
    else:
        server = started(place, *options, env=env)
    with ended(server):
        yield server


@contextlib.contextmanager
def ended(server: Server) -> Iterator[Server]:
    """End a server, and show its log where something failed."""
    try:
        yield server
    except BaseException:
        sys.stderr.write(server.log)
        raise
    finally:
        if server.process.poll() is None:
            server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()


def token(root: Path, name: str = "ci", *scopes: str, channels: tuple[str, ...] = (), expires: str = "") -> str:
    """Put a token into the wheelhouse's token file and return it."""
    import hashlib  # noqa: PLC0415
    import secrets  # noqa: PLC0415

    secret = f"sbt_{secrets.token_urlsafe(24)}"
    lines = [
        "[[token]]",
        f'name = "{name}"',
        f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"',
        f"scopes = {list(scopes or ('publish',))}",
    ]
    if channels:
        lines.append(f"channels = {list(channels)}")
    if expires:
        lines.append(f"expires = {expires}")
    root.mkdir(parents=True, exist_ok=True)
    file = root / "tokens.toml"
    with file.open("a") as stream:
        stream.write("\n".join([*lines, "", ""]))
    file.chmod(0o600)
    return secret
