"""What is said about a Python that couldn't do what it was asked for: by the catalogue where that knows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.host.checks import Finding
from builder.runtime import known

if TYPE_CHECKING:
    from builder.runtime.environment import Answer, Environment

__all__ = ["told"]

#: What an import says where there is no GPU, or no driver: then it can't be tried out, and nothing is known to be wrong.
#: Only the exception itself counts: packages say it on the way, too, and then fail for another reason.
_DRIVER = frozenset({"driver-library-missing"})

_NO_MODULE = re.compile(r"No module named '(?P<module>[\w.]+)'")


def told(environment: Environment, answer: Answer, *, check: str, what: str) -> Finding:
    """Return the finding on `what` was tried, which ended with the answer's error."""
    places = known.places(environment)
    last = known.in_text(answer.error.splitlines(), places)
    if last is not None and last.id in _DRIVER:
        return Finding(
            id=check,
            status="info",
            found=f"{what}: not tried out, since there is no driver here",
            why="the driver's library comes into a container with the GPU",
            failure=last.id,
        )
    diagnosis = last or known.in_text(answer.trace.splitlines(), places, ignored=_DRIVER)
    if diagnosis is not None:
        return known.of(diagnosis, check=check, found=f"{what}: {answer.error}")
    missing = _NO_MODULE.search(answer.error)
    return Finding(
        id=check,
        status="problem",
        found=f"{what}: {answer.error}",
        wanted="an import that works",
        why="a package that it needs isn't installed" if missing else "what serves here will fail in the same way",
        run=(
            f"uv pip check --python {environment.quoted}",
            f"{environment.quoted} -c '{what}'"
            if what.startswith("import ")
            else f"spark-build audit --env {environment.quoted}",
        ),
    )
