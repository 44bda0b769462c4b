"""Archives, replaced paths and crates lie where a build would have downloaded them to, at each attempt."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import RecipeError, SourceError, SparkError
from builder.source import archive, crates
from builder.stages import ZIP_EPOCH, Given, Nested
from tests.given_kit import UPSTREAM, Bench
from tests.source_kit import tar_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Downloads its dependency as Triton's setup.py does, unless it is there from the same URL.
DOWNLOADS = f"""
import os, pathlib, shutil, tarfile, urllib.request

URL = "{UPSTREAM}/llvm-1.tar.gz"
cache = pathlib.Path(os.environ.get("TINY_HOME", os.environ["HOME"])) / ".tiny" / "llvm"
package, stamp = cache / "llvm-1", cache / "llvm-1" / "version.txt"
if not stamp.exists() or stamp.read_text() != URL:
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    with urllib.request.urlopen(URL) as answer, tarfile.open(fileobj=answer, mode="r|*") as tar:
        tar.extractall(cache)
    stamp.write_text(URL)
print((package / "include" / "llvm.h").read_text())
"""

#: Takes the file of an earlier download when its digest is right, and deletes it when it isn't.
CHECKS = f"""
import hashlib, os, pathlib, sys, urllib.request

URL, WANTED = "{UPSTREAM}/data.bin", sys.argv[1]
file = pathlib.Path(os.environ["HOME"], ".cache", "data.bin")
if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() != WANTED:
    file.unlink()
if not file.exists():
    file.write_bytes(urllib.request.urlopen(URL).read())
print(file.read_text())
"""

FILES = {"llvm-1/include/llvm.h": "#define LLVM 1", "llvm-1/bin/tool": "#!/bin/sh\n", "llvm-1/lib/libx.so.1": "x"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def tarball(bench: Bench, name: str = "llvm-1.tar.gz", files: Mapping[str, str] = FILES) -> Path:
    file = bench.root / "up" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(tar_of(dict(files)))
    return file


def llvm(bench: Bench, **more: object) -> Nested:
    place = {"place": "${home}/.tiny/llvm/llvm-1", "unpack": True, "strip": 1}
    stamp = {"version.txt": f"{UPSTREAM}/llvm-1.tar.gz"}
    return bench.archive("llvm", tarball(bench), **{**place, "stamp": stamp, **more})


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stored(nested: Nested, bench: Bench) -> Path:
    assert nested.pin is not None
    return archive.file_of(nested.pin, bench.outside.sources)


def test_an_unpacked_archive_is_taken_for_the_build_s_own_download(bench: Bench) -> None:
    (bench.space.src / "setup.py").write_text(DOWNLOADS)
    nested = llvm(bench)
    assert "urlopen error" in bench.run("python", "setup.py", given={}, code=1)
    given = bench.lay_out(nested)
    assert bench.run("python", "setup.py", given=given).strip() == "#define LLVM 1"
    files = snapshot(bench.space.root / "home/.tiny/llvm/llvm-1")
    assert nested.pin is not None
    assert {time for time, _mode, _data in files.values()} == {max(nested.pin.time, ZIP_EPOCH) * 10**9}
    assert bench.lay_out(nested) == given
    assert snapshot(bench.space.root / "home/.tiny/llvm/llvm-1") == files


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf .tiny/llvm",
        "rm .tiny/llvm/llvm-1/version.txt",
        "echo other > .tiny/llvm/llvm-1/include/llvm.h",
        "rm -rf .tiny && touch .tiny",
        "rm -rf .tiny/llvm/llvm-1/include && ln -s /etc .tiny/llvm/llvm-1/include",
        "rm -rf .tiny/llvm/llvm-1 && ln -s /etc .tiny/llvm/llvm-1",
        "rm .tiny/llvm/llvm-1/include/llvm.h && mkdir .tiny/llvm/llvm-1/include/llvm.h",
    ],
)
def test_what_a_build_damaged_is_put_back_and_what_it_made_is_left(bench: Bench, damage: str) -> None:
    (bench.space.src / "setup.py").write_text(DOWNLOADS)
    nested = llvm(bench)
    given = bench.lay_out(nested)
    bench.run(
        "sh", "-c", f"cd $HOME && mkdir -p .tiny/llvm/other && touch .tiny/llvm/other/made && {damage}", given=given
    )
    kept = (bench.space.root / "home/.tiny/llvm/other/made").exists()
    assert bench.run("python", "setup.py", given=bench.lay_out(nested)).strip() == "#define LLVM 1"
    assert (bench.space.root / "home/.tiny/llvm/other/made").exists() == kept
    assert not Path("/etc/llvm.h").exists()


def test_what_the_build_made_of_a_damaged_file_is_made_again(bench: Bench) -> None:
    nested = llvm(bench)
    given = bench.lay_out(nested)
    (bench.space.src / "Makefile").write_text("out: $(HOME)/.tiny/llvm/llvm-1/include/llvm.h\n\tcp $< out\n")
    bench.run("sh", "-c", "echo broken > $HOME/.tiny/llvm/llvm-1/include/llvm.h && make", given=given)
    bench.run("make", given=bench.lay_out(nested))
    assert (bench.space.src / "out").read_text() == "#define LLVM 1"


def test_a_file_that_the_build_refuses_and_deletes_is_there_again(bench: Bench) -> None:
    (bench.space.src / "get.py").write_text(CHECKS)
    file = bench.root / "up" / "data.bin"
    file.parent.mkdir()
    file.write_bytes(tar_of({"data.txt": "x"}))  # only its bytes matter
    wanted = hashlib.sha256(file.read_bytes()).hexdigest()
    nested = bench.archive("data", file, place="${home}/.cache/${file}".replace("${file}", "data.bin"))
    given = bench.lay_out(nested)
    assert "urlopen error" in bench.run("python", "get.py", "0" * 64, given=given, code=1)
    assert not (bench.space.root / "home/.cache/data.bin").exists()
    assert hashlib.sha256(stored(nested, bench).read_bytes()).hexdigest() == wanted
    (bench.space.src / "get.py").write_text(CHECKS.replace("print(file.read_text())", "print(len(file.read_bytes()))"))
    bench.run("python", "get.py", wanted, given=bench.lay_out(nested))
    bench.run("sh", "-c", "printf x | dd of=$HOME/.cache/data.bin conv=notrunc", given=given)  # as large as before
    bench.run("python", "get.py", wanted, given=bench.lay_out(nested))
    assert hashlib.sha256(stored(nested, bench).read_bytes()).hexdigest() == wanted


def test_a_stored_archive_that_rotted_is_told_before_the_build(bench: Bench) -> None:
    for more in ({}, {"place": "${home}/llvm-1.tar.gz", "unpack": False}):
        nested = llvm(bench, **more)
        stored(nested, bench).write_bytes(b"rotten")
        with pytest.raises(SourceError) as told:
            bench.lay_out(nested)
        assert told.value.code == "hash-mismatch"
        assert "spark-build fetch NAME" in told.value.run
        shutil.rmtree(stored(nested, bench).parent)
    assert not list((bench.space.root / "home").rglob("*llvm-1*"))


def test_archives_with_a_folder_in_common_leave_each_other_s_files(bench: Bench) -> None:
    one = bench.archive(
        "one", tarball(bench, "one.tar.gz", {"t/a": "a", "t/same": "s"}), place="${home}/x", unpack=True, strip=1
    )
    two = bench.archive(
        "two", tarball(bench, "two.tar.gz", {"t/b": "b", "t/same": "s"}), place="${home}/x", unpack=True, strip=1
    )
    bench.lay_out(one, two)
    home = bench.space.root / "home"
    assert {name: data for name, (_time, _mode, data) in snapshot(home / "x").items()} == {
        "a": b"a",
        "b": b"b",
        "same": b"s",
    }
    before = snapshot(home / "x")
    bench.lay_out(one, two)
    assert snapshot(home / "x") == before


def test_leading_folders_are_dropped_as_the_recipe_says(bench: Bench) -> None:
    for strip, where in ((0, "llvm-1/include/llvm.h"), (1, "include/llvm.h")):
        nested = bench.archive(f"s{strip}", tarball(bench), place=f"${{home}}/s{strip}", unpack=True, strip=strip)
        bench.lay_out(nested)
        assert (bench.space.root / f"home/s{strip}" / where).read_text() == "#define LLVM 1"
    with pytest.raises(SourceError) as told:
        bench.lay_out(bench.archive("s2", tarball(bench), place="${home}/s2", unpack=True, strip=2))
    assert told.value.code == "archive-layout"
    assert "bin, include, lib" in told.value.cause


def test_a_replaced_file_keeps_its_mode_and_a_folder_its_links(bench: Bench) -> None:
    own = bench.root / "own"
    (own / "lib").mkdir(parents=True)
    (own / "lib" / "libx.so.1").write_text("x")
    (own / "lib" / "libx.so").symlink_to("libx.so.1")
    (own / "tool").write_text("#!/bin/sh\necho mine\n")
    (own / "tool").chmod(0o755)
    tool = Nested(id="tool", kind="archive", origin="user", given=Given(place="${src}/bin/tool"), path=own / "tool")
    stamp = {"version.txt": "the URL"}
    folder = Nested(
        id="folder", kind="archive", origin="user", given=Given(place="${deps}/folder", stamp=stamp), path=own
    )
    given = bench.lay_out(tool, folder)
    assert bench.run("./bin/tool", given=given) == "mine\n"
    laid = bench.space.root / "deps" / "folder"
    assert (laid / "lib" / "libx.so").readlink() == Path("libx.so.1")
    assert (laid / "version.txt").read_text() == "the URL"
    bench.run("sh", "-c", "echo >> bin/tool; echo >> ../deps/folder/lib/libx.so.1", given=given)
    bench.lay_out(tool, folder)
    assert (own / "lib" / "libx.so.1").read_text() == (laid / "lib" / "libx.so.1").read_text() == "x"
    assert bench.run("./bin/tool", given=given) == "mine\n"


def test_variables_are_laid_under_the_build_s_own_and_added_behind_them(bench: Bench) -> None:
    env = {
        "KEEP": "${place}",
        "OWN": "given",
        "CMAKE_ARGS+": "-DA=${home}",
    }
    one = llvm(bench, env=env)
    two = Nested(
        id="cutlass", kind="git", origin="user", path=bench.root, given=Given(env={"CMAKE_ARGS+": "-DB=${path}"})
    )
    given = bench.lay_out(one, two)
    told = bench.run("env", given=given, env={"OWN": "own", "CMAKE_ARGS": "-DC=1"}).splitlines()
    home = bench.space.inside / "home"
    assert f"KEEP={home}/.tiny/llvm/llvm-1" in told
    assert "OWN=own" in told
    assert f"CMAKE_ARGS=-DC=1 -DA={home} -DB={bench.root}" in told


def test_a_replaced_repository_goes_in_by_cmake_s_own_variable(bench: Bench) -> None:
    own = bench.root / "mine"
    own.mkdir()
    (own / "x.txt").write_text("mine\n")
    nested = Nested(
        id="lib",
        kind="git",
        origin="user",
        path=own,
        given=Given(env={"CMAKE_ARGS+": "-DFETCHCONTENT_SOURCE_DIR_LIB=${path}"}),
    )
    (bench.space.src / "CMakeLists.txt").write_text(
        textwrap.dedent(f"""\
        cmake_minimum_required(VERSION 3.24)
        project(tiny NONE)
        include(FetchContent)
        FetchContent_Declare(lib GIT_REPOSITORY {UPSTREAM}/lib.git GIT_TAG v1)
        FetchContent_MakeAvailable(lib)
        file(READ ${{lib_SOURCE_DIR}}/x.txt text)
        message(STATUS "found ${{text}}")
        """)
    )
    told = bench.run("sh", "-c", "cmake -G Ninja -S . -B build $CMAKE_ARGS", given=bench.lay_out(nested))
    assert "found mine" in told


def test_a_path_that_goes_nowhere_is_told(bench: Bench) -> None:
    nested = Nested(id="lib", kind="git", origin="user", path=bench.root, given=Given())
    with pytest.raises(RecipeError) as told:
        bench.lay_out(nested)
    assert told.value.code == "fetch-path"
    assert "fetch.lib.replaced" in told.value.help


def test_a_damaged_file_of_the_user_is_never_to_be_deleted(bench: Bench) -> None:
    own = bench.root / "own.tar.gz"
    own.write_bytes(b"\x1f\x8b half an archive")
    made = Given(place="${deps}/own", unpack=True)
    with pytest.raises(SourceError) as caught:
        bench.lay_out(Nested(id="own", kind="archive", origin="user", given=made, path=own))
    assert caught.value.run == (f"ls -l {own}",)
    assert "fetch.own.path" in str(caught.value.help)


def test_nothing_is_written_outside_of_the_build_s_folder(bench: Bench) -> None:
    aside = bench.root / "aside"
    aside.mkdir()
    for place in ("${home}/../../../aside/x", f"{aside}/x"):
        with pytest.raises(RecipeError) as told:
            bench.lay_out(llvm(bench, place=place))
        assert told.value.code == "fetch-place"
    (bench.space.root / "home" / ".tiny").symlink_to(aside)  # as a build could
    with pytest.raises(SparkError) as refused:
        bench.lay_out(llvm(bench))
    assert refused.value.code == "fetch-place"
    assert "--force" in refused.value.run[0]
    assert not list(aside.iterdir())


def test_a_stamp_stays_in_its_folder_whatever_the_tree_calls_it_and_the_user_linked(bench: Bench) -> None:
    aside = bench.root / "aside"
    aside.mkdir()
    (aside / "mine.txt").write_text("mine")
    for name in ("../../../../../aside/x", "out/x", "."):
        own = bench.root / f"own-{len(name)}"
        own.mkdir()
        (own / "out").symlink_to(aside)
        (own / "version.txt").symlink_to(aside / "mine.txt")
        made = Given(place=f"${{deps}}/{own.name}", stamp={"version.txt": "the URL", name: "x"})
        with pytest.raises(RecipeError) as told:
            bench.lay_out(Nested(id=own.name, kind="archive", origin="user", given=made, path=own))
        assert told.value.code == "fetch-place"
        assert name in told.value.summary
    own = bench.root / "own-1"
    made = Given(place="${deps}/own", stamp={"version.txt": "the URL"})
    bench.lay_out(Nested(id="own", kind="archive", origin="user", given=made, path=own))
    assert (bench.space.root / "deps/own/version.txt").read_text() == "the URL"
    assert [(one.name, one.read_text()) for one in aside.iterdir()] == [("mine.txt", "mine")]


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_a_crate_is_built_from_the_folder_of_crates_with_the_network_cut(bench: Bench) -> None:
    dep, src = (
        bench.repo("dep", **{"Cargo.toml": crate("dep"), "src/lib.rs": "pub fn value() -> u32 { 42 }\n"}),
        bench.space.src,
    )
    url = dep.folder.as_uri()
    (src / "src").mkdir()
    (src / "Cargo.toml").write_text(crate("app") + f'[dependencies]\ndep = {{ git = "{url}" }}\n')
    (src / "src/main.rs").write_text('fn main() { println!("value {}", dep::value()); }\n')
    tools = {name: os.environ[name] for name in ("RUSTUP_HOME", "CARGO_HOME") if name in os.environ}
    rust = {"PATH": os.environ["PATH"], "RUSTUP_HOME": str(Path.home() / ".rustup"), **tools}
    home = {**rust, "HOME": str(bench.root / "user" / "home"), "CARGO_HOME": str(bench.root / "cargo")}
    subprocess.run(["cargo", "generate-lockfile"], cwd=src, env=home, check=True, capture_output=True)
    bench.outside.env |= home
    pin = crates.pin((src / "Cargo.lock").read_bytes(), "Cargo.lock", bench.outside.sources)
    crates.fetch(pin, bench.outside.sources)
    shutil.rmtree(dep.folder)
    nested = Nested(id="crates", kind="crates", origin="tree", given=Given(), pin=pin)
    rust.pop("CARGO_HOME", None)
    for _attempt in range(2):
        given = bench.lay_out(nested)
        assert "value 42" in bench.run("cargo", "run", "--locked", "--offline", given=given, env=rust)
        bench.run("sh", "-c", f"rm -rf target {bench.space.inside}/deps/crates/dep-*", given=given)


def crate(name: str) -> str:
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n'
