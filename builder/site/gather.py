"""What a wheelhouse says, as the values that pages show. Reads the catalogue, records beside wheels, and attempts' files.

Whatever can't be read is left out: a page about a damaged wheel has to come, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.errors import SparkError, UsageError, scrubbed
from builder.index import listing
from builder.inputs import diff
from builder.site import model
from builder.site.html import safe_url
from builder.site.parts import LIMIT
from builder.site.story import Story, tell
from builder.values import replace
from builder.wheel import read
from builder.wheel.label import unlabelled
from builder.wheelhouse import channel, foreign, overview, statement
from builder.wheelhouse.publish import sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

__all__ = ["Source"]

#: Wheels on the first page.
_NEWEST = 8
#: Builds in a plot.
_POINTS = 60
#: What is read of the end of a log, to be shown and to look for the error in.
_TAIL_BYTES, _TAIL_LINES = 1 << 20, 200
_SUMMARY = 512


class Source:
    """A wheelhouse, and what the layers above tell of it. `url` is where clients find the index, if that is known.

    With `only` there is nothing on the pages but wheels of those channels, as in an export of them; where that is one, its
    index is at ``simple/``. What was read once is
    kept: a new one is made when the wheelhouse has changed.
    """

    def __init__(
        self, house: Wheelhouse, told: model.Told, *, url: str | None = None, only: Sequence[str] | None = None
    ) -> None:
        self.house = house
        self.told = told
        root = only[0] if only is not None and len(only) == 1 else channel.LOCAL
        self.index = model.Where(url=url.rstrip("/") if url else None, root=root)
        every = told.attempts()
        if only is not None and "local" not in only:  # who built what else is nothing to those who get the channel
            shown = {one.fingerprint for name in only for one in channel.members(house, name)}
            every = [one for one in every if one.fingerprint in shown]
        self.attempts = tuple(every)
        self._rows: dict[str | None, tuple[model.Row, ...]] = {}
        self._only = None if only is None else frozenset(only)

    # --- pages

    def front(self) -> model.Front:
        """Return what the first page shows."""
        newest = (self.row(one.sha256) for one in self.newest(_NEWEST))
        return model.Front(
            projects=self.projects(),
            channels=self.channels(),
            newest=tuple(row for row in newest if row),
            running=tuple(one for one in self.attempts if one.outcome == "running"),
            index=self.index,
        )

    def project(self, name: str) -> model.Project | None:
        """Return a project, or None where there is no wheel of it."""
        rows = self.rows(name)
        if not rows:
            return None
        metadata = self.house.metadata(rows[0].wheel.sha256)
        status = self.house.recall("project", name) or {}
        return model.Project(
            name=name,
            summary=_clipped(read.header(metadata, "Summary")),
            rows=rows,
            points=tuple(self.points(rows)),
            links=tuple(_links(metadata)),
            index=self.index,
            status=str(status.get("status", "active")),
            reason=str(status.get("reason", "")),
        )

    def wheel(self, sha256: str) -> model.Wheel | None:
        """Return all about a wheel, or None where there is none that is shown."""
        row = self.row(sha256)
        if row is None:
            return None
        stored = row.wheel
        metadata = self.house.metadata(sha256)
        inputs = self.house.inputs(stored.fingerprint) if stored.fingerprint else None
        record = self._record(stored.path)
        return model.Wheel(
            row=row,
            summary=_clipped(read.header(metadata, "Summary")),
            license=_clipped(read.header(metadata, "License-Expression") or read.header(metadata, "License")),
            requires=tuple(read.headers(metadata, "Requires-Dist")),
            links=tuple(_links(metadata)),
            findings=overview.findings(self.house, sha256) or _audit(record, stored.filename),
            inputs=inputs,
            record=statement.facts(record),
            kind=_kind(record),
            seal=self.told.seal(stored.path),
            claimed=foreign.kept(self.house, sha256) is not None,
            builder=_builder(record),
            before=self._before(row, inputs),
            attempt=next((one for one in self.attempts if _made(one, stored)), None),
            index=self.index,
        )

    def build(self, fingerprint: str) -> model.Build | None:
        """Return a build with the story of its newest attempt, or None where nothing is known of it."""
        mine = [one for one in self.attempts if one.fingerprint == fingerprint]
        if not mine:
            return None
        one = mine[0]
        try:
            with (one.logs / "events.jsonl").open(encoding="utf-8", errors="replace") as stream:
                story = tell(stream)
        except OSError:
            story = Story()
        logs = _logs(one.logs, [phase.name for phase in story.phases])
        error: tuple[str, ...] = ()
        if one.outcome in {"failed", "killed"} and one.phase in logs:
            error = tuple(self.told.first_error(logs[one.phase]))
        return model.Build(
            one=one,
            story=story,
            earlier=tuple(mine[1:]),
            logs={name: lines[-_TAIL_LINES:] for name, lines in logs.items()},
            error=error,
            wheels=tuple(
                row
                for project in overview.projects_of(self.house, fingerprint)
                for row in self.rows(project)
                if row.wheel.fingerprint == fingerprint
            ),
        )

    def channels(self) -> tuple[overview.Channel, ...]:
        """Return the channels; `local` is always there."""
        found = overview.channels(self.house)
        return tuple(one for one in found if self._only is None or one.name in self._only)

    def selection(self, name: str) -> model.Selection | None:
        """Return what a channel lists, in its order; None where there is no such channel."""
        if self._only is not None and name not in self._only:
            return None
        try:
            listed = channel.members(self.house, name)
        except UsageError:
            return None
        if name == channel.LOCAL:  # everything there is: what came last is what people look for
            listed = listed[::-1]
        gone = listing.superseded(listed[::-1] if name == channel.LOCAL else listed)
        shown = [row for one in listed[:LIMIT] if (row := self.row(one.sha256)) is not None]
        rows = [replace(row, newer=row.newer or "" if row.wheel.sha256 in gone else None) for row in shown]
        return model.Selection(
            name=name,
            wheels=listed,
            rows=tuple(rows),
            history=tuple(self._history(name)),
            index=self.index,
        )

    # --- their parts

    def newest(self, limit: int) -> tuple[Stored, ...]:
        """Return the published wheels that came last, the newest first."""
        if self._only is None:
            return overview.newest(self.house, limit)
        return tuple(row.wheel for row in self.rows() if row.wheel.state == "published")[:limit]

    def rows(self, project: str | None = None) -> tuple[model.Row, ...]:
        """Return the wheels that pages show, of all projects or of one, newest first."""
        if project not in self._rows:
            self._rows[project] = self._read(project)
        return self._rows[project]

    def row(self, sha256: str) -> model.Row | None:
        """Return one wheel as lists show it, or None where there is none that is shown."""
        project = overview.project_of(self.house, sha256)
        rows = self.rows(project) if project else ()
        return next((row for row in rows if row.wheel.sha256 == sha256), None)

    def _read(self, project: str | None) -> tuple[model.Row, ...]:
        audited, channels = overview.audited(self.house, project), overview.memberships(self.house, project)
        newer: dict[tuple[str, ...], list[tuple[str, frozenset[str]]]] = {}
        rows = []
        for one in reversed(self.house.list_wheels(project=project, include_unpublished=True)):
            listed = tuple(name for name in channels.get(one.sha256, ()) if self._only is None or name in self._only)
            if one.state == "unpublished" or (self._only is not None and not listed):
                continue
            key = _same_place(one)
            row = model.Row(
                wheel=one,
                channels=listed,
                audited=audited.get(one.sha256),
                reason=self._reason(one),
                # Where one of its channels still offers it, nothing has taken its place.
                newer=next((sha256 for sha256, others in newer.get(key, ()) if others.issuperset(listed)), None),
            )
            rows.append(row)
            if key and one.state == "published":
                newer.setdefault(key, []).append((one.sha256, frozenset(listed)))
        return tuple(rows)

    def points(self, rows: Sequence[model.Row]) -> Iterator[model.Point]:
        """Yield what building each of the wheels took, oldest first, as far as that was recorded."""
        built = {row.wheel.fingerprint: row for row in reversed(rows) if row.wheel.fingerprint}
        first: dict[str, model.Attempt] = {}
        for one in self.attempts:
            if one.outcome == "ok" and one.fingerprint in built:
                first.setdefault(one.fingerprint, one)
        for fingerprint, row in list(built.items())[-_POINTS:]:
            if fingerprint in first:
                found = first[fingerprint]
                yield model.Point(
                    fingerprint=fingerprint,
                    version=row.wheel.version,
                    started=found.started,
                    ms=found.built_ms.get(row.wheel.output, found.ms),
                    peak_bytes=found.peak_bytes,
                )

    def projects(self) -> tuple[overview.Project, ...]:
        """Return every project, by name."""
        found = overview.projects(self.house)
        return found if self._only is None else self._counted(found)

    def _counted(self, found: Iterable[overview.Project]) -> tuple[overview.Project, ...]:
        """Return projects with the counts of what is shown of them."""
        rows: dict[str, list[model.Row]] = {}
        for row in self.rows():
            rows.setdefault(row.wheel.project, []).append(row)
        return tuple(
            replace(
                one,
                version=mine[0].wheel.version,
                wheels=len(mine),
                size=sum(row.wheel.size for row in mine),
                newest=mine[0].wheel.created,
            )
            for one in found
            if (mine := rows.get(one.name))
        )

    def _reason(self, one: Stored) -> str:
        if one.state == "published":
            return ""
        return str((self.house.recall("withheld", one.sha256) or {}).get("reason", ""))

    def _record(self, wheel: Path) -> dict[str, Any]:
        try:
            return statement.load(sidecar(wheel))[1]
        except (OSError, ValueError):
            return {}

    def _before(self, row: model.Row, inputs: Mapping[str, Any] | None) -> model.Before | None:
        rows = self.rows(row.wheel.project)
        at = next(number for number, one in enumerate(rows) if one.wheel.sha256 == row.wheel.sha256)
        tail = _tags(row.wheel.filename)
        older = next((one for one in rows[at + 1 :] if _tags(one.wheel.filename)[1:] == tail[1:]), None)
        if older is None:
            return None
        was = self.house.inputs(older.wheel.fingerprint) if older.wheel.fingerprint else None
        changes = None
        if was is not None and inputs is not None:
            told = self.told.reasons(diff(was, dict(inputs)))
            changes = tuple((words, tuple(every)) for words, every in told)
        return model.Before(row=older, changes=changes, findings=overview.findings(self.house, older.wheel.sha256))

    def _history(self, name: str) -> Iterator[model.History]:
        told = getattr(channel, "history", None)
        for one in told(self.house, name) if told and name != channel.LOCAL else ():
            yield model.History(number=one.number, time=one.time, wheels=len(one.wheels))


def _made(one: model.Attempt, stored: Stored) -> bool:
    return bool(stored.fingerprint) and one.fingerprint == stored.fingerprint and one.outcome == "ok"


def _same_place(one: Stored) -> tuple[str, ...]:
    """Return what a newer build of the same thing shares with it; nothing for a wheel without our label."""
    plain = unlabelled(one.version)
    return (one.project, plain, *_tags(one.filename)) if plain is not None else ()


def _tags(filename: str) -> tuple[str, ...]:
    try:
        name = read.parse_name(filename)
    except SparkError:
        return ("", "", "", "")
    return (name.build or "", name.python, name.abi, name.platform)


def _links(metadata: bytes) -> Iterator[tuple[str, str]]:
    """Yield the places that a project names, of those that may be linked to."""
    home = read.header(metadata, "Home-page")
    told = [("Homepage", home)] if home else []
    for text in read.headers(metadata, "Project-URL"):
        word, _comma, url = text.partition(",")
        told.append((word.strip(), url.strip()))
    seen: set[str] = set()
    for word, url in told:
        if (safe := safe_url(url)) and safe not in seen and len(seen) < 8:  # noqa: PLR2004  # a line of them
            seen.add(safe)
            yield word[:40], safe


def _clipped(text: str | None) -> str:
    return text if text and len(text) <= _SUMMARY else f"{text[:_SUMMARY]}…" if text else ""


def _audit(record: Mapping[str, Any], filename: str) -> dict[str, Any] | None:
    """Return what the audit found when the wheel was built, out of its record."""
    match record:
        case {"predicate": {"runDetails": {"byproducts": list(every)}}}:
            for one in every:
                match one:
                    case {"name": str(name), "annotations": dict(report)} if name == f"{filename}.audit":
                        return report
    return None


def _kind(record: Mapping[str, Any]) -> str:
    match record:
        case {"predicateType": str(kind)}:
            return kind
    return "flat" if record else ""


def _builder(record: Mapping[str, Any]) -> str:
    match record:
        case {"predicate": {"runDetails": {"builder": {"id": str(name)}}}}:
            return name
    return ""


def _logs(folder: Path, order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the end of each phase's log, in the order of the phases; passwords in URLs are left out, as everywhere."""
    found = {}
    places = {name: at for at, name in enumerate(order)}
    for path in sorted(folder.glob("*.log"), key=lambda path: (places.get(path.stem, len(order)), path.name)):
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - _TAIL_BYTES))
                lines = scrubbed(stream.read().decode(errors="replace")).splitlines()
        except OSError:
            continue
        found[path.stem] = tuple(lines[1:] if size > _TAIL_BYTES else lines)
    return found
