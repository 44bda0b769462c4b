"""The compose file: read by the published schema, by ``docker compose`` and by podman-compose, and started."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.image import compose, memory
from tests import compose_kit
from tests.engine_kit import Engines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.image.memory import Room

GIB = 1 << 30

#: The heaviest of FlashInfer's units: recipes/seeds/flashinfer.csv.
UNIT = 8441 << 20

TOKEN = "hf_not_in_the_file"  # noqa: S105  # of nobody


def write(
    folder: Path, *, image: str = "spark-vllm:1", model: str | None = "Qwen/Qwen3-8B", room: Room | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "compose.yaml"
    file.write_text(compose.text(image, model=model, room=room, cwd=folder))
    return file


#: In our own file: a key that isn't there, which both readers see, and a value of the wrong kind, which one doesn't.
WRONG_KEYS = (("image:", "imagee:"), ("start_period:", "start_perriod:"), ("  ulimits:", "  ulimit:"))
WRONG_VALUES = (("interval: 15s", "interval: 15parsecs"), ("stack: 67108864", "stack: {soft: many, hard: 1}"))


@pytest.mark.network
def test_both_readers_take_every_form_and_the_schema_alone_would_miss_wrong_values(tmp_path: Path) -> None:
    room = memory.plan(UNIT)
    good = [
        write(tmp_path / "name", room=room),
        write(tmp_path / "asked", model=None, room=room),
        write(tmp_path / "folder", model="./models/mine", room=memory.plan()),
        write(tmp_path / "own-memory", image="ghcr.io/some/where@sha256:" + "a" * 64),
    ]
    text = good[0].read_text()
    bad: dict[tuple[str, str], Path] = {}
    for this, that in (*WRONG_KEYS, *WRONG_VALUES):
        assert text.count(this) == 1
        bad[this, that] = tmp_path / str(len(bad)) / "compose.yaml"
        bad[this, that].parent.mkdir()
        bad[this, that].write_text(text.replace(this, that))
    assert compose_kit.refused(*good, *bad.values()) == {str(bad[change]) for change in WRONG_KEYS}
    for file in good:
        found = compose_kit.read(file, MODEL="Qwen/Qwen3-8B")
        assert found.code == 0, found.error
    for change, file in bad.items():
        assert compose_kit.read(file).code != 0, change


@pytest.mark.network
def test_what_the_server_is_started_with(tmp_path: Path) -> None:
    file = write(tmp_path, room=memory.plan(UNIT))
    server = compose_kit.read(file, HF_TOKEN=TOKEN).server
    assert server["image"] == "spark-vllm:1"
    assert server["pull_policy"] == "never"
    assert [*server["entrypoint"], *server["command"]] == [
        *("vllm", "serve", "Qwen/Qwen3-8B", "--host=0.0.0.0", "--port=8000", "--gpu-memory-utilization=0.70")
    ]
    assert server["deploy"]["resources"]["reservations"]["devices"] == [
        {"capabilities": ["gpu"], "driver": "nvidia", "count": -1}
    ]
    assert server["ulimits"] == {"memlock": -1, "stack": 64 << 20}
    assert (server["ipc"], int(server["shm_size"])) == ("private", 8 * GIB)
    assert int(server["mem_limit"]) == int(server["memswap_limit"]) == 30 * GIB
    assert server["environment"] == {"HF_TOKEN": TOKEN, "VLLM_API_KEY": None, "MAX_JOBS": "2"}
    assert [(one["host_ip"], one["published"], one["target"]) for one in server["ports"]] == [
        ("127.0.0.1", "8000", 8000)
    ]
    assert [(one["type"], one["target"]) for one in server["volumes"]] == [("volume", "/cache")]
    assert server["healthcheck"]["start_period"] == "1h0m0s"
    assert server["restart"] == "on-failure:3"


@pytest.mark.network
def test_what_is_set_when_it_starts(tmp_path: Path) -> None:
    file = write(tmp_path, model=None, room=memory.plan(UNIT))
    asked = compose_kit.read(file)
    assert asked.code != 0
    assert "write MODEL=Qwen/Qwen3-8B" in asked.error
    settings = ("MODEL=some/other", "GPU_MEMORY_UTILIZATION=0.5", "PORT=9", "BIND=0.0.0.0", "HOST_MEMORY=9g")
    (tmp_path / ".env").write_text("\n".join([*settings, f"HF_TOKEN={TOKEN}", ""]))
    server = compose_kit.read(file).server
    assert server["command"][0] == "some/other"
    assert server["environment"]["HF_TOKEN"] == TOKEN
    assert server["command"][-1] == "--gpu-memory-utilization=0.5"
    assert (server["ports"][0]["host_ip"], server["ports"][0]["published"]) == ("0.0.0.0", "9")  # noqa: S104  # asked for
    assert int(server["mem_limit"]) == 9 * GIB


@pytest.mark.network
def test_a_folder_of_any_name_is_bound_read_only(tmp_path: Path) -> None:
    for number, name in enumerate(("mine", "we ird", "ca$h ${X}", 'quo"te', "back\\slash", "é-模型", "#no: comment")):
        server = compose_kit.read(write(tmp_path / str(number), model=f"./m/{name}")).server
        assert server["command"][0] == "/model"
        assert server["command"][-1].replace("$$", "$") == f"--served-model-name={name}"
        (bound,) = (one for one in server["volumes"] if one["type"] == "bind")
        assert bound["source"].replace("$$", "$") == str(tmp_path / str(number) / "m" / name)
        assert bound["target"] == "/model"
        assert bound["read_only"]
        assert server["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_gpu_with_memory_of_its_own_gets_no_share(tmp_path: Path) -> None:
    found = write(tmp_path).read_text()
    for word in ("gpu-memory", "mem_limit", "MAX_JOBS", "oom_score"):
        assert word not in found


def test_never_a_token_nor_a_quantization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("VLLM_API_KEY", TOKEN)
    found = write(tmp_path, room=memory.plan(UNIT)).read_text()
    assert TOKEN not in found
    assert not re.search(r"^[^#\n]*quantization", found, re.MULTILINE)


@pytest.mark.parametrize("image", ["a", "spark/vllm:1", "localhost/spark-vllm:1", "localhost/a@sha256:" + "0" * 64])
def test_nobodys_image_of_that_name_is_fetched(image: str, tmp_path: Path) -> None:
    assert "pull_policy: never" in write(tmp_path, image=image).read_text()


@pytest.mark.parametrize("image", ["ghcr.io/a/b", "host:5000/a", "registry.example/a:1"])
def test_an_image_of_a_registry_may_be(image: str, tmp_path: Path) -> None:
    assert "pull_policy" not in write(tmp_path, image=image).read_text()


@pytest.mark.parametrize(
    "model",
    [
        "",
        "a/b/c",
        "-x",
        "a b",
        "a\nb",
        "x/..",
        "Qwen/a--b",
        "${HF_TOKEN}",
        "http://a/b",
        "./a\nb",
        "/",
        "./\x1b[31m",
        "x" * 97,
    ],
)
def test_what_is_no_model(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        compose.text("i", model=model, room=None, cwd=tmp_path)
    assert caught.value.code == "compose-model"
    assert any("--model ./" in line for line in caught.value.run)


def test_an_image_that_serves_nothing() -> None:
    compose.check({"vllm", "torch"})
    with pytest.raises(UsageError) as caught:
        compose.check({"torch"})
    assert caught.value.code == "compose-no-server"


# How memory is shared.


@pytest.mark.parametrize(
    ("unit", "compiles", "share", "jobs", "host_gib"),
    [(UNIT, True, 0.70, 2, 30), (UNIT, False, 0.80, 1, 18), (GIB, True, 0.80, 8, 18), (0, False, 0.80, 8, 18)],
)
def test_a_gb10_is_shared(unit: int, compiles: bool, share: float, jobs: int, host_gib: int) -> None:  # noqa: FBT001  # a table
    room = memory.plan(unit, compiles=compiles)
    assert (room.share, room.jobs, room.host_bytes // GIB) == (share, jobs, host_gib)


@given(
    unit=st.integers(0, 12 * GIB),
    total=st.integers(96 * GIB, 1024 * GIB),
    compiles=st.booleans(),
    share=st.none() | st.floats(0.05, 0.75),
)
def test_what_is_promised_fits_together(unit: int, total: int, compiles: bool, share: float | None) -> None:  # noqa: FBT001
    try:
        room = memory.plan(unit, total_bytes=total, compiles=compiles, share=share)
    except UsageError as error:
        assert error.code == "memory-share"  # noqa: PT017  # both outcomes are right; which is shown below
        return
    assert room.system_bytes >= max(6 * GIB, math.floor(total * 0.05))
    assert memory.SERVER_BYTES + room.jobs * max(unit, memory.UNIT_BYTES) <= room.host_bytes
    assert 0 < room.share <= 0.8
    assert room.jobs >= 1


def test_a_smaller_share_leaves_room_for_more_compilers() -> None:
    assert memory.plan(UNIT, share=0.60).jobs == 4
    assert memory.plan(UNIT, share=0.60).host_bytes > memory.plan(UNIT).host_bytes


@pytest.mark.parametrize("share", [0.0, -1.0, 0.9, 1.5, math.nan])
def test_a_share_that_leaves_too_little(share: float) -> None:
    with pytest.raises(UsageError) as caught:
        memory.plan(UNIT, share=share)
    assert caught.value.code == "memory-share"


def test_a_machine_that_is_too_small() -> None:
    with pytest.raises(UsageError) as caught:
        memory.plan(UNIT, total_bytes=24 * GIB)
    assert caught.value.code == "memory-share"


# Started, with a stand-in for the server and for what gives a container its GPU. This sandbox may not raise limits.


@pytest.mark.slow
def test_podman_compose_makes_the_same_of_it(tmp_path: Path) -> None:
    line = compose_kit.podman_line(write(tmp_path, room=memory.plan(UNIT)), HF_TOKEN=TOKEN)
    for words in (
        "--device nvidia.com/gpu=all",
        "-m 30g",
        "--shm-size 8g",
        "--ulimit memlock=-1",
        "--ulimit stack=67108864",
        f"-e HF_TOKEN={TOKEN}",
        "-p 127.0.0.1:8000:8000",
        "--health-start-period 60m",
        "--restart on-failure:3",
        "--pull=never",
        "destination=/cache",
        "--gpu-memory-utilization=0.70",
    ):
        assert words in line
    assert "VLLM_API_KEY" not in line


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.root
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_it_is_started(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    hook = tmp_path / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text(compose_kit.HOOK.format(asked=asked))
    hook.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hook.parent}:{os.environ['PATH']}")  # the daemon finds it there
    program = str(compose_kit.program()) if name == "docker" else compose_kit.podman_compose()
    engines = Engines(tmp_path_factory.mktemp("e"))  # short: sockets lie below
    kit = engines.get(name)
    try:
        compose_kit.image(kit, tmp_path / "image", "localhost/spark-vllm:1")
        (tmp_path / "models" / "mine $1").mkdir(parents=True)
        (tmp_path / "models" / "mine $1" / "config.json").touch()
        file = write(tmp_path, image="localhost/spark-vllm:1", model="./models/mine $1", room=memory.plan(UNIT))
        allowed = ("memlock: -1", "nofile: 20000\n      nproc: 4096")
        file.write_text(file.read_text().replace(*allowed))
        env = {**kit.environ(), "HF_TOKEN": TOKEN, "PORT": str(port := free_port())}
        with given_gpu(), started([program, "-f", file.name], tmp_path, env):
            told = compose_kit.told(port)
    finally:
        engines.close()
    assert told["args"] == [
        *("serve", "/model", "--host=0.0.0.0", "--port=8000", "--served-model-name=mine $1"),
        "--gpu-memory-utilization=0.70",
    ]
    assert (told["uid"], told["cache"], told["model"], told["model_writable"]) == (1000, True, ["config.json"], False)
    assert (told["shm"], told["stack"], told["limit"]) == (8 * GIB, 64 << 20, 30 * GIB)
    assert told["env"]["HF_TOKEN"] == TOKEN
    assert told["env"]["MAX_JOBS"] == "2"
    assert "VLLM_API_KEY" not in told["env"]
    assert (asked.read_text() == "prestart\n") if name == "docker" else (told["env"]["GPU_ASKED"] == "all")


@contextlib.contextmanager
def given_gpu() -> Iterator[None]:
    """Describe a device as the container toolkit does, where podman looks for it."""
    file = Path(f"/var/run/cdi/spark-build-test-{os.getpid()}.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(compose_kit.CDI))
    try:
        yield
    finally:
        file.unlink()
        with contextlib.suppress(OSError):
            file.parent.rmdir()


@contextlib.contextmanager
def started(words: list[str], cwd: Path, env: dict[str, str]) -> Iterator[None]:
    done = subprocess.run([*words, "up", "-d"], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield
    finally:
        subprocess.run([*words, "down", "-v"], cwd=cwd, env=env, capture_output=True, check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
