"""A clock that tests turn, a stream that says it is a terminal, and values that plans are made of."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.inputs import Inputs, diff
from builder.plan import Plan, Step
from builder.stages import Host, Interpreter, Pin, Stored
from builder.ui.plain import Plain
from builder.ui.style import Style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.digest import Json

NOON = 1_790_000_000.0
HEAD = time.strftime("%H:%M:%S", time.localtime(NOON))
FINGERPRINT = "3f9ac1d2ab" + "0" * 54
OLDER = "77c0e1bfff" + "0" * 54


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now

    def on(self, seconds: float) -> None:
        self.now += seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(clock: Clock, *, live: bool = False, width: int = 80, color: bool = False) -> tuple[Plain, io.StringIO]:
    stream = io.StringIO()
    style = Style(color=color, live=live, encoding="utf-8")
    return Plain(stream, style=style, clock=clock, width=lambda: width, beats=False), stream


def stored(output: str = "tiny", *, created: float = NOON - 3 * 86400) -> Stored:
    version = "1.0+sb20260918120000.g3f9ac1d2ab"
    filename = f"{output}-{version}-py3-none-any.whl"
    return Stored(
        output=output,
        project=output,
        version=version,
        filename=filename,
        path=Path("/w/wheels") / output / filename,
        sha256="ab" * 32,
        size=12_345_678,
        fingerprint=FINGERPRINT,
        recipe="tiny",
        created=created,
    )


def pin(**more: object) -> Pin:
    values: dict[str, object] = {
        "kind": "git",
        "url": "https://example.invalid/tiny",
        "tree": "git:" + "c" * 40,
        "time": 1,
        "ref": "main",
        "commit": "4c1e22f0ab12" + "d" * 28,
    }
    return Pin(**{**values, **more})  # type: ignore[arg-type]


#: As much of an inputs document as screens look at.
DOCUMENT: Mapping[str, Json] = {"name": "tiny", "target": {"arch": "12.1a"}, "arch": ["12.1a"], "patches": []}


def plan(
    *,
    steps: tuple[Step, ...] = (Step(output="tiny", decision="miss"),),
    old: Json = None,
    new: Json = None,
    estimate_s: int | None = None,
    source: Pin | None = None,
) -> Plan:
    return Plan(
        recipe="tiny",
        inputs=Inputs(document=DOCUMENT, fingerprint=FINGERPRINT),
        pin=source or pin(),
        host=Host(
            machine="aarch64",
            libc="glibc 2.39",
            interpreter=Interpreter(path="/p", version="3.12.3", tag="cp312", digest="0", headers=True),
            tools=(),
            cuda=None,
            cores=20,
            memory_bytes=1 << 37,
        ),
        label="sb20260921120000.g3f9ac1d2ab",
        steps=steps,
        jobs=10,
        estimate_s=estimate_s,
        disk_bytes=2 << 30,
        nearest=OLDER if old is not None else None,
        changes=diff(old, new) if old is not None else (),
    )
