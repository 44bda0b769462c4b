"""``spark-build wheels diff``: what differs between two wheels, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.audit.compare import Comparison
    from builder.audit.facts import Contents
    from builder.cli.app import App
    from builder.inputs import Change
    from builder.ui.diff import Code

__all__ = ["run"]


def run(args: argparse.Namespace, app: App) -> int:
    """Print how the two wheels differ."""
    from builder.cli.judged import wheel_path  # noqa: PLC0415
    from builder.ui import audit as progress  # noqa: PLC0415
    from builder.ui import diff as shown  # noqa: PLC0415
    from builder.ui import reasons, style  # noqa: PLC0415

    old, new = (wheel_path(word, app) for word in (args.old, args.new))
    told = progress.Progress(app.stderr, style.of(app.stderr, app.env), app.clock, style.columns(app.stderr))
    try:
        facts, changes, found = _compared(old, new, told.tell)
    finally:
        told.done()
    code = _code(facts[0]), _code(facts[1])
    if args.json:
        app.print_json({**found.as_json(), **_inputs(changes), "device_code": _code_json(code)})
        return 0
    looks, width = style.of(app.stdout, app.env), style.columns(app.stdout)
    why = reasons.reasons(changes) if changes is not None else None
    for line in _head(found):
        app.print(looks.fit(style.visible(line)))
    for line in shown.lines(found, style=looks, width=width, reasons=why, code=code, every=args.all):
        app.print(looks.fit(line))
    return 0


def _compared(
    old: Path, new: Path, tell: Callable[[str], None]
) -> tuple[list[Contents], tuple[Change, ...] | None, Comparison]:
    """Return what both wheels hold, how their inputs differ, and how they do: with the causes where both were made alike."""
    from builder.audit import compare  # noqa: PLC0415
    from builder.pipeline import judged  # noqa: PLC0415
    from builder.ui.style import visible  # noqa: PLC0415

    facts = [judged.read(path, tell) for path in (old, new)]
    changes = _changes(facts)
    same = changes == () or (changes is None and facts[0].version == facts[1].version)
    explain = same and _for(facts[0]) == _for(facts[1])
    found = compare.compare(old, new, explain=explain, on_read=lambda name: tell(f"comparing {visible(name)}"))
    return facts, changes, found


def _for(facts: Contents) -> tuple[object, ...]:
    """Return what a wheel is and where it runs, by its name and by itself: of two machines all code differs."""
    return facts.project, facts.tags, facts.filename.removesuffix(".whl").split("-")[-3:]


def _head(found: Comparison) -> tuple[str, ...]:
    return (f"- {found.old.path}", f"+ {found.new.path}")


def _changes(facts: Sequence[Contents]) -> tuple[Change, ...] | None:
    """Return how the inputs differ, or None where one of the wheels holds none."""
    from builder.inputs import diff  # noqa: PLC0415

    old, new = (dict(one.inputs) if one.inputs else None for one in facts)
    return diff(old, new) if old and new else None


def _inputs(changes: Sequence[Change] | None) -> dict[str, Any]:
    if changes is None:
        return {"inputs": None}
    return {"inputs": [{"path": one.path, "kind": one.kind, "old": one.old, "new": one.new} for one in changes]}


def _code(facts: Contents) -> Code:
    found: Code = {}
    for file in facts.files:
        for unit in file.device.units if file.device else ():
            for image in unit.images:
                count, size = found.get(image.arch, (0, 0))
                found[image.arch] = count + 1, size + image.size
    return found


def _code_json(code: tuple[Code, Code]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        side: {arch: {"images": count, "bytes": size} for arch, (count, size) in one.items()}
        for side, one in zip(("old", "new"), code, strict=True)
    }
