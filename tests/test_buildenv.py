"""Build environments by the real uv, from indexes of tiny wheels."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import buildenv
from builder.errors import HostError, RecipeError, SourceError
from builder.stages import EnvLock, Torch
from tests.source_kit import Reply, guarded, index_pages, serving, sha256, tiny_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.errors import SparkError
    from tests.source_kit import Server
    from tests.world import World

TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
NOTHING = EnvLock(output="tiny", packages=(), text="")
PINNED, EXISTING = Torch(version="2.14.0"), Torch(version="2.14.0+cu130", folder=Path("/there"))


class Bench:
    """An index, a cache of its own, and the two calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index"
        self.index.mkdir()
        self.url = self.index.as_uri()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "UV_CACHE_DIR": str(root / "cache"),
            "UV_HTTP_RETRIES": "0",
        }

    def wheel(self, name: str, version: str, *requires: str, more: str = "", script: bool = False) -> Path:
        made = tiny_wheel(self.index / name, name, version, requires=requires, more=more, script=script)
        index_pages(self.index)
        return made

    def lock(self, *requirements: str, constraints: tuple[str, ...] = (), torch: Torch | None = None) -> EnvLock:
        return buildenv.resolve(
            requirements,
            output="tiny",
            constraints=constraints,
            python=sys.executable,
            index_url=self.url,
            env=self.env,
            scratch=self.root / "scratch",
            torch=torch,
        )

    def create(
        self,
        lock: EnvLock,
        *,
        offline: bool = False,
        name: str = "venv",
        torch: Torch | None = None,
    ) -> Path:
        venv = self.root / name
        buildenv.create(
            lock,
            venv,
            python=sys.executable,
            index_url=self.url,
            env=self.env,
            offline=offline,
            log=self.root / "logs" / "env.log",
            on_line=lambda _line: None,
            torch=torch,
        )
        return venv


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.wheel("beta", "1.0")
    made.wheel("beta", "2.0", script=True)
    made.wheel(
        "alpha",
        "1.0",
        "beta>=1",
        "gamma; python_version<'3'",
        "delta[fast]; extra == 'fast'",
        more="Provides-Extra: fast\n",
    )
    made.wheel("delta", "1.0", "epsilon; extra == 'fast'", more="Provides-Extra: fast\n")
    made.wheel("epsilon", "1.0")
    made.wheel("old", "1.0", "beta<2")
    made.wheel("torch", "2.14.0")
    made.wheel("needs-torch", "1.0", "torch")
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def serve(bench: Bench, server: Server, *, login: str | None = None) -> None:
    """Answer for all files of the folder."""
    for folder in bench.index.iterdir():
        for file in folder.iterdir():
            kind = "text/html" if file.name == "index.html" else "application/octet-stream"
            path = f"/simple/{folder.name}/{'' if file.name == 'index.html' else file.name}"
            good = Reply(file.read_bytes(), headers={"Content-Type": kind})
            server.replies[path] = guarded(good, login) if login else good


def versions(lock: EnvLock) -> dict[str, str]:
    return {one.name: one.version for one in lock.packages}


# --- what is required ---


@pytest.mark.parametrize(
    ("text", "name"),
    [("Foo.Bar_baz>=1", "foo-bar-baz"), (" a--b [x,y] ; python_version>'3'", "a-b"), ("torch==2", "torch"), ("", "")],
)
def test_names_compare_as_pep_503_says(text: str, name: str) -> None:
    assert buildenv.normalised(text) == name


PYPROJECT = b"""
[build-system]
requires = ["setuptools>=61", "Torch==2.1.*", "Ninja ; sys_platform == 'linux'", "cmake[x]>3"]
build-backend = "pkg.backend:obj"
backend-path = ["."]
"""


def test_the_recipe_changes_what_the_project_asks_for() -> None:
    found = buildenv.requires(PYPROJECT, add=("extra==1", "setuptools>=61"), remove=("NINJA",), torch=PINNED)
    assert found == ("setuptools>=61", "cmake[x]>3", "torch==2.14.0", "extra==1")
    assert buildenv.requires(PYPROJECT, add=(), remove=("torch", "cmake"), torch=None) == (
        "setuptools>=61",
        "Ninja ; sys_platform == 'linux'",
    )
    existing = buildenv.requires(PYPROJECT, add=("torch>=2", "extra"), remove=("ninja", "cmake"), torch=EXISTING)
    assert existing == ("setuptools>=61", "extra")
    assert buildenv.backend(PYPROJECT) == buildenv.Backend(name="pkg.backend:obj", path=(".",))


@pytest.mark.parametrize("text", [None, b"", b"[project]\nname = 'x'\n"])
def test_without_a_table_pep_517s_defaults_hold(text: bytes | None) -> None:
    assert buildenv.requires(text, add=(), remove=(), torch=None) == buildenv.DEFAULT_REQUIRES
    assert buildenv.backend(text).name == buildenv.DEFAULT_BACKEND


@pytest.mark.parametrize(
    "text",
    [
        b"[",
        b"\xff",
        b"build-system = 1",
        b"[build-system]\nrequires = 'x'",
        b"[build-system]\nrequires = [1]",
        b"[build-system]\nbuild-backend = 1",
    ],
)
def test_a_table_that_is_none_is_told(text: bytes) -> None:
    with pytest.raises(RecipeError) as caught:
        buildenv.requires(text, add=(), remove=(), torch=None)
    assert caught.value.code == "pyproject"


# --- resolving ---


def test_a_lock_has_exact_versions_with_the_hashes_of_the_index(bench: Bench) -> None:
    lock = bench.lock("Alpha[fast]")
    assert versions(lock) == {"alpha": "1.0", "beta": "2.0", "delta": "1.0", "epsilon": "1.0"}
    for one in lock.packages:
        file = next((bench.index / one.name).glob(f"*-{one.version}-*.whl"))
        assert one.sha256 == (sha256(file.read_bytes()),)
    assert str(bench.root) not in lock.text
    assert bench.lock("alpha").identity() != lock.identity()


def test_constraints_bind_and_add_nothing(bench: Bench) -> None:
    assert versions(bench.lock("alpha", constraints=("beta<2", "epsilon==7"))) == {"alpha": "1.0", "beta": "1.0"}


def test_nothing_required_asks_nobody(bench: Bench) -> None:
    shutil.rmtree(bench.index)
    lock = bench.lock()
    assert (lock.packages, lock.text) == ((), "")
    assert (bench.create(lock) / "bin" / "python").exists()


@pytest.mark.parametrize("torch", [None, EXISTING])
def test_torch_never_comes_by_accident(bench: Bench, torch: Torch | None) -> None:
    with pytest.raises(RecipeError) as caught:
        bench.lock("needs-torch", torch=torch)
    assert (caught.value.code, caught.value.exit_code) == ("torch-by-accident", 2)
    assert "torch 2.14.0" in caught.value.cause
    assert versions(bench.lock("needs-torch", "torch==2.14.0", torch=PINNED))["torch"] == "2.14.0"


def test_what_cant_be_met_is_told_in_words(bench: Bench) -> None:
    (bench.index / "source").mkdir()
    (bench.index / "source" / "source-1.0.tar.gz").write_bytes(b"x")
    index_pages(bench.index)
    wheel = next((bench.index / "beta").glob("*.whl"))
    cases: list[tuple[tuple[str, ...], str, type[SparkError]]] = [
        (("old", "beta==2.0"), "requirement-conflict", RecipeError),
        (("nope",), "requirement-missing", SourceError),
        (("beta==7",), "requirement-conflict", RecipeError),
        (("source",), "requirement-conflict", RecipeError),
        (("beta ===! 2",), "requirement-wrong", RecipeError),
        ((f"beta @ {wheel.as_uri()}",), "requirement-url", RecipeError),
    ]
    for requirements, code, kind in cases:
        with pytest.raises(kind) as caught:
            bench.lock(*requirements)
        assert caught.value.code == code, requirements
        assert "tiny" in caught.value.summary
        assert caught.value.cause
        assert caught.value.help
    with pytest.raises(RecipeError) as conflict:
        bench.lock("old", "beta==2.0")
    assert "beta<2" in conflict.value.cause


def test_an_index_that_cant_be_reached_is_told_without_its_login(bench: Bench) -> None:
    bench.url = "http://us3r:s3cret@127.0.0.1:9/simple"
    with pytest.raises(SourceError) as caught:
        bench.lock("alpha")
    assert (caught.value.code, caught.value.exit_code) == ("index-unreachable", 4)
    assert "127.0.0.1:9" in caught.value.cause
    assert "s3cret" not in str(caught.value.as_json())


def test_settings_of_the_callers_project_and_environment_have_no_say(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.root / "pyproject.toml").write_text('[tool.uv]\nconstraint-dependencies = ["beta<2"]\n')
    (bench.root / "constraints").write_text("beta<2\n")
    monkeypatch.chdir(bench.root)
    bench.env |= {
        "UV_CONSTRAINT": str(bench.root / "constraints"),
        "UV_PYTHON": "3.7",
        "UV_SYSTEM_PYTHON": "1",
        "UV_OFFLINE": "1",
    }
    lock = bench.lock("alpha")
    assert versions(lock)["beta"] == "2.0"
    assert (bench.create(lock) / "bin" / "beta").exists()


# --- filling ---


def inside(venv: Path, code: str) -> str:
    words = [str(venv / "bin" / "python"), "-I", "-c", code]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_the_environment_holds_what_is_locked_and_nothing_else(bench: Bench) -> None:
    venv = bench.create(bench.lock("alpha"))
    listing = "import importlib.metadata as m; print(sorted(d.name + d.version for d in m.distributions()))"
    assert inside(venv, listing) == "['alpha1.0', 'beta2.0']"
    installed = venv / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" / "beta" / "__init__.py"
    assert installed.stat().st_nlink == 1  # a copy: uv's cache doesn't notice what a build writes
    again = next((bench.root / "logs").iterdir()).stat().st_size
    bench.create(bench.lock("alpha"))
    assert next((bench.root / "logs").iterdir()).stat().st_size == again
    assert bench.create(bench.lock("beta<2")) == venv
    assert inside(venv, listing) == "['beta1.0']"


@pytest.mark.parametrize("name", ["venv", "x" * 120, "with blank"])
def test_it_works_at_another_path(bench: Bench, tmp_path: Path, name: str) -> None:
    venv = bench.create(bench.lock("beta"), name=name)
    other = tmp_path / "seen" / "here"
    other.parent.mkdir()
    venv.rename(other)
    assert subprocess.run([other / "bin" / "beta"], check=True, capture_output=True, text=True).stdout == "2.0\n"
    scripts = [file for file in (other / "bin").iterdir() if not file.is_symlink()]
    assert not [file.name for file in scripts if os.fsencode(venv) in file.read_bytes()]


def test_what_was_fetched_once_needs_no_network(bench: Bench, server: Server) -> None:
    serve(bench, server)
    bench.url = f"{server.url}/simple"
    lock = bench.lock("alpha")
    with pytest.raises(SourceError) as caught:
        bench.create(lock, offline=True)
    assert (caught.value.code, caught.value.exit_code) == ("requirement-offline", 4)
    assert caught.value.run == ("spark-build fetch NAME",)
    bench.create(lock)
    server.close()
    assert inside(bench.create(lock, offline=True, name="second"), "import beta; print(beta.version)") == "2.0"


def test_a_login_for_the_index_is_used_and_kept_nowhere(bench: Bench, server: Server) -> None:
    serve(bench, server, login="Basic dXMzcjpzM2NyZXQ=")
    bench.url = f"{server.url}/simple"
    with pytest.raises(SourceError) as caught:
        bench.lock("beta")
    assert caught.value.code in {"index-unreachable", "requirement-missing"}
    bench.url = f"{server.url.replace('://', '://us3r:s3cret@')}/simple"
    lock = bench.lock("beta")
    assert "s3cret" not in lock.text
    venv = bench.create(lock)
    kept = [file for folder in (venv, bench.root / "logs", bench.root / "scratch") for file in folder.rglob("*")]
    assert not [file for file in kept if file.is_file() and b"s3cret" in file.read_bytes()]


def test_other_bytes_under_a_locked_name_are_refused(bench: Bench) -> None:
    lock = bench.lock("beta")
    bench.wheel("beta", "2.0", more="Summary: replaced\n")
    with pytest.raises(SourceError) as caught:
        bench.create(lock)
    assert (caught.value.code, caught.value.exit_code) == ("requirement-hash", 4)
    assert not (bench.root / "venv" / "spark-build.lock").exists()
    shutil.rmtree(bench.index / "beta")
    with pytest.raises(SourceError) as caught:
        bench.create(lock)
    assert caught.value.code == "requirement-gone"
    assert caught.value.run == ("spark-build recipe NAME --relock",)


CHILD = """
import sys
from pathlib import Path
from tests.test_buildenv import Bench
bench = Bench.__new__(Bench)
bench.__dict__.update(eval(sys.argv[1]))
print("go", flush=True)
bench.create(bench.lock("alpha"))
"""


def test_one_that_was_killed_is_made_anew(bench: Bench) -> None:
    lock = bench.lock("alpha")
    state = repr({"root": bench.root, "index": bench.index, "url": bench.url, "env": bench.env}).replace("Posix", "")
    for delay in (0.05, 0.15, 0.25, 0.4):
        words = [sys.executable, "-c", CHILD, state]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path.cwd(), text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
    # A killed parent's uv may still be at it for a moment: the build lock keeps others away, here only time does.
    time.sleep(0.5)
    assert inside(bench.create(lock), "import alpha, beta; print(beta.version)") == "2.0"
    (bench.root / "venv" / "spark-build.lock").unlink()
    shutil.rmtree(bench.root / "venv" / "lib")
    assert inside(bench.create(lock), "import alpha, beta; print(beta.version)") == "2.0"


@pytest.mark.root
def test_a_full_disk_is_told_as_such(bench: Bench) -> None:
    big = bench.wheel("big", "1.0")
    with zipfile.ZipFile(big, "a") as archive:
        archive.writestr("big/data.bin", os.urandom(3_000_000))
    index_pages(bench.index)
    lock = bench.lock("big")
    small = bench.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], check=True)
    try:
        with pytest.raises(HostError) as caught:
            bench.create(lock, name="small/venv")
        assert (caught.value.code, caught.value.exit_code, caught.value.run) == ("disk-full", 3, ("spark-build gc",))
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- the torch of an interpreter ---


def with_torch(bench: Bench, text: str = "") -> Path:
    """Return the interpreter of an environment that has a torch and the module `near`."""
    venv = bench.create(bench.lock("beta"), name="with torch")
    packages = next((venv / "lib").glob("python3*/site-packages"))
    (packages / "torch").mkdir()
    (packages / "torch/version.py").write_text("cuda = '13.0'\n")
    (packages / "near.py").touch()
    version = (
        "from . import version\n__version__ = '2.14.0+cu130'\ncompiled_with_cxx11_abi = lambda: True\nprint('hello')\n"
    )
    (packages / "torch/__init__.py").write_text(text or version)
    return venv / "bin" / "python"


def test_a_torch_is_that_of_the_interpreter(bench: Bench, tmp_path: Path) -> None:
    assert buildenv.existing_torch(sys.executable, bench.env, tag=TAG) is None
    python = with_torch(bench)
    found = buildenv.existing_torch(str(python), bench.env, tag=TAG)
    assert found is not None
    assert found.identity() == {"version": "2.14.0+cu130", "cuda": "13.0", "cxx11abi": True, "from": "existing"}
    with pytest.raises(HostError) as caught:
        buildenv.existing_torch(str(python), bench.env, tag="cp39")
    assert (caught.value.code, caught.value.exit_code) == ("torch-python", 3)
    assert f"it is for {TAG}, wheels are built for cp39" in caught.value.cause
    with pytest.raises(HostError) as caught:
        buildenv.existing_torch(str(tmp_path / "nope"), bench.env, tag=TAG)
    assert caught.value.exit_code == 3


def test_a_torch_that_cant_be_imported_is_told(bench: Bench) -> None:
    python = with_torch(bench, "raise OSError('libtorch_cuda.so: cannot open shared object file')\n")
    with pytest.raises(HostError) as caught:
        buildenv.existing_torch(str(python), bench.env, tag=TAG)
    assert caught.value.code == "torch-broken"
    assert "libtorch_cuda.so" in caught.value.cause


def test_an_existing_torch_is_seen_behind_what_is_locked(bench: Bench) -> None:
    torch = buildenv.existing_torch(str(with_torch(bench)), bench.env, tag=TAG)
    lock = bench.lock("beta<2")
    venv = bench.create(lock, torch=torch)
    assert inside(venv, "import beta, near, torch; print(beta.version, torch.__version__)").endswith("1.0 2.14.0+cu130")
    bench.create(lock)
    assert inside(venv, "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('near'))") == "None None"


@pytest.mark.root
def test_a_recipe_builds_against_an_existing_torch(bench: Bench, world: World) -> None:
    folder = world.tiny(extra="import torch; pathlib.Path('src/__init__.py').write_text(f'{torch.__version__=}')")
    toml = folder / "pyproject.toml"
    toml.write_text(toml.read_text().replace("requires = []", 'requires = ["torch==2.1"]'))
    world.recipe(
        "tiny",
        f"""
        schema = 1
        name = "tiny"
        build.torch = "existing"
        [[source]]
        kind = "local"
        path = "{folder}"
        [[output]]
        name = "tiny"
        """,
    )
    python = with_torch(bench)
    (wheel,) = world.wheels("tiny", "--torch", str(python))
    assert b"2.14.0+cu130" in zipfile.ZipFile(wheel).read("tiny/__init__.py")
    moved = python.parents[1].rename(bench.root / "elsewhere") / "bin" / "python"
    assert world.wheels("tiny", "--torch", str(moved)) == [wheel]  # the place isn't in the fingerprint
    assert "no torch in" in world.run("recipe", "tiny", "--torch", sys.executable, code=2).stderr


# --- failures of uv itself ---


def test_a_folder_that_uv_cant_write_is_the_machines_fault(bench: Bench) -> None:
    lock = bench.lock("beta")
    (bench.root / "file").touch()
    bench.env["UV_CACHE_DIR"] = str(bench.root / "file" / "cache")
    for action in (lambda: bench.lock("alpha"), lambda: bench.create(lock), lambda: bench.create(NOTHING)):
        with pytest.raises(HostError) as caught:
            action()
        assert (caught.value.code, caught.value.exit_code) == ("unwritable", 3)
        assert "file/cache" in caught.value.cause
        assert caught.value.run


def test_what_uv_says_otherwise_is_told_as_it_is(bench: Bench) -> None:
    with pytest.raises(HostError) as caught:
        buildenv.resolve(
            ("beta",),
            output="tiny",
            constraints=(),
            python="/nonexistent/python",
            index_url=bench.url,
            env=bench.env,
            scratch=bench.root / "scratch",
            torch=None,
        )
    assert (caught.value.code, caught.value.exit_code) == ("uv-failed", 3)
    assert "No interpreter found at path `/nonexistent/python`" in caught.value.cause


def test_an_environment_whose_python_is_gone_is_made_anew(bench: Bench) -> None:
    lock = bench.lock("beta")
    python = bench.create(lock) / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert inside(bench.create(lock), "import beta; print(beta.version)") == "2.0"


def test_offline_asks_no_index_and_names_the_recipe(bench: Bench, world: World, server: Server) -> None:
    serve(bench, server)
    folder = world.tiny()
    text = f'schema = 1\nname = "tiny"\n[[source]]\nkind = "local"\npath = "{folder}"\n[[output]]\nname = "tiny"\n'
    world.recipe("tiny", text + '[build]\nrequires-add = ["beta"]\n')
    env = {"UV_DEFAULT_INDEX": f"{server.url}/simple", "UV_CACHE_DIR": str(bench.root / "cache")}
    for words in (("plan", "tiny", "--offline"), ("recipe", "tiny", "--offline")):
        error = world.json(*words, code=4, **env)["error"]
        assert (error["code"], error["run"]) == ("requirement-offline", ["spark-build fetch tiny"])
    assert server.seen == []
    world.run("plan", "tiny", code=10, **env)
    asked = len(server.seen)
    assert asked
    error = world.json("recipe", "tiny", "--offline", code=4, **env)["error"]
    assert (error["code"], error["run"]) == ("requirement-offline", ["spark-build fetch tiny"])
    assert len(server.seen) == asked
