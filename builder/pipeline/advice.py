"""What an error says to type next, made to ask for the very source that the failed command asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from builder.errors import PatchDrift, SourceError
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.pipeline.world import World
    from builder.stages import Request

__all__ = ["exact", "source_words"]


@contextlib.contextmanager
def exact(request: Request, world: World) -> Iterator[None]:
    """Let what an error calls ``fetch NAME`` or ``patch refresh NAME ID`` be about what `request` asks for or is held to."""
    try:
        yield
    except PatchDrift as error:
        bare = f"spark-build patch refresh {request.recipe} "
        error.run = tuple(one + source_words(request) if one.startswith(bare) else one for one in error.run)
        raise
    except SourceError as error:
        bare = f"spark-build fetch {request.recipe}"
        found = {bare, f"{bare} --relock"}.intersection(error.run)
        if found:
            line = _line(request, world)
            error.run = tuple(line + one.removeprefix(bare) if one in found else one for one in error.run)
        raise


def _line(request: Request, world: World) -> str:
    import re  # noqa: PLC0415  # only for messages
    import shlex  # noqa: PLC0415

    words = ["spark-build", "fetch", request.recipe]
    if request.locked:  # all other words are in the lock
        words.append("--locked" if "--locked" in world.words else "--frozen")
        given = re.search(r"^--lock[=\n](.+)", "\n".join(world.words), re.MULTILINE)
        words += ["--lock", given[1]] if given else []
        return shlex.join(words)
    from builder.ui.plan import command  # noqa: PLC0415  # only for the message

    bare = replace(request, jobs=None, isolation="auto", offline=False, relock=False, force=False)
    words[3:] = shlex.split(command(bare))[3:]
    return shlex.join(words)


def source_words(request: Request) -> str:
    """Return the flags of ``patch refresh`` that name the source of `request`, each with a blank before it."""
    from builder.ui.plan import command  # noqa: PLC0415  # only for the message

    bare = replace(request, python=None, jobs=None, isolation="auto", env={}, relock=False, force=False)
    return "".join(f" {word}" for word in command(bare).split(" ")[3:])
