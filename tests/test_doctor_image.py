"""``doctor --image`` and the folder that goes with it: spark-build where nothing of it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder.digest import sha256_bytes
from builder.errors import UsageError
from builder.runtime import portable
from tests.doctor_kit import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine_kit import Engines
    from tests.world import World


#: What stands for the Python of an image that means no good.
EVIL = """\
#!/bin/sh
[ "$1" = -c ] || printf '{"findings":[{"id":"\\\\u001b]0;x","status":"fine","found":1,"run":[]}]}'
"""


def digests(folder: Path) -> dict[str, str]:
    return {str(one.relative_to(folder)): sha256_bytes(one.read_bytes()) for one in folder.rglob("*") if one.is_file()}


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portable") / "tool"
    portable.write(folder)
    return folder


def ran(tool: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it with no site-packages, no home and no other variable."""
    env = {"PYTHONPATH": str(tool), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    argv = [sys.executable, "-S", "-B", "-m", "builder", *words]
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, check=False)


def test_it_is_the_same_each_time_and_no_machine_code(tool: Path, tmp_path: Path) -> None:
    portable.write(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(tool)
    heads = {one.read_bytes()[:4] for one in tool.rglob("*") if one.is_file()}
    assert b"\x7fELF" not in heads
    assert not list(tool.rglob("*.pyc"))
    assert sum(one.stat().st_size for one in tool.rglob("*") if one.is_file()) < 10 << 20


def test_it_looks_at_an_environment(tool: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    place.torch(cuda=None)
    done = ran(tool, "doctor", "--env", str(place.root), "--json")
    assert (done.returncode, done.stderr) == (5, "")
    failures = [one["failure"] for one in json.loads(done.stdout)["findings"] if one["status"] == "problem"]
    assert failures == ["torch-cpu"]


def test_it_knows_the_recipes_imports(tool: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    place.torch()
    place.install("flashinfer-python", "0.7.4", {"flashinfer/__init__.py": "raise ImportError('as it is')\n"})
    done = ran(tool, "doctor", "--env", str(place.root), "--json")
    assert "import flashinfer: ImportError: as it is" in done.stdout


def test_it_audits_an_environment(tool: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    place.torch()
    done = ran(tool, "audit", "--env", str(place.root), "--json")
    assert (done.returncode, json.loads(done.stdout)["target"]) == (0, "12.1"), done.stderr


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        portable.write(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["own"]


@pytest.mark.root
def test_an_image_is_looked_into(world: World, engines: Engines, tmp_path: Path) -> None:  # the fixture
    """Run by another Python than ours, as the image's user; its variables and labels count, the host's don't."""
    kit = engines.get("buildah-chroot")
    place = Place(tmp_path / "made")
    place.torch(cuda=None)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {kit.base('python')}\nRUN python3 -m venv --without-pip /opt/serve\n"
        "COPY site /tmp/site\nRUN cp -r /tmp/site/. /opt/serve/lib/python3*/site-packages/\n"
        "ENV TRITON_PTXAS_PATH=/nowhere\nLABEL spark-build.env=/opt/serve\nUSER 1000\n"
    )
    place.site.rename(tmp_path / "site")
    kit.call("bud", "--format", "docker", "-t", "localhost/broken:1", "-f", str(tmp_path / "Dockerfile"), str(tmp_path))
    words = ("--image", "localhost/broken:1", "--engine", kit.engine)
    found = world.json("doctor", *words, code=5, **kit.env)["findings"]
    assert "in /opt/serve" in found[0]["found"]
    assert [one["failure"] for one in found if one["status"] == "problem"] == ["torch-cpu"]
    assert next(one["run"] for one in found if one["id"] == "torch")[0].startswith(
        "uv pip install --python /opt/serve/bin/python"
    )
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "python").write_text(EVIL)
    (evil / "python").chmod(0o755)
    (evil / "Dockerfile").write_text(f"FROM {kit.base('tiny')}\nCOPY python /opt/venv/bin/python\n")
    kit.call("bud", "-t", "localhost/evil:1", "-f", str(evil / "Dockerfile"), str(evil))
    done = world.run("doctor", "--image", "localhost/evil:1", "--engine", kit.engine, code=3, **kit.env)
    assert "error[not-looked]" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    done = world.run("doctor", *words, "--env", "/nothing", code=3, **kit.env)
    assert "error[not-looked]" in done.stderr
    assert (
        "error[image-missing]"
        in world.run("doctor", "--image", "localhost/none:1", "--engine", kit.engine, code=2, **kit.env).stderr
    )
