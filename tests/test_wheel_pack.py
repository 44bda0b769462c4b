from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from builder.errors import BuildFailed, CheckRefused, HostError
from builder.stages import Built
from builder.wheel import pack, read
from tests.wheel_kit import LABEL, contents, finish, members, raw, write

NEW = f"tiny-1.0+{LABEL}"
INFO = f"{NEW}.dist-info"
BUILD_META = b'"""Build metadata."""\n\n__version__ = "0.7.2.post1"\n__git_version__ = "unknown"\n'


def metadata(path: Path) -> bytes:
    return next(data for name, data in members(path).items() if name.endswith(".dist-info/METADATA"))


def relabelled(tmp_path: Path, text: bytes, siblings: dict[str, str] | None = None) -> bytes:
    return metadata(finish(raw(tmp_path, metadata=text), dest=tmp_path / "out", siblings=siblings).path)


def test_label_is_in_file_name_folder_metadata_and_record(tmp_path: Path) -> None:
    wheel = finish(raw(tmp_path, headers=["Requires-Python: >=3.9"]), dest=tmp_path / "out")
    assert wheel.filename == f"{NEW}-py3-none-any.whl"
    assert (wheel.project, wheel.version, wheel.requires_python) == ("tiny", f"1.0+{LABEL}", ">=3.9")
    assert sorted(members(wheel.path)) == sorted(
        ["tiny/__init__.py", f"{INFO}/METADATA", f"{INFO}/WHEEL", f"{INFO}/RECORD"]
    )
    assert f"\nVersion: 1.0+{LABEL}\n".encode() in wheel.metadata
    assert wheel.sha256 == hashlib.sha256(wheel.path.read_bytes()).hexdigest()
    read.check(wheel.path)


def test_label_that_came_by_environment_changes_nothing(tmp_path: Path) -> None:
    version = f"1.0+{LABEL}.cu130"
    wheel = finish(raw(tmp_path, version=version), dest=tmp_path / "out")
    assert wheel.version == version
    assert wheel.filename == f"tiny-{version}-py3-none-any.whl"
    read.check(wheel.path)


def test_data_folder_and_build_tag_and_executables(tmp_path: Path) -> None:
    files = {
        "tiny/tool.sh": b"#!/bin/sh\n",
        "tiny-1.0.data/scripts/run": b"#!python\n",
        "tiny-1.0.data/headers/a.h": b"",
    }
    path = raw(tmp_path, files=files, tags="3x-cp311-abi3-linux_x86_64", modes={"tiny/tool.sh": 0o744})
    wheel = finish(path, dest=tmp_path / "out")
    assert wheel.filename == f"{NEW}-3x-cp311-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(wheel.path) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert modes["tiny/tool.sh"] == 0o100755
    assert modes[f"{NEW}.data/scripts/run"] == 0o100644
    assert set(modes.values()) == {0o100755, 0o100644}
    read.check(wheel.path)


def test_names_that_record_has_to_quote(tmp_path: Path) -> None:
    files = {'tiny/a,"b" c.txt': b"1", "tiny/ümläut-😀.txt": b"2"}
    wheel = finish(raw(tmp_path, files=files), dest=tmp_path / "out")
    read.check(wheel.path)
    rows = list(csv.reader(io.StringIO(members(wheel.path)[f"{INFO}/RECORD"].decode())))
    assert [row[0] for row in rows][:2] == sorted(files)
    assert all(len(row) == 3 for row in rows)


def test_zip_has_sorted_names_and_dist_info_with_record_last(tmp_path: Path) -> None:
    files = {"zz/last.py": b"", "tiny/b.py": b"", "tiny/a.py": b"", "tiny-1.0.dist-info/licenses/LICENSE": b"MIT"}
    wheel = finish(raw(tmp_path, files=files), dest=tmp_path / "out", extra_files={"spark-build/inputs.json": b"{}"})
    assert list(members(wheel.path)) == [
        "tiny/a.py",
        "tiny/b.py",
        "zz/last.py",
        f"{INFO}/METADATA",
        f"{INFO}/WHEEL",
        f"{INFO}/licenses/LICENSE",
        f"{INFO}/spark-build/inputs.json",
        f"{INFO}/RECORD",
    ]
    read.check(wheel.path)


def test_signatures_of_the_old_record_are_left_out(tmp_path: Path) -> None:
    made = contents("tiny", "1.0", {"a.py": b""}) | {"tiny-1.0.dist-info/RECORD.jws": b"{}"}
    wheel = finish(write(tmp_path / "tiny-1.0-py3-none-any.whl", made), dest=tmp_path / "out")
    assert not [name for name in members(wheel.path) if name.endswith(".jws")]


def test_two_files_that_would_get_one_name_are_refused(tmp_path: Path) -> None:
    path = raw(tmp_path, files={"tiny-1.0.data/x": b"1", f"{NEW}.data/x": b"2"})
    with pytest.raises(CheckRefused) as caught:
        finish(path, dest=tmp_path / "out")
    assert caught.value.code == "wheel-unsafe"


# --- METADATA


def test_metadata_with_crlf_keeps_its_endings_and_its_body(tmp_path: Path) -> None:
    text = b"Metadata-Version: 2.1\r\nName: tiny\r\nVersion: 1.0\r\n\r\nVersion: 1.0\r\n\nRequires-Dist: sib==1.0\n"
    new = relabelled(tmp_path, text, {"sib": "1.0+x"})
    assert new == text.replace(b"Version: 1.0\r\n\r\n", f"Version: 1.0+{LABEL}\r\n\r\n".encode(), 1)


def test_metadata_continuation_lines_and_odd_bytes_stay(tmp_path: Path) -> None:
    text = (
        b"Metadata-Version: 2.1\nName: tiny\nSummary: one\n        two\n        \n\tVersion: 9\nVERSION:1.0\n"
        b"Author: M\xfcller\nRequires-Dist: a\n (>=1)\nRequires-Dist: sib\n  (==1.0)\n ; extra == 'x'\n"
    )
    new = relabelled(tmp_path, text, {"sib": "1.0+x"})
    expected = text.replace(b"VERSION:1.0", f"VERSION: 1.0+{LABEL}".encode()).replace(
        b"sib\n  (==1.0)\n ; extra", b"sib (==1.0+x) ; extra"
    )
    assert new == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sib==1.0", "sib==1.0+x"),
        ("Sib_Ling ==1.0", "Sib_Ling ==1.0"),
        ("SIB == 1.0", "SIB ==1.0+x"),
        ("sib (==1.0)", "sib (==1.0+x)"),
        ("sib (==1.0,<2)", "sib (==1.0+x,<2)"),
        ("sib>=0.9,==1.0.0", "sib>=0.9,==1.0+x"),
        ("sib===1.0", "sib===1.0+x"),
        ("sib==1.0+cu130", "sib==1.0+x"),
        ("sib[a,b]==1.0; python_version == '1.0'", "sib[a,b]==1.0+x; python_version == '1.0'"),
        ("sib [a] == 1.0 ; extra == 'x'", "sib [a] ==1.0+x ; extra == 'x'"),
        # not an exact pin on this version
        ("sib", "sib"),
        ("sib>=1.0", "sib>=1.0"),
        ("sib~=1.0", "sib~=1.0"),
        ("sib!=1.0", "sib!=1.0"),
        ("sib==1.*", "sib==1.*"),
        ("sib==0.9", "sib==0.9"),
        ("sib @ https://example.invalid/a==1.0", "sib @ https://example.invalid/a==1.0"),
        ("sib-extra==1.0", "sib-extra==1.0"),
        ("other==1.0; extra == 'sib==1.0'", "other==1.0; extra == 'sib==1.0'"),
    ],
)
def test_exact_pins_on_siblings_follow(tmp_path: Path, old: str, new: str) -> None:
    text = f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Dist: {old}\n"
    assert relabelled(tmp_path, text.encode(), {"sib": "1.0+x"}).decode().split("Requires-Dist: ")[1] == f"{new}\n"


@pytest.mark.parametrize(
    ("asked", "built", "wanted"),
    [
        (
            ["torch==2.14.0", "torchvision==0.29.0 ; extra == 'v'", "TorchAudio (==2.14.0)", "torch-c-dlpack-ext==1"],
            "2.11.0+cu130",
            ["torch==2.11.0+cu130", "torchvision; extra == 'v'", "TorchAudio", "torch-c-dlpack-ext==1"],
        ),
        (["torch [opt] >= 2.12; extra == 'x'"], "2.11.0", ["torch [opt]==2.11.0; extra == 'x'"]),
        # what allows the torch of the build stays as the project wrote it
        (["torch==2.14.0", "torchvision==0.29.0"], "2.14.0+cu130", ["torch==2.14.0", "torchvision==0.29.0"]),
        (["torch>=2.6"], "2.11.0a0+nv25", ["torch>=2.6"]),
        (["torchvision==0.29.0"], "2.11.0", ["torchvision==0.29.0"]),
        (["torch @ https://example.invalid/torch.whl"], "2.11.0", ["torch @ https://example.invalid/torch.whl"]),
    ],
)
def test_metadata_asks_for_the_torch_of_the_build(
    tmp_path: Path, asked: list[str], built: str, wanted: list[str]
) -> None:
    text = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n" + "".join(f"Requires-Dist: {one}\n" for one in asked)
    made = finish(raw(tmp_path, metadata=text.encode()), dest=tmp_path / "out", torch=built)
    assert metadata(made.path).decode().strip().split("\nRequires-Dist: ")[1:] == wanted


# --- the version module


def test_version_module_follows(tmp_path: Path) -> None:
    files = {"flashinfer/_build_meta.py": BUILD_META, "flashinfer/other.py": BUILD_META}
    path = raw(tmp_path, "flashinfer_python", "0.7.2.post1", files)
    wheel = finish(path, dest=tmp_path / "out", version_module="flashinfer/_build_meta.py")
    names: dict[str, str] = {}
    exec(members(wheel.path)["flashinfer/_build_meta.py"], names)  # noqa: S102  # as an import would
    assert names["__version__"] == wheel.version == f"0.7.2.post1+{LABEL}"
    assert names["__git_version__"] == "unknown"
    assert members(wheel.path)["flashinfer/other.py"] == BUILD_META
    read.check(wheel.path)


@pytest.mark.parametrize("text", [b"version = '1.0'\n", b'version = "1.0"\n'])
def test_version_module_by_pattern_in_either_quotes(tmp_path: Path, text: bytes) -> None:
    path = raw(tmp_path, files={"tiny/a/_version.py": text, "tiny/b/_version.py": b"1.0 '1.0.1' '11.0'\n"})
    new = members(finish(path, dest=tmp_path / "out", version_module="*/_version.py").path)
    assert new["tiny/a/_version.py"] == text.replace(b"1.0", f"1.0+{LABEL}".encode())
    assert new["tiny/b/_version.py"] == b"1.0 '1.0.1' '11.0'\n"


def test_version_module_that_repeats_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        finish(raw(tmp_path), dest=tmp_path / "out", version_module="tiny/_version.py")
    assert caught.value.code == "version-module"


# --- what is refused


def test_wheel_of_another_project_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        finish(raw(tmp_path), dest=tmp_path / "out", expected="large")
    assert (caught.value.code, caught.value.exit_code) == ("wheel-name", 1)


def test_wheel_with_a_version_that_is_none_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        finish(raw(tmp_path, version="main"), dest=tmp_path / "out")
    assert caught.value.code == "version-invalid"


def test_bad_wheel_is_never_packed(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny-1.0-py3-none-any.whl", contents("tiny", "1.0", {"../evil": b""}))
    with pytest.raises(CheckRefused):
        finish(path, dest=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the same bytes each time

_PACK = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.wheel_kit import finish
os.umask(int(os.environ["THE_UMASK"], 8))
if uid := os.environ.get("THE_UID"):
    finish(Path(sys.argv[1]), dest=Path(sys.argv[2] + ".first"), strip="debug")  # the interpreter may be root's alone
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
wheel = finish(Path(sys.argv[1]), dest=Path(sys.argv[2]), strip="debug", extra_files={{"spark-build/inputs.json": b"{{}}"}})
print(wheel.sha256)
"""


def _packed_elsewhere(source: Path, dest: Path, **env: str) -> str:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _PACK.format(root=root), str(source), str(dest)],
        env={"PATH": os.environ["PATH"], "THE_UMASK": "022", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library with debug information."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "a.c").write_text(
        "static int hidden(int x) { return x * 3; }\nint visible(int x) { return hidden(x) + 1; }\n"
    )
    subprocess.run(["gcc", "-g", "-O1", "-shared", "-fPIC", "-o", "a.so", "a.c"], cwd=folder, check=True)
    subprocess.run(["gcc", "-g", "-c", "-o", "a.o", "a.c"], cwd=folder, check=True)
    return folder


def test_same_input_and_label_give_the_same_bytes(tmp_path: Path, library: Path) -> None:
    files = {"tiny/a.so": (library / "a.so").read_bytes(), "tiny/ü,.py": b"1", "b.txt": b"x" * 10_000}
    one = raw(tmp_path / "one", files=files, modes={"tiny/a.so": 0o755})
    # another order, other permissions and another day, as a second build leaves it
    other = raw(tmp_path / "other", files=dict(reversed(files.items())), modes={"tiny/a.so": 0o700, "b.txt": 0o600})
    assert one.read_bytes() != other.read_bytes()
    found = {
        _packed_elsewhere(one, tmp_path / "1", TZ="UTC", LC_ALL="C"),
        _packed_elsewhere(other, tmp_path / "2", TZ="Pacific/Kiritimati", LC_ALL="C.UTF-8", THE_UMASK="077"),
        _packed_elsewhere(one, tmp_path / "3", TZ="America/St_Johns", PYTHONHASHSEED="7", HOME="/nowhere"),
    }
    assert len(found) == 1


@pytest.mark.root
def test_another_user_gets_the_same_bytes(tmp_path: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # where others may look, as they may not below pytest's own
        folder = Path(name)
        folder.chmod(0o755)
        one = raw(folder, files={"tiny/a.so": (library / "a.so").read_bytes()})
        (folder / "theirs").mkdir()
        os.chown(folder / "theirs", 65534, 65534)
        mine = _packed_elsewhere(one, tmp_path / "mine")
        assert _packed_elsewhere(one, folder / "theirs", THE_UID="65534") == mine
        (made,) = (folder / "theirs").glob("*.whl")
        assert made.stat().st_uid == 65534


@pytest.mark.parametrize("epoch", [0, 315532800, 1_700_000_001, 10**12])
def test_any_epoch_fits_a_zip(tmp_path: Path, epoch: int) -> None:
    wheel = finish(raw(tmp_path), dest=tmp_path / "out", epoch=epoch)
    with zipfile.ZipFile(wheel.path) as archive:
        assert len({info.date_time for info in archive.infolist()}) == 1


# --- strip


def test_strip_takes_debug_information_out_and_leaves_all_else_alone(tmp_path: Path, library: Path) -> None:
    cubin = bytearray((library / "a.so").read_bytes()[:4000])
    cubin[18:20] = (190).to_bytes(2, "little")  # as GPU code says it is
    files = {
        "tiny/a.so": (library / "a.so").read_bytes(),
        "tiny/a.o": (library / "a.o").read_bytes(),
        "tiny/kernel.cubin": bytes(cubin),
        "tiny/elf.txt": b"\x7fELF",
        "tiny/a.py": b"",
    }
    path = raw(tmp_path, files=files, modes={"tiny/a.so": 0o755})
    wheel = finish(path, dest=tmp_path / "out", strip="debug")
    new = members(wheel.path)
    assert {name: new[name] for name in files if name != "tiny/a.so"} == {
        name: data for name, data in files.items() if name != "tiny/a.so"
    }
    assert b".debug_info" in files["tiny/a.so"]
    assert b".debug_info" not in new["tiny/a.so"]
    read.check(wheel.path)
    assert finish(path, dest=tmp_path / "again", strip="debug").sha256 == wheel.sha256
    assert len(members(finish(path, dest=tmp_path / "all", strip="all").path)["tiny/a.so"]) < len(new["tiny/a.so"])
    assert not list((tmp_path / "out" / "scratch").iterdir())


#: What binutils does to some libraries that patchelf has edited: a segment lies where the loader won't map it.
_BREAKING_STRIP = """#!{python}
import struct, sys
with open(sys.argv[-1], "r+b") as file:
    data = bytearray(file.read())
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for header in range(at, at + size * count, size):
        if struct.unpack_from("<I", data, header)[0] == 1:
            struct.pack_into("<Q", data, header + 8, struct.unpack_from("<Q", data, header + 8)[0] + 8)
    file.seek(0)
    file.write(data)
"""


def test_library_that_strip_would_break_stays_as_it_is(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip = tmp_path / "bin" / "strip"
    strip.parent.mkdir()
    strip.write_text(_BREAKING_STRIP.format(python=sys.executable))
    strip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{strip.parent}:{os.environ['PATH']}")
    files = {"tiny/a.so": (library / "a.so").read_bytes()}
    assert (
        members(finish(raw(tmp_path, files=files), dest=tmp_path / "out", strip="all").path)["tiny/a.so"]
        == files["tiny/a.so"]
    )


def _failed_strip(tmp_path: Path, library: bytes, path_variable: str) -> HostError:
    path = raw(tmp_path, files={"tiny/a.so": library})
    with pytest.raises(HostError) as caught:
        pack.finish(
            Built(output="tiny", path=path, peak_bytes=0),
            dest=tmp_path / "out",
            label=LABEL,
            siblings={},
            version_module=None,
            strip="debug",
            epoch=0,
            extra_files={},
            expected="tiny",
            env={"PATH": path_variable},
            scratch=tmp_path / "scratch",
        )
    return caught.value


def test_strip_that_can_not_read_a_library_says_which(tmp_path: Path, library: Path) -> None:
    error = _failed_strip(tmp_path, (library / "a.so").read_bytes()[:200], os.environ["PATH"])
    assert error.code == "strip-failed"
    assert "tiny/a.so" in error.summary


def test_no_strip_on_this_machine_says_what_to_install(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = _failed_strip(tmp_path, (library / "a.so").read_bytes(), str(tmp_path))
    assert error.code == "strip-missing"
    assert error.run == ("apt-get install binutils",)


@pytest.mark.slow
def test_member_of_more_than_4_gib(tmp_path: Path) -> None:
    path, size = tmp_path / "tiny-1.0-py3-none-any.whl", (4 << 30) + 12_345
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("wants 4 GiB of disk")
    block = hashlib.shake_256(b"x").digest(1 << 16) + bytes((1 << 20) - (1 << 16))
    digest, left = hashlib.sha256(), size
    made = contents("tiny", "1.0", {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("tiny/large.bin", "w", force_zip64=True) as stream:
            while left:
                part = block[: min(left, len(block))]
                digest.update(part)
                stream.write(part)
                left -= len(part)
        text = made.pop("tiny-1.0.dist-info/RECORD").decode()
        line = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        for name, data in made.items():
            archive.writestr(name, data)
        archive.writestr("tiny-1.0.dist-info/RECORD", f"tiny/large.bin,sha256={line},{size}\n{text}")
    wheel = finish(path, dest=tmp_path / "out")
    read.check(wheel.path)
    with zipfile.ZipFile(wheel.path) as archive:
        assert archive.getinfo("tiny/large.bin").file_size == size
