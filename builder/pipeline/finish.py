"""From what the backends left to wheels that can be published: one label for all, the same bytes each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from builder import digest
from builder.pipeline import gated
from builder.values import fields
from builder.wheel import label, pack, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder import stages
    from builder.gate.ccache import Statistics
    from builder.gate.tally import Summary
    from builder.pipeline.attempt import Attempt

__all__ = ["epoch_of", "pack_all", "provenance"]

#: A zip can't hold a time before 1980.
_OLDEST = 315532800


def epoch_of(pin: stages.Pin) -> int:
    """Return SOURCE_DATE_EPOCH: the source's own time."""
    return max(pin.time, _OLDEST)


def pack_all(attempt: Attempt, built: Sequence[stages.Built]) -> list[stages.Wheel]:
    """Label, strip and pack; a rebuild with other bits under a name that is taken gets a label of its own (``r2``)."""
    house, fingerprint = attempt.world.house, attempt.one.plan.inputs.fingerprint
    revision = 1
    while True:
        name = label.make(house.first_planned(fingerprint), fingerprint, revision=revision)
        wheels = _packed(attempt, built, name)
        if not any(house.taken(wheel.filename, wheel.sha256) for wheel in wheels):
            return wheels
        revision += 1


def _packed(attempt: Attempt, built: Sequence[stages.Built], name: str) -> list[stages.Wheel]:
    one, space = attempt.one, attempt.space
    recipe, outputs = one.loaded.recipe, {output.name: output for output in one.outputs}
    siblings = {item.output: label.labelled(read.inspect(item.path).version, name) for item in built}
    return [
        pack.finish(
            item,
            dest=space.root / "wheels",
            label=name,
            siblings=siblings,
            version_module=outputs[item.output].version_module or recipe.version.module,
            strip=recipe.build.strip,
            epoch=epoch_of(one.plan.pin),
            extra_files={"spark-build/inputs.json": digest.canonical_json(dict(one.plan.inputs.document))},
            expected=item.output,
            env=attempt.world.env,
            scratch=space.root / "tmp",
        )
        for item in built
    ]


def _fields(value: Summary | Statistics) -> dict[str, object]:
    return {one.name.replace("_", "-"): getattr(value, one.name) for one in fields(value)}


def provenance(attempt: Attempt, wheels: Sequence[stages.Wheel]) -> dict[str, object]:
    """Return what was true of this run and isn't part of the wheel: times, host, isolation."""
    one, plan, host = attempt.one, attempt.one.plan, attempt.one.plan.host
    return {
        "version": 1,
        "subjects": [{"name": wheel.filename, "sha256": wheel.sha256} for wheel in wheels],
        "recipe": plan.recipe,
        "fingerprint": plan.inputs.fingerprint,
        "label": plan.label,
        "source": {"url": plan.pin.url, "ref": plan.pin.ref, **plan.pin.identity()},
        "built": int(attempt.world.clock()),
        "attempt": attempt.space.attempt,
        "isolation": {
            "level": attempt.level.level,
            "path": str(attempt.space.inside) if attempt.level.fixed_path else None,
            "why": attempt.level.reason,
        },
        "host": {"machine": host.machine, "cores": host.cores, "memory": host.memory_bytes},
        "jobs": plan.jobs,
        "gate": {
            name: {**_fields(account.gate), "cache": _fields(account.cache)}
            for name, account in attempt.accounts.items()
        },
        "units": json.loads(gated.history(attempt.world).export(plan.inputs.fingerprint[:12])),
        "compressor": pack.compressor(),
        "recipe-file": one.loaded.path.name,
    }
