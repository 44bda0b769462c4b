"""Who can write to a bundle while it is installed gets nothing in: what was verified is what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from builder import config
from builder.bundle import bring, verify
from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.wheelhouse import Wheelhouse
from tests import wheelhouse_kit
from tests.bundle_kit import UV, export, public
from tests.source_kit import Outside
from tests.test_signature import allow, make_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle_kit import Index
    from tests.world import World

APP = "app-2.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return public(tmp_path / "public")


@pytest.fixture
def evil(world: World) -> Path:
    """Another wheel of app 2.0, of the same size."""
    return wheelhouse_kit.make_wheel(world.root / "evil", "app", "2.0", requires=["base"], text=b"VALUE = 13\n")


def program(text: str) -> bytes:
    """Return a uv that does `text` when it is first started: behind the look at all files, before anything goes in."""
    return f'#!/bin/sh\nif [ "$1" = --version ]; then {text}; fi\nexec {UV} "$@"\n'.encode()


def install(world: World, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Install the bundle; a file that never ends is cut off after a gigabyte."""
    return subprocess.run(
        ["sh", "-c", 'ulimit -f 2097152; exec sh bundle/install.sh "$@"', "sh", *words, "venv"],
        cwd=world.root,
        env={"PATH": os.environ["PATH"], "HOME": str(world.home), "PYTHON": sys.executable, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # a pipe that is waited for
    )


def value(world: World) -> str:
    """What the installed app says; nothing where there is none."""
    python = world.root / "venv" / "bin" / "python"
    words = [str(python), "-c", "import app; print(app.VALUE)"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() if python.exists() else ""


def test_a_wheel_that_is_swapped_after_the_look_is_refused(world: World, index: Index, evil: Path) -> None:
    index.add_uv(program(f"cp --remove-destination {evil} {world.root}/bundle/files/*/{APP}"))
    export(world, index.url, "app")
    (there,) = world.root.glob(f"bundle/files/*/{APP}")
    assert there.stat().st_size == evil.stat().st_size
    done = install(world)
    assert (done.returncode, done.stdout) == (5, "")
    assert "the bundle changed after it was verified" in done.stderr
    assert f"{APP}: has other bytes" in done.stderr
    assert sha256_file(there) == sha256_file(evil)
    assert value(world) == ""


def test_the_command_refuses_it_the_same_way(world: World, index: Index, evil: Path) -> None:
    """The swap comes with the interpreter, which uv asks what it is before it unpacks anything."""
    export(world, index.url, "app")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(world.root / "venv")], check=True)
    python = swapping(world, evil)
    done = world.run("bundle", "install", "bundle", "--python", str(python), code=5)
    assert "error[bundle-wrong]: the bundle changed after it was verified" in done.stderr
    assert f"{APP}: has other bytes" in done.stderr
    assert value(world) == ""


def swapping(world: World, evil: Path) -> Path:
    """The interpreter of the environment, which puts another wheel into the bundle when it starts."""
    python = world.root / "python"
    python.write_text(
        f"#!/bin/sh\ncp --remove-destination {evil} {world.root}/bundle/files/*/{APP}\n"
        f'exec {world.root}/venv/bin/python "$@"\n'
    )
    python.chmod(0o755)
    return python


def test_a_lock_that_is_swapped_after_the_look_is_refused(world: World, index: Index, evil: Path) -> None:
    """It would install another wheel with a digest that is right."""
    index.add_uv(program(f"sh {world.root}/swap"))
    export(world, index.url, "app")
    bundle = world.root / "bundle"
    right = (bundle / "pylock.toml").read_text()
    (there,) = bundle.glob(f"files/*/{APP}")
    other = (bundle / "pylock.toml").read_text().replace(str(there.relative_to(bundle)), str(evil))
    (world.root / "other.toml").write_text(other.replace(sha256_file(there), sha256_file(evil)))
    for words in (f"cp {world.root}/other.toml", "ln -sf /dev/zero", f"rm {bundle}/pylock.toml; mkfifo"):
        (bundle / "pylock.toml").unlink()
        (bundle / "pylock.toml").write_text(right)
        (world.root / "swap").write_text(f"{words} {bundle}/pylock.toml\n")
        done = install(world)
        assert (done.returncode, done.stdout) == (5, ""), words
        assert "pylock.toml: changed after it was verified" in done.stderr
        assert value(world) == ""


def test_a_manifest_that_is_swapped_after_its_signature_was_read_is_never_looked_at(
    world: World, index: Index, evil: Path
) -> None:
    key = make_key(world.root, "alice")
    (world.config / "config.toml").write_text(f'[signing]\nkey = "{key}"\nsigners = "{allow(key)}"\n')
    index.add_uv()
    export(world, index.url, "app")
    bundle = world.root / "bundle"
    (there,) = bundle.glob(f"files/*/{APP}")
    text = (bundle / "manifest.json").read_text()
    (world.root / "other.json").write_text(text.replace(sha256_file(there), sha256_file(evil)))
    bin_ = world.root / "bin"
    bin_.mkdir()
    (bin_ / "ssh-keygen").write_text(
        f'#!/bin/sh\n{shutil.which("ssh-keygen")} "$@" || exit\n[ "$2" = verify ] || exit 0\n'
        f"cp --remove-destination {world.root}/other.json {bundle}/manifest.json\n"
    )
    (bin_ / "ssh-keygen").chmod(0o755)
    done = install(world, "--signers", str(world.root / "signers"), PATH=f"{bin_}:{os.environ['PATH']}")
    assert (done.returncode, value(world)) == (0, "42"), done.stderr
    assert sha256_file(evil) in (bundle / "manifest.json").read_text()


def test_what_changes_while_it_is_taken_in_stays_out(world: World, index: Index, evil: Path) -> None:
    export(world, index.url, "app")
    env = world.env()
    found = verify.verify(world.root / "bundle", signers=None, env=env)
    (there,) = world.root.glob(f"bundle/files/*/{APP}")
    sources = Outside(world.root / "far").sources
    settings = config.load(env, cwd=world.root)
    for swap in (lambda: shutil.copy(evil, there), lambda: os.mkfifo(there)):
        there.unlink()
        swap()
        with (
            Wheelhouse.open(world.root / "house", clock=time.time) as house,
            pytest.raises(CheckRefused, match=f"{APP} changed after it was verified"),
        ):
            bring.bring(found, house, sources, config=settings, env=env, sign=None)
        assert list((sources.root / "files").rglob("*app-2.0*")) == []


@pytest.mark.slow
def test_pip_gets_copies(world: World, index: Index, evil: Path) -> None:
    """The swap comes with the first start of the interpreter, which reads digests itself and each file twice."""
    export(world, index.url, "app")
    subprocess.run([sys.executable, "-m", "venv", str(world.root / "venv")], check=True)
    done = install(world, "--python", str(swapping(world, evil)))
    assert (done.returncode, value(world)) == (0, "42"), done.stderr
    (there,) = world.root.glob(f"bundle/files/*/{APP}")
    assert sha256_file(there) == sha256_file(evil)
