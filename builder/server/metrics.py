"""What the server counted, in Prometheus' text format, and whether it is well."""

from __future__ import annotations

import bisect
import platform
from typing import TYPE_CHECKING

from aiohttp import web

from builder import __version__
from builder.errors import SparkError
from builder.index import listing, totals
from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from builder.server.site import Site

__all__ = ["Metrics", "health", "page"]

#: Seconds.
_BUCKETS = (0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0)


class Metrics:
    """Counters. `requests` by class of route and status; `bytes` and durations by class; others may `add` to `counts`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.requests: dict[tuple[str, int], int] = {}
        self.bytes: dict[str, int] = {}
        self.durations: dict[str, list[float]] = {}
        self.counts: dict[str, int] = {}
        self.connections = 0

    def observe(self, label: str, status: int, size: int, seconds: float) -> None:
        """Count one answer."""
        key = (label, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.bytes[label] = self.bytes.get(label, 0) + size
        buckets = self.durations.get(label)
        if buckets is None:
            buckets = self.durations[label] = [0] * (len(_BUCKETS) + 1) + [0.0]
        buckets[bisect.bisect_left(_BUCKETS, seconds)] += 1
        buckets[-1] += seconds

    def add(self, name: str, value: int = 1) -> None:
        """Add to the counter `name`, such as ``uploads_total``."""
        self.counts[name] = self.counts.get(name, 0) + value

    def lines(self) -> list[str]:
        """Return all of it."""
        site = self._site
        lines = [
            "# HELP sparkbuild_build_info What runs.",
            "# TYPE sparkbuild_build_info gauge",
            f'sparkbuild_build_info{{version="{__version__}",python="{platform.python_version()}"}} 1',
        ]
        lines += _family("requests_total", "counter", "Answers by class of path and status.")
        lines += [
            f'sparkbuild_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        lines += _family("response_bytes_total", "counter", "Bytes of bodies that were sent.")
        lines += [f'sparkbuild_response_bytes_total{{route="{one}"}} {n}' for one, n in sorted(self.bytes.items())]
        lines += _family("request_seconds", "histogram", "Time from a request's head to the end of its answer.")
        for route, values in sorted(self.durations.items()):
            total = 0
            for bound, count in zip((*map(str, _BUCKETS), "+Inf"), values, strict=False):
                total += int(count)
                lines.append(f'sparkbuild_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'sparkbuild_request_seconds_sum{{route="{route}"}} {values[-1]:.6f}')
            lines.append(f'sparkbuild_request_seconds_count{{route="{route}"}} {total}')
        for name, value in sorted(self.counts.items()):
            lines += [*_family(name, "counter", "Counted by the server."), f"sparkbuild_{name} {value}"]
        found = totals.read(site.house)
        lines += _family("wheels", "gauge", "Wheels by state.")
        lines += [f'sparkbuild_wheels{{state="{state}"}} {count}' for state, count in found.wheels.items()]
        gauges = {
            "wheel_bytes": found.bytes,
            "projects": found.projects,
            "channels": found.channels,
            "generation": found.generation,
            "cached_pages": len(site.shelf) + len(site.absent),
            "cached_bytes": site.shelf.size + site.absent.size,
            "connections": self.connections,
        }
        for name, value in gauges.items():
            lines += [*_family(name, "gauge", "As it is now."), f"sparkbuild_{name} {value}"]
        return lines


def _family(name: str, kind: str, help: str) -> list[str]:
    return [f"# HELP sparkbuild_{name} {help}", f"# TYPE sparkbuild_{name} {kind}"]


async def page(_request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer ``/metrics``."""
    text = "\n".join(site.metrics.lines()) + "\n"
    return web.Response(
        body=text.encode(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"},
    )


async def health(_request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer ``/health``: 503 where the catalogue can't be read."""
    try:
        listing.generation(site.house)
    except SparkError as error:
        site.complain(f"not well: {error.code}: {error.summary}: {error.cause}")
        raise Refusal(503, error.code, "the catalogue can't be read; the server's log says why") from error
    return web.json_response({"status": "ok"}, headers={"Cache-Control": "no-store"})
