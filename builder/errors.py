"""Every way in which spark-build gives up, with its exit code.

::

    SparkError                      70  a bug in spark-build, when raised as itself
    ├── BuildFailed                  1  the project's own build failed
    ├── UsageError                   2  the command line
    │   ├── RecipeError              2  a recipe, or several
    │   └── PatchDrift               2  a patch no longer applies
    ├── HostError                    3  this machine can't: compiler, disk, permissions, file system, lock
    ├── SourceError                  4  a source is missing, unreachable or not what its hash says
    ├── CheckRefused                 5  a wheel was built and must not be handed out
    ├── WheelhouseError              6  the wheelhouse or an index is damaged
    ├── MemoryStopped                7  stopped by the memory policy; resumable
    └── Interrupted            130/143  Ctrl-C or SIGTERM; a build is resumable

`FOUND_WORK` (10) is no error: ``--plan`` ends with it when something would be built.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `--help` does without `typing`
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = [
    "FOUND_WORK",
    "BuildFailed",
    "CheckRefused",
    "HostError",
    "Interrupted",
    "MemoryStopped",
    "PatchDrift",
    "RecipeError",
    "SourceError",
    "SparkError",
    "UsageError",
    "WheelhouseError",
    "is_secret",
    "scrubbed",
]

FOUND_WORK = 10

#: What names of secrets have in them.
_SECRET = "token|key|secret|passw|auth|sig|credential"  # noqa: S105  # names, no secret


def scrubbed(text: str) -> str:
    """Return `text` without what is secret in the URLs that it names: logins, and values of a query such as ``?token=``.

    An SSH user is no secret (``ssh://git@host``).
    """
    if "://" not in text:
        return text
    import re  # noqa: PLC0415  # few texts have any

    text = re.sub(r"(\bssh://[^/\s:@]+):[^/\s'\"]+(?=@)", r"\1", text)
    text = re.sub(r"(?<!\bssh://)(?<=://)[^/\s'\"?#]+@", "", text)
    named = rf"[?&;][\w.-]*(?:{_SECRET})[\w.-]*="
    return re.sub(rf"({named})[^&\s'\"#]+", r"\1***", text, flags=re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret, as far as a name can tell."""
    import re  # noqa: PLC0415  # few texts have any

    return re.search(_SECRET, name, re.IGNORECASE) is not None


class SparkError(Exception):
    """What went wrong, why, and what to type next.

    `code` is a stable slug (``ref-missing``) that scripts may match on; `summary` is one line without a full stop;
    `cause` says what was found and what was wanted; `help` says how to go on in words; `run` holds complete commands.
    None of them holds the secrets of a URL.
    """

    exit_code: ClassVar[int] = 70

    def __init__(
        self,
        code: str,
        summary: str,
        *,
        cause: str = "",
        help: str = "",
        run: tuple[str, ...] = (),
    ) -> None:
        super().__init__(scrubbed(summary))
        self.code = code
        self.summary = scrubbed(summary)
        self.cause = scrubbed(cause)
        self.help = scrubbed(help)
        self.run = tuple(map(scrubbed, run))

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints for this error."""
        return {
            "code": self.code,
            "exit": self.exit_code,
            "summary": self.summary,
            "cause": self.cause,
            "help": self.help,
            "run": list(self.run),
        }


class BuildFailed(SparkError):
    """The project's own build failed; the workspace is kept."""

    exit_code = 1


class UsageError(SparkError):
    """The command line asks for something that doesn't exist or doesn't fit together."""

    exit_code = 2


class RecipeError(UsageError):
    """One or more recipes are wrong; `cause` lists every mistake, one a line."""


class PatchDrift(UsageError):
    """A patch whose conditions hold applies neither forwards nor backwards."""


class HostError(SparkError):
    """The machine can't do it: compiler floor, full disk, unwritable folder, file system, lock time-out."""

    exit_code = 3


class SourceError(SparkError):
    """A source is missing, unreachable, or its bytes aren't those that the hash names."""

    exit_code = 4


class CheckRefused(SparkError):
    """A check refused a wheel or a host."""

    exit_code = 5


class WheelhouseError(SparkError):
    """The wheelhouse or an index is damaged."""

    exit_code = 6


class MemoryStopped(SparkError):
    """The memory policy ended the build; it can be resumed."""

    exit_code = 7


class Interrupted(SparkError):
    """A signal ended the run. Who keeps what is there so far calls `kept`."""

    exit_code = 130

    def __init__(self, signum: int, *, run: tuple[str, ...] = ()) -> None:
        name = {2: "Ctrl-C", 15: "SIGTERM", 1: "SIGHUP"}.get(signum, f"signal {signum}")
        super().__init__("interrupted", f"stopped by {name}", run=run)
        self.exit_code = 128 + signum  # type: ignore[misc]  # the one error whose exit code depends on its cause

    def kept(self) -> None:
        """Say that the build goes on from where it was stopped."""
        self.summary += "; what was built so far is kept"
