"""Taking a bundle in on the other side: our wheels into the wheelhouse, through its gate; all others into the cache."""

from __future__ import annotations

import functools
import hashlib
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder.bundle import admit, vendored
from builder.bundle.installer import chunks
from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.source.place import refusals
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.bundle.verify import Verified
    from builder.config import Config
    from builder.pipeline.intake import Taken
    from builder.source import Sources
    from builder.wheelhouse import Wheelhouse

__all__ = ["Brought", "bring", "fill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What was taken in: wheels of ours as filed, files for the cache (`new` of `cached`), `sources` of builds."""

    wheels: tuple[Taken, ...]
    cached: int
    new: int
    sources: int


def bring(
    bundle: Verified,
    house: Wheelhouse,
    sources: Sources,
    *,
    config: Config,
    env: Mapping[str, str],
    sign: Callable[[bytes], bytes] | None,
    channels: Sequence[str] = (),
) -> Brought:
    """File the bundle's wheels that spark-build made, all or none; keep the others where the next bundle or build looks.

    What a delta leaves out is taken from the cache. Raises CheckRefused ``bundle-incomplete`` where that lacks it, as
    `admit.check` does for sources, and as `intake.take` does, which audits every wheel as it does one that anybody adds.
    """
    from builder.pipeline import intake  # noqa: PLC0415

    rows = [*bundle.manifest.wheels, *bundle.manifest.facts.get("below", ())]
    own = list(dict.fromkeys(str(one["path"]) for one in rows if "ours" in one))
    here = [path for path in bundle.manifest.files if path not in bundle.lacks]
    vendors = vendored.fresh(bundle.manifest.files, sources)
    # Without its attributes a mirror isn't taken for whole: they come last.
    origins = sorted(
        (path for path in here if path.startswith("sources/") and not vendored.is_vendored(path)),
        key=lambda path: path.endswith("/attributes"),
    )
    other = [path for path in here if path.endswith(".whl") and path not in own]
    _check_whole(bundle, own, vendors, house, sources)
    admit.check(bundle.path, origins, bundle.manifest.files, env=env)
    for digest, paths in vendors.items():
        admit.refuse(vendored.problem(bundle.path, digest, paths, bundle.manifest.files))
    with refusals():
        new = sum(_keep(bundle, path, _place(bundle, path), sources) for path in other)
        for path in origins:  # nothing there is replaced: a mirror only gains objects
            _keep(bundle, path, path.removeprefix("sources/"), sources)
        for digest, paths in vendors.items():
            vendored.keep(digest, paths, sources, copy=functools.partial(_copied, bundle))
        rest = (path for path in here if path not in {*own, *other} and not path.startswith("sources/"))
        for path in rest:  # a delta against this bundle leaves them out
            _keep(bundle, path, _place(bundle, path), sources)
    taken: list[Taken] = []
    if paths := [path for path in own if path not in bundle.lacks]:
        # A bundle may lie on a medium that can't be written, or that others write to; its folders hold one wheel each.
        with tempfile.TemporaryDirectory(prefix="spark-build-import-") as folder:
            placed = [_beside(bundle, path, Path(folder)) for path in paths]
            taken = intake.take(house, placed, config=config, env=env, sign=sign, also=channels)
    carried = len(origins) + sum(map(len, vendors.values()))
    return Brought(wheels=tuple(taken), cached=len(other), new=new, sources=carried)


def _check_whole(
    bundle: Verified, own: Sequence[str], vendors: Mapping[str, Sequence[str]], house: Wheelhouse, sources: Sources
) -> None:
    """Raise CheckRefused ``bundle-incomplete`` where a delta leaves out what isn't here, either."""
    there = {one.sha256 for one in house.list_wheels()}
    fresh = {path for paths in vendors.values() for path in paths}
    missing = [
        path
        for path in bundle.lacks
        if (path in own and bundle.manifest.files[path].sha256 not in there)
        or path in fresh
        or not (vendored.is_vendored(path) or _is_kept(path, sources))
    ]
    if missing:
        raise CheckRefused(
            "bundle-incomplete",
            f"{len(missing)} files of this delta are neither in it nor here",
            cause="\n".join(missing[:20]),
            help="import the bundle that it was made against first, or name it by --base",
            run=("spark-build bundle import BUNDLE",),
        )


def _is_kept(path: str, sources: Sources) -> bool:
    """Whether the cache has what lies below ``sources/`` in a bundle; of a mirror, whose packs may be others, any part."""
    root, _, inner = path.partition("/")
    place = "/".join(inner.split("/")[:2]) if inner.startswith("git/") else inner
    return root != "sources" or (sources.root / place).exists()


def _beside(bundle: Verified, path: str, folder: Path) -> Path:
    """Lay a wheel and its records into `folder`."""
    for each in bundle.manifest.files:
        if each == path or (each.startswith(f"{path}.provenance.json") and each not in bundle.lacks):
            _copied(bundle, each, folder / Path(each).name)
    return folder / Path(path).name


def _place(bundle: Verified, path: str) -> str:
    """Return where the cache keeps a file of a bundle: by its own digest."""
    return f"files/{bundle.manifest.files[path].sha256}/{Path(path).name}"


def _keep(bundle: Verified, path: str, inner: str, sources: Sources) -> bool:
    """Put a file of the bundle at `inner` of the cache; return whether it wasn't there."""
    target, size = sources.root / inner, bundle.manifest.files[path].size
    if target.exists() and (not inner.startswith("files/") or target.stat().st_size == size):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    _copied(bundle, path, beside)
    beside.replace(target)
    return True


def _copied(bundle: Verified, path: str, target: Path) -> None:
    """Leave a copy with the bytes that were verified: what lies on a stick is changed by whoever has the stick.

    Raises CheckRefused ``file-changed``.
    """
    digest = hashlib.sha256()
    target.unlink(missing_ok=True)  # of a copy that was killed
    with target.open("xb") as copy:
        for chunk in chunks(bundle.path / path, bundle.manifest.files[path].size):
            digest.update(chunk)
            copy.write(chunk)
    if digest.hexdigest() != bundle.manifest.files[path].sha256:
        target.unlink()
        raise CheckRefused(
            "file-changed",
            f"{path} changed after it was verified",
            help="copy the bundle to a disk of your own, and take it in from there",
            run=(f"cp -r {shlex.quote(str(bundle.path))} DIR", "spark-build bundle import DIR"),
        )


def _linked(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def fill(bundle: Verified, cache: Path, wheels: Path) -> None:
    """Put what a delta leaves out in its place, as far as the cache or the wheelhouse's `wheels` have the right bytes."""
    ours = {str(one["path"]): str(one["project"]) for one in bundle.manifest.wheels if "ours" in one}
    for path in bundle.lacks:
        name = Path(path).name
        beside = [project for wheel, project in ours.items() if path.startswith(wheel)]
        places = [cache / _place(bundle, path), *(wheels / project / name for project in beside)]
        for there in places:
            if there.is_file() and sha256_file(there) == bundle.manifest.files[path].sha256:
                (bundle.path / path).parent.mkdir(parents=True, exist_ok=True)
                _linked(there, bundle.path / path)
                break
