"""The output of a build: which step failed, and what that one said last."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Steps"]

#: Lines of a step that are kept: an error of a compiler with what led to it. Of the step itself a line's length is shown.
_LAST, _WIDTH = 30, 100

#: BuildKit says before each line which step it belongs to, since they run at once: ``#7 0.312 text``, ``#7 ERROR: …``.
_KIT = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")

#: Podman and Buildah run one step after another, and say when one begins.
_STEP = re.compile(r"(\[\d+/\d+\] )?STEP \d+")

#: What engines say about a step that failed: all of its command again, and how it ended.
_ENDED = re.compile(
    r"(?:subprocess exited|(?:Error: )?(?:error )?building at STEP|time=|(?:ERROR: )?(?:failed to solve: )?(?:process \"|"
    r"executor failed)).*?(?:status|code):? (\d+)\D*$"
)

#: What is told first, if it was said: by install.sh, spark-build inside, most compilers and installers; by doctor; by apt.
_ERRORS = (
    re.compile(r"(?:.*?: )?(?:error|fatal error)(?:\[[\w-]+\])?: ", re.IGNORECASE),
    re.compile(r"\s*\N{HEAVY BALLOT X} "),
    re.compile(r"E: "),
)

#: What is no help to anybody: the digest of a step, tries that go on, and that chroot isolation saw a signal.
_NOISE = re.compile(r"sha256:[0-9a-f]{64}$|time=\".*level=(?:warning|error)|subprocess exited on killed")

#: BuildKit repeats all of the command before it says what went wrong.
_REPEATED = re.compile(r"ERROR: (?:failed to solve: )?(?:executor failed running \[.*\]|process \".*\" [\w ]+): ")

_KILLED, _FULL = "137", "No space left on device"


class Steps:
    """Takes the lines of a build as they come, passes them on to `tell`, and can say at the end what went wrong."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._of: dict[str, list[str]] = {}
        self._failed = ""

    def __call__(self, line: str) -> None:
        """Take the next line."""
        self._tell(line)
        step, text = "", line
        if kit := _KIT.match(line):
            step, text = kit[1], kit[2]
            if text.startswith("ERROR"):
                self._failed = step
        elif _STEP.match(line):
            self._of.pop("", None)
        kept = self._of.setdefault(step, [])
        kept.append(text)
        if len(kept) > _LAST:
            del kept[1]  # the first one is the step itself

    def failed(self, file: str, engine: str) -> BuildFailed:
        """Return the error of a build that ended here: the first error that the step told, the step, and its last lines."""
        said = self._of.get(self._failed, [])
        if self._failed:  # what BuildKit says about all of it stands apart from the steps
            said = [*said, *(line for line in self._of.get("", ()) if line.startswith("ERROR"))]
        lines, status = [], _KILLED if "subprocess exited on killed" in said else ""
        for line in said:
            if ended := _ENDED.match(line):
                status = status or ended[1]
            elif not _NOISE.match(line):
                lines.append(_REPEATED.sub("ERROR: ", line))
        step, rest = (lines[0], lines[1:]) if lines else ("", [])
        worst = next((line.strip() for error in _ERRORS for line in rest if error.match(line)), "")
        step = f"{step[: _WIDTH - 1]}…" if len(step) > _WIDTH else step
        shown = [worst, step, *(line for line in rest if line != worst)] if worst else [step, *rest]
        return BuildFailed(
            "image-build",
            f"{engine} couldn't build {file}" + (f": a step ended with {status}" if status else ""),
            cause="\n".join(shown).strip() or "it said nothing",
            help=_help("\n".join(rest), status),
        )


def _help(said: str, status: str) -> str:
    """Return what is to be done, where what was said doesn't say it."""
    if status == _KILLED:
        return "it was killed: mostly because there wasn't memory enough"
    if _FULL in said:
        return "where the engine keeps its images is full: remove those that nobody uses"
    return ""
