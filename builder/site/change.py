"""What went into a wheel, and what changed since the wheel before. Differences are those that ``why`` tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from builder.site import device, parts, words
from builder.site.html import h, join, joined, safe_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.site.frame import Place
    from builder.site.html import Child, Html
    from builder.site.model import Before, Wheel

__all__ = ["inputs", "requirements", "section"]

_LONGEST = 200
_CHANGES = 200


def section(place: Place, wheel: Wheel) -> Html | None:
    """Return how a wheel differs from the one before it; None for the first."""
    before = wheel.before
    if before is None:
        return None
    old = before.row.wheel
    versus = h(
        "p",
        "Against ",
        place.wheel(old.sha256, parts.version(old.version)),
        ", ",
        words.when(old.created),
        class_="about",
    )
    told: Html
    if before.changes is None:
        told = h("p", "The inputs of one of them aren't known.")
    elif not before.changes:
        told = h("p", "Nothing that went in: the same inputs gave both.")
    else:
        told = h("ul", [h("li", reason) for reason, _changes in before.changes], class_="reasons")
    lines = h("ul", list(_sizes(wheel, before)), class_="plain")
    every = [one for _reason, changes in before.changes or () for one in changes]
    rows = [(h("code", one.path), _value(one.old), _value(one.new)) for one in every[:_CHANGES]]
    detail = (
        parts.folded(
            f"All {len(every)} differences", parts.table("Inputs that differ", ("Input", "Before", "Now"), rows)
        )
        if rows
        else None
    )
    more = parts.code(
        f"spark-build wheels diff {old.sha256[:10]} {wheel.row.wheel.sha256[:10]}", "command that compares the files"
    )
    return parts.section(
        "changes", "What changed", versus, told, lines, detail, parts.folded("Compare the files", more)
    )


def _sizes(wheel: Wheel, before: Before) -> Iterator[Html]:
    """Yield what became of size and device code."""
    old, new = before.row.wheel.size, wheel.row.wheel.size
    yield h("li", "Size: ", words.bytes_(old), " → ", words.bytes_(new), _delta(old, new))
    if before.findings is None or wheel.findings is None:
        return
    held = [
        {(one.kind, one.arch): one for one in device.by_architecture(each)}
        for each in (before.findings, wheel.findings)
    ]
    for key in dict.fromkeys([*held[1], *held[0]]):
        was, now = (each.get(key) for each in held)
        if (was and was.size) == (now and now.size) and (was and was.count) == (now and now.count):
            continue
        name = h("code", key[1])
        if was is None or now is None:
            found, word = (now, "added") if now else (was, "gone")
            yield h("li", name, f": {word}, ", words.bytes_(found.size if found else 0))
        else:
            images = f", {was.count:,} → {now.count:,} images" if was.count != now.count else ""
            yield h(
                "li",
                name,
                ": ",
                words.bytes_(was.size),
                " → ",
                words.bytes_(now.size),
                _delta(was.size, now.size),
                images,
            )


def _delta(old: int, new: int) -> Html | None:
    if old == new or not old:
        return None
    share = 100 * (new - old) / old
    sign = "+" if new > old else "−"  # noqa: RUF001  # a minus
    return h("span", f" ({sign}{abs(share):.1f} %)", class_="about")


def inputs(document: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[Child, Child]]:
    """Return what went in, in words; the document may be a stranger's."""
    source, target, host = (_dict(document.get(name)) for name in ("source", "target", "host"))
    said = _dict(record.get("source"))
    url = said.get("url")
    shown = h("a", url, href=safe_url(url), rel="noopener nofollow ugc") if safe_url(url) else _text(url)
    commit = _text(source.get("commit"))
    pairs: list[tuple[Child, Child]] = [
        ("Source", shown),
        ("Version", _text(source.get("version"))),
        ("Ref", _text(said.get("ref"))),
        ("Commit", h("code", commit) if commit else None),
        ("Tree", h("code", _text(source.get("tree"))) if not commit else None),
        ("Submodules", _names(source.get("submodules"), "path", "commit")),
        ("Nested sources", _names(document.get("nested"), "id", "commit")),
        ("Patches", _names(document.get("patches"), "id", "sha256") or "none"),
        ("Pull requests", _names(source.get("pulls"), "number", "sha256")),
        ("Architecture", joined(" ", [h("code", str(one)) for one in _list(document.get("arch"))])),
        (
            "Target",
            joined(
                ", ", [f"{name} {target[name]}" for name in ("machine", "python", "cuda", "glibc") if target.get(name)]
            ),
        ),
        ("Torch", _text(_dict(document.get("torch")).get("version"))),
        ("CUDA toolkit", _text(_dict(host.get("cuda")).get("version"))),
        ("Tools", _tools(host)),
        (
            "Builds on",
            joined(
                ", ",
                [
                    h("span", name, " ", words.digest(_text(one)))
                    for name, one in _dict(document.get("builds-on")).items()
                ],
            ),
        ),
        (
            "Variables",
            joined(" ", [h("code", f"{name}={_text(value)}") for name, value in _dict(document.get("env")).items()]),
        ),
    ]
    return pairs


def _tools(host: Mapping[str, Any]) -> Html:
    tools = {"Python": _dict(host.get("python")), **_dict(host.get("tools"))}
    told = [f"{name} {one['version']}" for name, one in tools.items() if isinstance(one, dict) and one.get("version")]
    return joined(", ", told)


def requirements(document: Mapping[str, Any]) -> Html | None:
    """Return what the build environments were locked to."""
    locks = {name: _list(lock) for name, lock in _dict(document.get("requires")).items() if _list(lock)}
    if not locks:
        return None
    made = []
    for name, lock in locks.items():
        pins = [h("li", h("code", f"{one.get('name')}=={one.get('version')}")) for one in lock if isinstance(one, dict)]
        made.append(
            join(h("p", f"for {name}", class_="about") if len(locks) > 1 else None, h("ul", pins, class_="plain flow"))
        )
    number = sum(len(lock) for lock in locks.values())
    return parts.folded(f"Build environment: {words.count(number, 'package')}, locked", *made)


def _names(value: object, name: str, digest: str) -> Html | None:
    """Return a list of named things with their digests."""
    found = [one for one in _list(value) if isinstance(one, dict) and name in one]
    if not found:
        return None
    items = [
        h("li", h("code", _text(one[name])), " ", words.digest(_text(one[digest])) if one.get(digest) else None)
        for one in found
    ]
    return h("ul", items, class_="plain")


def _value(value: object) -> Html:
    if value is None:
        return h("span", "nothing", class_="about")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return h("code", text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "" if value is None else str(value)[:2000]
