"""What a tree pulls in while it is built: made exact (`resolve`), looked for (`missing`), brought in (`fetch`)."""

from __future__ import annotations

import contextlib
import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder.digest import sha256_bytes
from builder.errors import SourceError, UsageError
from builder.events import Note
from builder.recipe.units import show_bytes
from builder.source import lacks, pins, together
from builder.source.place import refusals, without_credentials, write_atomic
from builder.stages import ZIP_EPOCH, Nested, Pin
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from builder.recipe.condition import Condition
    from builder.recipe.nested import Fetch
    from builder.source.pins import Wanted
    from builder.source.place import Sources

__all__ = ["JOBS", "fetch", "missing", "resolve", "size"]

#: How many transfers at a time: they come from few hosts, which don't like more.
JOBS = 4

_WHAT = "nested sources"

Origin = Literal["tree", "recipe", "first use"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How sources are made exact: whether they may be brought in for it, and where refs that move were then."""

    bring: bool
    relock: bool
    kept: Path


@refusals()
def resolve(  # noqa: PLR0913  # one argument a thing that it depends on
    fetches: Sequence[Fetch],
    *,
    read: Callable[[str], bytes | None],
    holds: Callable[[Condition | None], bool],
    facts: Mapping[str, str],
    sources: Sources,
    digest: Callable[[Path], str],
    known: Mapping[str, Pin],
    toolkit: Path | None,
    bring: bool,
    relock: bool,
    owner: str,
    held: bool = False,
) -> tuple[Nested, ...]:
    """Return what the tree pulls in, made exact, in the recipe's order.

    `read` gives a file of the tree as the patches leave it; `facts` are machine, version, commit and cuda; `known` are pins
    of a lock, taken as they are, with `held` the only ones; `owner` names the outer tree: a tag or branch is looked up once
    for it, and again with `relock`. With `bring` everything whose digest nobody knows is fetched, and the tree of no pin is
    ``unknown``.

    Raises RecipeError as `pins.wanted` does, SourceError as a fetch does, and ``nested-missing`` offline; UsageError
    ``lock-stale`` where a known archive is another than the tree asks for, or a lock lacks one.
    """
    wanted = pins.wanted(fetches, read=read, holds=holds, facts=facts, toolkit=toolkit, recipe=sources.recipe)
    if held and (free := [one.id for one in wanted if not one.path and one.kind != "crates" and one.id not in known]):
        raise UsageError(
            "lock-stale",
            f"the tree pulls in {free[0]}, and the lock doesn't say which",
            run=(f"spark-build lock {sources.recipe}",),
        )
    way = _Way(bring=bring, relock=relock, kept=sources.root / "nested" / f"{sha256_bytes(owner.encode())[:32]}.json")
    made = {one.id: _put(one, digest) for one in wanted if one.path}
    first: dict[tuple[object, ...], str] = {}  # one archive may serve several
    same = {one.id: first.setdefault(_asked(one, known), one.id) for one in wanted if not one.path}
    jobs = {one.id: partial(_exact, one, known.get(one.id), way) for one in wanted if same.get(one.id) == one.id}
    exact = together.run(jobs, sources, at_once=JOBS, what=_WHAT)
    made |= {
        one.id: replace(exact[same[one.id]], id=one.id, given=one.given, about=one.about)
        for one in wanted
        if one.id in same
    }
    found = tuple(made[one.id] for one in wanted)
    if any(one.origin == "first use" and one.kind == "git" for one in found):
        _keep(way.kept, found)
    if bring and not all(one.known for one in found):
        raise _unavailable(_lacking(found, sources), sources)
    return found


def _asked(one: Wanted, known: Mapping[str, Pin]) -> tuple[object, ...]:
    """Return all that decides what one becomes."""
    return one.kind, one.url, one.ref, one.sha256, one.from_tree, one.given.submodules, known.get(one.id)


def _put(one: Wanted, digest: Callable[[Path], str]) -> Nested:
    """Return what the user put in place."""
    assert one.path is not None  # noqa: S101  # only called for those
    return Nested(
        id=one.id,
        kind=one.kind,
        origin="user",
        given=one.given,
        path=one.path,
        digest=digest(one.path),
        about=one.about,
    )


def _exact(one: Wanted, known: Pin | None, way: _Way, sources: Sources) -> Nested:
    made = Nested(id=one.id, kind=one.kind, origin="lock", given=one.given, about=one.about)
    if one.kind == "crates":
        from builder.source import crates  # noqa: PLC0415  # few recipes have any

        return replace(made, pin=crates.pin(one.text, one.url, sources), origin="lock" if known else "tree")
    url = without_credentials(one.url)  # a pin that is known has none, and is asked for with those of the recipe
    if known:
        if one.kind == "archive" and known.url != url:
            raise UsageError(
                "lock-stale",
                f"the lock holds {one.id} for another machine or recipe",
                cause=f"it has {known.url}, and here the tree asks for {url}",
                run=(f"spark-build lock {sources.recipe}",),
            )
        return replace(made, pin=known)
    with _named(made, sources):
        pin, origin = _commit(one, way, sources) if one.kind == "git" else _file(one, way, sources)
    return replace(made, pin=pin, origin=origin)


def _commit(one: Wanted, way: _Way, sources: Sources) -> tuple[Pin, Origin]:
    """Return a git source made exact; its tree is ``unknown`` where the commit isn't at hand and mustn't be brought."""
    from builder.source import single  # noqa: PLC0415
    from builder.source.mirror import SHORT, Mirror  # noqa: PLC0415

    mirror = Mirror(one.url, sources)
    exact = one.ref.lower() if single.is_exact(one.ref) else ""
    origin: Origin = "first use" if not exact else "tree" if one.from_tree else "recipe"
    unknown = Pin(kind="git", url=mirror.url, tree="unknown", time=ZIP_EPOCH, ref=one.ref, commit=exact or None)
    quiet = Mirror(one.url, replace(sources, offline=sources.offline or not way.bring))
    try:
        commit, stale = exact or ("" if way.relock else _then(way.kept, mirror.url, one.ref)), False
        if not commit:
            # A shortened commit takes a whole fetch to find.
            commit, _asked, stale = single.named(quiet if SHORT.fullmatch(one.ref.lower()) else mirror, one.ref)
        unknown = replace(unknown, commit=commit, stale=stale)
        pin = single.pin(quiet, commit, ref=one.ref, submodules=one.given.submodules)
    except SourceError as error:
        if error.code != "offline-unknown":
            raise
        return unknown, origin
    if stale:
        text = f"{one.id}: {one.ref} = {commit[:12]} as it was last known: the remote wasn't asked"
        sources.sink.emit(Note(level="warning", text=text))
    return replace(pin, size=single.size(pin, sources), stale=stale), origin


def _then(file: Path, url: str, ref: str) -> str:
    """Return the commit that `ref` was when it was looked up for this tree, or an empty text."""
    try:
        return str(json.loads(file.read_bytes()).get(f"{url} {ref}", ""))
    except (FileNotFoundError, ValueError):
        return ""


def _keep(file: Path, found: Iterable[Nested]) -> None:
    kept = {
        f"{one.pin.url} {one.pin.ref}": one.pin.commit
        for one in found
        if one.kind == "git" and one.origin == "first use" and one.pin and one.pin.commit and not one.pin.stale
    }
    data = json.dumps(kept, sort_keys=True).encode()
    if not file.exists() or file.read_bytes() != data:
        write_atomic(file, data)


def _file(one: Wanted, way: _Way, sources: Sources) -> tuple[Pin, Origin]:
    """Return an archive made exact; with no digest known before, the first download's is taken and kept."""
    from builder.source import archive  # noqa: PLC0415

    pin = Pin(
        kind="archive",
        url=without_credentials(one.url),
        tree="unknown",
        time=ZIP_EPOCH,
        filename=pins.file_name(one.url),
    )
    known = archive.recorded(one.url, sources)
    if one.sha256:
        size = known["size"] if known and known["sha256"] == one.sha256 else None
        return replace(pin, tree=f"sha256:{one.sha256}", size=size), "tree" if one.from_tree else "recipe"
    if way.bring and (not sources.offline or _near(one.url, sources)):
        # What was trusted and is here stays; what is gone may come anew when that is asked for.
        there = known and archive.file_of(replace(pin, tree=f"sha256:{known['sha256']}"), sources).exists()
        again = way.relock and not there
        known = archive.trusted(one.url, sources, again=again)
    if not known:
        return pin, "first use"
    return replace(pin, tree=f"sha256:{known['sha256']}", size=known["size"]), "first use"


def _near(url: str, sources: Sources) -> bool:
    """Whether a file can be had without a network."""
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415

    found = urlsplit(sources.mirrored(url))
    return found.scheme == "file" and Path(unquote(found.path)).exists()


def missing(nested: Sequence[Nested], sources: Sources) -> tuple[Nested, ...]:
    """Return those that would have to be fetched, for want of a submodule, too."""
    return tuple(one for one in nested if one.pin and lacks(one.pin, sources))


def _lacking(nested: Sequence[Nested], sources: Sources) -> tuple[Nested, ...]:
    """Return those that are missing and take a network."""
    return tuple(
        one
        for one in missing(nested, sources)
        if not (one.kind == "archive" and one.pin and _near(one.pin.url, sources))
    )


@refusals()
def fetch(
    nested: Sequence[Nested],
    sources: Sources,
    *,
    jobs: int = JOBS,
    read: Callable[[str], bytes | None] | None = None,
) -> Mapping[str, int]:
    """Bring in all that a build gets back, `jobs` at a time, each checked; return the bytes received, by id.

    `read` gives a file of the tree: a Cargo.lock whose text isn't kept any more is read again.
    What came so far is kept when one fails or when it is interrupted, and goes on the next time. Raises SourceError
    ``nested-missing`` offline, else those of a download or a git fetch; HostError ``disk-full`` or ``cargo-missing``.
    """
    lacking = missing(nested, sources)
    if sources.offline and (far := _lacking(lacking, sources)):
        raise _unavailable(far, sources)
    once: dict[tuple[str, str, str], Nested] = {}
    for one in nested:
        if one.pin:  # those at hand, too: it says when they were last used
            once.setdefault((one.kind, one.pin.url, one.pin.tree), one)
    for one in lacking if read else ():
        if one.kind == "crates" and one.pin and read:
            from builder.source import crates  # noqa: PLC0415

            crates.keep(one.pin, read(one.pin.url), sources)
    expected = {one.id: one.pin.size if one in lacking and one.pin else 0 for one in once.values()}
    work = {one.id: partial(_bring, one) for one in once.values()}
    received = together.run(work, sources, at_once=jobs, what=_WHAT, expected=expected)
    return {one.id: received.get(one.id, 0) for one in nested}


def _bring(one: Nested, sources: Sources) -> int:
    pin = one.pin
    assert pin is not None  # noqa: S101  # only called for those
    with _named(one, sources):
        match pin.kind:
            case "git":
                from builder.source import single  # noqa: PLC0415

                return single.bring(pin, sources)
            case "crates":
                from builder.source import crates  # noqa: PLC0415

                received = whole = crates.fetch(pin, sources)
            case _:
                from builder.source import archive  # noqa: PLC0415

                received = archive.fetch(pin, sources)
                whole = archive.file_of(pin, sources).stat().st_size
    if received:  # what is gone one day is told with its size
        write_atomic(_size(pin, sources), str(whole).encode())
    return received


def _size(pin: Pin, sources: Sources) -> Path:
    return sources.root / "nested" / f"{pin.tree.removeprefix('sha256:')[:32]}.size"


def size(one: Nested, sources: Sources) -> int | None:
    """Return how many bytes it has, as far as a record, the disk or, unless offline, its server says."""
    pin = one.pin
    if pin is None or pin.size is not None or one.kind == "git":
        return pin.size if pin else None
    with contextlib.suppress(FileNotFoundError):
        return int(_size(pin, sources).read_text())
    if one.kind == "crates":
        return None
    from builder.source import archive, download  # noqa: PLC0415

    file = archive.file_of(pin, sources)
    return file.stat().st_size if file.exists() else download.length(sources.mirrored(pin.url), sources)


@contextlib.contextmanager
def _named(one: Nested, sources: Sources) -> Iterator[None]:
    """Say in an error which source it is about, and which key provides another."""
    try:
        yield
    except SourceError as error:
        error.summary = f"{one.id}: {error.summary}"
        if error.code == "hash-mismatch" and one.origin == "first use":
            error.help = (
                "it was taken on trust at its first fetch and has changed: find out why; the last command takes it"
            )
            error.run = (
                shlex.join(["curl", "-I", one.pin.url if one.pin else ""]),
                f"spark-build fetch {sources.recipe} --relock",
            )
        error.help = "; ".join(part for part in (error.help, f"--set {one.key}=PATH puts another in its place") if part)
        raise


def _unavailable(lacking: Sequence[Nested], sources: Sources) -> SourceError:
    """Return the error for what isn't at hand and mustn't be fetched."""
    count = f"{len(lacking)} nested sources" if len(lacking) > 1 else f"the nested source {lacking[0].id}"
    return SourceError(
        "nested-missing",
        f"{count} of {sources.recipe} {'are' if len(lacking) > 1 else 'is'}n't at hand, and --offline forbids to fetch",
        cause="\n".join(_described(one, sources) for one in lacking),
        help="--set KEY=PATH, with the key behind it, puts another in the place of one",
        run=(f"spark-build fetch {sources.recipe}",),
    )


def _described(one: Nested, sources: Sources) -> str:
    pin, known = one.pin, size(one, sources)
    name = pin.ref[:12] if pin and pin.ref and pin.ref == pin.commit else pin.ref if pin else None
    at = f" at {name}" if name else ""
    told = show_bytes(known) if known is not None else "size unknown"
    return f"{one.id}: {pin.url if pin else ''}{at}, {told} ({one.key})"
