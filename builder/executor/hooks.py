"""Calling a project's build backend (PEP 517), cut off, in its own environment, with everything that it prints kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from builder import buildenv, proc
from builder.errors import BuildFailed, HostError
from builder.events import Printed
from builder.executor.excerpt import first_error
from builder.stages import Built
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.events import Sink
    from builder.executor.isolation import Isolation
    from builder.stages import EnvLock, Workspace

__all__ = ["Bench", "build_wheel", "dynamic_requires"]

#: How a program says that it looked for a host and there was no network.
_REACHED = re.compile(
    r"(?:Could not resolve host:?|Failed to resolve|unable to access|Temporary failure in name resolution.*?|"
    r"Failed to establish a new connection.*?|Name or service not known.*?|Network is unreachable.*?|"
    r"Could not connect to|urlopen error|error sending request for url|Connection error while fetching|"
    r"failed to fetch|Could not fetch URL|dns error.*?)[\s:('\"]*([a-z]+://[^\s'\")]+|[a-z0-9-]+(?:\.[a-z0-9-]+)+)?",
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?:https?|git|ssh)://[^\s'\"<>)]+")

_SHOWN = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and how the hooks of one output run. `log` gets every line; `timeout_s` bounds one hook call."""

    space: Workspace
    output: str
    subdir: str
    env: Mapping[str, str]
    isolation: Isolation
    log: Path
    sink: Sink
    config_settings: Mapping[str, str | list[str]]
    timeout_s: float | None = None

    @property
    def project(self) -> str:
        """The project's folder as the build sees it."""
        folder = self.space.inside / "src"
        return str(folder if self.subdir in {"", "."} else folder / self.subdir)


def dynamic_requires(bench: Bench, lock: EnvLock) -> tuple[str, ...]:
    """Return what the backend wants beyond its static requirements and the lock doesn't hold.

    Raises BuildFailed like `build_wheel`.
    """
    asked = _call(bench, "get_requires_for_build_wheel")
    held = {one.name: one.version for one in lock.packages}
    return tuple(text for text in asked if not _satisfied(str(text), held))


def _satisfied(requirement: str, held: Mapping[str, str]) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415  # not on the hit path

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return False
    version = held.get(buildenv.normalised(wanted.name))
    return version is not None and wanted.specifier.contains(version, prereleases=True)


def build_wheel(bench: Bench) -> Built:
    """Return the wheel that the backend leaves in ``dist/<output>``, which is emptied first.

    Raises BuildFailed: ``build-failed`` with the first real error, ``network-reached`` with what it wanted,
    ``build-timeout``, ``backend-missing``, ``wheel-count`` when it leaves none or several.
    """
    import shutil  # noqa: PLC0415  # not on the hit path

    here = bench.space.dist / bench.output
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    peaks: list[int] = []
    _call(bench, "build_wheel", peaks=peaks, wheel_directory=str(bench.space.inside / "dist" / bench.output))
    wheels = sorted(here.glob("*.whl"))
    if len(wheels) != 1:
        raise BuildFailed(
            "wheel-count",
            f"the backend of {bench.output} left {len(wheels) or 'no'} wheel{'s' if len(wheels) > 1 else ''}, wanted one",
            cause=", ".join(wheel.name for wheel in wheels),
            help="each wheel is an [[output]] of its own in the recipe, with the `path` of its project",
            run=_next(bench),
        )
    return Built(output=bench.output, path=wheels[0], peak_bytes=max(peaks, default=0))


def _call(bench: Bench, hook: str, *, peaks: list[int] | None = None, **arguments: Any) -> Any:  # noqa: ANN401  # JSON
    """Call one hook and return what it returns."""
    import pyproject_hooks  # noqa: PLC0415  # not on the hit path

    lines: list[str] = []

    def on_line(text: str) -> None:
        lines.append(text)
        del lines[: -_SHOWN * 10]
        bench.sink.emit(Printed(phase="build", text=text))

    def runner(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        words = bench.isolation.wrap(
            list(cmd), root=bench.space.root, inside=bench.space.inside, cwd=cwd or bench.project
        )
        done = proc.run(
            words,
            env={**bench.env, **(extra_environ or {})},
            cwd=bench.space.root,
            log=bench.log,
            on_line=on_line,
            timeout_s=bench.timeout_s,
        )
        if peaks is not None:
            peaks.append(done.peak_bytes)
        if not done.ok:
            raise _failed(bench, hook, lines, done.code)

    file = bench.space.src / bench.subdir / "pyproject.toml"
    backend = buildenv.backend(file.read_bytes() if file.is_file() else None)
    caller = pyproject_hooks.BuildBackendHookCaller(
        bench.project,
        backend.name,
        list(backend.path) or None,
        runner=runner,
        python_executable=str(bench.space.inside / "venv" / bench.output / "bin" / "python"),
    )
    try:
        return getattr(caller, hook)(**arguments, config_settings=dict(bench.config_settings) or None)
    except pyproject_hooks.BackendUnavailable as error:
        raise BuildFailed(
            "backend-missing",
            f"the build backend {backend.name} of {bench.output} can't be imported",
            cause=(error.traceback or str(error)).strip()[-2000:],
            help="build.requires-add of the recipe brings in what it lacks",
            run=_next(bench),
        ) from error
    except (pyproject_hooks.HookMissing, pyproject_hooks.UnsupportedOperation) as error:
        summary = f"the build backend {backend.name} of {bench.output} builds no wheel"
        raise BuildFailed("backend-unfit", summary, cause=str(error), run=_next(bench)) from error
    except HostError as error:
        if error.code != "tool-timeout":
            raise
        raise BuildFailed(
            "build-timeout",
            f"the build of {bench.output} was stopped after {bench.timeout_s:.0f} s",
            cause="\n".join(lines[-5:]),
            help="resources.build-timeout of the recipe is the bound; what was built so far is kept",
            run=_next(bench),
        ) from error


def _failed(bench: Bench, hook: str, lines: Sequence[str], code: int) -> BuildFailed:
    """Return why a hook failed, by what it printed."""
    wanted = reached(lines) if bench.isolation.level != "none" else None
    if wanted is not None:
        return BuildFailed(
            "network-reached",
            f"the build of {bench.output} reached for the network{f': {wanted}' if wanted else ''}",
            cause="\n".join(first_error(lines)),
            help="a build reads only what is pinned: give the file or package to it by the recipe "
            "(build.requires-add for Python packages, build.env for a switch that turns the download off)",
            run=_next(bench),
        )
    how = f"killed by signal {code - 128}" if code > 128 else f"exit {code}"  # noqa: PLR2004  # as shells count
    return BuildFailed(
        "build-failed",
        f"the build of {bench.output} failed in {hook} ({how})",
        cause="\n".join(first_error(lines)),
        help="its tree is kept: the same command goes on there",
        run=_next(bench),
    )


def reached(lines: Sequence[str]) -> str | None:
    """Return what a build looked for in the network, empty when it doesn't say; None when it didn't look."""
    for number, line in enumerate(lines):
        if _REACHED.search(line):
            near = " ".join(lines[max(0, number - 3) : number + 2])
            url = _URL.search(line) or _URL.search(near)
            named = _REACHED.search(line)
            return url[0].rstrip(".,;:") if url else (named[1] or "" if named else "")
    return None


def _next(bench: Bench) -> tuple[str, ...]:
    ref = bench.space.root.name[:10]
    return (f"spark-build log {ref} --failed",)
