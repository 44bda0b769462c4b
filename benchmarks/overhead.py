"""What the launcher costs: milliseconds a compile, and memory while it waits.

    python benchmarks/overhead.py --launcher PATH [--broker PATH] [--ccache PATH] [--runs 200] [--check]

Each command is run by itself and through the launcher in turns, with a trivial broker in Python that grants at once, and
with the real one where it is given. A tiny compile's object is synced to the disk too; what that alone costs here is in the
table. Then 256 chains of launcher, ccache and launcher wait at once for a broker that doesn't answer, and their private
memory is read from /proc/PID/smaps_rollup. Limits that ``--check`` holds: 2 ms in the median, 1 MiB a chain. On a machine
that is busy otherwise, compilers give way, as they are niced: measure on a quiet one; the table names the load.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIMIT_MS, LIMIT_KIB, CHAINS = 2.0, 1024, 256


def serve(folder: Path, *, grants: bool) -> list[socket.socket]:
    """Listen in `folder` as a broker that grants everything at once, or never; return the connections, still filling."""
    held: list[socket.socket] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "broker-0-0.sock"))
    listener.listen(512)
    (folder / "broker.lock").write_text("broker-0-0.sock\n")

    def answer(client: socket.socket) -> None:
        while text := client.recv(65536):
            if grants and text.startswith(b"unit"):
                client.send(b"go\nbytes 1073741824\nattempt 1\nalone 0\n")
            elif text.startswith(b"end"):
                client.send(b"done\n")

    def accept() -> None:
        while True:
            client = listener.accept()[0]
            held.append(client)
            if grants:
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return held


def took(command: list[str], folder: Path, env: dict[str, str]) -> float:
    """Run it; return milliseconds."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return (time.perf_counter() - start) * 1000


def added(command: list[str], launcher: str, folder: Path, env: dict[str, str], runs: int) -> tuple[float, float]:
    """Return the median time without the launcher and what it adds to that, in turns."""
    plain, ours = [], []
    for _run in range(runs):
        plain.append(took(command, folder, env))
        ours.append(took([launcher, *command], folder, env))
    return statistics.median(plain), statistics.median(ours) - statistics.median(plain)


def sync_ms(folder: Path, runs: int) -> float:
    """Return the median time of syncing a new small file and its folder."""
    times = []
    for run in range(runs):
        path = folder / f"synced{run}"
        path.write_bytes(bytes(2000))
        start = time.perf_counter()
        for name in (path, folder):
            file = os.open(name, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def private_kib(pid: int) -> int:
    """Return the private memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def below(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in below(int(child)))]


def waiting(launcher: str, ccache: str, root: Path, env: dict[str, str]) -> float:
    """Let many chains wait; return the mean private memory of one in KiB."""
    gate = root / "silent"
    gate.mkdir()
    held = serve(gate, grants=False)
    env = env | {"SPARK_BUILD_GATE": str(gate), "SPARK_BUILD_CCACHE": ccache}
    env |= {"CCACHE_DIR": str(root / "cache"), "CCACHE_DEPEND": "1"}
    started = []
    for number in range(CHAINS):
        (root / f"w{number}.c").write_text(f"int w{number};\n")
        command = [launcher, "gcc", "-MD", "-c", f"w{number}.c", "-o", f"w{number}.o"]
        started.append(
            subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    until = time.monotonic() + 120
    while len(held) < CHAINS and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    chains = [below(process.pid) for process in started]
    if any(len(chain) != len(("launcher", "ccache", "launcher")) for chain in chains):
        sys.exit(f"not every chain waits: {len(held)} of {CHAINS}")
    parts = [statistics.mean(private_kib(chain[place]) for chain in chains) for place in range(3)]
    print(f"   private KiB, mean of {CHAINS}: launcher {parts[0]:.0f}, ccache {parts[1]:.0f}, launcher {parts[2]:.0f}")
    for process in started:
        process.terminate()
    for process in started:
        process.wait()
    return sum(parts)


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(sys.executable).parent
    parser.add_argument("--launcher", type=Path, default=beside / "spark-build-launch")
    parser.add_argument("--ccache", type=Path, default=beside / "ccache")
    parser.add_argument("--broker", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    launcher = str(args.launcher.absolute())
    root = Path(tempfile.mkdtemp(prefix="overhead-"))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CCACHE_", "SPARK_BUILD_"))}
    env |= {"SPARK_BUILD_BUILD": "overhead", "SPARK_BUILD_ROOT": str(root), "TMPDIR": str(root)}
    (root / "bin").mkdir()
    true = root / "bin" / "cc"  # by that name the launcher takes it for a compiler
    true.symlink_to(shutil.which("true") or "/bin/true")
    (root / "a.c").write_text("int a;\n")
    commands = {"true": [str(true), "-c", "a.c", "-o", "none.o"], "gcc -c": ["gcc", "-c", "a.c", "-o", "a.o"]}
    ok = True
    print(f"   load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {args.runs}")
    print(f"   {sync_ms(root, args.runs):6.2f} ms  a sync of one new object and its folder, alone")
    sides = {"trivial broker": root / "trivial"}
    sides["trivial broker"].mkdir()
    serve(sides["trivial broker"], grants=True)
    broker = None
    if args.broker:
        sides["real broker"] = root / "real"
        sides["real broker"].mkdir()
        broker = subprocess.Popen(
            [args.broker, "--foreground", "--folder", root / "real"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
    for side, folder in sides.items():
        for name, command in commands.items():
            plain, more = added(command, launcher, root, env | {"SPARK_BUILD_GATE": str(folder)}, args.runs)
            good = more <= LIMIT_MS
            ok = ok and good
            print(
                f"{'ok' if good else 'NO'} {more:6.2f} ms  added to {plain:.2f} ms of {name}, {side}   <= {LIMIT_MS} ms"
            )
    chain = waiting(launcher, str(args.ccache.absolute()), root, env)
    good = chain <= LIMIT_KIB
    print(
        f"{'ok' if good else 'NO'} {chain:6.0f} KiB a waiting chain of launcher, ccache, launcher   <= {LIMIT_KIB} KiB"
    )
    if broker:
        broker.terminate()
        broker.wait()
    shutil.rmtree(root)
    return 1 if args.check and not (ok and good) else 0


if __name__ == "__main__":
    sys.exit(main())
