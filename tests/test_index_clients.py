"""pip and uv install from the tree: the proof that it is an index."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import index
from tests.index_kit import UV, Client, Server, serve
from tests.wheel_kit import contents, open_house, publish, set_state, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.wheelhouse import Wheelhouse

OLD, NEW = "sb20261123101112.gffffffffff", "sb20261124101112.g0000000000"


@pytest.fixture(scope="session")
def pip_python() -> Path:
    """An interpreter with pip: our own, or the one that SPARK_BUILD_TEST_PIP names."""
    return Path(os.environ.get("SPARK_BUILD_TEST_PIP", sys.executable))


@pytest.fixture(params=["pip", "uv"])
def client(request: pytest.FixtureRequest, tmp_path: Path, pip_python: Path) -> Client:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
    (tmp_path / "cache").mkdir()
    return Client(name=request.param, pip_python=pip_python, venv=venv, cache=tmp_path / "cache")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with open_house(tmp_path / "house with a +") as opened:
        yield opened


@contextlib.contextmanager
def reachable(way: str, dest: Path) -> Iterator[Server]:
    if way == "file":
        yield Server(url=(dest / "simple").as_uri(), requests=[])
    else:
        with serve(dest) as server:
            yield server


ways = pytest.mark.parametrize("way", ["file", "http"])


@ways
def test_labelled_wheel_is_installed_by_its_plain_version(
    tmp_path: Path, house: Wheelhouse, client: Client, way: str
) -> None:
    publish(house, tmp_path, "Tiny_Name", version="1.0+cu130", label=NEW, files={"tiny.py": b"VALUE = 7\n"})
    dest = index.export(house, tmp_path / "dest").path
    with reachable(way, dest) as server:
        done = client.install(server.url, "tiny-name==1.0")
    assert done.returncode == 0, done.stderr
    assert client.version("tiny-name") == f"1.0+{NEW}.cu130"
    assert client.run(str(client.python), "-c", "import tiny; print(tiny.VALUE)").stdout == "7\n"


def test_wheelhouses_own_index_serves_at_once(tmp_path: Path, house: Wheelhouse, client: Client) -> None:
    publish(house, tmp_path, label=NEW)
    index.refresh(house)
    assert client.install(index.index_url(house), "tiny").returncode == 0
    assert client.version("tiny") == f"1.0+{NEW}"


@ways
def test_tampered_wheel_is_refused(tmp_path: Path, house: Wheelhouse, client: Client, way: str) -> None:
    wheel = publish(house, tmp_path)
    dest = index.export(house, tmp_path / "dest").path
    evil = write(
        tmp_path / wheel.filename, contents("tiny", wheel.version, {"tiny/__init__.py": b"VALUE = 'stolen'\n"})
    )
    evil.replace(dest / "files" / wheel.sha256 / wheel.filename)
    with reachable(way, dest) as server:
        done = client.install(server.url, "tiny")
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
    assert client.version("tiny") is None


@ways
def test_later_label_wins_and_an_environment_moves_to_it(
    tmp_path: Path, house: Wheelhouse, client: Client, way: str
) -> None:
    publish(house, tmp_path, label=OLD)
    dest = index.export(house, tmp_path / "dest").path
    with reachable(way, dest) as server:
        assert client.install(server.url, "tiny==1.0").returncode == 0
        assert client.version("tiny") == f"1.0+{OLD}"
        publish(house, tmp_path, label=NEW, files={"tiny/__init__.py": b"VALUE = 2\n"})
        index.export(house, dest)
        done = client.install(server.url, "--upgrade", "tiny==1.0")
        assert done.returncode == 0, done.stderr
        assert client.version("tiny") == f"1.0+{NEW}"


@ways
def test_yanked_is_skipped_and_requires_python_is_respected(
    tmp_path: Path, house: Wheelhouse, client: Client, way: str
) -> None:
    publish(house, tmp_path, version="1.0")
    yanked = publish(house, tmp_path, version="2.0")
    set_state(house, yanked, "yanked")
    publish(house, tmp_path, version="3.0", headers=["Requires-Python: >=4.0, <5"])
    set_state(house, publish(house, tmp_path, version="4.0"), "quarantined")
    dest = index.export(house, tmp_path / "dest").path
    with reachable(way, dest) as server:
        done = client.install(server.url, "tiny")
        assert done.returncode == 0, done.stderr
        assert (client.version("tiny") or "").startswith("1.0+")
        assert not [line for line in server.requests if "/tiny-3.0" in line]  # the page alone said that it doesn't fit
        assert client.install(server.url, "tiny==4.0").returncode != 0
        # Yanked isn't gone: a lock that names the whole version still gets it.
        assert client.install(server.url, f"tiny=={yanked.version}").returncode == 0
        assert client.version("tiny") == yanked.version


def test_metadata_is_read_beside_the_wheel(tmp_path: Path, house: Wheelhouse, client: Client) -> None:
    publish(house, tmp_path, "base", version="1.5")
    publish(house, tmp_path, version="1.0", headers=["Requires-Dist: base>=1"], files={"tiny.bin": os.urandom(2 << 20)})
    dest = index.export(house, tmp_path / "dest").path
    with serve(dest) as server:
        if client.name == "uv":
            asked = tmp_path / "requirements.in"
            asked.write_text("tiny\n")
            done = client.run(str(UV), "pip", "compile", "--default-index", server.url, "--generate-hashes", str(asked))
        else:
            done = client.install(server.url, "--dry-run", "--ignore-installed", "--report", "-", "--quiet", "tiny")
    assert done.returncode == 0, done.stderr
    assert "base" in done.stdout
    assert "tiny" in done.stdout
    assert len([line for line in server.requests if line.endswith(".metadata")]) == 2
    if client.name == "uv":  # pip fetches wheels for a report, too
        assert server.wheels() == []


def test_tampered_metadata_is_refused(tmp_path: Path, house: Wheelhouse, client: Client) -> None:
    wheel = publish(house, tmp_path)
    dest = index.export(house, tmp_path / "dest").path
    sidecar = dest / "files" / wheel.sha256 / f"{wheel.filename}.metadata"
    sidecar.write_bytes(sidecar.read_bytes() + b"Requires-Dist: evil\n")
    with serve(dest) as server:
        assert client.install(server.url, "tiny").returncode != 0
    assert client.version("tiny") is None


def test_name_of_which_all_is_withheld_does_not_fall_to_the_next_index(
    tmp_path: Path, house: Wheelhouse, client: Client
) -> None:
    if client.name == "pip":
        pytest.skip("pip joins its indexes whatever they answer; only one index is safe with it")
    set_state(house, publish(house, tmp_path, label=NEW), "quarantined")
    ours = index.export(house, tmp_path / "ours").path
    with open_house(tmp_path / "stranger") as other:
        publish(other, tmp_path / "x", version="99.0")
        theirs = index.export(other, tmp_path / "theirs").path
    with serve(ours) as server, serve(theirs) as stranger:
        done = client.install(stranger.url, "--index", server.url, "tiny")
    assert done.returncode != 0
    assert client.version("tiny") is None


def test_installed_files_are_those_of_the_wheel(tmp_path: Path, house: Wheelhouse, client: Client) -> None:
    """`.data` folders and executables survive the label."""
    files = {
        "tiny/__init__.py": b"",
        "tiny-1.0.data/scripts/tiny-run": b"#!python\nprint('ran')\n",
        "tiny-1.0.data/data/share/tiny/x": b"shared",
    }
    wheel = publish(house, tmp_path, files=files, modes={"tiny-1.0.data/scripts/tiny-run": 0o755})
    with zipfile.ZipFile(wheel.path) as archive:
        assert f"tiny-{wheel.version}.data/scripts/tiny-run" in archive.namelist()
    index.refresh(house)
    assert client.install(index.index_url(house), "tiny").returncode == 0
    assert client.run(str(client.venv / "bin" / "tiny-run")).stdout == "ran\n"
    assert (client.venv / "share" / "tiny" / "x").read_bytes() == b"shared"
