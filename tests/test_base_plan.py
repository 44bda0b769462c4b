from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from builder import plan
from builder.plan import Known
from tests.base_kit import HOST, PIN, collect, stored

if TYPE_CHECKING:
    from pathlib import Path

    from builder.inputs import Inputs
    from builder.plan import Plan
    from builder.stages import Stored


def make(
    inputs: Inputs,
    *,
    outputs: tuple[str, ...] = ("tiny",),
    wheels: tuple[Stored, ...] = (),
    known: tuple[Known, ...] = (),
    force: bool = False,
) -> Plan:
    return plan.make(
        inputs=inputs,
        pin=PIN,
        host=HOST,
        label="sb20260101000000.g0000000000",
        outputs=outputs,
        stored=wheels,
        known=known,
        jobs=4,
        force=force,
    )


def older(created: float = 1.0, **changes: Any) -> Known:  # noqa: ANN401  # as collect
    made = collect(**changes)
    return Known(fingerprint=made.fingerprint, created=created, document=made.document)


def test_what_the_wheelhouse_has_is_a_hit(tmp_path: Path) -> None:
    inputs = collect()
    wheel = stored(tmp_path, inputs.fingerprint)
    made = make(inputs, wheels=(wheel,), known=(older(env={}),))
    assert [(step.output, step.decision, step.wheel) for step in made.steps] == [("tiny", "hit", wheel)]
    assert (made.hits, made.misses, made.nearest, made.changes) == ((wheel,), (), None, ())


def test_a_wheel_of_another_fingerprint_is_none(tmp_path: Path) -> None:
    made = make(collect(), wheels=(stored(tmp_path, "0" * 64),))
    assert (made.hits, made.misses) == ((), ("tiny",))


def test_each_output_is_decided_by_itself_in_the_order_asked(tmp_path: Path) -> None:
    inputs = collect()
    made = make(inputs, outputs=("extra", "tiny", "more"), wheels=(stored(tmp_path, inputs.fingerprint),))
    assert [(step.output, step.decision) for step in made.steps] == [
        ("extra", "miss"),
        ("tiny", "hit"),
        ("more", "miss"),
    ]
    assert made.misses == ("extra", "more")


def test_force_builds_what_is_there(tmp_path: Path) -> None:
    inputs = collect()
    same = Known(fingerprint=inputs.fingerprint, created=1.0, document=inputs.document)
    made = make(inputs, wheels=(stored(tmp_path, inputs.fingerprint),), known=(same,), force=True)
    assert (made.misses, made.hits) == (("tiny",), ())
    assert (made.nearest, made.changes) == (None, ()), "the same build is no reason"


def test_a_first_build_has_no_reasons() -> None:
    made = make(collect())
    assert (made.misses, made.nearest, made.changes) == (("tiny",), None, ())


def test_the_nearest_has_the_fewest_differences() -> None:
    far, near = older(env={}, torch=None), older(env={"SITE": "0"})
    for known in ((far, near), (near, far)):
        made = make(collect(), known=known)
        assert made.nearest == near.fingerprint
        assert [one.path for one in made.changes] == ["env.SITE"]


def test_of_equally_near_ones_the_newest_is_taken() -> None:
    """`known` comes newest first."""
    newer, elder = older(2.0, env={"SITE": "x"}), older(1.0, env={"SITE": "y"})
    assert make(collect(), known=(newer, elder)).nearest == newer.fingerprint


@pytest.mark.parametrize("count", [1, 3])
def test_a_plan_is_a_function_of_its_arguments(count: int) -> None:
    known = tuple(older(float(number), env={"SITE": str(number)}) for number in range(10, 10 + count))
    assert make(collect(), known=known) == make(collect(), known=known)
