"""Fetching a wheel with what is said about it: resumed where it stopped, never of two files, in place only when right."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from builder import transfer
from builder.digest import sha256_file
from builder.errors import CheckRefused, HostError, SourceError
from builder.transfer import Again
from builder.upstream.offers import path_of
from builder.upstream.server import on_disk, persistently, unfit
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.upstream.offers import Offer
    from builder.upstream.server import Answer, Server

__all__ = ["Told", "beside", "wheel"]

#: Bytes of a record, and of a signature. More is none.
_RECORD, _SEAL = 64 << 20, 64 << 10

#: Seconds that anything may take, and bytes a second that are waited for beyond that.
_LEAST_S, _LEAST_RATE = 60.0, 32 << 10

#: Bytes of the disk that stay free.
_SPARE = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How far a transfer is; bytes."""

    name: str
    done: int
    total: int


def beside(wheel: Path) -> tuple[Path, Path]:
    """Return where record and signature of a fetched wheel lie."""
    return wheel.with_name(f"{wheel.name}.provenance.json"), wheel.with_name(f"{wheel.name}.provenance.json.sig")


def wheel(server: Server, offer: Offer, folder: Path, tell: Callable[[Told], None]) -> Path:
    """Leave a wheel in `folder` with its record and, where it has one, its signature; return its path.

    What an earlier call left goes on by Range, where it is the beginning of the same file. The wheel's bytes have the sha256
    that was offered; of record and signature nothing is known yet.

    Raises CheckRefused ``upstream-hash`` for other bytes (nothing is kept), ``record-missing``; HostError ``disk-short``,
    ``disk-full``, ``unwritable``; SourceError as `Server.asked` does.
    """
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    target = folder / offer.filename
    place = path_of(offer.sha256, offer.filename)
    record, seal = beside(target)
    _bring_small(server, f"{place}.provenance.json", record, _RECORD)
    if offer.signed:
        _bring_small(server, f"{place}.provenance.json.sig", seal, _SEAL)
    else:
        seal.unlink(missing_ok=True)
    part = folder / f"{offer.sha256}.part"
    with on_disk(folder):
        if target.is_file() and sha256_file(target) == offer.sha256:
            return target
        _require_room(part, offer)
    digest = _bring(server, place, part, offer, tell)
    if digest != offer.sha256:
        raise CheckRefused(
            "upstream-hash",
            f"{offer.filename} from {server.url} isn't what it says it is",
            cause=f"sha256 {digest}, wanted {offer.sha256}"
            if digest
            else f"it has more than the {offer.size} bytes that were offered",
            help="the file was changed there, or the way damages it; nothing was kept",
        )
    part.replace(target)
    return target


def _require_room(part: Path, offer: Offer) -> None:
    free = shutil.disk_usage(part.parent).free
    wanted = offer.size - (part.stat().st_size if part.exists() else 0)
    if free < wanted + _SPARE:
        raise HostError(
            "disk-short",
            f"{offer.filename} needs {wanted >> 20} MiB, {free >> 20} MiB are free at {part.parent}",
            help="free space, then run the same command again",
            run=("spark-build gc --dry-run",),
        )


def _bring_small(server: Server, place: str, target: Path, limit: int) -> None:
    name = place.rpartition("/")[2]

    def read() -> bytes:
        data = bytearray()
        with server.asked(place, headers={"Accept": "*/*"}) as answer:
            for chunk in answer.chunks(within_s=_LEAST_S):
                data += chunk
                if len(data) > limit:
                    raise unfit(server, f"{name} has more than {limit >> 10} KiB")
            _require_all(answer, len(data))
        return bytes(data)

    try:
        data = persistently(server, read)
    except SourceError as error:
        if error.code != "upstream-missing":
            raise
        raise CheckRefused(
            "record-missing", f"{server.url} has no {name}", help="nobody says how it was made"
        ) from error
    with on_disk(target.parent):
        target.write_bytes(data)


def _require_all(answer: Answer, got: int) -> None:
    """Raise where fewer bytes came than were announced: a connection that is cut looks like an end."""
    announced = answer.headers.get("Content-Length", "")
    if announced.isdecimal() and got < int(announced):
        msg = f"the connection ended after {got} of {announced} bytes"
        raise ConnectionError(msg)


def _bring(server: Server, place: str, part: Path, offer: Offer, tell: Callable[[Told], None]) -> str:
    """Complete `part` and return the sha256 of its bytes, as `transfer.complete` does."""
    told = end = 0.0

    def say(done: int, _total: int | None, came: int) -> None:
        nonlocal told
        now = time.monotonic()
        if came and now > end:
            msg = f"it takes longer than {_LEAST_S + offer.size / _LEAST_RATE:.0f} s"
            raise Again(msg)
        if came and (now - told > 0.25 or done == offer.size):  # noqa: PLR2004  # four a second
            told = now
            tell(Told(name=offer.filename, done=done, total=offer.size))

    def persist(action: Callable[[], str]) -> str:
        def once() -> str:
            nonlocal end
            end = time.monotonic() + _LEAST_S + offer.size / _LEAST_RATE
            with on_disk(part.parent):
                return action()

        return persistently(server, once, done=lambda: transfer.size_of(part))

    return transfer.complete(
        part,
        lambda headers: server.asked(place, headers={"Accept": "*/*", **headers}),
        sha256=offer.sha256,
        size=offer.size,
        blindly=False,
        tell=say,
        persist=persist,
    ).sha256
