"""Wheels from elsewhere, and what lies beside them: what they claim never counts for more than what was made here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.digest import sha256_file, sha256_json
from builder.wheel import label
from builder.wheelhouse.publish import sidecar, signature
from builder.wheelhouse.statement import ADDED, BUILD_TYPE, PROVENANCE, STATEMENT
from tests import wheelhouse_kit as kit
from tests.test_signature import allow, make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import World

INPUTS = {"schema": 1, "name": "tiny", "requires": {"tiny": []}, "source": {"tree": "git:1"}}
NO_KEYGEN = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def ours(world: World, folder: str = "dist", *, text: bytes = b"VALUE = 1\n", revision: int = 0) -> Path:
    """A wheel with our label and its inputs; others with the same claims differ by `text`."""
    made = label.make(1_700_000_000.0, sha256_json(INPUTS), revision=revision)
    return kit.make_wheel(world.root / folder, "tiny", label.labelled("1.0", made), inputs=INPUTS, text=text)


def about(wheel: Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    digest = {"sha256": sha256_file(wheel)}
    whole = {"_type": STATEMENT, "predicateType": PROVENANCE, "predicate": {}} | more
    return whole | {"subject": [{"name": wheel.name, "digest": digest}]}


def slsa(wheel: Path, *, kind: str = BUILD_TYPE, run: Any = None, **internal: Any) -> dict[str, Any]:  # noqa: ANN401
    definition = {"buildType": kind, "externalParameters": {}, "internalParameters": internal}
    details = {"metadata": {"finishedOn": "2020-01-01T00:00:00Z"}, "byproducts": [{"name": "run", "annotations": run}]}
    return about(wheel, predicate={"buildDefinition": definition, "runDetails": details})


def refused(world: World, *words: str) -> dict[str, Any]:
    """Be refused before anything is filed, and return the error."""
    error: dict[str, Any] = world.json("wheels", "add", *words, code=5)["error"]
    assert not (world.wheelhouse / "wheels").exists() or not list((world.wheelhouse / "wheels").rglob("*.whl"))
    return error


def show(world: World, wheel: Path) -> dict[str, str]:
    lines = world.run("wheels", "show", wheel.name).stdout.splitlines()
    return {line[:16].strip(): line[17:] for line in lines}


def kept(world: World) -> list[str]:
    with kit.opened(world.wheelhouse) as house:
        return [row[0] for row in house.catalogue.rows("SELECT rules FROM findings")]


# --- what was made here stays what is handed out


def built(world: World, more: str = "") -> Path:
    (wheel,) = world.wheels(*tiny(world, more))
    return wheel


def tiny(world: World, more: str = "") -> tuple[str, ...]:
    """Write the recipe of a small project, and return what builds it."""
    if not (world.root / "tiny").exists():
        world.tiny()
    text = f'schema = 1\nname = "tiny"\n[[source]]\nkind = "local"\npath = "{world.root / "tiny"}"\n'
    world.recipe("tiny", f'{text}[[output]]\nname = "tiny"\n{more}')
    return ("tiny",)


def forged(wheel: Path, folder: Path, *, tail: str = "") -> Path:
    """The same claims with other code in it, and `tail` behind the version."""
    import zipfile  # noqa: PLC0415

    old = "-".join(wheel.name.split("-")[:2])
    version = old.partition("-")[2] + tail
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("inputs.json"))
        inputs = json.loads(archive.read(name))
    return kit.make_wheel(folder, "tiny", version, inputs=inputs, text=b"VALUE = 'other'\n")


def test_a_wheel_that_claims_a_build_of_ours_never_stands_in_for_it(world: World) -> None:
    good = built(world)
    evil = forged(good, world.root / "dl", tail="r2")
    error = world.json("wheels", "add", str(evil), code=5)["error"]
    assert error["code"] == "build-taken"
    assert error["run"] == [f"spark-build wheels diff {good.name} {evil}"]
    assert built(world) == good
    world.run(*shlex.split(error["run"][0])[1:], code=None)
    good.write_bytes(b"damaged")  # then there is none that it would stand in for, and a build judges it
    world.run("wheels", "add", str(evil))


def test_two_of_one_build_aren_t_taken_in_together(world: World) -> None:
    first, second = ours(world), ours(world, text=b"VALUE = 2\n", revision=2)
    assert "name-taken" in world.run("wheels", "add", str(first), str(second), code=2).stderr
    assert world.json("wheels", "list")["wheels"] == []


def test_what_was_let_pass_when_it_was_added_lets_no_build_pass(world: World) -> None:
    strict = '[[check]]\nkind = "size"\nmax = "1B"\n'
    elsewhere = str(shutil.copy(built(world), world.root))
    world.run("wheels", "rm", Path(elsewhere).name, "--yes")
    words = tiny(world, strict)
    world.run("wheels", "add", elsewhere, "--accept", "size-limit=because I say so")
    assert [rules.partition(":")[0] for rules in kept(world)] == ["added"]
    told = show(world, Path(elsewhere))
    assert told["let pass"] == "size-limit: because I say so"
    world.run("wheels", "reindex")
    assert show(world, Path(elsewhere)) == told
    assert world.json("wheels", "show", told["sha256"])["wheel"]["accepted"][0]["reason"] == "because I say so"
    error = world.json("recipe", *words, code=5)["error"]
    assert "size-limit" in error["cause"]


def test_adding_what_is_here_with_other_words_changes_nothing(world: World) -> None:
    wheel = built(world)
    before, shown = kept(world), show(world, wheel)
    words = tiny(world, '[[check]]\nkind = "size"\nmax = "1B"\n')
    world.run("wheels", "add", str(wheel), "--accept", "size-limit=x")
    assert (kept(world), show(world, wheel)) == (before, shown)
    assert "claimed" not in "".join(shown.values())
    world.run("recipe", *words, code=5)


def test_a_removed_wheel_is_forgotten(world: World) -> None:
    wheel = ours(world)
    world.run("wheels", "add", str(wheel))
    assert "(claimed by the wheel itself)" in show(world, wheel)["source"]
    world.run("wheels", "rm", wheel.name, "--yes")
    for _ in range(2):
        with kit.opened(world.wheelhouse) as house:
            assert house.recall("added", sha256_file(wheel)) is None
        world.run("wheels", "reindex")


def test_one_that_is_refused_leaves_the_others_out(world: World) -> None:
    first = kit.make_wheel(world.root / "dist", "first")
    world.run("wheels", "add", str(kit.make_wheel(world.root / "dist", "taken")))
    other = kit.make_wheel(world.root / "other", "taken", text=b"other")
    assert "name-taken" in world.run("wheels", "add", str(first), str(other), code=2).stderr
    assert [row["project"] for row in world.json("wheels", "list")["wheels"]] == ["taken"]


# --- what lies beside it


def deep(file: Path) -> None:
    file.write_bytes(b'{"subject":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def nested(file: Path) -> None:
    """Less deep than readers fail at, deeper than writers do."""
    file.write_text('{"subject":' + "[" * 500 + "]" * 500 + "}")


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(400 << 20)


def device(file: Path) -> None:
    file.symlink_to("/dev/zero")


HOSTILE: list[Callable[[Path], object]] = [
    deep,
    nested,
    sparse,
    device,
    os.mkfifo,
    Path.mkdir,
    lambda file: file.write_bytes(b"\xff"),
    lambda file: file.write_text("[]"),
    lambda file: file.write_text('{"subject": []}'),
]


@pytest.mark.parametrize("make", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_record_is_a_finding_everywhere(world: World, make: Callable[[Path], object]) -> None:
    wheel = ours(world)
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    make(sidecar(wheel))
    error = world.json("wheels", "add", str(wheel), "--wheelhouse", "fresh", code=5)["error"]
    assert error["code"] in {"record-damaged", "record-other"}
    assert not (world.root / "fresh").exists()
    sidecar(stored).unlink()
    make(sidecar(stored))
    (found,) = world.json("wheels", "verify", code=5)["findings"]
    assert (found["kind"], found["path"]) == ("sidecar", str(sidecar(stored)))
    world.run("wheels", "show", wheel.name)
    world.run(*shlex.split(found["run"].partition(" && ")[0])[1:])
    assert not list(stored.parent.iterdir())


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, sparse, lambda file: file.write_text("garbage\n")], ids=range(4)
)
def test_a_signature_that_is_none_is_never_filed(world: World, make: Callable[[Path], object]) -> None:
    wheel = ours(world)
    sidecar(wheel).write_text(json.dumps(about(wheel)))
    make(signature(wheel))
    assert refused(world, str(wheel))["code"] == "signature-damaged"


@pytest.mark.parametrize(
    "inputs", [b"[" * 100_000, b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[1.5]", b"\xff"]
)
def test_hostile_inputs_are_a_finding(world: World, inputs: bytes) -> None:
    from tests import wheel_kit  # noqa: PLC0415

    version = ours(world).name.split("-")[1]
    info = f"tiny-{version}.dist-info"
    made = wheel_kit.contents("tiny", version, {f"{info}/spark-build/inputs.json": inputs})
    wheel = wheel_kit.write(world.root / "x" / f"tiny-{version}-py3-none-any.whl", made)
    assert refused(world, str(wheel))["code"] == "wheel-damaged"
    (report,) = world.json("audit", str(wheel), code=5)["reports"]
    assert "label-lies" in {one["id"] for one in report["findings"]}


def test_a_label_of_ours_is_of_the_inputs_or_a_finding(world: World) -> None:
    good = ours(world)
    assert world.json("audit", str(good))["reports"][0]["refused"] is False
    version = good.name.split("-")[1]
    for number, (named, inputs) in enumerate(((version, None), (version, {**INPUTS, "name": "x"}), ("1.0", INPUTS))):
        wheel = kit.make_wheel(world.root / str(number), "tiny", named, inputs=inputs)
        (report,) = world.json("audit", str(wheel), code=5)["reports"]
        assert [one["id"] for one in report["findings"] if one["severity"] == "error"] == ["label-lies"]


@pytest.mark.parametrize(
    "run",
    [
        {"isolation": "q"},
        {"host": 3},
        {"gate": [1]},
        {"units": 7},
        {"attempt": "\x1b[31m"},
        {"compressor": None},
    ],
)
def test_a_statement_with_odd_facts_is_refused_and_shown_without_them(world: World, run: dict[str, Any]) -> None:
    wheel = ours(world)
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    odd = json.dumps(slsa(wheel, run=run))
    sidecar(wheel).write_text(odd)
    assert next(iter(run)) in world.json("wheels", "add", str(wheel), "--wheelhouse", "x", code=5)["error"]["cause"]
    sidecar(stored).write_text(odd)  # by hand, in the wheelhouse
    assert "\x1b" not in "".join(show(world, wheel).values())
    world.json("wheels", "show", wheel.name)
    world.run("wheels", "verify")


@pytest.mark.parametrize("kind", [BUILD_TYPE, "https://example.org/other"])
def test_a_statement_that_contradicts_the_wheel_is_refused(world: World, kind: str) -> None:
    wheel = ours(world)
    version = wheel.name.split("-")[1].partition("+")[2]
    for wrong in ({"fingerprint": "0" * 64}, {"label": "sb20200101000000.g0000000000"}):
        sidecar(wheel).write_text(json.dumps(slsa(wheel, kind=kind, **wrong)))
        error = refused(world, str(wheel))
        assert (error["code"], next(iter(wrong)) in error["cause"]) == ("record-contradicts", True)
    right = slsa(wheel, kind=kind, fingerprint=sha256_json(INPUTS), label=version)
    right["predicate"]["buildDefinition"]["externalParameters"]["recipe"] = "vllm"
    sidecar(wheel).write_text(json.dumps(right))
    assert "recipe vllm" in refused(world, str(wheel))["cause"]
    right["predicate"]["buildDefinition"]["externalParameters"]["recipe"] = "tiny"
    sidecar(wheel).write_text(json.dumps(right))
    world.run("wheels", "add", str(wheel))
    assert show(world, wheel)["built"] == "2020-01-01 00:00:00 UTC (claimed by the record it came with)"


def test_others_statements_are_kept_and_none_of_their_words_is_taken_for_ours(world: World) -> None:
    wheel = kit.make_wheel(world.root / "dist", "foreign")
    theirs = slsa(wheel, kind="https://example.org/other", fingerprint=5, run={"host": 3})
    theirs["predicate"]["buildDefinition"]["externalParameters"] = {
        "source": "git+https://example.org/x",
        "recipe": "x",
    }
    sidecar(wheel).write_text(json.dumps(theirs))
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    assert json.loads(sidecar(stored).read_bytes()) == theirs
    assert "recipe" not in show(world, wheel)
    lying = kit.make_wheel(world.root / "dist", "lying")
    sidecar(lying).write_text(json.dumps(slsa(lying, fingerprint="f" * 64)))
    assert "record-contradicts" in world.run("wheels", "add", str(lying), code=5).stderr


# --- who vouches for it


@pytest.fixture
def trusting(world: World) -> World:
    """A world with one signer, whose key lies in the home."""
    allow(make_key(world.home, "key"))
    (world.config / "config.toml").write_text('[signing]\nsigners = "~/signers"\n')
    return world


def sealed(wheel: Path, key: Path, record: dict[str, Any] | None = None) -> None:
    sidecar(wheel).write_text(json.dumps(record or about(wheel)))
    signature(wheel).unlink(missing_ok=True)
    words = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "spark-build", str(sidecar(wheel))]
    subprocess.run(words, check=True, capture_output=True)


@NO_KEYGEN
def test_where_signers_count_one_of_them_has_to_have_signed(trusting: World) -> None:
    wheel, key = ours(trusting), trusting.home / "key"
    assert refused(trusting, str(wheel))["code"] == "signature-missing"
    sidecar(wheel).write_text(json.dumps(about(wheel)))
    error = refused(trusting, str(wheel))
    assert error["run"] == [f"ssh-keygen -Y sign -n spark-build -f KEY {sidecar(wheel)}"]
    sealed(wheel, make_key(trusting.home, "mallory"))
    error = refused(trusting, str(wheel))
    assert (error["code"], str(trusting.home / "signers") in error["help"]) == ("signer-unknown", True)
    sealed(wheel, key)
    sidecar(wheel).write_text(sidecar(wheel).read_text() + " ")
    assert refused(trusting, str(wheel))["code"] == "signature-wrong"
    other = kit.make_wheel(trusting.root / "dist", "other")
    sealed(wheel, key, about(other))
    assert refused(trusting, str(wheel))["code"] == "record-other"
    sealed(wheel, key)
    trusting.run("wheels", "add", str(wheel), str(other))  # nobody claims anything of the other


@NO_KEYGEN
def test_without_signers_a_signature_has_to_be_one_of_these_bytes(world: World) -> None:
    wheel = ours(world)
    sealed(wheel, make_key(world.home, "anybody"))
    record = sidecar(wheel).read_text()
    sidecar(wheel).write_text(record + " ")
    assert refused(world, str(wheel))["code"] == "signature-wrong"
    sidecar(wheel).write_text(record)
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    assert signature(stored).read_bytes() == signature(wheel).read_bytes()


@NO_KEYGEN
def test_a_record_that_nobody_signed_is_signed_by_who_takes_it_in(world: World) -> None:
    key, wheel = make_key(world.home, "key"), ours(world)
    allow(key)
    (world.config / "config.toml").write_text('[signing]\nkey = "~/key"\n')
    sidecar(wheel).write_text(json.dumps(about(wheel)))
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    assert sidecar(stored).read_bytes() == sidecar(wheel).read_bytes()
    (world.config / "config.toml").write_text('[signing]\nsigners = "~/signers"\n')
    world.run("wheels", "verify")


@NO_KEYGEN
def test_an_audit_asks_the_configured_signers_where_somebody_states_something(trusting: World) -> None:
    wheel = ours(trusting)
    trusting.run("audit", str(wheel))
    sealed(wheel, trusting.home / "key")
    found = trusting.json("audit", str(wheel))["reports"][0]["findings"]
    assert "signature-good" in {one["id"] for one in found}
    sealed(wheel, make_key(trusting.home, "mallory"))
    trusting.run("audit", str(wheel), code=5)
    sidecar(wheel).unlink()
    os.mkfifo(sidecar(wheel))
    assert "signature-damaged" in trusting.run("audit", str(wheel), code=5).stderr


# --- what is printed to be typed next


def test_commands_to_type_next_name_the_same_wheelhouse_and_words(world: World) -> None:
    wheel = ours(world, "odd 'folder'")
    house = ["--wheelhouse", str(world.root / "a house")]
    stored = Path(world.run("wheels", "add", str(wheel), *house).stdout.strip())
    stored.write_bytes(b"damaged")
    (line,) = {
        one["run"] for one in world.json("wheels", "verify", *house, code=5)["findings"] if one["kind"] == "changed"
    }
    steps = [shlex.split(step) for step in line.split(" && ")]
    assert steps == [
        ["spark-build", "wheels", "rm", wheel.name, "--yes", *house],
        ["spark-build", "recipe", "tiny", *house],
    ]
    assert line in world.run("wheels", "verify", *house, code=5).stderr
    world.run(*steps[0][1:])
    tiny(world, '[[check]]\nkind = "size"\nmax = "1B"\n')
    given = ["--target", "12.0", "--accept", "rpath-absolute=as is"]
    error = world.json("wheels", "add", str(wheel), *house, *given, code=5)["error"]
    look, again = (shlex.split(one)[1:] for one in error["run"])
    assert look == ["audit", str(wheel), *given[:2], "--accept=rpath-absolute=as is", *house]
    world.run(*look, code=5)
    world.run(*again)


@pytest.mark.parametrize("slug", ["record-lies", "wheel-damaged", "wheel-name", "wheel-unsafe"])
def test_what_makes_it_no_wheel_is_never_accepted(world: World, slug: str) -> None:
    wheel = str(kit.make_wheel(world.root / "dist", "x", record=b"x/__init__.py,sha256=AAAA,1\n"))
    for command in (("audit",), ("wheels", "add")):
        assert "error[accept-never]" in world.run(*command, wheel, "--accept", f"{slug}=x", code=2).stderr


def test_a_record_of_ours_for_a_file_that_was_taken_in_is_read_as_such(world: World) -> None:
    """A wheel may go through several hands."""
    wheel = kit.make_wheel(world.root / "dist", "foreign")
    stored = Path(world.run("wheels", "add", str(wheel)).stdout.strip())
    again = Path(world.run("wheels", "add", str(stored), "--wheelhouse", "two").stdout.strip())
    assert json.loads(sidecar(again).read_bytes())["predicateType"] == ADDED
    assert sidecar(again).read_bytes() == sidecar(stored).read_bytes()
