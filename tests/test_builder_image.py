"""The builder's image, made and used by every engine from a Debian 13: no registry is asked."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import BuildFailed
from builder.image import builder_file
from builder.image.engine import Container, Order
from tests import gb10_kit
from tests.engine_kit import cached, engines, kit, lacking  # noqa: F401
from tests.test_audit_publish import RECIPE

if TYPE_CHECKING:
    from tests.engine_kit import Engines, Kit
    from tests.world import World

ROOT = Path(__file__).resolve().parent.parent
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TAG = "localhost/spark-build:test"
SECRET = "not-to-be-found-in-any-layer"  # noqa: S105  # made up

pytestmark = [pytest.mark.slow, pytest.mark.root]


def order(kit: Kit, folder: Path, **args: str) -> Order:
    """Return what ``build -f Dockerfile.builder`` says, with secrets that must not stay."""
    configuration = folder / "pip.conf"
    configuration.write_text(f"# {SECRET}\n[global]\ntimeout = 60\n")
    certificates = folder / "ca.pem"
    certificates.write_text(f"# {SECRET}\n{CERTIFICATES.read_text()}")
    return Order(
        context=ROOT,
        file=builder_file.FILE,
        tag=TAG,
        network=True,
        args={"BASE": kit.base("bare"), "CUDA": ""} | args,
        secrets={"ca": certificates, "pip.conf": configuration},
    )


def made(kit: Kit, folder: Path) -> None:
    kit.find().build(order(kit, folder), print)


def used(kit: Kit, words: list[str], *mounts: str) -> str:
    """Run a command line of the image and return its stdout."""
    volumes = [word for one in (*mounts, f"{CERTIFICATES}:{CERTIFICATES}:ro") for word in ("-v", one)]
    if kit.engine != "buildah":
        return kit.call("run", "--rm", "--network", "host", *volumes, TAG, *words)
    name = kit.call("from", TAG)
    try:
        return kit.call("run", *volumes, name, "--", "spark-build", *words)
    finally:
        kit.call("rm", name)


def place(folder: Path) -> Path:
    """Return a folder for /data that the image's user can write, with the CUDA project and its recipe."""
    data = folder / "data"
    shutil.copytree(gb10_kit.PROJECT, data / "gb10ext")
    recipes = data / "config" / "spark-build" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "gb10ext.toml").write_text(RECIPE.format(source="/data/gb10ext"))
    subprocess.run(["chown", "-R", "1000:1000", data], check=True)
    for one in (folder, *folder.parents):  # pytest's folders are root's alone
        if one.stat().st_uid == os.geteuid() and one != Path("/"):
            one.chmod(one.stat().st_mode | 0o011)
    return data


@pytest.mark.cuda
def test_every_engine_makes_it_and_it_makes_cuda_wheels(kit: Kit, tmp_path: Path, world: World) -> None:
    made(kit, tmp_path)
    engine = kit.find()
    image = engine.inspect(TAG)
    assert (image.user, image.entrypoint) == ("1000", ("spark-build",))
    assert image.labels["org.opencontainers.image.base.name"] == kit.base("bare")
    data, cuda = place(tmp_path), f"{gb10_kit.toolkit()}:/usr/local/cuda:ro"
    wheel = used(kit, ["recipe", "gb10ext"], f"{data}:/data", cuda)
    assert wheel.startswith("/data/wheelhouse/wheels/gb10ext/gb10ext-0.1.0+sb")
    (report,) = json.loads(world.run("audit", str(data / wheel.removeprefix("/data/")), "--json").stdout)["reports"]
    assert (report["refused"], report["total"]["verdict"]) == (False, "native")
    # the volume keeps it: nothing is built again
    logs = list((data / "wheelhouse" / "builds").glob("*/logs/*/build.log"))
    assert used(kit, ["recipe", "gb10ext"], f"{data}:/data", cuda) == wheel
    assert list((data / "wheelhouse" / "builds").glob("*/logs/*/build.log")) == logs
    # nothing of what was given for the build alone is left
    assert SECRET not in kit.call("inspect", TAG)
    search = f"grep -rlsF {SECRET} /data /etc /home /opt /root /run /tmp /var || true"
    found = engine.run(TAG, ["sh", "-c", search], Container(user="0"))
    assert (found.code, found.out) == (0, "")


#: Run by the image's Python: what cuts a build off, and how much memory the gate sees.
LEVEL = """
import os
from builder.executor import isolation
from builder.host.memory import memory
print(isolation.probe(os.environ, wanted="auto").level, memory().cgroup_limit_bytes)
"""

#: Starts the broker, or finds the one that lives, and says which; then waits, as a build would.
BROKER = """
import os, sys, time
from builder.gate import place
found = place.folder(os.environ)
print(found, "found" if place.connect(found) else place.reach(found) and "started", flush=True)
time.sleep(float(sys.argv[1]))
"""


def python(kit: Kit, code: str, *options: str, word: str = "0") -> str:
    entry = ("--network", "none", "--entrypoint", "/opt/spark-build/bin/python")
    return kit.call("run", *options, *entry, TAG, "-c", code, word)


def test_what_docker_allows_a_build_inside(engines: Engines, tmp_path: Path) -> None:
    """The ways that docs/images.md names for isolation and memory."""
    kit = engines.get("docker")
    made(kit, tmp_path)
    assert python(kit, LEVEL, "--rm", "-m", "3g").split() == ["seccomp", str(3 << 30)]
    assert python(kit, LEVEL, "--rm", "--security-opt", "seccomp=unconfined").split()[0] == "namespace"
    assert python(kit, LEVEL, "--rm", "--cap-add", "SYS_ADMIN").split()[0] == "seccomp"
    folder = tmp_path / "gate"
    folder.mkdir()
    folder.chmod(0o1777)
    shared = ("-v", f"{folder}:/run/spark-build")
    first = python(kit, BROKER, "-d", *shared, word="600")
    deadline = time.monotonic() + 60
    while not (said := kit.call("logs", first)):
        assert time.monotonic() < deadline
    assert said == "/run/spark-build started"
    assert python(kit, BROKER, "--rm", *shared) == "/run/spark-build found"
    kit.call("rm", "-f", first)
    assert python(kit, BROKER, "--rm", *shared) == "/run/spark-build started"


@pytest.mark.cuda
def test_flashinfer_is_made_inside(engines: Engines, tmp_path: Path, world: World) -> None:
    kit = engines.get("docker")
    made(kit, tmp_path)
    data = place(tmp_path)
    wheel = used(kit, ["recipe", "flashinfer"], f"{data}:/data", f"{gb10_kit.toolkit()}:/usr/local/cuda:ro")
    (report,) = json.loads(world.run("audit", str(data / wheel.removeprefix("/data/")), "--json").stdout)["reports"]
    assert report["refused"] is False


def test_a_base_without_a_toolkit_or_a_repository_that_has_one_is_refused(engines: Engines, tmp_path: Path) -> None:
    kit = engines.get("buildah-chroot")
    with pytest.raises(BuildFailed) as refused:
        kit.find().build(order(kit, tmp_path, CUDA="13-0"), print)
    assert "BASE has no nvcc" in refused.value.cause


def test_a_base_whose_compilers_are_too_old_is_refused(engines: Engines, tmp_path: Path) -> None:
    """Debian 12 has gcc 12 and clang 14."""
    kit = engines.get("docker")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "--include=ca-certificates", "bookworm"]
    if shutil.which(words[0]) is None:
        lacking("mmdebstrap isn't installed")

    def make(file: Path) -> None:
        subprocess.run([*words, file], check=True)

    kit.call("import", str(cached("base-old.tar", make)), "localhost/spark-base:old")
    with pytest.raises(BuildFailed) as refused:
        kit.find().build(order(kit, tmp_path, BASE="localhost/spark-base:old"), print)
    assert "g++ >=13" in refused.value.cause
    assert "clang++ >=17" in refused.value.cause
