"""A broker that says what a test tells it to, behind a real socket, and a sink that keeps what it gets."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from builder.events import Event, Note
from builder.gate.session import Terms
from builder.gate.units import Run, Unit, machine_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.events import Sink

Kind = TypeVar("Kind", bound=Event)

MIB = 1 << 20
WAIT_S = 20.0


@dataclass
class Kept:
    """A sink."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    def notes(self) -> list[str]:
        return [event.text for event in self.of(Note)]


def until(holds: Callable[[], object]) -> None:
    """Return when `holds` does; that it never does is a failed test."""
    limit = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.005)


class FakeBroker:
    """Holds the lock and the socket as a broker does; takes one build after another. `answer` is its first word to each."""

    def __init__(
        self, folder: Path, *, answer: bytes = b"open\ncores 20\ntotal 1000\nroom 900\nbasis MemAvailable"
    ) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.known: list[str] = []
        self._answer = answer
        self._clients: list[socket.socket] = []
        folder.mkdir(parents=True, exist_ok=True)
        name = f"broker-{os.geteuid()}-{os.getpid()}.sock"
        (folder / name).unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(folder / name))
        self._socket.listen()
        self._lock = (folder / "broker.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock.write(name + "\n")
        self._lock.flush()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            ready, _out, _bad = select.select([self._socket, *self._clients], [], [], 0.02)
            for one in ready:
                if one is self._socket:
                    self._clients.append(self._socket.accept()[0])
                    continue
                try:
                    data, descriptors, _flags, _address = socket.recv_fds(one, 1 << 16, 4)
                except OSError:
                    data, descriptors = b"", []
                if not data:
                    one.close()
                    self._clients.remove(one)
                    continue
                for descriptor in descriptors:
                    with os.fdopen(descriptor, "rb") as stream:
                        self.known.append(stream.read().decode())
                self.asked.append(data.decode())
                if data.startswith(b"build") and self._answer:
                    one.send(self._answer)

    def tell(self, what: str, **raw: object) -> None:
        self.send(json.dumps({what: raw}).encode())

    def send(self, packet: bytes) -> None:
        until(lambda: self._clients)
        self._clients[-1].send(packet)

    def is_left(self) -> bool:
        """Whether nobody is connected."""
        return not self._clients

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for one in self._clients:
            one.close()
        self._socket.close()
        self._lock.close()


def short_folder() -> Iterator[Path]:
    """Give a folder whose path leaves room for a socket's name, as pytest's own doesn't."""
    folder = Path(tempfile.mkdtemp(prefix="sb-gate-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def terms(folder: Path, wheelhouse: Path, sink: Sink, **more: object) -> Terms:
    wheelhouse.mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "recipe": "tiny",
        "build": "abcdefabcdef-1",
        "history": wheelhouse / "units.sqlite3",
        "sink": sink,
        "clock": time.time,
        "env": {"SPARK_BUILD_GATE_DIR": str(folder)},
        "toolchain": "t1",
        "version": "1.0",
    }
    return Terms(**(given | more))


def run_of(source: str, **more: Any) -> Run:  # noqa: ANN401  # fields of a run
    """Return a good run of a .cu unit, measured here."""
    unit = Unit(
        source=source,
        object=more.pop("object", f"x.dir/{Path(source).name}.o"),
        kind=more.pop("kind", "cu"),
        flags=more.pop("flags", "f1"),
    )
    given: dict[str, Any] = {
        "recipe": "tiny",
        "unit": unit,
        "peak_bytes": 100 * MIB,
        "wall_ms": 2000,
        "cpu_ms": 1900,
        "toolchain": "t1",
        "machine": machine_class(),
        "build": "abcdefabcdef-1",
        "time": 1_700_000_000,
    }
    return Run(**(given | more))


def unit_packet(source: str, **more: object) -> dict[str, Any]:
    """Return what a broker says of a good unit."""
    given: dict[str, Any] = {
        "name": Path(source).name,
        "source": source,
        "object": f"x.dir/{Path(source).name}.o",
        "kind": "cu",
        "flags": "f1",
        "ok": True,
        "code": 0,
        "signal": 0,
        "attempt": 1,
        "attempts_us": 0,
        "attempts_kernel": 0,
        "peak": 300 * MIB,
        "largest": 250 * MIB,
        "reserved": 320 * MIB,
        "basis": "fallback",
        "wall_ms": 1500,
        "cpu_ms": 1400,
        "wait_ms": 100,
        "curve": None,
        "beside": 2,
        "available_at_end": 900 * MIB,
    }
    return given | more
