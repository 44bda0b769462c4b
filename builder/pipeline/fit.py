"""Whether the members of a stack fit each other: one torch, and each wheel judged beside all others and that torch."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from builder.digest import sha256_json
from builder.errors import CheckRefused, SourceError
from builder.events import Note, Printed
from builder.pipeline import proof
from builder.stages import EnvLock
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.audit.context import Accepted
    from builder.audit.facts import Contents
    from builder.audit.report import Report
    from builder.pipeline.stack import Made
    from builder.pipeline.world import World
    from builder.recipe.stack import Loaded

__all__ = ["check"]

#: How many findings an error names.
_SHOWN = 8

#: Under this word the wheelhouse remembers sets that were found to fit.
_KIND = "stack"


def check(loaded: Loaded, made: Sequence[Made], world: World) -> None:
    """Return when the members fit each other; warnings are told.

    All were built for one torch, and each wheel is judged beside all others: what they require of each other, FlashInfer's
    versions, torch's pin of Triton, CUDA and torch's symbols. A set that was found to fit by today's rules isn't looked at
    again. Raises CheckRefused ``stack-refused``.
    """
    key = _key(loaded, made, world)
    if world.house.recall(_KIND, key) is not None:
        return
    lines = list(_torches(made))
    warned = False
    for report in _judged(loaded, made, world):
        for finding in report.findings:
            if finding.severity == "warning" and not finding.accepted:
                warned = True
                text = f"{finding.file or report.contents.filename}: {finding.found} ({finding.id})"
                world.sink.emit(Note(level="warning", text=text))
        lines += [f"{one.file or report.contents.filename}: {one.found} ({one.id}); {one.why}" for one in report.errors]
    if not lines:
        if not warned:  # what warns is told each time
            world.house.remember(_KIND, key, {"members": [one.one.plan.recipe for one in made]})
        return
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    raise CheckRefused(
        "stack-refused",
        f"the members of {loaded.stack.name} don't fit each other; nothing was promoted",
        cause="\n".join([*lines[:_SHOWN], *more]),
        help="what is right all the same can be let pass by check.accept in the stack file, with its reason",
        run=(shlex.join(["spark-build", "audit", *(str(wheel.path) for one in made for wheel in one.wheels)]),),
    )


def _key(loaded: Loaded, made: Sequence[Made], world: World) -> str:
    """Return all that the answer depends on; an existing torch by its version and build, as in a fingerprint."""
    return sha256_json(
        {
            "wheels": [
                [wheel.sha256, proof.stamp_of(one.one, world, wheel.output)] for one in made for wheel in one.wheels
            ],
            "torch": [[one.one.torch.identity() if one.one.torch else None, _files(one)] for one in made],
            "accept": [[list(one.findings), one.file] for one in loaded.stack.check.accept],
        }
    )


def _files(one: Made) -> list[str]:
    """Return the digests of the files that a member's build may have installed as torch."""
    return sorted({sha256 for lock in one.one.locks for p in lock.packages if p.name == "torch" for sha256 in p.sha256})


def _torches(made: Sequence[Made]) -> Iterator[str]:
    """Yield what keeps the members from sharing one torch: version, CUDA, C++ ABI, and the files that are locked of it."""
    told: dict[str, str] = {}
    for one in made:
        if torch := one.one.torch:
            source = "existing" if torch.folder else f"sha256 {' '.join(_files(one))[:12]}"
            cuda = f", CUDA {torch.cuda}" if torch.cuda else ""
            told[one.one.plan.recipe] = f"torch {torch.version}{cuda}, cxx11abi {torch.cxx11abi}, {source}"
    if len(set(told.values())) > 1:
        yield "not built for one torch: " + "; ".join(f"{name}: {text}" for name, text in told.items())


def _judged(loaded: Loaded, made: Sequence[Made], world: World) -> list[Report]:
    """Return the reports on all wheels, each judged beside all others and the torch that they were built for."""
    from builder.audit import contents, context, expect, report, target  # noqa: PLC0415  # each brings its readers

    read = {wheel.sha256: contents.read(wheel.path) for one in made for wheel in one.wheels}
    reports = []
    with _torch(made, world) as packages:
        torch = list(_contents(packages)) if packages else []
        libraries = packages / "torch" if packages and (packages / "torch" / "lib").is_dir() else None
        for one in made:
            capability = target.Capability.parse(proof.target_of(one.one))
            for wheel in one.wheels:
                own = read[wheel.sha256]
                expected = expect.of(one.one.loaded.recipe.check, wheel.output, target=capability)
                about = context.Context(
                    target=capability,
                    machine=one.one.plan.host.machine,
                    expected=replace(expected, accepted=(*expected.accepted, *_accepted(loaded))),
                    beside=[*(other for other in read.values() if other is not own), *torch],
                    torch=libraries,
                )
                reports.append(report.judge(own, about))
    return reports


def _accepted(loaded: Loaded) -> Iterator[Accepted]:
    from builder.audit.context import Accepted  # noqa: PLC0415

    for one in loaded.stack.check.accept:
        for slug in one.findings:
            yield Accepted(id=slug, file=one.file, reason=one.reason)


@contextlib.contextmanager
def _torch(made: Sequence[Made], world: World) -> Iterator[Path | None]:
    """Give the folder of packages that holds the members' torch, None where they build without one or it can't be had.

    One that is locked is installed for the while, by its hash; uv has it at hand from the builds.
    """
    chosen = next((one for one in made if one.one.torch), None)
    if chosen is None or chosen.one.torch is None:
        yield None
        return
    if chosen.one.torch.folder:
        yield chosen.one.torch.folder
        return
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from builder import buildenv  # noqa: PLC0415

    locked = next(p for lock in chosen.one.locks for p in lock.packages if p.name == "torch")
    line = " ".join([f"torch=={locked.version}", *(f"--hash=sha256:{sha256}" for sha256 in locked.sha256)])
    with tempfile.TemporaryDirectory(prefix=".torch-", dir=world.builds, ignore_cleanup_errors=True) as folder:
        packages = None
        try:
            buildenv.create(
                EnvLock(output="torch", packages=(locked,), text=f"{line}\n"),
                Path(folder, "venv"),
                python=chosen.one.plan.host.interpreter.path,
                index_url=world.config.index_url,
                env=world.uv_env,
                offline=chosen.one.request.offline,
                log=Path(folder, "env.log"),
                on_line=lambda text: world.sink.emit(Printed(phase="env", text=text)),
                recipe=chosen.one.plan.recipe,
            )
            packages = next(Path(folder, "venv", "lib").glob("python*/site-packages"))
        except SourceError as error:
            text = f"the set wasn't held against torch {locked.version}, which can't be had: {error.summary}"
            world.sink.emit(Note(level="warning", text=text))
        yield packages


def _contents(packages: Path) -> Iterator[Contents]:
    """Yield what an installed torch says of itself, for what it requires."""
    from builder.audit.facts import Contents  # noqa: PLC0415
    from builder.wheel.read import header  # noqa: PLC0415

    for file in packages.glob("torch-*.dist-info/METADATA"):
        text = file.read_bytes()
        version = header(text, "Version") or ""
        yield Contents(where=packages, filename="", project="torch", version=version, metadata=text)
