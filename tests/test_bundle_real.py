"""The drill with the real projects: FlashInfer from our build, Triton's own wheel, torch for CUDA 13, and no network.

Takes some minutes, the package index, 3.5 GB of downloads and 15 GB of disk.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.bundle_kit import HERE, cut_off, manifest
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.cuda, pytest.mark.root]

IMPORTS = """
import json, pathlib, torch, triton, flashinfer
library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
print(json.dumps({
    "cuda": torch.version.cuda, "library": library.exists(), "arch": torch.cuda.get_arch_list(),
    "flashinfer": flashinfer.__version__, "interfaces": open("/proc/net/dev").read().count(":"),
}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("real"))
    world.run("recipe", "flashinfer")
    world.run("bundle", "export", "bundle", "flashinfer-python", "triton", "torch", *HERE, "--with-sources")
    return world


def test_all_of_it_installs_and_imports_without_a_network(exported: World, tmp_path: Path) -> None:
    document = manifest(exported.root / "bundle")
    rows = {one["project"]: one for one in document["wheels"]}
    assert rows["flashinfer-python"]["ours"]["recipe"] == "flashinfer"
    assert len(rows) > 40
    assert document["target"]["cuda"].startswith("13.")
    assert document["target"]["driver"] == 580
    venv = tmp_path / "venv"
    try:
        done = cut_off(["sh", str(exported.root / "bundle" / "install.sh"), str(venv)])
        assert done.returncode == 0, done.stderr
        ran = cut_off([str(venv / "bin" / "python"), "-c", IMPORTS])
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(venv, ignore_errors=True)
    assert told["cuda"].startswith("13.")
    assert told["library"]
    assert any(arch.startswith("sm_12") for arch in told["arch"])
    assert told["flashinfer"] == rows["flashinfer-python"]["version"]
    assert told["interfaces"] == 1


def test_flashinfer_is_built_again_bit_by_bit_behind_the_gap(exported: World) -> None:
    far = World(exported.root / "far")
    env = {"UV_CACHE_DIR": str(far.root / "uv")}
    words = ["bundle", "import", str(exported.root / "bundle")]
    done = cut_off([str(COMMAND), *words], env=far.env(**env), cwd=far.root)
    assert done.returncode == 0, done.stderr
    ref = far.json("wheels", "list")["wheels"][0]["fingerprint"]
    env["SPARK_BUILD_INDEX_URL"] = (exported.root / "bundle" / "simple").as_uri()
    rebuilt = cut_off([str(COMMAND), "rebuild", ref, "--check", "--offline"], env=far.env(**env), cwd=far.root)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "the same, bit by bit" in rebuilt.stdout
