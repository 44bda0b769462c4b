"""How the history of a channel is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from builder.ui.style import clean

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from builder.wheelhouse.past import Promotion

__all__ = ["history_json", "history_lines"]


def history_json(
    past: Sequence[Promotion], called: Mapping[str, str], there: Container[str]
) -> list[dict[str, object]]:
    """Return a history for programs; `called` has the file names, `there` what wasn't removed."""
    return [
        {
            "number": one.number,
            "time": one.time,
            "how": one.how,
            "back_to": one.back,
            "wheels": [
                {"filename": called.get(sha256), "sha256": sha256, "gone": sha256 not in there} for sha256 in one.wheels
            ],
        }
        for one in past
    ]


def history_lines(past: Sequence[Promotion], called: Mapping[str, str], there: Container[str]) -> Iterator[str]:
    """Yield a line for each change, and below it what came and what went by it."""
    before: tuple[str, ...] = ()
    for one in past:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one.time))
        how = f"rollback to {one.back}" if one.back else one.how
        yield f"{one.number:>4}  {moment}  {how}: {len(one.wheels)} wheel{'' if len(one.wheels) == 1 else 's'}"
        for mark, some, other in (("+", one.wheels, before), ("-", before, one.wheels)):
            for sha256 in some:
                if sha256 not in other:
                    gone = "" if sha256 in there else "  (gone)"
                    yield f"      {mark} {clean(called.get(sha256, sha256))}{gone}"
        before = one.wheels
