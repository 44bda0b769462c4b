"""Other machines: real ssh servers on this one, each with the programs and the environment that a test gives it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engine_kit import lacking, wait_for_installation

if TYPE_CHECKING:
    from tests.engine_kit import Kit

#: What every machine has, beside an engine: the shell and what the questions need.
_SYSTEM = ("sh", "bash", "cat", "df", "head", "kill", "sleep", "tail", "tr", "uname")

_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv {env}
{force}
"""

_CLIENT = """
Host {name}
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {known}
"""


class Hosts:
    """Machines by name; `env` is what a process needs so that its ssh knows them."""

    def __init__(self, folder: Path) -> None:
        wait_for_installation()
        for program in ("/usr/sbin/sshd", "ssh", "ssh-keygen"):
            if shutil.which(program) is None:
                lacking(f"{program} isn't installed")
        Path("/run/sshd").mkdir(
            exist_ok=True
        )  # sshd started by root wants it, and only the system's own start makes it
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self._config, self._known = folder / "config", folder / "known"
        for key in ("user", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        wrapper = (
            folder / "bin" / "ssh"
        )  # ssh reads the configuration of the user that the system knows, whatever HOME says
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self._config} "$@"\n')
        wrapper.chmod(0o755)
        self._servers: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def add(self, name: str, kit: Kit | None = None, *, force: str = "", **env: str) -> str:
        """Start a machine `name` with the engine of `kit`, or none; `force` is what it runs in place of what is asked."""
        programs = self.folder / f"{name}.bin"
        programs.mkdir()
        for program in (*_SYSTEM, *((Path(kit.find().words[0]), "runc") if kit else ())):
            found = shutil.which(program)
            assert found, program
            (programs / Path(program).name).symlink_to(found)
        port = _free()
        values = {**(kit.env if kit else {}), **env, "PATH": str(programs)}
        server = self.folder / f"{name}.conf"
        server.write_text(
            _SERVER.format(
                port=port,
                folder=self.folder,
                env=" ".join(f'"{key}={value}"' for key, value in values.items()),
                force=f"ForceCommand {force}" if force else "",
            )
        )
        words = ["/usr/sbin/sshd", "-D", "-e", "-f", str(server)]
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            self._servers.append(subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))
        self.know(name, port)
        self._wait(name, port)
        return name

    def know(self, name: str, port: int) -> str:
        """Tell the client where `name` is, whether or not somebody listens there."""
        with self._config.open("a") as stream:
            stream.write(_CLIENT.format(name=name, port=port, folder=self.folder, known=self._known))
        with self._known.open("a") as stream:
            stream.write(f"[127.0.0.1]:{port} {(self.folder / 'host.pub').read_text()}")
        return name

    def _wait(self, name: str, port: int) -> None:
        for _turn in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / f"{name}.log").read_text())

    def close(self) -> None:
        for server in self._servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def closed_port() -> int:
    """Return a port on which nobody listens."""
    return _free()


def script(text: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start a Python program that can be interrupted as a whole."""
    return subprocess.Popen(
        [sys.executable, "-c", text], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
