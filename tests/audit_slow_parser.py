"""Reads device code a second time, slowly: the layout is written down as tables of fields, and nothing is clever.

It shares nothing with `builder.audit`. What both say of the same bytes has to be the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONTAINER = {"magic": (0, 4), "layout": (4, 2), "header": (6, 2), "size": (8, 8)}
ENTRY = {
    "kind": (0, 2),
    "layout": (2, 2),
    "header": (4, 4),
    "size": (8, 8),
    "packed": (16, 4),
    "options": (20, 4),
    "minor": (24, 2),
    "major": (26, 2),
    "sm": (28, 4),
    "name": (32, 4),
    "name_size": (36, 4),
    "flags": (40, 8),
}
#: What a mutation of changes what is read.
DECIDING = ("kind", "layout", "header", "size", "packed", "minor", "major", "sm", "flags")
NAMES = {1: "ptx", 2: "cubin", 8: "lto-ir"}

Picture = tuple[str, int, str, int, bool, str]


class Odd(Exception):
    """Something isn't as it should be."""


@dataclass
class Reading:
    """Images (kind, SM, letter, size, compressed, version) by container; `deciding` are the bytes that they follow from."""

    units: list[list[Picture]] = field(default_factory=list)
    sure: bool = True
    deciding: set[int] = field(default_factory=set)

    def odd(self) -> None:
        self.sure = False


def demand(*facts: object) -> None:
    if not all(facts):
        raise Odd


def fields(data: bytes, at: int, table: dict[str, tuple[int, int]]) -> dict[str, int]:
    found = {}
    for name, (place, width) in table.items():
        piece = data[at + place : at + place + width]
        if len(piece) < width:
            raise Odd(name)
        found[name] = int.from_bytes(piece, "little")
    return found


def mark(reading: Reading, at: int, table: dict[str, tuple[int, int]], names: tuple[str, ...]) -> None:
    for name in names:
        place, width = table[name]
        reading.deciding.update(range(at + place, at + place + width))


def bits(number: int) -> set[int]:
    return {bit for bit in range(64) if number >> bit & 1}


def picture(one: dict[str, int], size: int, packing: set[int], reading: Reading) -> Picture:
    flags = bits(one["flags"])
    letter = ""
    if 21 in flags:
        letter = "f"
    if 20 in flags:
        letter = "a"
    kind = NAMES.get(one["kind"], "unknown")
    version = str(one["major"]) + "." + str(one["minor"]) if kind == "ptx" else ""
    strange = {bit for bit in flags if 16 <= bit <= 31} - {16, 20, 21, 24}
    if kind == "unknown" or one["sm"] < 10 or one["sm"] > 999 or strange or {20, 21} <= flags:
        kind = "unknown"
        reading.odd()
    return kind, one["sm"], letter, size, bool(packing & {12, 13, 15}), version


def is_compressed(one: dict[str, int]) -> bool:
    return bool(bits(one["flags"]) & {12, 13, 15})


def length_of_member(data: bytes, one: dict[str, int]) -> int:
    """How long a header in a group is: its texts end in a zero, and fill up to 8."""
    ends = [64]
    if one["name"] != 0:
        ends.append(one["name"] + one["name_size"] + 1)
    if one["options"] != 0:
        pair = fields(data, one["options"], {"place": (0, 4), "size": (4, 4)})
        ends.append(one["options"] + 8)
        ends.append(pair["place"] + pair["size"] + 1)
    longest = max(ends)
    while longest % 8:
        longest += 1
    return longest


def group(data: bytes, at: int, outer: dict[str, int], reading: Reading) -> list[Picture]:
    header = data[at : at + outer["header"]]
    reading.deciding.update(range(at, at + outer["header"]))
    members = []
    try:
        index = fields(header, 64, {"count": (0, 4), "size": (4, 4)})
        place = 72
        for _ in range(index["count"]):
            one = fields(header, place, ENTRY)
            demand(place + 64 <= len(header), one["layout"] == 0x0101, one["kind"] != 0x100)
            members.append(one)
            place += length_of_member(header[place:], one)
        demand(index["count"] > 0, place == len(header), index["size"] + 64 == len(header))
    except Odd:
        reading.odd()
    total = sum(one["size"] for one in members) or 1
    packing = bits(outer["flags"])
    return [picture(one, outer["size"] * one["size"] // total, packing, reading) for one in members]


def entries(data: bytes, start: int, end: int, reading: Reading) -> list[Picture]:
    found: list[Picture] = []
    at = start
    while at != end:
        try:
            demand(end - at >= 64)
            one = fields(data, at, ENTRY)
            mark(reading, at, ENTRY, DECIDING)
            demand(one["layout"] == 0x0101)
            demand(64 <= one["header"] <= 2**20, one["header"] % 8 == 0, one["size"] % 8 == 0)
            demand(at + one["header"] + one["size"] <= end)
            demand(not is_compressed(one) or one["packed"] <= one["size"])
        except Odd:
            reading.odd()
            return found
        if one["kind"] == 0x100:
            found += group(data, at, one, reading)
        else:
            found.append(picture(one, one["size"], bits(one["flags"]), reading))
        at += one["header"] + one["size"]
    return found


def container(data: bytes, at: int, end: int, reading: Reading) -> int | None:
    """Read one container, and return where it ends, or None where it can't be told."""
    try:
        demand(end - at >= 16)
        one = fields(data, at, CONTAINER)
        demand(data[at : at + 4] == bytes.fromhex("50ed55ba"), one["layout"] == 1, one["header"] == 16)
    except Odd:
        reading.odd()
        return None
    mark(reading, at, CONTAINER, ("magic", "layout", "header", "size"))
    stop = at + 16 + one["size"]
    found = entries(data, at + 16, min(stop, end), reading)
    if stop > end:
        reading.odd()
        if found:
            reading.units.append(found)
        return None
    reading.units.append(found)
    return stop


def containers(data: bytes, start: int, end: int, reading: Reading) -> None:
    at: int | None = start
    while at is not None:
        while at < end and not any(data[at : min(at + 8, end)]):
            at += 8
        if at >= end:
            return
        at = container(data, at, end, reading)


def fatbin(data: bytes) -> Reading:
    """Read a file that begins with a container."""
    reading = Reading()
    containers(data, 0, len(data), reading)
    return reading


def sections(data: bytes) -> dict[str, list[tuple[int, int]]]:
    """Where the sections of a 64-bit little-endian ELF file lie; raise Odd where it isn't whole."""
    head = fields(data, 0, {"shoff": (40, 8), "shentsize": (58, 2), "shnum": (60, 2), "shstrndx": (62, 2)})
    if head["shentsize"] != 64 or head["shstrndx"] >= head["shnum"]:
        raise Odd
    layout = {"name": (0, 4), "type": (4, 4), "offset": (24, 8), "size": (32, 8)}
    table = [fields(data, head["shoff"] + 64 * number, layout) for number in range(head["shnum"])]
    for one in table:
        if one["type"] not in {0, 8} and one["offset"] + one["size"] > len(data):
            raise Odd
    texts = table[head["shstrndx"]]
    names = data[texts["offset"] : texts["offset"] + texts["size"]]
    found: dict[str, list[tuple[int, int]]] = {}
    for one in table:
        name = names[one["name"] :].split(b"\0")[0].decode(errors="backslashreplace")
        size = 0 if one["type"] in {0, 8} else one["size"]
        found.setdefault(name, []).append((one["offset"], size))
    return found


def elf(data: bytes) -> Reading:
    """Read the sections that hold nothing but containers; then search all others, in the order of the file."""
    reading = Reading()
    others = []
    for name, places in sections(data).items():
        for offset, size in places:
            if name.startswith((".nv_fatbin", "__nv_relfatbin")):
                before = len(reading.units)
                containers(data, offset, offset + size, reading)
                if len(reading.units) == before:
                    reading.odd()
            else:
                others.append((offset, offset + size))
    for start, end in sorted(others):
        at = start
        while (at := data.find(bytes.fromhex("50ed55ba01001000"), at, end)) >= 0:
            at = container(data, at, end, reading) or at + 8
    return reading


def cubin(data: bytes) -> tuple[int, str]:
    """SM and letter as the flags of a cubin's ELF header have them; a new one's letter isn't always there."""
    head = fields(data, 0, {"os_abi": (7, 1), "abi": (8, 1), "flags": (48, 4)})
    flags = bits(head["flags"])
    if head["os_abi"] == 0x33 and head["abi"] <= 7:
        return head["flags"] % 256, "a" if 11 in flags else ""
    demand(head["os_abi"] == 0x41, head["abi"] == 8)
    return head["flags"] // 256 % 256, "a" if 3 in flags else ""


BLANKS = " \t\n\r\f\v"
DIGITS = "0123456789"
WORDS = DIGITS + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"


def run(text: str, at: int, letters: str) -> int:
    while at < len(text) and text[at] in letters:
        at += 1
    return at


def after_blanks(text: str, at: int) -> int:
    """Behind blanks and whole comments."""
    while True:
        at = run(text, at, BLANKS)
        closing = {"//": "\n", "/*": "*/"}.get(text[at : at + 2], "")
        if not closing or closing not in text[at + 2 :]:
            return at
        at = text.index(closing, at + 2) + len(closing)


def directive(text: str, at: int, name: str) -> int | None:
    """Where the word behind a directive's name begins, or None for something else."""
    if not text.startswith(name, at):
        return None
    start = run(text, at + len(name), BLANKS)
    return start if start > at + len(name) else None


def target(word: str) -> tuple[int, str] | None:
    if not word.startswith("sm_"):
        return None
    number, letter = word[3:].rstrip("af"), word[3:].lstrip(DIGITS)
    good = 2 <= len(number) <= 3 and not number.strip(DIGITS) and letter in {"", "a", "f"}
    return (int(number), letter) if good else (0, "")


def ptx(data: bytes) -> tuple[str, int, str] | None:
    """Version, SM and letter of a file of PTX; SM 0 where it can't be told, None for another file."""
    text = data.decode("latin-1")
    start = directive(text, after_blanks(text, 0), ".version")
    if start is None:
        return None
    at = run(text, start, DIGITS + ".")
    parts = text[start:at].split(".")
    if len(parts) != 2 or not all(1 <= len(part) <= 4 for part in parts) or run(text, at, WORDS) > at:
        return None
    version, targets = text[start:at], set()
    at = after_blanks(text, at)
    while (word := directive(text, at, ".target")) is not None and run(text, word, WORDS) > word:
        while True:
            at = run(text, word, WORDS)
            targets.add(target(text[word:at]))
            comma = run(text, at, BLANKS)
            word = run(text, comma + 1, BLANKS)
            if text[comma : comma + 1] != "," or run(text, word, WORDS) == word:
                break
        at = after_blanks(text, at)
    targets.discard(None)
    found = targets.pop() if len(targets) == 1 else None
    return (version, *found) if found else (version, 0, "")
