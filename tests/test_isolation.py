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
SOURCES = [Path(__file__).parent.parent / "launcher" / name for name in ("enter.c", "tied.c")]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program under AddressSanitizer and UndefinedBehaviorSanitizer."""
    program = tmp_path_factory.mktemp("enter") / "spark-build-enter"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, *WARNINGS, *map(str, SOURCES), "-o", str(program)], check=True)
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
        ["--sweep", "--", "true"],
        ["--tied", "1", "--probe"],
        ["--tied", "1", "--sweep", "--seccomp", "--", "true"],
        ["--sweep", "--tied", "1", "--", "true"],
        ["--seccomp", "--tied", "1", "--", "true"],
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


def marked(tmp_path: Path) -> tuple[str, str]:
    """Return a marker, and a script that leaves two daemons in sessions of their own and goes on when they are there."""
    marker = f"300.{os.getpid()}{time.monotonic_ns()}"
    daemon = f"setsid sleep {marker} & touch {tmp_path}/up; exec sleep {marker}"
    return marker, f"(setsid sh -c '{daemon}' >/dev/null 2>&1 &); until [ -e {tmp_path}/up ]; do sleep 0.01; done; "


def swept(enter: Path, room: list[str], script: str) -> list[str]:
    """Return the command of a build whose level has no process namespace; the word for its parent is left open."""
    return [str(enter), "--tied", "{}", "--sweep", "--", str(enter), *room, "--", "sh", "-c", script]


def beneath(words: list[str]) -> subprocess.Popen[bytes]:
    """Start `words`, bound to this process."""
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.Popen([word if word != "{}" else str(os.getpid()) for word in words], env=env)


ROOMS = pytest.mark.parametrize("room", [["--seccomp"], []], ids=["seccomp", "none"])


@ROOMS
@pytest.mark.parametrize(("end", "status"), [("exit 7", 7), ("kill -15 $$", -15), ("exec kill -9 $$", -9)])
def test_daemons_end_with_the_command(enter: Path, tmp_path: Path, room: list[str], end: str, status: int) -> None:
    marker, leave = marked(tmp_path)
    with subprocess.Popen(["sleep", "20"]) as other:
        ended = beneath(swept(enter, room, leave + end)).wait(20)
        still = other.poll() is None  # a child of the same parent
        other.kill()
    assert ended == status
    assert not _alive(marker)
    assert still


@ROOMS
def test_daemons_end_when_the_parent_is_killed(enter: Path, tmp_path: Path, room: list[str]) -> None:
    marker, leave = marked(tmp_path)
    start = (
        f"import os, subprocess; words = {swept(enter, room, leave + 'touch ' + str(tmp_path / 'on') + '; sleep 60')!r}\n"
        "subprocess.run([word if word != '{}' else str(os.getpid()) for word in words])"
    )
    with subprocess.Popen([sys.executable, "-c", start]) as parent:
        _until((tmp_path / "on").exists)
        assert _alive(marker)
        parent.kill()
    _until(lambda: not _alive(marker))


@pytest.mark.parametrize(
    ("number", "whole", "status"),
    [
        (signal.SIGUSR1, False, -9),
        (signal.SIGTERM, True, -15),
        (signal.SIGTERM, False, -9),  # the command doesn't hear of it, and has its time
    ],
)
def test_daemons_end_when_that_is_told(enter: Path, tmp_path: Path, number: int, whole: bool, status: int) -> None:  # noqa: FBT001
    marker, leave = marked(tmp_path)
    child = beneath(swept(enter, ["--seccomp"], f"{leave} touch {tmp_path}/on; exec sleep 60"))
    _until((tmp_path / "on").exists)
    assert _alive(marker)
    (os.killpg if whole else os.kill)(child.pid, number)
    assert child.wait(20) == status
    assert not _alive(marker)


def test_daemon_has_time_for_its_last_words_and_is_not_waited_for_when_it_has_none(enter: Path, tmp_path: Path) -> None:
    marker, leave = marked(tmp_path)
    words = f"{leave} setsid sh -c 'sleep 0.3; echo second' & echo first"
    line = [word if word != "{}" else str(os.getpid()) for word in swept(enter, [], words)]
    assert run(*line) == "first\nsecond\n"
    assert not _alive(marker)


def test_a_family_that_goes_on_forking_is_ended(enter: Path, tmp_path: Path) -> None:
    """Each of them lives for a moment only, and has a session of its own."""
    code = (
        "import os, pathlib, time\n"
        "while True:\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid(); time.sleep(0.001)\n"
        f"    pathlib.Path({str(tmp_path / 'count')!r}).write_text(str(os.getpid()))\n"
    )
    (tmp_path / "family.py").write_text(code)
    script = f"{sys.executable} -I -S {tmp_path}/family.py; sleep 0.3"
    assert beneath(swept(enter, ["--seccomp"], script)).wait(20) == 0
    last = (tmp_path / "count").read_text()
    time.sleep(0.2)
    assert (tmp_path / "count").read_text() == last


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
