from __future__ import annotations

import json

import pytest

from builder import errors
from builder.errors import Interrupted, SparkError

#: The design's table of exit codes.
CODES = {
    "BuildFailed": 1,
    "UsageError": 2,
    "RecipeError": 2,
    "PatchDrift": 2,
    "HostError": 3,
    "SourceError": 4,
    "CheckRefused": 5,
    "WheelhouseError": 6,
    "MemoryStopped": 7,
    "SparkError": 70,
    "Interrupted": 130,
}


def every(cls: type[SparkError] = SparkError) -> set[type[SparkError]]:
    return {cls}.union(*(every(child) for child in cls.__subclasses__() if child.__module__ == "builder.errors"))


def test_every_error_has_the_exit_code_of_the_table() -> None:
    assert {cls.__name__: cls.exit_code for cls in every()} == CODES
    assert errors.FOUND_WORK == 10


@pytest.mark.parametrize("cls", sorted(every() - {Interrupted}, key=repr))
def test_an_error_as_json(cls: type[SparkError]) -> None:
    error = cls("ref-missing", "no ref mian", cause="near: main", help="name another one", run=("git ls-remote",))
    assert str(error) == "no ref mian"
    assert json.loads(json.dumps(error.as_json())) == {
        "code": "ref-missing",
        "exit": CODES[cls.__name__],
        "summary": "no ref mian",
        "cause": "near: main",
        "help": "name another one",
        "run": ["git ls-remote"],
    }


@pytest.mark.parametrize(("signum", "code", "word"), [(2, 130, "Ctrl-C"), (15, 143, "SIGTERM"), (10, 138, "signal 10")])
def test_an_interrupted_run_ends_as_shells_tell_signals(signum: int, code: int, word: str) -> None:
    error = Interrupted(signum, run=("spark-build resume",))
    assert (error.exit_code, error.as_json()["exit"], error.code) == (code, code, "interrupted")
    assert word in error.summary
    assert Interrupted(2).exit_code == 130


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    text = errors.__doc__ or ""
    for cls in every():
        (line,) = [line for line in text.splitlines() if cls.__name__ in line.split()]
        assert str(CODES[cls.__name__]) in line.replace("/", " ").split()
