"""What a server is started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is started with. Times end in `_s` and are seconds, sizes are bytes.

    `root` is the wheelhouse. `open_reads` says whether reading needs no token,
    `any_host` whether it may be asked by any name, see `hosts`. `tokens` is the token file; there may be none. `reserve`
    and `passthrough` are names of projects or globs of such. `access_log` is a path, ``-`` for stderr, or None. `signers`
    is the file of those whose signatures hold, for the pages.

    `head_s` is how long a client may take to send the head of a request, `idle_s` how long a connection may lie idle,
    `stall_s` how long a client may take nothing of an answer (or send nothing of a body), `linger_s` how long what is left
    of a refused body is read and thrown away, so that the client sees the answer, `grace_s` how long running requests may go
    on when the server is stopped. `page_cache` bounds what prepared answers take, `ccache_bytes` what the store of compile
    caches holds.
    """

    root: Path
    bind: str = "127.0.0.1"
    port: int = 8377
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tokens: Path | None = None
    open_reads: bool = True
    any_host: bool = True
    reserve: tuple[str, ...] = ()
    superseded: str = "hide"
    passthrough: tuple[str, ...] = ()
    passthrough_url: str | None = None
    access_log: str | None = None
    public_url: str | None = None
    signers: Path | None = None
    head_s: float = 15.0
    idle_s: float = 75.0
    stall_s: float = 60.0
    linger_s: float = 10.0
    grace_s: float = 20.0
    page_cache: int = 24 * MIB
    connections: int = 4096
    max_upload: int = 16 * 1024 * MIB
    max_document: int = MIB
    ccache_bytes: int = 30 * 1024 * MIB

    @property
    def scheme(self) -> str:
        """Return ``http`` or ``https``."""
        return "https" if self.tls_cert else "http"
