"""What is imported and started before an answer comes: both are felt with every hit."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

#: Runs a command line in this process; tells its exit code, the modules that came in, and the processes that were started.
WATCH = """
import json, sys
before = set(sys.modules)
started = []
def hear(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"):
        started.append(event)
sys.addaudithook(hear)
from builder.cli.main import answer
code = answer(sys.argv[2:])
sys.stdout.flush()
with open(sys.argv[1], "w") as stream:
    json.dump({"code": code, "modules": sorted(set(sys.modules) - before), "started": started}, stream)
"""


def watched(world: World, *words: str) -> dict[str, Any]:
    told = world.root / "told.json"
    subprocess.run(
        [sys.executable, "-c", WATCH, str(told), *words],
        env=world.env(),
        cwd=world.root,
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def packed(world: World) -> Path:
    """A recipe whose source is an archive: nobody has to be asked whether it moved."""
    folder, archive = world.tiny(), world.root / "tiny-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "tiny-1.0")
    return world.recipe(
        "tiny",
        f"""\
        schema = 1
        name = "tiny"
        [[source]]
        kind = "archive"
        url = "{archive.as_uri()}"
        version = "1.0"
        [system]
        headers = true
        [[output]]
        name = "tiny"
        """,
    )


def test_help_needs_argparse_and_next_to_nothing_else(world: World) -> None:
    found = watched(world, "--help")
    assert found["code"] == 0
    assert not set(found["modules"]) & {"json", "pathlib", "sqlite3", "tomllib", "builder.config", "builder.values"}
    assert {name for name in found["modules"] if name.startswith("builder.")} == {
        "builder.cli",
        "builder.cli.main",
        "builder.errors",
    }


def test_a_hit_starts_no_process_and_imports_nothing_that_builds(world: World) -> None:
    packed(world)
    built = world.wheels("tiny")
    found = watched(world, "recipe", "tiny")
    assert (found["code"], found["started"]) == (0, [])
    assert world.wheels("tiny") == built
    heavy = {"dataclasses", "inspect", "difflib", "shutil", "statistics", "subprocess", "tempfile", "uuid", "zipfile"}
    ours = {"builder.buildenv", "builder.patches", "builder.proc", "builder.index.tree", "builder.wheelhouse.publish"}
    assert not set(found["modules"]) & (heavy | ours)


def test_the_watch_sees_what_a_build_starts(world: World) -> None:
    packed(world)
    found = watched(world, "recipe", "tiny")
    assert found["code"] == 0
    assert "subprocess.Popen" in found["started"]
    assert "subprocess" in found["modules"]
