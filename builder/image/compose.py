"""``compose.yaml``: how a model server runs from an image, by ``docker compose`` or podman-compose.

The keys are those of the Compose Specification that both take; what one of them passes over (podman-compose: `ipc`,
`memswap_limit`, `oom_score_adj`) is never what the server needs to start. ``start_interval`` isn't among them: an engine
before 25 refuses it.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING

from builder.digest import sha256_bytes
from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from builder.image.memory import Room

__all__ = ["SERVER", "check", "is_as_written", "text"]

#: The package that serves.
SERVER = "vllm"

_GIB = 1 << 30

#: Where a model's folder is seen inside.
_MODEL = "/model"

#: What a model that nobody named is asked for with; compose prints it.
_ASKED = "${MODEL:?write MODEL=Qwen/Qwen3-8B, or another one, into the file .env beside this one}"

#: Begins the last line, which says what the others were. A file that was changed by hand isn't written over.
_STAMP = "# As it was written: "

#: A model of Hugging Face: OWNER/NAME, perhaps with one of its files' kinds (:Q4_K_M).
_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}(?::[\w.-]+)?", re.ASCII)

_HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What vLLM is told to serve; `folder` is bound to `_MODEL` where it is one of this machine's."""

    word: str
    folder: str = ""


def check(packages: Collection[str]) -> None:
    """Raise UsageError ``compose-no-server`` where an image of `packages` can't serve."""
    if SERVER not in packages:
        raise UsageError(
            "compose-no-server",
            f"the image has no {SERVER}: nothing in it serves a model",
            help="--compose is for an image with a server in it",
            run=(f"spark-build image {SERVER} -t TAG --compose",),
        )


def text(image: str, *, model: str | None, room: Room | None, cwd: Path) -> str:
    """Return the file's text.

    `model` is a name of Hugging Face, or a folder (it begins with ``/``, ``./`` or ``../``, below `cwd`), which is bound
    read-only and needs no hub; without one, compose asks for ``MODEL`` by name when it starts. `room` is how a memory that
    the GPU shares is shared; None for a GPU with its own. Raises UsageError ``compose-model``.
    """
    served = _model(model, cwd)
    lines = (*_head(image), *_service(image, served, room), "", "volumes:", "  cache:", "")
    body = "".join(f"{line}\n" for line in lines)
    return f"{body}{_STAMP}{_stamp(body.encode())}\n"


def is_as_written(data: bytes) -> bool:
    """Whether `data` is a file of `text` that nobody changed afterwards."""
    body, mark, stamp = data.rpartition(_STAMP.encode())
    return bool(mark) and stamp == f"{_stamp(body)}\n".encode()


def _stamp(body: bytes) -> str:
    return sha256_bytes(body)[:16]


def _model(text: str | None, cwd: Path) -> _Model:
    if text is None:
        return _Model(word=_ASKED)
    if text.startswith(("/", "./", "../")) or text in {".", ".."}:
        folder = posixpath.normpath(posixpath.join(str(cwd), text))
        if folder.isprintable() and folder.strip("/"):
            return _Model(word=_MODEL, folder=folder)
    elif _NAME.fullmatch(text) and "--" not in text and ".." not in text:
        return _Model(word=text)
    raise UsageError(
        "compose-model",
        f"{text!r} is no model",
        cause="wanted OWNER/NAME as Hugging Face has it, or a folder, which begins with / or ./",
        run=(
            f"spark-build image {SERVER} -t TAG --compose --model Qwen/Qwen3-8B",
            f"spark-build image {SERVER} -t TAG --compose --model ./models/mine",
        ),
    )


def _head(image: str) -> tuple[str, ...]:
    return (
        f"# A model server from {_comment(image)}. Start it: docker compose up -d (or podman-compose up -d)",
        "# Then: curl http://127.0.0.1:8000/v1/models; docker compose logs 2>&1 | spark-build doctor --log -",
        "services:",
        "  server:",
    )


def _service(image: str, model: _Model, room: Room | None) -> tuple[str, ...]:
    """Return the lines of the one service."""
    return tuple(
        f"    {line}" if line else ""
        for part in (_program(image, model, room), _settings(model, room), _bounds(room), _life())
        for line in part
    )


def _program(image: str, model: _Model, room: Room | None) -> tuple[str, ...]:
    words = [model.word if model.word == _ASKED else _plain(model.word), "--host=0.0.0.0", "--port=8000"]
    if model.folder:
        words.append(f"--served-model-name={_plain(posixpath.basename(model.folder))}")
    if room:
        words.append(f"--gpu-memory-utilization=${{GPU_MEMORY_UTILIZATION:-{room.share:.2f}}}")
    return (
        f"image: {_quoted(_plain(image))}",
        *(
            ("pull_policy: never  # it was built here: nobody's image of that name is fetched",)
            if _is_local(image)
            else ()
        ),
        'entrypoint: ["vllm", "serve"]',
        *(_shared(room) if room else ()),
        "# Quantization isn't named: vLLM reads it from the model.",
        "command:",
        *(f"  - {_quoted(word)}" for word in words),
    )


def _shared(room: Room) -> tuple[str, ...]:
    total, host, system = (size // _GIB for size in (room.total_bytes, room.host_bytes, room.system_bytes))
    return (
        f"# CPU and GPU share {total} GiB. Beside the model's part of it, {host} are for the server's processes and",
        f"# {room.jobs} compilers, {system} for the system. A part of more than 0.83 seldom starts on a GB10.",
    )


def _settings(model: _Model, room: Room | None) -> tuple[str, ...]:
    """Return what the server is given: variables, port, files."""
    return (
        "# Values that aren't written here come from the shell or from .env, and are left out where nobody set them.",
        "environment:",
        "  - HF_TOKEN",
        "  - VLLM_API_KEY",
        *((f"  - MAX_JOBS={room.jobs}",) if room else ()),
        *(("  - HF_HUB_OFFLINE=1",) if model.folder else ()),
        "# Seen from this machine only; BIND=0.0.0.0 opens it, and then VLLM_API_KEY should be set.",
        "ports:",
        '  - "${BIND:-127.0.0.1}:${PORT:-8000}:8000"',
        "volumes:",
        "  - cache:/cache  # models, and kernels that were compiled",
        *(
            (
                "  - type: bind",
                f"    source: {_quoted(_plain(model.folder))}",
                f"    target: {_MODEL}",
                "    read_only: true",
                "    bind:",
                "      create_host_path: false",
            )
            if model.folder
            else ()
        ),
    )


def _bounds(room: Room | None) -> tuple[str, ...]:
    """Return what it may take of the machine."""
    limit = f"${{HOST_MEMORY:-{room.host_bytes // _GIB}g}}" if room else ""
    memory = (
        (
            "# Of the processes, compilers among them: what the GPU takes isn't counted here. Without swap.",
            f"mem_limit: {_quoted(limit)}",
            f"memswap_limit: {_quoted(limit)}",
            "oom_score_adj: 500  # it goes before the system does",
        )
        if room
        else ()
    )
    return (
        "deploy:",
        "  resources:",
        "    reservations:",
        "      devices:",
        "        - driver: nvidia",
        "          count: all",
        "          capabilities: [gpu]",
        *memory,
        "ipc: private",
        "shm_size: 8g  # workers talk by shared memory, 64m without this",
        "ulimits:",
        "  memlock: -1",
        "  stack: 67108864",
        "security_opt:",
        "  - no-new-privileges",
    )


def _life() -> tuple[str, ...]:
    return (
        "# The first start fetches the model and compiles kernels; a failed check counts only after an hour of it.",
        "healthcheck:",
        f'  test: ["CMD", "python3", "-c", {_quoted(_HEALTH)}]',
        "  interval: 15s",
        "  timeout: 10s",
        "  retries: 4",
        "  start_period: 60m",
        "# Not after a reboot: a server that took the machine down would do it again. unless-stopped, once it fits.",
        "restart: on-failure:3",
        "stop_grace_period: 1m",
    )


def _is_local(image: str) -> bool:
    """Whether the name has no registry in it (the first part of a reference that has a dot or a port)."""
    host, slash, _rest = image.partition("/")
    return not slash or host == "localhost" or not re.search(r"[.:]", host)


def _quoted(text: str) -> str:
    """Return a string as YAML and JSON both write it."""
    return json.dumps(text, ensure_ascii=False)


def _plain(text: str) -> str:
    """Return a text that compose puts nothing into."""
    return text.replace("$", "$$")


def _comment(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text)
