"""The description of the server, and what a program that read it asks of the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import openapi_spec_validator
import pytest

from builder.server import openapi, routes
from builder.server.refusal import Refusal
from builder.wheelhouse import channel
from tests.server_kit import serving, token
from tests.wheelhouse_kit import opened
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server_kit import Server

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
#: Every warning is a failure; data that isn't there would be one. Whether bytes are a wheel that passes the audit, no schema
#: can say: refused for that is right, too.
CONFIG = """
[warnings]
fail-on = true

[[operations]]
include-operation-id = ["upload", "uploadOfChannel", "uploadOfGroupedChannel", "getOffset", "stage", "publish"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 409, 422]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A wheelhouse with one of everything: a build with its record signed, channels, a value of the compile cache."""
    world = World(tmp_path_factory.mktemp("openapi"))
    key = world.root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (world.config / "config.toml").write_text(f'[signing]\nkey = "{key}"\n')
    world.tiny_repo()
    world.tiny_recipe()
    world.wheels("tiny")
    with opened(world.wheelhouse) as house:
        wheels = house.list_wheels()
        channel.promote(house, "team/stable", wheels)
        channel.promote(house, "nightly", wheels)
    return world


@pytest.fixture(scope="module")
def secret(world: World) -> str:
    return token(world.wheelhouse, "tester", "admin")


@pytest.fixture(scope="module")
def server(world: World, secret: str) -> Iterator[Server]:
    with serving(world, "--open-reads") as server:
        key = openapi.Examples().key
        kept = server.ask(f"/ccache/{key}", "PUT", b"an object", Authorization=f"Bearer {secret}")
        assert kept.status == 201
        yield server


def test_the_description_is_valid_and_names_what_is_there(server: Server, world: World) -> None:
    answer = server.ask("/api/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    document = json.loads(answer.body)
    openapi_spec_validator.validate(document)
    assert server.ask("/api/openapi.json", If_None_Match=answer.headers["ETag"]).status == 304
    with opened(world.wheelhouse) as house:
        wheel = house.list_wheels()[0]
    named = {
        parameter["name"]: parameter["example"]
        for item in document["paths"].values()
        for parameter in item.get("parameters", ())
    }
    assert named["project"] == wheel.project
    assert (named["sha256"], named["filename"], named["fingerprint"]) == (
        wheel.sha256,
        wheel.filename,
        wheel.fingerprint,
    )
    assert (named["channel"], named["group"], named["member"]) == ("nightly", "team", "stable")


def test_all_that_it_describes_is_answered_and_all_that_is_answered_is_described(server: Server) -> None:
    document = json.loads(server.ask("/api/openapi.json").body)
    described: set[tuple[str, str]] = set()
    for path, item in document["paths"].items():
        filled = path
        for parameter in item.get("parameters", ()):
            filled = filled.replace("{" + parameter["name"] + "}", parameter["example"])
        for method in {"get", "put", "post", "delete", "head"} & item.keys():
            described.add((routes.find(filled).of_method(method.upper())[0], method))
            if method == "get" and not path.endswith("/events"):
                assert server.ask(filled).status == 200, filled
    answered = {
        (handler, method.lower()) for route in routes.ROUTES for method, (handler, _scope) in route.methods.items()
    }
    assert described == answered


def test_an_empty_wheelhouse_has_a_description_too() -> None:
    document = openapi.describe(openapi.Examples(), "/")
    openapi_spec_validator.validate(document)
    for path, item in document["paths"].items():
        filled = path
        for parameter in item.get("parameters", ()):
            filled = filled.replace("{" + parameter["name"] + "}", parameter["example"])
        try:
            routes.find(filled)
        except Refusal:
            pytest.fail(filled)


#: A form with a wheel in it can't be made up, nor bytes of a digest: valid requests get the wheel that is there.
HOOKS = """
import hashlib, pathlib, schemathesis
from schemathesis import GenerationMode

wheel = pathlib.Path({wheel!r})
sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
name, version = wheel.name.split("-")[:2]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.operation.path.endswith("/legacy/"):
        fields = {{":action": "file_upload", "protocol_version": "1", "name": name, "version": version}}
        fields |= {{"filetype": "bdist_wheel", "sha256_digest": sha256}}
        kwargs["files"] = [(key, (None, value)) for key, value in fields.items()]
        kwargs["files"].append(("content", (wheel.name, wheel.read_bytes())))
    elif case.operation.label == "PUT /api/staging/{{sha256}}/{{filename}}":
        case.path_parameters.update(sha256=sha256, filename=wheel.name)
    elif case.operation.label == "POST /api/publish":
        kwargs["json"] = {{**case.body, "channel": None, "replace": False, "wheels": [
            {{"sha256": sha256, "filename": wheel.name}}
        ]}}
"""


def run(server: Server, world: World, secret: str, folder: Path, *words: str) -> str:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    wheel = next((world.wheelhouse / "wheels" / "tiny").glob("*.whl"))
    (folder / "given_wheel.py").write_text(HOOKS.format(wheel=str(wheel)))
    done = subprocess.run(
        [
            str(SCHEMATHESIS), "--config-file", str(config), "run", f"{server.url}api/openapi.json", "--url", server.url,
            "--header", f"Authorization: Bearer {secret}", "--seed", "1", *words,
        ],
        capture_output=True, text=True, check=False, cwd=folder, timeout=600,
        env={
            "PATH": os.environ["PATH"], "HOME": str(folder), "NO_COLOR": "1",
            "SCHEMATHESIS_HOOKS": "given_wheel", "PYTHONPATH": str(folder),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log
    assert server.process.poll() is None
    return done.stdout


def test_schemathesis_finds_nothing_and_warns_of_nothing(
    server: Server, world: World, secret: str, tmp_path: Path
) -> None:
    said = run(server, world, secret, tmp_path, "--phases", "examples,coverage")
    assert "WARNINGS" not in said
    assert "No issues found" in said


@pytest.mark.slow
def test_schemathesis_looks_further(server: Server, world: World, secret: str, tmp_path: Path) -> None:
    said = run(server, world, secret, tmp_path, "--max-examples", "40")
    assert "WARNINGS" not in said
    assert "No issues found" in said
