"""Images brought to other machines, by real ssh into real engines."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError, UsageError
from builder.image import ship
from builder.image.engine import Container, Order
from tests.ship_kit import Hosts, closed_port, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine_kit import Engines, Kit

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path / "ssh")
    yield made
    made.close()


def built(kit: Kit, folder: Path, tag: str, *, size: int = MIB, platform: str | None = None) -> str:
    """Build an image of `size` random bytes and a shell in an engine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_bytes(os.urandom(size))
    first = "FROM scratch" if platform else "ARG BASE\nFROM ${BASE}"
    (folder / "Dockerfile").write_text(f"{first}\nCOPY data /data\nLABEL one=two\n")
    args = {} if platform else {"BASE": kit.base("tiny")}
    order = Order(context=folder, file="Dockerfile", tag=tag, args=args, network=False, platform=platform)
    return kit.find().build(order, lambda _line: None)


def shipped(kit: Kit, tag: str, *names: str, hosts: Hosts) -> tuple[ship.Shipped | ship.Failed, ...]:
    return ship.ship(kit.find(), tag, names, env={**kit.environ(), **hosts.env}, tell=lambda _told: None)


def loading(instead: str) -> str:
    """Return what a host runs that does something else `instead` of loading an image, and all else as asked."""
    return f'case "$SSH_ORIGINAL_COMMAND" in *load) {instead} ;; *) eval "$SSH_ORIGINAL_COMMAND" ;; esac'


def refused(outcome: ship.Shipped | ship.Failed) -> HostError:
    assert isinstance(outcome, ship.Failed), outcome
    assert isinstance(outcome.error, HostError)
    return outcome.error


def test_an_image_gets_into_two_engines_at_once_and_isnt_sent_again(
    engines: Engines,
    hosts: Hosts,
    tmp_path: Path,
) -> None:
    here, docker, podman = (engines.get(name) for name in ("buildah-chroot", "docker", "podman"))
    ident = built(here, tmp_path / "context", "ship-both:1", size=3 * MIB)
    names = (hosts.add("spark1", docker), hosts.add("spark2", podman))
    heard: list[ship.Told] = []
    first = ship.ship(here.find(), "ship-both:1", names, env={**here.environ(), **hosts.env}, tell=heard.append)
    for outcome, kit in zip(first, (docker, podman), strict=True):
        assert isinstance(outcome, ship.Shipped), outcome
        assert not outcome.there
        assert outcome.sent > 5 * MIB
        assert kit.find().inspect("ship-both:1").id == ident
        assert kit.find().run("ship-both:1", ["wc", "-c", "/data"], Container()).out.split()[0] == str(3 * MIB)
    assert [outcome.host for outcome in first] == ["spark1", "spark2"]
    for name in names:
        assert max(one.sent for one in heard if one.host == name) > 5 * MIB
    again = shipped(here, "ship-both:1", *names, hosts=hosts)
    assert [(one.there, one.sent) for one in again if isinstance(one, ship.Shipped)] == [(True, 0), (True, 0)]


@pytest.mark.parametrize(
    ("source", "target"), [("podman", "docker"), pytest.param("docker", "podman", marks=pytest.mark.slow)]
)
def test_it_has_the_short_name_there_whatever_the_engines_call_it(
    engines: Engines,
    hosts: Hosts,
    tmp_path: Path,
    source: str,
    target: str,
) -> None:
    here, there = engines.get(source), engines.get(target)
    tag = f"ship-name-{source}:1"
    built(here, tmp_path / "context", tag)
    # What has the name there is another image, and goes on being found by its own name until then.
    old = built(there, tmp_path / "other", tag)
    (outcome,) = shipped(here, tag, hosts.add("spark", there), hosts=hosts)
    assert isinstance(outcome, ship.Shipped), outcome
    now = there.find().inspect(tag)
    assert now.same(here.find().inspect(tag))
    assert now.id != old
    there.call("tag", now.id, "ship-other-name:1")
    there.call("rmi", tag)
    (again,) = shipped(here, tag, "spark", hosts=hosts)
    assert isinstance(again, ship.Shipped)
    assert again.there
    assert there.find().inspect(tag).id == now.id


def test_a_host_that_fails_holds_no_other_up(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here, podman = engines.get("buildah-chroot"), engines.get("podman")
    tag = "ship-some:1"
    built(here, tmp_path / "context", tag)
    hosts.know("away", closed_port())
    hosts.add("bare")
    hosts.add("asleep", engines.get("docker"), DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    hosts.add("spark", podman)
    outcomes = shipped(here, tag, "away", "bare", "asleep", "spark", hosts=hosts)
    away, bare, asleep = (refused(one) for one in outcomes[:3])
    assert away.code == "ship-connection"
    assert "Connection refused" in away.cause
    assert (bare.code, bare.cause) == ("ship-engine", "docker: not installed; podman: not installed")
    assert asleep.code == "ship-engine"
    assert "nobody.sock" in asleep.cause
    assert "podman: not installed" in asleep.cause
    assert isinstance(outcomes[3], ship.Shipped)
    error = ship.error(tag, outcomes)
    assert isinstance(error, HostError)
    assert "3 of 4 hosts don't have ship-some:1" in error.summary
    assert "Connection refused" in error.cause
    assert ship.error(tag, outcomes[:1] + outcomes[3:]) is away
    assert ship.error(tag, outcomes[3:]) is None


def test_a_key_that_isnt_known_there_is_told(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here = engines.get("buildah-chroot")
    built(here, tmp_path / "context", "ship-key:1")
    hosts.add("spark")
    (hosts.folder / "user.pub").write_text("")
    error = refused(shipped(here, "ship-key:1", "spark", hosts=hosts)[0])
    assert error.code == "ship-connection"
    assert "Permission denied (publickey)" in error.cause
    assert error.run == ("ssh -o BatchMode=yes spark true",)


def test_a_connection_that_breaks_in_the_midst_is_told_with_how_far_it_was(
    engines: Engines,
    hosts: Hosts,
    tmp_path: Path,
) -> None:
    here, there = engines.get("buildah-chroot"), engines.get("podman")
    tag = "ship-broken:1"
    built(here, tmp_path / "context", tag, size=24 * MIB)
    hosts.add("spark", there, force=loading("head -c 9000000 >/dev/null; kill -9 $PPID"))
    error = refused(shipped(here, tag, "spark", hosts=hosts)[0])
    assert error.code == "ship-connection"
    assert "broke after" in error.summary
    with pytest.raises(UsageError):
        there.find().inspect(tag)
    hosts.add("spark-again", there)
    assert isinstance(shipped(here, tag, "spark-again", hosts=hosts)[0], ship.Shipped)


def test_what_arrived_is_compared(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here, there = engines.get("buildah-chroot"), engines.get("podman")
    tag = "ship-lost:1"
    built(here, tmp_path / "context", tag)
    hosts.add("spark", there, force=loading("cat >/dev/null"))
    (outcome,) = shipped(here, tag, "spark", hosts=hosts)
    assert isinstance(outcome, ship.Failed)
    assert outcome.error.code == "ship-image"
    assert outcome.error.exit_code == 5
    assert "nothing is there" in outcome.error.cause


@pytest.mark.slow
def test_what_a_shell_says_to_everybody_is_no_answer(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here, there = engines.get("buildah-chroot"), engines.get("podman")
    tag = "ship-motd:1"
    built(here, tmp_path / "context", tag)
    hosts.add("spark", there, force='echo "engine none"; echo image; eval "$SSH_ORIGINAL_COMMAND"')
    hosts.add("closed", there, force="echo This account is closed.; exit 1")
    good, bad = shipped(here, tag, "spark", "closed", hosts=hosts)
    assert isinstance(good, ship.Shipped)
    assert refused(bad).code == "ship-shell"


@pytest.fixture
def small(engines: Engines, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Podman's store on a disk of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    text = Path(engines.get("podman").env["CONTAINERS_STORAGE_CONF"]).read_text()
    text = text.replace(str(engines.folder / "podman" / "root"), str(disk / "root")).replace(
        "graphroot", "graphroot", 1
    )
    (tmp_path / "storage.conf").write_text(text)
    (disk / "tmp").mkdir()
    yield {"CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"), "TMPDIR": str(disk / "tmp")}
    subprocess.run(["umount", "-R", str(disk / "root" / "overlay")], capture_output=True, check=False)
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_told_before_and_a_full_one_after(
    engines: Engines,
    hosts: Hosts,
    tmp_path: Path,
    small: dict[str, str],
) -> None:
    here = engines.get("buildah-chroot")
    hosts.add("spark", engines.get("podman"), **small)
    built(here, tmp_path / "large", "ship-large:1", size=20 * MIB)
    before = refused(shipped(here, "ship-large:1", "spark", hosts=hosts)[0])
    assert before.code == "ship-disk"
    # There is room for it, but not for the copy that Podman makes first.
    built(here, tmp_path / "middle", "ship-middle:1", size=9 * MIB)
    after = refused(shipped(here, "ship-middle:1", "spark", hosts=hosts)[0])
    assert after.code == "ship-load"
    assert "no space left on device" in after.cause


def test_an_image_for_another_machine_isnt_sent(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here = engines.get("buildah-chroot")
    other = "x86_64" if here.find().machine == "aarch64" else "aarch64"
    built(
        here, tmp_path / "context", "ship-other:1", platform={"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[other]
    )
    assert here.find().inspect("ship-other:1").machine == other
    hosts.add("spark", engines.get("podman"))
    error = refused(shipped(here, "ship-other:1", "spark", hosts=hosts)[0])
    assert error.code == "ship-machine"
    assert other in error.summary


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "", "a b", "$(id)", "spark;id", "--", "spark\nid"])
def test_what_ssh_would_take_for_something_else_is_no_host(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        ship.hosts_of(["spark1", name])
    assert caught.value.code == "ship-host"


def test_hosts_are_named_as_ssh_knows_them_and_each_once() -> None:
    names = ("spark1", "me@spark2", "ssh://me@spark3:2222", "[fe80::1%eth0]", "spark-4.local")
    assert ship.hosts_of((*names, "spark1")) == names


def test_progress_is_one_line_about_all() -> None:
    lines: list[str] = []
    times = iter((0.0, 1.0, 2.0))
    progress = ship.Progress(lines.append, lambda: next(times))
    progress(ship.Told(host="spark1", sent=MIB, total=4 * MIB))
    progress(ship.Told(host="spark2", sent=3 * MIB, total=4 * MIB))
    assert lines == [
        "to spark1: 1.0 MiB of about 4.0 MiB, 1.0 MiB/s",
        "to 2 hosts: 4.0 MiB of about 8.0 MiB, 2.0 MiB/s",
    ]


@pytest.mark.slow
def test_an_interruption_ends_all_transfers(engines: Engines, hosts: Hosts, tmp_path: Path) -> None:
    here = engines.get("buildah-chroot")
    built(here, tmp_path / "context", "ship-stopped:1", size=8 * MIB)
    names = [hosts.add(name, engines.get("podman"), force=loading("sleep 300")) for name in ("spark1", "spark2")]
    text = f"""
        import os
        from builder.image import engines, ship
        env = dict(os.environ)
        seen = set()
        def tell(told):
            if told.sent and told.host not in seen:
                seen.add(told.host)
                print(told.host, flush=True)
        ship.ship(engines.find(env, "buildah"), "ship-stopped:1", {names!r}, env=env, tell=tell)
    """
    child = script(textwrap.dedent(text), {**here.environ(), **hosts.env})
    assert child.stdout
    assert {child.stdout.readline().strip(), child.stdout.readline().strip()} == set(names)
    child.send_signal(signal.SIGINT)
    _out, err = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in err
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(hosts.folder / "config") not in running
    assert "docker-archive:/dev/stdout:ship-stopped:1" not in running
