"""The bill of materials inside a wheel: the published schema, the same bytes each time, and nothing of the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from builder.stages import Locked, Submodule
from builder.wheel import sbom
from tests.base_kit import LOCK, NESTED, PIN, collect

PUBLISHED = JsonStrictValidator(SchemaVersion.V1_6)
LABEL = "sb20240102030405.g0123456789"
VERSION = f"1.0+{LABEL}.cu130"


def bill(**changes: Any) -> bytes:  # noqa: ANN401  # as collect
    document = {"label": LABEL, "version": VERSION, "output": "tiny"}
    document |= {name: changes.pop(name) for name in tuple(changes) if name in document}
    return sbom.write(collect(**changes).document, **document)


def parts(**changes: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401  # as collect
    return {one["bom-ref"]: one for one in json.loads(bill(**changes))["components"]}


def told(one: dict[str, Any]) -> dict[str, str]:
    return {row["name"].removeprefix("spark-build:"): row["value"] for row in one["properties"]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pin__kind": "sdist", "pin__tree": "sha256:" + "a" * 64, "pin__commit": None, "pin__submodules": ()},
        {"pin__kind": "local", "pin__tree": "tree:" + "a" * 64, "pin__version": None},
        {"pin__tree": "git:" + "a" * 64, "pin__commit": "b" * 64},
        {"nested": NESTED},
        {"pin__time": 0, "pin__describe": "v1.0-3-gbbbbbbb"},
        {"host__cuda": None, "torch": None, "patches": [], "pin__pulls": (), "paths": {}, "builds_on": {}},
        {"output": "extra", "outputs": ["tiny", "extra"]},
        {"locks": [replace(LOCK, packages=(Locked(name="Nin_Ja", version="1.13", sha256=("6" * 64, "7" * 64)),))]},
        {"locks": [replace(LOCK, packages=(Locked(name="a", version="1!2.0+b", sha256=()),))]},
        {
            "pin__submodules": tuple(
                Submodule(path=f"a b/ü{n}", url=f"git@h.invalid:x/{n}", commit="c" * 40) for n in "12"
            )
        },
    ],
)
def test_every_kind_of_inputs_gives_a_bill_that_the_published_schema_takes(changes: dict[str, Any]) -> None:
    text = bill(**changes)
    assert PUBLISHED.validate_str(text.decode()) is None
    document = json.loads(text)
    refs = ["wheel", *(one["bom-ref"] for one in document["components"])]
    assert len(set(refs)) == len(refs)
    assert document["dependencies"] == [{"ref": "wheel", "dependsOn": refs[1:]}]


def test_the_validator_would_tell() -> None:
    document = json.loads(bill())
    document["components"][0]["scope"] = "mine"
    assert PUBLISHED.validate_str(json.dumps(document)) is not None


def test_the_wheel_is_named_as_installers_know_it() -> None:
    document = json.loads(bill())
    assert document["metadata"]["component"]["purl"] == f"pkg:pypi/tiny@1.0%2B{LABEL}.cu130"
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"  # of the commit
    assert json.loads(bill(output="Tiny_Wheel"))["metadata"]["component"]["name"] == "tiny-wheel"


def test_package_urls_are_in_the_spelling_of_their_own_library() -> None:
    odd = (
        Submodule(path="a b/ü", url="https://git.invalid/x?y=1&z", commit="c" * 40),
        Submodule(path="cutlass", url="https://github.com/NVIDIA/cutlass", commit="d" * 40),
    )
    packages = (Locked(name="Zope.Interface", version="1!2.0+local.1", sha256=()),)
    found = parts(pin__submodules=odd, locks=[replace(LOCK, packages=packages)])
    urls = [one["purl"] for one in found.values() if "purl" in one]
    assert len(urls) == 4
    assert [PackageURL.from_string(url).to_string() for url in urls] == urls


def test_all_that_went_in_is_there_by_its_digest() -> None:
    found = parts()
    assert found["source"]["swhid"] == ["swh:1:rev:" + "b" * 40, "swh:1:dir:" + "a" * 40]
    assert found["submodule:sub"]["swhid"] == ["swh:1:rev:" + "c" * 40]
    assert found["submodule:sub"]["externalReferences"] == [{"type": "vcs", "url": "https://git.invalid/sub"}]
    assert found["patch:fix"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert found["pull:7"]["hashes"] == [{"alg": "SHA-256", "content": "2" * 64}]
    assert found["requires:setuptools"]["purl"] == "pkg:pypi/setuptools@80.0"
    assert found["requires:setuptools"]["hashes"] == [{"alg": "SHA-256", "content": "6" * 64}]
    assert (found["tool:cuda"]["version"], told(found["tool:cuda"])["digest"]) == ("13.0.88", "5" * 64)
    assert (found["tool:g++"]["version"], told(found["tool:g++"])["digest"]) == ("13.3.0", "4" * 64)
    assert (found["tool:python"]["version"], told(found["tool:python"])["digest"]) == ("3.12.3", "3" * 64)
    assert found["torch"]["version"] == "2.14.0"
    assert told(found["recipe:base"])["digest"] == "7" * 64
    inside = {ref for ref, one in found.items() if one.get("scope") != "excluded"}
    assert inside == {"source", "submodule:sub", "patch:fix", "pull:7"}


def test_an_archive_is_named_by_its_sha256_and_a_nested_github_source_by_its_repository() -> None:
    archive = {"pin__kind": "sdist", "pin__tree": "sha256:" + "a" * 64, "pin__commit": None}
    assert parts(**archive)["source"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    nested = (Submodule(path="third/cutlass", url="https://github.com/NVIDIA/cutlass.git", commit="c" * 40),)
    assert parts(pin__submodules=nested)["submodule:third/cutlass"]["purl"] == f"pkg:github/nvidia/cutlass@{'c' * 40}"


def test_what_the_tree_pulled_in_is_part_of_the_bill() -> None:
    found = parts(nested=NESTED)
    assert found["nested:cutlass"]["purl"] == f"pkg:github/nvidia/cutlass@{'c' * 40}"
    assert found["nested:llvm"]["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    assert told(found["nested:ptxas"])["digest"] == "f" * 64
    assert "/opt" not in bill(nested=NESTED).decode()


def test_one_of_several_files_of_a_requirement_is_no_hash_of_it() -> None:
    several = Locked(name="ninja", version="1.13", sha256=("7" * 64, "6" * 64))
    found = parts(locks=[replace(LOCK, packages=(several,))])["requires:ninja"]
    assert "hashes" not in found
    assert [one["hashes"][0]["content"] for one in found["externalReferences"]] == ["6" * 64, "7" * 64]


def test_only_the_requirements_of_the_own_output_are_listed() -> None:
    other = replace(LOCK, output="extra", packages=(Locked(name="numpy", version="2.4", sha256=("8" * 64,)),))
    changes: dict[str, Any] = {"outputs": ["tiny", "extra"], "locks": [LOCK, other]}
    assert "requires:numpy" not in parts(**changes)
    assert "requires:numpy" in parts(**changes, output="extra")


def test_the_same_inputs_and_label_give_the_same_bytes_wherever_they_were_found() -> None:
    elsewhere = {
        "pin__url": "https://fork.invalid/tiny",
        "pin__ref": "v1.0",
        "pin__asked_at": 5.0,
        "host__cores": 1,
        "host__memory_bytes": 1,
    }
    assert bill(**elsewhere) == bill()
    document = dict(reversed(json.loads(json.dumps(collect().document)).items()))
    assert sbom.write(document, output="tiny", version=VERSION, label=LABEL) == bill()


@pytest.mark.parametrize(
    "changes", [{"version": "1.0+other"}, {"output": "extra"}, {"pin__commit": "0" * 40}, {"arch": ["12.1a"]}]
)
def test_another_wheel_has_another_serial_number(changes: dict[str, Any]) -> None:
    assert json.loads(bill(**changes))["serialNumber"] != json.loads(bill())["serialNumber"]


def test_no_place_no_secret_and_nobody_is_in_it() -> None:
    text = bill(
        env={"API_TOKEN": "hunter2hunter2", "PLAIN": "/home/me/flags"},
        paths={"/home/me/llvm": "9" * 64},
        pin__submodules=(replace(PIN.submodules[0], url="file:///home/me/sub"),),
        pin__url="file:///home/me/tiny",
    ).decode()
    assert "hunter2" not in text
    assert "/home" not in text
    assert "/usr" not in text
    assert "/opt" not in text
    assert "9" * 64 in text  # what lies there counts
