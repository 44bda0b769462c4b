"""Who may do what: a file of tokens, of which only digests are kept.

::

    [[token]]
    name = "ci"
    sha256 = "…"                     # of the token
    scopes = ["publish"]             # read, publish (has read), admin (has all)
    channels = ["nightly/*"]         # optional: globs of the channels that it may publish to
    expires = 2027-01-01             # optional: the last day is the one before

A request names its token by ``Authorization: Bearer TOKEN``, or by Basic with any user and the token as password: that is
what pip, uv, twine and ccache send.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
import tomllib
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from builder.errors import HostError, UsageError
from builder.server.refusal import Refusal
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiohttp import web

__all__ = ["SCOPES", "Token", "Tokens", "digest", "parse", "read"]

#: What a scope has in it.
SCOPES = {"read": {"read"}, "publish": {"read", "publish"}, "admin": {"read", "publish", "admin"}}
_KEYS = {"name", "sha256", "scopes", "channels", "expires", "created"}
_REALM = {"WWW-Authenticate": 'Basic realm="spark-build", charset="UTF-8"'}
#: The file is looked at again after so many seconds.
_LOOK_S = 0.2
_MAX_HEADER = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An entry of the file. No `channels` means all; it ends with the beginning of the day `expires`, UTC."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    channels: tuple[str, ...] = ()
    expires: date | None = None

    def has(self, scope: str) -> bool:
        """Whether it may do what takes `scope`."""
        return any(scope in SCOPES[one] for one in self.scopes)

    def may_enter(self, channel: str) -> bool:
        """Whether it may publish to `channel`."""
        return not self.channels or any(fnmatchcase(channel, glob) for glob in self.channels)


ANYBODY = Token(name="", sha256="", scopes=("read",))


def digest(token: str) -> str:
    """Return what the file keeps of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def read(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file; of one that isn't there, none.

    Raises HostError ``tokens-writable`` where others than the owner can write it, ``tokens-unreadable``; UsageError
    ``tokens-wrong`` with every mistake.
    """
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            data = stream.read()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise HostError(
            "tokens-unreadable", f"{path} can't be read", cause=str(error.strerror), run=(f"ls -l {path}",)
        ) from error
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            "tokens-writable",
            f"{path} can be written by others than its owner",
            cause=f"its mode is {stat.S_IMODE(found.st_mode):o}: whoever writes it can publish",
            help="let only the owner write it",
            run=(f"chmod 600 {path}",),
        )
    return parse(data, path)


def parse(data: bytes, path: Path) -> tuple[Token, ...]:
    """Return the tokens that the bytes of a file name; raise UsageError ``tokens-wrong`` with every mistake."""
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, [str(error)]) from error
    entries = document.get("token", [])
    mistakes = [f"unknown key {key}" for key in document if key != "token"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(path, ["wanted tables [[token]]"])
    for number, entry in enumerate(entries, 1):
        mistakes += [f"token {number} ({entry.get('name', 'without a name')}): {text}" for text in _mistakes(entry)]
    names = [entry.get("name") for entry in entries]
    mistakes += [f"two tokens are named {name}" for name in sorted({n for n in names if names.count(n) > 1 and n})]
    if mistakes:
        raise _wrong(path, mistakes)
    return tuple(_token(entry) for entry in entries)


def _wrong(path: Path, mistakes: list[str]) -> UsageError:
    return UsageError(
        "tokens-wrong",
        f"{path} isn't a token file",
        cause="\n".join(mistakes),
        run=(f"${{EDITOR:-vi}} {path}", "spark-build index token list"),
    )


def _mistakes(entry: dict[str, Any]) -> list[str]:
    def texts(key: str) -> bool:
        value = entry.get(key, [])
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    expires = entry.get("expires")
    checks = [
        (isinstance(entry.get("name"), str) and entry["name"], "name: wanted a text"),
        (re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))), "sha256: wanted 64 hex digits"),
        (texts("scopes") and entry.get("scopes"), f"scopes: wanted a list of {', '.join(SCOPES)}"),
        (
            not texts("scopes") or set(entry.get("scopes", ())) <= set(SCOPES),
            "scopes: unknown word",
        ),
        (texts("channels"), "channels: wanted a list of channels or globs"),
        (expires is None or isinstance(expires, date), "expires: wanted a date, such as 2027-01-01"),
    ]
    return [text for good, text in checks if not good] + [f"unknown key {key}" for key in sorted(entry.keys() - _KEYS)]


def _token(entry: dict[str, Any]) -> Token:
    expires = entry.get("expires")
    return Token(
        name=entry["name"],
        sha256=entry["sha256"],
        scopes=tuple(entry["scopes"]),
        channels=tuple(entry.get("channels", ())),
        expires=expires.date() if isinstance(expires, datetime) else expires,
    )


class Tokens:
    """The tokens of a running server. The file is read again when it has changed; a wrong one gives nobody rights."""

    def __init__(
        self, path: Path | None, *, open_reads: bool, clock: Callable[[], float], complain: Callable[[str], None]
    ) -> None:
        self._path = path
        self._clock = clock
        self._complain = complain
        self._looked = float("-inf")
        self._identity: tuple[int, ...] | None = None
        self.open_reads = open_reads
        self.entries: tuple[Token, ...] = ()

    def load(self) -> None:
        """Read the file; raise what `read` raises."""
        self._identity = self._seen()
        self.entries = read(self._path) if self._path else ()

    def allow(self, request: web.BaseRequest, scope: str, channel: str | None = None) -> Token:
        """Return the token of a request that may do what takes `scope` (in `channel`).

        Raises Refusal 401 where none is given or none fits, 403 where one that holds lacks the right.
        """
        return self.judge(request.headers.get("Authorization"), scope, channel)

    def judge(self, header: str | None, scope: str, channel: str | None = None) -> Token:
        """Say the same of the value of an ``Authorization`` header."""
        if scope == "open" or (scope == "read" and self.open_reads):
            return ANYBODY
        self._refresh()
        secret = _presented(header)
        if secret is None:
            raise Refusal(401, "token-missing", "this takes a token", _how(self.entries), _REALM)
        presented, holder = digest(secret), None
        for entry in self.entries:  # all of them, so that the time tells nothing
            if hmac.compare_digest(entry.sha256, presented):
                holder = entry
        if holder is None:
            raise Refusal(
                401, "token-unknown", "the token isn't one that this server knows", _how(self.entries), _REALM
            )
        if holder.expires and datetime.fromtimestamp(self._clock(), UTC).date() >= holder.expires:
            raise Refusal(401, "token-expired", f"the token {holder.name} has expired", "ask for a new one", _REALM)
        if not holder.has(scope):
            raise Refusal(403, "scope", f"the token {holder.name} lacks the scope {scope}")
        if channel is not None and not holder.may_enter(channel):
            raise Refusal(403, "channel", f"the token {holder.name} doesn't hold for the channel {channel}")
        return holder

    def _seen(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path) if self._path else None  # noqa: PTH116  # once a second, while serving
        except OSError:
            return None
        return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)

    def _refresh(self) -> None:
        now = self._clock()
        if 0 <= now - self._looked < _LOOK_S:
            return
        self._looked = now
        if self._seen() == self._identity:
            return
        self.entries = ()
        try:
            self.load()
        except (HostError, UsageError) as error:
            self._complain(f"no token holds until this is mended: {error.summary}: {error.cause}")


def _how(entries: tuple[Token, ...]) -> str:
    if not entries:
        return "there are none yet; on the server: spark-build index token new NAME --scope publish"
    return "send it as password (any user) or as Authorization: Bearer"


def _presented(header: str | None) -> str | None:
    """Return the token that the header holds."""
    if not header or len(header) > _MAX_HEADER:
        return None
    kind, _, value = header.strip().partition(" ")
    value = value.strip()
    if kind.lower() == "bearer":
        return value or None
    if kind.lower() != "basic":
        return None
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[2] or None
