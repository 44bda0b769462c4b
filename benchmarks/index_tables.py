"""What ``index.py`` prints: one Markdown table a size, and each limit with what was found."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from index_measure import Figures
    from index_process import Server

__all__ = ["Judged", "checked", "table"]

CPU_US, CPU_S_GB, START_S, SHOWN_S, NGINX_RATIO, GROWTH = 40.0, 0.25, 0.5, 0.05, 1.5, 1.05
RSS_MB = {"2001": 60.0, "20000": 120.0}
_HEAD = (
    "server",
    "project page: req/s; p50 / p99 ms; **CPU µs**",
    "root",
    "`.metadata`",
    "1.2 kB wheel",
    "400 MB wheel: **CPU s/GB**; MB/s",
    "RSS MB: start / all pages / after load / peak",
    "start s; CPU s",
    "new wheel s",
    "uv compile s; server's CPU s",
)


class Side(Protocol):
    """A server and what was measured of it."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def server(self) -> Server | None:
        """What runs, if it could."""

    @property
    def why(self) -> str:
        """Why it didn't."""

    @property
    def figures(self) -> Figures:
        """What was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One limit and what was found; `ok` where it holds or nothing could be compared."""

    what: str
    limit: str
    ok: bool

    @property
    def line(self) -> str:
        """What is printed."""
        return f"{'ok' if self.ok else 'NO':2} {self.what:78} {self.limit}"


def table(files: str, sides: Sequence[Side]) -> str:
    """Return the table of one size."""
    rows = [_HEAD, tuple("---" for _column in _HEAD), *(_row(side) for side in sides)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"\n{files} files\n", *lines, ""])


def _row(side: Side) -> tuple[str, ...]:
    if side.server is None:
        return (side.name, side.why, *([""] * (len(_HEAD) - 2)))
    found, server = side.figures, side.server
    note = f" ({server.note})" if server.note else ""
    rss = " / ".join(f"{found.rss[key]:.0f}" for key in ("start", "pages", "load", "peak"))
    speed = f"**{_median(found.big_cpu_s_gb):.2f}**; {_median(found.big_mb_s):.0f}"
    asked = (_load(found, what) for what in ("page", "root", "metadata", "wheel"))
    shown = f"{_median(found.shown):.3f}" if found.shown else "not within 5 s"
    uv = f"{_median(found.compiled):.2f}; {_median(found.compile_cpu):.2f}"
    start = f"{_median(found.starts):.2f}; {_median(found.start_cpu):.2f}"
    return (f"{side.name} {server.version}{note}", *asked, speed, rss, start, shown, uv)


def _load(found: Figures, what: str) -> str:
    if what not in found.loads:
        return "-"
    cpu, rate = found.median(what, "cpu_us"), found.median(what, "per_s")
    if cpu is None or rate is None:
        return "failed"
    return f"{rate:.0f}; {found.median(what, 'p50_ms'):.2f} / {found.median(what, 'p99_ms'):.1f}; **{cpu:.0f}**"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def checked(files: str, sides: Sequence[Side]) -> Iterator[Judged]:
    """Yield every limit that can be judged: those of ours, and those against a peer that ran."""
    ran = {side.name: side.figures for side in sides if side.server is not None}
    for side in sides:
        if side.name == "spark-build" and side.server is None:
            yield Judged(what=f"spark-build: {side.why}", limit="", ok=False)
    if "spark-build" not in ran:
        return
    mine, pypiron, nginx = ran["spark-build"], ran.get("pypiron"), ran.get("nginx")
    for what, said in (("page", "project page"), ("metadata", ".metadata")):
        cpu, p99 = mine.median(what, "cpu_us"), mine.median(what, "p99_ms")
        yield _most(f"{said}: CPU microseconds a request", cpu, CPU_US)
        if pypiron is not None:
            yield _most(f"{said}: p99 ms with 8 clients; pypiron's", p99, pypiron.median(what, "p99_ms"))
    yield _most("400 MB wheel: CPU s a GB", _median(mine.big_cpu_s_gb), CPU_S_GB)
    yield _most("RSS MB, at most", mine.rss["peak"], RSS_MB[files])
    yield _most("RSS after load, times what it was with all pages asked", mine.rss["load"] / mine.rss["pages"], GROWTH)
    yield _most("up within, s", _median(mine.starts), START_S)
    yield _most("a new wheel shows within, s", _median(mine.shown) if mine.shown else None, SHOWN_S)
    uv = _median(mine.compiled)
    if nginx is not None:
        yield _most("uv pip compile: times nginx on our export", uv / _median(nginx.compiled), NGINX_RATIO)
    if pypiron is not None:
        yield _most("uv pip compile, s; pypiron's", uv, _median(pypiron.compiled))


def _most(what: str, found: float | None, limit: float | None) -> Judged:
    if found is None or limit is None:
        return Judged(what=f"{what}: not measured", limit="", ok=False)
    return Judged(what=f"{what}: {found:.3g}", limit=f"<= {limit:.3g}", ok=found <= limit)
