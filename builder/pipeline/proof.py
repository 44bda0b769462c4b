"""The gate before a publish: each wheel is audited with its siblings and run, as far as it can be run here.

A hit whose findings were made by other rules or other checks is judged and run again before its path is printed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import stamp
from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.events import Note
from builder.pipeline.evaluate import DEFAULT_ARCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.audit.facts import Contents
    from builder.audit.report import Report
    from builder.audit.rules import Finding
    from builder.executor.isolation import Isolation
    from builder.pipeline.attempt import Attempt
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.recipe.model import Check
    from builder.stages import Stored, Wheel

__all__ = ["keep", "prove", "renew", "scripts", "stamp_of", "target_of"]

#: How many findings an error names; `audit` shows all.
_SHOWN = 8


def prove(
    attempt: Attempt,
    wheels: Sequence[Wheel],
    *,
    what: str = "was built and isn't handed out: it would not run as it should",
) -> str:
    """Audit and try the wheels of an attempt, leave the reports in it, and return what to tell.

    Raises CheckRefused ``audit-refused`` when one of them must not be handed out, and says `what` of them; its reports are
    left, too.
    """
    one, space = attempt.one, attempt.space
    torch = next((space.venv / one.outputs[0].name).glob("lib/python*/site-packages/torch"), None)
    reports = _judged(one, attempt.world, wheels, torch=torch, level=attempt.level, scratch=space.root)
    attempt.reports.update({wheel.sha256: report for wheel, report in zip(wheels, reports, strict=True)})
    for report in reports:
        for finding in report.findings:
            if finding.severity == "warning" and not finding.accepted:
                text = f"{finding.file or report.contents.filename}: {finding.found} ({finding.id})"
                attempt.sink.emit(Note(level="warning", text=text))
    _refuse(reports, one, what)
    return "; ".join(report.line() for report in reports)


def keep(attempt: Attempt, stored: Sequence[Stored]) -> None:
    """Keep what was found with the wheels as they are stored. A wheel that was stored before has its findings."""
    for wheel in stored:
        if report := attempt.reports.get(wheel.sha256):
            stamp = stamp_of(attempt.one, attempt.world, wheel.output)
            attempt.world.house.keep_findings(wheel.sha256, stamp, report.as_json())


def renew(one: Evaluation, world: World, hits: Sequence[Stored]) -> None:
    """Return when stored wheels of a plan are known to be good by today's rules and checks, audited and tried if need be.

    Raises CheckRefused ``audit-refused``.
    """
    stamps = {wheel.sha256: stamp_of(one, world, wheel.output) for wheel in hits}
    if all(world.house.findings(sha256, stamp) is not None for sha256, stamp in stamps.items()):
        return
    import tempfile  # noqa: PLC0415  # not on the hit path
    from pathlib import Path  # noqa: PLC0415

    from builder.executor import isolation  # noqa: PLC0415

    text = f"{one.plan.recipe}: not judged yet by today's rules and checks; looking at its wheels"
    world.sink.emit(Note(level="info", text=text))
    level = isolation.probe(world.env, wanted=world.isolation(one.request.isolation))
    with tempfile.TemporaryDirectory(prefix="spark-build-proof-", ignore_cleanup_errors=True) as scratch:
        reports = _judged(one, world, hits, torch=None, level=level, scratch=Path(scratch))
    _refuse(reports, one, "is in the wheelhouse and isn't handed out: by today's rules it would not run as it should")
    for wheel, report in zip(hits, reports, strict=True):
        world.house.keep_findings(wheel.sha256, stamps[wheel.sha256], report.as_json())


def scripts(one: Evaluation, world: World) -> dict[str, Path]:
    """Return the files of the recipe's scripts; raise RecipeError ``check-script`` for one that isn't there."""
    from builder.recipe import find  # noqa: PLC0415  # most recipes have none

    return find.scripts(one.loaded.recipe, find.folders(world.config.recipe_layers))


def _judged(  # what is judged, by what, and where it is tried
    one: Evaluation,
    world: World,
    wheels: Sequence[Wheel | Stored],
    *,
    torch: Path | None,
    level: Isolation,
    scratch: Path,
) -> list[Report]:
    """Return the reports on the wheels of one build, each judged beside the others, and tried unless it is refused."""
    from builder.audit import contents, context, expect, report, target  # noqa: PLC0415  # not on the hit path

    capability = target.Capability.parse(target_of(one))
    if one.torch and one.torch.folder:
        torch = one.torch.folder / "torch"
    read = [contents.read(wheel.path) for wheel in wheels]
    made = []
    for wheel, own in zip(wheels, read, strict=True):
        checks = _checks(one, wheel.output)
        about = context.Context(
            target=capability,
            machine=one.plan.host.machine,
            expected=expect.of(checks, wheel.output, target=capability),
            beside=[other for other in read if other is not own],
            torch=torch,
        )
        judged = report.judge(own, about)
        beside = [other.path for other in wheels if other is not wheel]
        found = [] if judged.refused else _tried(one, world, own, wheel.output, beside, level=level, scratch=scratch)
        made.append(judged.plus([*found, *_logged(one, world, wheel.output)]))
    return made


def _tried(  # which wheel, beside what, and where
    one: Evaluation,
    world: World,
    contents: Contents,
    output: str,
    beside: Sequence[Path],
    *,
    level: Isolation,
    scratch: Path,
) -> list[Finding]:
    """Install and run a wheel, where what it declares is at hand."""
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from builder.executor import workspace  # noqa: PLC0415
    from builder.pipeline import trial  # noqa: PLC0415

    below = [wheel.path for other in one.depends for wheel in world.house.find(other.plan.inputs.fingerprint)]
    folder = Path(tempfile.mkdtemp(prefix="trial-", dir=scratch))
    bench = trial.Bench(
        python=one.plan.host.interpreter.path,
        env=world.uv_env,
        index_url=world.config.index_url,
        scratch=folder,
        isolation=level,
        scripts=scripts(one, world),
        target=target_of(one),
    )
    try:
        return trial.run(contents, _checks(one, output), bench, beside=[*beside, *below])
    finally:
        workspace.remove(folder)


def _logged(one: Evaluation, world: World, output: str) -> Iterator[Finding]:
    """Yield what the log of the attempt that built an output holds and a check forbids."""
    from builder.executor import workspace  # noqa: PLC0415
    from builder.pipeline import trial  # noqa: PLC0415

    log = workspace.log_of(world.builds / one.plan.inputs.fingerprint, output)
    return trial.logged(_checks(one, output), log)


def _checks(one: Evaluation, output: str) -> tuple[Check, ...]:
    from builder.recipe.model import checks_of  # noqa: PLC0415

    return checks_of(one.loaded.recipe.check, output)


def target_of(one: Evaluation) -> str:
    """Return the capability that wheels are judged for: of several in the user's word for the architecture the last."""
    word = re.split(r"[;, ]+", one.request.arch or DEFAULT_ARCH)[-1]
    return word.removesuffix("+PTX").rstrip("af")


def stamp_of(one: Evaluation, world: World, output: str) -> str:
    """Return the digest of the rules and checks by which the wheels of an output are judged today."""
    texts = {name: sha256_file(path) for name, path in scripts(one, world).items()}
    return stamp.of(_checks(one, output), target=target_of(one), scripts=texts)


def _refuse(reports: Sequence[Report], one: Evaluation, what: str) -> None:
    """Raise when one of the reports refuses its wheel."""
    import shlex  # noqa: PLC0415

    refused = [report for report in reports if report.refused]
    if not refused:
        return
    found = [(report.contents.filename, finding) for report in refused for finding in report.errors]
    lines = [f"{each.file or name}: {each.found} ({each.id}); {each.why}" for name, each in found]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    words = ["spark-build", "audit", str(refused[0].contents.where), "--recipe", one.plan.recipe]
    words += ["--target", target_of(one)] if one.request.arch else []
    words += ["--run"] if any(each.id.startswith("run-") for _name, each in found) else []
    raise CheckRefused(
        "audit-refused",
        f"{one.plan.recipe} {what}",
        cause="\n".join([*lines[:_SHOWN], *more]),
        help="what is right all the same can be let pass by a [[check]] of kind accept in the recipe, with its reason",
        run=(shlex.join(words),),
    )
