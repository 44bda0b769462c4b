"""What `wheels push` and `wheels pull` share: which server, and how far a transfer is."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from builder.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.cli.app import App
    from builder.upstream.fetch import Told
    from builder.upstream.server import Server

__all__ = ["interruptible", "server", "telling"]


def server(url: str | None, app: App, *, option: str) -> Server:
    """Return the server at `url`, else the configured one. The configured token is only for that one's host.

    Raises UsageError ``upstream-unset``, and as `upstream.server.of` does.
    """
    from builder.upstream import server as servers  # noqa: PLC0415

    config = app.config()
    wanted = url or config.upstream
    if not wanted:
        named = [*app.args.ref, *(["--channel", app.args.channel] if app.args.channel else [])]
        raise UsageError(
            "upstream-unset",
            "no server is named",
            help="wheelhouse.upstream in the configuration, or SPARK_BUILD_UPSTREAM, names one for good",
            run=(shlex.join(["spark-build", "wheels", app.args.verb, *named, option, "https://HOST/"]),),
        )
    same = not url or not config.upstream or _host(url) == _host(config.upstream)
    return servers.of(wanted, env=app.env, token_file=config.upstream_token_file if same else None)


def _host(url: str) -> tuple[str, str]:
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


@contextlib.contextmanager
def telling(app: App, word: str) -> Iterator[Callable[[Told], None]]:
    """Give what is told how far a transfer is: ``sent 12.0 MiB of 400.0 MiB of NAME, 33.1 MiB/s``."""
    from builder.recipe.units import show_bytes  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    name, first, began = "", 0, app.clock()
    with shown.progress(app.stderr, app.env, app.clock) as tell:

        def told(one: Told) -> None:
            nonlocal name, first, began
            if one.name != name:
                name, first, began = one.name, one.done, app.clock()
            rate = int((one.done - first) / max(app.clock() - began, 0.001))
            tell(f"{word} {show_bytes(one.done)} of {show_bytes(one.total)} of {name}, {show_bytes(rate)}/s")

        yield told


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Say of an interruption that the next call goes on where this one stopped."""
    try:
        yield
    except Interrupted as error:
        error.summary += "; what came over so far is kept, the same command goes on from there"
        raise
