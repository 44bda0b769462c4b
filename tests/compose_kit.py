"""Independent readers of a compose file, none of which needs a daemon, and a stand-in for the server in it.

The published schema finds unknown keys and misses wrong values; ``docker compose config`` finds both, and puts variables in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import engine_kit

if TYPE_CHECKING:
    from tests.engine_kit import Kit

#: Where the program comes from: Debian's archive, whose key is installed; Debian 12 itself has an older one only.
_SUITE = "trixie"

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_INSIDE = "usr/libexec/docker/cli-plugins/docker-compose"


def program() -> Path:
    """Return ``docker compose`` as a program of its own, out of Debian 13's package; it is fetched once a machine."""
    for needed in ("apt-get", "dpkg-deb"):
        if shutil.which(needed) is None:
            engine_kit.lacking(f"{needed} isn't installed")
    return engine_kit.cached(f"docker-compose-{_SUITE}", _fetch)


def _fetch(file: Path) -> None:
    """Fetch and unpack the package by an apt of its own, which changes nothing of this machine's."""
    root = file.with_suffix(".apt")
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "deb"):
        (root / folder).mkdir(parents=True)
    (root / "sources").write_text(f"deb [signed-by={_KEYRING}] {_archive()} {_SUITE} main\n")
    (root / "conf").write_text(
        f'Dir::Etc::sourcelist "{root}/sources";\nDir::Etc::sourceparts "-";\nDir::State::lists "{root}/lists";\n'
        f'Dir::Cache "{root}/cache";\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(root / "conf")}
    for words in (["apt-get", "-q", "update"], ["apt-get", "-q", "download", "docker-compose"]):
        done = subprocess.run(words, env=env, cwd=root / "deb", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (package,) = (root / "deb").glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(root / "tree")], check=True)
    (root / "tree" / _INSIDE).rename(file)
    shutil.rmtree(root)


def _archive() -> str:
    """Return the archive that this machine installs from, which isn't the one for security alone."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return next(one for one in found if "security" not in one)


@dataclass
class Read:
    """What ``docker compose config`` said of a file."""

    code: int
    error: str
    text: str

    @property
    def server(self) -> dict[str, Any]:
        """The one service, as it would be started."""
        services = json.loads(self.text)["services"]
        assert list(services) == ["server"]
        service: dict[str, Any] = services["server"]
        return service


def read(file: Path, **env: str) -> Read:
    """Read a compose file as it would be started with `env`, and nothing else, in the shell."""
    words = [str(program()), "-f", str(file), "config", "--format", "json"]
    done = subprocess.run(words, env=_env(env), cwd=file.parent, capture_output=True, text=True, check=False)
    return Read(code=done.returncode, error=done.stderr, text=done.stdout)


def refused(*files: Path) -> set[str]:
    """Return which of `files` the schema of the Compose Specification refuses."""
    words = [_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "-o", "json", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert not told.get("parse_errors"), told
    return {str(one["filename"]) for one in told["errors"]}


def podman_line(file: Path, **env: str) -> str:
    """Return the ``podman create`` that podman-compose would start; neither podman nor a store is asked."""
    words = [podman_compose(), "--verbose", "--dry-run", "-f", file.name, "up", "-d"]
    done = subprocess.run(words, env=_env(env), cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (one for one in done.stderr.splitlines() if "podman create" in one)
    return line.partition("podman create ")[2]


def podman_compose() -> str:
    """Return the program, which nothing of ours installs; without it a test is skipped."""
    found = shutil.which("podman-compose")
    if found is None:
        pytest.skip("podman-compose isn't installed")
    return found


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _env(more: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **more}


#: Stands in for vLLM: answers as its health check wants, and tells how it was started.
SERVER = """\
#!/usr/bin/env python3
import json, os, resource, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMITS = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        shm = os.statvfs("/dev/shm")
        told = {
            "args": sys.argv[1:],
            "env": dict(os.environ),
            "uid": os.getuid(),
            "stack": resource.getrlimit(resource.RLIMIT_STACK)[0],
            "shm": shm.f_blocks * shm.f_frsize,
            "cache": os.access("/cache", os.W_OK),
            "model": os.listdir("/model") if os.path.exists("/model") else None,
            "model_writable": os.access("/model", os.W_OK),
            "limit": int(next(open(path).read() for path in LIMITS if os.path.exists(path))),
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY vllm /usr/local/bin/vllm
RUN useradd -u 1000 -m user && mkdir /cache && chown 1000:1000 /cache
USER 1000
"""


#: What the container toolkit of NVIDIA does for docker and podman, without a GPU: say that it was asked.
HOOK = """\
#!/bin/sh
cat >/dev/null
echo "$@" >>'{asked}'
"""
CDI = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "all", "containerEdits": {"env": ["GPU_ASKED=all"]}}],
}


def image(kit: Kit, folder: Path, tag: str) -> None:
    """Build the stand-in for a final image in an engine's store."""
    folder.mkdir()
    (folder / "vllm").write_text(SERVER)
    (folder / "vllm").chmod(0o755)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    words = ["build", "-q", *(["--format", "docker"] if kit.engine == "podman" else [])]
    kit.call(*words, "--build-arg", f"BASE={kit.base('ready')}", "-t", tag, str(folder))


def told(port: int) -> dict[str, Any]:
    """Return what the stand-in says of how it was started."""
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
