"""A real broker in a folder of its own, and clients that speak its packets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.hook_kit import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MIB = 1 << 20
GIB = 1 << 30
WAIT_S = 30.0


def until(holds: Callable[[], object]) -> None:
    """Return when `holds` does; that it never does is a failed test."""
    limit = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@dataclass
class Client:
    socket: socket.socket

    def say(self, verb: str, **values: object) -> None:
        self.socket.send("\n".join([verb, *(f"{key} {value}" for key, value in values.items())]).encode())

    def hear(self) -> bytes:
        """Return the next packet; empty when the broker has closed."""
        self.socket.settimeout(WAIT_S)
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def told(self) -> tuple[str, dict[str, str]]:
        verb, *lines = self.hear().decode().splitlines() or [""]
        pairs = (line.partition(" ") for line in lines)
        return verb, {key: value for key, _, value in pairs}

    def expect(self, verb: str) -> dict[str, str]:
        heard, values = self.told()
        assert heard == verb, (heard, values)
        return values

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing came for so long."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1 << 16, socket.MSG_PEEK)
        except TimeoutError:
            return True
        return False

    def unit(self, name: str, *, build: str = "b", kind: str = "cxx", **more: object) -> Client:
        self.say("unit", build=build, kind=kind, source=name, object=f"{name}.o", flags="f", name=name, **more)
        return self

    def end(self, *, code: int = 0, peak: int = MIB, **more: object) -> None:
        self.say("end", code=code, peak=peak, **({"signal": 0, "wall": 10, "cpu": 10} | more))

    def event(self, kind: str, holds: Callable[[Any], object] = lambda _: True) -> Any:  # noqa: ANN401  # it is JSON
        """Return the next object of this kind for which `holds` is true, passing over all others."""
        limit = time.monotonic() + WAIT_S
        while time.monotonic() < limit:
            heard = json.loads(self.hear())
            if kind in heard and holds(heard[kind]):
                return heard[kind]
        raise AssertionError(f"no {kind} came")

    def close(self) -> None:
        self.socket.close()


@dataclass
class Broker:
    folder: Path
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    clients: list[Client] = field(default_factory=list)

    @property
    def meminfo(self) -> Path:
        return self.folder.parent / "meminfo"

    def memory(self, available: int, total: int = 64 * GIB) -> None:
        beside = self.meminfo.with_suffix(".new")
        beside.write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n", encoding="utf-8")
        beside.replace(self.meminfo)

    def start(self, *more: str, wait: bool = True, before: list[str] | None = None) -> subprocess.Popen[str]:
        argv = [*(before or []), str(program("spark-build-broker")), "--foreground", "--folder", str(self.folder)]
        self.process = subprocess.Popen([*argv, *self.options, *more], stdout=subprocess.PIPE, text=True)
        if wait:
            assert self.process.stdout is not None
            assert self.process.stdout.readline().strip()
        return self.process

    def client(self) -> Client:
        name = (self.folder / "broker.lock").read_text(encoding="utf-8").strip()
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = os.open(self.folder, os.O_PATH)
        try:
            one.connect(f"/proc/self/fd/{here}/{name}")
        finally:
            os.close(here)
        self.clients.append(Client(one))
        return self.clients[-1]

    def unit(self, name: str, **more: Any) -> Client:  # noqa: ANN401  # passed on
        return self.client().unit(name, **more)

    def control(self, build: str = "b", predictions: str = "", **values: object) -> Client:
        one = self.client()
        lines = "\n".join(["build", f"id {build}", *(f"{key} {value}" for key, value in values.items())])
        file = os.memfd_create("predictions")
        try:
            os.write(file, predictions.encode())
            socket.send_fds(one.socket, [lines.encode()], [file])
        finally:
            os.close(file)
        return one

    def opened(self, build: str = "b", predictions: str = "", **values: object) -> Client:
        one = self.control(build, predictions, **values)
        one.expect("open")
        return one

    def stop(self) -> None:
        for one in self.clients:
            one.close()
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(WAIT_S)
            assert self.process.stdout is not None
            self.process.stdout.close()
            assert code in (0, -signal.SIGKILL)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None


@contextlib.contextmanager
def broker_in(place: Path, *options: str, start: bool = True) -> Iterator[Broker]:
    """A broker with a machine of 64 GiB, all of it free, four cores and a reserve of 4 GiB."""
    one = Broker(place / "run")
    one.memory(64 * GIB)
    one.options = ["--meminfo", str(one.meminfo), "--reserve", str(4 * GIB), "--cores", "4", *options]
    if start:
        one.start()
    try:
        yield one
    finally:
        one.stop()


def plain(peaks: Mapping[str, int]) -> str:
    """Predictions of units that were measured before."""
    return "".join(f"unit\t{name}\t{name}.o\tcxx\tf\t{peak}\t600000\t-\n" for name, peak in peaks.items())


LAUNCHER = """
import os, socket, subprocess, sys, time
folder, name, mark = sys.argv[1:4]
gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
gate.connect(os.path.join(folder, open(os.path.join(folder, "broker.lock")).read().strip()))
gate.send(f"unit\\nbuild b\\nkind cxx\\nsource {name}\\nobject {name}.o\\nname {name}\\nflags f".encode())
assert gate.recv(4096).startswith(b"go")
inner = "import subprocess,sys; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True); p.wait()"
child = subprocess.Popen(["/usr/bin/python3", "-c", inner], stdout=open(mark + ".part", "w"), start_new_session=False,
                         process_group=0)
while not os.path.getsize(mark + ".part"): time.sleep(0.01)
gate.send(b"at\\nused 5000000")
with open(mark + ".part", "a") as out: print(child.pid, file=out)
os.rename(mark + ".part", mark)
child.wait()
time.sleep(1000)
"""
