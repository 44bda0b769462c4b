"""What pages show, as values. `gather` makes them of a wheelhouse, the other modules make HTML of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.inputs import Change
    from builder.site.story import Story
    from builder.stages import Stored
    from builder.wheelhouse.overview import Audited, Channel
    from builder.wheelhouse.overview import Project as Counted

__all__ = [
    "Attempt",
    "Before",
    "Build",
    "Front",
    "History",
    "Point",
    "Project",
    "Row",
    "Seal",
    "Selection",
    "Told",
    "Wheel",
    "Where",
]


class Attempt(Protocol):
    """One attempt at a build, as `builder.pipeline.builds` reads it."""

    @property
    def fingerprint(self) -> str:
        """That of its inputs."""

    @property
    def recipe(self) -> str:
        """The recipe's name."""

    @property
    def version(self) -> str:
        """What is built: a version, or a ref."""

    @property
    def label(self) -> str:
        """What stands behind the version of its wheels."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its wheels."""

    @property
    def attempt(self) -> int:
        """Its number, from 1."""

    @property
    def logs(self) -> Path:
        """The folder of its events and logs."""

    @property
    def started(self) -> float:
        """When it began, in seconds."""

    @property
    def outcome(self) -> str:
        """``ok``, ``failed``, ``interrupted``, ``killed`` or ``running``."""

    @property
    def ms(self) -> int | None:
        """How long it took; None where its end is missing."""

    @property
    def code(self) -> str | None:
        """The error's slug."""

    @property
    def summary(self) -> str:
        """The error in a sentence."""

    @property
    def phase(self) -> str | None:
        """Where it stopped."""

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that its compilers held at once."""

    @property
    def built_ms(self) -> Mapping[str, int]:
        """How long building each output took."""


class Told(Protocol):
    """What pages need of the layers above: who built what, and words for it."""

    def attempts(self) -> Sequence[Attempt]:
        """Return every attempt whose events are there, newest first."""

    def reasons(self, changes: Sequence[Change], /) -> Sequence[tuple[str, Sequence[Change]]]:
        """Return differences of two inputs documents in words, each with the changes that it tells of."""

    def seal(self, wheel: Path, /) -> Seal:
        """Return how far the signature holds of the record beside a wheel."""

    def first_error(self, lines: Sequence[str], /) -> Sequence[str]:
        """Return the first real error in what a build printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is known of a record's signature. `text` says whose it is, or what is wrong.

    ``good`` is by one of those who may sign, ``sound`` by a key of which nobody said whose it is, ``bad`` of other bytes or
    by somebody else, ``unknown`` there, and couldn't be checked.
    """

    kind: Literal["none", "good", "sound", "bad", "unknown"] = "none"
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where clients find the index: below `url`, None where that isn't known. That at ``simple/`` is channel `root`'s."""

    url: str | None = None
    root: str = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A wheel in a list. `reason` says why it is withheld; `newer` is the sha256 of the build that has taken its place.

    In a channel's list that may be empty: another has taken its place there.
    """

    wheel: Stored
    channels: tuple[str, ...] = ()
    audited: Audited | None = None
    reason: str = ""
    newer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One build in a plot: `started` in seconds; None for what wasn't measured."""

    fingerprint: str
    version: str
    started: float
    ms: int | None
    peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The first page."""

    projects: tuple[Counted, ...]
    channels: tuple[Channel, ...]
    newest: tuple[Row, ...]
    running: tuple[Attempt, ...]
    index: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project with all its wheels, newest first. `status` is that of PEP 792."""

    name: str
    summary: str
    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    links: tuple[tuple[str, str], ...]
    index: Where
    status: str = "active"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The wheel before, and how the inputs differ: None where those of one of them aren't known."""

    row: Row
    changes: tuple[tuple[str, tuple[Change, ...]], ...] | None
    findings: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """All that is known about one wheel.

    `findings` and `inputs` are the documents, `record` what the record beside it says (`statement.facts`), `kind` what sort
    of record that is; `claimed` marks a wheel from elsewhere, whose record and inputs are its maker's claims.
    """

    row: Row
    summary: str
    license: str
    requires: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    findings: Mapping[str, Any] | None
    inputs: Mapping[str, Any] | None
    record: Mapping[str, Any]
    kind: str
    seal: Seal
    claimed: bool
    builder: str
    before: Before | None
    attempt: Attempt | None
    index: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build: its newest attempt with its story, and the attempts before.

    `logs` are the last lines of each phase's log, `error` is the first real error in that of the phase which failed.
    """

    one: Attempt
    story: Story
    earlier: tuple[Attempt, ...]
    logs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    error: tuple[str, ...] = ()
    wheels: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A change of a channel: when, and how many wheels it listed from then on."""

    number: int
    time: float
    wheels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A channel: all of its `wheels` in its order, and `rows` of those that are shown. `local` begins with the newest."""

    name: str
    wheels: tuple[Stored, ...]
    rows: tuple[Row, ...]
    history: tuple[History, ...]
    index: Where
