"""What a bundle costs: planning beside `uv pip compile`, downloads beside curl and `pip download`, and a resume.

    python benchmarks/bundle.py [--check] [--runs 3] [--megabytes 600] [--folder DIR]

Runs with the `spark-build`, `uv` and `pip` beside this Python, and needs curl and nginx. All of it goes over the loopback,
from one nginx that serves one static index: 200 projects that need each other, a few of them large. Each side of a row
starts with empty caches, and the sides take turns. Downloads are measured three times: as fast as the machine can, where
hashing and writing count; with each connection held to 25 MB/s, as on a real link; and small files alone, by TLS, from a
server 100 ms away (`far.py`), where only handshakes count.

Limits that ``--check`` holds: planning takes at most 2.5 times what one `uv pip compile` takes (it answers three questions:
what belongs in, whether that is the newest, which uv the target needs); downloads reach at least 0.9 of what curl reaches
with as many connections on the held link and on the far one, and of curl with `openssl dgst -sha256` after it where nothing
holds the link, since ours are hashed, too; a download that is killed halfway and started again brings no byte twice but for
what was on its way.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent
COMMAND, UV = BIN / "spark-build", BIN / "uv"
PROJECTS, LARGE, JOBS = 200, 6, 8
PLAN_RATIO, LINK_RATIO, HELD, FAR_MS = 2.5, 0.9, 25 << 20, 100
TARGET = ["--platform", "x86_64-manylinux_2_36", "--target-python", "3.12"]
UV_TARGET = ["--python-platform", "x86_64-manylinux_2_36", "--python-version", "3.12", "--only-binary", ":all:"]

NGINX = """\
daemon off; worker_processes 1; {user} pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
  scgi_temp_path {root}/t5;
  log_format bytes '$bytes_sent';
  server {{ listen 127.0.0.1:{port}{secure}; root {www}; index index.json;
    types {{ application/vnd.pypi.simple.v1+json json; }}
    location /files/ {{ access_log {root}/sent bytes; limit_rate {rate}; }} }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    ours: float
    other: float
    unit: str
    limit: str = ""
    ok: bool = True


def main() -> int:
    """Run all, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a limit isn't held")
    parser.add_argument("--runs", type=int, default=3, help="medians of so many")
    parser.add_argument("--megabytes", type=int, default=600, help="of the large wheels together")
    parser.add_argument("--folder", type=Path, help="a folder on the disk that is to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-bundle-", dir=args.folder) as folder:
        bench = Bench(Path(folder), args.runs)
        make_index(bench.root / "www", args.megabytes << 20)
        make_index(bench.root / "small", LARGE * 20_000)
        make_certificate(bench.root)
        held = True
        for row in itertools.chain(bench.planning(), bench.downloads(), bench.far(), bench.resume()):
            ratio = row.ours / row.other if row.other else 0.0
            mark = "" if row.ok else "  <- not held"
            print(
                f"{row.what:64} {row.ours:9.2f} {row.other:9.2f} {row.unit:5} {ratio:6.2f}  {row.limit}{mark}",
                flush=True,
            )
            held = held and row.ok
    return int(args.check and not held)


def make_index(www: Path, large: int) -> None:
    """Write a static index of `PROJECTS` wheels that need each other, `LARGE` of which share `large` bytes."""
    for number in range(PROJECTS):
        name, info = f"p{number}", f"p{number}-1.0.dist-info"
        needs = "".join(f"Requires-Dist: p{each}\n" for each in (2 * number + 1, 2 * number + 2) if each < PROJECTS)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}"
        file = www / "wheel.new"
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            size = large // LARGE if number >= PROJECTS - LARGE else 20_000
            archive.writestr(f"{name}.bin", random.Random(number).randbytes(size))  # noqa: S311  # just bytes
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        target = www / "files" / digest / f"{name}-1.0-py3-none-any.whl"
        target.parent.mkdir(parents=True)
        file.replace(target)
        target.with_name(f"{target.name}.metadata").write_text(metadata)
        page = www / "simple" / name / "index.json"
        page.parent.mkdir(parents=True)
        entry = {
            "filename": target.name,
            "url": f"../../files/{digest}/{target.name}",
            "hashes": {"sha256": digest},
            "size": target.stat().st_size,
            "core-metadata": {"sha256": hashlib.sha256(metadata.encode()).hexdigest()},
        }
        document = {"meta": {"api-version": "1.1"}, "name": name, "versions": ["1.0"], "files": [entry]}
        page.write_text(json.dumps(document))


def make_certificate(root: Path) -> None:
    """Write key and certificate of the server that is far away."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -addext"
    files = [
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        str(root / "key.pem"),
        "-out",
        str(root / "cert.pem"),
    ]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)


class Bench:
    """Where it happens, and how often."""

    def __init__(self, root: Path, runs: int) -> None:
        self.root, self.runs = root, runs
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "SPARK_BUILD"))
        }
        self.env = {**kept, "UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.url = ""

    @contextlib.contextmanager
    def link(self, rate: int, *, www: str = "www", far: bool = False) -> Iterator[None]:
        """Serve an index, each connection held to `rate` bytes a second; 0 is as fast as can be."""
        port = random.randrange(20_000, 30_000)  # noqa: S311  # any free one
        (self.root / "sent").write_bytes(b"")
        secure = f" ssl; ssl_certificate {self.root}/cert.pem; ssl_certificate_key {self.root}/key.pem" if far else ""
        config = self.root / "nginx.conf"
        config.write_text(
            NGINX.format(
                root=self.root,
                www=self.root / www,
                port=port,
                secure=secure,
                rate=rate,
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        self.url = f"https://127.0.0.1:{port + 1}/simple/" if far else f"http://127.0.0.1:{port}/simple/"
        words = [["nginx", "-c", str(config)]]
        if far:
            late = Path(__file__).with_name("far.py")
            words.append([sys.executable, str(late), str(port + 1), str(port), str(FAR_MS // 2)])
        with contextlib.ExitStack() as stack:
            for each in words:
                stack.callback(stack.enter_context(subprocess.Popen(each, stderr=subprocess.DEVNULL)).terminate)
            time.sleep(1)
            yield

    def timed(self, *works: Callable[[], object]) -> list[float]:
        """Return the median of the seconds that each takes, in turn, with empty caches each time.

        What a work returns, if it isn't nothing, is its time as it says itself.
        """
        took: list[list[float]] = [[] for _work in works]
        for _run in range(self.runs):
            for work, mine in zip(works, took, strict=True):
                for name in ("sources", "house", "cache", "out"):
                    shutil.rmtree(self.root / name, ignore_errors=True)
                (self.root / "out").mkdir()
                began = time.monotonic()
                told = work()
                mine.append(told if isinstance(told, float) and told else time.monotonic() - began)
        return [statistics.median(mine) for mine in took]

    def ours(self, *words: str) -> float:
        """Run ``bundle export`` for all of it and return how long the downloads took, where it says so."""
        own = {"SPARK_BUILD_SOURCES": str(self.root / "sources"), "SPARK_BUILD_WHEELHOUSE": str(self.root / "house")}
        command = [str(COMMAND), "bundle", "export", str(self.root / "out" / "b"), "p0", *TARGET, *words]
        own["SSL_CERT_FILE"] = str(self.root / "cert.pem")
        out = self.run(command, SPARK_BUILD_INDEX_URL=self.url, **own)
        return float(json.loads(out)["bundle"]["seconds"]) if "--json" in words else 0.0

    def run(self, command: list[str], **env: str) -> str:
        """Run a command that has to end well, and return what it printed."""
        return subprocess.run(command, env={**self.env, **env}, check=True, capture_output=True, text=True).stdout

    def planning(self) -> Iterator[Row]:
        """Plan: all questions, beside the one question to uv."""
        wanted = self.root / "wanted.in"
        wanted.write_text("p0\n")
        uv = [
            str(UV),
            "pip",
            "compile",
            "-q",
            "--python",
            sys.executable,
            *UV_TARGET,
            "--format",
            "pylock.toml",
            str(wanted),
        ]
        with self.link(0):
            ours, other = self.timed(
                lambda: self.ours("--dry-run"),
                lambda: self.run(uv, UV_DEFAULT_INDEX=self.url, UV_CACHE_DIR=str(self.root / "cache" / "uv")),
            )
        yield Row(
            what=f"bundle export --dry-run | uv pip compile, {PROJECTS} projects",
            ours=ours,
            other=other,
            unit="s",
            limit=f"<= {PLAN_RATIO}",
            ok=ours <= PLAN_RATIO * other,
        )

    def downloads(self) -> Iterator[Row]:
        """Download: ours; curl with as many connections, the same and then its digests, curl with one, pip."""
        for name, rate in (("as fast as can be", 0), ("25 MB/s a connection", HELD)):
            with self.link(rate):
                files, total = self._files("www")
                took = self.timed(
                    lambda: self.ours("-j", str(JOBS), "--json"),
                    lambda: self._curl(files, "-Z", "--parallel-max", str(JOBS)),  # noqa: B023  # used at once
                    lambda: self._curl(files, "-Z", "--parallel-max", str(JOBS), check=True),  # noqa: B023
                    lambda: self._curl(files),  # noqa: B023
                    self._pip,
                )
            peers = (f"curl -Z, {JOBS} at once", "the same, then openssl dgst", "curl", "pip download")
            for what, other in zip(peers, took[1:], strict=True):
                judged = what == peers[0 if rate else 1]
                yield self._row(f"{name}: ours | {what}", total, took[0], other, judged=judged)

    def far(self) -> Iterator[Row]:
        """Download small files from far away."""
        with self.link(0, www="small", far=True):
            files, total = self._files("small")
            ours, other = self.timed(
                lambda: self.ours("-j", str(JOBS), "--json"),
                lambda: self._curl(files, "-Z", "--parallel-max", str(JOBS)),
            )
        what = f"{PROJECTS} small files, {FAR_MS} ms away: ours | curl -Z, {JOBS} at once"
        yield self._row(what, total, ours, other, judged=True)

    def _files(self, www: str) -> tuple[list[Path], float]:
        """Return the wheels of an index and their megabytes."""
        files = sorted((self.root / www / "files").glob("*/*.whl"))
        return files, sum(file.stat().st_size for file in files) / 1e6

    @staticmethod
    def _row(what: str, total: float, ours: float, other: float, *, judged: bool) -> Row:
        limit = f">= {LINK_RATIO}" if judged else ""
        ok = not judged or ours <= other / LINK_RATIO
        return Row(what=what, ours=total / ours, other=total / other, unit="MB/s", limit=limit, ok=ok)

    def _curl(self, files: list[Path], *words: str, check: bool = False) -> None:
        """Fetch all with one curl, and hash all where that is wanted."""
        out, base = self.root / "out", self.url.removesuffix("simple/")
        urls = [word for file in files for word in ("-O", f"{base}files/{file.parent.name}/{file.name}")]
        command = ["curl", "-sf", "--output-dir", str(out), *words, *urls]
        self.run(command, CURL_CA_BUNDLE=str(self.root / "cert.pem"))
        if check:
            self.run(["openssl", "dgst", "-sha256", *(str(out / file.name) for file in files)])

    def _pip(self) -> None:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-cache-dir", "-d", str(self.root / "out")]
        self.run([*pip, "--index-url", self.url, "p0"])

    def resume(self) -> Iterator[Row]:
        """Kill it halfway: what comes over the link in both runs, beside the bytes of the files."""
        total = sum(file.stat().st_size for file in (self.root / "www" / "files").glob("*/*.whl")) / 1e6
        for name in ("sources", "house", "out"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        own = {"SPARK_BUILD_SOURCES": str(self.root / "sources"), "SPARK_BUILD_WHEELHOUSE": str(self.root / "house")}
        command = [str(COMMAND), "bundle", "export", str(self.root / "out" / "b"), "p0", *TARGET]
        with self.link(HELD):
            env = {**self.env, **own, "SPARK_BUILD_INDEX_URL": self.url}
            with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as first:
                while first.poll() is None and self._here() < total / 2:
                    time.sleep(0.05)
                if first.poll() is not None:
                    sys.exit(f"the export ended with {first.returncode} before it could be killed")
                os.killpg(first.pid, signal.SIGKILL)
            half = self._here()
            (self.root / "sent").write_bytes(b"")
            self.run(command, SPARK_BUILD_INDEX_URL=self.url, **own)
            time.sleep(0.2)
            sent = sum(map(int, (self.root / "sent").read_text().split())) / 1e6
        yield Row(
            what="killed halfway: brought by the second run | lacking after the kill",
            ours=sent,
            other=total - half,
            unit="MB",
            limit="<= 1.02",
            ok=sent <= 1.02 * (total - half) + 1,
        )

    def _here(self) -> float:
        found = 0
        for folder, _folders, names in os.walk(
            self.root / "sources" / "files"
        ):  # what goes meanwhile is no error there
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found += (Path(folder) / name).stat().st_size
        return found / 1e6


if __name__ == "__main__":
    sys.exit(main())
