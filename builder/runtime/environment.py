"""An environment as it is found: its interpreter, what is installed in it, and what its own Python tells."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.errors import HostError, UsageError
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from builder.audit.target import Capability

__all__ = ["Answer", "Environment", "Package", "open_at"]

_PROBE = Path(__file__).with_name("probe.py")

#: An import of a large package from a cold disk takes most of a minute; more than this is a hang.
ASK_S = 300.0
_MOST_BYTES = 16 << 20

#: What a name and a version may consist of ("Names and normalization", "Version specifiers"): both become words of commands
#: to copy, and a folder in an image may be called anything.
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[\w.!+-]+", re.ASCII)

#: Caches of what is compiled at run time: an import makes folders there, and nothing is to be left behind.
_CACHES = (
    "FLASHINFER_WORKSPACE_BASE",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "TRITON_HOME",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed distribution: its normalised name, its version, the folder with its modules, and that of its metadata."""

    name: str
    version: str
    site: Path
    info: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the environment's Python said: `told`, or `error` in one line with all of it in `trace`."""

    told: Mapping[str, Any]
    error: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment and what it is judged for.

    `variables` are those of the process that would serve: they are judged, too. `imports` are the modules that have to
    import, `wants` what packages want of the system where they run (ids of recipes' ``image.needs``), each with the package
    that says so. `root` stands before ``/proc``. A program that takes longer than `limit_s` is killed. `tell` is told what
    goes on.
    """

    python: Path
    prefix: Path
    sites: tuple[Path, ...]
    packages: Mapping[str, Package]
    variables: Mapping[str, str]
    target: Capability
    imports: tuple[str, ...] = ()
    wants: Mapping[str, str] = field(default_factory=dict)
    root: Path = field(default=Path("/"))
    limit_s: float = ASK_S
    tell: Callable[[str], None] = field(default=lambda _text: None)

    def has(self, name: str) -> bool:
        """Whether a distribution is installed."""
        return name in self.packages

    def version(self, name: str) -> str:
        """Return a distribution's version; empty where it isn't installed."""
        found = self.packages.get(name)
        return found.version if found else ""

    def find(self, path: str) -> Path | None:
        """Return a file or folder below the first folder of packages that has it."""
        return next((site / path for site in self.sites if (site / path).exists()), None)

    @property
    def quoted(self) -> str:
        """The interpreter as a word of a command."""
        return shlex.quote(str(self.python))

    @property
    def path(self) -> str:
        """PATH as its programs see it: its own folder first."""
        path, own = self.variables.get("PATH") or os.defpath, str(self.python.parent)
        return path if own in path.split(os.pathsep) else os.pathsep.join([own, path])

    def ask(self, question: str, *words: str) -> Answer:
        """Ask the environment's Python (`probe`), in a process of its own."""
        with self.scratch() as folder:
            argv: list[str | Path] = [self.python, "-I", "-B", _PROBE, question, *words]
            try:
                done = self.run(argv, folder)
            except HostError as error:  # can't be started, hangs, or never stops printing
                return Answer(told={}, error=error.summary, trace=error.cause)
        lines = done.out.strip().splitlines()
        with contextlib.suppress(ValueError, IndexError):
            told = json.loads(lines[-1])
            if isinstance(told, dict):
                trace = f"{done.err}\n{told.get('trace', '')}" if "error" in told else ""
                return Answer(told=told, error=str(told.get("error", "")).strip(), trace=trace)
        how = f"was ended by signal {-done.code}" if done.code < 0 else f"ended with {done.code}"
        last = done.err.strip().splitlines()[-1:]
        return Answer(told={}, error=f"python {how}{': ' if last else ''}{''.join(last)}", trace=done.err)

    def run(self, words: list[str | Path], cwd: Path) -> proc.Finished:
        """Run a program as the environment's Python would, in the folder `cwd`. Raises HostError as `proc.capture` does."""
        return proc.capture(
            words, env=self._served(cwd), cwd=cwd, timeout_s=self.limit_s, most_bytes=_MOST_BYTES, sweep=True
        )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder that is gone afterwards: in TMPDIR, where that can be written. Raises HostError ``no-scratch``."""
        given = self.variables.get("TMPDIR", "")
        try:
            made = tempfile.mkdtemp(prefix="spark-build-doctor-", dir=given if os.access(given, os.W_OK) else None)
        except OSError as error:
            raise HostError(
                "no-scratch",
                f"no folder for temporary files can be made: {error.strerror}",
                cause="each check runs in a folder of its own",
                help="name one with room that can be written",
                run=("df -h /tmp", "export TMPDIR=/var/tmp"),
            ) from None
        try:
            yield Path(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # a program that was left behind may still write there

    def _served(self, folder: Path) -> dict[str, str]:
        """Return the variables that a server would have, with home and caches in `folder`."""
        kept = {
            key: value
            for key, value in self.variables.items()
            if key not in _CACHES and not key.startswith(("PYTHON", "SPARK_BUILD_"))
        }
        return {"LANG": "C.UTF-8", **kept, "PATH": self.path, "HOME": str(folder), "TMPDIR": str(folder)}


def open_at(
    place: Path,
    *,
    variables: Mapping[str, str],
    target: Capability,
    tell: Callable[[str], None] = lambda _text: None,
    root: Path = Path("/"),
) -> Environment:
    """Return the environment that `place` names: its folder, or a ``python`` in it.

    Raises UsageError ``no-environment`` where there is none, ``no-interpreter`` where it has packages and no Python.
    """
    from builder.audit import installed  # noqa: PLC0415  # brings the readers

    sites = installed.folders(place)
    return Environment(
        python=_interpreter(place),
        prefix=installed.prefix(place),
        sites=sites,
        packages={one.name: one for site in reversed(sites) for one in _packages(site)},
        variables=variables,
        target=target,
        tell=tell,
        root=root,
    )


def _interpreter(place: Path) -> Path:
    if not place.is_dir():
        return place.absolute()
    for name in ("python", "python3"):
        if os.access(candidate := place.absolute() / "bin" / name, os.X_OK):
            return candidate
    raise UsageError(
        "no-interpreter",
        f"{place} has no bin/python",
        cause="much of an environment can only be told by its own Python",
        help="name a virtual environment, or the python that uses these packages",
        run=("spark-build doctor --env .venv", f"spark-build audit --env {place}"),
    )


def _packages(site: Path) -> Iterator[Package]:
    from builder.wheel.read import normalised  # noqa: PLC0415

    for info in sorted(site.glob("*.dist-info")):
        project, _dash, version = info.name.removesuffix(".dist-info").partition("-")
        if _NAME.fullmatch(project) and _VERSION.fullmatch(version):  # pip's half-removed ones begin with ~
            yield Package(name=normalised(project), version=version, site=site, info=info)
