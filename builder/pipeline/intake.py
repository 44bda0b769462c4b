"""A wheel from elsewhere on its way in: judged, vouched for, audited, filed. All of a set or none of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder import signature
from builder.errors import CheckRefused
from builder.pipeline import judged
from builder.values import dataclass
from builder.wheelhouse import foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.audit.context import Accepted
    from builder.audit.report import Report
    from builder.audit.rules import Finding
    from builder.config import Config
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse
    from builder.wheelhouse.foreign import Foreign

__all__ = ["Examined", "Refused", "Taken", "examine", "file", "take"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A wheel that may be filed. `stamp` is the digest of the rules that `report` was made by."""

    one: Foreign
    report: Report
    stamp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A wheel that was filed; `there` when the same bytes were there already."""

    wheel: Stored
    there: bool
    report: Report


class Refused(CheckRefused):
    """The audit refused a set; `reports` are on all wheels of it."""

    reports: Sequence[Report] = ()

    @property
    def slugs(self) -> tuple[str, ...]:
        """The findings that refused it, each once."""
        return tuple(dict.fromkeys(one.id for report in self.reports for one in report.errors))


def take(
    house: Wheelhouse,
    paths: Sequence[Path],
    *,
    config: Config,
    env: Mapping[str, str],
    accepted: Sequence[Accepted] = (),
    sign: Callable[[bytes], bytes] | None = None,
    also: Sequence[str] = (),
) -> list[Taken]:
    """File the wheels at `paths`, with the records beside them, in channel ``local``; append them to the channels `also`.

    Raises as `examine` and `file` do; then none of them was filed.
    """
    return file(house, examine(paths, config=config, env=env, accepted=accepted), sign=sign, also=also)


def examine(
    paths: Sequence[Path],
    *,
    config: Config,
    env: Mapping[str, str],
    target: str = judged.TARGET,
    accepted: Sequence[Accepted] = (),
    tell: Callable[[str], None] = lambda _text: None,
) -> list[Examined]:
    """Return the wheels at `paths`, each one audited together with the others; `tell` is told how far the reading is.

    With ``signing.signers`` in the configuration one of those has to have signed whatever claims something.

    Raises `Refused` ``audit-refused``, CheckRefused ``wheel-changed``, and as `foreign.judge` and `foreign.vouch` do.
    """
    from builder.audit.target import Capability  # noqa: PLC0415

    ours = [foreign.judge(path) for path in paths]
    for one in ours:
        foreign.vouch(one, _holds(config, env), required=config.signers is not None)
    every = [judged.read(one.wheel.path, tell) for one in ours]
    told = judged.said(every, (), config.recipe_layers)
    reports = judged.reports(every, told, target=Capability.parse(target), accepted=accepted)
    _refuse(reports, paths)
    for one, report in zip(ours, reports, strict=True):
        if one.wheel.sha256 != report.contents.sha256:
            raise CheckRefused("wheel-changed", f"{one.wheel.filename} was changed while it was looked at")
    return [
        Examined(one=one, report=report, stamp=judged.stamp(report, said))
        for one, report, said in zip(ours, reports, told, strict=True)
    ]


def file(
    house: Wheelhouse,
    examined: Sequence[Examined],
    *,
    sign: Callable[[bytes], bytes] | None = None,
    also: Sequence[str] = (),
) -> list[Taken]:
    """File wheels in channel ``local`` and append them to the channels `also`, in one step.

    Raises as `foreign.check` does before the first is filed.
    """
    foreign.check(house, [each.one for each in examined])
    let_pass = {each.one.wheel.sha256: _let_pass(each.report) for each in examined}
    filed = foreign.add(house, [each.one for each in examined], sign=sign, let_pass=let_pass, also=also)
    taken = []
    for each, (stored, there) in zip(examined, filed, strict=True):
        if not there:  # under a stamp of its own: a build that finds it judges it anew
            house.keep_findings(stored.sha256, f"added:{each.stamp}", each.report.as_json())
        taken.append(Taken(wheel=stored, there=there, report=each.report))
    return taken


def _holds(config: Config, env: Mapping[str, str]) -> Callable[[bytes, bytes], str]:
    """Return what checks a signature: by the configured signers, else whether it is one of these bytes at all."""
    if config.signers:
        return signature.checker(config.signers, env=env)
    return lambda record, seal: signature.sound(record, seal, env=env)


def _let_pass(report: Report) -> list[dict[str, str]]:
    return [{"id": one.id, "file": one.file, "reason": one.accepted} for one in report.findings if one.accepted]


def _refuse(reports: Sequence[Report], paths: Sequence[Path]) -> None:
    from builder.ui import audit as shown  # noqa: PLC0415

    errors = [(report, one) for report in reports for one in report.errors]
    if not errors:
        return

    def line(report: Report, one: Finding) -> str:
        return f"{shown.short(one, report.contents.filename)}; {one.why}"

    refused = Refused(
        "audit-refused",
        f"{len({report.contents.filename for report, _one in errors})} of {len(paths)} wheels would not run as it should"
        if len(paths) > 1
        else f"{paths[0].name} would not run as it should",
        cause="\n".join(line(report, one) for report, one in errors),
        help="what is right all the same can be let pass, with a reason that is kept",
        run=(shlex.join(["spark-build", "audit", *map(str, paths)]),),
    )
    refused.reports = reports
    raise refused
