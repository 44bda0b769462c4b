"""What a wheel's device code is for, and what the audit found: out of the report's document (`audit.report.as_json`).

The document may come with a wheel from elsewhere, so nothing about its shape is taken for granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.site import words
from builder.site.html import h, join, joined
from builder.site.parts import bar, facts, folded, table
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.site.html import Child, Html

__all__ = ["Images", "by_architecture", "findings", "overview", "tables"]

_WORDS = {
    "native": ("native", "ok"),
    "jit": ("by JIT", "warn"),
    "dead": ("refused there", "bad"),
    "absent": ("for others", "warn"),
    "none": ("no device code", "dim"),
    "unknown": ("unreadable", "warn"),
}
_MARKS = {"error": ("✗", "Error", "bad"), "warning": ("▲", "Warning", "warn"), "info": ("·", "Note", "info")}
#: Rows of the table of files that are seen at once.
_FILES = 12
_LIMIT = 400
TIMES = "\N{MULTIPLICATION SIGN}"
_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Device code of one kind and architecture in a whole wheel; `verdict` is what the target makes of it."""

    kind: str
    arch: str
    count: int
    size: int
    verdict: str


def overview(document: Mapping[str, Any]) -> Html:
    """Return how much of the device code is of use on the target, as a bar and in words."""
    held, target = _bytes(document.get("total")), str(document.get("target", ""))
    whole = sum(held.values())
    if not whole:
        return h("p", "This wheel holds no device code: nothing in it is tied to a GPU.")
    parts = [
        ("native", held["native"], f"native to {target}", "starts at once"),
        ("jit", held["jit"], "by JIT", "the driver compiles it at the first start"),
        ("other", held["other"], "for other chips", f"never used on {target}"),
    ]
    told = [f"{words.percent(size, whole)} {word}" for _kind, size, word, _why in parts if size]
    legend = [
        h(
            "li",
            h("span", class_=f"key {kind}", aria_hidden="true"),
            h("b", words.percent(size, whole)),
            f" {word}, ",
            words.bytes_(size),
            h("span", f": {why}", class_="about"),
        )
        for kind, size, word, why in parts
        if size
    ]
    return join(
        bar([(kind, size) for kind, size, _word, _why in parts], f"Device code: {', '.join(told)}"),
        h("ul", legend, class_="legend"),
    )


def tables(document: Mapping[str, Any]) -> Html:
    """Return the device code by architecture, and by file."""
    target = str(document.get("target", ""))
    images = by_architecture(document)
    most = max((one.size for one in images), default=0)
    kinds = {"cubin": "machine code", "ptx": "PTX", "lto-ir": "LTO IR"}
    rows = [
        (
            h("code", one.arch),
            kinds.get(one.kind, one.kind),
            _verdict(one.verdict),
            f"{one.count:,}",
            words.bytes_(one.size),
            bar(
                [
                    ("native" if one.verdict == "native" else "jit" if one.verdict == "jit" else "other", one.size),
                    ("rest", most - one.size),
                ],
                words.percent(one.size, most),
            ),
        )
        for one in images
    ]
    files = sorted(
        _files(document), key=lambda file: (-sum(_bytes(file.get("coverage")).values()), -_number(file.get("size")))
    )
    shown = [_file(file, target) for file in files]
    head = ("File", "Size", f"On {target}", "Device code")
    made = (
        [
            table(
                "By architecture",
                ("Architecture", "Kind", f"On {target}", "Images", "Size", h("span", "Share", class_="away")),
                rows,
                right=(3, 4),
                kind="arch",
            )
        ]
        if rows
        else []
    )
    if shown:
        made.append(table("Libraries and programs", head, shown[:_FILES], right=(1,), kind="files"))
    if len(shown) > _FILES:
        rest = table("More libraries and programs", head, shown[_FILES:_LIMIT], right=(1,), kind="files")
        made.append(folded(f"{len(shown) - _FILES} more", rest))
    return join(made)


def by_architecture(document: Mapping[str, Any]) -> list[Images]:
    """Return the images of a whole wheel by kind and architecture, what the target uses first."""
    target = str(document.get("target", ""))
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for file in _files(document):
        for one in _list(file.get("images")):
            key = (str(one.get("kind", "")), str(one.get("arch", "")))
            count, size = found.get(key, (0, 0))
            found[key] = count + _number(one.get("count")), size + _number(one.get("bytes"))
    images = [
        Images(kind=kind, arch=arch, count=count, size=size, verdict=_judge(kind, arch, target))
        for (kind, arch), (count, size) in found.items()
    ]
    order = list(_WORDS)
    return sorted(images, key=lambda one: (order.index(one.verdict), -one.size, one.arch))


def findings(document: Mapping[str, Any]) -> Html:
    """Return what the audit has to say, errors first; findings that differ in the file only are told together."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in _list(document.get("findings")):
        key = tuple(str(one.get(name) or "") for name in ("severity", "id", "why", "help", "accepted"))
        groups.setdefault(key, []).append(one)
    if not groups:
        return h("p", "The audit found nothing to say about it.", class_="good")
    order = list(_MARKS)
    ordered = sorted(
        groups.values(),
        key=lambda group: (
            bool(group[0].get("accepted")),
            order.index(str(group[0].get("severity"))) if group[0].get("severity") in _MARKS else len(order),
        ),
    )
    loud = [group for group in ordered if not group[0].get("accepted") and group[0].get("severity") != "info"]
    quiet = [group for group in ordered if group not in loud]
    made = (
        [h("div", [_finding(group) for group in loud], class_="findings")]
        if loud
        else [h("p", "Nothing that would keep it from running.", class_="good")]
    )
    if quiet:
        passed = sum(bool(group[0].get("accepted")) for group in quiet)
        told = [words.count(len(quiet) - passed, "note")] if len(quiet) > passed else []
        told += [f"{passed} let pass"] if passed else []
        made.append(folded(" and ".join(told), h("div", [_finding(group) for group in quiet], class_="findings")))
    return join(made)


def _finding(group: Sequence[Mapping[str, Any]]) -> Html:
    first = group[0]
    sign, word, kind = _MARKS.get(str(first.get("severity")), ("·", "Note", "info"))
    where = [
        h(
            "li",
            h("code", _text(one.get("file"))) if one.get("file") else None,
            " " if one.get("file") else None,
            _text(one.get("found")),
        )
        for one in group[:_NAMED]
    ]
    if len(group) > _NAMED:
        where.append(h("li", f"and {len(group) - _NAMED} more"))
    passed = first.get("accepted")
    return h(
        "article",
        h(
            "h3",
            h("span", sign, aria_hidden="true", class_="sign"),
            " ",
            h("span", f"{word}: ", class_="away"),
            _text(first.get("id")),
        ),
        h("ul", where, class_="found"),
        facts(
            [
                ("Wanted", _text(first.get("wanted"))),
                ("Why", _text(first.get("why"))),
                ("What to do", _text(first.get("help")) if not passed else None),
                ("Let pass because", _text(passed) if passed else None),
            ]
        ),
        class_=f"finding {'info' if passed else kind}",
    )


def _file(file: Mapping[str, Any], target: str) -> tuple[Child, ...]:
    covered = file.get("coverage")
    found = str(covered.get("verdict")) if isinstance(covered, dict) else ""
    images = [(one, _judge(str(one.get("kind")), str(one.get("arch")), target)) for one in _list(file.get("images"))]
    chips: list[Child] = []
    for one, verdict in sorted(images, key=lambda pair: list(_WORDS).index(pair[1])):
        kind = {"cubin": "", "ptx": "PTX ", "lto-ir": "LTO "}.get(str(one.get("kind")), "? ")
        arch = str(one.get("arch", "")).partition("_")[2] or str(one.get("arch", ""))
        chips.append(h("span", f"{kind}{arch} {TIMES}{_number(one.get('count'))}", class_=f"chip {verdict}"))
    program = file.get("program")
    if isinstance(program, dict):
        chips.append(
            h("span", f"{_text(program.get('name'))} of CUDA {_text(program.get('version')) or '?'}", class_="chip")
        )
    if file.get("unknown"):
        chips.append(h("span", f"can't be read: {_text(file.get('unknown'))}", class_="chip absent"))
    return (
        h("code", _path(_text(file.get("path")))),
        words.bytes_(_number(file.get("size"))),
        _verdict(found) if found and not program else "",
        joined(" ", chips),
    )


def _path(text: str) -> Html:
    """Return a path that may be broken behind its slashes."""
    return join([join(part, "/", h("wbr")) for part in text.split("/")[:-1]], text.rsplit("/", maxsplit=1)[-1])


def _verdict(name: str) -> Html:
    word, kind = _WORDS.get(name, (name, "dim"))
    return h("span", word, class_=f"tag {kind}")


def _judge(kind: str, arch: str, target: str) -> str:
    """Return what the target makes of one piece of device code."""
    from builder.audit import target as rule  # noqa: PLC0415
    from builder.audit.facts import Image  # noqa: PLC0415
    from builder.errors import UsageError  # noqa: PLC0415

    text = arch.partition("_")[2]
    variant = text[-1:] if text[-1:] in {"a", "f"} else ""
    number = text.removesuffix(variant)
    if kind not in {"cubin", "ptx", "lto-ir"} or not (number.isascii() and number.isdigit() and len(number) < 4):  # noqa: PLR2004
        return "unknown"
    try:
        wanted = rule.Capability.parse(target)
    except UsageError:
        return "unknown"
    image = Image(kind=kind, sm=int(number), variant=variant)  # type: ignore[arg-type]  # both were looked at
    return rule.verdict(image, wanted)


def _files(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from _list(document.get("files"))


def _list(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _bytes(coverage: object) -> dict[str, int]:
    held = coverage.get("bytes") if isinstance(coverage, dict) else None
    return {name: _number(held.get(name)) if isinstance(held, dict) else 0 for name in ("native", "jit", "other")}


def _number(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _text(value: object) -> str:
    return "" if value is None else str(value)[:2000]
