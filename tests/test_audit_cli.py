"""``spark-build audit`` and the gate of ``wheels add``: real wheels, real libraries, the installed command."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.cli import findings
from builder.recipe import find, load
from tests import wheel_kit, wheelhouse_kit
from tests.test_audit_installed import library, site, uv, venv
from tests.world import COMMAND

if TYPE_CHECKING:
    from tests.world import World

MACHINE = os.uname().machine
OTHER = "x86_64" if MACHINE == "aarch64" else "aarch64"
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"


def native(world: World, project: str = "lib", *, machine: str = MACHINE, pure: bool = False) -> Path:
    """A wheel with a library for this machine, which may say that it is for another, or that it is pure."""
    tags = f"py3-none-linux_{machine}"
    folder = world.root / "dist" / machine
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{project}/__init__.py": b"", f"{project}/libone.so": library(folder)}
    made = wheel_kit.contents(project, "1.0", files)
    made[f"{project}-1.0.dist-info/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: {str(pure).lower()}\nTag: {tags}\n".encode()
    )
    del made[f"{project}-1.0.dist-info/RECORD"]
    made[f"{project}-1.0.dist-info/RECORD"] = wheel_kit.record(made, f"{project}-1.0.dist-info")
    return wheel_kit.write(folder / f"{project}-1.0-{tags}.whl", made)


def errors(document: dict[str, Any], at: int = 0) -> list[str]:
    found = document["reports"][at]["findings"]
    return sorted({one["id"] for one in found if one["severity"] == "error" and not one["accepted"]})


def test_a_good_wheel_passes(world: World) -> None:
    wheel = native(world)
    done = world.run("audit", str(wheel))
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == " lib 1.0"
    assert f" {wheel.name}" in lines
    assert any(line.split()[-1] == "without" or "libone.so" in line or "small file" in line for line in lines)
    assert " ✔ not refused" in lines[-1]
    assert all(len(line) <= 80 for line in lines)


def test_machine_code_for_another_machine_is_refused_and_may_be_let_pass(world: World) -> None:
    wheel = native(world, machine=OTHER)
    done = world.run("audit", str(wheel), code=5)
    assert " ✘ refused: " in done.stdout
    assert "error[audit-refused]" in done.stderr
    assert "--accept " in done.stderr.splitlines()[-1]
    document = world.json("audit", str(wheel), code=5)
    found = errors(document)
    assert found
    assert f"run:   spark-build audit {wheel} --accept {found[0]}=" in done.stderr
    accepted = [f"--accept={slug}=for a test" for slug in found]
    words = f"audit {wheel} --target 12.0 --beside {native(world)} --cross-check"
    assert f"run:   spark-build {words} --accept {found[0]}=" in world.run(*words.split(), code=5).stderr
    assert "let pass: " in world.run("audit", str(wheel), *accepted).stdout
    told = world.json("audit", str(wheel), *accepted)["reports"][0]
    assert told["refused"] is False
    assert {one["accepted"] for one in told["findings"] if one["id"] in found} == {"for a test"}


def test_programs_get_one_document(world: World) -> None:
    wheel = native(world)
    told = world.json("audit", str(wheel), "--target", "12.1a")
    assert (told["version"], told["target"]) == (1, "12.1")
    (row,) = told["reports"]
    assert (row["version"], row["path"], row["refused"]) == (1, str(wheel), False)
    assert row["wheel"]["filename"] == wheel.name
    (file,) = [file for file in row["files"] if file["path"] == "lib/libone.so"]
    assert (file["machine"], file["coverage"]["verdict"]) == (MACHINE, "none")
    assert all(set(one) >= {"id", "severity", "file", "found", "why", "help"} for one in row["findings"])


def test_several_wheels_are_all_told_though_one_is_refused(world: World) -> None:
    good, bad = native(world), native(world, "bad", machine=OTHER)
    broken = world.root / "dist" / "broken-1.0-py3-none-any.whl"
    broken.write_bytes(b"no wheel")
    done = world.run("audit", str(bad), str(broken), str(good), str(good), code=5)
    assert [line for line in done.stdout.splitlines() if line in {" lib 1.0", " bad 1.0"}] == [" bad 1.0", " lib 1.0"]
    assert "2 of 3 wheels are refused" in done.stderr
    assert f"{broken.name}: wheel-damaged" in done.stderr
    told = world.json("audit", str(bad), str(broken), str(good), code=5)
    assert [one["refused"] for one in told["reports"]] == [True, True, False]
    alone = world.run("audit", str(broken), code=5)
    assert "--accept" not in alone.stderr
    assert " ✘ wheel-damaged" in alone.stdout


def test_a_stored_wheel_is_named_as_elsewhere(world: World) -> None:
    wheel = wheelhouse_kit.make_wheel(world.root / "dist", "stored")
    path = world.run("wheels", "add", str(wheel)).stdout.strip()
    sha256 = world.json("wheels", "list")["wheels"][0]["sha256"]
    wheel.unlink()
    for ref in (path, wheel.name, sha256[:8]):
        assert world.json("audit", ref)["reports"][0]["path"] == path


@pytest.mark.parametrize(
    ("words", "code", "run"),
    [
        ([], "usage", "spark-build audit WHEEL"),
        (["nothing.whl"], "wheel-missing", "spark-build wheels list"),
        (["--env", "nowhere"], "no-environment", "spark-build audit --env .venv"),
        (["lib.whl", "--env", "nowhere"], "usage", ""),
        (["lib.whl", "--gpu"], "usage", "spark-build audit lib.whl --run --gpu"),
        (["lib.whl", "--accept", "nothing-like-it"], "accept-unknown", ""),
        (["lib.whl", "--target", "sm-what"], "target", "12.1"),
        (["lib.whl", "--torch", "nowhere"], "torch-missing", "spark-build audit WHEEL --torch .venv"),
    ],
)
def test_wrong_words_say_what_to_type(world: World, words: list[str], code: str, run: str) -> None:
    done = world.run("audit", *words, code=2)
    assert f"error[{code}]" in done.stderr
    assert run in done.stderr
    assert done.stdout == ""


def test_a_finding_that_isn_t_known_names_the_near_one(world: World) -> None:
    assert (
        "did you mean installed-changed?" in world.run("audit", "x.whl", "--accept", "installed-change", code=2).stderr
    )


RECIPE = """\
schema = 1
name = "{name}"
[[source]]
kind = "git"
url = "https://example.invalid/x"
ref = "main"
[[output]]
name = "{name}"
[[check]]
kind = "size"
max = "1KiB"
"""


def test_a_recipe_says_what_is_expected(world: World) -> None:
    world.recipe("small", RECIPE.format(name="small"))
    wheel = wheelhouse_kit.make_wheel(world.root / "dist", "small", size=5000)
    assert errors(world.json("audit", str(wheel))) == []
    refused = world.json("audit", str(wheel), "--recipe", "small", code=5)
    (slug,) = errors(refused)
    with (world.recipes / "small.toml").open("a") as recipe:
        recipe.write(f'[[check]]\nkind = "accept"\nfindings = ["{slug}"]\nreason = "it grew"\n')
    let = world.json("audit", str(wheel), "--recipe", "small")["reports"][0]["findings"]
    assert [one["accepted"] for one in let if one["id"] == slug] == ["it grew"]
    other = wheelhouse_kit.make_wheel(world.root / "dist", "other")
    world.run("audit", str(other), str(wheel), "--recipe", "small")
    assert "error[recipe-output]" in world.run("audit", str(other), "--recipe", "small", code=2).stderr
    assert "error[recipe-missing]" in world.run("audit", str(other), "--recipe", "smal", code=2).stderr


def test_an_output_that_a_variant_brings_is_judged_with_that_variant(world: World) -> None:
    extra = '[[variant]]\nid = "more"\nabout = "one more"\n[[variant.recipe.output]]\nname = "extra"\n'
    extra += '[[variant.recipe.check]]\nkind = "accept"\nfindings = ["size-limit"]\nreason = "it is larger"\n'
    world.recipe("small", RECIPE.format(name="small") + extra)
    wheel = wheelhouse_kit.make_wheel(world.root / "dist", "extra", size=5000)
    world.run("audit", str(wheel), "--recipe", "small")
    small = wheelhouse_kit.make_wheel(world.root / "dist", "small", size=5000)
    world.run("audit", str(small), "--recipe", "small", code=5)


def test_the_shipped_recipes_let_pass_what_there_is() -> None:
    good, _mistakes = load.read_all((find.shipped(),))
    named = {slug for one in good for check in one.recipe.check for slug in check.findings}
    assert named <= findings.rules().keys()
    text = findings.page()
    assert all(f"| `{slug}` |" in text for slug in findings.rules())
    assert set(re.findall(r'findings = \["(.*)"\]', text)) <= findings.rules().keys()


def test_the_recipe_that_a_wheel_of_ours_names_counts_where_it_is_known(world: World) -> None:
    wheel = wheelhouse_kit.own_wheel(world.root / "dist", "small", inputs={"name": "small", "pad": "x" * 2000})
    world.run("audit", str(wheel))
    world.recipe("small", RECIPE.format(name="small"))
    assert errors(world.json("audit", str(wheel), code=5))
    (world.recipes / "small.toml").write_text("schema = 1\nno toml\n")
    world.run("audit", str(wheel))


def test_an_environment_is_read_where_it_lies(world: World) -> None:
    env = venv(world.root / "env")
    empty = world.run("audit", "--env", "env")
    assert (empty.stdout, empty.stderr) == ("", "nothing is installed in env\n")
    uv("pip", "install", "--no-index", "--python", env / "bin" / "python", native(world))
    assert world.run("audit", "--env", "env").stdout.startswith(" env 1 package\n")
    world.run("audit", "--env", str(env / "bin" / "python"), "--all")
    module = site(env) / "lib" / "__init__.py"
    module.unlink()
    module.write_text("changed = True\n")
    done = world.run("audit", "--env", "env", code=5)
    assert "installed-changed  lib/__init__.py" in done.stdout
    assert "spark-build audit --env env --accept installed-changed=" in done.stderr
    told = world.json("audit", "--env", "env", code=5)
    assert errors(told) == ["installed-changed"]
    assert told["reports"][0]["wheel"]["filename"] is None
    world.run("audit", "--env", "env", "--accept", "installed-changed=patched by hand")


def test_what_a_recipe_says_counts_for_what_is_installed_too(world: World) -> None:
    env = venv(world.root / "env")
    uv("pip", "install", "--no-index", "--python", env / "bin" / "python", native(world, "small"))
    world.recipe("small", RECIPE.format(name="small"))
    assert errors(world.json("audit", "--env", "env", "--recipe", "small")) == []  # the size is the wheel's
    (site(env) / "small" / "libone.so").unlink()
    assert errors(world.json("audit", "--env", "env", "--recipe", "small", code=5)) == ["installed-gone"]
    with (world.recipes / "small.toml").open("a") as recipe:
        recipe.write('[[check]]\nkind = "accept"\nfindings = ["installed-gone"]\nreason = "pruned in the image"\n')
    assert (
        "let pass: installed-gone in small/libone.so" in world.run("audit", "--env", "env", "--recipe", "small").stdout
    )


def test_add_refuses_what_would_not_run_and_keeps_what_was_found(world: World) -> None:
    good, bad = native(world), native(world, "bad", machine=OTHER)
    done = world.run("wheels", "add", str(good), str(bad), code=5)
    assert "error[audit-refused]: 1 of 2 wheels" in done.stderr
    assert f"spark-build audit {good} {bad}" in done.stderr
    assert "wheelhouse-missing" in world.run("wheels", "list", code=2).stderr
    again = done.stderr.splitlines()[-1].strip()
    assert again.startswith(f"spark-build wheels add {good} {bad} --accept ")
    words = [word.replace('"', "") for word in again.split()[1:]]
    rows = world.json(*words)["wheels"]
    assert [row["project"] for row in rows] == ["lib", "bad"]
    assert {one["accepted"] for one in rows[1]["findings"] if one["severity"] == "error"} == {"REASON"}
    with wheelhouse_kit.opened(world.wheelhouse) as house:
        kept = house.catalogue.rows("SELECT sha256, document FROM findings")
    assert {row[0] for row in kept} == {row["sha256"] for row in rows}
    assert {json.loads(row[1])["wheel"]["project"] for row in kept} == {"lib", "bad"}


def test_add_tells_warnings_in_one_line_each(world: World) -> None:
    wheel = native(world, "pure", pure=True)
    done = world.run("wheels", "add", str(wheel))
    elsewhere = [] if MACHINE == "aarch64" else ["(target-machine)"]
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines()] == [*elsewhere, "(purelib-with-elf)"]
    assert "warning: pure/libone.so: " in done.stderr
    accepted = ("--accept", "purelib-with-elf=as upstream does", "--accept", "target-machine=for here")
    assert world.run("wheels", "add", str(wheel), *accepted).stderr == (
        f"{wheel.name} was there already, with the same bytes\n"
    )


def signed(wheel: Path, key: Path, about: str | None = None) -> None:
    """Leave a statement about `wheel` beside it, signed by OpenSSH."""
    sha256 = about or hashlib.sha256(wheel.read_bytes()).hexdigest()
    record = Path(f"{wheel}.provenance.json")
    record.write_text(json.dumps({"subject": [{"name": wheel.name, "digest": {"sha256": sha256}}]}))
    Path(f"{record}.sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-q", "-n", "spark-build", "-f", key, record], check=True, capture_output=True
    )


def test_a_signature_is_required_where_signers_are_named(world: World) -> None:
    for name in ("me", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", world.root / name], check=True)
    signers = world.root / "signers"
    signers.write_text(f"me@example.org {(world.root / 'me.pub').read_text()}")
    wheel = native(world)
    words = ("audit", str(wheel), "--signers", str(signers))
    assert errors(world.json(*words, code=5)) == ["signature-missing"]
    signed(wheel, world.root / "me")
    good = world.json(*words)
    assert errors(good) == []
    (found,) = [one for one in good["reports"][0]["findings"] if one["id"] == "signature-good"]
    assert "me@example.org" in found["found"]
    signed(wheel, world.root / "other")
    assert errors(world.json(*words, code=5)) == ["signer-unknown"]
    signed(wheel, world.root / "me", about="0" * 64)
    assert errors(world.json(*words, code=5)) == ["signature-other-wheel"]
    signed(wheel, world.root / "me")
    record = Path(f"{wheel}.provenance.json")
    record.write_text(record.read_text() + " ")
    assert errors(world.json(*words, code=5)) == ["signature-wrong"]
    assert "error[signers-missing]" in world.run(*words[:3], "nobody", code=2).stderr


def test_cuobjdump_may_be_asked(world: World) -> None:
    (report,) = world.json("audit", str(native(world)), "--cross-check")["reports"]
    (told,) = [one for one in report["findings"] if one["id"].startswith("cross-check")]
    assert (told["id"], told["severity"]) == ("cross-check-agrees", "info")


@pytest.mark.slow
def test_a_run_imports_the_wheel(world: World) -> None:
    wheel = native(world)
    assert errors(world.json("audit", str(wheel), "--run")) == []
    broken = wheel_kit.raw(world.root / "dist", "broken", "1.0", {"broken/__init__.py": b"import not_declared\n"})
    told = world.json("audit", str(broken), "--run", code=None)  # type: ignore[arg-type]
    assert any("not_declared" in one["found"] for one in told["reports"][0]["findings"])


def test_no_escape_of_a_stranger_reaches_the_terminal(world: World) -> None:
    name = "odd/\x1b[31mred\x1b[2J\x07\u202e.py"
    wheel = wheel_kit.raw(world.root / "dist", "odd", "1.0", {name: b""}, ["Requires-Python: >=3.\x1b]0;pwn\x07"])
    loud = wheel.rename(wheel.with_name("o\x1b[2Jdd-1.0-py3-none-any.whl"))
    for words in (("audit", str(loud)), ("audit", "--all", str(loud)), ("wheels", "add", str(loud))):
        done = world.run(*words, code=None)
        assert done.returncode == 5
        told = done.stdout + done.stderr
        assert "wheel-unsafe" in told
        assert {char for char in told if not char.isprintable()} == {"\n"}
    assert "\\x1b[2J" in world.run("audit", str(loud), code=5).stdout


def test_a_terminal_of_any_width_gets_a_report(world: World) -> None:
    wheel = native(world)
    for columns in (10, 20, 28, 30):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        words = [str(COMMAND), "audit", str(wheel), "--all", "--color", "never"]
        done = subprocess.run(words, env=world.env(), stdout=theirs, stderr=subprocess.PIPE, check=False)
        os.close(theirs)
        told = b""
        with contextlib.suppress(OSError):  # EIO: nobody writes any more
            while data := os.read(ours, 4096):
                told += data
        os.close(ours)
        assert (done.returncode, done.stderr) == (0, b"")
        lines = told.decode().splitlines()
        assert max(map(len, lines)) <= columns
        assert "lib" in lines[0]


def test_a_project_means_its_newest_wheel_and_a_file_goes_first(world: World) -> None:
    with wheelhouse_kit.opened(world.wheelhouse) as house:
        for number, release in enumerate(("2.0", "1.0")):
            made = wheelhouse_kit.wheel(world.root / release, "spark_tiny", release)
            wheelhouse_kit.publish(house, [made], fingerprint=f"{number}" * 64)

    def version(*words: str) -> list[str]:
        return [one["wheel"]["version"] for one in world.json("audit", *words)["reports"]]

    assert version("spark-tiny") == version("Spark_Tiny") == ["1.0"]
    (world.root / "spark-tiny").mkdir()
    assert version("spark-tiny") == ["1.0"]
    (world.root / "dist").mkdir()
    assert "it is a folder, and " in world.run("audit", "dist", code=2).stderr
    stored = next((world.wheelhouse / "wheels").rglob("spark_tiny-2.0*.whl"))
    assert version(str(stored)) == ["2.0"]
    (world.root / "spark-tiny").rmdir()
    (world.root / "spark-tiny").write_bytes(b"no wheel")
    assert "wheel-damaged" in world.run("audit", "spark-tiny", code=5).stdout


def test_a_file_that_is_given_twice_is_judged_once(world: World) -> None:
    wheel = native(world)
    (world.root / "link.whl").symlink_to(wheel)
    words = (str(wheel), str(wheel.relative_to(world.root)), f"{wheel.parent}/../{wheel.parent.name}/{wheel.name}")
    once = world.json("audit", str(wheel))
    assert world.json("audit", *words) == once
    assert world.json("audit", str(wheel), "--beside", *words) == once


def test_a_wheel_for_another_machine_is_told_of(world: World) -> None:
    wheel = wheel_kit.raw(world.root / "dist", "odd", "1.0", tags="cp312-cp312-win_amd64")

    def told(*words: str) -> list[str]:
        (one,) = world.json("audit", str(wheel), "--accept=tag-differs", *words)["reports"]
        return [found["found"] for found in one["findings"] if found["id"] == "target-machine"]

    assert told() == told("--target", "sm_121") == ["win_amd64 is for Windows"]
    assert told("--target", "12.0") == []
