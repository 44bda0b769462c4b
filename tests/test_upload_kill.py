"""Clients publish and download while the server is killed again and again; what was acknowledged is there, whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from builder import index
from builder.digest import sha256_file
from tests import upload_kit as ups
from tests import wheelhouse_kit as kit
from tests.server_kit import started, token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import World

GONE = (OSError, http.client.HTTPException)


@dataclass
class Clients:
    """What clients saw. Each publisher has a log of its own, written when it was told that the wheel is there."""

    port: int
    secret: str
    folder: Path
    big: Path
    over: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    downloads: int = 0
    resumed: int = 0
    looked: int = 0

    def log(self, number: int) -> Path:
        return self.folder / f"client-{number}.log"

    def acknowledged(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self.folder.glob("client-*.log"):
            found |= dict(json.loads(line) for line in path.read_text().splitlines())
        return found

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def publish(self, number: int) -> None:
        """Publish one wheel after the other; one that wasn't acknowledged is sent again."""
        made = 0
        while not self.over.is_set():
            size = 2_000_000 if made % 5 == 4 else 50_000
            one = kit.make_wheel(self.folder / f"dist-{number}", f"pub{number}", f"{made}.0", size=size)
            while not self.over.is_set():
                if self.sent(one):
                    with self.log(number).open("a") as log:
                        log.write(json.dumps([one.name, sha256_file(one)]) + "\n")
                    break
            made += 1

    def sent(self, one: Path) -> bool:
        body, kind = ups.upload(one), f"multipart/form-data; boundary={ups.BOUNDARY.decode()}"
        client = self.connection()
        try:
            client.request("POST", "/legacy/", body, {"Content-Type": kind, "Authorization": f"Bearer {self.secret}"})
            answer = client.getresponse()
            said = answer.read()
        except GONE:
            time.sleep(0.05)
            return False
        finally:
            client.close()
        if answer.status not in {200, 500, 503}:  # a worker that is killed with its server is ours to mend
            self.wrong.append(f"{one.name}: {answer.status} {said[:200]!r}")
        return answer.status == 200

    def download(self, _number: int) -> None:
        """Download the large wheel; go on where the connection broke."""
        digest, size = sha256_file(self.big), self.big.stat().st_size
        while not self.over.is_set():
            have, found = 0, hashlib.sha256()
            while have < size and not self.over.is_set():
                client = self.connection()
                try:
                    more = {"Range": f"bytes={have}-", "If-Range": f'"{digest}"'} if have else {}
                    client.request("GET", f"/files/{digest}/{self.big.name}", headers=more)
                    answer = client.getresponse()
                    if answer.status != (206 if have else 200):
                        self.wrong.append(f"download: {answer.status} for {more}")
                        return
                    self.resumed += bool(have)
                    while data := answer.read(1 << 20):
                        found.update(data)
                        have += len(data)
                except GONE:
                    time.sleep(0.05)
                finally:
                    client.close()
            if have == size:
                self.downloads += 1
                if found.hexdigest() != digest:
                    self.wrong.append("a download has other bytes")

    def look(self, number: int) -> None:
        """Whatever a page lists has to come, whole."""
        rng = random.Random(number)  # noqa: S311  # which one is looked at
        while not self.over.is_set():
            client = self.connection()
            try:
                name = f"pub{rng.randrange(number)}"
                client.request("GET", f"/simple/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
                answer = client.getresponse()
                text = answer.read()
                files = json.loads(text)["files"] if answer.status == 200 else []
                for one in rng.sample(files, min(3, len(files))):
                    client.request("GET", f"/simple/{name}/{one['url']}".replace(f"/simple/{name}/../..", ""))
                    answer = client.getresponse()
                    data = answer.read()
                    self.looked += 1
                    if answer.status != 200 or hashlib.sha256(data).hexdigest() != one["hashes"]["sha256"]:
                        self.wrong.append(f"{one['filename']} is offered, and gives {answer.status}, {len(data)} bytes")
            except GONE:
                time.sleep(0.05)
            finally:
                client.close()


def run(world: World, *, clients: int, kills: int, size: int) -> Clients:
    """Let so many publish and as many download, kill the server so often, and check all that there is afterwards."""
    root = world.wheelhouse
    secret = token(root, "ci", "publish")
    big = kit.make_wheel(world.root / "dist", "big", size=size)
    log = world.root / "server.log"
    server = started(root, log=log)
    port = server.port
    all_ = Clients(port=port, secret=secret, folder=world.root / "clients", big=big)
    all_.folder.mkdir()
    assert all_.sent(big)
    jobs: list[tuple[Callable[[int], None], int]] = [(all_.publish, number) for number in range(clients)]
    jobs += [(all_.download, number) for number in range(clients)] + [(all_.look, clients)]
    threads = [threading.Thread(target=job, args=(number,)) for job, number in jobs]
    rng = random.Random(kills)  # noqa: S311  # moments
    try:
        for thread in threads:
            thread.start()
        for _kill in range(kills):
            before = len(all_.acknowledged())
            while len(all_.acknowledged()) == before and not all_.wrong:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1))  # the others are anywhere in the midst of it
            server.kill()
            assert server.process.stdout is not None
            server.process.stdout.close()
            server = started(root, "--port", str(port), log=world.root / f"server-{_kill}.log")
    finally:
        all_.over.set()
        for thread in threads:
            thread.join(120)
    assert all_.wrong == []
    offered = {name: digest for number in range(clients) for name, digest in ups.listed(server, f"pub{number}").items()}
    assert server.stop() == 0
    assert server.process.stdout is not None
    server.process.stdout.close()
    for path in world.root.glob("server*.log"):
        assert "Traceback" not in path.read_text()
    there = ups.whole(root)
    for name, digest in all_.acknowledged().items():
        assert (there.get(name), offered.get(name)) == (digest, digest), name
    ups.nothing_left(root)
    with kit.opened(root) as house:
        index.refresh(house)  # as whoever publishes next does
    world.run("wheels", "verify")
    return all_


def test_what_was_acknowledged_is_there(world: World) -> None:
    seen = run(world, clients=2, kills=3, size=3_000_000)
    assert len(seen.acknowledged()) >= 3
    assert seen.downloads >= 1


@pytest.mark.slow
def test_thirty_kills_with_eight_who_publish_and_eight_who_download(world: World) -> None:
    seen = run(world, clients=8, kills=30, size=400 << 20)
    assert len(seen.acknowledged()) >= 30
    assert min(seen.downloads, seen.resumed, seen.looked) >= 8
