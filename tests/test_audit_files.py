from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, files, tags
from builder.audit.context import Context, Expected
from builder.audit.facts import Contents, Elf, File
from builder.audit.target import Capability
from builder.values import replace
from tests import wheel_kit
from tests.elf_kit import library, program, tool
from tests.wheel_kit import record, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.audit.rules import Finding

INFO = "tiny-1.0.dist-info"
AARCH64 = "cp311-cp311-linux_aarch64"
HERE = "tiny/_core.cpython-311-aarch64-linux-gnu.so"


def judged(found: Contents, *, max_size: int | None = None) -> list[Finding]:
    return list(files.judge(found, Context(target=Capability(12, 1), expected=Expected(max_size=max_size))))


def said(found: Contents, *, max_size: int | None = None) -> list[tuple[str, str, str]]:
    return [(one.severity, one.id, one.file) for one in judged(found, max_size=max_size)]


def wheel(
    folder: Path,
    members: Mapping[str, bytes],
    tag: str = AARCH64,
    *,
    inside: Sequence[str] | None = None,
    purelib: bool = False,
    headers: Sequence[str] = (),
    modes: Mapping[str, int] | None = None,
) -> Contents:
    """What is read of a wheel with `members`; WHEEL says `inside`, and the file name `tag`."""
    made = wheel_kit.contents("tiny", "1.0", members, headers)
    lines = [
        f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(purelib).lower()}",
        *(f"Tag: {one}" for one in inside or [tag]),
    ]
    made[f"{INFO}/WHEEL"] = ("\n".join(lines) + "\n").encode()
    made.pop(f"{INFO}/RECORD")
    made[f"{INFO}/RECORD"] = record(made, INFO)
    return contents.read(write(folder / f"tiny-1.0-{tag}.whl", made, modes=modes))


def named(*paths: str, tag: str) -> Contents:
    """A wheel with files of these names, which nobody looked into."""
    return Contents(
        where=Path("tiny.whl"),
        filename=f"tiny-1.0-{tag}.whl",
        project="tiny",
        version="1.0",
        tags=(tag,),
        files=tuple(File(path=path, size=1) for path in paths),
    )


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (AARCH64, HERE),
        ("cp311-cp311-manylinux_2_39_aarch64", HERE),
        ("cp38-abi3-manylinux_2_28_aarch64", "tiny/_core.abi3.so"),
        ("py3-none-linux_aarch64", "tiny/lib/libtiny.so.1"),
    ],
)
def test_good_wheels_pass(tmp_path: Path, tag: str, name: str) -> None:
    found = wheel(
        tmp_path, {name: library("aarch64"), "tiny/tool": program("aarch64")}, tag, modes={"tiny/tool": 0o755}
    )
    assert said(found) == []


def test_a_wheel_of_texts_passes(tmp_path: Path) -> None:
    assert (
        said(
            wheel(
                tmp_path,
                {"tiny/__init__.py": b""},
                "py2.py3-none-any",
                purelib=True,
                inside=["py2-none-any", "py3-none-any"],
            )
        )
        == []
    )


def test_problems_of_the_pass_are_errors(tmp_path: Path) -> None:
    found = wheel(tmp_path, {"tiny/__init__.py": b""}, "py3-none-any", purelib=True)
    slugs = ("wheel-damaged", "wheel-unsafe", "wheel-hidden", "wheel-name", "record-lies")
    bad = replace(found, problems=tuple((slug, "a/file", "what was found") for slug in (*slugs, "of-somebody-else")))
    assert said(bad) == [("error", slug, "a/file") for slug in slugs]
    assert all(one.found == "what was found" and one.why and one.help for one in judged(bad))


def test_machine_code_in_a_wheel_for_any_machine_is_refused(tmp_path: Path) -> None:
    module = "tiny/_core.cpython-311-aarch64-linux-gnu.so"
    found = wheel(tmp_path, {module: library("aarch64"), "tiny/lib/other.so": library("x86_64")}, "cp311-none-any")
    assert ("error", "tag-any-with-elf", module) in said(found)
    assert ("warning", "tag-any-with-elf", "tiny/lib/other.so") in said(found)  # for whom it may concern


def test_a_library_for_another_machine_is_refused(tmp_path: Path) -> None:
    found = wheel(tmp_path, {HERE: library("x86_64"), "tiny/good.so": library("aarch64")})
    (one,) = judged(found)
    assert (one.severity, one.id, one.file, one.found, one.wanted) == (
        "error",
        "elf-machine",
        HERE,
        "x86_64",
        "aarch64",
    )


def archived(folder: Path, *libraries: bytes) -> bytes:
    """What ar makes of `libraries`, as it would of objects."""
    folder.mkdir()
    for number, data in enumerate(libraries):
        (folder / f"{number}.o").write_bytes(data)
    subprocess.run([tool("ar"), "rcS", "lib.a", *sorted(one.name for one in folder.iterdir())], cwd=folder, check=True)
    return (folder / "lib.a").read_bytes()


def test_objects_in_a_static_library_are_seen(tmp_path: Path) -> None:
    both = archived(tmp_path / "both", library("aarch64"), b"no object", library("x86_64"))
    good = archived(tmp_path / "good", library("aarch64"), b"\x7fELF")
    members = {"tiny/lib/libboth.a": both, "tiny/lib/libgood.a": good, "tiny/lib/libempty.a": b"!<arch>\n"}
    found = wheel(tmp_path / "own", members)
    assert [one.machines for one in found.files if one.path.endswith(".a")] == [
        {"aarch64", "x86_64"},
        set(),
        {"aarch64"},
    ]
    (one,) = judged(found)
    assert (one.severity, one.id, one.file, one.found) == ("error", "elf-machine", "tiny/lib/libboth.a", "x86_64")
    anywhere = wheel(tmp_path / "any", {"tiny/lib/libgood.a": good}, "py3-none-any", purelib=True)
    assert said(anywhere) == [("warning", "tag-any-with-elf", "tiny/lib/libgood.a")]


def test_device_code_is_no_code_of_the_host(tmp_path: Path) -> None:
    """A cubin is an ELF file, too."""
    cubin = bytearray(library("aarch64"))
    cubin[18:20] = (190).to_bytes(2, "little")
    found = wheel(tmp_path, {"tiny/kernel.cubin": bytes(cubin)}, "py3-none-any", purelib=True)
    assert [one.elf.machine for one in found.files if one.elf] == ["cuda"]
    assert said(found) == []


def test_a_library_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    found = wheel(tmp_path, {HERE: library("aarch64")[:-5000]})
    (one,) = judged(found)
    assert (one.severity, one.id, one.file) == ("error", "elf-damaged", HERE)
    assert "the file ends at" in one.found


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (AARCH64, "tiny/_core.cpython-311-x86_64-linux-gnu.so"),
        ("cp312-cp312-linux_aarch64", HERE),
        ("cp313-cp313t-linux_aarch64", "tiny/_core.cpython-313-aarch64-linux-gnu.so"),
        ("cp313-cp313t-linux_aarch64", "tiny/_core.abi3.so"),
        ("cp38-abi3-manylinux_2_28_aarch64", HERE),
        ("py3-none-linux_aarch64", "tiny/_core.cpython-311-x86_64-linux-gnu.so"),
    ],
)
def test_a_suffix_that_python_does_not_look_for_is_refused(tag: str, name: str) -> None:
    assert said(named(name, "tiny/other.so", tag=tag)) == [("error", "ext-suffix", name)]


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("cp38-abi3-linux_aarch64", [HERE, "tiny/_core.abi3.so"]),
        ("cp313-cp313t-linux_aarch64", ["tiny/_core.cpython-313t-aarch64-linux-gnu.so"]),
        ("cp311-cp311-linux_armv7l", ["tiny/_core.cpython-311-arm-linux-gnueabihf.so"]),
        ("cp311-cp311-manylinux2014_i686", ["_core.cpython-311-i386-linux-gnu.so"]),
        ("cp311-cp311-musllinux_1_2_aarch64", ["tiny/_core.cpython-311-aarch64-linux-musl.so"]),
        (AARCH64, ["tiny/lib.so", "tiny/lib.so.1.2", "tiny/a.b.so", "so", "tiny/.so", HERE]),
    ],
)
def test_suffixes_that_python_looks_for_pass(tag: str, names: list[str]) -> None:
    assert said(named(*names, tag=tag)) == []


def test_a_module_for_one_python_in_a_wheel_for_all_is_a_warning() -> None:
    found = named(HERE, tag="py3-none-linux_aarch64")
    assert said(found) == [("warning", "ext-suffix", HERE)]


def test_the_official_way_of_renaming_is_a_warning(tmp_path: Path) -> None:
    members = {"tiny/_core.abi3.so": library("aarch64")}
    found = wheel(tmp_path, members, "cp38-abi3-manylinux_2_28_aarch64", inside=["cp38-abi3-linux_aarch64"])
    (one,) = judged(found)
    assert (one.severity, one.id) == ("warning", "tag-differs")
    assert (one.found, one.wanted) == ("cp38-abi3-manylinux_2_28_aarch64", "cp38-abi3-linux_aarch64")


@pytest.mark.parametrize(
    ("tag", "inside"),
    [
        ("cp38-abi3-manylinux_2_28_aarch64", "cp38-abi3-linux_x86_64"),
        ("cp39-abi3-manylinux_2_28_aarch64", "cp38-abi3-linux_aarch64"),
        ("cp38-cp38-manylinux_2_28_aarch64", "cp38-abi3-linux_aarch64"),
        ("cp38-abi3-linux_aarch64", "cp38-abi3-manylinux_2_28_aarch64"),
        ("cp38-abi3-linux_aarch64", "py3-none-any"),
    ],
)
def test_tags_that_say_something_else_are_refused(tag: str, inside: str) -> None:
    found = replace(
        named("tiny/_core.abi3.so", tag=tag),
        tags=(inside,),
        metadata=b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    )
    assert ("error", "tag-differs", "") in said(found)


def test_a_name_for_fewer_machines_than_its_wheel_is_told(tmp_path: Path) -> None:
    found = wheel(tmp_path, {"tiny/__init__.py": b""}, "py3-none-manylinux_2_17_aarch64", inside=["py3-none-any"])
    assert ("warning", "tag-differs", "") in said(found)


def test_several_tags_in_one_name_are_those_that_wheel_lists(tmp_path: Path) -> None:
    machines = ["cp38-abi3-manylinux_2_27_aarch64", "cp38-abi3-manylinux_2_28_aarch64"]
    tag = "cp38-abi3-manylinux_2_27_aarch64.manylinux_2_28_aarch64"
    assert said(wheel(tmp_path, {}, tag, inside=machines)) == []
    assert said(wheel(tmp_path, {}, tag, inside=machines[1:])) == [("warning", "tag-differs", "")]


def test_a_tag_that_stands_for_billions_costs_nothing() -> None:
    text = "-".join([".".join(f"a{number}" for number in range(5000))] * 3)
    assert tags.inside(replace(named(tag=AARCH64), tags=(text, "no tag", "a-b", AARCH64))) == tags.outside(
        named(tag=AARCH64)
    )


def test_what_is_installed_is_judged_by_the_tags_in_wheel(tmp_path: Path) -> None:
    found = replace(wheel(tmp_path, {HERE: library("x86_64"), "tiny/__pycache__/a.pyc": b""}), filename="")
    assert said(found) == [("error", "elf-machine", HERE)]


def test_pure_wheels_with_machine_code_are_told(tmp_path: Path) -> None:
    found = wheel(tmp_path, {HERE: library("aarch64")}, purelib=True)
    assert said(found) == [("warning", "purelib-with-elf", HERE)]


@pytest.mark.parametrize(
    ("requires", "tag", "excluded"),
    [
        (">=3.12", AARCH64, True),
        (">=3.9,<3.11", AARCH64, True),
        ("!=3.11.*", AARCH64, True),
        (">=3.11.4", AARCH64, False),
        (">=3.9", AARCH64, False),
        (">=3.11", "cp38-abi3-linux_aarch64", False),
        (">=3.12", "cp311.cp312-cp311.cp312-linux_aarch64", False),
        (">=3.12", "py3-none-linux_aarch64", False),
    ],
)
def test_a_tag_that_requires_python_excludes_is_refused(
    tmp_path: Path, requires: str, tag: str, *, excluded: bool
) -> None:
    inside = sorted(str(one) for one in tags.outside(named(tag=tag)))
    found = wheel(tmp_path, {}, tag, headers=[f"Requires-Python: {requires}"], inside=inside)
    assert said(found) == ([("error", "python-excluded", "")] if excluded else [])


def test_metadata_that_breaks_its_format_is_told(tmp_path: Path) -> None:
    found = wheel(
        tmp_path, {}, headers=["Requires-Python: three", "Requires-Dist: a b c", "Description-Content-Type: no/such"]
    )
    refused, other = judged(found)
    assert (refused.severity, refused.id, other.severity, other.id) == (
        *("error", "metadata-invalid"),
        *("warning", "metadata-invalid"),
    )
    assert "requires-python" in refused.found
    assert "requires-dist" in refused.found
    assert "no/such" in other.found
    # Nobody reads it again once it is installed.
    assert {one.severity for one in judged(replace(found, filename=""))} == {"warning"}


def test_a_program_that_may_not_run_is_told(tmp_path: Path) -> None:
    members = {"tiny/bin/tool": program("aarch64"), "tiny/_core.so": library("aarch64")}
    assert said(wheel(tmp_path, members)) == [("warning", "program-mode", "tiny/bin/tool")]


def test_a_wheel_larger_than_the_recipe_allows_is_refused(tmp_path: Path) -> None:
    found = wheel(tmp_path, {HERE: library("aarch64")})
    assert said(found, max_size=found.size) == []
    assert said(found, max_size=found.size - 1) == [("error", "size-limit", "")]


def test_what_stripping_would_save_is_told(tmp_path: Path) -> None:
    file, debug = tmp_path / "lib.so", tmp_path / "debug"
    file.write_bytes(library("aarch64"))
    debug.write_bytes(bytes(3 << 20))
    subprocess.run([tool("objcopy", "aarch64"), f"--add-section=.debug_info={debug}", file], check=True)
    found = wheel(tmp_path, {HERE: file.read_bytes()})
    (one,) = judged(found)
    assert (one.severity, one.id, one.file) == ("info", "not-stripped", HERE)
    assert one.found.startswith("stripping would save 3.0 MiB, 98% of the file; 3.0 MiB of it is debug information")
    (small,) = (one for one in found.files if one.elf)
    large = replace(small, size=100 << 20, elf=Elf(machine="aarch64", bits=64, kind="shared", debug_size=60 << 20))
    assert said(replace(found, files=(large,))) == [("warning", "not-stripped", HERE)]


def test_small_savings_of_stripping_are_told_together() -> None:
    def of(path: str, saved: int) -> File:
        found = Elf(machine="aarch64", bits=64, kind="shared", symbols_size=saved << 20)
        return File(path=path, size=100 << 20, elf=found)

    sizes = {"a.so": 2, "b.so": 9, "c.so": 3, "d.so": 0, "e.so": 20, "f.so": 11}
    found = judged(replace(named(tag=AARCH64), files=tuple(of(path, saved) for path, saved in sizes.items())))
    told = [(one.file, one.found) for one in found if one.id == "not-stripped"]
    assert [file for file, _text in told] == ["e.so", "f.so", "b.so"]
    assert told[2][1] == "stripping would save 9.0 MiB, 9% of the file; and of 2 more files 5.0 MiB"
    assert "more files" not in told[0][1]


def test_a_licence_named_early_is_no_finding(tmp_path: Path) -> None:
    assert said(wheel(tmp_path, {}, headers=["License-File: LICENSE"])) == []


def test_large_files_that_are_the_same_are_told(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    found = wheel(
        tmp_path, {"tiny/a": data, "tiny/b": data, "tiny/c": data[1:], "tiny/d": b"", "tiny/e": b""}, purelib=True
    )
    (one,) = judged(found)
    assert (one.severity, one.id, one.file) == ("info", "same-file-twice", "tiny/a")
    assert one.found.startswith("again as tiny/b")


def test_the_unpacked_size_of_a_large_wheel_is_told() -> None:
    found = replace(named(tag=AARCH64), files=(File(path="tiny/data", size=300 << 20),))
    assert said(found) == [("info", "unpacked-size", "")]


def test_left_overs_of_a_build_are_told(tmp_path: Path) -> None:
    junk = ["tiny/__pycache__/a.cpython-311.pyc", "tiny/b.o", "tiny/c.py.orig", "build/CMakeFiles/x.txt", "tiny/d.py~"]
    found = wheel(tmp_path, {**dict.fromkeys(junk, b""), "tiny/good.py": b"", "tiny/node": b"", "tiny/.gitignore": b""})
    (one,) = judged(found)
    assert (one.severity, one.id, one.file) == ("info", "left-over", "build/CMakeFiles/x.txt")
    assert "and 4 more" in one.found


def test_every_rule_says_why_and_what_to_do() -> None:
    for slug, rule in files.RULES.items():
        assert slug == rule.id
        assert rule.title
        assert rule.why
        assert rule.help or rule.severity == "info"


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ("py3-none-any", ""),
        ("cp312-cp312-manylinux_2_28_aarch64", ""),
        ("cp312-cp312-linux_aarch64", ""),
        ("cp312-cp312-manylinux2014_x86_64.manylinux2014_aarch64", ""),
        ("cp312-cp312-manylinux_2_28_x86_64", "manylinux_2_28_x86_64 is for x86_64"),
        ("cp312-cp312-win_amd64", "win_amd64 is for Windows"),
        ("cp312-cp312-win_arm64", "win_arm64 is for Windows"),
        ("cp312-cp312-macosx_11_0_arm64", "macosx_11_0_arm64 is for macOS"),
        ("cp312-cp312-plan9_aarch64", "plan9_aarch64 is for another system"),
        (
            "cp312-cp312-musllinux_1_2_aarch64",
            "musllinux_1_2_aarch64 is for systems with musl in the place of glibc",
        ),
        ("cp312-cp312-win_amd64.macosx_11_0_arm64", "macosx_11_0_arm64 is for macOS, win_amd64 is for Windows"),
    ],
)
def test_a_wheel_that_the_target_machine_cannot_install(tag: str, found: str) -> None:
    about = named("tiny/__init__.py", tag=tag)

    def told(one: Contents, machine: str) -> list[str]:
        context = Context(target=Capability(12, 1), machine=machine)
        return [each.found for each in files.judge(one, context) if each.id == "target-machine"]

    assert told(about, "aarch64") == ([found] if found else [])
    assert told(about, "") == []
    assert told(replace(about, filename="", tags=(tag,)), "aarch64") == []
