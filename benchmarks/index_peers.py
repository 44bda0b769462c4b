"""The servers that ``index.py`` compares, each with the same wheels in the form that it wants.

Every peer is the newest that the configured package index has for this Python, in one virtual environment. pypiron runs
without its advisory feed and malware block: it would fetch one from the network at each start, and nobody else has one.
pypiserver runs with its cache and gunicorn, ten times quicker than its default. devpi is offline, with core metadata on.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from index_process import Absent, Running, Server, free_port
from index_wheels import BIG, GRAPH, name

from builder.wheel import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from index_wheels import Made

__all__ = ["SERVERS", "Place", "first"]

BIN = Path(sys.executable).parent
#: devpi files some ten wheels a second, so it gets those that are asked for.
DEVPI_MOST = 2_001
_USER, _PASSWORD = "bench", "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where peers, wheels and the wheelhouse are; `work` is one server's own folder."""

    peers: Path
    work: Path
    made: Made
    house: Path
    env: dict[str, str]

    def program(self, package: str, command: str) -> tuple[str, str]:
        """Return the command of a peer, which is installed now where it isn't yet, and its version."""
        uv, python = str(BIN / "uv"), str(self.peers / "bin" / "python")
        if not (self.peers / "bin" / "python").exists():
            subprocess.run([uv, "venv", "--quiet", str(self.peers)], check=True)
        wanted = {"pypiserver": ["pypiserver[cache]", "gunicorn"]}.get(package, [package])
        done = subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Absent(f"can't be installed: {done.stderr.strip().splitlines()[-1]}")
        code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        return str(self.peers / "bin" / command), version

    def folder(self, where: str, target: Callable[[Path], str]) -> Path:
        """Return a folder with links to all wheels, each at what `target` says of it."""
        root = self.work / where
        for file in self.made.files:
            link = root / target(file)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.hardlink_to(file)
        return root


def first() -> tuple[str, str]:
    """Return the project that is asked for, and one of its files."""
    return name(1), f"{name(1).replace('-', '_')}-1.0-py3-none-any.whl"


def _into(root: Path, target: Callable[[Path], str]) -> Callable[[Path], float]:
    """Return what puts a wheel into a folder, whole at once."""

    def bring(file: Path) -> float:
        beside = root.parent / f".{file.name}"
        shutil.copy(file, beside)
        beside.rename(root / target(file))
        return time.monotonic()

    return bring


def _project(file: Path) -> str:
    return file.name.partition("-")[0].replace("_", "-")


def ours(place: Place) -> Server:
    """`spark-build index serve` on the wheelhouse."""
    port, command = free_port(), str(BIN / "spark-build")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    publisher = [sys.executable, str(Path(__file__).with_name("index_wheels.py")), str(place.house)]

    def bring(file: Path) -> float:
        with subprocess.Popen(
            publisher, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place.env
        ) as process:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            process.stdout.readline()
            out, _nothing = process.communicate(f"{file}\n", timeout=60)
        return float(out.split()[1])

    argv = [command, "index", "serve", "--wheelhouse", str(place.house), "--port", str(port)]
    return Server(
        name="spark-build", version=version, argv=argv, port=port, simple="/simple/", bring=bring, env=place.env
    )


_NGINX = """\
daemon off; master_process on; worker_processes auto; pid {work}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 75; keepalive_requests 1000000;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4;
  scgi_temp_path {work}/t5;
  include {work}/index.conf;
}}
"""


def nginx(place: Place) -> Server:
    """Start nginx on our export, with the configuration that the export brings."""
    found = shutil.which("nginx")
    if found is None:
        raise Absent("nginx is not installed")
    port, tree = free_port(), place.work / "tree"
    export = [str(BIN / "spark-build"), "index", "export", str(tree), "--wheelhouse", str(place.house), "--no-pages"]
    subprocess.run(export, check=True, capture_output=True, env=place.env)
    text = subprocess.run([found, "-v"], capture_output=True, text=True, check=True).stderr
    (place.work / "nginx.conf").write_text(_NGINX.format(work=place.work))
    shown = (tree / "nginx.conf").read_text()
    (place.work / "index.conf").write_text(shown.replace("listen 80;", f"listen 127.0.0.1:{port};"))

    def bring(file: Path) -> float:
        ours(place).bring(file)
        before = time.monotonic()
        subprocess.run(export, check=True, capture_output=True, env=place.env)
        return before  # what the export takes is part of it

    argv = [found, "-e", "stderr", "-c", str(place.work / "nginx.conf"), "-p", str(place.work)]
    version = f"{text.strip().rpartition('/')[2]}, export"
    return Server(name="nginx", version=version, argv=argv, port=port, simple="/simple/", bring=bring, env=place.env)


def pypiron(place: Place) -> Server:
    """Start the Rust server; it takes uploads only."""
    program, version = place.program("pypiron", "pypiron")
    port, data = free_port(), place.work / "data"
    argv = [program, "serve", "--data-dir", str(data), "--bind-addr", f"127.0.0.1:{port}"]
    argv += ["--uploader-user", _USER, "--uploader-pass", _PASSWORD, "--advisory-feed", "", "--malware-block", "false"]

    def bring(file: Path) -> float:
        upload(port, "/legacy/", [file], _USER, _PASSWORD)
        return time.monotonic()

    server = Server(
        name="pypiron",
        version=version,
        argv=argv,
        port=port,
        simple="/simple/",
        bring=bring,
        env=place.env,
        note="advisory feed and malware block off",
    )
    if not data.exists():
        _filled(server, place, lambda: upload(port, "/legacy/", place.made.files, _USER, _PASSWORD))
    return server


def pypiserver(place: Place) -> Server:
    """Start it with what makes it quickest: its cache, and gunicorn."""
    program, version = place.program("pypiserver", "pypi-server")
    port, root = free_port(), place.folder("wheels", lambda file: file.name)
    argv = [program, "run", "-p", str(port), "-i", "127.0.0.1", "--disable-fallback", "--backend", "cached-dir"]
    return Server(
        name="pypiserver",
        version=version,
        argv=[*argv, "--server", "gunicorn", str(root)],
        port=port,
        simple="/simple/",
        bring=_into(root, lambda file: file.name),
        env=place.env,
        note="cached-dir, gunicorn",
    )


def simple_repository(place: Place) -> Server:
    """Start it on a tree with one folder a project."""
    program, version = place.program("simple-repository-server", "simple-repository-server")
    port, root = free_port(), place.folder("tree", lambda file: f"{_project(file)}/{file.name}")
    return Server(
        name="simple-repository-server",
        version=version,
        argv=[program, "--host", "127.0.0.1", "--port", str(port), str(root)],
        port=port,
        simple="/simple/",
        bring=_into(root, lambda file: f"{_project(file)}/{file.name}"),
        env=place.env,
        note="one folder a project",
    )


def fromager(place: Place) -> Server:
    """Start its wheel server; new wheels come by its downloads folder."""
    program, version = place.program("fromager", "fromager")
    port, root = free_port(), place.folder("wheels/downloads", lambda file: file.name)
    folders = [f"--wheels-repo={root.parent}", f"--sdists-repo={place.work / 's'}", f"--work-dir={place.work / 'w'}"]
    return Server(
        name="fromager",
        version=version,
        argv=[program, *folders, "wheel-server", "-p", str(port), "-i", "127.0.0.1"],
        port=port,
        simple="/simple/",
        bring=_into(root, lambda file: file.name),
        env=place.env,
    )


def devpi(place: Place) -> Server:
    """Start it offline with a `volatile` index of its own, filled by uploads."""
    if len(place.made.files) > DEVPI_MOST:
        raise Absent(f"files some ten wheels a second: not filled with {len(place.made.files)}")
    program, version = place.program("devpi-server", "devpi-server")
    port, data = free_port(), place.work / "data"
    argv = [program, "--serverdir", str(data), "--host", "127.0.0.1", "--port", str(port), "--offline-mode"]

    def bring(file: Path) -> float:
        upload(port, "/root/bench/", [file], "root", _PASSWORD)
        return time.monotonic()

    env = {**place.env, "PYTHONWARNINGS": "ignore"}
    server = Server(
        name="devpi-server",
        version=version,
        argv=[*argv, "--enable-core-metadata"],
        port=port,
        simple="/root/bench/+simple/",
        bring=bring,
        env=env,
        note="holds 1,011 of the wheels",
    )
    if not data.exists():
        init = [f"{program.removesuffix('server')}init", "--serverdir", str(data), "--no-root-pypi"]
        subprocess.run([*init, "--root-passwd", _PASSWORD], check=True, capture_output=True, env=env)

        def fill() -> None:
            _make_index(port)
            named = {name(number) for number in range(GRAPH + 1)} | {BIG}
            wanted = [file for file in place.made.files if _project(file) in named]
            upload(port, "/root/bench/", wanted, "root", _PASSWORD)

        _filled(server, place, fill)
    return server


def _make_index(port: int) -> None:
    for _again in range(200):
        with contextlib.suppress(OSError):
            said = _devpi(port, "POST", "/+login", {"user": "root", "password": _PASSWORD}, {})
            break
        time.sleep(0.1)
    else:
        raise Absent("didn't come up to be filled")
    token = base64.b64encode(f"root:{said['result']['password']}".encode()).decode()
    _devpi(port, "PUT", "/root/bench", {"bases": [], "volatile": True}, {"X-Devpi-Auth": token})


def _devpi(
    port: int, method: str, path: str, value: dict[str, object], headers: dict[str, str]
) -> dict[str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        kinds = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request(method, path, json.dumps(value), kinds | headers)
        said: dict[str, dict[str, str]] = json.loads(connection.getresponse().read())
    return said


def _filled(server: Server, place: Place, fill: Callable[[], None]) -> None:
    """Run the server while `fill` uploads."""
    running = Running(server, place.work / "fill.log")
    try:
        _wait_open(server.port)
        fill()
        running.begun = time.monotonic()
        running.wait_for(*first())
    except BaseException:
        shutil.rmtree(place.work / "data", ignore_errors=True)
        raise
    finally:
        running.stop()


def _wait_open(port: int) -> None:
    for _again in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.connect()
            return
        time.sleep(0.1)
    raise Absent("didn't come up to be filled")


def upload(port: int, path: str, files: Iterable[Path], user: str, password: str) -> None:
    """Upload wheels as twine does, over one connection. Raises Absent where one is refused."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    with contextlib.closing(connection):
        for file in files:
            parts, mark = _form(file), os.urandom(16).hex()
            body = b"".join(
                f'--{mark}\r\nContent-Disposition: form-data; name="{key}"{more}\r\n\r\n'.encode() + value + b"\r\n"
                for key, more, value in parts
            )
            headers = {"Authorization": f"Basic {login}", "Content-Type": f"multipart/form-data; boundary={mark}"}
            connection.request("POST", path, body + f"--{mark}--\r\n".encode(), headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != http.client.OK:
                raise Absent(f"refused {file.name}: {answer.status} {said[:200]!r}")


def _form(file: Path) -> list[tuple[str, str, bytes]]:
    data = file.read_bytes()
    found = read.inspect(file)
    fields = {":action": "file_upload", "protocol_version": "1", "name": _project(file), "version": found.version}
    fields |= {"filetype": "bdist_wheel", "pyversion": "py3", "metadata_version": "2.1", "requires_python": ">=3.9"}
    fields |= {"summary": "one of many", "sha256_digest": sha256(data).hexdigest()}
    form = [(key, "", value.encode()) for key, value in fields.items()]
    form += [("requires_dist", "", line.encode()) for line in read.headers(found.metadata, "Requires-Dist")]
    more = f'; filename="{file.name}"\r\nContent-Type: application/octet-stream'
    return [*form, ("content", more, data)]


#: In the order of the table.
SERVERS: dict[str, Callable[[Place], Server]] = {
    "spark-build": ours,
    "nginx": nginx,
    "pypiron": pypiron,
    "simple-repository-server": simple_repository,
    "fromager": fromager,
    "devpi": devpi,
    "pypiserver": pypiserver,
}
