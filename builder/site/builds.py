"""The list of builds, and the page of one: phases, units, memory, log, and what to type where it failed.

The page of a running build says where its events come from; the script follows them. Parts that it changes have ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import parts, plot, words
from builder.site.frame import Place, page
from builder.site.html import h, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.events import UnitEnded
    from builder.site.html import Child, Html
    from builder.site.model import Attempt, Build
    from builder.site.story import Story

__all__ = ["every", "render"]

#: A curve of fewer states says nothing.
_CURVE = 3
_STOPPED = {
    "failed": "This attempt failed",
    "killed": "This attempt was killed",
    "interrupted": "This attempt was interrupted",
}


def every(found: Sequence[Attempt]) -> bytes:
    """Return the page that lists all attempts, newest first."""
    place = Place("builds/")
    running = [one for one in found if one.outcome == "running"]
    ended = [one for one in found if one.outcome != "running"]
    nothing = h("p", "Nothing was built in this wheelhouse yet.") if not found else None
    return page(
        place,
        "Builds",
        h("h1", "Builds"),
        nothing,
        parts.section("running", "Running", parts.attempts(place, running)) if running else None,
        parts.section("ended", words.count(len(ended), "attempt"), parts.attempts(place, ended)) if ended else None,
        section="builds/",
    )


def render(build: Build) -> bytes:
    """Return the page of a build."""
    one, story = build.one, build.story
    place = Place(f"builds/{one.fingerprint}/")
    live = one.outcome == "running"
    title = h(
        "div",
        h("p", h("a", "Builds", href=place.to("builds/")), class_="crumb"),
        h("h1", one.recipe, " ", h("span", one.version, class_="version")),
        h(
            "div",
            words.mark(one.outcome),
            h("span", f"attempt {one.attempt}", class_="tag dim"),
            class_="tags",
            id="outcome",
        ),
        class_="title-block",
    )
    body: list[Child] = [
        title,
        _failure(build),
        _now(story) if live else None,
        _wheels(place, build),
        parts.facts(_facts(build), class_="facts pairs"),
        _notes(story),
        _phases(story, live=live),
        _memory(build),
        _units(story),
        _logs(build, live=live),
        _earlier(place, build),
    ]
    told = place.file(f"api/builds/{one.fingerprint}/events")
    where = f"{told}?attempt={one.attempt}&after={story.lines}" if live else None
    return page(
        place, f"{one.recipe} {one.version}, build {one.fingerprint[:10]}", *body, section="builds/", live=where
    )


def _facts(build: Build) -> list[tuple[Child, Child]]:
    one, story = build.one, build.story
    return [
        ("Started", words.when(one.started)),
        ("Took", words.duration(one.ms) if one.ms is not None else None),
        ("Peak memory", words.bytes_(one.peak_bytes) if one.peak_bytes else None),
        ("Outputs", ", ".join(one.outputs)),
        ("Label", h("code", one.label)),
        ("Fingerprint", h("code", one.fingerprint, class_="break")),
        ("Isolation", story.isolation),
    ]


def _failure(build: Build) -> Html | None:
    """Return the card of a build that came to no good end: what failed, and the command to type next."""
    one = build.one
    if one.outcome not in _STOPPED:
        return None
    where = f" in phase {one.phase}" if one.phase else ""
    why = h("p", h("code", one.code), " ", one.summary) if one.code else h("p", one.summary) if one.summary else None
    broken = [h("li", h("code", unit.name), " ", _unit_words(unit)) for unit in build.story.broken]
    ref = one.fingerprint[:10]
    lines = [(f"spark-build resume {ref}", "Go on where it stopped: what was compiled is kept")]
    if one.outcome == "failed":
        lines += [
            (f"spark-build log {ref} --failed", "See all that the phase printed"),
            (f"spark-build shell {ref}", "Look around in its build tree and environment"),
        ]
    return h(
        "section",
        h("h2", f"{_STOPPED[one.outcome]}{where}", id="failure-title"),
        why,
        h("ul", broken, class_="plain") if broken else None,
        h("pre", "\n".join(build.error), tabindex="0", role="group", aria_label="The first error", class_="text error")
        if build.error
        else None,
        parts.commands(lines),
        class_="notice bad failure",
        id="failure",
        aria_labelledby="failure-title",
    )


def _unit_words(unit: UnitEnded) -> str:
    told = [
        f"exit {unit.code}" if unit.code else "",
        f"needed {words.bytes_(unit.peak_bytes)}" if unit.peak_bytes else "",
    ]
    return ", ".join(filter(None, told))


def _now(story: Story) -> Html:
    """Return what is going on at this moment; the script keeps it up to date."""
    state = story.state
    done, edges = (state.done, state.edges) if state else (0, 0)
    used = words.bytes_(state.used_bytes) if state else "0 B"
    items = [
        ("now-phase", "Phase", story.phases[-1].name if story.phases else "starting"),
        ("now-jobs", "Jobs", f"{state.jobs} of {state.slots}" if state else "0"),
        ("now-memory", "Memory", f"{used} of {words.bytes_(state.ceiling_bytes)}" if state else "0 B"),
        ("now-waiting", "Waiting", str(state.waiting) if state else "0"),
    ]
    pairs = [h("div", h("dt", name), h("dd", value, id=key)) for key, name, value in items]
    running = [
        h("li", h("code", str(unit[0])), " ", words.bytes_(unit[1])) for unit in (state.running if state else ())
    ]
    return parts.section(
        "now",
        "Right now",
        h("progress", value=done, max=max(edges, 1), id="now-progress", aria_label="Progress"),
        h(
            "p",
            f"{done:,} of {edges:,} steps" if edges else "The build tool hasn't said how much there is to do.",
            id="now-steps",
            class_="about",
        ),
        h("dl", pairs, class_="facts now"),
        h("ul", running, id="now-running", class_="plain flow", aria_label="Heaviest units that run"),
        h("p", "As of when this page was made. ", h("a", "Load it again", href=""), id="now-still", class_="about"),
    )


def _wheels(place: Place, build: Build) -> Html | None:
    return parts.section("wheels", "Wheels", parts.wheels(place, build.wheels)) if build.wheels else None


def _notes(story: Story) -> Html | None:
    if not story.notes:
        return None
    return parts.note(
        "warn", words.count(len(story.notes), "warning"), h("ul", [h("li", text) for text in story.notes])
    )


def _phases(story: Story, *, live: bool) -> Html | None:
    if not story.phases and not live:
        return None
    rows = []
    for one in story.phases:
        state = words.mark(
            "ok" if one.status in {"ok", "cached"} else "killed" if one.ms is None and not live else one.status
        )
        name = f"{one.name} {one.output}" if one.output else one.name
        done = "done" if one.status in {"ok", "cached"} else None
        sign = h("span", h("span", "✓", aria_hidden="true"), f" {done}", class_="mark ok") if done else state
        rows.append((name, sign, words.duration(one.ms) if one.ms is not None else "", one.text))
    timed = [(one.name, one.status, one.ms) for one in story.phases if one.ms]
    told = ", ".join(f"{name} {words.duration(ms)}" for name, _status, ms in timed)
    return parts.section(
        "phases",
        "Phases",
        plot.phases(timed, f"Phases: {told}") if len(timed) > 1 else None,
        parts.table(
            "Phases in their order", ("Phase", "State", "Took", "What it says"), rows, right=(2,), kind="phases"
        ),
    )


def _memory(build: Build) -> Html | None:
    story = build.story
    if len(story.samples) < _CURVE:
        return None
    peak = max(story.samples, key=lambda one: one.used_bytes)
    limit = max(one.ceiling_bytes for one in story.samples)
    told = (
        f"At most {words.bytes_(peak.used_bytes)}, {words.duration(1000 * peak.s)} after the start; "
        f"the compilers may take {words.bytes_(limit)}."
    )
    points = [(one.s, float(one.used_bytes)) for one in story.samples]
    whole = max(points[-1][0], (build.one.ms or 0) / 1000)
    drawn = plot.area("ran", "Memory of all compilers while it ran", told, points, limit, whole)
    return parts.section("memory", "Memory while it ran", h("figure", drawn, h("figcaption", told)))


def _units(story: Story) -> Html | None:
    if not story.units:
        return None
    told = [words.count(story.units, "unit")]
    told += [f"{story.hits:,} from the compile cache"] if story.hits else []
    told += [f"{story.requeues:,} run again with more memory"] if story.requeues else []
    told += [f"{story.failed:,} failed"] if story.failed else []

    def rows(units: Sequence[UnitEnded]) -> list[tuple[Child, ...]]:
        return [
            (
                h("code", one.name),
                words.bytes_(one.peak_bytes),
                words.duration(one.ms),
                words.duration(one.wait_ms) if one.wait_ms else "",
                str(one.attempts),
            )
            for one in units
        ]

    head = ("Unit", "Peak memory", "Took", "Waited", "Runs")
    return parts.section(
        "units",
        "Compiler runs",
        h("p", ", ".join(told), class_="about"),
        parts.table("Those that needed most memory", head, rows(story.heaviest), right=(1, 2, 3, 4)),
        parts.folded(
            "Those that took longest",
            parts.table("Those that took longest", head, rows(story.slowest), right=(1, 2, 3, 4)),
        ),
    )


def _logs(build: Build, *, live: bool) -> Html | None:
    if not build.logs and not live:
        return None
    last = build.one.phase if build.one.phase in build.logs else next(reversed(list(build.logs)), None)
    made: list[Html] = []
    for name, lines in build.logs.items():
        text = "\n".join(lines) or "Nothing was printed."
        # A paragraph of several MiB helps nobody: a line may be as long as a compiler's command.
        box = h(
            "pre",
            text[-(1 << 16) :],
            tabindex="0",
            role="group",
            aria_label=f"End of the log of {name}",
            class_="text log",
            data_phase=name,
        )
        made.append(parts.folded(f"{name}, last {words.count(len(lines), 'line')}", box, shown=name == last))
    tail = (
        h(
            "pre",
            tabindex="0",
            role="group",
            aria_label="What the build prints",
            class_="text log",
            id="tail",
            hidden=True,
        )
        if live
        else None
    )
    whole = parts.code(f"spark-build log {build.one.fingerprint[:10]}", "command that shows the whole log")
    return parts.section("log", "Log", tail, *made, h("p", "All of it, where the wheelhouse is:", class_="does"), whole)


def _earlier(place: Place, build: Build) -> Html | None:
    if not build.earlier:
        return None
    rows = [
        (
            f"{one.attempt}",
            words.mark(one.outcome),
            words.duration(one.ms) if one.ms is not None else "",
            one.summary or (f"in {one.phase}" if one.phase else ""),
            words.when(one.started),
        )
        for one in build.earlier
    ]
    del place
    return join(
        parts.section(
            "earlier",
            "Attempts before",
            parts.table("Attempts before this one", ("Attempt", "End", "Took", "Why", "Started"), rows, right=(2,)),
        )
    )
