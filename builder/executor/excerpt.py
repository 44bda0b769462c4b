"""The first real error in what a build printed. Pure.

A build that fails says so many times: the compiler, ninja or make, the backend, its front end. What helps is what the
first of them said. So lines are judged by what they can be: a tool's own error, a Python exception, or only the news that
something else failed; the first line of the best kind is where the excerpt begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["error_block", "first_error", "plain", "points_at_source"]

#: At most so many lines are quoted, and of each so many characters.
LINES, CHARACTERS = 12, 300

#: A tool says what is wrong.
_ERROR = re.compile(
    r"""
      ^\S.*?:\d+(?::\d+)?:\ (?:fatal\ )?error:            # gcc, clang: file:line:column
    | ^\S.*?\(\d+\):\ (?:catastrophic\ )?error\b          # nvcc's front end: file(line)
    | ^(?:nvcc|ptxas|nvlink|fatbinary|cicc)\b.*\b(?:fatal|error)\s*:
    | ^\S*(?:cc|cc1|cc1plus|c\+\+|g\+\+|clang\+*|as|lto1)(?:-[\d.]+)?:\ (?:internal\ compiler\ |fatal\ )?error:
    | \bundefined\ reference\ to\b | \bundefined\ symbol: | \bcannot\ find\ -l | \bmultiple\ definition\ of\b
    | ^\S*ld(?:\.\w+)?:\ (?:error:|final\ link\ failed)
    | ^CMake\ Error
    | ^error\[E\d+\]:                                     # rustc
    | ^error:\ (?!(?:[Cc]ommand\b|could\ not\ compile|subprocess|[Ff]ailed\ to\ build|metadata-generation|process\ didn't))
    | ^ERROR:\ (?!Failed\ (?:building|to\ build)|pip's\ dependency|.*?exit\ (?:code|status))
    | ^fatal:\ (?:unable|could\ not|repository|clone)     # git; "not a git repository" is an ordinary answer
    | ^(?:ninja|make(?:\[\d+\])?):\ (?:error:|\*\*\*\ No\ rule)
    | \bNo\ space\ left\ on\ device\b | \bDisk\ quota\ exceeded\b
    | ^Killed$ | \*\*\*\ \[.*\]\ Killed | \bKilled\ signal\ terminated\b | \bdied\ due\ to\ signal\b
    | \bvirtual\ memory\ exhausted\b | \bout\ of\ memory\ allocating\b | \bCannot\ allocate\ memory\b
    | ^Segmentation\ fault\b
    | \bCould\ not\ resolve\ host\b | \bname\ resolution\b | \bNetwork\ is\ unreachable\b
    """,
    re.VERBOSE,
)
_AT_SOURCE = re.compile(
    r"^\S.*?(?::\d+(?::\d+)?: (?:fatal )?error:|\(\d+\): (?:catastrophic )?error\b)|^error\[E\d+\]:"
)
#: A tool says that something else failed.
_NEWS = re.compile(
    r"^FAILED: |^make(?:\[\d+\])?: \*\*\* |^ninja: build stopped|^\*\*\* .* failed|^error: |^ERROR: |^collect2: error|"
    r"CalledProcessError:"
)
#: Where the output of another command begins.
_NEXT = re.compile(
    r"^\[\d+/\d+\]|^FAILED: |^make(?:\[\d+\])?: |^ninja: |^collect2: |^\d+ errors? detected|^\*\*\* |^error: |"
    r"^-- |^Traceback |^For more information about this error"
)
_TRACEBACK = "Traceback (most recent call last):"
#: An exception that only says that a command failed.
_SECOND_HAND = re.compile(r"^(?:\w+\.)*(?:CalledProcessError|CompileError|LinkError|SystemExit)\b")
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def first_error(lines: Sequence[str]) -> tuple[str, ...]:
    """Return a few lines that begin with the first real error; where there is none, the last lines that say anything."""
    text = plain(lines)
    found = error_block(text) or _last(text)
    if len(found) > LINES:
        found = found[:LINES]
        breaks = [at for at, line in enumerate(found) if at and not line]
        found = found[: breaks[-1]] if breaks else found  # whole paragraphs
    return tuple(line if len(line) <= CHARACTERS else line[: CHARACTERS - 1] + "…" for line in found)


def plain(lines: Sequence[str]) -> list[str]:
    """Return lines without terminal colours and without what trails them."""
    return [_ESCAPES.sub("", line).rstrip() for line in lines]


def error_block(lines: Sequence[str]) -> list[str]:
    """Return all of the first real error in plain lines; empty when nothing looks like one."""
    return _compiler(lines) or _exception(lines) or _news(lines)


def points_at_source(line: str) -> bool:
    """Whether a line is a compiler's own word about a place in a source: nothing elsewhere in the log explains it better."""
    return bool(_AT_SOURCE.match(line))


def _compiler(lines: Sequence[str]) -> list[str]:
    for at, line in enumerate(lines):
        if _ERROR.search(line):
            return _paragraphs(lines[at:]) if line.startswith("CMake Error") else _block(lines[at:])
    return []


def _block(lines: Sequence[str]) -> list[str]:
    """Return the first line and what belongs to it: up to an empty line or another command's output."""
    kept = [lines[0]]
    for line in lines[1:]:
        if not line.strip() or _NEXT.match(line) or _ERROR.search(line) or ": In " in line:
            break
        kept.append(line)
    return kept


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """Return a CMake error: all that is indented under it, empty lines between its paragraphs, too."""
    kept = [lines[0]]
    for line in lines[1:]:
        if line.strip() and not line.startswith(" "):
            break
        kept.append(line)
    while not kept[-1].strip():
        kept.pop()
    return kept


def _exception(lines: Sequence[str]) -> list[str]:
    """Return the last exception that isn't about another command, and the place that raised it."""
    starts = [at for at, line in enumerate(lines) if line.strip().endswith(_TRACEBACK)]
    for start in reversed(starts):
        margin = len(lines[start]) - len(lines[start].lstrip())
        place: list[str] = []
        for at, line in enumerate(lines[start + 1 :], start + 1):
            body = line[margin:]
            if body.startswith("  File "):
                place = [body]
            elif body.startswith(" ") and place:
                place.append(body)
            elif body.strip():
                if _SECOND_HAND.match(body):
                    break
                return [*_block([text[margin:] for text in lines[at:]])[: LINES // 2], *place[:3]]
    return []


def _news(lines: Sequence[str]) -> list[str]:
    for at, line in enumerate(lines):
        if _NEWS.search(line):
            following = list(lines[at + 1 :])
            if line.startswith("FAILED: "):
                following = following[1:]  # the command, which is long and in the log
            return [line, *_until_empty(following)]
    return []


def _until_empty(lines: Sequence[str]) -> list[str]:
    kept = []
    for line in lines:
        if not line.strip() or re.match(r"^\[\d+/\d+\]|^FAILED: ", line):
            break
        kept.append(line)
    return kept


def _last(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.strip()][-LINES // 2 :]
