"""The native entry and the levels that it gives, each provoked for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from builder.executor import isolation

ENTER = Path(sys.executable).with_name("spark-build-enter")
SOURCE = Path(__file__).parent.parent / "launcher" / "enter.c"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program under AddressSanitizer and UndefinedBehaviorSanitizer."""
    program = tmp_path_factory.mktemp("enter") / "spark-build-enter"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, *WARNINGS, str(SOURCE), "-o", str(program)], check=True)
    return program


@pytest.fixture(params=["as shipped", "sanitized"])
def enter(request: pytest.FixtureRequest) -> Path:
    if request.param == "as shipped":
        return ENTER
    program: Path = request.getfixturevalue("sanitized")
    return program


def run(*argv: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        check=False,
        # The leak check traces its own process, which the new process namespace forbids.
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        timeout=60,
    )
    assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def shell(enter: Path | str, tree: Path, script: str, *, code: int = 0, before: tuple[str, ...] = ()) -> str:
    words = ["--namespaces", "--bind", str(tree), "tiny", "--chdir", "/sb/tiny", "--", "sh", "-c", script]
    return run(*before, enter, *words, code=code)


def test_tree_appears_at_its_fixed_path_and_nowhere_on_the_machine(enter: Path, tmp_path: Path) -> None:
    before = sorted(Path("/").iterdir())
    assert shell(enter, tmp_path, "pwd; echo made > file; umask") == "/sb/tiny\n0022\n"
    assert (tmp_path / "file").read_text() == "made\n"
    assert sorted(Path("/").iterdir()) == before


def test_everything_else_of_the_machine_is_there_and_the_root_is_read_only(enter: Path, tmp_path: Path) -> None:
    inside = shell(enter, tmp_path, "ls -a / | sort").split()
    wanted = {path.name for path in Path("/").iterdir() if not path.is_socket()}
    assert wanted <= set(inside)
    assert "Read-only file system" in shell(enter, tmp_path, "echo x > /x", code=2)


def test_network_is_loopback_only_and_loopback_works(enter: Path, tmp_path: Path) -> None:
    lines = shell(enter, tmp_path, "cat /proc/net/dev").splitlines()
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["lo"]
    talk = (
        "import socket; a = socket.create_server(('127.0.0.1', 0)); "
        "b = socket.create_connection(a.getsockname()); b.sendall(b'x'); print(a.accept()[0].recv(1))"
    )
    assert shell(enter, tmp_path, f'{sys.executable} -c "{talk}"') == "b'x'\n"
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    assert "Network is unreachable" in shell(enter, tmp_path, f'{sys.executable} -c "{reach}"', code=1)


@pytest.mark.root
def test_plain_user_gets_the_same_by_a_user_namespace(enter: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        program, tree = shutil.copy(enter, folder), Path(folder, "tree")
        tree.mkdir()
        os.chown(folder, 65534, 65534)
        os.chown(tree, 65534, 65534)
        out = shell(program, tree, "id -u; touch mine; cat /proc/net/dev | wc -l; pwd", before=tuple(NOBODY))
        assert out == "65534\n3\n/sb/tiny\n"
        assert (tree / "mine").stat().st_uid == 65534


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_status_is_the_commands(enter: Path, tmp_path: Path, script: str, code: int) -> None:
    shell(enter, tmp_path, script, code=code)


def test_missing_command_is_127(enter: Path) -> None:
    assert "no-such-program" in run(enter, "--namespaces", "--", "no-such-program", code=127)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--namespaces"],
        ["--nonsense", "--", "true"],
        ["--bind", "/srv"],
        ["--bind", "/srv", "x", "--", "true"],
        ["--namespaces", "--bind", "/srv", "a/b", "--", "true"],
        ["--namespaces", "--bind", "/srv", "..", "--", "true"],
    ],
)
def test_wrong_words_are_refused(enter: Path, words: list[str]) -> None:
    assert "usage:" in run(enter, *words, code=2)


def test_missing_tree_is_told(enter: Path) -> None:
    assert "No such file" in run(enter, "--namespaces", "--bind", "/no/such/tree", "x", "--", "true", code=2)


def test_orphans_end_with_the_command(enter: Path, tmp_path: Path) -> None:
    marker = f"300.{os.getpid()}{time.monotonic_ns()}"
    shell(enter, tmp_path, f"setsid sleep {marker} & sleep 0.2")
    assert not _alive(marker)


def test_everything_inside_ends_when_the_parent_is_killed(enter: Path, tmp_path: Path) -> None:
    marker = f"300.{os.getpid()}{time.monotonic_ns()}"
    words = [str(enter), "--namespaces", "--bind", str(tmp_path), "x", "--", "sh", "-c", f"setsid sleep {marker}"]
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({words!r})"])
    _until(lambda: _alive(marker))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _alive(marker))


def _alive(marker: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", marker.encode()]:
                return True
    return False


def _until(holds: object) -> None:
    assert callable(holds)
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_filter_refuses_internet_sockets_and_leaves_unix_ones(enter: Path) -> None:
    script = """
import socket, subprocess, sys
one, other = socket.socketpair()
one.sendall(b"x")
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except PermissionError:
        print("refused")
if len(sys.argv) == 1:
    sys.stdout.flush()
    subprocess.run([*sys.orig_argv, "child"], check=True)
"""
    assert run(enter, "--seccomp", "--", sys.executable, "-c", script) == "refused\n" * 6


def without_network_namespaces(*argv: str | Path) -> list[str]:
    """Return a command that runs `argv` where the kernel gives no network namespace, as hardened machines don't."""
    script = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *map(str, argv)]


def test_refused_namespaces_are_told_in_one_line(enter: Path) -> None:
    told = run(*without_network_namespaces(enter, "--namespaces", "--probe"), code=2)
    assert told.startswith("spark-build-enter: namespaces are refused: ")
    assert told.count("\n") == 1
    run(*without_network_namespaces(enter, "--seccomp", "--probe"))


def test_levels() -> None:
    env = dict(os.environ)
    best = isolation.probe(env, wanted="auto")
    assert (best.level, best.fixed_path, best.reason) == ("namespace", True, "")
    none = isolation.probe(env, wanted="none")
    assert (none.level, none.fixed_path) == ("none", False)


@pytest.mark.parametrize(("wanted", "found"), [("auto", "seccomp"), ("namespace", "isolation")])
def test_levels_where_namespaces_are_refused(wanted: str, found: str) -> None:
    script = (
        "import os\nfrom builder.executor import isolation\nfrom builder.errors import HostError\n"
        f"try:\n    print(isolation.probe(dict(os.environ), wanted={wanted!r}).level)\n"
        "except HostError as error:\n    print(error.code)"
    )
    assert run(*without_network_namespaces(sys.executable, "-c", script)).strip() == found
