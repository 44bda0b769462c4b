"""A team: one who built and serves, others who ask; and a server between them that says what a test wants."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


@dataclass
class Said:
    """An answer: `body` is sent piece by piece, and `length` announced (None: as long as the body is)."""

    status: int
    headers: dict[str, str]
    body: Iterable[bytes]
    length: int | None = None


def real(url: str, path: str) -> Said:
    """Return what the real server answers."""
    request = urllib.request.Request(url.rstrip("/") + path, headers={"Accept": "application/json"})  # noqa: S310  # ours
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # ours
            return Said(answer.status, {"Content-Type": answer.headers["Content-Type"]}, [answer.read()])
    except urllib.error.HTTPError as error:
        with error:
            return Said(error.code, {"Content-Type": error.headers["Content-Type"]}, [error.read()])


@contextlib.contextmanager
def between(url: str, twist: Callable[[str, Said], Said]) -> Iterator[str]:
    """Give the URL of a server that answers what `twist` makes of a path and what the real one at `url` answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = twist(self.path, real(url, self.path))
            pieces = list(said.body) if said.length is None else said.body
            length = sum(map(len, pieces)) if isinstance(pieces, list) and said.length is None else said.length
            with contextlib.suppress(OSError):
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                if length is not None and length >= 0:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def colleague(root: Path, builder: World) -> World:
    """Return another user with the recipes of `builder`, whose sources lie where they lay for that one."""
    other = World(root)
    for recipe in builder.recipes.glob("*.toml"):
        (other.recipes / recipe.name).write_text(recipe.read_text())
    return other
