"""Calling a project's build backend (PEP 517), cut off, in its own environment, with everything that it prints kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder import buildenv, proc, torchguard
from builder.errors import BuildFailed, HostError
from builder.events import Printed
from builder.executor import diagnosis
from builder.stages import Built
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.events import Sink, UnitEnded
    from builder.executor.isolation import Isolation
    from builder.stages import EnvLock, Nested, Workspace

__all__ = ["Bench", "build_wheel", "dynamic_requires"]

_SHOWN = 400

#: Backends that build in a temporary folder unless told another one, which would take all objects of a killed build with it.
_TEMPORARY = {"scikit_build_core.build", "mesonpy"}

#: Where they build instead, in the project.
_FOLDER = ".spark-build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and how the hooks of one output run. `log` gets every line, `heard` too; `timeout_s` bounds one hook call.

    `units` gives the compiler runs that ended so far, for telling what a failed one needed; `nested` is what the build was
    given back, for telling which recipe key gives what it reached for.
    """

    space: Workspace
    output: str
    subdir: str
    env: Mapping[str, str]
    isolation: Isolation
    log: Path
    sink: Sink
    config_settings: Mapping[str, str | list[str]]
    recipe: str = ""
    heard: Callable[[str], None] = lambda _line: None
    units: Callable[[], Sequence[UnitEnded]] = tuple
    nested: Sequence[Nested] = ()
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

    Raises BuildFailed: ``build-failed`` with the first real error, ``network-reached`` with what it wanted, ``nested-ref``,
    ``build-timeout``, ``backend-missing``, ``torch-changed``, ``wheel-count`` when it leaves none or several.
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
        bench.heard(text)
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
            sweep=True,
        )
        if peaks is not None:
            peaks.append(done.peak_bytes)
        if not done.ok:
            raise _failed(bench, hook, lines, done.code)

    file = bench.space.src / bench.subdir / "pyproject.toml"
    text = file.read_bytes() if file.is_file() else None
    backend = buildenv.backend(text)
    caller = pyproject_hooks.BuildBackendHookCaller(
        bench.project,
        backend.name,
        list(backend.path) or None,
        runner=runner,
        python_executable=str(bench.space.inside / "venv" / bench.output / "bin" / "python"),
    )
    try:
        made = getattr(caller, hook)(**arguments, config_settings=_settings(bench, backend.name, text) or None)
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
    if reason := torchguard.changed(bench.space.venv / bench.output):
        raise BuildFailed(
            "torch-changed",
            f"the build of {bench.output} put another torch into its environment",
            cause=reason,
            help="what it made is compiled against a torch that nobody pinned, and isn't published; build.env or a patch of "
            "the recipe keeps its installer away, --force starts anew",
            run=(*_next(bench), f"spark-build recipe {bench.recipe} --force"),
        )
    return made


def _settings(bench: Bench, backend: str, pyproject: bytes | None) -> dict[str, str | list[str]]:
    """Return the config settings, with a folder that a later attempt finds again, unless project or user chose one."""
    given = dict(bench.config_settings)
    chosen = any(key.rpartition(".")[2].replace("_", "-") in {"build-dir", "builddir"} for key in given)
    if chosen or backend not in _TEMPORARY or "SKBUILD_BUILD_DIR" in bench.env or b"build-dir" in (pyproject or b""):
        return given
    folder = bench.space.src / bench.subdir / _FOLDER
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")  # else some would add to the version that the tree isn't clean
    return given | {"build-dir": _FOLDER}


def _failed(bench: Bench, hook: str, lines: Sequence[str], code: int) -> BuildFailed:
    """Return why a hook failed, by what it printed and what its units needed."""
    return diagnosis.failed(
        lines,
        output=bench.output,
        recipe=bench.recipe,
        hook=hook,
        code=code,
        ref=bench.space.root.name[:10],
        cut_off=bench.isolation.level != "none",
        units=bench.units(),
        nested=bench.nested,
    )


def _next(bench: Bench) -> tuple[str, ...]:
    ref = bench.space.root.name[:10]
    return (f"spark-build log {ref} --failed",)
