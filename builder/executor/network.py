"""What a build wanted from the network, by what it printed, and the recipe key that gives it instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.stages import Nested

__all__ = ["failed", "other_ref", "reached"]

#: How a program says that it looked for a host and there was no network.
_REACHED = re.compile(
    r"(?:Could not resolve host:?|Failed to resolve|unable to access|Temporary failure in name resolution.*?|"
    r"Failed to establish a new connection.*?|Name or service not known.*?|Network is unreachable.*?|"
    r"Could not connect to|urlopen error|error sending request for url|Connection error while fetching|"
    r"failed to fetch|Could not fetch URL|dns error.*?|"
    r"failed to query replaced source registry|attempting to make an HTTP request, but --offline.*?)"
    r"[\s:('\"]*([a-z]+://[^\s'\")]+|[a-z0-9-]+(?:\.[a-z0-9-]+)+)?",
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?:https?|git|ssh)://[^\s'\"<>)]+")

#: How programs say what they are about to do, and how many lines a traceback may have, before it or around it.
_ANNOUNCED = re.compile(r"download|fetch|retriev|clon|getting|extract|install|urlopen|curl|wget|\.get\(", re.IGNORECASE)
_TRACEBACK = 100

#: Git, of a repository that isn't among the given ones: the path ends with the URL.
_NOT_GIVEN = re.compile(r"'[^']*/deps/git/(\w+://[^']+)' does not appear to be a git repository")

#: Git and CMake, of a repository that is there and lacks what is asked for.
_OTHER_REF = re.compile(
    r"Remote branch (\S+) not found in upstream|pathspec '([^']+)' did not match|not our ref ([0-9a-f]{40})|"
    r"couldn't find remote ref (\S+)|reference is not a tree: ([0-9a-f]{40})|Failed to checkout tag: '([^']+)'|"
    r"did not contain ([0-9a-f]{40})"
)

_GIT = re.compile(r"unable to access|Cloning into|git clone|git submodule|does not appear to be a git")


def reached(lines: Sequence[str]) -> str | None:
    """Return what a build looked for in the network, empty when it doesn't say; None when it didn't look."""
    for number, line in enumerate(lines):
        if given := _NOT_GIVEN.search(line):
            return given[1]
        named = _REACHED.search(line)
        if named:
            near = " ".join(lines[max(0, number - 3) : number + 2])
            url = _URL.search(line) or _URL.search(near)
            found = url[0].rstrip(".,;:") if url else named[1]
            found = found or _announced(lines[max(0, number - _TRACEBACK) : number])
            found = found or _announced(lines[number : number + _TRACEBACK])
            return re.sub(r"\.git/$", ".git", found)
    return None


def _announced(lines: Sequence[str]) -> str:
    """Return the last address that something was to be taken from, as a program or its source says; empty for none."""
    for line in reversed(lines):
        url = _URL.search(line) if _ANNOUNCED.search(line) else None
        if url:
            return url[0].rstrip(".,;:")
    return ""


def failed(
    lines: Sequence[str],
    wanted: str,
    *,
    output: str,
    excerpt: Sequence[str],
    nested: Sequence[Nested],
    run: tuple[str, ...],
) -> BuildFailed:
    """Return the error for a build that looked for `wanted` in the network, with the key that gives it that."""
    return BuildFailed(
        "network-reached",
        f"the build of {output} reached for the network{f': {wanted}' if wanted else ''}",
        cause="\n".join(excerpt),
        help=f"a build reads only what is pinned: {_advice(lines, wanted, nested)}",
        run=run,
    )


def other_ref(
    lines: Sequence[str], *, output: str, nested: Sequence[Nested], excerpt: Sequence[str], run: tuple[str, ...]
) -> BuildFailed | None:
    """Return the error for a build that asked a given repository for what it isn't pinned to; None when it didn't."""
    given = [one for one in nested if one.kind == "git" and one.pin]
    for number, line in enumerate(lines if given else ()):
        found = _OTHER_REF.search(line)
        if not found:
            continue
        near = " ".join(lines[max(0, number - 8) : number + 8])
        named = [one for one in given if one.pin and (_stem(one.pin.url) in near or f"{one.id}-" in near)] or given
        ref = next(filter(None, found.groups()))
        return BuildFailed(
            "nested-ref",
            f"the build of {output} asks a repository for {ref}, which isn't what is pinned",
            cause="\n".join([*excerpt, *(f"{one.id} is pinned to {_ref(one)}" for one in named)]),
            help=f"{', '.join(f'fetch.{one.id}.ref' for one in named[:3])} says what upstream asks for; "
            "fetch.ID.submodules which submodules are given",
            run=run,
        )
    return None


def _ref(one: Nested) -> str:
    pin = one.pin
    assert pin is not None  # noqa: S101  # only called for those
    commit = (pin.commit or "")[:12]
    return f"{pin.ref} ({commit})" if pin.ref and pin.ref != pin.commit else commit


def _stem(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def _advice(lines: Sequence[str], wanted: str, nested: Sequence[Nested]) -> str:
    """Return which key of the recipe gives `wanted`."""
    host = re.sub(r"^\w+://", "", wanted).partition("/")[0]
    if host.endswith(("pypi.org", "pythonhosted.org")):
        return "build.requires-add of the recipe gives it a Python package"
    for one in nested:
        if one.pin and wanted and _stem(one.pin.url) == _stem(wanted):
            keys = ("place", "stamp", "env") if one.kind == "archive" else ("ref", "submodules")
            named = ", ".join(f"fetch.{one.id}.{key}" for key in keys)
            return f"[[fetch]] {one.id} gives this, and the build didn't take it: {named} say how it is given"
    if near := _nearest(wanted, nested):
        url = near.pin.url if near.pin else ""
        return (
            f"[[fetch]] {near.id} gives {url}: where the tree names another now, "
            f"fetch.{near.id}.pin or a [[fetch.layout]] says how to read it; else one more [[fetch]] gives it"
        )
    if host.endswith("crates.io"):
        return "a [[fetch]] with kind = 'crates' and lockfile = 'Cargo.lock' in the recipe gives it the crates of that lock"
    if "/" not in wanted.partition("://")[2]:  # a host, or nothing
        return (
            "a [[fetch]] in the recipe gives it a repository or a file, build.requires-add a Python package, "
            "build.env a switch that turns the download off"
        )
    kind = "git" if wanted.endswith(".git") or any(_GIT.search(line) for line in lines) else "archive"
    name = re.sub(
        r"[^a-z0-9]+", "-", re.sub(r"(\.git|\.tar\.\w+|\.\w{2,3})$", "", wanted.rstrip("/").rpartition("/")[2].lower())
    )
    more = "ref = 'what it asks for'" if kind == "git" else "place = 'where it looks for it'"
    return (
        f"[[fetch]] id = '{name.strip('-')}', kind = '{kind}', url = '{wanted.rstrip('/')}', {more} in the recipe gives it "
        "this; build.env may turn the download off"
    )


def _nearest(wanted: str, nested: Sequence[Nested]) -> Nested | None:
    """Return the nested source whose address differs in its last part at most, as one of another version does."""
    folder = _stem(wanted).rpartition("/")[0]
    digits = re.compile(r"\d+")
    for one in nested:
        url = _stem(one.pin.url) if one.pin else ""
        if url and folder.count("/") > 2 and digits.sub("0", url) == digits.sub("0", _stem(wanted)):  # noqa: PLR2004
            return one
    return None
