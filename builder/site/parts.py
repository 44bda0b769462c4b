"""Pieces that several pages have: lists of wheels and builds, facts, code to copy, tables, what device code is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import words
from builder.site.html import h, join, joined
from builder.wheel.label import unlabelled
from builder.wheel.read import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.site.frame import Place
    from builder.site.html import Child, Html
    from builder.site.model import Attempt, Row
    from builder.wheelhouse.overview import Audited

__all__ = [
    "attempts",
    "bar",
    "code",
    "commands",
    "facts",
    "folded",
    "made_for",
    "note",
    "section",
    "state",
    "table",
    "verdict",
    "version",
    "wheels",
]

#: Rows of a list; what is beyond is in the index.
LIMIT = 500


def section(name: str, title: Child, *body: Child, more: Child = None) -> Html:
    """Return a part of a page with its heading."""
    head = h("h2", title, id=f"{name}-title")
    return h(
        "section",
        h("div", head, more, class_="head") if more else head,
        *body,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def facts(pairs: Iterable[tuple[Child, Child]], *, class_: str = "facts") -> Html:
    """Return names and values; those without a value are left out."""
    return h("dl", [h("div", h("dt", name), h("dd", value)) for name, value in pairs if value], class_=class_)


def code(text: Child, what: str, *, kind: str = "") -> Html:
    """Return lines to be copied; `what` says to those who don't see them which."""
    button = h("button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy {what}")
    return h(
        "div",
        h("pre", h("code", text)),
        button,
        class_=f"code {kind}".strip(),
    )


def commands(lines: Iterable[tuple[str, str]]) -> Html:
    """Return commands, each with what it does."""
    return h(
        "div",
        [[h("p", does, class_="does"), code(line, f"command: {does}")] for line, does in lines],
        class_="commands",
    )


def folded(title: Child, *body: Child, group: str | None = None, shown: bool = False) -> Html:
    """Return what is seen when one asks for it; of a `group` one at a time."""
    return h("details", h("summary", title), *body, name=group, open=shown)


def note(kind: str, title: str, *body: Child) -> Html:
    """Return a notice: ``bad``, ``warn`` or ``info``."""
    return h("div", h("p", h("strong", title)), *body, class_=f"notice {kind}")


def table(
    caption: str, head: Sequence[Child], rows: Iterable[Sequence[Child]], *, right: Iterable[int] = (), kind: str = ""
) -> Html:
    """Return a table that scrolls within itself where it is wider than the screen; columns `right` are numbers."""
    numbers = frozenset(right)

    def cells(tag: str, row: Sequence[Child]) -> list[Html]:
        made = []
        for at, cell in enumerate(row):
            first = tag == "td" and at == 0
            scope = "col" if tag == "th" else "row" if first else None
            made.append(h("th" if first else tag, cell, scope=scope, class_="num" if at in numbers else None))
        return made

    body = [h("tr", cells("td", row)) for row in rows]
    made = h("table", h("caption", caption), h("thead", h("tr", cells("th", head))), h("tbody", body))
    return h("div", made, class_=f"scroll {kind}".strip(), role="region", tabindex="0", aria_label=caption)


def version(text: str) -> Html:
    """Return a version, its local part set back; it may be broken before the parts of that."""
    public, plus, local = text.partition("+")
    if not plus:
        return h("span", public, class_="version")
    parts = joined(".", [join(h("wbr") if at else None, part) for at, part in enumerate(local.split("."))])
    return h("span", public, h("wbr"), h("span", "+", parts, class_="local"), class_="version")


def build_version(text: str) -> Html:
    """Return a version in a list: of our label only the part that tells builds apart."""
    plain = unlabelled(text)
    if plain is None:
        return version(text)
    mark = text.partition("+")[2].split(".")[1]
    return h("span", version(plain), " ", h("span", mark, class_="label"), class_="version", title=text)


def listed(place: Place, row: Row, within: str = "") -> list[Html]:
    """Return the channels of a wheel in a list: that everything is in `local` needn't be said each time."""
    quiet = {within, "local"} if within or len(row.channels) > 1 else set()
    return [place.channel(name) for name in row.channels if name not in quiet]


def short_version(text: str) -> str:
    """Return a version without our label."""
    return unlabelled(text) or text


def made_for(filename: str) -> str:
    """Return what a wheel runs on, by its name: ``CPython 3.12, Linux aarch64, glibc 2.39``."""
    from builder.errors import SparkError  # noqa: PLC0415

    try:
        name = parse_name(filename)
    except SparkError:
        return ""
    told = [_python(name.python, name.abi), *_platform(name.platform.split(".")[0])]
    return ", ".join(one for one in told if one)


def _python(python: str, abi: str) -> str:
    first = python.split(".", maxsplit=1)[0]
    if first.startswith("cp") and first[2:].isdigit() and len(first) > 3:  # noqa: PLR2004  # cp and two numbers
        plus = " and newer" if abi == "abi3" else ""
        return f"CPython {first[2]}.{first[3:]}{plus}"
    return {"py3": "Python 3", "py2": "Python 2"}.get(first, first)


def _platform(tag: str) -> list[str]:
    if tag == "any":
        return ["any machine"]
    if tag.startswith("manylinux_"):
        _many, major, minor, *machine = tag.split("_")
        return [f"Linux {'_'.join(machine)}", f"glibc {major}.{minor}"]
    if tag.startswith("linux_"):
        return [f"Linux {tag.removeprefix('linux_')}"]
    return [tag]


def verdict(audited: Audited | None) -> Html | None:
    """Return in a few words what a wheel's device code offers the target; None where nobody looked."""
    if audited is None:
        return None
    total = audited.native + audited.jit + audited.other
    if not total:
        return h("span", "no device code", class_="tag dim")
    if audited.native:
        share = "" if audited.native == total else f"{words.percent(audited.native, total)} "
        return h("span", f"{share}native {audited.target}", class_="tag ok")
    if audited.jit:
        return h("span", f"JIT on {audited.target}", class_="tag warn")
    return h("span", f"no code for {audited.target}", class_="tag warn")


def bar(parts: Sequence[tuple[str, float]], told: str) -> Html:
    """Return a bar of shares; `parts` are class and amount, `told` the same in words."""
    whole = sum(size for _kind, size in parts) or 1
    at, made = 0.0, []
    for kind, size in parts:
        width = 100 * size / whole
        if width > 0:
            made.append(h("rect", class_=kind, x=f"{at:.2f}", y="0", width=f"{max(width, 0.4):.2f}", height="8"))
        at += width
    return h("svg", made, class_="bar", viewBox="0 0 100 8", preserveAspectRatio="none", role="img", aria_label=told)


def state(row: Row) -> Html | None:
    """Return what keeps a wheel from being offered, if anything does."""
    if row.wheel.state == "published":
        return (
            h("span", "replaced", class_="tag dim", title="a newer build of the same version is offered")
            if row.newer is not None
            else None
        )
    return h("span", row.wheel.state, class_="tag bad" if row.wheel.state == "quarantined" else "tag warn")


def wheels(place: Place, rows: Sequence[Row], *, named: bool = True, within: str = "", limit: int = LIMIT) -> Html:
    """Return wheels as a list, each with what one wants to know before looking closer.

    Without `named` all are of one project, `within` is the channel that all are in: neither is said each time.
    """
    items = []
    for row in rows[:limit]:
        one = row.wheel
        name = [h("b", one.project), " "] if named else None
        told = [made_for(one.filename), words.bytes_(one.size), words.when(one.created)]
        items.append(
            h(
                "li",
                h("div", place.wheel(one.sha256, [name, build_version(one.version)]), class_="title"),
                h("div", state(row), verdict(row.audited), listed(place, row, within), class_="tags"),
                h("div", joined(" · ", [part for part in told if part]), class_="about"),
                h("div", row.reason, class_="why") if row.reason else None,
            )
        )
    more = h("p", f"and {words.count(len(rows) - limit, 'more wheel')}", class_="about") if len(rows) > limit else None
    return join(h("ul", items, class_="list"), more)


def attempts(place: Place, found: Sequence[Attempt], *, limit: int = LIMIT) -> Html:
    """Return attempts as a list, each with how it ended."""
    items = []
    for one in found[:limit]:
        took = words.duration(one.ms) if one.ms is not None else None
        peak = f"{words.bytes_(one.peak_bytes)} at the peak" if one.peak_bytes else None
        where = f"in {one.phase}" if one.phase and one.outcome != "ok" else None
        title = [h("b", one.recipe), " ", h("span", one.version, class_="version")]
        told = [
            digest_of(one),
            f"attempt {one.attempt}" if one.attempt > 1 else None,
            took,
            peak,
            words.when(one.started),
        ]
        items.append(
            h(
                "li",
                h("div", place.build(one.fingerprint, title), class_="title"),
                h("div", words.mark(one.outcome), h("span", where, class_="about") if where else None, class_="tags"),
                h("div", joined(" · ", [part for part in told if part]), class_="about"),
                h("div", one.summary, class_="why") if one.summary else None,
                class_=one.outcome if one.outcome in words.MARKS else None,
            )
        )
    more = (
        h("p", f"and {words.count(len(found) - limit, 'older attempt')}", class_="about")
        if len(found) > limit
        else None
    )
    return join(h("ul", items, class_="list builds"), more)


def digest_of(one: Attempt) -> Html:
    """Return the start of an attempt's fingerprint."""
    return words.digest(one.fingerprint)
