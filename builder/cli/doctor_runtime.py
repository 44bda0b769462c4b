"""What ``spark-build doctor --env``, ``--image`` and ``--log`` do: an environment, an image, a server's log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import CheckRefused, HostError, UsageError
from builder.values import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from io import BufferedReader

    from builder.cli.app import App
    from builder.host.checks import Finding

__all__ = ["add_arguments", "asked", "run"]

#: Where the tool lies in a container, and how an environment is found there: as told, else where images of ours have it, by
#: the image's own variable, by PATH.
_THERE = "/mnt/spark-build"
_ENTER = """\
set -eu
env=${SPARK_BUILD_ENV:-}
[ -n "$env" ] || for one in /opt/venv "${VIRTUAL_ENV:-}" "$(command -v python3 || command -v python || true)"; do
  [ -z "$one" ] || [ ! -e "$one" ] || { env=$one; break; }
done
for python in "$env/bin/python" python3 "$env" python; do
  command -v "$python" >/dev/null || continue
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
  [ ! -e /usr/share/spark-build/manifest.json ] || set -- --manifest /usr/share/spark-build/manifest.json "$@"
  PYTHONPATH=/mnt/spark-build exec "$python" -B -m builder doctor --env "$env" --json "$@"
done
echo 'no Python 3.11 or newer in the image' >&2
exit 3
"""

_INSIDE_S = 900.0

_TARGET = "12.1"

#: How the words are used that need another.
_HOW = {
    "target": "spark-build doctor --env .venv --target 12.0",
    "manifest": "spark-build doctor --env .venv --manifest manifest.json",
    "engine": "spark-build doctor --image TAG --engine podman",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is looked at instead of this machine."""
    what = parser.add_argument_group("what is looked at instead of this machine")
    what.add_argument("--env", metavar="DIR", help="an environment, or a python in it: what would end a server there")
    what.add_argument(
        "--image", metavar="TAG", help="the environment in an image, with its variables; --env names it there"
    )
    what.add_argument("--log", metavar="FILE", help="what a server printed; `-` reads it from stdin")
    what.add_argument(
        "--manifest", metavar="FILE", help="with --env: a bundle's manifest.json, which says what it has to do"
    )
    what.add_argument("--target", metavar="C", help=f"the compute capability (default: {_TARGET}, a GB10)")
    what.add_argument(
        "--engine",
        choices=("docker", "podman", "buildah"),
        help="with --image: the engine (default: the first that is there)",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether it is about something else than this machine. Raises UsageError where words are about one and the other."""
    subjects = [name for name in ("env", "image", "log") if getattr(args, name) is not None]
    if empty := [name for name in subjects if not getattr(args, name)]:
        raise UsageError("usage", f"--{empty[0]} is empty", help="a variable that isn't set gives an empty word")
    of_machine = [name for name in ("python", "cuda", "recipe", "without", "wheelhouse") if getattr(args, name)]
    if subjects and of_machine:
        raise UsageError(
            "usage",
            f"--{of_machine[0]} is about this machine, and --{subjects[0]} about something else",
            help="look at them one after the other",
        )
    words = [name for name in ("target", "manifest", "engine") if getattr(args, name)]
    if words and not subjects:
        raise UsageError("usage", f"--{words[0]} is about an environment or an image", run=(_HOW[words[0]],))
    return bool(subjects)


def run(args: argparse.Namespace, app: App) -> int:
    """Print what was found; return 5 where there is a problem."""
    from builder.audit.target import Capability  # noqa: PLC0415

    if args.image and args.log:
        raise UsageError("usage", "--image doesn't go together with --log", help="look at them one after the other")
    if args.manifest and (args.image or not args.env):
        raise UsageError("usage", "--manifest is about --env", help="an image's own is found by itself")
    if args.engine and not args.image:
        raise UsageError("usage", "--engine is about --image", run=("spark-build doctor --image TAG --engine podman",))
    target = Capability.parse(args.target or _TARGET)
    if args.log:
        return _log(args, app)
    found = _image(args, app) if args.image else _environment(args, app, target)
    return _shown(found, args, app, good=f"{args.image or args.env}: nothing is known to be wrong", more={})


def _environment(args: argparse.Namespace, app: App, target: Any) -> list[Finding]:  # noqa: ANN401  # Capability
    from builder import runtime  # noqa: PLC0415
    from builder.runtime import environment  # noqa: PLC0415

    with _progress(args, app) as tell:
        there = environment.open_at(app.cwd / args.env, variables=app.env, target=target, tell=tell)
        imports, wants = _expected(args, app, tuple(there.packages))
        there = replace(there, imports=imports, wants=wants)
        return list(runtime.look(there))


def _expected(args: argparse.Namespace, app: App, packages: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return which modules have to import, and each need with a package that has it: by recipes, and by the manifest."""
    from builder import config  # noqa: PLC0415
    from builder.bundle import companions, manifest  # noqa: PLC0415
    from builder.recipe import find  # noqa: PLC0415

    settings, _mistakes = config.inspect(app.env, wheelhouse=None, cwd=app.cwd)
    known = companions.read(find.folders(settings.recipe_layers))
    imports = list(known.imports(packages))
    wants = {need.id: name for name in reversed(packages) for need in known.needs([name])}
    if args.manifest:
        facts = manifest.load(app.cwd / args.manifest)[0].facts
        imports += facts.get("run", {}).get("imports", ())
        wants = {str(need["id"]): "what the bundle holds" for need in facts.get("needs", ())} | wants
    return tuple(dict.fromkeys(imports)), wants


def _image(args: argparse.Namespace, app: App) -> list[Finding]:
    from builder.image.engine import Container  # noqa: PLC0415
    from builder.image.engines import find  # noqa: PLC0415
    from builder.runtime import portable  # noqa: PLC0415

    engine = find(app.env, wanted=args.engine, tell=_say(app))
    image = engine.inspect(args.image)
    with tempfile.TemporaryDirectory(prefix="spark-build-doctor-") as folder:
        tool = Path(folder, "tool")
        portable.write(tool)
        Path(folder).chmod(0o755)  # the image's user isn't this one
        app.stderr.write(f"looking into {args.image} with {engine.name}\n")
        app.stderr.flush()
        words = ["/bin/sh", "-c", _ENTER, "doctor", "--target", args.target or _TARGET]
        place = args.env or image.labels.get("spark-build.env", "")
        done = engine.run(
            args.image,
            words,
            Container(mounts={tool: _THERE}, env={"SPARK_BUILD_ENV": place} if place else {}, timeout_s=_INSIDE_S),
        )
    return _inside(done.out, done.err, args.image, image.machine)


def _inside(out: str, err: str, tag: str, machine: str) -> list[Finding]:
    """Return what a doctor in a container found. Raises HostError ``not-looked`` where it came to no findings."""
    told = _object(out)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return [_finding(row) for row in told["findings"]]
    detail = [*err.strip().splitlines(), *out.strip().splitlines()][-6:]
    problem = told.get("error")
    problem = problem if isinstance(problem, dict) else {}
    foreign = machine != os.uname().machine
    raise HostError(
        "not-looked",
        f"{tag} can't be looked into" + (f": {problem['summary']}" if problem.get("summary") else ""),
        cause=str(problem.get("cause") or "\n".join(detail) or "it said nothing"),
        help=f"it is for {machine}: look at it on such a machine"
        if foreign
        else "it needs a shell and Python 3.11 or newer; --env names an environment in it",
        run=(shlex.join(["spark-build", "doctor", "--image", tag, "--env", "/PATH/IN/IT"]),),
    )


def _object(out: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        told = json.loads(out[out.index("{") :])
        return told if isinstance(told, dict) else {}
    return {}


def _finding(row: dict[str, Any]) -> Finding:
    """Return a finding that an image told; the program there may be anything. Raises KeyError, TypeError and ValueError."""
    from builder.host.checks import Finding  # noqa: PLC0415

    texts = {key: str(row[key]) for key in ("id", "status", "found", "wanted", "why", "failure")}
    if texts["status"] not in {"ok", "info", "warn", "problem"} or not re.fullmatch(r"[a-z0-9.-]+", texts["id"]):
        raise ValueError(texts)
    return Finding(**texts, run=tuple(str(one) for one in row["run"]))  # type: ignore[arg-type]  # one of the four


def _log(args: argparse.Namespace, app: App) -> int:
    from builder.executor.diagnosis import UNKNOWN  # noqa: PLC0415
    from builder.runtime import known, logs  # noqa: PLC0415

    named: dict[str, str] = dict(UNKNOWN)
    if args.env:
        from builder.audit.target import Capability  # noqa: PLC0415
        from builder.runtime import environment  # noqa: PLC0415

        place, target = app.cwd / args.env, Capability.parse(args.target or _TARGET)
        named = known.places(environment.open_at(place, variables=app.env, target=target))
    with _stream(args.log, app) as stream, _progress(args, app) as tell:
        told = logs.read(stream, named, tell)
    if told.interrupted and args.json:
        raise told.interrupted
    good = f"{told.lines} lines, " + ("nothing that ends a server" if told.seen else "none of a known failure")
    if told.exception and not told.seen:
        good += f"; the last exception: {told.exception[:300]}"
    more = {"lines": told.lines, "exception": told.exception}
    code = _shown([logs.finding(one) for one in told.seen], args, app, good=good, more=more)
    if told.interrupted:
        raise told.interrupted
    return code


def _stream(name: str, app: App) -> contextlib.AbstractContextManager[BufferedReader]:
    if name == "-":
        return contextlib.nullcontext(sys.stdin.buffer)  # type: ignore[arg-type]  # a BufferedReader, unless somebody replaced it
    try:
        return (app.cwd / name).open("rb")
    except OSError as error:
        raise UsageError(
            "log-missing",
            f"{name} can't be read: {error.strerror}",
            help="name a file, or `-` for stdin",
            run=("docker logs CONTAINER 2>&1 | spark-build doctor --log -",),
        ) from None


def _shown(found: Sequence[Finding], args: argparse.Namespace, app: App, *, good: str, more: dict[str, object]) -> int:
    from builder.cli import doctor  # noqa: PLC0415
    from builder.ui import style  # noqa: PLC0415

    problems = sum(one.status == "problem" for one in found)
    warnings = sum(one.status == "warn" for one in found)
    if args.json:
        told = {"findings": [one.as_json() for one in found], "problems": problems, "warnings": warnings, **more}
        app.print_json(told)
    else:
        looks, width = style.of(app.stdout, app.env, args.color), style.columns(app.stdout)
        for line in doctor.rows(found, style=looks, width=width):
            app.print(looks.fit(line))
        said = doctor.count(problems, "problem") if problems else good
        tail = f", {doctor.count(warnings, 'warning')}" if warnings else ""
        app.print(looks.fit(f" {looks.paint(style.visible(said), 'bold')}{tail}"))
    return CheckRefused.exit_code if problems else 0


@contextlib.contextmanager
def _progress(args: argparse.Namespace, app: App) -> Iterator[Callable[[str], None]]:
    """Give what takes note of what is done now: on a terminal each step, since any may take long; else now and then."""
    from builder.ui import style  # noqa: PLC0415
    from builder.ui.audit import Progress  # noqa: PLC0415

    class AtOnce(Progress):
        """Shows every step."""

        FIRST_S = LIVE_S = 0.0

    looks = style.of(app.stderr, app.env, args.color)
    drawn = (AtOnce if looks.live else Progress)(app.stderr, looks, app.clock, style.columns(app.stderr))
    try:
        yield drawn.tell
    finally:
        drawn.done()


def _say(app: App) -> Callable[[str], Any]:
    return lambda text: app.stderr.write(f"{text}\n")
