"""The kept workspace of a build that isn't done, entered as the build sees it: its namespace, its variables, its gate."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from builder import events
from builder.errors import UsageError
from builder.executor import diagnosis, excerpt, isolation, workspace
from builder.pipeline import build, gated
from builder.pipeline.attempt import Attempt
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.executor import hooks
    from builder.pipeline import builds
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.recipe.model import Output
    from builder.stages import Workspace

__all__ = ["Failed", "Room", "failed", "output_of", "room", "space_of"]

#: What a compiler's command looks like where a build tool prints it before it runs.
_COMMAND = re.compile(
    r"^(?:\S*/)?(?:[a-z0-9_]+-linux-gnu-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|nvcc|rustc|ar|ld)(?:-[\d.]+)?\s.*\s-(?:c|o)\s"
)
_MADE = re.compile(r"^make(?:\[\d+\])?: \*\*\* \[(?P<file>[^\s:]+):\d+: (?P<target>\S+)\] (?:Error|Killed)")
_FAILED = re.compile(r"^FAILED: (?:\[code=-?\d+\] )?\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A kept workspace that is open. `env` is all that a command in it gets, `project` the folder where the build runs."""

    space: Workspace
    bench: hooks.Bench
    env: Mapping[str, str]

    @property
    def project(self) -> str:
        """The project's folder as the build sees it."""
        return self.bench.project

    def wrap(self, argv: Sequence[str], *, cwd: str | None = None) -> list[str]:
        """Return the command that runs `argv` in the room, in folder `cwd` as the build sees it."""
        where = cwd or self.project
        return self.bench.isolation.wrap(list(argv), root=self.space.root, inside=self.space.inside, cwd=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The unit that failed first: what runs it again, in which folder below the workspace (None: the project's)."""

    name: str
    argv: tuple[str, ...]
    folder: Path | None = None


def space_of(old: builds.Attempt, world: World) -> Workspace:
    """Return the kept workspace of an attempt as it lies on the disk."""
    return workspace.kept(world.builds, old.fingerprint, old.recipe, fixed=False, attempt=old.attempt)


def output_of(one: Evaluation, old: builds.Attempt, asked: str | None) -> Output:
    """Return the output in question: the one asked for, else the one whose build was begun last."""
    names = [output.name for output in one.outputs]
    if asked and asked not in names:
        raise UsageError(
            "output-missing",
            f"{asked} isn't among the outputs of {old.recipe} {old.fingerprint[:10]}",
            cause=f"they are {', '.join(names)}",
        )
    begun = asked or next((name for name in reversed(_begun(old)) if name in names), names[0])
    return next(output for output in one.outputs if output.name == begun)


def _begun(old: builds.Attempt) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for line in (old.logs / "events.jsonl").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = events.parse_line(line)[1]
                if isinstance(event, events.PhaseStarted) and event.phase == "build" and event.output:
                    found.append(event.output)
    return found


@contextlib.contextmanager
def room(one: Evaluation, old: builds.Attempt, output: Output, world: World) -> Iterator[Room]:
    """Open the kept workspace of `old` as the build of `output` sees it; no other process builds there meanwhile.

    Compilers ask the gate, as in the build. Raises UsageError ``environment-gone``, HostError as `isolation.probe`, and
    MemoryStopped when the memory policy ended what ran there.
    """
    level = isolation.probe(world.env, wanted=world.isolation(one.request.isolation))
    fixed = level.fixed_path
    space = workspace.kept(world.builds, old.fingerprint, old.recipe, fixed=fixed, attempt=old.attempt)
    if not (space.venv / output.name / "bin" / "python").exists():
        raise UsageError(
            "environment-gone",
            f"the build environment of {output.name} isn't there: attempt {old.attempt} didn't come so far",
            run=(f"spark-build resume {old.fingerprint[:10]}",),
        )
    with contextlib.ExitStack() as held:
        names = (old.fingerprint, *(() if fixed else (f"recipe-{old.recipe}",)))
        for name in names:
            held.enter_context(world.house.build_lock(name, on_wait=lambda holder: _busy(old, holder)))
        (space.root / "tmp").mkdir(exist_ok=True)
        held.callback(shutil.rmtree, space.root / "tmp", ignore_errors=True)
        attempt = Attempt(one=one, world=world, space=space, sink=world.sink, level=level)
        build.give_nested(attempt)
        env = build.environment_of(attempt, output)
        gate = held.enter_context(gated.opened(attempt, output, env))
        whole = {**env, **gate.variables}
        yield Room(space=space, bench=build.bench_of(attempt, output, whole, gate), env=whole)


def _busy(old: builds.Attempt, holder: str) -> None:
    raise UsageError(
        "runs-already",
        f"the tree of {old.recipe} {old.fingerprint[:10]} is in use",
        cause=holder,
        run=(f"spark-build attach {old.fingerprint[:10]}",),
    )


def failed(old: builds.Attempt, space: Workspace) -> Failed | None:
    """Return the unit that failed first by the attempt's log, or None where the log names none that can be run alone."""
    log = old.logs / "build.log"
    lines = excerpt.plain(log.read_text(errors="replace").splitlines()) if log.is_file() else []
    step = diagnosis.failing_step(lines)
    for at, text in enumerate(lines):
        if _FAILED.match(text):
            folder = _ninja_folder(space.src, step.objects[0])
            if folder is not None:
                return Failed(name=step.objects[0], argv=("ninja", "-v", "-k", "1", *step.objects), folder=folder)
            command = lines[at + 1] if at + 1 < len(lines) else ""
            return Failed(name=step.objects[0], argv=("sh", "-c", command)) if command else None
        if (found := _MADE.match(text)) and (folder := _folder_of(space.src, found["file"])) is not None:
            argv = ("make", "--trace", "-f", found["file"], "VERBOSE=1", "V=1", found["target"])
            return Failed(name=found["target"], argv=argv, folder=folder)
    return _printed(lines, step)


def _folder_of(src: Path, file: str) -> Path | None:
    """Return the one folder below which a makefile lies by the name that make gave it; None where there are several."""
    name = PurePosixPath(file)
    found = [path for path in src.rglob(name.name) if path.parts[-len(name.parts) :] == name.parts]
    return found[0].parents[len(name.parts) - 1] if len(found) == 1 else None


def _ninja_folder(src: Path, target: str) -> Path | None:
    """Return the newest folder whose ninja file makes `target`."""
    found = sorted(src.rglob("build.ninja"), key=lambda file: -file.stat().st_mtime)
    for file in found:
        if any(line.startswith("build ") and target in line.split() for line in _build_lines(file)):
            return file.parent
    return None


def _build_lines(file: Path) -> Iterator[str]:
    with file.open(errors="replace") as stream:
        for line in stream:
            yield line.replace(":", " ", 1).replace("| ", " ", 1)


def _printed(lines: Sequence[str], step: diagnosis.Step) -> Failed | None:
    """Return the command that was printed last before the first error."""
    error = next((at for at, text in enumerate(lines) if excerpt.error_block([text])), len(lines))
    for at in range(min(error, len(lines) - 1), -1, -1):
        if _COMMAND.match(lines[at]):
            return Failed(name=step.source or lines[at].split()[-1], argv=("sh", "-c", lines[at]))
    return None
