"""The crates of a Cargo.lock: brought in by the user's own cargo, kept as one folder, given back without a registry.

Cargo asks for the manifests of a whole workspace before it vendors anything. All that a Cargo.lock pins stands in it, so
a package of our own that depends on each of its crates, exactly, leads to the same ones; the lock that cargo makes of that
is compared with upstream's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import HostError, SourceError
from builder.events import Printed
from builder.source import checkout
from builder.source.mirror import full, insteadof
from builder.source.place import locked, write_atomic
from builder.stages import ZIP_EPOCH, Pin
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from builder.source.place import Sources

__all__ = ["Crate", "config", "fetch", "folder_of", "keep", "listed", "materialize", "pin"]

#: What Cargo.lock calls the public registry, by either of its protocols.
_PUBLIC = ("registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/")

#: The user's settings for cargo, and what reaching a host takes.
_PASSED = re.compile(
    r"PATH|HOME|LANG|CARGO_(HOME|NET|HTTP|REGISTR|SOURCE)\w*|RUSTUP_\w+|SSL_CERT_\w+|SSH_AUTH_SOCK|GIT_SSH\w*"
    r"|\w*_proxy|\w*_PROXY"
)

_NAME = "spark-build-vendors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crate:
    """A package of a Cargo.lock that isn't part of the workspace; `checksum` is that of its ``.crate`` file, if any."""

    name: str
    version: str
    source: str
    checksum: str | None


def pin(text: bytes, url: str, sources: Sources) -> Pin:
    """Return the crates of the Cargo.lock `text` made exact; the text is kept for `fetch`. `url` says where it stands.

    Raises SourceError ``crates-lock`` when it can't be read.
    """
    listed(text, url)
    made = Pin(kind="crates", url=url, tree=f"sha256:{sha256_bytes(text)}", time=ZIP_EPOCH, filename="Cargo.lock")
    keep(made, text, sources)
    return made


def keep(pinned: Pin, text: bytes | None, sources: Sources) -> None:
    """Keep the text of the Cargo.lock for `fetch`, where it is the one that is pinned."""
    digest = pinned.tree.removeprefix("sha256:")
    if text is not None and not (file := _lock_file(digest, sources)).exists() and sha256_bytes(text) == digest:
        write_atomic(file, text)


def _lock_file(digest: str, sources: Sources) -> Path:
    return sources.root / "crates" / f"{digest}.lock"


def folder_of(pinned: Pin, sources: Sources) -> Path:
    """Return where the vendored crates lie, or would: a folder with one of each crate, ``name-version``."""
    return sources.root / "crates" / pinned.tree.removeprefix("sha256:")


def _text(pinned: Pin, sources: Sources) -> bytes:
    try:
        return _lock_file(pinned.tree.removeprefix("sha256:"), sources).read_bytes()
    except FileNotFoundError as error:
        raise SourceError(
            "crates-lock",
            f"the text of {pinned.url} isn't kept any more",
            help="it is read out of the tree again when the sources are resolved again",
            run=(f"spark-build fetch {sources.recipe} --relock",),
        ) from error


def listed(text: bytes, url: str) -> tuple[Crate, ...]:
    """Return the packages of a Cargo.lock that aren't of its workspace. Raises SourceError ``crates-lock``."""
    import tomllib  # noqa: PLC0415

    try:
        packages: list[dict[str, Any]] = tomllib.loads(text.decode())["package"]
        found = [
            Crate(name=one["name"], version=one["version"], source=one["source"], checksum=one.get("checksum"))
            for one in packages
            if "source" in one
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(
            "crates-lock",
            f"{url} is no Cargo.lock",
            cause=str(error),
            help="the recipe's `lockfile` names it",
            run=("spark-build recipes lint",),
        ) from error
    return tuple(found)


def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring the crates in, all or none; return the bytes that they take, zero when they were there.

    The registry, its mirror and its login are those of the user's cargo. Raises HostError ``cargo-missing``, SourceError
    ``crates-failed`` (with what cargo said) or ``crates-differ``.
    """
    folder = folder_of(pinned, sources)
    if folder.exists():
        with contextlib.suppress(OSError):  # read-only sources have no use for it
            os.utime(folder)  # last used, for gc
        return 0
    text = _text(pinned, sources)
    wanted = listed(text, pinned.url)
    with locked(sources.root / "locks" / f"{folder.name}.lock", sources, what=f"the crates of {pinned.url}"):
        if folder.exists():  # by another process, meanwhile
            return 0
        beside = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _vendor(beside, text, wanted, pinned, sources)
            _check(beside, wanted, pinned, sources)
            checkout.settle(beside / "vendor", pinned.time)
            (beside / "vendor").replace(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _vendor(beside: Path, text: bytes, wanted: Sequence[Crate], pinned: Pin, sources: Sources) -> None:
    env = {key: value for key, value in sources.env.items() if _PASSED.fullmatch(key)}
    if shutil.which("cargo", path=env.get("PATH")) is None:
        raise HostError(
            "cargo-missing",
            f"the crates of {pinned.url} are fetched by cargo, and there is none on PATH",
            help="install Rust with the system's packages or rustup; nothing is built with it here",
            run=("spark-build doctor",),
        )
    if mirrors := insteadof(sources):
        env |= mirrors | {"CARGO_NET_GIT_FETCH_WITH_CLI": "true"}
    beside.mkdir(parents=True)
    (beside / "lib.rs").touch()
    (beside / "Cargo.toml").write_text(_manifest(wanted))
    (beside / "Cargo.lock").write_bytes(_foreign(text))
    (beside / "vendor").mkdir()
    if not wanted:
        return
    done = proc.run(
        ["cargo", "vendor", "--versioned-dirs", "--respect-source-config", "--color", "never", "vendor"],
        env=env,
        cwd=beside,
        log=beside / "cargo.log",
        on_line=lambda line: sources.sink.emit(Printed(phase="fetch", text=line)),
    )
    if not done.ok:
        log = (beside / "cargo.log").read_text(errors="replace")
        if "No space left" in log:
            raise full(beside)
        raise SourceError(
            "crates-failed",
            f"cargo can't bring the crates of {pinned.url}",
            cause=_reason(log),
            help="the registry, its mirror and its login are those of the cargo configuration (CARGO_HOME)",
            run=(f"spark-build fetch {sources.recipe}",),
        )


def _reason(log: str) -> str:
    """Return what cargo said from its first error on."""
    lines = [line for line in log.splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if line.startswith("error")), max(len(lines) - 8, 0))
    return "\n".join(lines[first : first + 12])


def _foreign(text: bytes) -> bytes:
    """Return the Cargo.lock without the packages of the workspace, which has other manifests here."""
    head, *packages = re.split(r"(?m)^(?=\[\[package\]\]$)", text.decode())
    return (head + "".join(one for one in packages if re.search(r"(?m)^source = ", one))).encode()


def _manifest(wanted: Iterable[Crate]) -> str:
    lines = [f'[package]\nname = "{_NAME}"\nversion = "0.0.0"\nedition = "2021"\n', '[lib]\npath = "lib.rs"\n']
    lines += ["[workspace]\n", "[dependencies]"]
    for number, one in enumerate(wanted):
        keys = {"package": one.name, "version": f"={one.version.partition('+')[0]}", **_origin(one.source)}
        if one.source in _PUBLIC:
            keys.pop("registry-index", None)
        told = ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        lines.append(f"c{number} = {{ {told}, default-features = false }}")
    return "\n".join([*lines, ""])


def _origin(source: str) -> dict[str, str]:
    """Return the keys of a dependency that name a source of a Cargo.lock."""
    if not source.startswith("git+"):
        return {"registry-index": source.removeprefix("registry+")}
    from urllib.parse import parse_qsl, urlsplit  # noqa: PLC0415

    parts = urlsplit(source.removeprefix("git+"))
    return {"git": parts._replace(query="", fragment="").geturl(), **dict(parse_qsl(parts.query))}


def _check(beside: Path, wanted: Sequence[Crate], pinned: Pin, sources: Sources) -> None:
    """Raise SourceError ``crates-differ`` where cargo vendored anything but what the Cargo.lock says."""
    found = set(listed((beside / "Cargo.lock").read_bytes(), "Cargo.lock"))
    wrong = [f"{one.name} {one.version}" for one in sorted(found ^ set(wanted), key=lambda one: one.name)]
    for one in wanted:
        sums = beside / "vendor" / f"{one.name}-{one.version}" / ".cargo-checksum.json"
        told = json.loads(sums.read_bytes()).get("package") if sums.exists() else "nothing"
        if told != one.checksum:
            wrong.append(f"{one.name} {one.version}: {told}, the lock says {one.checksum}")
    if wrong:
        raise SourceError(
            "crates-differ",
            f"cargo brings other crates than {pinned.url} says",
            cause="\n".join(wrong[:10]),
            help="the registry or its mirror has other files than upstream had; nothing was kept",
            run=(f"spark-build fetch {sources.recipe}",),
        )


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Leave a copy of the crates at `dest`, which mustn't exist, every time stamp that of the pin."""
    fetch(pinned, sources)
    beside = dest.with_name(f".{dest.name}.copying")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder_of(pinned, sources), beside, symlinks=True)
        checkout.settle(beside, pinned.time)
        beside.rename(dest)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def config(pinned: Pin, sources: Sources, *, folder: str) -> str:
    """Return the text of a cargo configuration that takes every crate from `folder`, and asks nobody."""
    origins = sorted({one.source.partition("#")[0] for one in listed(_text(pinned, sources), pinned.url)})
    tables = [_replaced(origin) for origin in origins if origin not in _PUBLIC]
    vendored = f"[source.spark-build]\ndirectory = {json.dumps(folder)}\n"
    public = '[source.crates-io]\nreplace-with = "spark-build"\n'
    return "\n".join([vendored, public, *tables, "[net]\noffline = true\n"])


def _replaced(origin: str) -> str:
    keys = _origin(origin)
    if index := keys.pop("registry-index", None):
        keys["registry"] = index
    told = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return f'[source.{json.dumps(origin)}]\n{told}replace-with = "spark-build"\n'
