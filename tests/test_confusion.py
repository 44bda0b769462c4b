"""Names of ours on somebody else's index: what the server answers, and what the configurations that we write make of it.

The other index is a plain static one, and offers 99.0 of everything that is ours: published, reserved, quarantined, removed,
yanked. The rows without our configuration are here, too: they show that the stranger's wheel would really be taken.
"""

from __future__ import annotations

import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from builder import index
from builder.wheelhouse import states
from tests import clients_kit, wheel_kit, wheelhouse_kit
from tests.clients_kit import installed
from tests.index_kit import serve
from tests.relay_kit import relayed
from tests.server_kit import serving
from tests.world import World

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.clients_kit import Client
    from tests.relay_kit import Relay
    from tests.server_kit import Server

#: What became of each name; the published one is the only one that anybody may get, at 1.0.
PUBLISHED, WITHHELD = "acme", ("acme-reserved", "acme-quarantined", "acme-removed", "acme-closed")
YANKED, TOP, FOREIGN = "acme-yanked", "acme-top", "public-thing"
NAMES = (PUBLISHED, *WITHHELD, YANKED)
#: Public packages that need names of ours, as anybody's may.
NEEDING = {f"public-needs-{number}": name for number, name in enumerate(NAMES)}
EVIL = "99.0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A wheelhouse with a name in each state, and one that is only reserved."""
    world = World(tmp_path_factory.mktemp("ours"))
    (world.config / "config.toml").write_text('[index]\nreserve = ["acme-reserved", "acme-kept-*"]\n')
    with wheel_kit.open_house(world.wheelhouse) as house:
        for name in (PUBLISHED, *WITHHELD[1:], YANKED, TOP):
            requires = [PUBLISHED] if name == TOP else []
            made = wheelhouse_kit.wheel(world.root / "made", name.replace("-", "_"), "1.0", requires=requires)
            wheelhouse_kit.publish(house, [made], fingerprint=made.sha256, recipe=name)
        states.set(house, [house.get("acme_quarantined-1.0-py3-none-any.whl")], "quarantined", "not ours")
        states.set(house, [house.get("acme_yanked-1.0-py3-none-any.whl")], "yanked", "crashes")
        states.status(house, "acme-closed", "quarantined", "taken over")
        house.remove(house.get("acme_removed-1.0-py3-none-any.whl"))
    return world


@pytest.fixture(scope="module")
def server(place: World) -> Iterator[Server]:
    with serving(place) as server:
        yield server


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Somebody else's index, with 99.0 of all our names, a name of its own, and packages that need ours."""
    root = tmp_path_factory.mktemp("public")
    with wheel_kit.open_house(root / "house") as house:
        for name in (*NAMES, FOREIGN, *NEEDING):
            more: dict[str, Any] = {"requires": [NEEDING[name]]} if name in NEEDING else {"text": b"EVIL = 1\n"}
            for version in [EVIL, "1.0"] if name == PUBLISHED else [EVIL]:
                made = wheelhouse_kit.wheel(root / "made", name.replace("-", "_"), version, **more)
                wheelhouse_kit.publish(house, [made], fingerprint=made.sha256, recipe=name)
        tree = index.export(house, root / "tree").path
    with serve(tree) as stranger:
        yield stranger.url


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    with relayed(f"{server.url}simple/") as relay:
        yield relay


@pytest.fixture
def named(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[[str], Client]:
    """Clients by name."""
    return lambda name: clients_kit.client(name, tmp_path / "home", tmp_path_factory)


@pytest.fixture
def uv(named: Callable[[str], Client]) -> Client:
    return named("uv")


@pytest.fixture
def pip(named: Callable[[str], Client]) -> Client:
    return named("pip")


def both(client: Client, ours: str, public: str, target: Path, *words: str) -> dict[str, str]:
    """Install with our index and the public one as people do it by hand; return what came."""
    ways = {"pip": ("--extra-index-url", public), "uv": ("--index", ours)}
    client.install(*{"pip": (ours,), "uv": (public,)}[client.name], target, *ways[client.name], *words)
    return installed(target)


# --- by hand: what the server can do, and where it can't help


def test_uv_by_hand_is_safe_with_every_name_that_is_ours(
    uv: Client, server: Server, public: str, tmp_path: Path
) -> None:
    """uv asks our index first and stays there, since it never says that it doesn't know a name of ours."""
    for channel in ("", "local/", "no-such/channel/", "no-such/"):
        for name in NAMES:
            target = tmp_path / channel.replace("/", "-") / name
            came = both(uv, f"{server.url}{channel}simple/", public, target, name)
            allowed = [{}, {PUBLISHED: "1.0"}] if name == PUBLISHED else [{}]
            assert came in allowed, (channel, name)
            if not channel:
                assert came == allowed[-1]


@pytest.mark.parametrize(("status", "came"), [(404, {PUBLISHED: EVIL}), (401, {}), (403, {}), (500, {})])
def test_uv_by_hand_goes_by_the_status(
    uv: Client, relay: Relay, public: str, tmp_path: Path, status: int, came: dict[str, str]
) -> None:
    """A 404 for a name of ours would let the stranger in, so there is none; anything else stops uv."""
    relay.turn = lambda seen: status if seen.is_page else None
    target = tmp_path / "t"
    done = uv.install(public, target, "--index", relay.url, PUBLISHED, UV_HTTP_RETRIES="0")
    assert installed(target) == came
    assert (done.returncode == 0) == bool(came)


@pytest.mark.parametrize(
    ("name", "strategy", "came"),
    [
        (PUBLISHED, "first-index", "1.0"),
        (PUBLISHED, "unsafe-first-match", "1.0"),
        (PUBLISHED, "unsafe-best-match", EVIL),
        ("acme-quarantined", "first-index", None),
        ("acme-quarantined", "unsafe-first-match", EVIL),
        ("acme-quarantined", "unsafe-best-match", EVIL),
    ],
)
def test_uv_by_hand_with_a_strategy(
    uv: Client, server: Server, public: str, tmp_path: Path, name: str, strategy: str, came: str | None
) -> None:
    words = ("--index-strategy", strategy, name)
    found = both(uv, f"{server.url}simple/", public, tmp_path / "t", *words)
    assert found == ({name: came} if came else {})


@pytest.mark.parametrize(
    "name", [PUBLISHED, *(pytest.param(name, marks=pytest.mark.slow) for name in (*WITHHELD, YANKED))]
)
def test_pip_by_hand_takes_the_strangers(pip: Client, server: Server, public: str, tmp_path: Path, name: str) -> None:
    """Whatever our index answers, pip joins all indexes; only a configuration with one index is safe."""
    assert both(pip, f"{server.url}simple/", public, tmp_path / "t", name) == {name: EVIL}


def test_strangers_own_name_goes_on_to_it(uv: Client, server: Server, public: str, tmp_path: Path) -> None:
    """A name that was never ours isn't claimed: public dependencies still come from where they are."""
    assert both(uv, f"{server.url}simple/", public, tmp_path / "t", FOREIGN) == {FOREIGN: EVIL}


# --- by the configurations that `index client-config` writes


@pytest.fixture(scope="module")
def locks(place: World, server: Server) -> Path:
    """Locks of the one project that can be had."""
    folder = place.root / "locks"
    place.run("index", "client-config", "--url", server.url, "--project", PUBLISHED, "--output", str(folder))
    return folder


@pytest.fixture(scope="module")
def written(place: World, server: Server) -> Path:
    """All that the command writes for our server."""
    folder = place.root / "client"
    place.run("index", "client-config", "--url", server.url, "--output", str(folder))
    return folder


def project(folder: Path, tables: str, public: str, *needs: str) -> Path:
    """Make a project that needs such names, with the public index as its own and our tables behind."""
    folder.mkdir(parents=True)
    head = f'[project]\nname = "user"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = {list(needs)}\n'
    index = f'[[tool.uv.index]]\nname = "public"\nurl = "{public}"\ndefault = true\n'
    (folder / "pyproject.toml").write_text(f"{head}\n{tables}\n{index}")
    return folder


def locked(folder: Path) -> dict[str, tuple[str, str]]:
    """Version and index of every package of a lock, if there is one."""
    file = folder / "uv.lock"
    packages: list[dict[str, Any]] = tomllib.loads(file.read_text())["package"] if file.exists() else []
    return {
        one["name"]: (one["version"], one["source"].get("registry", "")) for one in packages if one["name"] != "user"
    }


@pytest.mark.parametrize("name", ["uv", "uv-old"])
def test_generated_uv_takes_no_name_of_ours_from_elsewhere(
    named: Callable[[str], Client], written: Path, server: Server, public: str, tmp_path: Path, name: str
) -> None:
    client = named(name)
    tables = (written / "uv-pyproject.toml").read_text()
    for wanted in NAMES:
        folder = project(tmp_path / wanted, tables, public, wanted)
        done = client.run("lock", "--directory", str(folder), UV_NO_CONFIG="")
        assert (done.returncode == 0) == (wanted == PUBLISHED), done.stderr
        assert not [one for one in locked(folder).values() if one[0] == EVIL]
    folder = tmp_path / PUBLISHED
    assert locked(folder)[PUBLISHED] == ("1.0", f"{server.url}simple/")
    done = client.run("sync", "--directory", str(folder), "--frozen", UV_NO_CONFIG="")
    assert done.returncode == 0, done.stderr
    assert_ours(next((folder / ".venv" / "lib").glob("python*/site-packages")), PUBLISHED)


@pytest.mark.parametrize("name", ["uv", pytest.param("uv-old", marks=pytest.mark.slow)])
def test_generated_uv_ties_what_others_need(
    named: Callable[[str], Client], written: Path, server: Server, public: str, tmp_path: Path, name: str
) -> None:
    """Sources count for what a project needs itself. What its dependencies need has to be tied as well, withheld or not."""
    uv = named(name)
    tables = (written / "uv-pyproject.toml").read_text()
    folder = project(tmp_path / "good", tables, public, TOP, FOREIGN)
    done = uv.run("lock", "--directory", str(folder), UV_NO_CONFIG="")
    assert done.returncode == 0, done.stderr
    found = locked(folder)
    assert found[PUBLISHED] == ("1.0", f"{server.url}simple/")
    assert found[FOREIGN] == (EVIL, public)
    sources = tables[tables.index("[[tool.uv.index]]") :]  # without what ties more than the project's own needs
    for needing, needed in NEEDING.items():
        folder = project(tmp_path / needed, tables, public, needing)
        done = uv.run("lock", "--directory", str(folder), UV_NO_CONFIG="")
        assert (done.returncode == 0) == (needed == PUBLISHED), (needed, done.stderr)
        assert locked(folder).get(needed, ("1.0", ""))[0] == "1.0"
        bare = project(tmp_path / "bare" / needed, sources, public, needing)
        uv.run("lock", "--directory", str(bare), UV_NO_CONFIG="")
        assert locked(bare)[needed] == (EVIL, public)  # so that this test can fail


def test_generated_uv_for_a_channel_that_is_gone(uv: Client, written: Path, public: str, tmp_path: Path) -> None:
    tables = (written / "uv-pyproject.toml").read_text().replace("/simple/", "/no-such/simple/")
    for name in NAMES:
        folder = project(tmp_path / name, tables, public, name)
        assert uv.run("lock", "--directory", str(folder), UV_NO_CONFIG="").returncode != 0
        assert locked(folder) == {}


def assert_ours(target: Path, *names: str) -> None:
    """What was installed is what we made, and there is nothing else of these names."""
    found = {name: version for name, version in installed(target).items() if name in NAMES}
    assert found == dict.fromkeys(names, "1.0")
    for name in names:
        assert (target / name.replace("-", "_") / "__init__.py").read_bytes() == b"VALUE = 1\n"


def configured(pip: Client, conf: Path, target: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return pip.run("install", "--target", str(target), *words, PIP_CONFIG_FILE=str(conf))


@pytest.mark.parametrize("name", ["pip", pytest.param("pip-old", marks=pytest.mark.slow)])
def test_generated_pip_takes_no_name_of_ours_from_elsewhere(
    named: Callable[[str], Client], written: Path, tmp_path: Path, name: str
) -> None:
    client = named(name)
    conf = written / "pip.conf"
    assert configured(client, conf, tmp_path / "t", PUBLISHED).returncode == 0
    assert_ours(tmp_path / "t", PUBLISHED)
    for number, wanted in enumerate((*WITHHELD, YANKED, FOREIGN)):
        assert configured(client, conf, tmp_path / str(number), wanted).returncode != 0
        assert installed(tmp_path / str(number)) == {}
    gone = tmp_path / "gone.conf"
    gone.write_text(conf.read_text().replace("/simple/", "/no-such/simple/"))
    assert configured(client, gone, tmp_path / "gone", PUBLISHED).returncode != 0
    assert installed(tmp_path / "gone") == {}


@pytest.mark.parametrize("name", ["pip", "uv"])
@pytest.mark.parametrize("file", ["requirements.txt", "pylock.toml"])
def test_generated_locks_hold_whatever_another_index_offers(
    named: Callable[[str], Client], locks: Path, public: str, tmp_path: Path, name: str, file: str
) -> None:
    """The stranger has 1.0, too, with other bytes: they are refused, or ours are taken."""
    client = named(name)
    words = ["-r", str(locks / file), "--no-deps"]
    if client.is_pip:
        more = [] if file == "pylock.toml" else ["--extra-index-url", public]
        done = client.run("install", "--target", str(tmp_path / "t"), *words, *more)
        assert done.returncode == 0, done.stderr
        assert_ours(tmp_path / "t", PUBLISHED)
        return
    python = ["--python", sys.executable, "--target", str(tmp_path / "t")]
    done = client.run("pip", "install", "--preview", *python, "--index", public, *words)
    if file == "requirements.txt":  # uv stays with the first index that has the name
        assert done.returncode != 0
        assert "hash" in done.stderr.lower()
        assert installed(tmp_path / "t") == {}
        done = client.run("pip", "install", *python, *words)
    assert done.returncode == 0, done.stderr
    assert_ours(tmp_path / "t", PUBLISHED)


def test_another_index_beside_the_generated_one_undoes_it(
    pip: Client, written: Path, public: str, tmp_path: Path
) -> None:
    """What pip.conf warns of, so that the tests above can fail."""
    assert configured(pip, written / "pip.conf", tmp_path / "t", "--extra-index-url", public, PUBLISHED).returncode == 0
    assert installed(tmp_path / "t") == {PUBLISHED: EVIL}
