from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import index
from builder.errors import BuildFailed, SourceError, UsageError
from builder.ui import failure
from builder.ui.install import install_line
from builder.ui.lines import permanent
from builder.ui.style import Style
from builder.ui.table import table
from tests import wheelhouse_kit as kit
from tests.ui_kit import NOON, Terminal, stored

if TYPE_CHECKING:
    from tests.world import World

ERROR = SourceError(
    "ref-missing",
    "tiny has no ref mian",
    cause="near names: main, maint\n\x1b[31mred\x1b[0m",
    help="a ref is a branch, a tag or a commit",
    run=("spark-build recipe tiny --ref main", "git ls-remote URL"),
)


def screen(error: BuildFailed | SourceError, **more: object) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    values = {"env": {}, "as_json": False, **more}
    failure.show(error, stdout=out, stderr=err, **values)  # type: ignore[arg-type]
    return out.getvalue(), err.getvalue()


def test_the_last_line_is_what_to_type() -> None:
    out, err = screen(ERROR)
    assert out == ""
    assert err.splitlines() == [
        "error[ref-missing]: tiny has no ref mian",
        "  cause: near names: main, maint",
        "         red",
        "  help:  a ref is a branch, a tag or a commit",
        "  run:   spark-build recipe tiny --ref main",
        "         git ls-remote URL",
    ]


def test_what_there_is_nothing_of_isnt_shown() -> None:
    assert screen(BuildFailed("x", "it failed"))[1] == "error[x]: it failed\n"


def test_as_json_it_is_one_document_on_stdout() -> None:
    out, err = screen(ERROR, as_json=True)
    assert err == ""
    assert json.loads(out) == {"version": 1, "error": ERROR.as_json()}


def test_colours_only_repeat_what_words_say() -> None:
    style = Style(color=True, live=False, encoding="utf-8")
    painted = "\n".join(failure.error_lines(ERROR, style=style, width=80))
    assert "\x1b[31;1merror[ref-missing]\x1b[0m" in painted or "\x1b[31" in painted
    assert "\x1b[31mred" not in painted


def test_a_terminal_folds_and_a_log_keeps_lines_whole() -> None:
    long = "  src/a.cu(3): error: " + "identifier " * 20
    error = BuildFailed("x", "the build of a project with a long name failed " * 3, cause=long, help="mend " * 40)
    live = failure.error_lines(error, style=Style(color=False, live=True, encoding="utf-8"), width=60)
    assert max(map(len, live)) <= 60
    assert "".join(" ".join(live).split()).count("identifier") == 20
    log = failure.error_lines(error, style=Style(color=False, live=False, encoding="utf-8"), width=80)
    assert any("identifier " * 19 in line for line in log)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["recipe", "x", "--color", "never"], "never"),
        (["recipe", "x", "--color=always"], "always"),
        (["recipe", "--color"], "auto"),
        (["recipe", "--color", "blue"], "auto"),
        ([], "auto"),
    ],
)
def test_the_colour_flag_holds_for_errors_of_the_command_line_too(words: list[str], wanted: str) -> None:
    assert failure.color_of(words) == wanted


def test_a_reader_that_went_away_is_no_second_error() -> None:
    class Gone(Terminal):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    failure.show(UsageError("x", "y"), stdout=Gone(), stderr=Gone(), env={}, as_json=False)


def test_the_command_shows_its_errors_both_ways(world: World) -> None:
    done = world.run("recipe", "nothing-of-that-name", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error[")
    assert world.json("recipe", "nothing-of-that-name", code=2)["error"]["exit"] == 2


def test_a_hit_imports_nothing_that_draws(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    world.run("recipe", "tiny")
    done = world.run("recipe", "tiny", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "builder.ui.plain" in imported
    assert not {"rich", "builder.ui.plan", "builder.ui.install", "builder.ui.failure", "asyncio"} & imported


def test_the_install_line_names_exactly_what_was_built() -> None:
    wheels = (stored("flashinfer-python"), stored("flashinfer-jit-cache"))
    assert install_line(wheels, "file:///w/my%20house/simple/") == (
        "uv pip install --index file:///w/my%20house/simple/ flashinfer-python==1.0+sb20260918120000.g3f9ac1d2ab "
        "flashinfer-jit-cache==1.0+sb20260918120000.g3f9ac1d2ab"
    )


def test_tables_keep_to_the_width() -> None:
    rows = [("a" * 40, "1"), ("b", "2" * 30)]
    told = table(("name", "n"), rows, width=50, shrink=(0,))
    assert max(map(len, told)) <= 50
    assert told[1] == "a" * 17 + "…" + "  1"
    assert told[2].endswith("2" * 30)


def test_columns_are_left_out_where_not_even_heads_fit() -> None:
    rows = [("12345", "name", "678")]
    assert table(("a", "name", "b"), rows, width=30, shrink=(1,), drop=(2, 0)) == ["a      name  b", "12345  name  678"]
    assert table(("a", "name", "b"), rows, width=12, shrink=(1,), drop=(2, 0)) == ["a      name", "12345  name"]
    assert table(("a", "name", "b"), rows, width=5, shrink=(1,), drop=(2, 0)) == ["name", "name"]


@pytest.mark.parametrize("took_s", [None, 3.0, 754.0, 36_000.0])
def test_lines_keep_to_forty_columns(took_s: float | None) -> None:
    live = Style(color=False, live=True, encoding="utf-8")
    text = "flashinfer-python flashinfer_python-0.6.14-py3-none-any.whl and more of it"
    words = text if took_s else text.replace("_python-0.6.14-py3-none-any", "")
    told = permanent(NOON, "✔", "build", words, style=live, width=40, took_s=took_s)
    assert max(map(len, told.splitlines())) <= 40


def test_the_line_for_a_triton_installs_it_next_to_a_torch_that_pins_another(tmp_path: Path) -> None:
    with kit.opened(tmp_path / "theirs") as house:
        wheels = [kit.wheel(tmp_path, "triton"), kit.wheel(tmp_path, "torch", requires=["triton==1.0"])]
        kit.publish(house, wheels)
        index.refresh(house)
        upstream = index.index_url(house)
    with kit.opened(tmp_path / "ours") as house:
        built = kit.publish(house, [kit.wheel(tmp_path, "triton", "2.0+sb20260918120000.g3f9ac1d2ab")])
        index.refresh(house)
        url, pinned_by = index.index_url(house), {built[0].output: ("torch",)}
        plain, comment = install_line(built, url, pinned_by=pinned_by).splitlines()
    assert comment.startswith("# ")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", tmp_path / "venv"], check=True)
    env = {
        "PATH": f"{uv.parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": upstream,
    }

    def install(line: str) -> int:
        return subprocess.run(["bash", "-c", line], env=env, cwd=tmp_path, capture_output=True, check=False).returncode

    assert install(f"{plain} torch") != 0  # what the comment is there for
    assert install(comment.partition(": ")[2]) == 0
    words: list[str | Path] = [uv, "pip", "freeze"]
    there = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert there.split() == ["torch==1.0", "triton==2.0+sb20260918120000.g3f9ac1d2ab"]
