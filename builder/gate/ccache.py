"""The compile cache: which ccache, its settings for one build, and what it did.

ccache is started by the launcher, below the test for a hit, so that a hit takes no reservation. Decided here:

* Depend mode (``-MD`` tells what was included) instead of the preprocessor: with nvcc the other mode takes the object made
  without ``-Xcompiler X`` for the one made with it, and runs preprocessors that nobody reserved memory for.
* The compiler's bytes count (``content``), and the namespace carries what they call: `namespace`.
* Where a recipe's trees all appear at one path, nothing is rewritten: the working folder counts, debug information is right,
  and an object is the same, byte for byte, with the cache and without. Elsewhere paths below the tree are made relative and
  the working folder doesn't count, else no other tree would ever have a hit; debug information may then name another tree.
* No sloppiness: a header that is newer than the compiler's start isn't trusted.
* Only these settings hold: no file of the user's, and none that a source tree brings along, is read.

Settings: https://ccache.dev/manual/4.14.html, section Configuration options. A value's ``$`` is doubled, since ccache
expands variables in values.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder import proc
from builder.digest import sha256_json
from builder.errors import HostError, UsageError
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.stages import Host, Torch

__all__ = [
    "MAX_BYTES",
    "Choice",
    "Settings",
    "Statistics",
    "choose",
    "namespace",
    "program",
    "statistics",
    "variables",
]

NAME = "ccache"

#: Older ones don't talk to a helper that is already running (4.13), or miss some of nvcc's options (4.12.3).
OLDEST = (4, 13)

#: How much the cache may hold unless told otherwise.
MAX_BYTES = 30 << 30

#: Programs whose digests count in the namespace: drivers are looked at by ccache, what they start is not.
_COMPILERS = frozenset({"gcc", "g++", "clang", "clang++", "as", "rustc"})

_HITS = frozenset({"direct_cache_hit", "preprocessed_cache_hit"})
_MISS = "cache_miss"
_REMOTE_TROUBLE = frozenset({"remote_storage_error", "remote_storage_timeout"})

#: Counters that say how a result was looked for; all others say why there is none.
_DETAIL = re.compile(r"(local_storage|remote_storage|direct_cache|preprocessed_cache|cleanups)_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What ``--compile-cache`` asks for: none at all, or a local cache and, with `url`, one that machines share."""

    off: bool = False
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The cache of one build; paths are as the build sees them.

    `folder` holds the cache, `root` is the build's tree, `fixed` says that all trees of the recipe appear there. `launcher`
    is what a compiler is started with after a miss. `log` takes one record a compile. `remote` is a relay's `storage`
    (`builder.gate.relay`), or the URL of a folder that machines share.
    """

    folder: Path
    namespace: str
    root: Path
    fixed: bool
    launcher: Path
    log: Path
    max_bytes: int = MAX_BYTES
    remote: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the cache did in one build, in compiles. `remote_hits` are those of the hits that came from elsewhere.

    `uncacheable` counts by ccache's own word for the reason; `remote_errors` are requests, not compiles.
    """

    hits: int = 0
    remote_hits: int = 0
    misses: int = 0
    remote_errors: int = 0
    uncacheable: Mapping[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float | None:
        """The share of hits among all that could be hits, 0 to 1; None when there were none."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


def choose(text: str | None) -> Choice:
    """Return what the word of the command line or the configuration means: nothing, ``on``, ``off`` or a URL.

    Raises UsageError ``compile-cache`` for anything else.
    """
    if text in {None, "", "on"}:
        return Choice()
    if text == "off":
        return Choice(off=True)
    parts = urlsplit(str(text))
    if (parts.scheme in {"http", "https"} and parts.hostname) or (
        parts.scheme == "file" and parts.path.startswith("/")
    ):
        return Choice(url=text)
    raise UsageError(
        "compile-cache",
        f"--compile-cache {text} is neither on, off nor a URL",
        help="http://HOST/PATH, https://HOST/PATH, or file:///FOLDER for a folder that machines share",
        run=("spark-build recipe NAME --compile-cache http://HOST:8080/ccache",),
    )


def program(scripts: Path | None = None) -> Path | None:
    """Return the ccache that was installed with spark-build, or None; never one on PATH, which may be years old.

    Raises HostError ``ccache-old`` for one that isn't recent enough, and what `proc.capture` raises.
    """
    path = (scripts or Path(sysconfig.get_path("scripts"))) / NAME
    if not path.is_file():
        return None
    told = proc.capture(
        [path, "--version"], env={"PATH": "/usr/bin:/bin", "CCACHE_CONFIGPATH": "/dev/null"}, timeout_s=20
    )
    found = re.search(r"version (\d+)\.(\d+)", told.out)
    if not told.ok or found is None or (int(found[1]), int(found[2])) < OLDEST:
        said = (told.out or told.err).strip().partition("\n")[0]
        raise HostError(
            "ccache-old",
            f"{path} is too old for a compile cache, or gives no answer",
            cause=f"it says: {said}; wanted {'.'.join(map(str, OLDEST))} or later",
            help="bring spark-build's environment up to date, or build without",
            run=("uv tool upgrade spark-build", "spark-build recipe NAME --compile-cache off"),
        )
    return path


def namespace(host: Host, torch: Torch | None) -> str:
    """Return the word under which this toolchain's objects are kept.

    nvcc is looked at by ccache, but not cicc, ptxas and cudafe++ that do the work; g++, but not cc1plus. Those are in the
    digests that the host was probed for. torch's and Python's headers are often included as system headers, which some
    dependency files leave out.
    """
    parts = {
        "cuda": host.cuda.digest if host.cuda else None,
        "tools": {tool.name: tool.digest for tool in host.tools if tool.name in _COMPILERS},
        "torch": [torch.version, str(torch.cxx11abi)] if torch else None,
        "python": host.interpreter.tag,
        "machine": host.machine,
    }
    return sha256_json(parts)[:32]


def variables(settings: Settings) -> dict[str, str]:
    """Return ccache's settings as environment."""
    made = {
        "CCACHE_CONFIGPATH": "/dev/null",
        "CCACHE_DIR": str(settings.folder),
        "CCACHE_TEMPDIR": str(settings.folder / "tmp"),
        "CCACHE_NAMESPACE": settings.namespace,
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_DEPEND": "1",
        "CCACHE_MAXSIZE": _size(settings.max_bytes),
        "CCACHE_PREFIX": str(settings.launcher),
        "CCACHE_STATSLOG": str(settings.log),
    }
    if not settings.fixed:
        made |= {"CCACHE_BASEDIR": str(settings.root), "CCACHE_NOHASHDIR": "1"}
    if settings.remote:
        made["CCACHE_REMOTE_STORAGE"] = settings.remote
    return {key: value.replace("$", "$$") for key, value in made.items()}


def _size(limit: int) -> str:
    return f"{max(1, limit >> 10)}KiB"


def statistics(log: Path) -> Statistics:
    """Return what the records in `log` add up to; a missing file is a build that compiled nothing.

    A record is a line ``# <source>`` and the counters that it raised, one a line. One that was cut off in the middle counts
    as far as it goes.
    """
    hits = misses = remote_hits = remote_errors = 0
    uncacheable: dict[str, int] = {}
    for record in _records(log):
        hit = bool(record & _HITS)
        hits += hit
        misses += _MISS in record
        remote_hits += hit and "remote_storage_hit" in record and "local_storage_hit" not in record
        remote_errors += bool(record & _REMOTE_TROUBLE)
        for reason in record - _HITS - {_MISS}:
            if not _DETAIL.fullmatch(reason):
                uncacheable[reason] = uncacheable.get(reason, 0) + 1
    return Statistics(
        hits=hits, remote_hits=remote_hits, misses=misses, remote_errors=remote_errors, uncacheable=uncacheable
    )


def _records(log: Path) -> list[set[str]]:
    records: list[set[str]] = []
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return records
    for line in text.splitlines():
        if line.startswith("#"):
            records.append(set())
        elif records and line:
            records[-1].add(line)
    return records
