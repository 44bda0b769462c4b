"""Who we are to a server: from its URL, from a token, from ``~/.netrc``. Never kept, never sent to another server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from builder import bounded
from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

__all__ = ["of"]

#: Bytes of a file that holds a token.
_TOKEN = 64 << 10


def of(parts: SplitResult, *, env: Mapping[str, str], token_file: Path | None) -> str | None:
    """Return the value of the ``Authorization`` header for a server's URL, or None.

    The login in the URL counts first, then ``SPARK_BUILD_TOKEN``, then the token in `token_file`, then ``~/.netrc``. Raises
    UsageError ``upstream-token`` for a token that can't be read, or that none can be.
    """
    if parts.username is not None:
        return _basic(unquote(parts.username), unquote(parts.password or ""))
    token = env.get("SPARK_BUILD_TOKEN", "").strip() or _token(token_file)
    if not token:
        return _netrc(parts.hostname or "", env)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("upstream-token", "the token has characters that no token has", run=("env | grep SPARK_",))
    return f"Bearer {token}"


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return bounded.read(file, _TOKEN).decode().strip()
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(
            "upstream-token",
            f"{file} can't be read",
            cause=str(error) if isinstance(error, ValueError) else "it isn't there",
            help="wheelhouse.upstream-token-file in the configuration names it; it holds one token",
            run=(f"ls -l {file}",),
        ) from error


def _basic(user: str, secret: str) -> str:
    import base64  # noqa: PLC0415

    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _netrc(host: str, env: Mapping[str, str]) -> str | None:
    file = Path(env.get("NETRC") or Path(env.get("HOME", "/")) / ".netrc")
    if not file.is_file():
        return None
    import netrc  # noqa: PLC0415

    try:
        found = netrc.netrc(str(file)).authenticators(host)
    except (netrc.NetrcParseError, OSError):
        return None
    return _basic(found[0], found[2] or "") if found else None
