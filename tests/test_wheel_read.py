from __future__ import annotations

import random
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.audit.contents import read as audited
from builder.errors import CheckRefused
from builder.wheel import read
from tests.wheel_kit import WHEEL, contents, hashed, raw, record, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "tiny-1.0-py3-none-any.whl"
INFO = "tiny-1.0.dist-info"
FILES = {"tiny/__init__.py": b"VALUE = 1\n"}


def refused(path: Path) -> str:
    """The code of the error; the audit, which collects what is wrong, finds the same."""
    with pytest.raises(CheckRefused) as caught:
        read.check(path)
    assert caught.value.code in {slug for slug, _file, _found in audited(path).problems}
    assert caught.value.exit_code == 5
    assert path.name in caught.value.summary
    return caught.value.code


def test_good_wheel_passes_and_tells_what_it_is(tmp_path: Path) -> None:
    files = {'data/a,"b".txt': b"x", "data/ümläut.txt": b"y", "empty.py": b""}
    path = raw(tmp_path, "Tiny_Name", "1.0+cu130", files, ["Requires-Python: >=3.9"])
    read.check(path)
    wheel = read.inspect(path)
    assert (wheel.project, wheel.version, wheel.requires_python) == ("tiny-name", "1.0+cu130", ">=3.9")


def test_names_may_differ_in_spelling_only(tmp_path: Path) -> None:
    members = contents(
        "Tiny.Name", "1.0.0", FILES, metadata=b"Metadata-Version: 2.1\r\nName: tiny-NAME\r\nVersion: 1.0\r\n"
    )
    read.check(write(tmp_path / "tiny_name-1.0-1build-py2.py3-none-any.whl", members))


def _lie(members: dict[str, bytes]) -> None:
    members["tiny/__init__.py"] = b"VALUE = 2\n"


def _unlisted(members: dict[str, bytes]) -> None:
    members["tiny/extra.py"] = b""


def _gone(members: dict[str, bytes]) -> None:
    del members["tiny/__init__.py"]


def _no_hash(members: dict[str, bytes]) -> None:
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].replace(hashed(FILES["tiny/__init__.py"]).encode(), b"")


def _wrong_size(members: dict[str, bytes]) -> None:
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].replace(b",10\n", b",11\n")


def _no_number(members: dict[str, bytes]) -> None:
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].replace(b",10\n", ",²\n".encode())


def _weak_hash(members: dict[str, bytes]) -> None:
    line = members[f"{INFO}/RECORD"].split(b"\n")[0]
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].replace(line, b"tiny/__init__.py,md5=abc,10")


def _named_twice(members: dict[str, bytes]) -> None:
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].split(b"\n")[0] + b"\n" + members[f"{INFO}/RECORD"]


@pytest.mark.parametrize(
    "change", [_lie, _unlisted, _gone, _no_hash, _wrong_size, _no_number, _weak_hash, _named_twice]
)
def test_record_that_lies_is_refused(tmp_path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    members = contents("tiny", "1.0", FILES)
    change(members)
    assert refused(write(tmp_path / NAME, members)) == "record-lies"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "tiny/../../evil.py",
        "/etc/evil",
        "C:/evil",
        "tiny\\evil.py",
        "tiny//evil.py",
        "./evil",
        "a\nb",
        "a\x1bb",
    ],
)
def test_name_that_leaves_the_folder_or_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(write(tmp_path / NAME, contents("tiny", "1.0", {**FILES, name: b"x"}))) == "wheel-unsafe"


def test_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", {**FILES, "tiny/evil.pyQ.txt": b"x"}))
    path.write_bytes(path.read_bytes().replace(b"evil.pyQ.txt", b"evil.py\0.txt"))
    assert refused(path) == "wheel-unsafe"


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    members = contents("tiny", "1.0", {**FILES, "tiny/link": b"/etc/passwd"})
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "tiny/link" else 0o100644) << 16
            archive.writestr(info, data)
    assert refused(path) == "wheel-unsafe"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", FILES))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tiny/__init__.py", b"VALUE = 1\n")
    assert refused(path) == "wheel-unsafe"


def test_name_as_file_and_as_folder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", {"tiny": b"", "tiny/__init__.py": b""}))
    assert refused(path) == "wheel-unsafe"


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", FILES))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert refused(path) == "wheel-unsafe"


def test_compression_that_installers_lack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in contents("tiny", "1.0", FILES).items():
            archive.writestr(name, data)
    assert refused(path) == "wheel-unsafe"


def test_bomb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", {**FILES, "tiny/zeros": bytes(20 << 20)}))
    assert path.stat().st_size < 1 << 20
    assert refused(path) == "wheel-unsafe"


def test_metadata_bomb_is_refused_without_reading_it(tmp_path: Path) -> None:
    members = contents("tiny", "1.0", FILES, metadata=b"Name: tiny\nVersion: 1.0\n\n" + bytes(65 << 20))
    path = write(tmp_path / NAME, members)
    with pytest.raises(CheckRefused) as caught:
        read.inspect(path)
    assert caught.value.code == "wheel-unsafe"


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Two entries of the directory that point at one large member: the trick of the bombs that beat ratio limits."""
    data = random.Random(1).randbytes(100_000)  # noqa: S311  # the same each time
    path = write(tmp_path / NAME, contents("tiny", "1.0", {"a/one": data, "a/two": b""}))
    text = bytearray(path.read_bytes())
    first = text.index(b"PK\x01\x02")
    second = text.index(b"PK\x01\x02", first + 4)
    text[second + 16 : second + 28] = text[first + 16 : first + 28]  # crc and sizes
    text[second + 42 : second + 46] = text[first + 42 : first + 46]  # where it lies
    path.write_bytes(text)
    assert refused(path) == "wheel-unsafe"


def test_wrong_crc_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:  # stored, so that the bytes can be found
        for name, data in contents("tiny", "1.0", FILES).items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(b"VALUE = 1", b"VALUE = 2", 1))
    assert refused(path) == "wheel-damaged"


def test_truncated_or_no_zip_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole" / NAME, contents("tiny", "1.0", FILES)).read_bytes()
    path = tmp_path / NAME
    for data in (b"", b"no zip", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(data)
        assert refused(path) == "wheel-damaged"


def test_any_changed_byte_ends_in_a_refusal_or_in_the_same_content(tmp_path: Path) -> None:
    """Damage anywhere never ends in another exception."""
    whole = write(tmp_path / "whole" / NAME, contents("tiny", "1.0", FILES)).read_bytes()
    path, dice, accepted = tmp_path / NAME, random.Random(7), 0  # noqa: S311  # the same each time
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 4))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), len(data), dice.randrange(len(data))))])
        try:
            read.check(path)
        except CheckRefused:
            continue
        accepted += 1  # a time stamp, a permission
        with zipfile.ZipFile(path) as archive:
            assert archive.read("tiny/__init__.py") == FILES["tiny/__init__.py"]
    assert accepted < 1000


def test_two_or_no_dist_info_folders_are_refused(tmp_path: Path) -> None:
    two = contents("tiny", "1.0", {**FILES, "tiny-2.0.dist-info/METADATA": b""})
    assert refused(write(tmp_path / "two" / NAME, two)) == "wheel-name"
    assert refused(write(tmp_path / "none" / NAME, FILES)) == "wheel-name"


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_dist_info_without_what_it_needs_is_refused(tmp_path: Path, missing: str) -> None:
    members = contents("tiny", "1.0", FILES)
    del members[f"{INFO}/{missing}"]
    assert refused(write(tmp_path / NAME, members)) == "wheel-damaged"


@pytest.mark.parametrize("version", [b"", b"Wheel-Version: 2.0\n"])
def test_unknown_wheel_version_is_refused(tmp_path: Path, version: bytes) -> None:
    members = contents("tiny", "1.0", FILES)
    members[f"{INFO}/WHEEL"] = WHEEL.replace(b"Wheel-Version: 1.0\n", version)
    members.pop(f"{INFO}/RECORD")
    members[f"{INFO}/RECORD"] = record(members, INFO)
    assert refused(write(tmp_path / NAME, members)) == "wheel-damaged"


@pytest.mark.parametrize(
    ("filename", "metadata"),
    [
        ("other-1.0-py3-none-any.whl", None),
        ("tiny-2.0-py3-none-any.whl", None),
        (NAME, b"Name: other\nVersion: 1.0\n"),
        (NAME, b"Name: tiny\nVersion: 1.1\n"),
        (NAME, b"Name: tiny\nVersion: 1.0+local\n"),
        (NAME, b"Name: tiny\n\nVersion: 1.0\n"),
        (NAME, b"Version: 1.0\n"),
    ],
)
def test_names_that_disagree_are_refused(tmp_path: Path, filename: str, metadata: bytes | None) -> None:
    path = write(tmp_path / filename, contents("tiny", "1.0", FILES, metadata=metadata))
    assert refused(path) == "wheel-name"


@pytest.mark.parametrize("filename", ["tiny.whl", "tiny-1.0-x-py3-none-any.whl", "tiny 1-1.0-py3-none-any.whl"])
def test_file_name_that_is_no_wheels_is_refused(tmp_path: Path, filename: str) -> None:
    assert refused(write(tmp_path / filename, contents("tiny", "1.0", FILES))) == "wheel-name"


def test_name_that_would_leave_the_wheelhouse_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", FILES, metadata=b"Name: ../../x\nVersion: 1.0\n"))
    with pytest.raises(CheckRefused) as caught:
        read.inspect(path)
    assert caught.value.code == "wheel-name"


def test_headers_are_unfolded_and_end_at_the_first_empty_line() -> None:
    text = b"Name: tiny\r\nSummary: a\r\n b\r\n        \r\n\tc\r\nVersion: 1.0\r\n\r\nLicense: body\r\n"
    assert read.header(text, "summary") == "a b  c"
    assert read.header(text, "Version") == "1.0"
    assert read.header(text, "License") is None
    assert read.header("Summary: one\u2028Version: 9\nVersion: 1\n".encode(), "Version") == "1"


def test_a_name_may_hold_a_build_and_compressed_tags() -> None:
    name = read.parse_name("tiny-1.0-2a-cp311.cp312-abi3-manylinux_2_39_aarch64.linux_aarch64.whl")
    assert (name.build, name.python, name.abi) == ("2a", "cp311.cp312", "abi3")
    assert name.platform == "manylinux_2_39_aarch64.linux_aarch64"


def test_size_claimed_by_the_directory_does_not_count(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, contents("tiny", "1.0", FILES))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 5)
    path.write_bytes(data)
    assert refused(path) in {"wheel-damaged", "record-lies"}
