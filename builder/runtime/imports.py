"""What has to import, imported: together in one process, and one by one where that process dies of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.host.checks import Finding
from builder.runtime import failing
from builder.runtime.environment import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.runtime.environment import Environment

__all__ = ["check"]


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what failed, and in one finding what worked."""
    good = []
    for name, answer in _tried(environment):
        if answer.error:
            yield failing.told(environment, answer, check="import", what=f"import {name}")
        else:
            good.append(name)
    if good:
        yield Finding(id="import", status="ok", found=", ".join(good))


def _tried(environment: Environment) -> Iterator[tuple[str, Answer]]:
    names = environment.imports
    if not names:
        return
    environment.tell(f"importing {', '.join(names)}")
    together = environment.ask("import", *names)
    if not together.error:
        yield from ((name, _answer(together, name)) for name in names)
        return
    if len(names) == 1:
        yield names[0], together
        return
    for name in names:
        environment.tell(f"importing {name}")
        alone = environment.ask("import", name)
        yield name, alone if alone.error else _answer(alone, name)


def _answer(answer: Answer, name: str) -> Answer:
    told = answer.told["imported"][name]
    return Answer(told=told, error=told.get("error", "").strip(), trace=told.get("trace", ""))
