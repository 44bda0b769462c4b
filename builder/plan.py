"""What would be done, and why: a pure function of inputs, catalogue view and history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from builder.digest import canonical_json
from builder.inputs import diff
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from builder.digest import Json
    from builder.inputs import Change, Inputs
    from builder.stages import Host, Nested, Pin, Stored

__all__ = ["Known", "Plan", "Step", "make"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An older build of the same recipe: its fingerprint and inputs document, newest first in the list given to `make`."""

    fingerprint: str
    created: float
    document: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One output: a hit names its wheel; a miss says why."""

    output: str
    decision: Literal["hit", "miss"]
    wheel: Stored | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done for one recipe. `nearest` and `changes` explain a miss; empty when nothing was built before.

    `lost` explains one for which this very build was stored before: what became of its wheels, one line each. `nested` is
    what the tree pulls in, `lacking` the ids of what of it isn't at hand, `retired` a line for each patch that isn't just
    laid on, `advice` what the recipe tells somebody who is about to build this, with a command behind it, `modules` what
    each of the chosen modules takes.
    """

    recipe: str
    inputs: Inputs
    pin: Pin
    host: Host
    label: str
    steps: tuple[Step, ...]
    jobs: int
    estimate_s: int | None = None
    disk_bytes: int = 0
    nearest: str | None = None
    changes: tuple[Change, ...] = field(default=())
    lost: tuple[str, ...] = ()
    nested: tuple[Nested, ...] = ()
    lacking: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    advice: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def hits(self) -> tuple[Stored, ...]:
        """The wheels that are there."""
        return tuple(step.wheel for step in self.steps if step.wheel is not None)

    @property
    def misses(self) -> tuple[str, ...]:
        """The outputs that have to be built."""
        return tuple(step.output for step in self.steps if step.decision == "miss")


def make(  # noqa: PLR0913  # the plan is where everything meets
    *,
    inputs: Inputs,
    pin: Pin,
    host: Host,
    label: str,
    outputs: Sequence[str],
    stored: Sequence[Stored],
    known: Iterable[Known],
    lost: Sequence[str] = (),
    jobs: int,
    estimate_s: int | None = None,
    disk_bytes: int = 0,
    force: bool = False,
) -> Plan:
    """Return the plan: an output whose fingerprint the catalogue knows is a hit, unless `force`.

    The nearest older build is the one with the fewest differences; of equals the newest.
    """
    at_hand = {wheel.output: wheel for wheel in stored if wheel.fingerprint == inputs.fingerprint}
    steps = tuple(
        Step(output=name, decision="hit", wheel=at_hand[name])
        if name in at_hand and not force
        else Step(output=name, decision="miss")
        for name in outputs
    )
    nearest: Known | None = None
    changes: tuple[Change, ...] = ()
    if not lost and any(step.decision == "miss" for step in steps):
        current: Json = None
        for candidate in known:
            if candidate.fingerprint == inputs.fingerprint:
                continue
            current = current or json.loads(canonical_json(dict(inputs.document)))  # keys in the order of stored ones
            found = diff(dict(candidate.document), current)
            if nearest is None or len(found) < len(changes):
                nearest, changes = candidate, found
            if len(changes) == 1:  # none can be nearer
                break
    return Plan(
        recipe=str(inputs.document["name"]),
        inputs=inputs,
        pin=pin,
        host=host,
        label=label,
        steps=steps,
        jobs=jobs,
        estimate_s=estimate_s,
        disk_bytes=disk_bytes,
        nearest=nearest.fingerprint if nearest else None,
        changes=changes,
        lost=tuple(lost),
    )
