"""Bringing wheels to a server: staged piece by piece, resumed where it stopped, published there in one step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from builder.errors import SourceError, UsageError
from builder.upstream.fetch import Told
from builder.upstream.offers import path_of
from builder.upstream.server import FIRST, on_disk, persistently, unfit
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.upstream.server import Server

__all__ = ["Sent", "is_there", "publish", "stage"]

_CHUNK = 1 << 18

#: Seconds that the other side may take to read and hash all that came.
_HASH_S = 600.0

#: What another try may not meet: the server is still at what a cut connection brought.
_LATER = frozenset({"busy", "offset"})

#: Seconds that a publish may take on the other side without a word: it audits all that came.
_PUBLISH_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A wheel to be brought: its file, and what the server knows it by."""

    path: Path
    filename: str
    sha256: str
    size: int


def is_there(server: Server, one: Sent) -> bool:
    """Whether the server hands this very wheel out already."""

    def ask() -> bool:
        with server.asked(path_of(one.sha256, one.filename), method="HEAD", headers={"Accept": "*/*"}) as answer:
            return answer.headers.get("Content-Length") == str(one.size)

    try:
        return persistently(server.but(tries=FIRST), ask)
    except SourceError as error:
        if error.code in {"upstream-missing", "upstream-denied"}:  # what takes a token is told when it is staged
            return False
        raise


def stage(server: Server, one: Sent, file: Path, name: str, tell: Callable[[Told], None]) -> None:
    """Leave `file` at the server under `name`, beside the wheel `one`; what it has of it already isn't sent again.

    Raises SourceError as `Server.asked` does, HostError where the file can't be read.
    """
    with on_disk(file.parent):
        total = file.stat().st_size
    place = f"api/staging/{one.sha256}/{quote(name, safe='+')}"
    slow, reached = server.but(timeout_s=_HASH_S), 0

    def send() -> None:
        nonlocal reached
        reached = offset = _offset(server, place, total)
        if offset >= total:
            return
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(total - offset),
            "Content-Range": f"bytes {offset}-{total - 1}/{total}",
        }

        def body() -> Iterator[bytes]:
            nonlocal reached
            for chunk in _chunks(file, offset):
                yield chunk
                reached += len(chunk)
                tell(Told(name=name, done=reached, total=total))

        try:
            with slow.asked(place, method="PUT", headers=headers, body=body()):
                pass
        except UsageError as error:
            if error.code not in _LATER:
                raise
            raise ConnectionError(error.summary) from error

    persistently(server, send, done=lambda: reached)


def _offset(server: Server, place: str, total: int) -> int:
    """Return how many bytes the server has of a file."""
    try:
        with server.asked(place, method="HEAD") as answer:
            found = answer.headers.get("Upload-Offset", "")
    except SourceError as error:
        if error.code != "upstream-denied":
            raise
        with server.asked(place, method="PUT", body=b""):  # an answer to HEAD can't say why: this one does
            raise
    if not found.isdecimal() or int(found) > total:
        raise unfit(server, f"it says that it has {found or 'nothing'} of {total} bytes")
    return int(found)


def _chunks(file: Path, offset: int) -> Iterator[bytes]:
    with on_disk(file.parent):
        stream = file.open("rb")
    with stream:
        stream.seek(offset)
        while chunk := stream.read(_CHUNK):
            yield chunk


def publish(
    server: Server,
    wheels: Sequence[Sent],
    *,
    channel: str | None = None,
    replace: bool = False,
    accept: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Publish staged wheels, all or none, and let `channel` list them at its end; with `replace` nothing else.

    Those that the server has already only enter the channel. Returns its answer. Raises CheckRefused ``audit-refused``,
    UsageError ``name-taken`` and whatever else it refuses; SourceError as `Server.asked` does.
    """
    document = {
        "channel": channel,
        "replace": replace,
        "wheels": [{"sha256": one.sha256, "filename": one.filename} for one in wheels],
        "accept": [dict(one) for one in accept],
    }
    body = json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    waiting = server.but(timeout_s=_PUBLISH_S)
    return persistently(server, lambda: waiting.document("api/publish", method="POST", headers=headers, body=body))
