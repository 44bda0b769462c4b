"""Crates of a Cargo.lock, by real cargo from a registry of our own, with git dependencies; then built without any."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from builder.errors import SparkError
from builder.pipeline import growth
from builder.recipe.nested import Fetch
from builder.source import crates, nested
from tests.nested_kit import Tree
from tests.source_kit import Outside, Reply, Repo, serving, tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.stages import Nested
    from tests.source_kit import Server

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")

LIB = "pub fn value() -> u32 { 1 }\n"


class Registry:
    """A sparse registry (https://doc.rust-lang.org/cargo/reference/registry-index.html) on a server."""

    def __init__(self, server: Server, name: str = "") -> None:
        self.server = server
        self.name = name
        self.lines: dict[str, list[str]] = {}
        dl = f"{server.url}{name}/dl/{{crate}}-{{version}}.crate"
        server.replies[f"{name}/index/config.json"] = Reply(json.dumps({"dl": dl, "api": None}).encode())

    def add(
        self,
        name: str,
        version: str,
        *,
        deps: Mapping[str, str] | None = None,
        optional: Mapping[str, str] | None = None,
        lib: str = LIB,
    ) -> None:
        wanted = {dep: (req, False) for dep, req in (deps or {}).items()}
        wanted |= {dep: (req, True) for dep, req in (optional or {}).items()}
        told = "".join(
            f'{dep} = {{ version = "{req}", optional = {str(opt).lower()} }}\n' for dep, (req, opt) in wanted.items()
        )
        head = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
        top = f"{name}-{version}"
        data = tar_of({f"{top}/Cargo.toml": f"{head}[dependencies]\n{told}", f"{top}/src/lib.rs": lib})
        self.server.replies[f"{self.name}/dl/{top}.crate"] = Reply(data)
        line: dict[str, Any] = {"name": name, "vers": version, "cksum": hashlib.sha256(data).hexdigest()}
        line |= {"features": {}, "yanked": False, "deps": []}
        for dep, (req, opt) in wanted.items():
            one = {"name": dep, "req": req, "features": [], "optional": opt, "default_features": True, "kind": "normal"}
            line["deps"].append(one | {"target": None})
        self.lines.setdefault(name, []).append(json.dumps(line))
        self.server.replies[f"{self.name}/index/{name[:2]}/{name[2:4]}/{name}"] = Reply(
            "\n".join(self.lines[name]).encode()
        )


class Bench:
    """A registry, a git dependency with a workspace of its own, and a project that uses both."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.outside = Outside(folder / "user")
        self.registry = Registry(server)
        self.registry.add("leafy", "0.1.4", deps={})
        self.registry.add("leafy", "0.2.0+build.7")
        self.registry.add("middle", "1.0.0", deps={"leafy": "^0.1"}, optional={"unused": "^3"})
        self.registry.add("unused", "3.0.0")
        self.registry.add("windowsy", "2.0.0")
        Registry(server, "/other").add("alternate", "4.0.0")
        files = {
            "Cargo.toml": '[workspace]\nmembers = ["inner"]\nresolver = "2"\n',
            "inner/Cargo.toml": '[package]\nname = "inner"\nversion = "0.3.0"\nedition = "2021"\n'
            '[dependencies]\nleafy = "0.2"\n',
            "inner/src/lib.rs": "pub fn inner() -> u32 { leafy::value() + 1 }\n",
        }
        self.repo = Repo(folder / "repo", files=files)
        self.repo("tag", "v0.3.0")
        self.home("cargo")
        self.project()

    def home(self, name: str) -> Path:
        """A CARGO_HOME whose settings send the public registry to ours, as a site would."""
        home = self.folder / name
        home.mkdir()
        (home / "config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "ours"\n[source.ours]\nregistry = "sparse+{self.server.url}/index/"\n'
        )
        self.outside.env["CARGO_HOME"] = str(home)
        return home

    def project(self) -> None:
        text = f"""\
[workspace]
members = ["app"]
resolver = "2"
[workspace.dependencies]
middle = "1"
inner = {{ git = "{self.repo.folder.as_uri()}", tag = "v0.3.0" }}
"""
        app = """\
[package]
name = "app"
version = "0.1.0"
edition = "2021"
[dependencies]
middle = { workspace = true }
inner = { workspace = true }
alternate = { version = "4", registry = "other" }
[target.'cfg(windows)'.dependencies]
windowsy = "2"
"""
        files = {"Cargo.toml": text, "app/Cargo.toml": app}
        files[".cargo/config.toml"] = f'[registries.other]\nindex = "sparse+{self.server.url}/other/index/"\n'
        files["app/src/main.rs"] = (
            'fn main() { println!("{}", inner::inner() + middle::value() + alternate::value()); }\n'
        )
        for name, content in files.items():
            (self.folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "src" / name).write_text(content)
        self.cargo("generate-lockfile")

    def cargo(self, *words: str, code: int = 0, **env: str) -> str:
        known = {name: os.environ[name] for name in ("PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN") if name in os.environ}
        done = subprocess.run(
            ["cargo", *words],
            cwd=self.folder / "src",
            env={"HOME": os.environ["HOME"], **known, **self.outside.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    @property
    def lock(self) -> str:
        return (self.folder / "src/Cargo.lock").read_text()

    def resolve(self, **more: Any) -> tuple[Nested, ...]:  # noqa: ANN401  # as the kit takes them
        for name in ("HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"):  # where rustup keeps the toolchain
            if name in os.environ:
                self.outside.env.setdefault(name, os.environ[name])
        table = Fetch(id="rust", kind="crates", lockfile="rust/Cargo.lock", place="${deps}/crates")
        return Tree({"rust/Cargo.lock": self.lock}).resolve([table], self.outside.sources, **more)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with serving() as server:
        yield Bench(tmp_path, server)


def test_crates_are_brought_in_and_build_the_project_without_any_registry(bench: Bench, tmp_path: Path) -> None:
    (found,) = bench.resolve()
    assert found.pin is not None
    assert found.pin.tree == f"sha256:{hashlib.sha256(bench.lock.encode()).hexdigest()}"
    assert (found.origin, found.known) == ("tree", True)
    sources = bench.outside.sources
    assert nested.missing([found], sources) == (found,)
    assert nested.fetch([found], sources)["rust"] > 0
    assert nested.missing([found], sources) == ()
    names = sorted(path.name for path in crates.folder_of(found.pin, sources).iterdir())
    assert names == [
        "alternate-4.0.0",
        "inner-0.3.0",
        "leafy-0.1.4",
        "leafy-0.2.0+build.7",
        "middle-1.0.0",
        "windowsy-2.0.0",
    ]
    for name, checksum in _checksums(bench.lock):
        told = json.loads((crates.folder_of(found.pin, sources) / name / ".cargo-checksum.json").read_text())
        assert told["package"] == checksum
    bench.server.close()
    shutil.rmtree(bench.repo.folder)
    crates.materialize(found.pin, tmp_path / "deps/crates", sources)
    (tmp_path / "fresh").mkdir()
    text = crates.config(found.pin, sources, folder=str(tmp_path / "deps/crates"))
    (tmp_path / "fresh/config.toml").write_text(text)
    printed = bench.cargo("run", "--quiet", "--locked", CARGO_HOME=str(tmp_path / "fresh"))
    assert printed == "4\n"
    assert {path.stat().st_mtime for path in (tmp_path / "deps/crates").rglob("*")} == {found.pin.time}


def _checksums(lock: str) -> list[tuple[str, str]]:

    packages = tomllib.loads(lock)["package"]
    found = [(f"{one['name']}-{one['version']}", one["checksum"]) for one in packages if "checksum" in one]
    assert len(found) == 5
    return found


def test_they_come_once_and_need_nothing_after_that(bench: Bench) -> None:
    nested.fetch(bench.resolve(), bench.outside.sources)
    bench.server.close()
    bench.outside.offline = True
    assert nested.fetch(bench.resolve(), bench.outside.sources) == {"rust": 0}


def test_gc_knows_them_and_what_a_killed_fetch_left(bench: Bench) -> None:
    (found,) = bench.resolve()
    nested.fetch([found], bench.outside.sources)
    assert found.pin is not None
    folder = crates.folder_of(found.pin, bench.outside.sources)
    left = folder.with_name(f".{folder.name}.making")
    left.mkdir()
    seen = growth.collect(bench.folder / "wheelhouse", sources=bench.outside.sources.root)
    assert {(one.kind, one.path) for one in seen if one.path.parent == folder.parent} == {
        ("archive", folder),
        ("scratch", left),
    }
    shutil.rmtree(folder)
    assert nested.fetch(bench.resolve(), bench.outside.sources)["rust"] > 0
    assert not left.exists()


def test_a_text_that_isnt_kept_any_more_is_read_out_of_the_tree_again(bench: Bench) -> None:
    """Pins are remembered elsewhere: the folder of the sources may be a new one."""
    found = bench.resolve()
    shutil.rmtree(bench.outside.root / "sources")
    with pytest.raises(SparkError) as caught:
        nested.fetch(found, bench.outside.sources)
    assert caught.value.code == "crates-lock"
    with pytest.raises(SparkError) as caught:  # what isn't the pinned one is none
        nested.fetch(found, bench.outside.sources, read=lambda path: bench.lock.encode() + path.encode())
    assert caught.value.code == "crates-lock"
    tree = {"rust/Cargo.lock": bench.lock.encode()}
    assert nested.fetch(found, bench.outside.sources, read=tree.get)["rust"] > 0


def test_offline_says_that_they_are_missing(bench: Bench) -> None:
    found = bench.resolve(bring=False)
    bench.outside.offline = True
    with pytest.raises(SparkError) as caught:
        nested.fetch(found, bench.outside.sources)
    assert (caught.value.code, caught.value.exit_code) == ("nested-missing", 4)
    assert "rust: rust/Cargo.lock" in caught.value.cause


def test_another_file_than_the_lock_names_is_refused_and_nothing_is_kept(bench: Bench) -> None:
    (found,) = bench.resolve()
    bench.home("second")
    bench.registry.lines.clear()
    bench.registry.add("leafy", "0.1.4", lib="pub fn value() -> u32 { 666 }\n")
    bench.registry.add("leafy", "0.2.0+build.7")
    with pytest.raises(SparkError) as caught:
        nested.fetch([found], bench.outside.sources)
    assert (caught.value.code, caught.value.exit_code) == ("crates-failed", 4)
    assert "checksum" in caught.value.cause
    assert "leafy" in caught.value.cause
    assert list((bench.outside.root / "sources/crates").iterdir()) == [
        bench.outside.root / "sources/crates" / f"{hashlib.sha256(bench.lock.encode()).hexdigest()}.lock"
    ]


def test_a_registry_that_lacks_one_is_told_in_cargos_words(bench: Bench) -> None:
    (found,) = bench.resolve()
    bench.home("second")
    del bench.server.replies["/index/mi/dd/middle"]
    with pytest.raises(SparkError) as caught:
        nested.fetch([found], bench.outside.sources)
    assert caught.value.code == "crates-failed"
    assert caught.value.summary.startswith("rust: ")
    assert "middle" in caught.value.cause
    assert "fetch.rust.path" in caught.value.help


def test_without_cargo_that_is_told(bench: Bench) -> None:
    (found,) = bench.resolve()
    git = shutil.which("git")
    assert git is not None
    folder = bench.folder / "bin"
    folder.mkdir()
    (folder / "git").symlink_to(git)
    bench.outside.env["PATH"] = str(folder)
    with pytest.raises(SparkError) as caught:
        nested.fetch([found], bench.outside.sources)
    assert (caught.value.code, caught.value.exit_code) == ("cargo-missing", 3)


def test_a_file_that_is_no_lock_is_told(tmp_path: Path) -> None:
    table = Fetch(id="rust", kind="crates", lockfile="Cargo.lock")
    with pytest.raises(SparkError) as caught:
        Tree({"Cargo.lock": "<html>"}).resolve([table], Outside(tmp_path).sources)
    assert caught.value.code == "crates-lock"
