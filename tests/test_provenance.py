"""The statement beside a wheel, the bill inside it, and who vouches for both."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from builder.digest import sha256_bytes, sha256_file
from builder.wheel import read
from builder.wheelhouse.publish import sidecar, signature
from builder.wheelhouse.statement import about, facts, subject
from builder.wheelhouse.verify import verify
from tests import wheelhouse_kit as kit
from tests.test_build import patch_recipe
from tests.test_signature import allow, make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import World

SECRET = "hunter2hunter2"  # noqa: S105  # the one that must not be found

#: What a wheelhouse of an older version holds beside a wheel.
FLAT: dict[str, Any] = {
    "version": 1,
    "subject": {"name": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64},
    "subjects": [{"name": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}],
    "recipe": "tiny",
    "fingerprint": "f" * 64,
    "source": {"url": "https://git.invalid/tiny", "ref": "main"},
    "built": 1700000000,
    "isolation": {"level": "namespace", "path": "/sb/tiny", "why": ""},
    "host": {"machine": "aarch64", "cores": 20, "memory": 1 << 37},
}


@pytest.fixture
def tiny(world: World) -> World:
    world.tiny_repo()
    world.tiny_recipe()
    return world


@pytest.fixture
def signing(tiny: World) -> World:
    """A world whose user signs, and trusts the own key only."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    key = make_key(tiny.home, "key")
    allow(key)
    (tiny.config / "config.toml").write_text('[signing]\nkey = "~/key"\nsigners = "~/signers"\n')
    return tiny


def build(world: World, *words: str) -> Path:
    (wheel,) = world.wheels("tiny", *words)
    return wheel


def record(wheel: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(sidecar(wheel).read_bytes())
    return loaded


def member(wheel: Path, tail: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{tail}"))
        return archive.read(name)


def named(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {one["name"]: one for one in entries}
    assert len(found) == len(entries)
    return found


# --- the statement


def test_the_statement_holds_by_the_published_schemas(world: World) -> None:
    world.tiny_repo()
    patch_recipe(world)
    wheel = build(world, "--env", "PLAIN=1", "-j", "2")
    made = json_format.Parse(sidecar(wheel).read_bytes(), statement_pb2.Statement())  # unknown keys are errors
    Statement.copy_from_pb(made).validate()
    assert made.predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json_format.Parse(json_format.MessageToJson(made.predicate), provenance_pb2.Provenance())
    definition, run = predicate.build_definition, predicate.run_details
    assert definition.build_type == "urn:spark-build:recipe:v1"
    assert run.builder.id == "urn:spark-build:local"
    assert 0 < run.metadata.started_on.seconds <= run.metadata.finished_on.seconds
    assert run.metadata.invocation_id
    for one in (*definition.resolved_dependencies, *run.byproducts):
        ResourceDescriptor.copy_from_pb(one).validate()


def test_the_statement_is_about_the_bytes_of_its_wheel(tiny: World) -> None:
    wheel = build(tiny)
    assert record(wheel)["subject"] == [{"name": wheel.name, "digest": {"sha256": sha256_file(wheel)}}]
    assert subject(record(wheel)) == sha256_file(wheel)


def test_what_was_asked_for_and_what_went_in_is_there(world: World) -> None:
    folder = world.tiny_repo()
    patch_recipe(world)
    wheel = build(world, "--ref", "v1.0", "--env", "PLAIN=1", "--set", "build.requires-add=[]", "-j", "2")
    definition = record(wheel)["predicate"]["buildDefinition"]
    asked = definition["externalParameters"]
    assert (asked["recipe"], asked["recipe-file"], asked["source"]["ref"]) == ("tiny", "tiny.toml", "v1.0")
    assert asked["env"] == {"PLAIN": "1"}
    assert asked["settings"] == {"build.requires-add": "[]"}
    assert asked["outputs"] == ["tiny"]
    internal = definition["internalParameters"]
    assert (internal["jobs"], internal["isolation"]) == (2, "namespace")
    assert wheel.name.split("-")[1] == f"1.0+{internal['label']}"
    went_in = named(definition["resolvedDependencies"])
    source = went_in["source"]
    assert source["uri"] == f"git+{folder.as_uri()}@v1.0"
    assert source["digest"]["gitCommit"] == world.git(folder, "rev-parse", "v1.0^{commit}")
    assert source["digest"]["gitTree"] == world.git(folder, "rev-parse", "v1.0^{tree}")
    patch = world.patches / "tiny" / "value.patch"
    assert went_in["patch value"]["digest"] == {"sha256": sha256_file(patch)}
    assert went_in["tool python"]["annotations"]["digest"]


def test_what_readers_of_older_records_looked_for_is_still_told(tiny: World) -> None:
    wheel = build(tiny)
    told = facts(record(wheel))
    assert told["isolation"] == {"level": "namespace", "path": "/sb/tiny", "why": ""}
    assert (told["recipe"], told["recipe-file"], told["attempt"]) == ("tiny", "tiny.toml", 1)
    assert told["compressor"].startswith("zlib")
    assert told["host"]["cores"] > 0
    assert told["wheels"] == [{"name": wheel.name, "sha256": sha256_file(wheel)}]
    assert abs(told["built"] - wheel.stat().st_mtime) < 600
    shown = tiny.json("wheels", "show", wheel.name)["wheel"]
    assert shown["source"]["url"] == (tiny.root / "tiny").as_uri()
    lines = tiny.run("wheels", "show", wheel.name).stdout
    assert "isolation namespace" in lines
    assert "ref=main" in lines


def test_what_the_audit_found_is_there_as_it_prints_it(tiny: World) -> None:
    wheel = build(tiny)
    byproducts = named(record(wheel)["predicate"]["runDetails"]["byproducts"])
    assert set(byproducts) == {"run", f"{wheel.name}.audit"}
    found = byproducts[f"{wheel.name}.audit"]["annotations"]
    assert (found["wheel"]["sha256"], found["refused"]) == (sha256_file(wheel), False)
    for one in byproducts.values():
        text = json.dumps(one["annotations"], sort_keys=True, separators=(",", ":"))
        assert one["digest"] == {"sha256": sha256_bytes(text.encode())}


def test_older_records_are_read_as_they_are() -> None:
    assert facts(FLAT) == FLAT
    assert subject(FLAT) == "0" * 64


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "text",
        {},
        {"subject": None},
        {"subject": [{"digest": {}}]},
        {"subject": [{"digest": {"sha256": "0"}}, {"digest": {"sha256": "1"}}]},
        {"_type": "other", "predicate": 1},
        {"_type": "x", "predicateType": "https://slsa.dev/provenance/v1", "predicate": {"runDetails": []}},
        {
            "_type": "x",
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {"runDetails": {"byproducts": [1], "metadata": {"finishedOn": "never"}}},
        },
    ],
)
def test_what_is_no_record_says_nothing(odd: Any) -> None:  # noqa: ANN401  # that is the point
    assert subject(odd) == ""
    assert not set(facts(odd)) - {"subject"}


def test_a_statement_is_about_one_wheel_whatever_the_set_was() -> None:
    made = about({"subject": [{"name": "a"}, {"name": "b"}], "predicateType": "x", "predicate": {}}, "c", "1" * 64)
    assert made["subject"] == [{"name": "c", "digest": {"sha256": "1" * 64}}]


# --- the bill


def test_the_bill_lies_in_the_wheel_and_in_its_record(tiny: World) -> None:
    wheel = build(tiny)
    text = member(wheel, "sboms/spark-build.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    assert b"sboms/spark-build.cdx.json,sha256=" in member(wheel, "RECORD")
    read.check(wheel)
    bill = json.loads(text)
    parts = {one["bom-ref"]: one for one in bill["components"]}
    commit = tiny.git(tiny.root / "tiny", "rev-parse", "HEAD")
    assert parts["source"]["swhid"][0] == f"swh:1:rev:{commit}"
    assert bill["metadata"]["component"]["version"] == wheel.name.split("-")[1]
    assert str(tiny.root) not in text.decode()


def test_the_same_inputs_built_twice_have_the_same_bill(tiny: World) -> None:
    wheel = build(tiny)
    bill, digest = member(wheel, "sboms/spark-build.cdx.json"), sha256_file(wheel)
    assert build(tiny, "--force", "--isolation", "none", "-j", "1") == wheel
    assert sha256_file(wheel) == digest
    assert member(wheel, "sboms/spark-build.cdx.json") == bill


def test_a_secret_is_neither_in_the_bill_nor_beside_the_wheel(signing: World) -> None:
    with (signing.config / "config.toml").open("a") as stream:
        stream.write(f'[build]\nenv = {{ SITE_PASSWORD = "{SECRET}1" }}\n')
    wheel = build(
        signing,
        "--env",
        f"API_TOKEN={SECRET}2",
        "--env",
        f"MIRROR=https://me:{SECRET}3@host.invalid/x?token={SECRET}4",
        "--set",
        f"build.env={{ MY_SECRET = '{SECRET}5' }}",
        "--env",
        f"FETCH=curl -s --token {SECRET}6 -H 'Authorization: Bearer {SECRET}7' --api-key '{SECRET}8' https://host.invalid",
    )
    beside = [sidecar(wheel).read_text(), signature(wheel).read_text()]
    for text in (member(wheel, "sboms/spark-build.cdx.json").decode(), *beside):
        assert SECRET not in text
    env = record(wheel)["predicate"]["buildDefinition"]["externalParameters"]["env"]
    fetch = env.pop("FETCH")
    assert (fetch.count("***"), fetch.endswith(" https://host.invalid")) == (3, True)
    assert env == {"API_TOKEN": "***", "MIRROR": "https://host.invalid/x?token=***", "SITE_PASSWORD": "***"}
    told = [lock.read_text() for lock in (signing.wheelhouse / "locks").iterdir() if lock.is_file()]
    assert any("--env API_TOKEN=***" in text for text in told)
    assert not any(SECRET in text for text in told)


# --- signatures


def refused(world: World) -> str:
    return world.run("wheels", "verify", code=5).stderr


def flip(file: Path, behind: bytes) -> Callable[[], object]:
    """Change the byte that follows a text in a file; return what puts it back."""
    data = file.read_bytes()
    changed = bytearray(data)
    changed[data.index(behind) + len(behind)] ^= 1
    file.write_bytes(changed)
    return lambda: file.write_bytes(data)


def test_a_configured_key_signs_and_verify_asks_for_it(signing: World) -> None:
    wheel = build(signing)
    assert signing.run("wheels", "verify").stdout == "1 wheel whole\n"
    by_hand = ["-I", "alice@example.invalid", "-n", "spark-build", "-s", str(signature(wheel))]
    subprocess.run(
        ["ssh-keygen", "-Y", "verify", *by_hand, "-f", str(signing.home / "signers")],
        input=sidecar(wheel).read_bytes(),
        check=True,
        capture_output=True,
    )
    assert "provenance.json.sig" in signing.run("wheels", "show", wheel.name).stdout
    assert signing.json("wheels", "show", wheel.name)["wheel"]["signed"] is True


def test_a_flipped_byte_of_wheel_statement_or_signature_is_told_each_in_its_own_words(signing: World) -> None:
    wheel = build(signing)
    texts = []
    for file, behind in (
        (wheel, b"PK"),
        (sidecar(wheel), b'"fingerprint": "'),
        (signature(wheel), b"SIGNATURE-----\n"),
    ):
        put_back = flip(file, behind)
        rows = signing.json("wheels", "verify", code=5)["findings"]
        texts += [(row["kind"], row["text"]) for row in rows if row["kind"] != "index"]
        put_back()
    assert [kind for kind, _text in texts] == ["changed", "signature", "signature"], texts
    assert "the catalogue says" in texts[0][1]
    assert "other bytes" in texts[1][1]
    assert "no SSH signature" in texts[2][1]
    signing.run("wheels", "verify")


def test_a_record_that_was_replaced_by_another_wheel_s_is_told(signing: World) -> None:
    first, second = build(signing), build(signing, "--env", "A=1")
    for file in (sidecar, signature):
        shutil.copy(file(second), file(first))
    assert "the record of its making is about other bytes" in refused(signing)


def test_a_wheel_that_nobody_or_somebody_else_signed_is_told(signing: World) -> None:
    wheel = build(signing)
    good = signature(wheel).read_bytes()
    signature(wheel).unlink()
    said = refused(signing)
    assert f"there is no signature {signature(wheel).name}" in said
    assert f"ssh-keygen -Y sign -n spark-build -f KEY {sidecar(wheel)}" in said
    other = make_key(signing.home, "mallory")
    words = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(other), "-n", "spark-build", str(sidecar(wheel))]
    subprocess.run(words, check=True, capture_output=True)
    said = refused(signing)
    assert "by nobody whom signers lets sign" in said
    assert "add the signer's line to" in said
    assert f"ssh-keygen -Y check-novalidate -n spark-build -s {signature(wheel)} < {sidecar(wheel)}" in said
    assert "wheels rm" not in said
    signature(wheel).write_bytes(good)
    signing.run("wheels", "verify")


def test_without_signers_nobody_asks_for_signatures(signing: World) -> None:
    wheel = build(signing)
    signature(wheel).unlink()
    (signing.config / "config.toml").write_text("")
    assert signing.run("wheels", "verify").stdout == "1 wheel whole\n"


def test_a_removed_wheel_leaves_no_signature(signing: World) -> None:
    wheel = build(signing)
    signing.run("wheels", "rm", wheel.name, "--yes")
    assert not list(wheel.parent.iterdir())


def test_a_key_that_can_t_sign_is_told_before_anything_is_built(signing: World) -> None:
    make_key(signing.home, "locked", passphrase="long and winding")  # noqa: S106  # a test
    (signing.config / "config.toml").write_text('[signing]\nkey = "~/locked"\n')
    error = signing.json("recipe", "tiny", code=3)["error"]
    assert (error["code"], error["run"]) == ("signing-key", [f"ssh-add {signing.home / 'locked'}"])
    assert not list((signing.wheelhouse / "builds").glob("*/logs"))


# --- what comes from elsewhere


def test_a_record_that_comes_with_a_wheel_is_kept_to_the_byte_with_its_signature(signing: World) -> None:
    wheel = build(signing)
    shutil.copytree(wheel.parent, signing.root / "elsewhere")
    other = str(signing.root / "other")
    done = signing.run("wheels", "add", str(signing.root / "elsewhere" / wheel.name), "--wheelhouse", other)
    added = Path(done.stdout.strip())
    assert sidecar(added).read_bytes() == sidecar(wheel).read_bytes()
    assert signature(added).read_bytes() == signature(wheel).read_bytes()
    signing.run("wheels", "verify", "--wheelhouse", other)


def test_an_older_record_that_comes_with_a_wheel_is_kept(world: World) -> None:
    path = kit.make_wheel(world.root / "dist", "foreign")
    old = FLAT | {"subject": {"name": path.name, "sha256": sha256_file(path)}, "fingerprint": "", "recipe": ""}
    sidecar(path).write_text(json.dumps(old))
    added = Path(world.run("wheels", "add", str(path)).stdout.strip())
    assert record(added) == old
    shown = world.run("wheels", "show", added.name).stdout
    assert "2023-11-14 22:13:20 UTC, isolation namespace, on aarch64 (claimed by the record it came with)" in shown
    world.run("wheels", "verify")


def test_a_wheel_without_a_record_gets_one_that_says_no_more_than_is_known(world: World) -> None:
    path = kit.make_wheel(world.root / "dist", "foreign")
    added = Path(world.run("wheels", "add", str(path)).stdout.strip())
    made = json_format.Parse(sidecar(added).read_bytes(), statement_pb2.Statement())
    Statement.copy_from_pb(made).validate()
    assert (made.predicate_type, subject(record(added))) == ("urn:spark-build:added:v1", sha256_file(added))
    assert facts(record(added))["added"]["filename"] == path.name
    assert "added from a file" in world.run("wheels", "show", added.name).stdout


def test_what_is_taken_in_without_a_record_is_signed_by_whoever_takes_it_in(signing: World) -> None:
    path = kit.make_wheel(signing.root / "dist", "foreign")
    added = Path(signing.run("wheels", "add", str(path)).stdout.strip())
    assert signature(added).is_file()
    signing.run("wheels", "verify")


# --- filing


def test_a_lost_wheel_that_comes_back_unsigned_has_no_older_signature(tmp_path: Path) -> None:
    root = tmp_path / "house"
    with kit.opened(root) as house:
        (stored,) = kit.publish(house, [kit.wheel(tmp_path)], sign=kit.seal)
        assert signature(stored.path).is_file()
        stored.path.unlink()
        kit.publish(house, [kit.wheel(tmp_path)])
        assert not signature(stored.path).exists()
    kit.whole(root)


def test_nothing_is_left_where_signing_fails(tmp_path: Path) -> None:
    def refuse(_record: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    with kit.opened(tmp_path / "house") as house:
        with pytest.raises(Exception, match="no space left"):
            kit.publish(house, [kit.wheel(tmp_path)], sign=refuse)
        assert house.list_wheels() == ()
    assert kit.whole(tmp_path / "house") == {}


def test_a_reindex_keeps_records_and_signatures(tmp_path: Path) -> None:
    from builder.wheelhouse.reindex import reindex  # noqa: PLC0415

    root = tmp_path / "house"
    with kit.opened(root) as house:
        kit.publish(house, [kit.wheel(tmp_path, "one"), kit.wheel(tmp_path, "two")], sign=kit.seal)
    (root / "catalog.sqlite3").unlink()
    reindex(root, clock=lambda: 0.0)
    assert len(kit.whole(root, sealed=True)) == 2
    with kit.opened(root) as house:
        assert verify(house) == ()
