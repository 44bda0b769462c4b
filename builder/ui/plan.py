"""Plans and the differences behind them, as lines and as JSON. Pure."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from builder.errors import scrubbed
from builder.recipe.units import show_bytes, show_seconds
from builder.ui.reasons import grouped, reasons, short
from builder.ui.style import clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.digest import Json
    from builder.inputs import Change
    from builder.plan import Plan, Step
    from builder.stages import Pin, Request

__all__ = ["ago", "command", "plan_json", "plan_lines", "plan_reasons", "why_lines"]

#: So many reasons of a miss stand in a plan; `why` has all.
REASONS = 6

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_WIDTH = 80


def plan_lines(
    plan: Plan, *, wheelhouse: Path, wheelhouse_from: str, now: float, request: Request | None = None
) -> tuple[str, ...]:
    """Return what would be done for one recipe, why, where it goes, and the command that does it.

    `request` is what was asked for: the command repeats it.
    """
    verdict = "to build" if plan.misses else "in the wheelhouse"
    name = f"{plan.recipe} {plan.pin.version}" if plan.pin.version else plan.recipe
    lines = [f"{name}  {plan.inputs.fingerprint[:10]}  {verdict}"]
    lines += [f"  {_step(step, now)}" for step in plan.steps]
    lines += [_row("" if at else "source", line) for at, line in enumerate(_pin(plan.pin, now))]
    if plan.misses:
        lines += [*_contents(plan), *_work(plan)]
    lines.append(_row("wheelhouse", f"{wheelhouse} ({wheelhouse_from})"))
    asked = command(request, wheelhouse=wheelhouse if wheelhouse_from == "--wheelhouse" else None) if request else ""
    if plan.misses:
        lines.append(f"  Run: {asked or f'spark-build recipe {plan.recipe}'}")
        for text, run in plan.advice:
            lines += [f"  ▲ {text}", *([f"    Run: {run}"] if run else [])]
    return tuple(lines)


def plan_reasons(plan: Plan) -> tuple[str, ...]:
    """Return why there is something to build, one line a reason."""
    return plan.lost or reasons(plan.changes)


def plan_json(plan: Plan) -> dict[str, Json]:
    """Return a plan for programs; durations in seconds, sizes in bytes."""
    return {
        "recipe": plan.recipe,
        "fingerprint": plan.inputs.fingerprint,
        "label": plan.label,
        "source": {"url": plan.pin.url, "ref": plan.pin.ref, "stale": plan.pin.stale, **plan.pin.identity()},
        "outputs": [
            {
                "output": step.output,
                "decision": step.decision,
                "path": str(step.wheel.path) if step.wheel else None,
                "sha256": step.wheel.sha256 if step.wheel else None,
            }
            for step in plan.steps
        ],
        "nested": [one.identity() for one in plan.nested],
        "lacking": list(plan.lacking),
        "retired": list(plan.retired),
        "modules": list(plan.modules),
        "advice": [{"text": text, "run": run or None} for text, run in plan.advice],
        "nearest": plan.nearest,
        "reasons": list(plan_reasons(plan)),
        "changes": [{"path": one.path, "kind": one.kind, "old": one.old, "new": one.new} for one in plan.changes],
        "jobs": plan.jobs,
        "estimate_s": plan.estimate_s,
        "disk_bytes": plan.disk_bytes,
    }


def why_lines(  # two builds, each with what is told of it
    recipe: str,
    fingerprint: str,
    against: str | None,
    against_created: float | None,
    changes: Sequence[Change],
    now: float,
) -> tuple[str, ...]:
    """Return every difference to the build `against`: the reason in words, then the inputs that say so."""
    head = f"{recipe} {fingerprint[:10]}"
    if against is None:
        return (f"{head}: nothing to compare with, no other build of {recipe} is stored here",)
    built = ""
    if against_created is not None:
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(against_created))
        built = f", built {ago(now - against_created)} ({moment})"
    lines = [f"{head} against {against[:10]}{built}"]
    if not changes:
        return (*lines, "  no input differs")
    groups = grouped(changes)
    for words, found in groups:
        lines.append(f"  {words}")
        lines += [f"      {_evidence(change)}" for change in found]
    if len(groups) > 1:
        lines.append("  Each of these alone makes another build.")
    return tuple(lines)


def ago(seconds: float) -> str:
    """Return how long ago something was, as people say it."""
    whole = max(0, int(seconds))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if count := whole // size:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def command(request: Request, *, wheelhouse: Path | None = None) -> str:
    """Return the command line that asks for `request` again."""
    single = {
        "--ref": request.ref,
        "--repo": request.repo,
        "--version": request.version,
        "--source": request.source,
        "--python": request.python,
        "--arch": request.arch,
        "--torch": request.torch,
        "--cuda": request.cuda,
        "--jobs": request.jobs,
        "--isolation": request.isolation if request.isolation != "auto" else None,
        "--wheelhouse": wheelhouse,
    }
    several = [
        ("--pr", request.pulls),
        ("--output", request.outputs),
        ("--with", [word for word, taken in request.variants.items() if taken]),
        ("--without", [word for word, taken in request.variants.items() if not taken]),
    ]
    pairs = [("--set", request.settings), ("--env", request.env)]
    words = ["spark-build", "recipe", request.recipe]
    for flag, value in single.items():
        words += [flag, str(value)] if value is not None else []
    words += [word for flag, values in several for value in values for word in (flag, str(value))]
    words += [word for flag, items in pairs for key, value in items.items() for word in (flag, f"{key}={value}")]
    switches = {"--offline": request.offline, "--relock": request.relock, "--force": request.force}
    words += [flag for flag, given in switches.items() if given]
    return shlex.join(map(scrubbed, words))


def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"


def _step(step: Step, now: float) -> str:
    if step.wheel is None:
        return f"● {step.output}: build"
    return f"✔ {step.output}: cached, {show_bytes(step.wheel.size)}, built {ago(now - step.wheel.created)}"


def _pin(pin: Pin, now: float) -> Iterator[str]:
    if pin.kind == "local":
        from urllib.parse import unquote  # noqa: PLC0415  # hardly ever

        yield unquote(pin.url.removeprefix("file://"))
        yield f"{f'at {pin.commit[:12]}, ' if pin.commit else ''}files {short(pin.tree)}"
    elif pin.commit:
        extra = f", {len(pin.submodules)} submodules" if pin.submodules else ""
        extra += "".join(f", with PR {pull.number} ({pull.head[:7]})" for pull in pin.pulls)
        yield f"{pin.ref} = {pin.commit[:12]}{extra}" if pin.ref != pin.commit else f"{pin.commit[:12]}{extra}"
        yield pin.url
    else:
        if pin.filename:
            yield f"{pin.filename}{f', {show_bytes(pin.size)}' if pin.size else ''}"
        yield short(pin.tree)
    if pin.stale:
        age = f"as of {ago(now - pin.asked_at)}" if pin.asked_at else "of unknown age"
        yield f"▲ {age}: the remote wasn't asked"


def _contents(plan: Plan) -> Iterator[str]:
    """Yield what goes into the build beside the source: the architecture as the project gets it, patches, nested sources."""
    document: Any = plan.inputs.document
    effective = " ".join(document["arch"])
    if document["target"]["arch"] != effective:
        yield _row("arch", f"{document['target']['arch']}, which this project builds as {effective}")
    if document["patches"]:
        yield _row("patches", clip(", ".join(one["id"] for one in document["patches"]), _WIDTH - 13))
    for one in plan.retired:
        yield _row("", f"▲ patch {one}")
    for at, one in enumerate(plan.modules):
        yield _row("" if at else "modules", clip(one, _WIDTH - 13))
    if plan.nested:
        yield _row("nested", f"{len(plan.nested)} sources that the tree pulls in, each pinned")
    if count := sum(one.kind == "archive" and not one.known for one in plan.nested):
        yield _row("", f"▲ {count} without a digest so far: their first fetch gives another fingerprint")
    if plan.lacking:
        some = clip(", ".join(plan.lacking), _WIDTH - 13 - 16)
        yield _row("", f"not at hand: {some}")


def _work(plan: Plan) -> Iterator[str]:
    known = plan_reasons(plan)
    if known:
        yield _row("because", clip(known[0], _WIDTH - 13))
        for reason in known[1:REASONS]:
            yield _row("", clip(reason, _WIDTH - 13))
        if len(known) > REASONS:
            yield _row("", f"and {len(known) - REASONS} more: spark-build why {plan.recipe}")
        if plan.nearest:
            yield _row("", f"(against {plan.nearest[:10]}, the nearest stored build)")
    elif plan.hits and not plan.nearest:
        yield _row("because", "not all outputs of this build are stored")
    elif plan.nearest is None:
        yield _row("because", "first build of this recipe here")
    estimate = "never built here: no estimate" if plan.estimate_s is None else f"about {show_seconds(plan.estimate_s)}"
    yield _row("time", f"{estimate}; {plan.jobs} job{'s' if plan.jobs != 1 else ''} at once")
    yield _row("disk", f"{show_bytes(plan.disk_bytes)} at the peak")
    yield _row("label", plan.label)


def _evidence(change: Change) -> str:
    sign = _SIGNS[change.kind]
    value = {
        "added": short(change.new),
        "removed": short(change.old),
        "changed": f"{short(change.old)} → {short(change.new)}",
    }[change.kind]
    return f"{sign} {change.path}  {value}"
