"""What is measured of a server: load by wrk, the big wheel, memory, how soon a new wheel shows, what uv takes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from index_process import JSON_FIRST, PAGE_HEADERS, connected, links
from index_wheels import BIG, GRAPH, name, wheel

if TYPE_CHECKING:
    from index_peers import Place
    from index_process import Running

__all__ = ["Figures", "Load", "big", "crawl", "fresh", "load", "resolve", "targets"]

CLIENTS = 8
#: What a wrk run asks for each kind of thing; uv asks for METADATA and wheels without saying which kind.
HEADERS = {
    "page": PAGE_HEADERS,
    "root": PAGE_HEADERS,
    "metadata": {"Accept": "*/*", "Accept-Encoding": "gzip, deflate, zstd"},
    "wheel": {"Accept": "*/*", "Accept-Encoding": "identity"},
}
_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_NOT_SHOWN_S, _SLOW_S, _SLOW_RUNS = 5.0, 4.0, 3
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One wrk run: CPU of the server a request in microseconds, latencies in milliseconds."""

    cpu_us: float
    per_s: float
    p50_ms: float
    p99_ms: float
    failed: bool


@dataclass(slots=True, kw_only=True)
class Figures:
    """All that was measured of one server; times in seconds, memory in MB."""

    loads: dict[str, list[Load]] = field(default_factory=dict)
    big_cpu_s_gb: list[float] = field(default_factory=list)
    big_mb_s: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    start_cpu: list[float] = field(default_factory=list)
    rss: dict[str, float] = field(default_factory=dict)
    shown: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)
    compile_cpu: list[float] = field(default_factory=list)

    def median(self, what: str, figure: str) -> float | None:
        """Return the median of one figure over the rounds; None where it wasn't or couldn't be measured."""
        found = [one for one in self.loads.get(what, ()) if not one.failed]
        return statistics.median(getattr(one, figure) for one in found) if found else None


def targets(running: Running) -> dict[str, str]:
    """Return the addresses of page, root, METADATA, a small wheel and the big one, as the server itself names them."""
    page = links(f"{running.server.url}{name(1)}/")
    file = next(url for key, url in page.files.items() if "-1.0-" in key)
    found = {"page": page.url, "root": running.server.url, "wheel": file}
    found["big"] = next(iter(links(f"{running.server.url}{BIG}/").files.values()))
    with connected(file) as (connection, path):
        connection.request("GET", f"{path}.metadata")
        answer = connection.getresponse()
        if answer.status == http.client.OK and answer.read().startswith(b"Metadata-Version"):
            found["metadata"] = f"{file}.metadata"
    return found


def load(running: Running, what: str, url: str, seconds: int) -> Load:
    """Ask for `url` over eight connections for so long."""
    wrk = shutil.which("wrk") or sys.exit("wrk is not installed")
    headers = [word for key, value in HEADERS[what].items() for word in ("-H", f"{key}: {value}")]
    before = running.cpu_s()
    argv = [wrk, "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "10s", "--latency", *headers, url]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    cpu = running.cpu_s() - before
    asked = int(_found(r"(\d+) requests in", said) or 0)
    return Load(
        cpu_us=cpu / max(asked, 1) * 1e6,
        per_s=float(_found(r"Requests/sec:\s+([\d.]+)", said) or 0),
        p50_ms=_ms(said, 50),
        p99_ms=_ms(said, 99),
        failed=not asked or "Non-2xx" in said or "Socket errors" in said,
    )


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _ms(said: str, percent: int) -> float:
    match = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", said)
    return float(match[1]) * _UNIT_MS[match[2]] if match else 0.0


def _drain(url: str, clients: int) -> int:
    """Download `url` with so many clients at once and return all bytes that came."""

    def one(_number: int) -> int:
        buffer, got = bytearray(_BUFFER), 0
        with connected(url) as (connection, path):
            connection.request("GET", path, headers={"Accept-Encoding": "identity"})
            answer = connection.getresponse()
            while count := answer.readinto(buffer):
                got += count
        return got

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(one, range(clients)))


def big(running: Running, url: str, figures: Figures, *, clients: int = 1, times: int = 1) -> None:
    """Download the big wheel; add CPU seconds a GB and MB a second."""
    before, begun, got = running.cpu_s(), time.monotonic(), 0
    for _again in range(times):
        got += _drain(url, clients)
    took = time.monotonic() - begun
    figures.big_cpu_s_gb.append((running.cpu_s() - before) / (got / 1e9))
    figures.big_mb_s.append(got / 1e6 / took)


def crawl(running: Running, projects: int) -> None:
    """Ask once for every page in both forms, so that whatever a server keeps of them is there."""
    parts = urlsplit(running.server.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    with contextlib.closing(connection):
        for path in ["", *(f"{name(number)}/" for number in range(projects))]:
            for kind in (JSON_FIRST, "text/html"):
                connection.request("GET", parts.path + path, headers={"Accept": kind, "Accept-Encoding": "gzip"})
                connection.getresponse().read()


def fresh(running: Running, folder: Path) -> float | None:
    """Publish a new wheel from another process and return how long after that its page named it; None: not soon."""
    folder.mkdir(parents=True, exist_ok=True)
    made = wheel(folder, name(GRAPH), f"2.{time.time_ns()}")
    url = f"{running.server.url}{name(GRAPH)}/"
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(running.server.bring, made)
        while True:
            shown = made.name in links(url).files
            now = time.monotonic()
            if shown:
                return max(0.0, now - publishing.result())
            if publishing.done() and now - publishing.result() > _NOT_SHOWN_S:
                return None
            time.sleep(0.001)


def resolve(running: Running, place: Place, figures: Figures) -> None:
    """Let uv resolve the graph with an empty cache; a server that is slow is asked only a few times."""
    if len(figures.compiled) >= _SLOW_RUNS and min(figures.compiled) > _SLOW_S:
        return
    memory = Path("/dev/shm")  # noqa: S108  # what the disk does meanwhile is nobody's merit
    cache = (memory if memory.is_dir() else place.work) / f"uv-cache-{os.getpid()}"
    asked = place.work / "requirements.in"
    shutil.rmtree(cache, ignore_errors=True)
    asked.write_text(f"{name(0)}\n")
    uv = str(Path(sys.executable).with_name("uv"))
    argv = [uv, "pip", "compile", "--quiet", "--no-config", "--cache-dir", str(cache), "--python", sys.executable]
    env = {"PATH": os.environ["PATH"], "HOME": str(place.work)}
    before, begun = running.cpu_s(), time.monotonic()
    done = subprocess.run(
        [*argv, "--default-index", running.server.url, str(asked)], env=env, capture_output=True, text=True, check=False
    )
    took = time.monotonic() - begun
    shutil.rmtree(cache, ignore_errors=True)
    found = sum(line.startswith("bench-") for line in done.stdout.splitlines())
    if done.returncode or found != GRAPH:
        sys.exit(f"{running.server.name}: uv found {found} of {GRAPH} packages\n{done.stderr[-1500:]}")
    figures.compiled.append(took)
    figures.compile_cpu.append(running.cpu_s() - before)
