"""What clients are given so that they take our projects from this index and from nowhere else. Values in, text out.

Measured with uv 0.13 and pip 26.3: an explicit index with sources is safe whatever any index answers, but only for what a
project itself depends on. What one of our wheels needs would come from the public index, under our name. So all names are in
a dependency group, too: uv resolves groups together with the project, which ties each name to its source, and installs a
group only where that is asked for. pip joins all indexes that it knows and takes the highest version of any: it gets one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from builder import __version__
from builder.digest import sha256_bytes
from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from packaging.pylock import PackageWheel

    from builder.index.listing import File, Project

__all__ = [
    "FILES",
    "Chosen",
    "Index",
    "choose",
    "environment",
    "is_sealed",
    "pip_conf",
    "pylock",
    "requirements",
    "sealed",
    "uv_project",
]

#: Formats, and what their files are called.
FILES = {
    "uv": "uv-pyproject.toml",
    "pip": "pip.conf",
    "requirements": "requirements.txt",
    "pylock": "pylock.toml",
}
#: What a URL may be made of (RFC 3986): no blank, line end, quote or brace, which mean something in one of the files.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")
#: The dependency group that ties our names to our index.
GROUP = "spark-build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as clients know it: `url` ends in ``simple/``, `root` is where its ``files/`` lies, `name` is uv's word."""

    name: str
    url: str
    root: str

    @classmethod
    def at(cls, url: str, channel: str) -> Index:
        """Return the index of `channel` at `url`, which is that of a ``simple`` folder or of a whole server or export.

        Wheels of a channel at ``team/stable/simple/`` are taken to lie beside ``team/``, as a server and an export of all
        channels have them, unless the URL is that of a folder that is there and has its own.

        Raises UsageError ``index-url`` for one that is no URL, or that holds a login: what is written here gets copied, and
        tokens have a better place.
        """
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  # it is looked at when it is asked for
        except ValueError as error:
            raise _no_url(url, str(error)) from error
        name = "spark-build" if channel == "local" else f"spark-build-{channel.replace('/', '-')}"
        known = (parts.hostname and parts.scheme in {"http", "https"}) or url[:8].lower() == "file:///"
        if not known or parts.query or parts.fragment or not _PLAIN.fullmatch(url):
            raise _no_url(
                url, "wanted https://host/…, http://host/… or file:///…, without a query; blanks and the like as %20"
            )
        if parts.username is not None or parts.password is not None:
            names = " and ".join(_variables(name))
            raise UsageError(
                "index-url",
                "the URL of the index holds a login",
                cause="no file that is written here holds one: they get copied, and committed",
                help=f"give the URL without it; in a project uv takes the login from {names}, uv pip and pip from ~/.netrc",
            )
        base = f"{url.rstrip('/')}/"
        if not base.endswith("/simple/"):
            base = f"{base}simple/" if channel == "local" else f"{base}{channel}/simple/"
        own = base.removesuffix("simple/")
        of_all = own.removesuffix(f"/{channel}/").rstrip("/") + "/"
        folder = _folder(own)
        return cls(name=name, url=base, root=own if folder and (folder / "files").is_dir() else of_all)

    @property
    def folder(self) -> Path | None:
        """Where its ``files/`` lies on this machine, for a ``file:`` URL."""
        return _folder(self.root)

    @property
    def host(self) -> str:
        """The host with its port; empty for a file."""
        return urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        """Whether everybody on the way can read and change what is sent."""
        return urlsplit(self.url).scheme == "http" and not self.is_loopback

    @property
    def is_loopback(self) -> bool:
        """Whether nothing leaves this machine."""
        from ipaddress import ip_address  # noqa: PLC0415

        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:  # a name, which may begin with 127.
            return False

    def file_url(self, file: File) -> str:
        """Return the URL of a wheel."""
        return f"{self.root}files/{file.sha256}/{quote(file.filename, safe='')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One version of a project: its wheels. `pinned_by` are projects whose metadata want another version of it."""

    project: str
    version: str
    files: tuple[File, ...]
    pinned_by: tuple[str, ...] = ()


def choose(projects: Iterable[Project], pinned_by: Mapping[str, Sequence[str]] | None = None) -> tuple[Chosen, ...]:
    """Return what a client that resolves now would take of each project: the highest version that isn't yanked.

    A project that offers nothing isn't among them. `pinned_by` is by project.
    """
    from packaging.version import Version  # noqa: PLC0415

    chosen = []
    for project in projects:
        offered = [file for file in project.files if not file.yanked]
        if offered:
            newest = max((file.version for file in offered), key=Version)
            chosen.append(
                Chosen(
                    project=project.name,
                    version=newest,
                    files=tuple(file for file in offered if file.version == newest),
                    pinned_by=tuple((pinned_by or {}).get(project.name, ())),
                )
            )
    return tuple(chosen)


def uv_project(index: Index, names: Iterable[str], chosen: Sequence[Chosen] = ()) -> str:
    """Return tables for a project's own ``pyproject.toml``: sources count nowhere else.

    `names` are all that are this index's, also those that it offers nothing of now: they mustn't come from elsewhere.
    `chosen` are those that it does. An override adds no requirement: it only says where one that is there leads to.
    """
    names = sorted(names)
    lines = [
        f"# For pyproject.toml: these projects come from {index.url} and from nowhere else.",
        f'# Add what you use to "dependencies"; the group "{GROUP}" needn\'t be installed. It ties each name to its source',
        "# for what other packages need, too. This counts for uv lock, sync, run and add; for uv pip take requirements.txt.",
    ]
    if chosen:
        lines += ["", "[dependency-groups]", f"{GROUP} = [", *(f"    {_toml(one.project)}," for one in chosen), "]"]
    overrides = {f"{one.project}=={one.version}": one.pinned_by for one in chosen if one.pinned_by}
    overrides |= {name: () for name in names if not any(one.project == name for one in chosen)}
    if overrides:
        lines += ["", "[tool.uv]", "override-dependencies = ["]
        for pin, others in overrides.items():
            why = f"{' and '.join(others)} pins another" if others else "nothing is offered of it, here or elsewhere"
            lines.append(f"    {_toml(pin)},  # {why}")
        lines.append("]")
    forever = {"api": "no-cache", "files": "max-age=365000000, immutable"}
    lines += ["", "[[tool.uv.index]]", f"name = {_toml(index.name)}", f"url = {_toml(index.url)}", "explicit = true"]
    if index.host:
        lines.append(f"cache-control = {_inline(forever)}")
    if names:
        lines += ["", "[tool.uv.sources]", *(f"{name} = {_inline({'index': index.name})}" for name in names)]
    return "\n".join([*lines, ""])


def pip_conf(index: Index) -> str:
    """Return a configuration of pip in which this index is the only one."""
    lines = [
        "# pip takes the highest version of any index that it knows: with a second one anybody could give it a package",
        "# under one of our names. So there is one; never add extra-index-url. What isn't ours comes from here by the",
        "# server's pass-through, or is installed by another command.",
    ]
    trusted = []
    if index.is_loopback and index.url.startswith("http:"):
        lines.append("# pip keeps pages and METADATA only of hosts that it trusts; this one is this machine.")
        trusted = [f"trusted-host = {index.host}"]
    elif index.is_plain:
        lines.append(
            f"# pip refuses {index.url}: http without TLS can be changed on the way. Give the server a certificate."
        )
    return "\n".join([*lines, "[global]", f"index-url = {index.url}", *trusted, ""])


def requirements(index: Index, chosen: Sequence[Chosen]) -> str:
    """Return pinned requirements with the digests of their wheels."""
    lines = [
        "# Only wheels with these digests are installed, whatever an index says. Without what they need in turn:",
        "#     uv pip install --no-deps -r requirements.txt        pip install --no-deps -r requirements.txt",
        f"--index-url {index.url}",
    ]
    for one in chosen:
        digests = [f"--hash=sha256:{file.sha256}" for file in one.files]
        lines.append(" \\\n    ".join([f"{one.project}=={one.version}", *digests]))
    return "\n".join([*lines, ""])


def pylock(index: Index, chosen: Sequence[Chosen], *, paths_from: str | None = None) -> str:
    """Return a ``pylock.toml`` (PEP 751) with exactly these wheels.

    With `paths_from`, the folder in which it will lie, wheels of a ``file://`` index are named by their path from there, so
    that lock and index can be carried elsewhere together.
    """
    import tomli_w  # noqa: PLC0415
    from packaging.pylock import Package, Pylock  # noqa: PLC0415
    from packaging.utils import canonicalize_name  # noqa: PLC0415
    from packaging.version import Version  # noqa: PLC0415

    lock = Pylock(
        lock_version=Version("1.0"),
        created_by=f"spark-build {__version__}",
        packages=[
            Package(
                name=canonicalize_name(one.project),
                version=Version(one.version),
                requires_python=_requires_python(one),
                index=None if paths_from is not None else index.url,
                wheels=[_locked(index, file, paths_from) for file in one.files],
            )
            for one in chosen
        ],
    )
    lock.validate()
    head = (
        "# Exactly these wheels, by digest and size, without what they need in turn:\n"
        "#     pip install -r pylock.toml        uv pip install --no-deps -r pylock.toml\n"
    )
    return head + tomli_w.dumps(dict(lock.to_dict()))


def sealed(text: str, command: str) -> str:
    """Return the text of a file with a first line that says which `command` made it, and with which digest."""
    return f"# Made by: {command} (sha256 {_seal(text)})\n{text}"


def is_sealed(text: str) -> bool:
    """Whether a file is as it was written here: nobody has changed it since, and it is nobody else's."""
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    return first.startswith("# Made by: ") and first.endswith(f" (sha256 {_seal(rest)})")


def _seal(text: str) -> str:
    return sha256_bytes(text.encode())[:16]


def environment(index: Index) -> dict[str, str]:
    """Return what a client's token is given by, with what is to be there: never a file that is written here."""
    user, password = _variables(index.name)
    return {user: "__token__", password: "the token"}


def _no_url(url: str, cause: str) -> UsageError:
    shown = re.sub(
        r"[?#].*", "", re.sub(r"//.*@", "//", url, flags=re.DOTALL), flags=re.DOTALL
    )  # nothing that is secret
    return UsageError("index-url", f"{shown!r} can't be the URL of an index", cause=cause)


def _folder(url: str) -> Path | None:
    """Return where a ``file:`` URL leads to."""
    from urllib.request import url2pathname  # noqa: PLC0415

    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _variables(name: str) -> tuple[str, str]:
    known = name.upper().replace("-", "_")
    return f"UV_INDEX_{known}_USERNAME", f"UV_INDEX_{known}_PASSWORD"


def _locked(index: Index, file: File, paths_from: str | None) -> PackageWheel:
    from datetime import UTC, datetime  # noqa: PLC0415

    from packaging.pylock import PackageWheel  # noqa: PLC0415

    place: dict[str, Any] = {"url": index.file_url(file)}
    if paths_from is not None:
        root = os.path.realpath(index.folder or paths_from)
        place = {"path": os.path.relpath(f"{root}/files/{file.sha256}/{file.filename}", os.path.realpath(paths_from))}
    return PackageWheel(
        name=file.filename,
        upload_time=datetime.fromtimestamp(file.uploaded, UTC),
        size=file.size,
        hashes={"sha256": file.sha256},
        **place,
    )


def _requires_python(one: Chosen) -> Any:  # noqa: ANN401  # a SpecifierSet, whose import costs
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    said = {file.requires_python for file in one.files}
    try:
        return SpecifierSet(said.pop() or "") or None if len(said) == 1 else None
    except InvalidSpecifier:  # the wheel says it, and nothing that is installed by this is judged by it
        return None


def _toml(value: object) -> str:
    import tomli_w  # noqa: PLC0415

    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _inline(values: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{key} = {_toml(value)}' for key, value in values.items())} }}"
