from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, elf
from builder.errors import CheckRefused
from builder.wheel import read
from tests import wheel_kit
from tests.elf_kit import library
from tests.wheel_kit import hashed, raw, write

if TYPE_CHECKING:
    from builder.audit.facts import Contents

NAME = "tiny-1.0-py3-none-any.whl"
INFO = "tiny-1.0.dist-info"
FILES = {"tiny/__init__.py": b"VALUE = 1\n", "tiny/data.txt": b"text\n" * 1000}


def made(folder: Path, files: dict[str, bytes] | None = None, change: dict[str, bytes] | None = None) -> Path:
    """A wheel with `files`; what `change` names is other than RECORD says."""
    members = wheel_kit.contents("tiny", "1.0", FILES if files is None else files)
    return write(folder / NAME, members | (change or {}))


def slugs(found: Contents) -> set[str]:
    return {slug for slug, _file, _found in found.problems}


def test_a_good_wheel_is_read_as_it_is(tmp_path: Path) -> None:
    path = raw(
        tmp_path,
        "Tiny_Name",
        "1.0+cu130",
        {**FILES, "tiny/tool": b"#!/bin/sh\n"},
        ["Requires-Python: >=3.9"],
        modes={"tiny/tool": 0o755},
    )
    found = contents.read(path)
    assert (found.where, found.filename, found.project, found.version) == (path, path.name, "tiny-name", "1.0+cu130")
    assert (found.problems, found.tags, found.purelib, found.inputs) == ((), ("py3-none-any",), True, None)
    assert (found.size, found.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert b"Requires-Python: >=3.9" in found.metadata
    with zipfile.ZipFile(path) as archive:
        assert [one.path for one in found.files] == sorted(archive.namelist())
        for one in found.files:
            data, packed = archive.read(one.path), archive.getinfo(one.path).compress_size
            assert (one.size, one.packed, one.sha256) == (len(data), packed, hashlib.sha256(data).hexdigest())
            assert one.executable == (one.path == "tiny/tool")
            assert (one.elf, one.device, one.program, one.damage) == (None, None, None, "")


def test_libraries_are_looked_into(tmp_path: Path) -> None:
    small, large = library("x86_64"), library("aarch64") + random.Random(1).randbytes(5 << 20)  # noqa: S311
    cut = small[: len(small) // 2]
    files = {
        "a/small.so": small,
        "a/large.so": large,
        "a/cut.so": cut,
        "a/no.so": b"text",
        "a/x.ptx": b".version 9.0\n",
    }
    found = {one.path: one for one in contents.read(made(tmp_path, files)).files}
    assert found["a/small.so"].elf == elf.read(io.BytesIO(small))
    assert found["a/large.so"].elf == elf.read(io.BytesIO(large))
    assert found["a/small.so"].device is not None
    assert not found["a/small.so"].device.units
    assert (found["a/cut.so"].elf, bool(found["a/cut.so"].damage)) == (None, True)
    assert found["a/cut.so"].device is not None
    assert found["a/cut.so"].device.unknown
    assert found["a/no.so"].device is None
    assert found["a/x.ptx"].device is not None


def test_one_file_is_examined_as_in_a_wheel(tmp_path: Path) -> None:
    data = library()
    found = contents.examine(io.BytesIO(data), path="a/small.so", size=len(data), executable=True)
    (other,) = (one for one in contents.read(made(tmp_path, {"a/small.so": data})).files if one.elf)
    assert (found.elf, found.device, found.size, found.executable) == (other.elf, other.device, other.size, True)
    assert contents.examine(io.BytesIO(b""), path="a/empty.so", size=0).elf is None


@pytest.mark.parametrize(
    "start",
    [b"!<thin>\n", b"!<arch>\n", b"\xed\x43\x4e\x7f", b"\x7fTileIR\0", b"\x01\x5a\xe5\x1e", b"\x50\xed\x55\xba"],
)
def test_device_code_that_cannot_be_read_is_unknown_and_not_passed_over(tmp_path: Path, start: bytes) -> None:
    (found,) = (
        one for one in contents.read(made(tmp_path, {"a/kernels": start + b"x" * 100})).files if one.path[0] == "a"
    )
    assert found.device is not None
    assert found.device.unknown


def test_device_code_has_digests_where_they_are_asked_for(tmp_path: Path) -> None:
    data = (Path(__file__).with_name("fixtures") / "fatbin" / "mixed-13.0.fatbin").read_bytes()
    path = made(tmp_path, {"a/kernels.fatbin": data})
    for digests, wanted in ((False, ""), (True, hashlib.sha256(data).hexdigest())):
        found = [one.device for one in contents.read(path, digests=digests).files if one.device]
        alone = contents.examine(io.BytesIO(data), path="a/kernels.fatbin", size=len(data), digests=digests)
        assert found == [alone.device]
        assert [unit.sha256 for code in found for unit in code.units] == [wanted]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_threads_find_the_same(tmp_path: Path, workers: int) -> None:
    dice = random.Random(3)  # noqa: S311  # the same each time
    files = {f"a/{number}.bin": dice.randbytes(dice.choice((10, 10_000, 100_000))) for number in range(40)}
    files["a/lib.so"] = library() + dice.randbytes(9 << 20)
    path = made(tmp_path, files, {"a/1.bin": b"other", "a/2.bin": b"other"})
    found = contents.read(path, workers=workers)
    assert [(slug, file) for slug, file, _text in found.problems] == [
        ("record-lies", "a/1.bin"),
        ("record-lies", "a/2.bin"),
    ]
    assert found == contents.read(path, workers=1)


def test_progress_goes_up_to_all_bytes(tmp_path: Path) -> None:
    path = made(tmp_path, {"a/data": random.Random(1).randbytes(9 << 20)})  # noqa: S311  # the same each time
    for workers in (1, 2):
        seen: list[tuple[int, int]] = []
        contents.read(path, workers=workers, on_read=lambda *pair: seen.append(pair))  # noqa: B023  # called in here only
        assert seen == sorted(seen)
        assert len({total for _done, total in seen}) == 1
        assert seen[-1][0] == seen[-1][1] > path.stat().st_size + (9 << 20)


@pytest.mark.parametrize("workers", [1, 4])
def test_whoever_has_enough_ends_it(tmp_path: Path, workers: int) -> None:
    path = made(tmp_path, {f"a/{number}": random.Random(number).randbytes(3 << 20) for number in range(5)})  # noqa: S311

    def enough(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contents.read(path, workers=workers, on_read=enough)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, NotImplementedError, UnicodeError, OverflowError, OSError])
def test_what_goes_wrong_here_is_no_damage_of_the_wheel(tmp_path: Path, error: type[Exception]) -> None:
    def wrong(_done: int, _total: int) -> None:
        raise error("a mistake of ours")

    with pytest.raises(error, match="a mistake of ours"):
        contents.read(made(tmp_path), on_read=wrong)


def _flagged(path: Path, name: bytes, flag: int) -> Path:
    """The wheel with `flag` set for a member, in its own header and in the directory."""
    data = bytearray(path.read_bytes())
    for magic, at, length in ((b"PK\x01\x02", 8, 46), (b"PK\x03\x04", 6, 30)):
        start = data.find(magic)
        while data[start + length : start + length + len(name)] != name:
            start = data.find(magic, start + 1)
        data[start + at] |= flag
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("flag", [0x20, 0x40])  # a patch, strong encryption: RuntimeErrors of the standard library
@pytest.mark.parametrize("name", ["tiny/__init__.py", f"{INFO}/METADATA", f"{INFO}/RECORD"])
def test_a_member_that_cannot_be_opened_is_damage(tmp_path: Path, name: str, flag: int) -> None:
    path = _flagged(made(tmp_path), name.encode(), flag)
    assert ("wheel-damaged", name) in {one[:2] for one in contents.read(path).problems}
    with pytest.raises(CheckRefused, match="no whole wheel"):
        read.check(path)


def test_every_file_that_record_lies_about_is_named(tmp_path: Path) -> None:
    change = {"tiny/__init__.py": b"VALUE = 2\n", "tiny/data.txt": b"", "tiny/extra.py": b""}
    found = contents.read(made(tmp_path, change=change))
    assert {(slug, file) for slug, file, _text in found.problems} == {("record-lies", name) for name in change}
    assert len(found.files) == 6
    text = next(text for _slug, file, text in found.problems if file == "tiny/__init__.py")
    assert hashed(b"VALUE = 2\n") in text
    assert hashed(b"VALUE = 1\n") in text


def test_stronger_hashes_are_checked_by_their_own_algorithm(tmp_path: Path) -> None:
    import base64  # noqa: PLC0415

    members = wheel_kit.contents("tiny", "1.0", FILES)
    data = FILES["tiny/__init__.py"]
    strong = "sha512=" + base64.urlsafe_b64encode(hashlib.sha512(data).digest()).rstrip(b"=").decode()
    members[f"{INFO}/RECORD"] = members[f"{INFO}/RECORD"].replace(hashed(data).encode(), strong.encode())
    assert contents.read(write(tmp_path / "a" / NAME, members)).problems == ()
    members["tiny/__init__.py"] = b"VALUE = 2\n"
    assert slugs(contents.read(write(tmp_path / "b" / NAME, members))) == {"record-lies"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_an_unsafe_wheel_nothing_is_unpacked(tmp_path: Path) -> None:
    bomb = made(tmp_path / "bomb", {**FILES, "tiny/zeros": bytes(20 << 20)})
    leaves = made(tmp_path / "leaves", {**FILES, "../one.py": b"", "/etc/two": b""})
    twice = made(tmp_path / "twice")
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("tiny/__init__.py", b"VALUE = 1\n")
    for path, names in ((bomb, {"tiny/zeros"}), (leaves, {"../one.py", "/etc/two"}), (twice, {"tiny/__init__.py"})):
        found = contents.read(path)
        assert (slugs(found), found.files) == ({"wheel-unsafe"}, ())
        assert (found.project, found.version) == ("tiny", "1.0")
        assert {file for _slug, file, _text in found.problems} == names


def _without_entry(data: bytes, name: bytes) -> bytes:
    """The zip with a member that its directory doesn't list any more."""
    begin = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
    end = data.rindex(name) + len(name)
    changed = bytearray(data[:begin] + data[end:])
    at = changed.rindex(b"PK\x05\x06")
    here, all_, size = struct.unpack_from("<HHI", changed, at + 8)
    struct.pack_into("<HHI", changed, at + 8, here - 1, all_ - 1, size - (end - begin))
    return bytes(changed)


def test_files_that_the_directory_does_not_name_are_told(tmp_path: Path) -> None:
    whole = made(tmp_path, {**FILES, "tiny/evil.py": b"import os\n"}, {f"{INFO}/RECORD": made_record()})
    for data in (
        _without_entry(whole.read_bytes(), b"tiny/evil.py"),
        b"#!/bin/sh\n" + made(tmp_path / "a").read_bytes(),
    ):
        whole.write_bytes(data)
        found = contents.read(whole)
        assert [slug for slug, _file, _found in found.problems] == ["wheel-hidden"]
        assert "tiny/evil.py" not in {one.path for one in found.files}


def made_record() -> bytes:
    return wheel_kit.contents("tiny", "1.0", FILES)[f"{INFO}/RECORD"]


def test_a_wheel_written_to_a_pipe_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(wheel_kit.piped(wheel_kit.contents("tiny", "1.0", FILES)))
    with zipfile.ZipFile(path) as archive:
        assert all(one.flag_bits & 8 for one in archive.infolist())
    assert contents.read(path).problems == ()


def test_a_directory_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """A zip of 20 MB may list half a million members; each takes a kilobyte once it is read."""
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(260):
            archive.writestr(f"{number:03}" + "n" * 65_000, b"")
    found = contents.read(path)
    assert (slugs(found), found.files) == ({"wheel-unsafe"}, ())
    with pytest.raises(CheckRefused, match="directory"):
        read.check(path)


def test_what_is_no_wheel_is_a_problem_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "tiny.whl"
    for data in (b"", b"no zip", made(tmp_path / "whole").read_bytes()[:-30]):
        path.write_bytes(data)
        assert slugs(contents.read(path)) == {"wheel-damaged"}
    found = contents.read(made(tmp_path / "good").rename(path))
    assert (slugs(found), found.project, found.version, len(found.files)) == ({"wheel-name"}, "tiny", "1.0", 5)
    with pytest.raises(FileNotFoundError):
        contents.read(tmp_path / "gone.whl")


def test_one_damaged_member_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:  # stored, so that the bytes can be found
        for name, data in wheel_kit.contents("tiny", "1.0", FILES).items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(b"VALUE = 1", b"VALUE = 2", 1))
    found = contents.read(path)
    assert [(slug, file) for slug, file, _text in found.problems] == [("wheel-damaged", "tiny/__init__.py")]
    assert len(found.files) == 4


def test_a_wheel_without_its_own_texts_is_still_read(tmp_path: Path) -> None:
    for missing in ("METADATA", "WHEEL", "RECORD"):
        members = wheel_kit.contents("tiny", "1.0", FILES)
        del members[f"{INFO}/{missing}"]
        found = contents.read(write(tmp_path / missing / NAME, members))
        assert "wheel-damaged" in slugs(found)
        assert (found.project, found.version, len(found.files)) == ("tiny", "1.0", 4)
    found = contents.read(write(tmp_path / "none" / NAME, FILES))
    assert (slugs(found), len(found.files)) == ({"wheel-name"}, 2)


@pytest.mark.parametrize(
    "text", [b"not csv \xff", b'"open', b"a,b\n", b",,,,\n", b"tiny/__init__.py,sha256=x," + b"9" * 5000]
)
def test_a_record_that_is_none_is_a_problem(tmp_path: Path, text: bytes) -> None:
    found = contents.read(made(tmp_path, change={f"{INFO}/RECORD": text}))
    assert slugs(found) & {"record-lies", "wheel-damaged"}
    assert len(found.files) == 5


def test_inputs_are_read_when_they_are_a_document(tmp_path: Path) -> None:
    name, good = f"{INFO}/spark-build/inputs.json", {"version": 1, "recipe": {"name": "tiny"}}
    for number, (data, wanted) in enumerate(
        ((json.dumps(good).encode(), good), (b"[1]", None), (b"{", None), (b"[" * 100_000, None), (b"\xff", None))
    ):
        found = contents.read(made(tmp_path / str(number), {**FILES, name: data}))
        assert (found.inputs, found.problems) == (wanted, ())


def test_any_changed_byte_is_judged_as_by_the_check_of_wheels(tmp_path: Path) -> None:
    """What `wheel.read.check` refuses has the same problem here, and what it lets pass has none."""
    whole = made(tmp_path / "whole").read_bytes()
    path, dice, refused = tmp_path / NAME, random.Random(11), 0  # noqa: S311  # the same each time
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 4))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), len(data), dice.randrange(len(data))))])
        found = contents.read(path)
        try:
            read.check(path)
        except CheckRefused as error:
            assert error.code in slugs(found)  # noqa: PT017  # either way is right
            refused += 1
        else:
            assert slugs(found) <= {"wheel-hidden"}  # no harm to those who go by the directory
    assert refused > 130


LARGE = """
import resource, sys
from pathlib import Path
from builder.audit import contents
contents.read(Path(sys.argv[1]), workers=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = contents.read(Path(sys.argv[2]), workers=4)
assert len([one for one in found.files if one.elf]) == 1, found
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_library_takes_little_memory(tmp_path: Path) -> None:
    small = made(tmp_path / "small", {"a/lib.so": library()})
    large = tmp_path / NAME
    with zipfile.ZipFile(large, "w") as archive, archive.open("a/lib.so", "w", force_zip64=True) as stream:
        stream.write(library())
        for _ in range(160):
            stream.write(os.urandom(1 << 20))
    text = subprocess.run(
        [sys.executable, "-c", LARGE, small, large], check=True, capture_output=True, text=True, timeout=100
    ).stdout
    assert int(text) < 40 << 10  # kilobytes


FULL = """
import resource, sys
from pathlib import Path
from builder.audit import contents
from builder.errors import HostError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    contents.read(Path(sys.argv[1]), workers=int(sys.argv[2]))
except HostError as error:
    print(error.code, error.help)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_room_for_temporary_files_is_told(tmp_path: Path, workers: str) -> None:
    path = made(tmp_path, {"a/lib.so": library() + random.Random(1).randbytes(9 << 20)})  # noqa: S311
    text = subprocess.run(
        [sys.executable, "-c", FULL, path, workers], check=True, capture_output=True, text=True, timeout=100
    ).stdout
    assert text.startswith("disk-full TMPDIR")


def test_no_file_is_left_open_or_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile  # noqa: PLC0415

    path = made(tmp_path, {"a/lib.so": library() + random.Random(1).randbytes(9 << 20)})  # noqa: S311
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    contents.read(path, workers=4)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list((tmp_path / "temporary").iterdir()) == []
