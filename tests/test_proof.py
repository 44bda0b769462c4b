"""The gate before a publish, through the installed command: what is refused, what is let pass, what a hit costs again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

from builder.executor import workspace
from builder.wheelhouse import Wheelhouse
from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


def recipe(world: World, more: str = "") -> None:
    """Write the recipe of the one project, which is made with the first one."""
    if not (world.root / "tiny").exists():
        world.tiny()
    text = f'schema = 1\nname = "tiny"\n[[source]]\nkind = "local"\npath = "{world.root / "tiny"}"\n'
    world.recipe("tiny", f'{text}[[output]]\nname = "tiny"\n{more}')


def findings(world: World) -> list[tuple[str, str]]:
    """Return what the catalogue keeps: id and severity of every finding of every wheel."""
    with sqlite3.connect(world.wheelhouse / "catalog.sqlite3") as db:
        rows = db.execute("SELECT document FROM findings").fetchall()
    return [(one["id"], one["severity"]) for (text,) in rows for one in json.loads(text)["findings"]]


def test_findings_are_kept_and_a_hit_is_judged_again_by_new_rules(world: World) -> None:
    recipe(world)
    first = world.run("recipe", "tiny", "--json")
    (wheel,) = json.loads(first.stdout)["wheels"]
    with Wheelhouse.open(world.wheelhouse, clock=lambda: 0.0) as house:
        (stamp,) = (row[0] for row in house.catalogue.rows("SELECT rules FROM findings"))
        assert house.findings(wheel["sha256"], stamp)
    assert "not judged yet" not in world.run("recipe", "tiny").stderr

    recipe(world, '[[check]]\nkind = "size"\nmax = "1MiB"\n')
    assert "not judged yet" in world.run("recipe", "tiny").stderr
    with Wheelhouse.open(world.wheelhouse, clock=lambda: 0.0) as house:
        assert [row[0] for row in house.catalogue.rows("SELECT rules FROM findings")] != [stamp]
    assert "not judged yet" not in world.run("recipe", "tiny").stderr

    recipe(world, '[[check]]\nkind = "size"\nmax = "1B"\n')
    refused = world.run("recipe", "tiny", code=5)
    assert refused.stdout == ""
    assert "audit-refused" in refused.stderr


def test_what_is_refused_is_kept_and_not_published(world: World) -> None:
    more = '[[check]]\nkind = "import"\nrun = "import tiny; raise SystemExit(tiny.__name__)"\n'
    recipe(world, more)
    refused = world.run("recipe", "tiny", code=5)
    assert "audit-refused" in refused.stderr
    assert "run-check" in refused.stderr
    assert world.run("wheels", "list").stdout == ""
    (kept,) = (world.wheelhouse / "builds").glob("*/wheels/*.whl")
    assert kept.name in refused.stderr  # the command to type names it

    recipe(world, more + '[[check]]\nkind = "accept"\nfindings = ["run-check"]\nreason = "a test"\n')
    passed = world.run("recipe", "tiny")
    assert passed.stdout.strip().endswith(".whl")
    assert ("run-check", "error") in findings(world)


def test_a_script_of_the_users_own(world: World) -> None:
    (world.recipes / "checks").mkdir()
    (world.recipes / "checks" / "look.py").write_text(
        "import os, tiny\nraise SystemExit(os.environ['SPARK_BUILD_TARGET'])\n"
    )
    recipe(world, '[[check]]\nkind = "script"\nscript = "look.py"\n')
    assert "look.py: 12.0" in world.run("recipe", "tiny", "--arch", "12.0f", code=5).stderr
    recipe(world, '[[check]]\nkind = "script"\nscript = "lost.py"\n')
    lost = world.run("recipe", "tiny", code=2)
    assert "check-script" in lost.stderr
    assert str(world.recipes / "checks" / "lost.py") in lost.stderr


def test_a_hit_is_tried_again_by_new_checks(world: World) -> None:
    recipe(world)
    world.run("recipe", "tiny")
    failing = '[[check]]\nkind = "import"\nrun = "raise SystemExit(3)"\n'
    recipe(world, failing)
    assert "run-check" in world.run("recipe", "tiny", code=5).stderr
    recipe(world, failing + '[[check]]\nkind = "accept"\nfindings = ["run-check"]\nreason = "a test"\n')
    world.run("recipe", "tiny")
    recipe(world, failing)
    refused = world.run("recipe", "tiny", code=5)
    assert "is in the wheelhouse" in refused.stderr
    assert "--run" in refused.stderr

    (world.recipes / "checks").mkdir()
    script = world.recipes / "checks" / "look.py"
    script.write_text("import tiny\n")
    recipe(world, '[[check]]\nkind = "script"\nscript = "look.py"\n')
    world.run("recipe", "tiny")
    script.write_text("raise SystemExit('other bytes')\n")
    assert "other bytes" in world.run("recipe", "tiny", code=5).stderr


def test_who_waited_for_the_same_build_judges_it_by_its_own_checks(world: World) -> None:
    world.tiny(extra="import time; time.sleep(3)")
    recipe(world)
    with subprocess.Popen([COMMAND, "recipe", "tiny"], env=world.env(), cwd=world.root, stdout=-3, stderr=-3) as first:
        while not list((world.wheelhouse / "builds").glob("*/logs/1/build.log")):
            time.sleep(0.05)
        recipe(world, '[[check]]\nkind = "size"\nmax = "1B"\n')
        second = world.run("recipe", "tiny", code=5)
        assert first.wait() == 0
    assert "another process has built it" in second.stderr
    assert "size-limit" in second.stderr


def test_nothing_is_built_on_what_is_refused(world: World) -> None:
    recipe(world)
    world.tiny("dep")
    text = (
        f'schema = 1\nname = "dep"\nbuilds-on = ["tiny"]\n[[source]]\nkind = "local"\npath = "{world.root / "dep"}"\n'
    )
    world.recipe("dep", f'{text}[[output]]\nname = "dep"\n[[check]]\nkind = "import"\nrun = "import dep"\n')
    world.run("recipe", "dep")
    recipe(world, '[[check]]\nkind = "size"\nmax = "1B"\n')
    (world.root / "dep" / "src" / "__init__.py").write_text("VALUE = 2\n")
    refused = world.run("recipe", "dep", "--keep-going", code=5)
    assert refused.stdout == ""
    assert "dep isn't built: it builds on tiny" in refused.stderr


def test_a_wheel_is_tried_with_what_it_builds_on(world: World) -> None:
    recipe(world)
    folder = world.tiny("dep", text="import tiny\n")
    backend = folder / "backend.py"
    backend.write_text(
        backend.read_text().replace("Version: {VERSION}\\n", "Version: {VERSION}\\nRequires-Dist: tiny\\n")
    )
    text = f'schema = 1\nname = "dep"\nbuilds-on = ["tiny"]\n[[source]]\nkind = "local"\npath = "{folder}"\n'
    world.recipe(
        "dep", f'{text}[[output]]\nname = "dep"\n[[check]]\nkind = "import"\nrun = "import dep; print(1 / 0)"\n'
    )
    assert "ZeroDivisionError" in world.run("recipe", "dep", code=5).stderr


def test_what_takes_its_own_rights_away_does_not_block_the_next_run(tmp_path: Path) -> None:
    """A wheel's own folder can't be listed any more; for root that is no hindrance, so somebody else tries it."""
    for folder in [tmp_path, *list(tmp_path.parents)[:3]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        (tmp_path / "trial-x" / "a" / "b").mkdir(parents=True)
        (tmp_path / "trial-x" / "a").chmod(0)
        (tmp_path / "outside").mkdir(mode=0o755)
        (tmp_path / "trial-x" / "z").symlink_to(tmp_path / "outside")
        workspace.remove(tmp_path / "trial-x")
    finally:
        os.seteuid(before)
    assert not (tmp_path / "trial-x").exists()
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o755


def test_the_log_of_an_attempt_that_failed_does_not_count(world: World) -> None:
    flag = world.root / "mended"
    world.tiny(
        extra=f"import os\nif not os.path.exists({str(flag)!r}):\n    print('Not building Marlin'); raise SystemExit(1)"
    )
    recipe(world, '[[check]]\nkind = "log"\nforbid = ["Not building Marlin"]\n')
    world.run("recipe", "tiny", code=1)
    flag.touch()
    world.run("recipe", "tiny")


def test_what_was_left_out_by_the_build_is_found_in_its_log(world: World) -> None:
    world.tiny(extra="print('-- Not building Marlin kernels')")
    recipe(world, '[[check]]\nkind = "log"\nforbid = ["Not building Marlin"]\n')
    assert "log-forbidden" in world.run("recipe", "tiny", code=5).stderr


def test_a_word_that_is_no_architecture(world: World) -> None:
    recipe(world)
    assert "arch-unknown" in world.run("recipe", "tiny", "--arch", "spark", code=2).stderr
