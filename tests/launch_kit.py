"""The compiler launcher, freshly built in both ways, and a broker in Python that speaks its protocol over a real socket."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.gate import ccache
from tests.gate_kit import ROOT, cmake
from tests.hook_kit import CCACHE

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

PATIENCE_S = 30

Packet = dict[str, str]


def built(factory: pytest.TempPathFactory, *, sanitized: bool) -> Path:
    """Return the launcher as it is shipped, or with sanitizers; whoever of a session's workers comes first builds it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / ("launch-sanitized" if sanitized else "launch-shipped")
    folder.mkdir(exist_ok=True)
    program = folder / "launcher" / "spark-build-launch"
    options = [f"-DSPARK_BUILD_SANITIZE={'ON' if sanitized else 'OFF'}", "-DCMAKE_BUILD_TYPE=Release"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            run([*cmake(), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options])
            run([*cmake(), "--build", str(folder), "--target", "spark-build-launch"])
    return program


def run(argv: list[str]) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def parse(text: bytes) -> Packet:
    """Return the lines of one packet by their keys; the verb is under ``verb``."""
    verb, *lines = text.decode().splitlines()
    return {"verb": verb, **{key: value for key, _blank, value in (line.partition(" ") for line in lines)}}


class Client:
    """One launcher's connection, as the broker sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unit: Packet = {}
        self.attempt = 0

    def send(self, verb: str, **values: object) -> None:
        """Send one packet; nothing happens when the launcher is gone."""
        text = "".join([f"{verb}\n", *(f"{key} {value}\n" for key, value in values.items())])
        try:
            self.connection.send(text.encode())
        except OSError:
            return

    def go(self) -> None:
        """Let the compiler start."""
        self.attempt += 1
        self.send("go", bytes=1 << 30, attempt=self.attempt, alone=0)


def grant(client: Client, packet: Packet) -> None:
    """Let everything start at once, and let every result count."""
    if packet["verb"] == "unit" and "held" not in packet:
        client.go()
    if packet["verb"] == "end":
        client.send("done")


class Broker:
    """Listens in `folder`; `rule` answers each packet. `seen` holds all packets in the order in which they came."""

    def __init__(
        self, folder: Path, rule: Callable[[Client, Packet], None] = grant, name: str = "broker-0-1.sock"
    ) -> None:
        self.rule = rule
        self.seen: list[Packet] = []
        self.clients: list[Client] = []
        self.came = threading.Condition()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (folder / name).unlink(missing_ok=True)
        self.listener.bind(str(folder / name))
        self.listener.listen(512)
        (folder / "broker.lock").write_text(f"{name}\n")
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            client = Client(connection)
            self.clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: Client) -> None:
        while True:
            try:
                text = client.connection.recv(65536)
            except OSError:
                text = b""
            packet = parse(text) if text else {"verb": "gone"}
            if packet["verb"] == "unit":
                client.unit = packet
            self.rule(client, packet)
            with self.came:
                self.seen.append(packet)
                self.came.notify_all()
            if not text:
                return

    def verbs(self) -> list[str]:
        """Return what was heard, without reports on memory."""
        return [packet["verb"] for packet in self.seen if packet["verb"] != "at"]

    def all(self, verb: str) -> list[Packet]:
        """Return the packets of one kind."""
        return [packet for packet in self.seen if packet["verb"] == verb]

    def wait_for(self, verb: str, count: int = 1) -> Packet:
        """Return the `count`-th packet of that kind when it has come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.all(verb)) >= count, PATIENCE_S), f"no {verb}: {self.verbs()}"
            return self.all(verb)[count - 1]

    def close(self) -> None:
        """End as a broker that was killed does."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.clients:
            try:
                client.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                client.connection.close()


@dataclass
class Place:
    """A build tree with a runtime folder, and the launcher in front of real programs."""

    program: Path
    root: Path
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.gate, self.tree, self.slots, self.scratch, self.bin):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def slots(self) -> Path:
        return self.root / "slots"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def env(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "SPARK_BUILD_GATE": str(self.gate),
            "SPARK_BUILD_BUILD": "b1",
            "SPARK_BUILD_ROOT": str(self.tree),
            "SPARK_BUILD_FALLBACK": "1",
            "SPARK_BUILD_SLOTS": str(self.slots),
            "TMPDIR": str(self.scratch),
            "ASAN_OPTIONS": "detect_leaks=0",  # words are kept until the end on purpose
            **self.more,
            **more,
        }

    def start(self, *words: str | Path, stdin: int | None = subprocess.DEVNULL, **env: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self.program), *map(str, words)],
            env=self.env(**env),
            cwd=self.tree,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str | Path, code: int = 0, text: bytes | None = None, **env: str) -> tuple[str, str]:
        stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
        process = self.start(*words, stdin=stdin, **env)
        out, err = process.communicate(text, timeout=PATIENCE_S)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        return out.decode(), err.decode()

    def explain(self, *words: str | Path, **env: str) -> dict[str, str]:
        """Return what the launcher makes of a command, by the keys of its answer."""
        text = self.run("--explain", *words, code=0, text=None, **env)[0]
        head, _line, command = text.partition("\ncommand ")
        found = {key: value for key, _blank, value in (line.partition(" ") for line in head.split("\n"))}
        return found | {"command": command.removesuffix("\n")}

    def rewritten(self, *words: str | Path) -> list[str]:
        return shlex.split(self.explain(*words)["command"])

    def cache(self) -> None:
        """Let the launcher find the compile cache, as a build sets it."""
        settings = ccache.Settings(
            folder=self.root / "ccache",
            namespace="launch",
            root=self.tree,
            fixed=False,
            launcher=self.program,
            log=self.root / "ccache.log",
        )
        self.more |= {**ccache.variables(settings), "SPARK_BUILD_CCACHE": str(CCACHE), "HOME": str(self.root)}

    def write(self, name: str, text: str) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def compiler(self, name: str, script: str) -> Path:
        """Make a compiler of that name out of a shell script."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path


def comes(holds: Callable[[], object]) -> None:
    """Return when `holds` does; that it never does is a failed test."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def state(pid: int | str) -> str:
    """Return the letter of proc(5) for what a process does; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def descendants_named(mark: str) -> list[int]:
    """Return the processes that have `mark` in their environment or arguments and aren't this one."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in text and state != "Z":
            found.append(int(folder.name))
    return found


def gone(mark: str) -> bool:
    """Wait until no process has `mark` in its arguments."""
    comes(lambda: not descendants_named(mark))
    return True
