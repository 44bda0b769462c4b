"""Run truth: the wheel installed with what it declares and nothing else, imported, its tools and its recipe's checks run.

What is run is in an environment of its own, with the network cut where the machine allows that, in processes of its own: a
compiler that aborts takes nothing along. What can't be tried here is told as such, never as passed.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from builder import buildenv, proc
from builder.audit.rules import Rule, table
from builder.errors import HostError
from builder.values import dataclass
from builder.wheel.read import normalised, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.facts import Contents
    from builder.audit.rules import Finding, Severity
    from builder.executor.isolation import Isolation
    from builder.recipe.model import Check

__all__ = ["RULES", "Bench", "logged", "run"]

#: What one import, program or script may take.
TIMEOUT_S = 600.0

#: What a shell, and our launcher, add to a signal's number.
_SIGNALLED = 128

#: What one may print: more than anybody reads, less than a machine has memory.
_MOST_BYTES = 16 << 20

#: What uv says of a package that it may not fetch.
_LACKING = re.compile(r"[Bb]ecause (\S+) was not found in the cache")

#: What Python says where a library of the driver is missing: on a machine without a GPU, which says nothing about the wheel.
_DRIVER = re.compile(
    r"^(ImportError|OSError): (libcuda|libnvidia-ml|libcudadebugger)\.so\.1: cannot open shared object file",
    re.MULTILINE,
)

RULES = table(
    Rule(
        id="run-untried",
        severity="info",
        title="Not run",
        why="an import or a check that wasn't run proves nothing, good or bad",
        help="run it where the wheel can run: spark-build audit WHEEL --run (and --gpu on a machine with the GPU)",
    ),
    Rule(
        id="run-install",
        severity="error",
        title="It can't be installed with what it declares",
        why="nobody else can install it either",
        help="mend the requirements that its METADATA declares, or the index that is asked",
    ),
    Rule(
        id="run-import",
        severity="error",
        title="It can't be imported",
        why="a shared library links without complaint while symbols are missing; the import is what finds that",
        help="look at what was said: a missing module is an undeclared dependency, a missing symbol a library that differs",
    ),
    Rule(
        id="run-check",
        severity="error",
        title="A check of the recipe failed",
        why="the recipe says what this wheel has to be able to do",
        help="look at what was said; `spark-build recipes show NAME` has the check",
    ),
    Rule(
        id="run-tool",
        severity="error",
        title="A program that it brings along doesn't start",
        why="Triton skips a tool whose --version fails without a word, and fails much later",
        help="the file has to be the real program for this machine, not a wrapper script or another machine's",
    ),
    Rule(
        id="log-forbidden",
        severity="error",
        title="The build left something out",
        why="projects drop kernels with a message and go on; the wheel then lacks what it is built for",
        help="spark-build log shows the lines around it; mend what the project misses, or take the line out of the check",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where wheels are tried: the interpreter, uv's environment and index, a folder to work in, what cuts it off.

    `offline` takes only what is at hand, and what isn't makes the checks untried; `scripts` maps the names of the recipe's
    scripts to files. `gpu` runs what wants one. `target` (``12.1``) is told to scripts by ``SPARK_BUILD_TARGET``.
    """

    python: str
    env: Mapping[str, str]
    index_url: str | None
    scratch: Path
    isolation: Isolation
    scripts: Mapping[str, Path]
    target: str
    offline: bool = True
    gpu: bool = False


def logged(checks: Sequence[Check], log: tuple[Path, int, int] | None) -> Iterator[Finding]:
    """Yield the lines that a ``log`` check forbids in a part of the build's `log`: the file, where it begins and ends."""
    forbidden = [text for check in checks if check.kind == "log" for text in check.forbid]
    if not forbidden:
        return
    if log is None or not log[0].is_file():
        found = f"the build's log isn't kept any more; {len(forbidden)} texts were to be looked for in it"
        yield RULES["run-untried"].finding(found=found, severity="warning")
        return
    path, begin, end = log
    with path.open("rb") as stream:
        stream.seek(begin)
        while stream.tell() < end and (line := stream.readline().decode(errors="replace")):
            for text in forbidden:
                if text in line:
                    yield RULES["log-forbidden"].finding(found=line.strip()[:400], wanted=f"no line with “{text}”")


def run(contents: Contents, checks: Sequence[Check], bench: Bench, *, beside: Sequence[Path] = ()) -> list[Finding]:
    """Return what came of installing and running one wheel; `beside` are wheels of the same build that it may need.

    Raises HostError ``uv-failed`` when there can be no environment.
    """
    # What the recipe states and nobody ran is told; that a wheel can't be imported elsewhere is in its name.
    stated = any(_runs(check, bench) for check in checks)
    severity: Severity | None = "warning" if stated else None
    machine = parse_name(contents.filename).platform
    if machine != "any" and not machine.endswith(platform.machine()):
        found = f"it is for {machine}, this machine is {platform.machine()}"
        return [RULES["run-untried"].finding(found=found, severity=severity)]
    wanted = [one for check in checks if _runs(check, bench) for one in check.requires]
    venv = bench.scratch / "venv"
    told = buildenv.clean(
        venv,
        wanted,
        wheels={contents.project: contents.where, **{_project(path): path for path in beside}},
        python=bench.python,
        index_url=bench.index_url,
        env=bench.env,
        offline=bench.offline,
    )
    if told and bench.offline:
        lacking = ", ".join(dict.fromkeys(_LACKING.findall(told))) or _last(told)
        found = f"not run, since what it declares isn't at hand ({lacking}): spark-build audit {contents.project} --run"
        return [RULES["run-untried"].finding(found=found, severity=severity)]
    if told:
        return [RULES["run-install"].finding(found=_last(told, lines=12))]
    return [*_imports(contents, checks, bench), *_tools(contents, venv, bench), *_checks(checks, bench)]


def _project(wheel: Path) -> str:
    return normalised(parse_name(wheel.name).project)


def _runs(check: Check, bench: Bench) -> bool:
    return check.kind in {"import", "command", "script"} and (bench.gpu or not check.gpu)


def _imports(contents: Contents, checks: Sequence[Check], bench: Bench) -> Iterator[Finding]:
    """Import what the package is, unless the recipe says how; what nobody stated is no refusal."""
    if any(check.kind in {"import", "script"} for check in checks):
        return
    names = sorted({_top(file.path) for file in contents.files} - {""})
    for name in names:
        done = _python(["-c", f"import {name}"], bench)
        if not done.ok:
            yield _failed(RULES["run-import"], done, f"import {name}", severe=False)


def _top(path: str) -> str:
    """Return the package or module at the top of a wheel that a file makes importable, or an empty text."""
    first, _slash, rest = path.partition("/")
    name = first if rest == "__init__.py" else first.removesuffix(".py") if not rest and first.endswith(".py") else ""
    return name if name.isidentifier() and not name.startswith("_") else ""


def _tools(contents: Contents, venv: Path, bench: Bench) -> Iterator[Finding]:
    packages = next((venv / "lib").glob("python*/site-packages"))
    for file in contents.files:
        if file.program is None:
            continue
        done = _called([str(_inside(packages / file.path, bench)), "--version"], bench)
        if not done.ok or (file.program.version and file.program.version not in done.out):
            yield RULES["run-tool"].finding(
                file=file.path, found=_last(done.err or done.out) or f"ended with {done.code}", wanted="its version"
            )


def _checks(checks: Sequence[Check], bench: Bench) -> Iterator[Finding]:
    for check in checks:
        if check.kind not in {"import", "command", "script"}:
            continue
        name = check.id or check.run or check.script or ""
        if check.gpu and not bench.gpu:
            yield RULES["run-untried"].finding(found=f"{name}: wants a GPU", wanted="--gpu")
            continue
        if check.kind == "import":
            done = _python(["-c", check.run or ""], bench)
        elif check.kind == "script":
            script = bench.scripts[check.script or ""]
            (bench.scratch / "checks").mkdir(exist_ok=True)
            copy = bench.scratch / "checks" / script.name
            copy.write_bytes(script.read_bytes())
            done = _python([str(_inside(copy, bench))], bench)
        else:
            done = _called(shlex.split(check.run or ""), bench)
        if not done.ok:
            yield _failed(RULES["run-check"], done, name)
        elif check.matches and not re.search(check.matches, done.out + done.err, re.MULTILINE):
            yield RULES["run-check"].finding(found=f"{name}: {_last(done.out + done.err)}", wanted=check.matches)


def _failed(rule: Rule, done: proc.Finished, what: str, *, severe: bool = True) -> Finding:
    said = done.err.strip() or done.out.strip() or f"ended with {done.code}"
    if _DRIVER.search(said):
        return RULES["run-untried"].finding(found=f"{what}: it wants the driver ({_last(said)})")
    if done.code < 0 or done.code > _SIGNALLED:
        said += f"\nended by signal {-done.code if done.code < 0 else done.code - _SIGNALLED}"
    return rule.finding(found=f"{what}: {_last(said, lines=6)}", severity=None if severe else "warning")


def _last(text: str, *, lines: int = 1) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])[-1200:]


def _python(words: list[str], bench: Bench) -> proc.Finished:
    return _called([str(_inside(bench.scratch / "venv" / "bin" / "python", bench)), "-I", *words], bench)


def _inside(path: Path, bench: Bench) -> Path:
    """Return where the process sees a file of the scratch folder."""
    if not bench.isolation.fixed_path:
        return path
    return Path("/sb/trial") / path.relative_to(bench.scratch)


def _called(words: list[str], bench: Bench) -> proc.Finished:
    """Run `words` in the wheel's environment, which nothing of the caller's reaches."""
    root = _inside(bench.scratch, bench)
    home = root / "home"
    for folder in ("home", "home/work"):
        (bench.scratch / folder).mkdir(exist_ok=True)
    env = {
        "PATH": os.pathsep.join([str(root / "venv" / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SPARK_BUILD_TARGET": bench.target,
    }
    argv = bench.isolation.wrap(words, root=bench.scratch, inside=Path("/sb/trial"), cwd=str(home / "work"))
    try:
        return proc.capture(argv, env=env, cwd=bench.scratch, timeout_s=TIMEOUT_S, most_bytes=_MOST_BYTES, sweep=True)
    except HostError as error:  # can't be started, takes too long, or prints too much
        return proc.Finished(argv=tuple(argv), code=1, err=error.summary)
