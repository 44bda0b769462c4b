"""Uploads of which every byte is ours, and what real clients send."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_file
from builder.wheel.read import parse_name
from builder.wheelhouse.publish import sidecar
from tests import wheelhouse_kit as kit
from tests.server_kit import serving, token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.server_kit import Answer, Server

BOUNDARY = b"5d5b3f4e0c6a"
PROGRAMS = Path(__file__).resolve().parent.parent / ".venv" / "bin"


@dataclass
class Taking:
    """A server that takes uploads, its wheelhouse, and who may do what there: `ci` and `team` publish, `boss` may all."""

    server: Server
    root: Path
    tokens: dict[str, str]


@contextlib.contextmanager
def taking(root: Path) -> Iterator[Taking]:
    """Serve a new wheelhouse at `root`; at the end nothing went wrong, and nothing is left of any upload."""
    tokens = {
        "ci": token(root, "ci", "publish"),
        "boss": token(root, "boss", "admin"),
        "reader": token(root, "reader", "read"),
        "team": token(root, "team", "publish", channels=("team/*",)),
    }
    with serving(root) as server:
        yield Taking(server, root, tokens)
        assert "Traceback" not in server.log
    nothing_left(root)


def wheel(tmp_path: Path, name: str, version: str = "1.0", **more: Any) -> Path:  # noqa: ANN401  # passed on
    """Write a wheel; `folder` tells those of the same name apart."""
    return kit.make_wheel(tmp_path / f"dist{more.pop('folder', '')}", name, version, **more)


def twine(url: str, token: str, *files: Path) -> subprocess.CompletedProcess[str]:
    words = ["twine", "upload", "--non-interactive", "--disable-progress-bar", "--verbose", "--repository-url", url]
    return _run([*words, "-u", "__token__", "-p", token, *map(str, files)], files[0].parent)


def uv(url: str, token: str, *files: Path, more: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    words = ["uv", "publish", "--no-config", "--publish-url", url, "-u", "__token__", "-p", token]
    return _run([*words, *more, *map(str, files)], files[0].parent)


def _run(words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    program = PROGRAMS / words[0]
    command = [str(program) if program.exists() else words[0], *words[1:]]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "400", "NO_COLOR": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    done.stdout += done.stderr
    return done


def fields(wheel: Path, data: bytes | None = None) -> dict[str, str]:
    """What a client says of a wheel."""
    name = parse_name(wheel.name)
    content = wheel.read_bytes() if data is None else data
    return {
        ":action": "file_upload",
        "protocol_version": "1",
        "name": name.project,
        "version": name.version,
        "filetype": "bdist_wheel",
        "pyversion": name.python,
        "metadata_version": "2.1",
        "sha256_digest": hashlib.sha256(content).hexdigest(),
        "blake2_256_digest": hashlib.blake2b(content, digest_size=32).hexdigest(),
    }


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    tail = f'; filename="{filename}"' if filename is not None else ""
    kind = "\r\nContent-Type: application/octet-stream" if filename is not None else ""
    return f'Content-Disposition: form-data; name="{name}"{tail}{kind}\r\n\r\n'.encode() + data


def form(parts: Iterable[bytes], boundary: bytes = BOUNDARY) -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + one + b"\r\n" for one in parts) + b"--" + boundary + b"--\r\n"


def upload(
    wheel: Path, *, data: bytes | None = None, filename: str | None = None, without: Iterable[str] = (), **changed: str
) -> bytes:
    """The form of a wheel, with some fields as told (an underscore at the end is dropped: ``_action`` is ``:action``)."""
    content = wheel.read_bytes() if data is None else data
    said = fields(wheel, content) | {name.replace("_action", ":action"): value for name, value in changed.items()}
    parts = [part(name, value.encode()) for name, value in said.items() if name not in set(without)]
    return form([*parts, part("content", content, wheel.name if filename is None else filename)])


def post(server: Server, body: bytes, token: str | None, path: str = "/legacy/", **headers: str) -> Answer:
    more = {"Authorization": f"Bearer {token}"} if token else {}
    given = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY.decode()}", **more, **headers}
    return server.ask(path, "POST", body, **given)


def stage(server: Server, token: str, wheel: Path, *, data: bytes | None = None, name: str | None = None) -> Answer:
    """Stage a wheel, or with `data` what lies beside it."""
    path = f"/api/staging/{hashlib.sha256(wheel.read_bytes()).hexdigest()}/{name or wheel.name}"
    return server.ask(path, "PUT", wheel.read_bytes() if data is None else data, Authorization=f"Bearer {token}")


def publish(server: Server, token: str, wheels: Iterable[Path], **more: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401  # any JSON
    named = [{"sha256": hashlib.sha256(one.read_bytes()).hexdigest(), "filename": one.name} for one in wheels]
    body = json.dumps({"wheels": named, **more}).encode()
    answer = server.ask("/api/publish", "POST", body, Authorization=f"Bearer {token}", Content_Type="application/json")
    return answer.status, json.loads(answer.body)


def listed(server: Server, project: str, channel: str = "") -> dict[str, str]:
    """File names and sha256 that a page offers."""
    path = f"{'/' if not channel else f'/{channel}/'}simple/{project}/"
    answer = server.ask(path, Accept="application/vnd.pypi.simple.v1+json")
    if answer.status != 200:
        return {}
    return {one["filename"]: one["hashes"]["sha256"] for one in json.loads(answer.body)["files"]}


def nothing_left(root: Path) -> None:
    """Assert that no upload is under way, and that catalogue and files agree."""
    deadline = time.monotonic() + 10  # who went away in the middle is cleaned up after, a moment later
    while left := [path for path in (root / "uploads").glob("*") if path.name != "staging"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    whole(root)


def whole(root: Path) -> dict[str, str]:
    """Assert that files and catalogue agree, and return names and sha256 of what is listed."""
    with kit.opened(root) as house:
        listed = house.list_wheels(include_unpublished=True)
    assert set((root / "wheels").rglob("*.whl")) == {one.path for one in listed}
    for one in listed:
        assert sha256_file(one.path) == one.sha256
        assert sidecar(one.path).exists()
    incoming = root / "wheels" / ".incoming"
    assert not incoming.exists() or not list(incoming.iterdir())
    return {one.filename: one.sha256 for one in listed}


def children(pid: int, word: str = "builder.server.worker") -> list[int]:
    """The processes below `pid` that run a Python module."""
    found = []
    for line in _every():
        if line[1] == pid:
            below = children(line[0], word)
            command = Path(f"/proc/{line[0]}/cmdline")
            own = command.exists() and word.encode() in command.read_bytes() and b"--tied" not in command.read_bytes()
            found += [*below, *([line[0]] if own else [])]
    return found


def _every() -> list[tuple[int, int]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found.append((int(entry.name), int(text[1])))
    return found


def headers(answer: Answer) -> Mapping[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}
