"""What every command has: help, examples, --json, near words; and completion in a real shell."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from builder.cli.main import COMMANDS, build_parser
from builder.cli.reference import children
from tests.world import COMMAND

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tests.world import World


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that does something itself."""
    inner = children(parser)
    if not inner:
        yield words
    for name, child in inner:
        yield from leaves(child, (*words, name))


def every() -> list[tuple[str, ...]]:
    return sorted({*leaves(build_parser(list(COMMANDS))), *((name,) for name in COMMANDS)})


def parser_of(words: tuple[str, ...]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = build_parser([words[0]])
    for word in words:
        parser = dict(children(parser))[word]
    return parser


@pytest.mark.parametrize("words", every(), ids=" ".join)
def test_every_command_explains_itself_in_a_fresh_home(world: World, words: tuple[str, ...]) -> None:
    before = sorted(world.home.rglob("*"))
    done = world.run(*words, "--help")
    assert done.stderr == ""
    assert f"usage: spark-build {' '.join(words)}" in done.stdout
    parser = parser_of(words)
    assert parser.description, "no description"
    assert "example" in (parser.epilog or ""), "no examples"
    assert f"spark-build {words[0]}" in (parser.epilog or "")
    assert sorted(world.home.rglob("*")) == before, "help writes nothing"


@pytest.mark.parametrize("words", list(leaves(build_parser(list(COMMANDS)))), ids=" ".join)
def test_every_command_has_json_and_documented_arguments(words: tuple[str, ...]) -> None:
    actions = parser_of(words)._actions  # noqa: SLF001  # argparse has no public way to walk its tree
    assert any("--json" in action.option_strings for action in actions)
    assert [action.dest for action in actions if not action.help and not action.choices] == []


@pytest.mark.parametrize("words", every(), ids=" ".join)
def test_a_wrong_flag_is_wrong_usage(world: World, words: tuple[str, ...]) -> None:
    done = world.run(*words, "--no-such-flag", code=2)
    assert done.stdout == ""
    assert "error[usage]" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recip"], "there is no command recip, did you mean recipe?"),
        (["wheel", "list"], "did you mean wheels?"),
        (["zzz"], "there is no command zzz; known: recipe, plan"),
        (["recipes", "lits"], "there is no action lits, did you mean list?"),
        (["plan", "x", "--ofline"], "did you mean --offline?"),
        (["plan", "x", "--isolation", "nons"], "did you mean none?"),
        (["completion", "bsh"], "did you mean bash?"),
        (["recipe"], "the following arguments are required: NAME"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_words_name_the_near_ones(world: World, words: list[str], told: str) -> None:
    done = world.run(*words, code=2)
    assert told in done.stderr
    assert done.stdout == ""


def test_a_usage_error_is_json_where_json_was_asked_for(world: World) -> None:
    told = world.json("recip", code=2)["error"]
    assert (told["code"], told["exit"]) == ("usage", 2)


def test_help_and_version_of_the_whole(world: World) -> None:
    text = world.run("--help").stdout
    assert set(COMMANDS) <= set(re.findall(r"^ +([a-z]+)", text, re.MULTILINE))
    assert world.run("--version").stdout.startswith("spark-build ")


def complete(world: World, line: str) -> set[str]:
    """Return what bash offers at the end of `line`."""
    script = f"""
source <(spark-build completion bash)
complete -p spark-build > /dev/null || exit 9
COMP_WORDS=({line.removesuffix(" ")} {"''" if line.endswith(" ") else ""})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
$(complete -p spark-build | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    env = world.env()
    env["PATH"] = f"{COMMAND.parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, cwd=world.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {line.strip() for line in done.stdout.splitlines()}


def test_bash_completes_commands_options_and_recipes(world: World) -> None:
    world.tiny_recipe("mine")
    assert set(COMMANDS) <= complete(world, "spark-build ")
    assert complete(world, "spark-build rec") == {"recipe", "recipes"}
    assert "--ref" in complete(world, "spark-build recipe --r")
    assert {"flashinfer", "triton", "vllm", "mine"} <= complete(world, "spark-build recipe ")
    assert complete(world, "spark-build recipe tr") == {"triton"}
    assert complete(world, "spark-build recipes show m") == {"mine"}
    assert {"list", "show", "lint", "new", "schema"} <= complete(world, "spark-build recipes ")
    assert {"auto", "none"} <= complete(world, "spark-build recipe --isolation ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_completion_of_every_shell_asks_for_names_when_they_are_needed(world: World, shell: str) -> None:
    text = world.run("completion", shell).stdout
    assert "spark-build recipes list --names" in text
    assert "flashinfer" not in text.replace("spark-build recipe flashinfer", "")
    assert world.json("completion", shell)["shell"] == shell
