"""A wheel from elsewhere: judged, and when it is one of ours, filed under what it says of its making."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_json
from builder.errors import CheckRefused, UsageError
from builder.values import dataclass, replace
from builder.wheel import read
from builder.wheelhouse.publish import sidecar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.stages import Stored, Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Foreign", "add", "judge"]

_LABEL = re.compile(r"sb\d{14}\.g([0-9a-f]{10})(r\d+)?(\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A wheel that was found good. `fingerprint` is empty and `inputs` None for one that spark-build didn't make."""

    wheel: Wheel
    fingerprint: str
    recipe: str
    inputs: Mapping[str, Any] | None


def add(house: Wheelhouse, one: Foreign) -> tuple[Stored, bool]:
    """File `one` in channel ``local``; return it as stored, and whether the same bytes were there already.

    Raises UsageError ``name-taken`` where its name stands for other bytes.
    """
    before = {
        stored.sha256 for stored in house.catalogue.stored("sha256=? AND state<>'unpublished'", (one.wheel.sha256,))
    }
    (stored,) = house.publish(
        [one.wheel],
        fingerprint=one.fingerprint,
        recipe=one.recipe,
        inputs=one.inputs,
        provenance=_provenance(one, house.clock()),
    )
    return stored, bool(before)


def judge(path: Path) -> Foreign:
    """Return the wheel at `path` when it is what it says.

    Raises UsageError ``wheel-missing``; CheckRefused as `wheel.read.check` does, and ``label-lies`` when it carries a label
    that isn't of the inputs in it.
    """
    if not path.is_file():
        raise UsageError("wheel-missing", f"there is no file {path}")
    read.check(path)
    wheel = read.inspect(path)
    found = _LABEL.match(wheel.version.partition("+")[2])
    inputs = _inputs(path)
    if found is None and inputs is None:
        return Foreign(wheel=wheel, fingerprint="", recipe="", inputs=None)
    fingerprint = sha256_json(inputs) if inputs is not None else ""
    if found is None or inputs is None or found[1] != fingerprint[:10]:
        raise CheckRefused(
            "label-lies",
            f"{wheel.filename} carries a label that isn't of the inputs in it",
            cause=f"its inputs give {fingerprint[:10]}" if inputs is not None else "it holds no inputs",
            help="it was changed after it was built; build it here instead",
        )
    recipe = str(inputs.get("name", ""))
    return Foreign(
        wheel=replace(wheel, output=_output(wheel, inputs)), fingerprint=fingerprint, recipe=recipe, inputs=inputs
    )


def _inputs(path: Path) -> dict[str, Any] | None:
    with zipfile.ZipFile(path) as archive:
        name = f"{read.dist_info(archive, path.name)}/spark-build/inputs.json"
        if name not in archive.namelist():
            return None
        try:
            document = json.loads(archive.read(name))
            sha256_json(document)
        except (ValueError, TypeError) as error:
            raise CheckRefused("wheel-damaged", f"{path.name}: {name} can't be read", cause=str(error)) from error
    if not isinstance(document, dict):
        raise CheckRefused("wheel-damaged", f"{path.name}: {name} is no object")
    return document


def _output(wheel: Wheel, inputs: Mapping[str, Any]) -> str:
    """Return the recipe's name for the output that this wheel is."""
    for output in inputs.get("requires") or {}:
        if read.normalised(str(output)) == wheel.project:
            return str(output)
    return wheel.output


def _provenance(one: Foreign, now: float) -> dict[str, Any]:
    """Return the record that came beside the wheel when it is about these bytes, and that it was added."""
    added = {"added": {"time": int(now), "filename": one.wheel.filename}}
    try:
        record = json.loads(sidecar(one.wheel.path).read_bytes())
        if record["subject"]["sha256"] == one.wheel.sha256:
            return {**record, **added}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"version": 1, "fingerprint": one.fingerprint, "recipe": one.recipe, **added}
