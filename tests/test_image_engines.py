"""Engines that build images: the same calls, the same answers, whichever it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import BuildFailed, HostError, UsageError
from builder.image import engines as finding
from builder.image.engine import Container, Order
from builder.image.steps import Steps
from builder.image.words import image_of
from tests import bases
from tests.engine_kit import NAMES, lacking
from tests.wheelhouse_kit import NOBODY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.engine_kit import Engines, Kit

pytestmark = pytest.mark.root


@pytest.fixture(params=NAMES)
def kit(request: pytest.FixtureRequest, engines: Engines) -> Kit:
    return engines.get(request.param)


@pytest.fixture(params=[NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def either(request: pytest.FixtureRequest, engines: Engines) -> Kit:
    """The first engine, and with --slow each."""
    return engines.get(request.param)


# Steps whose words are looked for sleep before they end: Buildah's chroot isolation loses the last ones of a short step when
# the machine is busy (1 of 60, seen with 1.28.2).
def _context(folder: Path, *lines: str, **files: str) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "data" / name).write_text(text)
    (folder / "Dockerfile").write_text("\n".join(["ARG BASE", "FROM ${BASE}", *lines, ""]))
    return folder


def test_an_image_is_built_looked_at_and_run(kit: Kit, tmp_path: Path) -> None:
    said: list[str] = []
    engine = kit.find()
    context = _context(
        tmp_path,
        "ARG WORD",
        "RUN --mount=type=bind,source=data,target=/data cp /data/x /x; cat /proc/net/dev > /net",
        "RUN echo step said $WORD; sleep 1",
        'ENV COLOUR=blue\nLABEL team="a b"\nUSER 1000\nENTRYPOINT ["/bin/false"]',
        x="from the context",
    )
    order = Order(
        context=context,
        file="Dockerfile",
        tag="shown:1",
        args={"BASE": kit.base("tiny"), "WORD": "hello"},
        network=False,
    )
    ident = engine.build(order, said.append)
    assert any("step said hello" in line for line in said)
    image = engine.inspect("shown:1")
    assert image.id == ident
    assert image.machine == engine.machine
    assert image.labels["team"] == "a b"
    assert image.env["COLOUR"] == "blue"
    assert image.user == "1000"
    assert image.entrypoint == ("/bin/false",)
    assert image.size > 1 << 20
    assert image.layers[0] != image.layers[-1]
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "given").write_text("from this machine")
    ran = engine.run(
        "shown:1",
        ["sh", "-c", "cat /x /mnt/given; echo; echo $COLOUR $MORE; id -u; cat /net; echo no > /mnt/given; exit 7"],
        Container(mounts={tmp_path / "mounted": "/mnt"}, env={"MORE": "green"}),
    )
    assert ran.code == 7, ran.err
    assert "from the contextfrom this machine\nblue green\n1000\n" in ran.out
    assert [line.split(":")[0].strip() for line in ran.out.splitlines() if ":" in line] == ["lo"]
    assert (tmp_path / "mounted" / "given").read_text() == "from this machine"


def _order(
    context: Path,
    kit: Kit,
    tag: str,
    *,
    network: bool = False,
    epoch: int | None = None,
    cached: bool = False,
    renewed: bool = False,
    secrets: Mapping[str, Path] | None = None,
) -> Order:
    return Order(
        context=context,
        file="Dockerfile",
        tag=tag,
        args={"BASE": kit.base("tiny")},
        network=network,
        epoch=epoch,
        cached=cached,
        renewed=renewed,
        secrets=secrets or {},
    )


def _quiet(_line: str) -> None:
    pass


def test_a_step_that_fails_is_told_by_its_own_words(kit: Kit, tmp_path: Path) -> None:
    long = "x" * 300
    step = f"RUN echo {long} >/dev/null; echo before; echo error: gcc is too old >&2; echo after; sleep 1; exit 3"
    with pytest.raises(BuildFailed) as caught:
        kit.find().build(_order(_context(tmp_path, "RUN echo fine", step), kit, "fails:1"), _quiet)
    assert caught.value.code == "image-build"
    assert caught.value.summary == f"{kit.engine} couldn't build Dockerfile: a step ended with 3"
    first, second, *rest = caught.value.cause.splitlines()
    assert first == "error: gcc is too old"
    assert "RUN echo xxx" in second
    assert len(second) == 100
    assert rest == ["before", "after"]
    with pytest.raises(UsageError):
        kit.find().inspect("fails:1")


def test_a_file_that_isnt_there_is_told(either: Kit, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        either.find().build(_order(_context(tmp_path, "COPY nothing /"), either, "fails:2"), _quiet)
    assert "/nothing" in caught.value.cause.splitlines()[0]


def test_a_step_that_was_killed_is_told_as_that(either: Kit, tmp_path: Path) -> None:
    step = "RUN sh -c 'kill -9 $$'; exit $?" if either.name != "buildah-chroot" else "RUN kill -9 $$"
    with pytest.raises(BuildFailed) as caught:
        either.find().build(_order(_context(tmp_path, step), either, "fails:3"), _quiet)
    assert "ended with 137" in caught.value.summary
    assert "memory" in caught.value.help


def test_an_image_that_isnt_there_is_told(either: Kit) -> None:
    for ask in (
        lambda: either.find().inspect("nobody-made:1"),
        lambda: either.find().run("nobody-made:1", ["true"], Container()),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.code == "image-missing"
        assert "nobody-made:1" in caught.value.summary


@pytest.mark.parametrize("name", ["", "-t", "--help", "a b", "a:", "a/", "a;b", "$(id)", "ä"])
def test_what_is_no_name_of_an_image_reaches_no_engine(engines: Engines, tmp_path: Path, name: str) -> None:
    engine = engines.get("buildah-chroot").find()
    order = Order(context=_context(tmp_path), file="Dockerfile", tag=name, network=False)
    for ask in (lambda: engine.inspect(name), lambda: engine.save(name), lambda: engine.build(order, _quiet)):
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.code == "image-name"


def test_a_secret_is_seen_by_a_step_and_is_in_no_layer(either: Kit, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("the certificates of a firm")
    context = _context(
        tmp_path / "context", "RUN --mount=type=secret,id=ca wc -c /run/secrets/ca | cut -d' ' -f1 > /length"
    )
    either.find().build(_order(context, either, "secret:1", secrets={"ca": tmp_path / "ca.pem"}), _quiet)
    ran = either.find().run("secret:1", ["sh", "-c", "cat /length; cat /run/secrets/ca"], Container())
    assert ran.out == "26\n"
    assert ran.code != 0


def test_steps_see_the_machines_network_where_they_may(either: Kit, tmp_path: Path) -> None:
    context = _context(tmp_path, "RUN cat /proc/net/dev | grep -c : > /devices")
    either.find().build(_order(context, either, "open:1", network=True), _quiet)
    here = str(Path("/proc/net/dev").read_text().count(":"))
    assert either.find().run("open:1", ["cat", "/devices"], Container()).out.strip() == here
    inside = either.find().run("open:1", ["grep", "-c", ":", "/proc/net/dev"], Container(network=True))
    assert inside.out.strip() == here


def test_a_bundle_that_changed_is_seen_though_the_file_is_the_same(either: Kit, tmp_path: Path) -> None:
    mount = "RUN --mount=type=bind,source=data,target=/data cp /data/x /x"
    for text in ("first", "second"):
        either.find().build(_order(_context(tmp_path, mount, x=text), either, "changed:1"), _quiet)
        assert either.find().run("changed:1", ["cat", "/x"], Container()).out == text


def test_steps_of_an_earlier_build_are_taken_where_that_is_asked(either: Kit, tmp_path: Path) -> None:
    context = _context(tmp_path, "RUN cat /proc/sys/kernel/random/uuid > /once")
    seen = set()
    for _turn in range(2):
        either.find().build(_order(context, either, "once:1", cached=True), _quiet)
        seen.add(either.find().run("once:1", ["cat", "/once"], Container()).out)
    assert len(seen) == 1
    either.find().build(_order(context, either, "once:1", renewed=True), _quiet)
    assert either.find().run("once:1", ["cat", "/once"], Container()).out not in seen


def test_the_same_time_gives_the_same_layers(either: Kit, tmp_path: Path) -> None:
    if either.engine == "docker" and either.find().version.startswith("20."):
        pytest.skip("BuildKit takes SOURCE_DATE_EPOCH since 0.11")
    mount = "RUN --mount=type=bind,source=data,target=/data cp /data/x /x"
    made = []
    for turn in range(2):
        (tmp_path / "context").mkdir(exist_ok=True)
        context = _context(tmp_path / "context", mount, x="same")
        os.utime(context / "data" / "x", (turn, turn))
        either.find().build(_order(context, either, f"same:{turn}", epoch=1_700_000_000), _quiet)
        made.append(either.find().inspect(f"same:{turn}"))
    # Ids differ all the same: Docker's format notes which container it was.
    assert made[0].layers == made[1].layers
    assert made[0].same(made[1])
    assert made[0].created.startswith("2023-11-14T22:13:20")


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_killed_build_leaves_nothing_that_runs_or_is_mounted(engines: Engines, tmp_path: Path, name: str) -> None:
    kit = engines.get(name)
    context = _context(tmp_path, f"RUN echo begun; sleep {313 + NAMES.index(name)}")
    program = f"""
from pathlib import Path
from builder.image.engine import Order
from tests.engine_kit import Kit
kit = Kit(name={kit.name!r}, engine={kit.engine!r}, env={kit.env!r}, folder=Path({str(kit.folder)!r}))
args = dict(BASE={kit.base("tiny")!r})
order = Order(context=Path({str(context)!r}), file="Dockerfile", tag="killed:1", args=args, network=False)
kit.find().build(order, lambda line: print(line, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        while "begun" not in (line := child.stdout.readline()) or "RUN" in line:
            assert line
        child.kill()
    running = mounted = True
    for _turn in range(100):
        running = (
            subprocess.run(
                ["pgrep", "-f", f"sleep {313 + NAMES.index(name)}"], capture_output=True, check=False
            ).returncode
            == 0
        )
        mounted = f"{kit.folder}/root/overlay/" in Path("/proc/self/mountinfo").read_text()
        if not running and not mounted:
            break
        time.sleep(0.1)
    assert not running
    assert not mounted
    kit.find().build(_order(_context(tmp_path, "RUN true"), kit, "killed:1"), _quiet)


def _only(folder: Path, *programs: str) -> dict[str, str]:
    """Return an environment with a search path that has these programs alone."""
    folder.mkdir()
    for program in programs:
        (folder / Path(program).name).symlink_to(program)
    return {**os.environ, "PATH": str(folder)}


def test_the_first_engine_that_works_is_taken_and_why_others_are_not_is_told(engines: Engines, tmp_path: Path) -> None:
    docker, podman, buildah = (engines.get(name).find().words[0] for name in ("docker", "podman", "buildah-oci"))
    dead = {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    told: list[str] = []
    env = {**_only(tmp_path / "all", docker, podman, buildah), **engines.get("podman").env, **dead}
    assert finding.find(env, tell=told.append).name == "podman"
    assert len(told) == 1
    assert "nobody.sock" in told[0]
    env |= engines.get("docker").env
    assert finding.find(env).name == "docker"
    assert finding.find(env, "buildah").name == "buildah"
    env["PATH"] = _only(tmp_path / "one", buildah)["PATH"]
    told.clear()
    assert finding.find(env, tell=told.append).name == "buildah"
    assert told == []  # what isn't here is no news


def test_no_engine_says_what_was_wrong_with_each(tmp_path: Path) -> None:
    env = _only(tmp_path / "none")
    broken = tmp_path / "none" / "podman"
    broken.write_text("#!/bin/sh\necho cannot clone: Operation not permitted >&2; exit 125\n")
    broken.chmod(0o755)
    other = tmp_path / "none" / "docker"  # what podman-docker installs
    other.write_text('#!/bin/sh\necho \'{"Client": {"APIVersion": "4.3"}}\'\n')
    other.chmod(0o755)
    with pytest.raises(HostError) as caught:
        finding.find(env)
    assert caught.value.code == "engine-missing"
    docker, podman, buildah = caught.value.cause.splitlines()
    assert "doesn't answer as Docker does" in docker
    assert "Operation not permitted" in podman
    assert buildah == "buildah: not installed"
    with pytest.raises(HostError) as caught:
        finding.find(env, "podman")
    assert caught.value.summary == "podman doesn't work here"
    with pytest.raises(UsageError) as unknown:
        finding.find(env, "kaniko")
    assert unknown.value.code == "engine-unknown"


def test_a_client_without_buildkit_is_passed_over_for_the_next_of_that_name(engines: Engines, tmp_path: Path) -> None:
    kit = engines.get("docker")
    env = {**kit.environ(), "PATH": _only(tmp_path / "good", kit.find().words[0])["PATH"]}
    found = finding.find(env, "docker")
    # Docker's own client since 23 without its plugin answers like this; the daemon is real.
    bad = tmp_path / "bad"
    bad.mkdir()
    version = '{"Client": {"Version": "28.2.2"}, "Server": {"Version": "28.2.2"}}'
    (bad / "docker").write_text(
        f"#!/bin/sh\n[ $1 = version ] && echo '{version}' || echo '{{\"ClientInfo\": {{\"Plugins\": []}}}}'\n"
    )
    (bad / "docker").chmod(0o755)
    env["PATH"] = f"{bad}:{env['PATH']}"
    assert finding.find(env, "docker").words == found.words
    env["PATH"] = str(bad)
    with pytest.raises(HostError) as caught:
        finding.find(env, "docker")
    assert "28.2.2) has no BuildKit: its plugin buildx isn't installed" in caught.value.cause


def test_steps_of_buildkit_are_told_apart_though_they_run_at_once() -> None:
    steps = Steps(_quiet)
    for line in (
        "#5 [a 2/2] RUN one",
        "#6 [b 2/2] RUN two",
        "#5 0.100 from one",
        "#6 0.200 error: from two",
        "#5 0.300 more from one",
        '#6 ERROR: process "/bin/sh -c two" did not complete successfully: exit code: 9',
        "#5 CANCELED",
        "------",
        'ERROR: failed to solve: process "/bin/sh -c two" did not complete successfully: exit code: 9',
    ):
        steps(line)
    error = steps.failed("Dockerfile", "docker")
    assert error.summary == "docker couldn't build Dockerfile: a step ended with 9"
    assert error.cause == "error: from two\n[b 2/2] RUN two"


def test_a_command_that_buildkit_repeats_hides_nothing() -> None:
    steps = Steps(_quiet)
    command = '/bin/sh -c echo "error: the base has none"; true'
    for line in ("#5 [2/3] RUN echo", f"#5 ERROR: executor failed running [{command}]: unable to find groups"):
        steps(line)
    assert steps.failed("Dockerfile", "docker").cause == "ERROR: unable to find groups\n[2/3] RUN echo"


@pytest.mark.parametrize(
    "text", ["", "[]", "[{}]", "null", '[{"Id": "x", "Size": "many", "Architecture": "amd64"}]', "[3]"]
)
def test_an_answer_of_an_unknown_kind_is_told(text: str) -> None:
    with pytest.raises(HostError) as caught:
        image_of(text, "some:1")
    assert caught.value.code == "engine-answer"


def test_what_takes_too_long_is_ended_with_its_container(kit: Kit) -> None:
    seconds = f"{613 + NAMES.index(kit.name)}"
    with pytest.raises(HostError) as caught:
        kit.find().run(kit.base("tiny"), ["sleep", seconds], Container(timeout_s=2))
    assert caught.value.code == "tool-timeout"
    running = True
    for _turn in range(100):  # the daemon's part of it ends a moment later
        running = subprocess.run(["pgrep", "-f", f"sleep {seconds}"], capture_output=True, check=False).returncode == 0
        if not running:
            break
        time.sleep(0.1)
    assert not running
    if kit.engine != "buildah":
        assert seconds not in kit.call("ps", "--all", "--no-trunc", "--format", "{{.Command}}")


def test_a_gpu_is_asked_from_engines_that_have_one(engines: Engines) -> None:
    kit = engines.get("buildah-chroot")
    with pytest.raises(HostError) as caught:
        kit.find().run(kit.base("tiny"), ["true"], Container(gpu=True))
    assert caught.value.code == "engine-gpu"


def test_where_the_network_cant_be_cut_nothing_is_built(engines: Engines, tmp_path: Path) -> None:
    kit = engines.get("buildah-chroot")
    context = _context(tmp_path, "RUN true")
    program = f"""
import os
from pathlib import Path
from builder.errors import HostError
from builder.image.engine import Order
from builder.image.engines import find
args = dict(BASE={kit.base("tiny")!r})
try:
    find(dict(os.environ), "buildah").build(
        Order(context=Path({str(context)!r}), file="Dockerfile", tag="uncut:1", args=args, network=False), print
    )
except HostError as error:
    print(error.code, error.cause)
"""
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    words = [*without, sys.executable, "-c", program]
    done = subprocess.run(words, env=kit.environ(), capture_output=True, text=True, check=True)
    assert done.stdout == "engine-network unshare: unshare failed: Operation not permitted\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["buildah", "podman"])
def test_another_user_than_root_builds_and_runs_with_the_network_cut(tmp_path: Path, name: str) -> None:
    for program in (name, "newuidmap", "setpriv"):
        if shutil.which(program) is None:
            lacking(f"{program} isn't installed")
    context = _context(tmp_path / "context", "ADD base.tar /\nENV PATH=/bin", "RUN echo x > /x; chown 1000:1000 /x")
    shutil.copy(bases.archive("tiny"), context / "base.tar")
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text().replace("${BASE}", "scratch"))
    (tmp_path / "ids").write_text("nobody:200000:65536\n")
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    program = f"""
import os
import shutil
from pathlib import Path
from builder.image.engine import Container, Order
from builder.image.engines import find
engine = find(dict(os.environ), {name!r})
assert os.geteuid() == 65534
engine.build(Order(context=Path("context"), file="Dockerfile", tag="other:1", network=False), print)
done = engine.run("other:1", ["sh", "-c", "ls -ln /x; grep : /proc/net/dev"], Container())
print("ENDED", done.code, done.out, done.err)
"""
    (tmp_path / "home").mkdir()
    shutil.copytree(Path(finding.__file__).parents[1], tmp_path / "code" / "builder")
    for folder in (tmp_path, *tmp_path.rglob("*")):
        shutil.chown(folder, 65534, 65534)
    env = {
        "PATH": "/usr/bin:/usr/sbin:/bin:/sbin",
        "HOME": "/mnt/home",
        "XDG_RUNTIME_DIR": "/mnt/home",
        "PYTHONPATH": "/mnt/code",
        "CONTAINERS_CONF": "/mnt/containers.conf",
    }
    # Ids for that user, and a place that it may reach.
    here = 'for file in subuid subgid; do mount --bind ids /etc/$file; done; mount --bind . /mnt; cd /mnt; exec "$@"'
    words = ["unshare", "-mp", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", here, "sh", *NOBODY]
    words += ["/usr/bin/python3", "-c", program]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.partition("ENDED 0 ")[2]
    assert said.split()[2:4] == ["1000", "1000"]
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:] if ":" in line] == ["lo"]
