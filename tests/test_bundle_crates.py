"""Vendored crates of a bundle: whole, and with no file that a crate doesn't list."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from builder.bundle import vendored
from builder.bundle.manifest import Entry
from builder.digest import sha256_file
from builder.source import crates, nested
from tests.bundle_kit import export, manifest, public, retell, tree
from tests.test_crates import bench  # noqa: F401  # a fixture
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bundle_kit import Index
    from tests.test_crates import Bench

LOCK = """\
version = 4

[[package]]
name = "app"
version = "0.1.0"

[[package]]
name = "leafy"
version = "0.1.4"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{}"
""".format("a" * 64)
SUMS = json.dumps({"package": "a" * 64})
DIGEST = hashlib.sha256(LOCK.encode()).hexdigest()
FILES = {"Cargo.toml": '[package]\nname = "leafy"\nversion = "0.1.4"\n', "src/lib.rs": "pub fn value() {}\n"}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return public(tmp_path / "public")


def vendor(bundle: Path) -> Path:
    """Lay a vendored crate into a bundle, as cargo writes it, and return its folder."""
    folder = bundle / "sources" / "crates" / DIGEST / "leafy-0.1.4"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    folder.parent.with_name(f"{DIGEST}.lock").write_text(LOCK)
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    (folder / ".cargo-checksum.json").write_text(json.dumps({"files": sums, "package": "a" * 64}))
    return folder


def test_crates_come_whole_and_once(world: World, index: Index) -> None:
    export(world, index.url, "app")
    folder = vendor(world.root / "bundle")
    retell(world.root / "bundle")
    far = World(world.root / "far")
    assert far.json("bundle", "import", "../bundle")["imported"]["sources"] == len(FILES) + 2
    there = far.root / "sources" / "crates"
    assert tree(there / DIGEST / "leafy-0.1.4") == tree(folder)
    assert (there / f"{DIGEST}.lock").read_text() == LOCK
    (folder / "build.rs").write_text("fn main() {}\n")  # what the cache has stays as it is
    retell(world.root / "bundle")
    far.run("bundle", "import", "../bundle")
    assert not list(there.glob("*/*/build.rs"))
    other = World(world.root / "other")
    done = other.run("bundle", "import", "../bundle", code=5)
    assert "error[sources-odd]" in done.stderr
    assert "build.rs: isn't what the crate's .cargo-checksum.json lists" in done.stderr
    assert not list((other.root / "sources").glob("crates/*"))


def test_a_delta_that_leaves_crates_out_wants_its_base(world: World, index: Index) -> None:
    export(world, index.url, "app")
    vendor(world.root / "bundle")
    retell(world.root / "bundle")
    delta = world.root / "delta"
    shutil.copytree(world.root / "bundle", delta)
    document = manifest(delta)
    (left,) = (path for path in document["files"] if path.endswith("lib.rs"))
    document["delta"] = {"since": "0" * 64, "lacks": [left]}
    (delta / "manifest.json").write_text(json.dumps(document))
    (delta / left).unlink()
    far = World(world.root / "far")
    done = far.run("bundle", "import", "../delta", code=5)
    assert "error[bundle-incomplete]" in done.stderr
    assert left in done.stderr
    assert not list((far.root / "sources").glob("crates/*"))
    far.run("bundle", "import", "../delta", "--base", "../bundle")
    assert (far.root / left).exists()


def _sums(folder: Path, **more: str) -> None:
    file = folder / ".cargo-checksum.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def problem(bundle: Path, digest: str) -> str:
    listed = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    files = {
        str(path.relative_to(bundle)): Entry(sha256=sha256_file(path), size=path.stat().st_size) for path in listed
    }
    return vendored.problem(bundle, digest, [path for path in files if vendored.is_vendored(path)], files)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "more": (lambda folder: (folder / "build.rs").write_text("fn main() {}\n"), "build.rs: isn't what"),
    "changed": (lambda folder: (folder / "src" / "lib.rs").write_text("evil\n"), "src/lib.rs: isn't what"),
    "less": (lambda folder: (folder / "src" / "lib.rs").unlink(), "src/lib.rs: isn't what"),
    "no sums": (lambda folder: (folder / ".cargo-checksum.json").unlink(), "No such file"),
    "odd sums": (lambda folder: (folder / ".cargo-checksum.json").write_text("[]"), "has no attribute"),
    "other sums": (lambda folder: _sums(folder, files="x"), "has no attribute"),
    "sums without files": (lambda folder: (folder / ".cargo-checksum.json").write_text(SUMS), "'files'"),
    "deep sums": (lambda folder: (folder / ".cargo-checksum.json").write_text("[" * 100_000), "recursion depth"),
    "sums of nothing": (
        lambda folder: shutil.copytree(folder, folder.with_name("x"), ignore=shutil.ignore_patterns("[!.]*")),
        "x/.cargo-checksum.json: isn't what",
    ),
    "another archive": (lambda folder: _sums(folder, package="b" * 64), "of another archive than Cargo.lock says"),
    "another crate": (lambda folder: shutil.copytree(folder, folder.with_name("other-1.0.0")), "other-1.0.0/"),
    "beside": (lambda folder: folder.with_name("x.rs").write_text(""), "x.rs: isn't what"),
    "no lock": (lambda folder: folder.parent.with_name(f"{DIGEST}.lock").unlink(), "its Cargo.lock isn't of"),
    "other lock": (lambda folder: folder.parent.with_name(f"{DIGEST}.lock").write_text("x"), "its Cargo.lock isn't of"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_crate_of_the_lock_is_seen(tmp_path: Path, name: str) -> None:
    folder = vendor(tmp_path)
    assert problem(tmp_path, DIGEST) == ""
    spoil, said = SPOILT[name]
    spoil(folder)
    assert said in problem(tmp_path, DIGEST)


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_what_cargo_vendors_is_right(bench: Bench, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    """From a registry and from git."""
    (found,) = bench.resolve()
    assert found.pin is not None
    sources = bench.outside.sources
    nested.fetch([found], sources)
    there = tmp_path / "bundle" / "sources" / "crates"
    folder = crates.folder_of(found.pin, sources)
    shutil.copytree(folder.parent, there)
    assert len(list(there.rglob("*/.cargo-checksum.json"))) == 6
    assert problem(tmp_path / "bundle", folder.name) == ""
