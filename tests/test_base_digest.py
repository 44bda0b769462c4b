from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.digest import (
    canonical_json,
    files_digest,
    sha256_bytes,
    sha256_file,
    sha256_json,
    tree_entries,
)

if TYPE_CHECKING:
    from pathlib import Path

SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


def reordered(value: object) -> object:
    """Return an equal value, made in another order and of other containers."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return tuple(reordered(item) for item in value)
    return value


@given(VALUES)
def test_equal_values_have_equal_bytes_and_survive(value: object) -> None:
    data = canonical_json(value)
    assert canonical_json(reordered(value)) == data
    assert canonical_json(json.loads(data)) == data


@given(VALUES, VALUES)
def test_different_values_have_different_bytes(one: object, other: object) -> None:
    same = canonical_json(one) == canonical_json(other)
    assert same == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_the_form_is_fixed() -> None:
    value = {"b": [1, True, None, 'ä\n"'], "a": {}, "Z": -0}
    assert canonical_json(value) == '{"Z":0,"a":{},"b":[1,true,null,"ä\\n\\""]}'.encode()
    assert sha256_json(value) == hashlib.sha256(canonical_json(value)).hexdigest()


@pytest.mark.parametrize("value", [1.0, float("nan"), {"a": [1, 2.5]}, {1: "a"}, {None: 1}, {"a": {1}}, b"x", object()])
def test_what_has_more_than_one_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="not canonical"):
        canonical_json(value)


def test_the_refusal_says_where() -> None:
    with pytest.raises(TypeError, match=r"0\.5 at \$\.env\[1\]"):
        canonical_json({"env": ["a", 0.5]})


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_json(os.fsdecode(b"\xff"))


@given(st.binary(max_size=5000))
def test_bytes_have_the_digest_that_everybody_computes(data: bytes) -> None:
    assert sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_file_larger_than_a_chunk(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def tree(root: Path) -> Path:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "sub" / "b.sh").write_text("b")
    (root / "sub" / "deep" / "c").write_text("c")
    (root / "link").symlink_to("a.txt")
    return root


def tree_digest(root: Path) -> str:
    return files_digest(root, [name for name, _status in tree_entries(root)])


#: Commands of a shell in the tree's folder.
CHANGES = {
    "content": "printf b > a.txt",
    "empty": ": > a.txt",
    "new file": ": > sub/new",
    "removed": "rm sub/b.sh",
    "renamed": "mv a.txt b.txt",
    "moved": "mv sub/b.sh .",
    "executable": "chmod 755 sub/b.sh",
    "link": "ln -sfn sub link",
    "link becomes a file": "rm link; printf a.txt > link",
}

SAME = {
    "times": "touch -d 1990-01-01 a.txt",
    "other bits": "chmod 600 a.txt",
    "empty folder": "mkdir empty",
}


def change(root: Path, script: str) -> None:
    subprocess.run(["sh", "-ec", script], cwd=root, check=True)


@pytest.mark.parametrize("name", CHANGES)
def test_a_tree_is_another_after(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = tree_digest(root)
    change(root, CHANGES[name])
    assert tree_digest(root) != before


@pytest.mark.parametrize("name", SAME)
def test_a_tree_is_the_same_after(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = tree_digest(root)
    change(root, SAME[name])
    assert tree_digest(root) == before


def test_a_tree_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    assert tree_digest(tree(tmp_path / "one")) == tree_digest(tree(tmp_path / "two" / "deep"))


def test_names_cannot_forge_another_tree(tmp_path: Path) -> None:
    """A link's text and a file's name may hold line ends."""
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
    (one / "a").symlink_to("x\nf b")
    (one / "c").write_text("same")
    (two / "a").symlink_to("x")
    (two / "b\nf c").write_text("same")
    assert tree_digest(one) != tree_digest(two)


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("x")
    before = tree_digest(tmp_path)
    (tmp_path / os.fsdecode(b"caf\xe9")).rename(tmp_path / os.fsdecode(b"caf\xe8"))
    assert tree_digest(tmp_path) != before


def test_a_pipe_in_a_tree_is_not_read(tmp_path: Path) -> None:
    empty = tree_digest(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert tree_digest(tmp_path) != empty


def test_the_files_of_a_tree_by_name_are_the_tree(tmp_path: Path) -> None:
    root = tree(tmp_path)
    names = [name for name, _status in tree_entries(root)]
    assert files_digest(root, reversed(names)) == tree_digest(root)
    assert files_digest(root, names[1:]) != tree_digest(root)


def test_entries_are_sorted_and_skip_folders_at_every_depth(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert [name for name, _status in tree_entries(root)] == ["a.txt", "link", "sub/b.sh", "sub/deep/c"]
    assert [name for name, _status in tree_entries(root, skip=["deep"])] == ["a.txt", "link", "sub/b.sh"]
