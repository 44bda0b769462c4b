"""The page of a wheel: how to install it, what it holds, what went into it, who made it, what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.site import change, device, install, parts, words
from builder.site.frame import Place, page
from builder.site.html import h, join, joined
from builder.wheelhouse import statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.site.html import Child, Html
    from builder.site.model import Seal, Wheel

__all__ = ["render"]

_REQUIRES = 12


def render(wheel: Wheel) -> bytes:
    """Return the page."""
    one = wheel.row.wheel
    place = Place(f"wheels/{one.sha256}/")
    crumb = h("p", place.project(one.project), class_="crumb")
    title = h(
        "div",
        crumb,
        h("h1", one.project, " ", parts.version(one.version)),
        h("p", wheel.summary, class_="lead") if wheel.summary else None,
        h(
            "p",
            joined(" · ", [parts.made_for(one.filename), words.bytes_(one.size), words.when(one.created)]),
            class_="about",
        ),
        h(
            "div",
            parts.state(wheel.row),
            parts.verdict(wheel.row.audited),
            [place.channel(name) for name in wheel.row.channels],
            class_="tags",
        ),
        class_="title-block",
    )
    offered = one.state in {"published", "yanked"}
    main = [
        parts.section("install", "Install", install.wheel(place, one, wheel.row.channels, wheel.index))
        if offered
        else None,
        _device(wheel),
        change.section(place, wheel),
        _inputs(wheel),
        _made(place, wheel),
    ]
    return page(
        place,
        f"{one.project} {one.version}",
        title,
        _withheld(place, wheel),
        h(
            "div",
            h("div", main, class_="wide"),
            h("aside", _facts(place, wheel), aria_label="Facts", class_="side"),
            class_="columns",
        ),
    )


def _withheld(place: Place, wheel: Wheel) -> Html | None:
    row = wheel.row
    why = h("p", row.reason) if row.reason else None
    if row.wheel.state == "quarantined":
        return parts.note("bad", "This wheel is quarantined: it isn't offered, and can't be downloaded.", why)
    if row.wheel.state == "yanked":
        return parts.note("warn", "This wheel is yanked: installers take it only where it is pinned exactly.", why)
    if row.newer:
        return parts.note(
            "info",
            "A newer build of this version has taken its place.",
            h("p", place.wheel(row.newer, "Show that one")),
        )
    return None


def _facts(place: Place, wheel: Wheel) -> list[Html | None]:
    one = wheel.row.wheel
    link = h("a", one.filename, href=place.file(f"files/{one.sha256}/{one.filename}"), class_="file")
    attempt = wheel.attempt
    took = attempt.built_ms.get(one.output, attempt.ms) if attempt else None
    peak = _gate(wheel).get("peak-bytes") or (attempt.peak_bytes if attempt else None)
    pairs: list[tuple[Child, Child]] = [
        ("File", link if one.state != "quarantined" else one.filename),
        ("Runs on", parts.made_for(one.filename)),
        ("Size", words.bytes_(one.size)),
        ("Published", words.when(one.created)),
        ("Python", one.requires_python),
        ("License", wheel.license),
        ("Build time", words.duration(took) if took is not None else None),
        ("Peak memory", words.bytes_(peak) if isinstance(peak, int) and peak else None),
        ("Recipe", one.recipe),
        (
            "Fingerprint",
            place.build(one.fingerprint, words.digest(one.fingerprint))
            if attempt
            else words.digest(one.fingerprint)
            if one.fingerprint
            else None,
        ),
        ("sha256", parts.code(one.sha256, "sha256", kind="small")),
    ]
    links = [h("li", h("a", word, href=url, rel="noopener nofollow ugc")) for word, url in wheel.links]
    return [
        parts.facts(pairs, class_="facts aside"),
        join(h("h2", "Links"), h("ul", links, class_="plain")) if links else None,
        _requires(wheel),
    ]


def _requires(wheel: Wheel) -> Html | None:
    if not wheel.requires:
        return None
    every = [h("li", h("code", text)) for text in wheel.requires]
    rest = (
        parts.folded(f"{len(every) - _REQUIRES} more", h("ul", every[_REQUIRES:], class_="plain"))
        if len(every) > _REQUIRES
        else None
    )
    return join(h("h2", "Requires"), h("ul", every[:_REQUIRES], class_="plain"), rest)


def _device(wheel: Wheel) -> Html:
    if wheel.findings is None:
        told = h("p", "Nobody has looked into this wheel yet.")
        look = parts.code(f"spark-build audit {wheel.row.wheel.sha256[:10]}", "command that audits it")
        return parts.section("device", "Device code", told, look)
    return join(
        parts.section("device", "Device code", device.overview(wheel.findings), device.tables(wheel.findings)),
        parts.section("findings", "Findings of the audit", device.findings(wheel.findings)),
    )


def _inputs(wheel: Wheel) -> Html | None:
    if wheel.inputs is None:
        if not wheel.claimed:
            return None
        return parts.section(
            "inputs", "What went into it", h("p", "It was added from a file, and says nothing of its making.")
        )
    inputs = wheel.inputs
    said = h("p", "By what the wheel says of itself: it wasn't built here.", class_="about") if wheel.claimed else None
    return parts.section(
        "inputs",
        "What went into it",
        said,
        parts.facts(change.inputs(inputs, wheel.record)),
        change.requirements(inputs),
        _document(inputs),
    )


def _document(inputs: Mapping[str, Any]) -> Html | None:
    import json  # noqa: PLC0415

    text = json.dumps(inputs, indent=1, ensure_ascii=False, sort_keys=True)
    if len(text) > 1 << 17:
        return None
    box = h("pre", text, tabindex="0", role="group", aria_label="Inputs document", class_="text")
    return parts.folded("The whole inputs document", box)


def _gate(wheel: Wheel) -> Mapping[str, Any]:
    """Return what the gate did for this output, as the record says it."""
    gate = wheel.record.get("gate")
    found = gate.get(wheel.row.wheel.output) if isinstance(gate, dict) else None
    return found if isinstance(found, dict) else {}


def _made(place: Place, wheel: Wheel) -> Html:
    one, record = wheel.row.wheel, wheel.record
    said = " (as the record claims that came with it)" if wheel.claimed and "added" not in record else ""
    built, host, isolation = record.get("built"), record.get("host"), record.get("isolation")
    machine = None
    if isinstance(host, dict):
        told = [str(host.get("machine", ""))]
        told += [words.count(host["cores"], "core")] if isinstance(host.get("cores"), int) else []
        told += [words.bytes_(host["memory"])] if isinstance(host.get("memory"), int) else []
        machine = ", ".join(filter(None, told))
    level = str(isolation.get("level", "")) if isinstance(isolation, dict) else None
    kinds = {
        statement.PROVENANCE: "SLSA provenance v1",
        statement.ADDED: "added from a file",
        "flat": "of an older version",
    }
    base = f"files/{one.sha256}/{one.filename}.provenance.json"
    shown: Child = "none"
    if wheel.kind:
        shown = h("a", kinds.get(wheel.kind, "of another kind"), href=place.file(base))
    pairs: list[tuple[Child, Child]] = [
        ("Built", [words.when(built), said] if isinstance(built, int) else None),
        ("On", machine),
        ("Isolation", level),
        ("Builder", h("code", wheel.builder) if wheel.builder else None),
        ("Record", shown),
        ("Signature", _seal(wheel.seal, place.file(f"{base}.sig"))),
        *_account(_gate(wheel)),
    ]
    log = None
    if wheel.attempt is not None:
        log = h("p", place.build(wheel.attempt.fingerprint, "Phases, units and log of the build"))
    more = [(f"spark-build wheels verify {one.sha256[:10]}", "Hold file, record and signature against the catalogue")]
    if one.recipe and one.fingerprint and not wheel.claimed:
        more.append((f"spark-build rebuild {one.fingerprint[:10]} --check", "Build it again and compare the bytes"))
    return parts.section(
        "provenance",
        "How it was made",
        parts.facts(pairs),
        log,
        parts.folded("Check it yourself", parts.commands(more)),
    )


def _seal(seal: Seal, href: str) -> Child:
    """Return how far the record's signature holds."""
    if seal.kind == "none":
        return h("span", "none", class_="tag dim")
    word, kind, told = {
        "good": ("good", "ok", f"by {seal.text}, who may sign here"),
        "sound": ("whole", "dim", f"of this record; nobody said whose key it is: {seal.text}"),
        "bad": ("doesn't hold", "bad", seal.text),
        "unknown": ("not checked", "dim", seal.text),
    }[seal.kind]
    return [
        h("a", "signature", href=href),
        " ",
        h("span", word, class_=f"tag {kind}"),
        " ",
        h("span", told, class_="about"),
    ]


def _account(gate: Mapping[str, Any]) -> list[tuple[Child, Child]]:
    """Return what the gate did for a build."""

    def number(name: str) -> float:
        value = gate.get(name)
        return value if isinstance(value, int | float) and value > 0 else 0

    units = int(number("units"))
    if not units:
        return []
    told = [words.count(units, "unit"), f"{words.bytes_(number('peak-bytes'))} at the peak"]
    told += [f"{words.count(int(number('hits')), 'hit')} of the compile cache"] if number("hits") else []
    waits = [f"waited {words.duration(1000 * number('waited-s'))} for memory"] if number("waited-s") else []
    waits += [f"{words.count(int(number('requeues')), 'unit')} run again with more"] if number("requeues") else []
    waits += (
        [f"{words.count(int(number('kernel-kills')), 'unit')} killed by the kernel and run again"]
        if number("kernel-kills")
        else []
    )
    saved = [f"{words.duration(1000 * number('saved-s'))} sooner than with four jobs"] if number("saved-s") else []
    return [
        ("Compiled", ", ".join(told)),
        ("Memory", ", ".join(waits) or "never waited for memory"),
        ("Saved", joined(", ", saved) if saved else None),
    ]
