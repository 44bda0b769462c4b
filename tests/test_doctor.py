from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from builder.cli.doctor import table
from builder.errors import HostError
from builder.host import floors
from builder.host.checks import CHECKS, Finding, Place, Subject, environment, look, room, storage, targets
from builder.recipe.model import MemoryClass, Output, Recipe, Resources, Source, System
from builder.stages import Host, Interpreter, Tool
from builder.ui.style import Style
from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.world import World

PLAIN = Style(color=False, live=False, encoding="utf-8")
GIB = 1 << 30
PATH = os.environ["PATH"]


@dataclass(frozen=True)
class Cut:
    """What the executor's probe returns, as far as a check sees it."""

    level: str
    reason: str = ""


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    file.chmod(0o755)
    return file


def found(world: World, *words: str, code: int | None = None, **env: str) -> dict[str, dict[str, Any]]:
    """Return the findings of the installed command by id."""
    done = world.run("doctor", *words, "--json", code=None, **env)
    loaded = json.loads(done.stdout)
    if code is not None:
        assert done.returncode == code, done.stdout
    assert done.returncode == (5 if loaded["problems"] else 0)
    assert loaded["version"] == 1
    return {one["id"]: one for one in loaded["findings"]}


def nvidia_smi(folder: Path, row: str, cuda: str) -> str:
    """Leave a program that answers as nvidia-smi does; return PATH with it in front."""
    told = f"NVIDIA-SMI version  : 580.95.05\nDRIVER version      : 580.95.05\nCUDA Version        : {cuda}"
    script(
        folder,
        "nvidia-smi",
        f'case "$1" in --query-gpu=*) echo "{row}";; --version) echo "{told}";; *) exit 2;; esac\n',
    )
    return f"{folder}:{PATH}"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """A machine whose /proc and /etc lie in a folder."""
    for name in ("proc/self", "etc", "tmp"):
        (tmp_path / "root" / name).mkdir(parents=True)
    return Subject(
        env={"PATH": PATH, "HOME": str(tmp_path)},
        cwd=tmp_path,
        recipes=(),
        wheelhouse=Place(path=tmp_path / "wheelhouse"),
        sources=Place(path=tmp_path / "sources"),
        temporary=tmp_path,
        isolation=lambda: Cut("namespace"),
        root=tmp_path / "root",
    )


def recipe(**parts: Any) -> Recipe:  # noqa: ANN401  # as Recipe itself
    return Recipe(
        schema=1, name="tiny", source=(Source(kind="local", path="."),), output=(Output(name="tiny"),), **parts
    )


# the command


def test_every_check_reports_and_says_how_to_go_on(world: World) -> None:
    got = found(world)
    seen = {name.partition(".")[0] for name in got}
    assert {"machine", "gpu", "nvcc", "python", "torch", "git", "isolation", "memory", "swap"} <= seen
    assert {"wheelhouse", "disk", "configuration", "compiler"} <= seen
    for one in got.values():
        assert set(one) == {"id", "status", "found", "wanted", "why", "run", "failure"}
        assert one["found"]
        if one["status"] in {"warn", "problem"}:
            assert one["why"], one
            assert one["run"] or "has no package" in one["why"], one


def test_the_table_fits_80_columns_but_for_commands(world: World) -> None:
    done = world.run("doctor", code=None)
    for line in done.stdout.splitlines():
        command = " fix " in line or line.startswith(" " * 28)
        assert len(line) <= 80 or command or any(len(word) > 60 for word in line.split()), line
    assert "Machine-readable" in done.stdout.splitlines()[-1]


def test_nothing_is_left_behind(world: World) -> None:
    scratch = world.root / "tmp"
    scratch.mkdir()
    found(world, TMPDIR=str(scratch))
    assert list(scratch.iterdir()) == []
    assert not world.wheelhouse.exists()


def test_an_interpreter_that_is_not_there_is_told_once(world: World) -> None:
    done = world.json("doctor", "--python", "3.99", code=5)
    lost = [one for one in done["findings"] if "3.99" in one["found"]]
    assert [(one["id"], one["status"]) for one in lost] == [("python", "problem")]
    assert lost[0]["run"] == ["sudo apt install python3.99 python3.99-dev"]


# configuration and recipes


def test_mistakes_in_the_configuration_are_findings_and_the_rest_is_looked_at(world: World) -> None:
    world.config.mkdir(parents=True, exist_ok=True)
    (world.config / "config.toml").write_text("[build]\njbs = 1\n")
    got = found(world, code=5)
    assert "did you mean jobs?" in got["configuration"]["found"]
    assert str(world.config / "config.toml") in got["configuration"]["run"][0]
    assert got["git"]["status"] == "ok"


def test_the_configuration_that_was_read_is_named(world: World) -> None:
    (world.config / "config.toml").write_text("[build]\njobs = 1\n")
    assert found(world)["configuration"]["found"] == str(world.config / "config.toml")


def test_a_recipe_with_a_mistake_is_passed_over(world: World) -> None:
    world.recipe("broken", 'schema = 1\nname = "broken"\nbiuld = 1\n')
    assert found(world)["git"]["status"] == "ok"


# GPU, driver, toolkit


def test_a_gb10_with_its_driver(world: World) -> None:
    got = found(world, PATH=nvidia_smi(world.root / "bin", "NVIDIA GB10, 12.1, 580.95.05", "99.0"))
    assert got["gpu"]["status"] == "ok"
    assert got["gpu"]["found"] == "NVIDIA GB10, compute capability 12.1, driver 580.95.05"


def test_another_gpu_does_not_run_what_recipes_make(world: World) -> None:
    got = found(world, PATH=nvidia_smi(world.root / "bin", "NVIDIA H100 80GB HBM3, 9.0, 580.159.04", "13.0"))
    assert (got["gpu"]["status"], got["gpu"]["wanted"]) == ("info", "12.1 (GB10)")


def test_a_driver_that_does_not_answer(world: World) -> None:
    text = "Failed to initialize NVML: Driver/library version mismatch"
    script(world.root / "bin", "nvidia-smi", f"echo '{text}'; exit 18\n")
    got = found(world, PATH=f"{world.root / 'bin'}:{PATH}")
    assert got["gpu"]["status"] == "warn"
    assert text in got["gpu"]["found"]
    assert got["gpu"]["run"] == ["sudo reboot"]


def toolkit(folder: Path, version: str, answer: str) -> Path:
    """Make a toolkit whose nvcc tells `version` and answers a compilation with the shell's `answer`."""
    release = ".".join(version.split(".")[:2])
    script(
        folder / "bin",
        "nvcc",
        f"""\
        case "$*" in
        *--version*) echo "Cuda compilation tools, release {release}, V{version}";;
        *) {answer};;
        esac
        """,
    )
    return folder


@pytest.mark.parametrize(("driver", "status"), [("13.0", "ok"), ("13.1", "ok"), ("12.9", "problem"), ("99.9", "ok")])
def test_a_toolkit_of_a_newer_major_version_than_the_driver(world: World, driver: str, status: str) -> None:
    cuda = toolkit(world.root / "cuda", "13.0.88", ": > kernel.o")
    path = nvidia_smi(world.root / "bin", "NVIDIA GB10, 12.1, 580.95.05", driver)
    got = found(world, "--cuda", str(cuda), PATH=path)
    assert got["driver"]["status"] == status
    if status == "problem":
        assert got["driver"]["run"][0] == "sudo apt install cuda-toolkit-12-9"


def test_a_toolkit_of_a_newer_minor_version_runs_but_for_ptx(world: World) -> None:
    cuda = toolkit(world.root / "cuda", "13.2.1", ": > kernel.o")
    path = nvidia_smi(world.root / "bin", "NVIDIA GB10, 12.1, 580.95.05", "13.0")
    got = found(world, "--cuda", str(cuda), PATH=path)["driver"]
    assert (got["status"], got["run"][1]) == ("warn", "spark-build doctor --cuda 13.0")
    assert "PTX" in got["why"]


@pytest.mark.parametrize(
    ("message", "why", "command"),
    [
        ("nvcc fatal   : Unsupported gpu architecture 'compute_121a'", "doesn't know sm_121a", "cuda-toolkit-13-0"),
        ("#error -- unsupported GNU version! gcc versions later than 15", "newer than this nvcc", "NVCC_CCBIN=g++-13"),
        (
            "math.h(1): error: exception specification is incompatible with that of previous function rsqrt",
            "glibc 2.41",
            "cuda-toolkit-13-2",
        ),
        ("sh: 1: gcc: not found", "finds no host compiler", "sudo apt install g++"),
        ("Segmentation fault", "an empty kernel doesn't compile", "--reinstall"),
    ],
)
def test_an_nvcc_that_does_not_compile_for_a_gb10(world: World, message: str, why: str, command: str) -> None:
    cuda = toolkit(world.root / "cuda", "12.4.1", f'echo "{message}" >&2; exit 1')
    got = found(world, "--cuda", str(cuda), code=5)["nvcc"]
    assert got["status"] == "problem"
    assert "12.4.1" in got["found"]
    assert message in got["found"]
    assert why in got["why"]
    assert command in " ".join(got["run"])


def test_a_folder_that_is_no_toolkit(world: World) -> None:
    got = found(world, "--cuda", str(world.root), code=5)["nvcc"]
    assert "no CUDA toolkit" in got["found"]


@pytest.mark.cuda
def test_the_nvcc_of_this_machine_knows_a_gb10(world: World) -> None:
    got = found(world)["nvcc"]
    assert (got["status"], "compiles for sm_121a" in got["found"]) == ("ok", True)


@pytest.mark.root
def test_a_machine_without_a_toolkit(world: World) -> None:
    """In a mount namespace of its own, /usr/local is empty."""
    bare = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /usr/local && exec "$@"', "sh"]
    env = world.env(PATH="/usr/bin:/bin")
    env.pop("CUDA_HOME", None)
    done = subprocess.run(
        [*bare, str(COMMAND), "doctor", "--json"], env=env, cwd=world.root, capture_output=True, text=True, check=False
    )
    got = {one["id"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == 5
    assert (got["nvcc"]["status"], got["nvcc"]["run"]) == ("problem", ["sudo apt install cuda-toolkit-13-0"])


# compiler and interpreter


def compiler(folder: Path, version: str, answer: str = 'exec /usr/bin/g++ "$@"') -> str:
    script(folder, "g++", f'case "$1" in -dumpfullversion) echo {version};; *) {answer};; esac\n')
    return f"{folder}:{PATH}"


@pytest.mark.parametrize(("version", "status"), [("12.2.0", "warn"), ("13.3.0", "ok"), ("14.2.0", "ok")])
def test_an_old_compiler_is_a_warning_that_names_the_recipe(world: World, version: str, status: str) -> None:
    world.tiny_recipe(more='[system]\ngcc = ">=13"\n')
    got = found(world, PATH=compiler(world.root / "bin", version))["compiler"]
    assert got["status"] == status
    assert ("tiny" in got["why"]) == (status == "warn")


def test_where_no_package_mends_an_old_compiler_no_command_pretends_to(subject: Subject) -> None:
    (subject.root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    path = compiler(subject.cwd / "bin", "12.2.0")
    (one,) = CHECKS[3][1](replace(subject, env={"PATH": path}))
    assert (one.status, one.run) == ("warn", ())
    assert "trixie" in one.why
    host = Host(
        machine="aarch64",
        libc="2.36",
        interpreter=Interpreter(path="/p", version="3.11.2", tag="cp311", digest="0", headers=True),
        tools=(Tool(name="g++", version="12.2.0"),),
        cuda=None,
        cores=1,
        memory_bytes=1,
    )
    with pytest.raises(HostError, match="g\\+\\+") as told:
        floors.require(System(gcc=">=13"), host, distro="debian-12")
    assert ("trixie" in told.value.help, told.value.run) == (True, ("spark-build doctor",))


def test_a_compiler_that_cannot_link(world: World) -> None:
    path = compiler(world.root / "bin", "13.3.0", 'echo "/usr/bin/ld: error: cannot find crt1.o" >&2; exit 1')
    got = found(world, PATH=path, code=5)["compiler"]
    assert "cannot find crt1.o" in got["found"]


def test_a_compiler_whose_programs_do_not_run(world: World) -> None:
    path = compiler(world.root / "bin", "13.3.0", "printf '#!/bin/sh\\nexit 3\\n' > hello; chmod +x hello")
    assert "ended with 3" in found(world, PATH=path, code=5)["compiler"]["found"]


def test_no_compiler_at_all(subject: Subject) -> None:
    (lost,) = CHECKS[3][1](replace(subject, env={"PATH": str(subject.cwd)}))
    assert (lost.id, lost.status, lost.run) == ("compiler", "warn", ("sudo apt install g++",))
    needs = recipe(system=System(gcc=">=13"))
    (lost,) = CHECKS[3][1](replace(subject, env={"PATH": str(subject.cwd)}, recipes=(needs,)))
    assert lost.status == "problem"


def headless(folder: Path) -> Path:
    """Make an interpreter that says its headers lie where nothing is, as one without its -dev package does."""
    return script(folder, "python3", f'{sys.executable} "$@" | sed "s#/include/#/nothing/#g"\n')


@pytest.mark.parametrize(("needed", "status"), [(True, "problem"), (False, "warn")])
def test_missing_headers(subject: Subject, *, needed: bool, status: str) -> None:
    python = headless(subject.cwd / "bin")
    one = replace(subject, python=str(python), recipes=(recipe(system=System(headers=needed)),))
    (lost,) = targets.python(one)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (lost.status, lost.run) == (status, (f"sudo apt install python{minor}-dev",))
    assert "Python.h" in lost.found


def test_headers_that_do_not_compile(subject: Subject) -> None:
    """pyconfig.h is there, and what it includes isn't: half a -dev package."""
    include = subject.cwd / "include"
    include.mkdir()
    (include / "Python.h").write_text('#include "pyconfig.h"\n')
    (include / "pyconfig.h").write_text("#include <x86_64-of-nowhere/pyconfig.h>\n")
    python = script(
        subject.cwd / "bin",
        "python3",
        f'{sys.executable} "$@" | sed -E \'s#"include": "[^"]*"#"include": "{include}"#; '
        f's#"config": "[^"]*"#"config": "{include}/pyconfig.h"#\'\n',
    )
    (lost,) = targets.python(replace(subject, python=str(python)))
    assert "x86_64-of-nowhere" in lost.found


# torch


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def torch(venv: Path, text: str) -> None:
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text(textwrap.dedent(text))


WITH_VERSION = "__version__ = {!r}\nclass version:\n    cuda = {!r}\n"


def test_no_torch_is_fine(subject: Subject, venv: Path) -> None:
    (one,) = targets.torch(replace(subject, python=str(venv)))
    assert one.status == "ok"


def test_torch_with_cuda(subject: Subject, venv: Path) -> None:
    torch(venv, WITH_VERSION.format("2.14.0+cu130", "13.0"))
    (one,) = targets.torch(replace(subject, python=str(venv)))
    assert (one.status, one.found) == ("ok", "2.14.0+cu130 with CUDA 13.0")


@pytest.mark.parametrize(
    ("version", "wanted"), [("2.14.0+cpu", "torch==2.14.0"), ("2.9.1+cpu", "torch>=2.11"), ("2.11.0", "torch==2.11.0")]
)
def test_the_cpu_wheel(subject: Subject, venv: Path, version: str, wanted: str) -> None:
    torch(venv, WITH_VERSION.format(version, None))
    (one,) = targets.torch(replace(subject, python=str(venv)))
    assert (one.status, f"{version} is the CPU wheel" in one.found) == ("problem", True)
    assert one.run == (f"uv pip install --python {venv}/bin/python --reinstall '{wanted}'",)


def test_a_torch_that_lost_its_cuda_library(world: World, venv: Path) -> None:
    error = "libtorch_cuda.so: cannot open shared object file: No such file or directory"
    torch(venv, f'raise ImportError("{error}")')
    got = found(world, "--python", str(venv), code=5)["torch"]
    assert error in got["found"]
    assert "CPU wheel" in got["why"]
    assert "--reinstall" in got["run"][0]


@pytest.mark.parametrize("text", ["import nosuchmodule", "import os; os.abort()", "print(1); raise SystemExit(3)"])
def test_a_torch_that_is_broken_otherwise(subject: Subject, venv: Path, text: str) -> None:
    torch(venv, text)
    (one,) = targets.torch(replace(subject, python=str(venv)))
    assert (one.status, "can't be imported" in one.found) == ("problem", True)


def test_what_torch_prints_does_not_disturb(subject: Subject, venv: Path) -> None:
    torch(venv, "print('hello')\n" + WITH_VERSION.format("2.14.0", "13.0"))
    (one,) = targets.torch(replace(subject, python=str(venv)))
    assert one.status == "ok"


# git, isolation


@pytest.mark.parametrize(("version", "status"), [("2.25.1", "warn"), ("2.43.0", "ok"), ("3.0.1", "ok")])
def test_an_old_git(subject: Subject, version: str, status: str) -> None:
    script(subject.cwd / "bin", "git", f"echo git version {version}\n")
    (one,) = environment.git(replace(subject, env={"PATH": f"{subject.cwd / 'bin'}:/usr/bin:/bin"}))
    assert one.status == status


def test_no_git(subject: Subject) -> None:
    (one,) = environment.git(replace(subject, env={"PATH": str(subject.cwd)}))
    assert (one.status, one.run) == ("problem", ("sudo apt install git",))


def setting(subject: Subject, path: str, value: str) -> None:
    file = subject.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value + "\n")


def test_isolation_by_namespaces_is_the_best(subject: Subject) -> None:
    (one,) = environment.isolation(subject)
    assert (one.status, one.run) == ("ok", ())


@pytest.mark.parametrize(
    ("path", "value", "command"),
    [
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("proc/sys/user/max_user_namespaces", "0", "max_user_namespaces=15000"),
        (".dockerenv", "", "docker run --security-opt seccomp=unconfined"),
    ],
)
def test_a_lower_level_says_how_to_get_the_better_one(subject: Subject, path: str, value: str, command: str) -> None:
    setting(subject, path, value)
    (one,) = environment.isolation(replace(subject, isolation=lambda: Cut("seccomp", "unshare: not permitted")))
    assert (one.status, "unshare: not permitted" in one.found) == ("warn", True)
    assert [command in line for line in one.run] == [True]


@pytest.mark.parametrize(("code", "word"), [("isolation", "unshare --user"), ("tool-missing", "--reinstall")])
def test_no_isolation_at_all_blocks(subject: Subject, code: str, word: str) -> None:
    def refuse() -> Cut:
        raise HostError(code, "can't be cut", cause="unshare: no", run=("spark-build doctor", "other"))

    (one,) = environment.isolation(replace(subject, isolation=refuse))
    assert (one.status, one.found, word in one.run[0]) == ("problem", "unshare: no", True)


# memory, disk


def meminfo(subject: Subject, *, total: int, available: int, swap: int = 0, swap_free: int = 0) -> None:
    rows = {"MemTotal": total, "MemAvailable": available, "SwapTotal": swap, "SwapFree": swap_free}
    setting(subject, "proc/meminfo", "\n".join(f"{name}: {size >> 10} kB" for name, size in rows.items()))


def test_enough_memory(subject: Subject) -> None:
    meminfo(subject, total=121 * GIB, available=110 * GIB)
    (one,) = room.memory(subject)
    assert (one.status, one.found) == ("ok", "110 GiB of 121 GiB free")


def test_a_model_that_holds_the_memory(subject: Subject) -> None:
    meminfo(subject, total=121 * GIB, available=7 * GIB)
    (one,) = room.memory(subject)
    assert (one.status, one.wanted.startswith("8.0 GiB")) == ("warn", True)


def test_the_largest_unit_of_the_recipes_counts(subject: Subject) -> None:
    meminfo(subject, total=32 * GIB, available=20 * GIB)
    heavy = recipe(resources=Resources(classes=(MemoryClass(match="*", mem="18GiB"),)))
    assert [one.status for one in room.memory(subject)] == ["ok"]
    (one,) = room.memory(replace(subject, recipes=(heavy,)))
    assert (one.status, "18.0 GiB for one compilation" in one.wanted) == ("warn", True)


def test_a_cgroup_that_takes_memory_away_is_told(subject: Subject) -> None:
    meminfo(subject, total=121 * GIB, available=110 * GIB)
    setting(subject, "proc/self/cgroup", "0::/box")
    setting(subject, "proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    setting(subject, "sys/fs/cgroup/box/memory.max", str(16 * GIB))
    setting(subject, "sys/fs/cgroup/box/memory.current", str(GIB))
    memory, limit = room.memory(subject)
    assert memory.found == "15.0 GiB of 16.0 GiB free"
    assert (limit.id, limit.status, "16.0 GiB" in limit.found) == ("cgroup", "info", True)


@pytest.mark.parametrize(
    ("swap", "free", "available", "status", "command"),
    [
        (0, 0, 100, "ok", None),
        (16, 16, 100, "ok", None),
        (16, 7, 100, "warn", "sudo swapoff -a && sudo swapon -a"),
        (16, 7, 8, "warn", "ps -eo rss"),
    ],
)
def test_swap_in_use(subject: Subject, swap: int, free: int, available: int, status: str, command: str | None) -> None:
    meminfo(subject, total=121 * GIB, available=available * GIB, swap=swap * GIB, swap_free=free * GIB)
    (one,) = room.swap(subject)
    assert one.status == status
    assert command is None or one.run[0].startswith(command)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
def test_a_small_disk(subject: Subject) -> None:
    with mounted(subject.cwd / "small", "size=4m") as small:
        got = {one.id: one for one in storage.disk(replace(subject, wheelhouse=Place(path=small / "not" / "yet")))}
    assert got["disk.wheelhouse"].status == "warn"
    assert got["disk.wheelhouse"].run == ("spark-build gc",)
    assert "4.0 MiB free" in got["disk.wheelhouse"].found


@pytest.mark.root
def test_a_disk_without_room_for_more_files(subject: Subject) -> None:
    with mounted(subject.cwd / "few", "size=3g,nr_inodes=100") as few:
        got = next(iter(storage.disk(replace(subject, wheelhouse=Place(path=few)))))
    assert (got.status, "files more" in got.found) == ("warn", True)


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "word", "command"),
    [("ro", "read-only", "sudo mount -o remount,rw"), ("noexec", "noexec", "sudo mount -o remount,exec")],
)
def test_a_wheelhouse_on_a_mount_that_will_not_do(subject: Subject, options: str, word: str, command: str) -> None:
    with mounted(subject.cwd / "mount", options) as place:
        (one,) = storage.wheelhouse(replace(subject, wheelhouse=Place(path=place / "house")))
    assert (one.status, word in one.found) == ("problem", True)
    assert one.run[0] == f"{command} {place}"


@pytest.mark.root
def test_a_wheelhouse_below_a_folder_of_the_system_never_asks_to_take_that_over() -> None:
    code = """
import json, os, pathlib
from types import SimpleNamespace
from builder.host.checks import storage
from builder.host.checks.finding import Place
os.setuid(65534)
(one,) = storage.wheelhouse(SimpleNamespace(wheelhouse=Place(path=pathlib.Path("/not there/wheels"))))
print(json.dumps([one.status, one.run[0]]))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == ["problem", "sudo install -d -o \"$(id -un)\" '/not there/wheels'"]


def test_a_wheelhouse_on_a_network_file_system(subject: Subject) -> None:
    (one,) = storage.wheelhouse(replace(subject, wheelhouse=Place(path=subject.cwd / "house", network="nfs4")))
    assert (one.status, "nfs4" in one.found) == ("problem", True)
    assert one.run[0] == "spark-build index export DIR"


# all of them


def test_no_check_ends_the_others(subject: Subject) -> None:
    """TMPDIR isn't there, PATH is empty, /proc has nothing."""
    broken = replace(subject, temporary=subject.cwd / "gone", env={"PATH": ""}, root=subject.cwd / "nowhere")
    got = list(look(broken))
    assert {"machine", "memory", "isolation", "wheelhouse", "configuration"} <= {one.id for one in got}
    assert [one.id for one in got if one.status == "problem"]


FINDINGS = (
    Finding(id="gpu", status="ok", found="NVIDIA GB10, compute capability 12.1, driver 580.95.05"),
    Finding(id="machine", status="info", found="x86_64", wanted="aarch64 (GB10)", why="wheels run on x86_64 only"),
    Finding(
        id="memory",
        status="warn",
        found="7.0 GiB of 121 GiB free",
        wanted="8.0 GiB",
        why="one compiler at a time, and that one may be killed; stop what holds the memory, a model server mostly",
        run=("ps -eo rss,pid,comm --sort=-rss | head",),
    ),
    Finding(
        id="python",
        status="problem",
        found="3.12.3 at /usr/bin/python3.12: no /usr/include/python3.12/Python.h",
        wanted="the headers of Python 3.12",
        why="extension modules include Python.h",
        run=("sudo apt install python3.12-dev", "sudo apt install " + "x" * 90),
    ),
)

GOLDEN = f"""\
 ✔ gpu              NVIDIA GB10, compute capability 12.1, driver 580.95.05
 · machine          x86_64
                    why     wheels run on x86_64 only
 ▲ memory           7.0 GiB of 121 GiB free
                    wanted  8.0 GiB
                    why     one compiler at a time, and that one may be killed;
                            stop what holds the memory, a model server mostly
                    fix     ps -eo rss,pid,comm --sort=-rss | head
 ✘ python           3.12.3 at /usr/bin/python3.12: no
                    /usr/include/python3.12/Python.h
                    wanted  the headers of Python 3.12
                    why     extension modules include Python.h
                    fix     sudo apt install python3.12-dev
                            sudo apt install {"x" * 90}
 1 problem blocks building, 1 warning.  Machine-readable: spark-build doctor --json"""


def test_the_table_at_80_columns() -> None:
    assert "\n".join(table(FINDINGS, style=PLAIN, width=80)) == GOLDEN


@pytest.mark.parametrize(
    ("count", "last"),
    [
        (1, " ready to build.  Machine-readable: spark-build doctor --json"),
        (3, " ready to build, 1 warning.  Machine-readable: spark-build doctor --json"),
    ],
)
def test_the_last_line_says_whether_to_go_on(count: int, last: str) -> None:
    assert table(FINDINGS[:count], style=PLAIN, width=80)[-1] == last


def test_colour_marks_the_mark_and_no_state_is_told_by_it_alone() -> None:
    colored = table(FINDINGS, style=replace(PLAIN, color=True), width=80)
    assert colored[0].startswith(" \x1b[32m✔\x1b[0m gpu ")
    assert PLAIN.fit("✘") == "✘"
    assert replace(PLAIN, encoding="ascii").fit(" ✘ ✔ ▲ ·") == " x + ! -"
