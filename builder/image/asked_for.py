"""What the command line says of a final image, and that nothing of it is read as something else in a file of an image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import UsageError, scrubbed
from builder.image import memory, words
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.audit.target import Capability

__all__ = ["Asked", "check", "epoch_of"]

#: How variables end that hold what nobody else should read.
_SECRET = re.compile(
    r"(^|_)(TOKEN|PAT|SECRET|PASS(WORD|WD|PHRASE)?|API_?KEY|(ACCESS|PRIVATE|SECRET)_KEY|CREDENTIALS?)$", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: The last second that a year of four digits has.
_LATEST = 253402300799
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says. `apt` are packages of the distribution, `accept` findings of the audit that may be.

    `peak_bytes` is the heaviest unit that the closure's projects compile; `epoch` stands for the time of the build.
    """

    base: str
    capability: Capability
    env: Mapping[str, str] = field(default_factory=dict)
    apt: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    peak_bytes: int = memory.UNIT_BYTES
    epoch: int | None = None


def epoch_of(text: str) -> int | None:
    """Return the seconds that SOURCE_DATE_EPOCH says; None where it is empty. Raises UsageError ``image-epoch``."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,12}", text) and int(text) <= _LATEST:
        return int(text)
    raise UsageError(
        "image-epoch",
        f"SOURCE_DATE_EPOCH={text!r} is no time",
        help="wanted seconds since 1970, or no such variable: then it is the time of the newest wheel of ours",
        run=("export SOURCE_DATE_EPOCH=$(date +%s)",),
    )


def check(asked: Asked) -> None:
    """Raise UsageError ``image-…`` for what would be read as something else in a file of an image, and for secrets."""
    if not words.is_reference(asked.base):
        raise UsageError(
            "image-base",
            f"{asked.base!r} names no image",
            help="wanted REGISTRY/NAME:TAG, best with its digest: NAME:TAG@sha256:…",
            run=("spark-build image NAME -t TAG --base docker.io/library/debian:13",),
        )
    for package in asked.apt:
        if not _PACKAGE.fullmatch(package):
            raise UsageError(
                "image-apt", f"{package!r} is no package of Debian or Ubuntu", help="wanted NAME or NAME=VERSION"
            )
    for name, value in asked.env.items():
        _check_variable(name, value)
    for word in asked.accept:
        if not word.isprintable() or "<<" in word:
            raise UsageError("image-accept", f"{word!r} can't be in a Dockerfile", help="a reason is one line of text")


def _check_variable(name: str, value: str) -> None:
    if name == "PATH":
        raise UsageError(
            "image-env",
            "PATH begins with the image's own environment, which the build and the server are started from",
            help="programs of packages are in it already; a package of the distribution comes by --apt",
        )
    if not _VARIABLE.fullmatch(name) or not value.isprintable():
        raise UsageError(
            "image-env",
            f"{name}={value!r} is no variable",
            help="wanted NAME=VALUE, in one line",
            run=("spark-build image NAME -t TAG --env VLLM_LOGGING_LEVEL=INFO",),
        )
    if (value and _SECRET.search(name)) or scrubbed(value) != value:
        raise UsageError(
            "image-secret",
            f"{name} would be readable by everybody who has the image",
            help="give it to the container when it starts, from the environment of who starts it",
            run=(f"docker run --env {name} TAG",),
        )
