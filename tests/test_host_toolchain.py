from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder import host
from builder.errors import HostError
from builder.host import compilers, floors, interpreter, packages, programs, toolkit
from builder.host.digests import Digests
from builder.inputs import diff
from builder.recipe.model import System
from builder.stages import Host, Interpreter, Tool
from builder.ui.reasons import reasons
from tests import host_kit
from tests.host_kit import PATH, program

ENV = {"PATH": PATH, "HOME": "/"}


def cuda_digest(root: Path, cache: Path) -> str:
    with Digests(cache) as digests:
        return toolkit.inspect(root, digests, ENV).digest or ""


# the toolkit's digest


def test_an_nvcc_that_was_replaced_is_another_toolkit(tmp_path: Path) -> None:
    """Same name, same size, same times, same version in its output."""
    root = host_kit.toolkit(tmp_path / "cuda")
    before = cuda_digest(root, tmp_path / "cache")
    assert cuda_digest(root, tmp_path / "cache") == before
    cicc = root / "nvvm" / "bin" / "cicc"
    status = cicc.stat()
    cicc.write_bytes(cicc.read_bytes().replace(b"cicc", b"CICC"))
    os.utime(cicc, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (cicc.stat().st_size, cicc.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    for name in (
        "host-digests.json",
        *(f"host-trees/{file.name}" for file in (tmp_path / "cache/host-trees").iterdir()),
    ):
        later = cicc.stat().st_ctime_ns + 10**10  # as if the cache had been written since for another tool
        os.utime(tmp_path / "cache" / name, ns=(later, later))
    assert cuda_digest(root, tmp_path / "cache") != before


def test_a_toolkit_has_one_digest_wherever_it_lies_and_whenever_it_was_unpacked(tmp_path: Path) -> None:
    one, other = host_kit.toolkit(tmp_path / "one"), host_kit.toolkit(tmp_path / "deep" / "other")
    os.utime(other / "include" / "cuda.h", (1, 1))
    assert cuda_digest(one, tmp_path / "a") == cuda_digest(other, tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("echo >> include/cuda.h", True),
        ("echo x > include/new.h", True),
        ("rm include/cuda.h", True),
        ("chmod -x bin/nvcc; chmod +x include/cuda.h; chmod +x bin/nvcc", True),
        ("mkdir unknown; echo x > unknown/file", True),
        ("echo x >> doc/manual.txt", False),
        ("mkdir nsight-compute; echo x > nsight-compute/x", False),
        ("touch include/cuda.h", False),
    ],
)
def test_what_a_compiler_may_read_counts(tmp_path: Path, change: str, *, counts: bool) -> None:
    root = host_kit.toolkit(tmp_path / "cuda")
    before = cuda_digest(root, tmp_path / "cache")
    subprocess.run(["sh", "-ec", change], cwd=root, check=True)
    assert (cuda_digest(root, tmp_path / "cache") != before) == counts


def test_what_a_link_out_of_the_toolkit_leads_to_counts(tmp_path: Path) -> None:
    root = host_kit.toolkit(tmp_path / "cuda")
    elsewhere = tmp_path / "alternatives" / "headers"
    elsewhere.mkdir(parents=True)
    (elsewhere / "cublas.h").write_text("1")
    (root / "extra").symlink_to(elsewhere)
    before = cuda_digest(root, tmp_path / "cache")
    (elsewhere / "cublas.h").write_text("2")
    assert cuda_digest(root, tmp_path / "cache") != before


def test_a_lost_cache_changes_nothing(tmp_path: Path) -> None:
    root = host_kit.toolkit(tmp_path / "cuda")
    before = cuda_digest(root, tmp_path / "cache")
    (tmp_path / "cache" / "host-digests.json").write_text("{")
    assert cuda_digest(root, tmp_path / "cache") == before
    shutil.rmtree(tmp_path / "cache")
    assert cuda_digest(root, tmp_path / "cache") == before


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    root = host_kit.toolkit(tmp_path / "cuda")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert cuda_digest(root, tmp_path / "cache") == cuda_digest(root, tmp_path / "other")


# digests of single files


def test_a_file_is_read_again_when_it_changed_just_before_the_cache_was_written(tmp_path: Path) -> None:
    """The clock of a file system is coarse: a second change within its tick leaves the same stat."""
    file = tmp_path / "tool"
    file.write_text("one")
    with Digests(tmp_path / "cache") as digests:
        first = digests.sha256(file)
    cache = tmp_path / "cache" / "host-digests.json"
    status = file.stat()
    # As if the cache had been written in the tick of the change, and the file changed again in it.
    cache.write_text(cache.read_text().replace(first, "0" * 64))
    os.utime(cache, ns=(status.st_ctime_ns, status.st_ctime_ns))
    with Digests(tmp_path / "cache") as digests:
        assert digests.sha256(file) == first
    # As if it had been written much later: the entry is trusted, so the file isn't read.
    cache.write_text(cache.read_text().replace(first, "0" * 64))
    os.utime(cache, ns=(status.st_ctime_ns + 10**10, status.st_ctime_ns + 10**10))
    with Digests(tmp_path / "cache") as digests:
        assert digests.sha256(file) == "0" * 64


def test_an_answer_belongs_to_its_question(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return text

    for _turn in range(2):
        with Digests(tmp_path) as digests:
            assert digests.answer("a", lambda: ask("1")) == "1"
            assert digests.answer("b", lambda: ask("2")) == "2"
    assert asked == ["1", "2"]


# the second probe

PROBE = """
import json, sys
from pathlib import Path
started = []
def hear(name, args):
    if name == "subprocess.Popen":
        words = list(map(str, args[1]))
        started.append(words[words.index("--") + 1 if "--tied" in words else 0])
sys.addaudithook(hear)
from builder import host
from builder.recipe.model import System
with host.Machine(env={"PATH": sys.argv[4], "HOME": "/"}, cache=Path(sys.argv[1])) as machine:
    found = machine.probe(System(cuda=">=1", gcc=">=1", headers=True, apt=("git",), tools=("git", "tar")),
                          python=sys.argv[3], cuda=sys.argv[2])
print(json.dumps({"started": started, "identity": found.identity()}))
"""


def probed(tmp_path: Path, cuda: Path, path: str = PATH) -> tuple[list[str], object]:
    words = [sys.executable, "-c", PROBE, str(tmp_path / "cache"), str(cuda), os.path.realpath(sys.executable), path]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return told["started"], told["identity"]


def test_the_second_probe_starts_no_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cuda = host_kit.toolkit(tmp_path / "cuda", log=log)
    host_kit.settle(cuda)
    first, identity = probed(tmp_path, cuda)
    assert first
    assert log.read_text() == "nvcc\n"
    assert probed(tmp_path, cuda) == ([], identity)
    assert log.read_text() == "nvcc\n"


def test_a_replaced_program_is_asked_again_and_no_other(tmp_path: Path) -> None:
    cuda = host_kit.toolkit(tmp_path / "cuda")
    tool = program(tmp_path / "bin", "tar", "echo tar 1.0\n")
    host_kit.settle(tmp_path)
    path = f"{tmp_path / 'bin'}:{PATH}"
    _first, before = probed(tmp_path, cuda, path)
    program(tmp_path / "bin", "tar", "echo tar 2.0\n")
    again, after = probed(tmp_path, cuda, path)
    assert again == [str(tool)]
    assert after != before


def test_what_a_script_answers_counts_since_its_bytes_say_nothing(tmp_path: Path) -> None:
    real = program(tmp_path / "real", "cmake", "echo cmake version 4.0\n")
    wrapper = program(tmp_path / "bin", "cmake", f'exec {real} "$@"\n')

    def found() -> tuple[str, str | None]:
        with Digests(tmp_path / "cache") as digests:
            env = {"PATH": f"{wrapper.parent}:{PATH}", "HOME": "/"}
            (tool,) = compilers.probe(System(tools=("cmake",)), digests, env)
            return tool.version, tool.digest

    first = found()
    assert found() == first
    program(tmp_path / "real", "cmake", "echo cmake version 4.0-dirty\n")
    assert found()[0] == "4.0"
    assert found() != first
    program(tmp_path / "real", "cmake", "echo cmake version 4.1\n")
    assert found()[0] == "4.1"


# which toolkit


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    for version in ("12.9", "13.0", "13.1"):
        host_kit.toolkit(folder / f"cuda-{version}", f"{version}.5")
    (folder / "cuda-13.4").mkdir()  # what is left after an uninstall
    return folder


def env_without_nvcc(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(tmp_path / "empty"), "HOME": "/"} | more


@pytest.mark.parametrize(
    ("asked", "expected"), [("13.0", "13.0"), ("13", "13.1"), ("12", "12.9"), ("13.0.88", "13.0"), ("12.9", "12.9")]
)
def test_a_toolkit_by_version(tmp_path: Path, prefix: Path, asked: str, expected: str) -> None:
    found = toolkit.find(asked, env=env_without_nvcc(tmp_path), prefix=prefix)
    assert found == prefix / f"cuda-{expected}"


@pytest.mark.parametrize("asked", ["13.4", "14", "1"])
def test_a_version_that_is_not_there_names_those_that_are(tmp_path: Path, prefix: Path, asked: str) -> None:
    with pytest.raises(HostError) as told:
        toolkit.find(asked, env=env_without_nvcc(tmp_path), prefix=prefix)
    assert (told.value.code, told.value.exit_code) == ("cuda-missing", 3)
    assert "12.9, 13.0, 13.1" in told.value.cause


def test_the_strongest_word_wins(tmp_path: Path, prefix: Path) -> None:
    """--cuda, CUDA_HOME, nvcc on PATH, the usual folder."""
    (prefix / "cuda").symlink_to("cuda-12.9")
    env = env_without_nvcc(tmp_path)
    assert toolkit.find(None, env=env, prefix=prefix) == prefix / "cuda-12.9"
    env["PATH"] = str(prefix / "cuda-13.1" / "bin")
    assert toolkit.find(None, env=env, prefix=prefix) == prefix / "cuda-13.1"
    env["CUDA_HOME"] = str(prefix / "cuda-13.0")
    assert toolkit.find(None, env=env, prefix=prefix) == prefix / "cuda-13.0"
    assert toolkit.find(str(prefix / "cuda-12.9"), env=env, prefix=prefix) == prefix / "cuda-12.9"


def test_a_wrong_cuda_home_is_an_error_and_named(tmp_path: Path, prefix: Path) -> None:
    with pytest.raises(HostError, match="CUDA_HOME"):
        toolkit.find(None, env=env_without_nvcc(tmp_path, CUDA_HOME=str(tmp_path)), prefix=prefix)


def test_no_toolkit(tmp_path: Path) -> None:
    assert toolkit.find(None, env=env_without_nvcc(tmp_path), prefix=tmp_path) is None


def test_an_nvcc_that_is_a_script_leads_to_its_toolkit(tmp_path: Path) -> None:
    """As on machines where /usr/local/bin/nvcc starts the one of /usr/local/cuda-13.0."""
    real = tmp_path / "cuda-13.0" / "bin" / "nvcc"
    real.parent.mkdir(parents=True)
    shutil.copy(shutil.which("true") or "", real)
    wrapper = program(tmp_path / "bin", "nvcc", f'exec {real} "$@"\n')
    assert toolkit.root_of(wrapper, ENV) == tmp_path / "cuda-13.0"
    env = {"PATH": f"{wrapper.parent}:{PATH}"}
    assert toolkit.find(None, env=env, prefix=tmp_path / "nothing") == tmp_path / "cuda-13.0"


def test_a_script_that_cannot_be_read_at_a_glance_is_asked(tmp_path: Path) -> None:
    real = tmp_path / "cuda-13.0" / "bin" / "nvcc"
    real.parent.mkdir(parents=True)
    shutil.copy(shutil.which("true") or "", real)
    wrapper = program(
        tmp_path / "bin", "nvcc", f'version=13.0\nroot={tmp_path}/cuda-$version\necho "#$ _HERE_=$root/bin" >&2\n'
    )
    assert toolkit.root_of(wrapper, ENV) == tmp_path / "cuda-13.0"


def test_links_lead_to_the_toolkit(tmp_path: Path) -> None:
    real = tmp_path / "cuda-13.0" / "bin" / "nvcc"
    real.parent.mkdir(parents=True)
    shutil.copy(shutil.which("true") or "", real)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").symlink_to(real)
    assert toolkit.root_of(tmp_path / "bin" / "nvcc", ENV) == tmp_path / "cuda-13.0"


@pytest.mark.cuda
def test_the_real_toolkit_is_found_and_has_a_version(tmp_path: Path) -> None:
    root = toolkit.find(None, env=dict(os.environ))
    assert root is not None
    assert (root / "bin" / "nvcc").is_file()
    with Digests(tmp_path) as digests:
        found = toolkit.inspect(root, digests, ENV)
    assert floors.fits(found.version, ">=12")


# programs


def test_stand_ins_are_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "ccache", "g++", "")
    real = program(tmp_path / "bin", "g++", "")
    (tmp_path / "first" / "g++").mkdir(parents=True)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "g++").write_text("not executable")
    folders = [tmp_path / name for name in ("ccache", "first", "second", "bin")]
    assert programs.find("g++", {"PATH": ":".join(map(str, folders))}) == real


def test_a_program_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    tool = program(tmp_path, "tool", "echo first >&2; echo the reason >&2; exit 4\n")
    with pytest.raises(HostError, match="no answer") as told:
        programs.ask([tool, "--version"], ENV)
    assert (told.value.code, "the reason" in told.value.cause) == ("tool-broken", True)


@pytest.mark.parametrize(
    ("text", "version"), [("git version 2.43.0", "2.43.0"), ("cmake 4.4", "4.4"), ("odd\nmore", "odd"), ("", "")]
)
def test_versions_are_found_in_what_programs_say(text: str, version: str) -> None:
    assert programs.version_in(text) == version


# the interpreter


def test_without_a_name_it_is_the_one_below_this_environment() -> None:
    found = interpreter.find(None, env=ENV)
    assert os.path.realpath(found) == os.path.realpath(sys.executable)
    assert Path(sys.prefix) not in found.parents


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def test_by_path_folder_and_name(venv: Path, tmp_path: Path) -> None:
    python = venv / "bin" / "python"
    assert interpreter.find(str(python), env=ENV) == python
    assert interpreter.find(str(venv), env=ENV) == python
    assert interpreter.find("./venv", env=ENV, cwd=tmp_path) == python
    assert interpreter.find("python", env={"PATH": str(venv / "bin")}) == python


def test_by_version(venv: Path, tmp_path: Path) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    env = {"PATH": str(venv / "bin"), "HOME": str(tmp_path)}
    for asked in (version, f"python{version}", f"cp{version}"):
        assert interpreter.find(asked, env=env) == venv / "bin" / f"python{version}"


def test_by_version_among_those_of_uv_and_pyenv_the_newest(tmp_path: Path) -> None:
    """A shim of pyenv is no interpreter, and 3.10 is newer than 3.9."""
    program(tmp_path / "shims-of-mine", "python3.12", "exec false\n")
    for patch in ("3.12.9", "3.12.10"):
        target = tmp_path / "data" / "uv" / "python" / f"cpython-{patch}-linux" / "bin" / "python3.12"
        target.parent.mkdir(parents=True)
        target.symlink_to(sys.executable)
    env = {"PATH": str(tmp_path / "shims-of-mine"), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    assert "3.12.10" in str(interpreter.find("3.12", env=env))


@pytest.mark.parametrize("asked", ["3.99", "./nothing", "nosuchpython", "./plain.txt"])
def test_one_that_is_not_there(asked: str, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("no program")
    with pytest.raises(HostError) as told:
        interpreter.find(asked, env={"PATH": PATH, "HOME": str(tmp_path)}, cwd=tmp_path)
    assert (told.value.code, bool(told.value.run)) == ("python-missing", True)


def test_a_venv_is_the_interpreter_below_it(venv: Path, tmp_path: Path) -> None:
    with Digests(tmp_path / "cache") as digests:
        above = interpreter.inspect(venv / "bin" / "python", digests, ENV)
        below = interpreter.inspect(interpreter.find(None, env=ENV), digests, ENV)
    assert replace(above, path="") == replace(below, path="")
    assert above.tag == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert above.version == ".".join(map(str, sys.version_info[:3]))


def test_headers_count_only_where_something_is_compiled_and_are_told_apart(tmp_path: Path) -> None:
    """The interpreter stays the same when a recipe begins to compile: that isn't what `why` may say."""
    with host.Machine(env=ENV, cache=tmp_path) as machine:
        plain = machine.probe(System(), python=None, cuda=None)
        compiling = machine.probe(System(gcc=">=1"), python=None, cuda=None)
    assert plain.interpreter == compiling.interpreter
    assert plain.interpreter.headers
    (headers,) = (tool for tool in compiling.tools if tool.name == "python-headers")
    assert headers.digest
    assert not any(tool.name == "python-headers" for tool in plain.tools)
    told = reasons(diff(plain.identity(), compiling.identity()))
    assert not any("replaced" in line for line in told)


def test_a_program_that_is_no_python(tmp_path: Path) -> None:
    tool = program(tmp_path, "python", "exit 1\n")
    with Digests(tmp_path / "cache") as digests, pytest.raises(HostError, match="no answer"):
        interpreter.inspect(tool, digests, ENV)


# compilers and packages


def test_the_compilers_of_this_machine(tmp_path: Path) -> None:
    with Digests(tmp_path) as digests:
        found = {tool.name: tool for tool in compilers.probe(System(gcc=">=1"), digests, ENV)}
    assert {"gcc", "g++", "as", "ld", "libstdc++"} <= set(found)
    assert all(tool.version and tool.digest for tool in found.values())
    assert (
        found["g++"].version
        == subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    )


def test_a_recipe_that_compiles_nothing_does_not_miss_for_a_compiler(tmp_path: Path) -> None:
    with Digests(tmp_path) as digests:
        assert compilers.probe(System(), digests, ENV) == ()
        assert [tool.name for tool in compilers.probe(System(tools=("tar", "nosuch")), digests, ENV)] == ["tar"]


@pytest.mark.parametrize(
    ("system", "wants"),
    [
        (System(), False),
        (System(apt=("git",)), False),
        (System(cuda=">=13"), True),
        (System(headers=True), True),
        (System(apt=("g++-13",)), True),
        (System(apt=("build-essential",)), True),
    ],
)
def test_who_wants_compilers(system: System, *, wants: bool) -> None:
    assert compilers.wants_compilers(system) is wants


def test_a_compiler_whose_worker_was_replaced_is_another(tmp_path: Path) -> None:
    """The driver stays; an upgrade replaces cc1plus in the compiler's folder."""
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "cc1plus").write_text("one")
    program(
        tmp_path / "bin",
        "g++",
        f"""\
        case "$1" in
        -print-prog-name=cc1plus) echo {lib}/cc1plus;;
        -print-prog-name=*) echo "${{1#*=}}";;
        -print-file-name=*) echo "${{1#*=}}";;
        -dumpfullversion) echo 13.3.0;;
        esac
        """,
    )
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}

    def digest() -> str | None:
        with Digests(tmp_path / "cache") as digests:
            found = {tool.name: tool for tool in compilers.probe(System(gcc=">=1"), digests, env)}
        assert found["g++"].version == "13.3.0"
        return found["g++"].digest

    before = digest()
    assert digest() == before
    (lib / "cc1plus").write_text("two")
    assert digest() != before


STATUS = """\
Package: git
Status: install ok installed
Version: 1:2.43.0-1
Description: x
 Version: 9.9
 .

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: half
Status: install ok half-installed
Version: 1.0

Package: zlib1g-dev
Status: install ok installed
Provides: libz-dev (= 1.3), zlib-dev
Version: 1:1.3

Package: git
Architecture: arm64
Status: install ok installed
Version: 1:2.44.0-1
"""


def test_versions_of_packages(tmp_path: Path) -> None:
    assert packages.parse(STATUS) == {
        "git": "1:2.43.0-1",
        "zlib1g-dev": "1:1.3",
        "libz-dev": "1:1.3",
        "zlib-dev": "1:1.3",
    }
    status = tmp_path / "status"
    status.write_text(STATUS)
    with Digests(tmp_path / "cache") as digests:
        assert packages.versions(["git", "gone"], digests, status) == {"git": "1:2.43.0-1", "gone": None}
        assert packages.versions(["git"], digests, tmp_path / "nothing") is None


def test_an_upgrade_is_seen(tmp_path: Path) -> None:
    status = tmp_path / "status"

    def version() -> str:
        with Digests(tmp_path / "cache") as digests:
            (tool,) = compilers.probe(System(apt=("git",)), digests, ENV, status=status)
        return tool.version

    status.write_text(STATUS)
    assert (version(), version()) == ("1:2.43.0-1", "1:2.43.0-1")
    status.write_text(STATUS.replace("2.43.0", "2.43.1"))
    assert version() == "1:2.43.1-1"


# floors

GOOD = Host(
    machine="aarch64",
    libc="2.39",
    interpreter=Interpreter(path="/usr/bin/python3.12", version="3.12.3", tag="cp312", digest="0", headers=True),
    tools=(Tool(name="g++", version="13.3.0"), Tool(name="cmake", version="4.4"), Tool(name="apt:git", version="1")),
    cuda=Tool(name="cuda", version="13.0.88"),
    cores=1,
    memory_bytes=1,
)
WANTS = System(cuda=">=13.0", gcc=">=13", tools=("cmake",), apt=("git",), headers=True)


def test_a_host_that_has_everything() -> None:
    assert floors.check(WANTS, GOOD) == ()
    floors.require(WANTS, GOOD)


def test_everything_that_is_lacking_is_told_in_one_go() -> None:
    poor = replace(
        GOOD,
        tools=(Tool(name="g++", version="12.2.0"), Tool(name="apt:git", version="")),
        cuda=None,
        interpreter=replace(GOOD.interpreter, headers=False),
    )
    with pytest.raises(HostError) as told:
        floors.require(WANTS, poor, distro="ubuntu-24.04")
    assert (told.value.code, told.value.exit_code) == ("toolchain-floor", 3)
    assert told.value.cause.splitlines() == [
        "CUDA toolkit: found none, wanted >=13.0",
        "g++: found 12.2.0, wanted >=13",
        "cmake: found none on PATH, wanted any",
        "packages git: found not installed, wanted installed",
        "Python headers: found no Python.h for /usr/bin/python3.12, wanted the headers of Python 3.12",
    ]
    assert told.value.run == (
        "sudo apt install cuda-toolkit-13-0",
        "sudo apt install g++",
        "sudo apt install cmake",
        "sudo apt install git",
        "sudo apt install python3.12-dev",
        "spark-build doctor",
    )


@pytest.mark.parametrize(
    ("tool", "package"), [("protoc", "protobuf-compiler"), ("ninja", "ninja-build"), ("cmake", "cmake")]
)
def test_a_missing_program_is_mended_by_its_package(tool: str, package: str) -> None:
    (lack,) = floors.check(System(tools=(tool,)), replace(GOOD, tools=()))
    assert lack.run == f"sudo apt install {package}"


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [("13.3.0", ">=13", True), ("12.2.0", ">=13", False), ("14.0", ">=13,<14", False), ("odd", ">=1", False)],
)
def test_ranges(version: str, wanted: str, *, fits: bool) -> None:
    assert floors.fits(version, wanted) is fits


def test_clang_is_taken_when_found_and_wanted_only_when_required() -> None:
    assert floors.check(System(clang=">=18"), GOOD) == ()
    assert [lack.name for lack in floors.check(System(clang=">=18", tools=("clang",)), GOOD)] == ["clang++"]
    old = replace(GOOD, tools=(Tool(name="clang++", version="14.0.6"),))
    assert [lack.found for lack in floors.check(System(clang=">=18"), old)] == ["14.0.6"]


@pytest.mark.parametrize(
    ("text", "name"),
    [('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu-24.04"), ("ID=arch\n", "arch"), ("", "")],
)
def test_the_distribution(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert floors.distribution(tmp_path / "os-release") == name
    assert floors.distribution(tmp_path / "nothing") == ""


def test_a_probe_looks_only_at_what_a_recipe_names(tmp_path: Path) -> None:
    with host.Machine(env=ENV, cache=tmp_path) as machine:
        found = machine.probe(System(), python=None, cuda=None)
    assert (found.tools, found.cuda) == ((), None)
    assert found.machine == os.uname().machine
    assert found.cores >= 1
