"""What a server says it has: builds by fingerprint, channels. All of it is a claim, and has to fit before it is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from builder.errors import SourceError
from builder.upstream.server import FIRST, persistently, unfit
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.upstream.server import Server

__all__ = ["LARGEST", "Offer", "build", "channel", "path_of"]

#: Bytes of a wheel. The largest that is known has a quarter of that.
LARGEST = 16 << 30

_FILENAME = re.compile(r"[A-Za-z0-9_.]+-[A-Za-z0-9_.+!]+(?:-[A-Za-z0-9_.]+){3,4}\.whl")
_SHA256 = re.compile(r"[0-9a-f]{64}")

#: A build of a recipe has so many outputs at most, a channel so many wheels.
_OUTPUTS, _MEMBERS = 256, 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A wheel on a server. `signed` says whether its record has a signature, `state` is as there; sizes are bytes."""

    output: str
    project: str
    version: str
    filename: str
    sha256: str
    size: int
    fingerprint: str
    signed: bool
    state: str = "published"


def path_of(sha256: str, filename: str) -> str:
    """Return where a file lies, seen from the server's root."""
    return f"files/{sha256}/{quote(filename, safe='+')}"


def build(server: Server, fingerprint: str) -> tuple[Offer, ...]:
    """Return the wheels that a server has of one fingerprint; empty where it has none.

    Raises SourceError ``upstream-unreachable``, ``upstream-denied``,
    ``upstream-unfit`` and as `Server.asked` does.
    """
    try:
        found = persistently(server, lambda: server.document(f"api/builds/{fingerprint}"))
    except SourceError as error:
        if error.code == "upstream-missing" and error.cause:  # one of ours says what is missing
            return ()
        raise unfit(server, error.summary) if error.code == "upstream-missing" else error from error
    if found.get("fingerprint") != fingerprint:
        raise unfit(server, "it answers of another build than it was asked for")
    return _wheels(server, found, _OUTPUTS, fingerprint=fingerprint)


def channel(server: Server, name: str, *, project: str | None = None, ref: str | None = None) -> tuple[Offer, ...]:
    """Return the wheels of a channel in its order: all, those of `project`, or those that `ref` names.

    Raises SourceError ``upstream-missing`` where there is no such channel, and as `build` does.
    """
    asked = {key: value for key, value in (("project", project), ("ref", ref)) if value is not None}
    path = f"api/channels/{name}" + (f"?{urlencode(asked)}" if asked else "")
    found = persistently(server.but(tries=FIRST), lambda: server.document(path))
    return _wheels(server, found, _MEMBERS)


def _wheels(server: Server, found: Mapping[str, Any], most: int, *, fingerprint: str = "") -> tuple[Offer, ...]:
    listed = found.get("wheels")
    if not isinstance(listed, list) or len(listed) > most:
        raise unfit(server, "it lists no wheels, or far too many")
    return tuple(_offer(server, one, fingerprint) for one in listed)


def _offer(server: Server, one: object, fingerprint: str) -> Offer:
    match one:
        case {
            "output": str(output),
            "project": str(project),
            "version": str(version),
            "filename": str(filename),
            "sha256": str(sha256),
            "size": int(size),
            "signature": None | str() as signature,
            **more,
        } if _FILENAME.fullmatch(filename) and _SHA256.fullmatch(sha256) and 0 < size <= LARGEST:
            return Offer(
                output=output,
                project=project,
                version=version,
                filename=filename,
                sha256=sha256,
                size=size,
                fingerprint=fingerprint or str(more.get("fingerprint") or ""),
                signed=signature is not None,
                state=str(more.get("state") or "published"),
            )
    raise unfit(server, f"a wheel that it lists isn't as wheels are: {str(one)[:200]}")
