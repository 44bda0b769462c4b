"""The final image, built for real: installed, checked and run with the network cut, by Buildah here and by all engines.

``pytest tests/test_image_build.py --slow`` builds one folder with all four, and a base without Python and compilers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.bundle import manifest
from builder.errors import BuildFailed
from builder.image import dockerfile
from builder.image.engine import Container, Order
from tests.bundle_kit import Index
from tests.engine_kit import kit  # noqa: F401  # a fixture
from tests.ship_kit import Hosts, closed_port
from tests.world import World

if TYPE_CHECKING:
    from tests.engine_kit import Engines, Kit

pytestmark = pytest.mark.root

#: Debian 13 has glibc 2.41 and Python 3.13.
TARGET = ["--platform", "x86_64-manylinux_2_39", "--target-python", "3.13"]

#: It can't be imported where any network is.
CUT = """\
NAMES = [line.partition(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
assert NAMES in ([], ["lo"]), NAMES
VALUE = 42
"""
ODD = "a \"b\" $HOME ${PATH} \\n 'c'"

INSIDE = """
import compileall, importlib.util, json, os, pathlib, sys, tiny, app
info = pathlib.Path("/usr/share/spark-build")
print(json.dumps({
    "value": tiny.VALUE,
    "compiled": pathlib.Path(importlib.util.cache_from_source(tiny.__file__)).exists(),
    "writable": os.access(tiny.__file__, os.W_OK),
    "uid": os.getuid(),
    "cache": os.access("/cache", os.W_OK),
    "left": [name for name in ("/bundle", "/tool", "/check", "/tmp/checked") if os.path.exists(name)],
    "share": sorted(str(one.relative_to(info)) for one in info.rglob("*") if one.is_file()),
    "odd": os.environ["ODD"],
    "tiny": os.environ["TINY"],
    "python": sys.executable,
}))
"""


def _made(folder: Path, *, imports: str = '"tiny"') -> World:
    """Return a world with a recipe whose wheel is built, and an index with others and uv."""
    world = World(folder)
    index = Index(world.root / "public")
    index.add("app", "2.0", requires=["base"], text=b"VALUE = 42\n")
    index.add("base", "1.0")
    index.add_uv()
    world.tiny_repo(text=CUT)
    world.tiny_recipe(more=f'[image]\nimports = [{imports}]\nenv = {{ TINY = "a b" }}\n')
    world.run("recipe", "tiny")
    return world


def _image(world: World, kit: Kit, *words: str, code: int = 0, base: str = "python") -> Any:  # noqa: ANN401, F811
    """Run the command for that engine's store and return what it prints."""
    env = {**kit.env, "SPARK_BUILD_INDEX_URL": (world.root / "public" / "simple").as_uri(), "UV_NO_CONFIG": "1"}
    return world.json("image", *words, "--base", kit.base(base), "--engine", kit.engine, code=code, **env)


def _looked(kit: Kit, tag: str) -> dict[str, Any]:  # noqa: F811
    ran = kit.find().run(tag, ["python", "-c", INSIDE], Container())
    assert ran.ok, ran.err
    found: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _made(tmp_path_factory.mktemp("final"))


@pytest.fixture(scope="module")
def chroot(engines: Engines) -> Kit:
    return engines.get("buildah-chroot")


@pytest.fixture(scope="module")
def image(world: World, chroot: Kit) -> dict[str, Any]:
    """The image of a wheel of ours and two others."""
    words = ["tiny", "app", "-t", "final:1", *TARGET, "--env", f"ODD={ODD}"]
    told: dict[str, Any] = _image(world, chroot, *words)["image"]
    return told


def test_what_is_inside_is_what_was_asked_for(image: dict[str, Any], chroot: Kit) -> None:
    inside = _looked(chroot, "final:1")
    assert inside["value"] == 42
    assert inside["odd"] == ODD
    assert inside["tiny"] == "a b"
    assert inside["python"] == "/opt/venv/bin/python"
    assert (inside["uid"], inside["cache"], inside["writable"]) == (1000, True, False)
    assert inside["compiled"]
    assert inside["left"] == []
    assert inside["share"][:4] == ["manifest.json", "pylock.toml", "requirements.txt", "sbom.cdx.json"]
    assert inside["share"][4].startswith("statements/tiny-1.0+sb")
    assert image["machine"] == "x86_64"


def test_an_image_says_what_it_is_made_of(image: dict[str, Any], chroot: Kit) -> None:
    found = chroot.find().inspect("final:1")
    ran = chroot.find().run("final:1", ["cat", "/usr/share/spark-build/manifest.json"], Container())
    assert found.labels["spark-build.manifest.sha256"] == manifest.identity(ran.raw) == image["manifest"]
    assert {one["project"] for one in json.loads(ran.raw)["wheels"]} == {"tiny", "app", "base"}
    assert found.labels["org.opencontainers.image.base.name"] == chroot.base("python")
    assert found.labels["spark-build.env"] == "/opt/venv"
    assert found.user == "1000"
    assert found.labels["org.opencontainers.image.created"].startswith("20")  # that of our wheel


def test_the_same_bundle_gives_the_same_layers(world: World, chroot: Kit, image: dict[str, Any]) -> None:
    words = ["tiny", "app", "-t", "final:2", *TARGET, "--env", f"ODD={ODD}"]
    again = _image(world, chroot, *words)["image"]
    assert again["manifest"] == image["manifest"]
    one, two = (chroot.find().inspect(tag) for tag in ("final:1", "final:2"))
    assert one.layers == two.layers
    assert one.same(two)


def test_what_does_not_import_gets_no_name(chroot: Kit, tmp_path: Path) -> None:
    world = _made(tmp_path, imports='"tiny", "nothere"')
    error = _image(world, chroot, "tiny", "-t", "final:bad", *TARGET, code=1)["error"]
    assert error["code"] == "image-build"
    assert "nothere" in error["cause"]
    assert "final:bad" not in chroot.call("images", "--format", "{{.Name}}:{{.Tag}}")


def test_a_wheel_that_was_swapped_in_the_folder_is_not_installed(
    world: World, chroot: Kit, image: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    written = _image(world, chroot, "tiny", "app", "--write", str(folder), *TARGET)["written"]
    assert written["system"] == image["system"]
    wheel = next(folder.glob("bundle/files/*/app-2.0*.whl"))
    data = wheel.read_bytes()
    wheel.unlink()  # a link into the cache
    wheel.write_bytes(data.replace(b"42", b"43"))
    said: list[str] = []
    order = Order(
        context=folder, file="Dockerfile", tag="final:swapped", args={"BASE": written["system"]}, network=False
    )
    with pytest.raises(BuildFailed):
        chroot.find().build(order, said.append)
    assert any(f"{wheel.name}: has other bytes" in line for line in said)


def test_a_bundle_that_is_not_whole_builds_nothing(world: World, chroot: Kit, tmp_path: Path) -> None:
    url = (world.root / "public" / "simple").as_uri()
    words = ["bundle", "export", str(tmp_path / "bundle"), "app", *TARGET]
    world.run(*words, SPARK_BUILD_INDEX_URL=url, UV_NO_CONFIG="1")
    shutil.copytree(tmp_path / "bundle", tmp_path / "other")
    script = tmp_path / "other" / "install.sh"
    script.write_text(script.read_text().replace("exec ", "id; exec "))
    error = _image(world, chroot, "--bundle", str(tmp_path / "other"), "-t", "final:3", code=5)["error"]
    assert error["code"] == "bundle-wrong"
    assert "install.sh" in error["cause"]
    told = _image(world, chroot, "--bundle", str(tmp_path / "bundle"), "--write", str(tmp_path / "folder"))["written"]
    folder = Path(told["path"])
    wheel = next(tmp_path.glob("bundle/files/*/app-2.0*.whl"))
    assert (folder / wheel.relative_to(tmp_path)).samefile(wheel)  # a link, no copy
    assert not (folder / "bundle" / "install.sh").samefile(tmp_path / "bundle" / "install.sh")
    assert (folder / "tool" / "builder" / "__init__.py").exists()


@pytest.fixture(scope="module")
def folder(world: World, engines: Engines) -> tuple[Path, str]:
    """One folder for all engines, and the name of its system."""
    kit = engines.get("buildah-chroot")  # noqa: F811
    words = ["tiny", "app", "--write", str(world.root / "folder"), *TARGET, "--env", f"ODD={ODD}"]
    written = _image(world, kit, *words)["written"]
    return Path(written["path"]), written["system"]


@pytest.mark.slow
def test_one_unchanged_folder_is_built_and_run_by_every_engine(kit: Kit, folder: tuple[Path, str]) -> None:  # noqa: F811
    place, system = folder
    engine, base = kit.find(), kit.base("python")
    order = Order(context=place, file=dockerfile.SYSTEM, tag=system, args={"BASE": base}, network=True, cached=True)
    engine.build(order, lambda _line: None)
    said: list[str] = []
    order = Order(context=place, file=dockerfile.FILE, tag="every:1", args={"BASE": system}, network=False)
    engine.build(order, said.append)
    assert any("not refused" in line for line in said), said  # the check stage was reached
    assert _looked(kit, "every:1")["value"] == 42


@pytest.mark.slow
def test_every_engine_is_driven_by_the_command(kit: Kit, world: World) -> None:  # noqa: F811
    told = _image(world, kit, "tiny", "app", "-t", "command:1", *TARGET, "--env", f"ODD={ODD}")["image"]
    assert told["engine"] == kit.engine
    assert _looked(kit, "command:1")["odd"] == ODD


@pytest.mark.slow
def test_an_image_is_built_here_and_run_there(world: World, chroot: Kit, engines: Engines, tmp_path: Path) -> None:
    podman, hosts = engines.get("podman"), Hosts(tmp_path / "ssh")
    try:
        hosts.add("spark-2", podman)
        words = ["tiny", "app", "-t", "there:1", *TARGET, "--env", f"ODD={ODD}", "--to", "spark-2", "nobody"]
        hosts.know("nobody", closed_port())
        env = {**chroot.env, **hosts.env, "SPARK_BUILD_INDEX_URL": (world.root / "public" / "simple").as_uri()}
        words += ["--base", chroot.base("python"), "--engine", "buildah"]
        told = world.json("image", *words, code=3, **env)["image"]
    finally:
        hosts.close()
    there, failed = told["hosts"]
    assert (there["host"], there["engine"], there["there"]) == ("spark-2", "podman", False)
    assert failed["error"]["code"].startswith("ship")
    assert podman.find().inspect("there:1").id == told["id"]
    assert _looked(podman, "there:1")["value"] == 42


@pytest.mark.slow
@pytest.mark.network
def test_what_the_base_lacks_is_installed_there(world: World, chroot: Kit) -> None:
    """A smallest Debian gets Python, compilers and headers from its distribution."""
    world.tiny_recipe(more='[image]\nimports = ["tiny"]\nneeds = ["compiler", "headers"]\nenv = { TINY = "a b" }\n')
    _image(world, chroot, "tiny", "app", "-t", "lacking:1", *TARGET, "--env", f"ODD={ODD}", base="bare")
    assert _looked(chroot, "lacking:1")["value"] == 42
    include = "import sysconfig, os; os.stat(sysconfig.get_path('include') + '/Python.h')"
    ran = chroot.find().run("lacking:1", ["sh", "-c", f'c++ --version && python -c "{include}"'], Container())
    assert ran.ok, ran.err


def test_a_folder_of_something_else_is_left_alone(world: World, chroot: Kit, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    error = _image(world, chroot, "app", "--write", str(tmp_path), *TARGET, code=2)["error"]
    assert error["code"] == "context-taken"
    assert [one.name for one in tmp_path.iterdir() if one.name != "engines.lock"] == ["notes.txt"]
