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


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("at https://bob:TOK@host/x?y=1 and so", "at https://host/x?y=1 and so"),
        ("--repo=https://bob:T@K@host/x", "--repo=https://host/x"),
        ("'https://TOK@host/x'", "'https://host/x'"),
        ("https://host/x?token=TOK&v=2", "https://host/x?token=***&v=2"),
        ("https://host/x?v=2&access_token=TOK'", "https://host/x?v=2&access_token=***'"),
        ("https://host/x?a=1&key=TOK#part", "https://host/x?a=1&key=***#part"),
        ("https://host/x?X-Amz-Signature=TOK", "https://host/x?X-Amz-Signature=***"),
        ("ssh://git:TOK@host/x", "ssh://git@host/x"),
        ("ssh://git@host/x git@host:x", "ssh://git@host/x git@host:x"),
        ("file:///a@b/c?d=e", "file:///a@b/c?d=e"),
        ("nobody@example.invalid ?token=here", "nobody@example.invalid ?token=here"),
    ],
)
def test_no_text_of_an_error_holds_the_secrets_of_a_url(given: str, shown: str) -> None:
    error = SparkError("x", given, cause=given, help=given, run=(given, given))
    assert (str(error), error.summary, error.cause, error.help, error.run) == (shown,) * 4 + ((shown, shown),)
