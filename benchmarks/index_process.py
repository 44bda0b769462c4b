"""Servers as processes: started, asked, weighed by ``/proc``, stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "JSON_FIRST",
    "PAGE_HEADERS",
    "Absent",
    "Links",
    "Running",
    "Server",
    "ask",
    "connected",
    "free_port",
    "links",
]

#: What uv sends for pages; for METADATA it leaves out `Accept`.
JSON_FIRST = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
PAGE_HEADERS = {"Accept": JSON_FIRST, "Accept-Encoding": "gzip, deflate, zstd"}
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_UP_S, _DOWN_S = 120.0, 15.0


class Absent(Exception):  # it is a result
    """A server can't be measured here; the text says why."""


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How a server is started and asked. `simple` is the root page's path; `bring` publishes a wheel that is new.

    `bring` returns when the wheel was published, in seconds of the monotonic clock.
    """

    name: str
    version: str
    argv: list[str]
    port: int
    simple: str
    bring: Callable[[Path], float]
    env: dict[str, str] = field(default_factory=dict)
    note: str = ""
    wheels: int | None = None

    @property
    def url(self) -> str:
        """The address that is given to clients."""
        return f"http://127.0.0.1:{self.port}{self.simple}"


class Running:
    """A server that runs. Its figures are those of the process and all its children."""

    def __init__(self, server: Server, log: Path) -> None:
        self.server = server
        self.begun = time.monotonic()
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                server.argv,
                env=server.env,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._log = log

    def wait_for(self, project: str, filename: str) -> float:
        """Return after how many seconds since the start the page of `project` named `filename`; raise Absent else."""
        while time.monotonic() - self.begun < _UP_S:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if filename in links(f"{self.server.url}{project}/").files:
                    return time.monotonic() - self.begun
            if self._process.poll() is not None:
                break
            time.sleep(0.002)
        ended = self._process.poll() is not None
        self.stop()
        said = self._log.read_text().strip().splitlines()[-1:]
        raise Absent(f"ended at once: {''.join(said)[:200]}" if ended else f"no right answer within {_UP_S:.0f} s")

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(
                    int(stat.parent.name)
                )
        pids = [self._process.pid]
        for pid in pids:  # grows while it is read
            pids += parents.get(pid, [])
        return pids

    def cpu_s(self) -> float:
        """Return user + system seconds so far, those of children that ended too."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                total += sum(
                    int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
                )
        return total * _TICK_S

    def rss_mb(self, *, peak: bool = False) -> float:
        """Return the resident memory, or what was the most of each process, in MB."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:" if peak else "VmRSS:"):
                        total += int(line.split()[1]) * 1024
        return total / 1e6

    def stop(self) -> None:
        """Leave no process of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DOWN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def connected(url: str) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """Give a connection and the path of `url`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        yield connection, parts.path
    finally:
        connection.close()


def ask(url: str, headers: dict[str, str] | None = None, *, hops: int = 3) -> tuple[str, dict[str, str], bytes]:
    """Return the final address, the headers (in lower case) and the body of `url`. Raises OSError for a status but 200."""
    with connected(url) as (connection, path):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
    if "location" in found and hops:
        return ask(urljoin(url, found["location"]), headers, hops=hops - 1)
    if answer.status != http.client.OK:
        raise OSError(f"{url}: {answer.status}")
    return url, found, body


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """A page: its final address, and where its files are, by name."""

    url: str
    files: dict[str, str]


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for key, value in attrs if tag == "a" and key == "href" and value]


def links(url: str) -> Links:
    """Return what a page of either kind names."""
    final, headers, body = ask(url, {"Accept": JSON_FIRST})
    if "json" in headers.get("content-type", ""):
        targets = [entry["url"] for entry in json.loads(body)["files"]]
    else:
        anchors = _Anchors()
        anchors.feed(body.decode())
        targets = anchors.targets
    whole = [urldefrag(urljoin(final, target)).url for target in targets]
    return Links(url=final, files={target.rpartition("/")[2]: target for target in whole})
