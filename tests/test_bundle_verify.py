"""The other side: each way in which a bundle can be wrong is seen before anything is installed; what is right goes in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder.bundle import manifest as manifests
from builder.digest import sha256_file
from builder.errors import CheckRefused, UsageError
from tests.bundle_kit import Index, cut_off, export, manifest, public
from tests.test_signature import allow, make_key
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return public(tmp_path / "public")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user with alice's key, who may sign, and with a bundle that she signed."""
    world = World(tmp_path_factory.mktemp("alice"))
    key = make_key(world.root, "alice")
    (world.config / "config.toml").write_text(f'[signing]\nkey = "{key}"\nsigners = "{allow(key)}"\n')
    export(world, public(world.root / "public").url, "app")
    return world.root


@pytest.fixture
def bundle(world: World, signed: Path) -> Path:
    """A bundle that alice signed, in a world where her signature holds."""
    shutil.copy(signed / "signers", world.root)
    (world.config / "config.toml").write_text(f'[signing]\nsigners = "{world.root / "signers"}"\n')
    shutil.copytree(signed / "bundle", world.root / "bundle")
    return world.root / "bundle"


def wheel(folder: Path, name: str) -> Path:
    return next(folder.glob(f"files/*/{name}-*.whl"))


def flip(folder: Path) -> None:
    file = wheel(folder, "app")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    _replace(file, bytes(data))


def swap(folder: Path) -> None:
    one, other = wheel(folder, "app"), wheel(folder, "base")
    first, second = one.read_bytes(), other.read_bytes()
    _replace(one, second)
    _replace(other, first)


def _replace(file: Path, data: bytes) -> None:
    """Put a file in the place of one that may be a link into the cache."""
    file.unlink()
    file.write_bytes(data)


def retold(folder: Path) -> None:
    """A wheel with other bytes, and a manifest that agrees."""
    flip(folder)
    document, file = manifest(folder), wheel(folder, "app")
    document["files"][str(file.relative_to(folder))]["sha256"] = sha256_file(file)
    (folder / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def stale(folder: Path) -> None:
    """The signature of an earlier bundle."""
    document = manifest(folder)
    document["asked"] = ["app>=2"]
    (folder / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def foreign(folder: Path) -> None:
    key = make_key(folder.parent, "mallory")
    (folder / "manifest.json.sig").unlink()
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "spark-build", str(folder / "manifest.json")],
        check=True,
    )


def linked(folder: Path) -> None:
    file = wheel(folder, "app")
    copy = file.rename(folder.parent / file.name)
    file.symlink_to(copy)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "has other bytes"),
        (swap, "bytes, wanted"),
        (lambda folder: wheel(folder, "base").unlink(), "is missing"),
        (lambda folder: (folder / "install.sh").write_text("#!/bin/sh\nid\n"), "install.sh: has"),
        (lambda folder: (folder / "files" / "more.whl").write_text(""), "more.whl: isn't of the bundle"),
        (linked, "is no file"),
        (retold, "signature of other bytes"),
        (stale, "signature of other bytes"),
        (foreign, "nobody whom signers lets sign"),
        (lambda folder: (folder / "manifest.json.sig").unlink(), "there is no signature"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "signature of other bytes"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_installed(
    world: World, bundle: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(bundle)
    others = {"swap": ["verify", "bundle"], "flip": ["import", "bundle"]}
    words = others.get(spoil.__name__, ["install", "bundle", "venv"])
    assert said in " ".join(world.run("bundle", *words, code=5).stderr.split())
    assert not (world.root / "venv").exists()
    assert not (world.root / "sources" / "files").exists()
    if not said.startswith("install.sh"):  # who changed that one can let it do anything
        signers = ["--signers", str(world.root / "signers")]
        done = subprocess.run(["sh", str(bundle / "install.sh"), *signers, "venv"], cwd=world.root, check=False)
        assert done.returncode == 5
        assert not (world.root / "venv").exists()


def test_a_lock_that_installs_something_else_is_seen_even_unsigned(world: World, index: Index) -> None:
    export(world, index.url, "app")
    folder = world.root / "bundle"
    lock = folder / "pylock.toml"
    lock.write_text(lock.read_text().replace('path = "files/', 'path = "../files/', 1))
    document = manifest(folder)
    document["files"]["pylock.toml"] = {"sha256": sha256_file(lock), "size": lock.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(document))
    assert "which isn't of the bundle" in world.run("bundle", "verify", "bundle", code=5).stderr


def test_manifests_that_lead_out_of_the_folder_are_refused(world: World, bundle: Path) -> None:
    document = manifest(bundle)
    for path in ("../x", "/etc/x", "files//x", "a\\b", "", "a\n"):
        document["files"][path] = {"sha256": "0" * 64, "size": 0}
        with pytest.raises(CheckRefused, match="can't be read"):
            manifests.parse(json.dumps(document).encode())
        del document["files"][path]
    odds: list[object] = [{**document, "files": []}, {**document, "delta": {"lacks": ["x"]}}, [], {}]
    for odd in odds:
        with pytest.raises(CheckRefused, match="can't be read"):
            manifests.parse(json.dumps(odd).encode())
    with pytest.raises(UsageError, match="doesn't know"):
        manifests.parse(json.dumps({**document, "format": 2}).encode())
    assert "no bundle" in world.run("bundle", "verify", "nowhere", code=2).stderr


def test_a_bundle_that_was_never_finished_is_none(world: World, bundle: Path) -> None:
    (bundle / ".unfinished").touch()
    assert "never finished" in world.run("bundle", "verify", "bundle", code=2).stderr


def test_a_delta_writes_nothing_outside_of_it(world: World, bundle: Path) -> None:
    """Nor does the script of its base, which trusts it no more than we do."""
    document = manifest(bundle)
    entry = document["files"]["README.txt"]
    document["files"]["../escaped"] = entry
    document["delta"] = {"since": "0" * 64, "lacks": ["../escaped"]}
    evil = world.root / "evil" / "delta"
    evil.mkdir(parents=True)
    (evil / "manifest.json").write_text(json.dumps(document))
    done = subprocess.run(
        ["sh", str(bundle / "install.sh"), "--delta", str(evil), str(world.root / "venv")], check=False
    )
    assert done.returncode == 5
    world.run("bundle", "install", str(evil), "venv", "--base", "bundle", code=5)
    assert [path.name for path in evil.parent.iterdir()] == ["delta"]


def test_who_signed_it_is_told(world: World, bundle: Path) -> None:
    assert "alice@example.invalid" in world.run("bundle", "verify", "bundle").stdout
    told = world.json("bundle", "verify", "bundle")["verified"]
    assert told["signer"] == "alice@example.invalid"
    assert told["target"]["machine"] == "x86_64"
    done = subprocess.run(
        ["sh", str(bundle / "install.sh"), "--verify", "--signers", str(world.root / "signers")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "signed by alice@example.invalid" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("way", ["install.sh", "command"])
def test_the_drill_without_any_network(world: World, index: Index, way: str) -> None:
    """A namespace where even loopback is down; install.sh finds nothing but python3, and no pip in it."""
    index.add_uv()
    export(world, index.url, "app")
    venv = world.root / "there" / "venv"
    if way == "command":
        done = cut_off([str(COMMAND), "bundle", "install", "bundle", str(venv)], env=world.env(), cwd=world.root)
    else:
        bare = world.root / "bin"
        bare.mkdir()
        for name in ("sh", "dirname"):
            (bare / name).symlink_to(shutil.which(name) or "")
        (bare / "python3").symlink_to(sys.executable)
        env = {"PATH": str(bare), "HOME": str(world.home)}
        done = cut_off(["/bin/sh", "bundle/install.sh", str(venv)], env=env, cwd=world.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(venv / "bin" / "python")
    code = "import app, base; print(app.VALUE, open('/proc/net/dev').read().count(':'))"
    assert cut_off([str(venv / "bin" / "python"), "-c", code]).stdout.split() == ["42", "1"]
    assert sorted(path.name for path in venv.parent.iterdir()) == ["venv"]
    assert "Python's headers" not in done.stderr  # nothing here compiles at run time


@pytest.mark.slow
def test_pip_alone_is_enough(world: World, index: Index) -> None:
    """Without uv in the bundle: from its own pages, by hash."""
    done = export(world, index.url, "app")
    assert "no index has uv for the target" in done.stderr
    done = subprocess.run(
        ["sh", "bundle/install.sh", "venv"],
        cwd=world.root,
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PIP_INDEX_URL": "https://example.invalid"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (world.root / "venv" / "bin" / "python").exists()


def test_an_interpreter_gets_it_added(world: World, index: Index) -> None:
    export(world, index.url, "app")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(world.root / "mine")], check=True)
    packages = next((world.root / "mine" / "lib").glob("python*/site-packages"))
    (packages / "kept.py").write_text("")
    assert "one place" in world.run("bundle", "install", "bundle", code=2).stderr
    world.run("bundle", "install", "bundle", "--python", "mine/bin/python")
    assert {"kept.py", "app", "base"} <= {path.name for path in packages.iterdir()}


def test_what_the_system_lacks_at_run_time_is_told(world: World, index: Index) -> None:
    index.add("flashinfer_python")
    index.add_uv()
    export(world, index.url, "flashinfer-python")
    assert "the CUDA compiler" in (world.root / "bundle" / "README.txt").read_text()
    toolkit, bare = world.root / "toolkit" / "bin", world.root / "bare"
    for folder, names in ((toolkit, ("nvcc", "cc")), (bare, ("sh", "dirname"))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).symlink_to("/bin/true" if folder == toolkit else shutil.which(name) or "")
    (bare / "python3").symlink_to(sys.executable)

    def told(**env: str) -> str:
        words = ["/bin/sh", "bundle/install.sh", "venv"]
        env = {"PATH": str(bare), "HOME": str(world.home), "CUDA_HOME": "/nowhere", **env}
        done = subprocess.run(words, cwd=world.root, env=env, capture_output=True, text=True, check=True)
        return done.stderr

    first = told()
    assert "warning: a C compiler is missing: kernels are compiled at run time; sudo apt install gcc g++" in first
    assert "warning: the CUDA compiler is missing: kernels that no wheel holds" in first
    assert "CUDA compiler" not in told(CUDA_HOME=str(toolkit.parent))
    packages = next((world.root / "venv" / "lib").glob("python*/site-packages"))
    (packages / "nvidia" / "cu13").mkdir(parents=True)
    (packages / "nvidia" / "cu13" / "bin").symlink_to(toolkit)
    second = told(PATH=f"{bare}:{toolkit}", CUDA_HOME="/nowhere")
    assert "missing" not in second.replace("Python's headers are missing", "")
    assert "CUDA compiler" not in told()  # a wheel of the environment has it


def test_a_machine_that_it_is_not_for_is_told(world: World, index: Index) -> None:
    words = ["--platform", "aarch64-manylinux_2_39", "--target-python", "3.12"]
    world.run("bundle", "export", "other", "app", *words, SPARK_BUILD_INDEX_URL=index.url)
    done = world.run("bundle", "install", "other", "venv", code=3)
    assert "is for aarch64, this machine is" in done.stderr


def test_the_sums_of_parts_are_signed(world: World, signed: Path) -> None:
    shutil.copy(signed / "signers", world.root)
    (world.config / "config.toml").write_text(
        f'[signing]\nkey = "{signed / "alice"}"\nsigners = "{world.root / "signers"}"\n'
    )
    export(world, Index(signed / "public").url, "app", "--split", "1MiB", to="media")
    world.run("bundle", "verify", "media")
    sums = world.root / "media" / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("001", "002"))
    assert "signature of other bytes" in world.run("bundle", "verify", "media", code=5).stderr
    sums.with_name("SHA256SUMS.sig").unlink()
    world.run("bundle", "import", "media", "--unpack", "joined", code=5)
    assert not (world.root / "joined").exists()
