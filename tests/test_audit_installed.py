"""What is installed in real environments, read where it lies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import installed
from builder.audit.context import Context
from builder.audit.target import Capability
from builder.digest import sha256_json
from builder.errors import UsageError
from builder.wheel import label
from tests import wheel_kit, wheelhouse_kit

if TYPE_CHECKING:
    from builder.audit.facts import Contents
    from tests.world import World

UV = Path(sys.executable).with_name("uv")

#: A backend without requirements that can only do editable installs.
EDITABLE = """
import base64, hashlib, pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    info = "moving-1.0.dist-info"
    files = {
        "moving.pth": str(pathlib.Path.cwd() / "src"),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: moving\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(wheel_directory, "moving-1.0-py3-none-any.whl"), "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "moving-1.0-py3-none-any.whl"
"""


def uv(*words: str | Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    subprocess.run([UV, *words], check=True, capture_output=True, env={**env, "UV_OFFLINE": "1"})


def venv(folder: Path, *more: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *more, folder], check=True)
    return folder


def library(folder: Path, name: str = "lib.so") -> bytes:
    source = folder / "lib.c"
    source.write_text("int value(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / name, source], check=True)
    return (folder / name).read_bytes()


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An environment with one package: a module, a library and a program."""
    files = {
        "tiny/__init__.py": b"VALUE = 1\n",
        "tiny/lib.so": library(tmp_path),
        "tiny-1.0.data/scripts/tiny-run": b"#!python\nprint('tiny')\n",
    }
    wheel = wheel_kit.raw(tmp_path / "dist", "tiny", "1.0", files)
    uv("pip", "install", "--no-index", "--python", venv(tmp_path / "env") / "bin" / "python", wheel)
    return tmp_path / "env"


def site(env: Path) -> Path:
    return next(env.glob("lib/python3*/site-packages"))


def only(env: Path) -> Contents:
    (found,) = installed.read(env)
    return found


def told(contents: Contents) -> dict[str, str]:
    context = Context(target=Capability.parse("12.1"))
    return {one.file or "-": one.id for one in installed.judge(contents, context)}


def test_a_package_is_read_with_all_its_files(env: Path) -> None:
    found = only(env)
    assert (found.project, found.version, found.filename, found.where) == ("tiny", "1.0", "", site(env))
    assert found.tags == ("py3-none-any",)
    assert b"Name: tiny" in found.metadata
    files = {file.path: file for file in found.files}
    assert {"tiny/__init__.py", "tiny/lib.so", "../../../bin/tiny-run", "tiny-1.0.dist-info/RECORD"} <= files.keys()
    lib = files["tiny/lib.so"]
    assert lib.elf is not None
    assert lib.elf.machine == os.uname().machine
    assert lib.sha256 == hashlib.sha256((site(env) / "tiny" / "lib.so").read_bytes()).hexdigest()
    assert files["../../../bin/tiny-run"].executable
    assert told(found) == {}
    assert found.size == sum(file.size for file in found.files)


def test_what_was_changed_after_the_install_is_found(env: Path) -> None:
    lib = site(env) / "tiny" / "lib.so"
    data = bytearray(lib.read_bytes())
    data[-1] ^= 1
    lib.unlink()  # it may be a link into uv's cache
    lib.write_bytes(data)
    (site(env) / "tiny" / "__init__.py").unlink()
    (env / "bin" / "tiny-run").unlink()
    (env / "bin" / "tiny-run").mkdir()
    assert told(only(env)) == {
        "tiny/lib.so": "installed-changed",
        "tiny/__init__.py": "installed-gone",
        "../../../bin/tiny-run": "installed-changed",
    }


def test_byte_code_comes_and_goes(env: Path) -> None:
    record = site(env) / "tiny-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "tiny/__pycache__/__init__.cpython-311.pyc,,\n")
    assert told(only(env)) == {}


def test_an_edited_record_is_believed_in_nothing_that_lies_elsewhere(env: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    record = site(env) / "tiny-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + f"../../../../secret,,\n{tmp_path}/secret,,\n")
    found = only(env)
    assert told(found) == {"../../../../secret": "installed-outside", f"{tmp_path}/secret": "installed-outside"}
    assert not any("secret" in file.path for file in found.files)


def test_a_record_of_odd_bytes_is_told_and_hides_nothing(env: Path) -> None:
    record = site(env) / "tiny-1.0.dist-info" / "RECORD"
    text = record.read_bytes()
    odd = b"a\0b,,\n,,\n\n\xff.py,,\ntiny/__init__.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n"
    record.write_bytes(odd + text.replace(b"tiny/__init__.py", b"tiny/gone.py"))
    assert told(only(env)) == {
        "a\0b": "installed-outside",
        "tiny/__init__.py": "installed-unlisted",
        "tiny/gone.py": "installed-gone",
    }
    record.write_bytes(b"x" * 200_000 + b",,\n" + text)
    assert told(only(env)) == {"-": "installed-unlisted"}


def test_a_package_that_nobody_lists_is_named(env: Path) -> None:
    (site(env) / "tiny-1.0.dist-info" / "RECORD").unlink()
    old = site(env) / "old_thing-2.0-py3.11.egg-info"
    old.write_text("Metadata-Version: 1.0\nName: old_thing\nVersion: 2.0\n")
    (site(env) / "~iny-0.9.dist-info").mkdir()
    named = {(one.project, one.version): told(one) for one in installed.read(env)}
    assert named == {("old_thing", "2.0"): {"-": "installed-unlisted"}, ("tiny", "1.0"): {"-": "installed-unlisted"}}


def test_an_editable_install_says_where_its_code_lies(tmp_path: Path) -> None:
    project = tmp_path / "moving"
    (project / "src").mkdir(parents=True)
    (project / "backend.py").write_text(EDITABLE)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "moving"\nversion = "1.0"\n'
    )
    env = venv(tmp_path / "env")
    uv("pip", "install", "--no-index", "--python", env / "bin" / "python", "--editable", project)
    found = only(env)
    assert told(found) == {"-": "installed-editable"}
    assert str(project) in found.problems[0][2]


def test_its_python_is_never_run(env: Path, tmp_path: Path) -> None:
    python = env / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    python.chmod(0o755)
    assert [one.project for one in installed.read(python)] == ["tiny"]
    assert not (tmp_path / "was-run").exists()


def test_it_is_named_by_folder_by_python_or_as_a_target(env: Path, tmp_path: Path) -> None:
    by_folder = installed.read(env)
    assert installed.read(env / "bin" / "python") == by_folder
    assert [one.project for one in installed.read(site(env))] == ["tiny"]
    seen: list[tuple[int, int]] = []
    installed.read(env, on_read=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    for wrong in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="holds no Python environment") as error:
            installed.read(wrong)
        assert error.value.run == ("spark-build audit --env .venv",)


def test_what_python_would_find_first_counts(env: Path) -> None:
    base = site(venv(env.parent / "base"))
    for name in ("tiny", "below"):
        info = base / f"{name}-9.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 9\n")
    settings = env / "pyvenv.cfg"
    text = settings.read_text()
    settings.write_text(f"home = {env.parent / 'base' / 'bin'}\ninclude-system-site-packages = true\n")
    assert [(one.project, one.version) for one in installed.read(env)] == [("below", "9"), ("tiny", "1.0")]
    settings.write_text(text)
    assert [one.project for one in installed.read(env)] == ["tiny"]


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A root where dpkg has installed one package, and changed its module; RECORD names a script that it left out."""
    folder = tmp_path / "root" / "usr" / "lib" / "python3" / "dist-packages"
    module, metadata = folder / "tiny" / "__init__.py", folder / "tiny-1.0.dist-info" / "METADATA"
    for path, data in ((module, b"VALUE = 2\n"), (metadata, b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    rows = {"../scripts/tiny": b"gone", "tiny/__init__.py": b"VALUE = 1\n", "tiny/gone.py": b""}
    lines = [f"{name},{wheel_kit.hashed(data)},{len(data)}\n" for name, data in rows.items()]
    metadata.with_name("RECORD").write_text("".join(lines))
    listing = tmp_path / "root" / "var" / "lib" / "dpkg" / "info" / "python3-tiny:arm64.md5sums"
    listing.parent.mkdir(parents=True)
    sums = [(hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), path) for path in (module, metadata)]
    listing.write_text("".join(f"{md5}  {path.relative_to(tmp_path / 'root')}\n" for md5, path in sums))
    return tmp_path / "root" / "usr"


def test_what_dpkg_changed_is_no_damage(debian: Path) -> None:
    found = only(debian)
    assert told(found) == {"-": "installed-by-dpkg"}
    assert found.problems[0][2] == "3 files other than RECORD says, and as python3-tiny brings them"


def test_what_was_changed_after_dpkg_is_damage(debian: Path) -> None:
    (debian / "lib" / "python3" / "dist-packages" / "tiny" / "__init__.py").write_text("VALUE = 3\n")
    assert told(only(debian)) == {"-": "installed-by-dpkg", "tiny/__init__.py": "installed-changed"}


def test_what_is_gone_though_dpkg_brought_it_is_damage(debian: Path) -> None:
    (debian / "lib" / "python3" / "dist-packages" / "tiny" / "__init__.py").unlink()
    assert told(only(debian)) == {"-": "installed-by-dpkg", "tiny/__init__.py": "installed-gone"}


def test_a_package_that_is_not_dpkg_s_is_damaged_all_the_same(debian: Path) -> None:
    (debian.parent / "var" / "lib" / "dpkg" / "info" / "python3-tiny:arm64.md5sums").write_text("odd\n-packages/\n")
    assert set(told(only(debian)).values()) == {"installed-changed", "installed-gone"}


def test_with_ours_only_what_we_built_is_refused_and_the_rest_is_told(env: Path, world: World) -> None:
    inputs = {"name": "mine"}
    version = f"1.0+{label.make(1_800_000_000, sha256_json(inputs))}"
    made = wheelhouse_kit.make_wheel(env.parent / "made", "mine", version, inputs=inputs)
    uv("pip", "install", "--no-index", "--python", env / "bin" / "python", made)
    (site(env) / "tiny" / "__init__.py").write_text("VALUE = 2\n")
    world.run("audit", "--env", str(env), "--target", "12.0", code=5)
    told = world.run("audit", "--env", str(env), "--target", "12.0", "--ours")
    assert "installed-changed" in told.stdout
    assert "not ours, so only told: tiny" in told.stderr
    (site(env) / "mine" / "__init__.py").write_text("VALUE = 2\n")
    refused = world.run("audit", "--env", str(env), "--target", "12.0", "--ours", code=5)
    assert "error[audit-refused]: mine is refused" in refused.stderr
    assert "--ours --accept" in refused.stderr
    assert world.json("audit", "--env", str(env), "--target", "12.0", "--ours", code=5)["reports"]
    world.run("audit", "x.whl", "--ours", code=2)
