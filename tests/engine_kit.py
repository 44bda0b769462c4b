"""Real container engines, each with a store of its own, and a Debian to begin images from.

An engine is chosen by environment alone, so that the command under test needs nothing of its own::

    kit = engines.get("buildah-chroot")
    world.run("image", "flashinfer", "-t", "x", "--base", kit.base("ready"), "--engine", kit.engine, **kit.env)

What takes long is made once: archives of bases stay in the user's cache, and the workers of a run share one daemon and one
store for each engine. The last worker that used them takes all of it away. Where an engine is missing the test is skipped;
in continuous integration (``CI`` is set) it fails.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from builder import proc
from builder.image.engines import find
from tests import bases
from tests.bases import CACHE, cached, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.image.engine import Engine

__all__ = ["CACHE", "NAMES", "Engines", "Kit", "cached", "engines", "kit", "lacking", "locked"]

#: The four that every image has to be built by.
NAMES = ("buildah-chroot", "buildah-oci", "podman", "docker")

#: What each needs of this machine.
_PROGRAMS = {
    "buildah-chroot": ("buildah", "unshare"),
    "buildah-oci": ("buildah", "runc"),
    "podman": ("podman", "runc"),
    "docker": ("docker", "dockerd"),
}

#: Without it the runtimes of Debian 12 raise limits that a container may not raise, and ask systemd for cgroups.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{tmp}"
"""

#: Runs a daemon in namespaces of its own, for no longer than the process that the first argument names.
_DAEMON = """
unshare -mp --propagation slave --fork --kill-child --mount-proc dockerd "$@" &
while kill -0 "$0" 2>/dev/null && kill -0 $! 2>/dev/null; do sleep 0.5; done
kill -9 $!
"""

_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{root}"
runroot = "{run}"
[storage.options]
additionalimagestores = [{more}]
"""


def wait_for_installation() -> None:
    """Return when continuous integration has installed what tests of images need, which it does beside others."""
    with locked(CACHE / ".install.lock"):
        pass


def lacking(what: str) -> NoReturn:
    """End a test that can't run here; in continuous integration that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; continuous integration has to have it")
    pytest.skip(what)


@dataclass(frozen=True)
class Kit:
    """One engine: `engine` is its name for ``--engine``, `env` what a process needs to reach this store of it."""

    name: str
    engine: str
    env: dict[str, str]
    folder: Path

    def __str__(self) -> str:
        return self.name

    def environ(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def find(self) -> Engine:
        return _found(self.engine, tuple(self.env.items()))

    def call(self, *words: str) -> str:
        """Run a command of the engine and return what it printed."""
        argv = [*self.find().words, *words]
        done = subprocess.run(argv, env=self.environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def base(self, name: str) -> str:
        """Return the tag of a base in this engine: ``tiny``, ``bare`` or ``ready``."""
        tag = f"localhost/spark-base:{name}"
        try:
            file = bases.archive(name)
        except FileNotFoundError as error:
            lacking(str(error))
        with locked(self.folder.parent / "bases.lock"):
            if self.engine == "docker":
                if not self.call("image", "ls", "-q", tag):
                    self.call(
                        "import",
                        "--change",
                        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        "--change",
                        'CMD ["/bin/sh"]',
                        str(file),
                        tag,
                    )
            else:
                self._import(file, tag)
        return tag

    def _import(self, file: Path, tag: str) -> None:
        """Put a base into the store that all of Podman and Buildah read."""
        env = {**self.environ(), "CONTAINERS_STORAGE_CONF": str(self.folder.parent / "bases" / "storage.conf")}

        def buildah(*words: str) -> str:
            return subprocess.run(
                ["buildah", *words], env=env, capture_output=True, text=True, check=True
            ).stdout.strip()

        if tag in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        name = buildah("from", "scratch")
        buildah("add", "-q", name, str(file), "/")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        buildah("config", "--os", "linux", "--env", path, "--cmd", "/bin/sh", name)
        buildah("commit", "-q", "--rm", "--format", "docker", name, tag)


@functools.cache
def _found(engine: str, env: tuple[tuple[str, str], ...]) -> Engine:
    return find({**os.environ, **dict(env)}, engine)


class Engines:
    """All engines of a run, in a folder that its workers share; each is started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> Kit:
        """Return one of `NAMES`; skip or fail where it can't be had."""
        wait_for_installation()
        for program in _PROGRAMS[name]:
            if shutil.which(program) is None:
                lacking(f"{program} isn't installed")
        if os.geteuid() != 0:
            lacking("stores of one's own need root")
        with locked(self.folder / "start.lock"):
            return self._docker() if name == "docker" else self._storage(name)

    def _storage(self, name: str) -> Kit:
        folder = _made(self.folder / name)
        bases = _made(self.folder / "bases")
        containers, storage = folder / "containers.conf", folder / "storage.conf"
        if not storage.exists():
            containers.write_text(_CONTAINERS.format(tmp=_made(folder / "libpod")))
            _made(bases / "root")
            for place, more in ((bases, ""), (folder, f'"{bases / "root"}"')):
                text = _STORAGE.format(root=place / "root", run=place / "run", more=more)
                (place / "storage.conf").write_text(text)
        env = {
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "TMPDIR": str(_made(folder / "tmp")),  # cache mounts lie there, outside of the store
        }
        if name.startswith("buildah"):
            env |= {"BUILDAH_ISOLATION": name.removeprefix("buildah-"), "BUILDAH_RUNTIME": "runc"}
        return Kit(name=name, engine=name.partition("-")[0], env=env, folder=folder)

    def _docker(self) -> Kit:
        folder = _made(self.folder / "docker")
        kit = Kit(name="docker", engine="docker", env={"DOCKER_HOST": f"unix://{folder}/d.sock"}, folder=folder)
        if not _alive(folder / "daemon"):
            self._start(kit)
        return kit

    def _start(self, kit: Kit) -> None:
        """Start a daemon of which nothing is left running or mounted when it is killed."""
        owner = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
        words = ["sh", "-c", _DAEMON, str(owner)]
        words += ["--iptables=false", "--ip6tables=false", "--bridge=none", "-H", kit.env["DOCKER_HOST"]]
        words += [
            "--data-root",
            f"{kit.folder}/data",
            "--exec-root",
            f"{kit.folder}/exec",
            "--pidfile",
            f"{kit.folder}/pid",
        ]
        log = kit.folder / "log"
        pid = proc.leave(words, env=os.environ, cwd=kit.folder, stdout=log, stderr=log)
        (kit.folder / "daemon").write_text(str(pid))
        until = time.monotonic() + 60
        while (
            subprocess.run(["docker", "version"], env=kit.environ(), capture_output=True, check=False).returncode != 0
        ):
            assert _alive(kit.folder / "daemon"), log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def close(self) -> None:
        """End the daemon and leave nothing mounted or stored."""
        if _alive(self.folder / "docker" / "daemon"):
            group = int((self.folder / "docker" / "daemon").read_text())
            os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # another worker's child
                os.waitpid(group, 0)
        for state in Path("/run/runc").glob("*/state.json"):  # of builds that were killed
            if f"{self.folder}/" in state.read_text():
                subprocess.run(["runc", "delete", "--force", state.parent.name], capture_output=True, check=False)
        for _ in range(50):  # what was just killed may still hold a mount
            if not (mounts := _mounts(self.folder)):
                break
            for where in mounts:
                subprocess.run(["umount", where], capture_output=True, check=False)
            time.sleep(0.1)
        assert not _mounts(self.folder)
        shutil.rmtree(self.folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _alive(file: Path) -> bool:
    """Whether the process whose number is in `file` runs."""
    if not file.exists():
        return False
    try:
        return Path(f"/proc/{file.read_text()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _mounts(folder: Path) -> list[str]:
    """Return what is mounted below `folder`, deepest first."""
    rows = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((row for row in rows if row.startswith(f"{folder}/")), key=len, reverse=True)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The engines of this run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    folder, users = shared / "engines", shared / "engines.users"
    with locked(shared / "engines.lock"):
        users.write_text("\n".join([*_users(users), str(os.getpid())]))
        _made(folder)
    yield Engines(folder)
    with locked(shared / "engines.lock"):
        left = [one for one in _users(users) if one != str(os.getpid())]
        users.write_text("\n".join(left))
        if not left and folder.exists():
            Engines(folder).close()


def _users(file: Path) -> list[str]:
    rows = file.read_text().split() if file.exists() else []
    return [row for row in rows if Path(f"/proc/{row}").exists()]


@pytest.fixture(params=NAMES)
def kit(request: pytest.FixtureRequest, engines: Engines) -> Kit:  # the fixture above
    """Each engine in turn."""
    return engines.get(request.param)
