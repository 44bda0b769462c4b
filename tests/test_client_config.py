"""What clients are given, used by those clients: ours is installed, a stranger's never, and no secret is written."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.pylock import Pylock

from builder import index
from builder.errors import UsageError
from builder.index import clients, view
from builder.wheelhouse import channel
from tests.index_kit import UV, Client, serve
from tests.wheel_kit import LABEL, contents, open_house, publish, set_state, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.index.clients import Index
    from builder.wheelhouse import Wheelhouse
    from tests.world import World

STRANGE = "sb20991231235959.g9999999999"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with open_house(tmp_path / "house") as opened:
        yield opened


def stranger(folder: Path, **versions: str) -> str:
    """Return an index where somebody has all names in high versions, and `torchlike`, which pins a `tritonlike`."""
    with open_house(folder / "stranger") as house:
        for project in ("tiny", "base", "tritonlike", *versions):
            for version in ("99.0", versions.get(project, "1.0")):
                publish(house, folder / f"{project}{version}", project, version=version, label=STRANGE)
        needs = ["Requires-Dist: tritonlike==3.7.1"]
        publish(house, folder / "t", "tritonlike", version="3.7.1", label=STRANGE)
        publish(house, folder / "torch", "torchlike", version="2.0", headers=needs, label=STRANGE)
        return index.export(house, folder / "theirs").url


def ours(house: Wheelhouse, folder: Path) -> None:
    publish(house, folder, "tiny", headers=["Requires-Dist: base==1.0"])
    publish(house, folder, "base")
    publish(house, folder, "tritonlike", version="3.8.0.dev1")


class Uv:
    """uv in a project of its own, whose public index is `public`."""

    def __init__(self, folder: Path, public: str) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.public = public

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "UV_PYTHON_DOWNLOADS": "never"}
        env |= {
            "UV_CACHE_DIR": str(self.folder / "cache"),
            "UV_DEFAULT_INDEX": self.public,
            "UV_PYTHON": sys.executable,
        }
        return subprocess.run([str(UV), *words], env=env, cwd=self.folder, capture_output=True, text=True, check=False)

    def lock(self, dependencies: list[str], text: str) -> subprocess.CompletedProcess[str]:
        head = f'[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = {dependencies}\n\n'
        (self.folder / "pyproject.toml").write_text(head + text)
        return self.run("lock")

    def locked(self) -> dict[str, str]:
        packages = tomllib.loads((self.folder / "uv.lock").read_text())["package"]
        return {one["name"]: one["version"] for one in packages if one["name"] != "app"}

    def installed(self) -> dict[str, str]:
        done = self.run("sync")
        assert done.returncode == 0, done.stderr
        lines = self.run("pip", "list", "--format", "freeze", "--python", ".venv").stdout.splitlines()
        return dict(line.split("==") for line in lines)


def made(house: Wheelhouse, url: str, pinned_by: Mapping[str, list[str]] | None = None) -> tuple[Index, str]:
    shown = view.read(house, "local")
    known = clients.Index.at(url, "local")
    return known, clients.uv_project(known, shown.projects, clients.choose(shown.projects.values(), pinned_by))


# --- uv


def test_uv_takes_ours_also_for_what_ours_needs(tmp_path: Path, house: Wheelhouse) -> None:
    ours(house, tmp_path)
    uv = Uv(tmp_path, stranger(tmp_path))
    _, text = made(house, index.export(house, tmp_path / "ours").url)
    done = uv.lock(["tiny"], text)
    assert done.returncode == 0, done.stderr
    assert uv.locked() == dict.fromkeys(("tiny", "base"), f"1.0+{LABEL}") | {"tritonlike": f"3.8.0.dev1+{LABEL}"}
    # The group is there to tie names to their source, not to be installed.
    assert uv.installed() == dict.fromkeys(("tiny", "base"), f"1.0+{LABEL}")


def test_an_override_lets_ours_in_where_another_version_is_pinned(tmp_path: Path, house: Wheelhouse) -> None:
    ours(house, tmp_path)
    uv = Uv(tmp_path, stranger(tmp_path))
    url = index.export(house, tmp_path / "ours").url
    assert uv.lock(["torchlike"], made(house, url)[1]).returncode != 0
    _, text = made(house, url, {"tritonlike": ["torchlike"]})
    assert "# torchlike pins another" in text
    done = uv.lock(["torchlike"], text)
    assert done.returncode == 0, done.stderr
    assert uv.installed() == {"torchlike": f"2.0+{STRANGE}", "tritonlike": f"3.8.0.dev1+{LABEL}"}


def test_uv_stops_where_ours_is_withheld(tmp_path: Path, house: Wheelhouse) -> None:
    set_state(house, publish(house, tmp_path), "quarantined")
    publish(house, tmp_path, "base")
    uv = Uv(tmp_path, stranger(tmp_path))
    _, text = made(house, index.export(house, tmp_path / "ours").url)
    assert tomllib.loads(text)["dependency-groups"] == {"spark-build": ["base"]}
    publish(house, tmp_path, "needing", headers=["Requires-Dist: tiny"])
    for wanted in ("tiny", "needing"):
        done = uv.lock([wanted], made(house, index.export(house, tmp_path / "ours").url)[1])
        assert done.returncode != 0
        assert "tiny" in done.stderr
    assert uv.lock(["base"], text).returncode == 0


def test_uv_is_told_what_it_may_keep(tmp_path: Path, house: Wheelhouse) -> None:
    ours(house, tmp_path)
    uv = Uv(tmp_path, stranger(tmp_path))
    with serve(index.export(house, tmp_path / "ours").path) as server:
        _, text = made(house, server.url)
        (told,) = tomllib.loads(text)["tool"]["uv"]["index"]
        assert told == {
            "name": "spark-build",
            "url": server.url,
            "explicit": True,
            "cache-control": {"api": "no-cache", "files": "max-age=365000000, immutable"},
        }
        assert uv.lock(["tiny"], text).returncode == 0
        count = len(server.requests)
        publish(house, tmp_path, "base", label="sb20261125101112.g0000000000")
        index.export(house, tmp_path / "ours")
        assert uv.run("lock", "--upgrade").returncode == 0
        assert uv.locked()["base"] == "1.0+sb20261125101112.g0000000000"  # a page isn't kept
        assert not [line for line in server.requests[count:] if "tiny-1.0" in line]  # METADATA is


# --- pip, requirements, locks


@pytest.fixture(params=["pip", "uv"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
    (tmp_path / "cache").mkdir()
    return Client(name=request.param, pip_python=Path(sys.executable), venv=venv, cache=tmp_path / "cache")


def install(client: Client, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Install with nothing said of indexes."""
    pip = ["env", *(f"{key}={value}" for key, value in env.items()), str(client.pip_python), "-m", "pip"]
    command = {
        "pip": [*pip, "--python", str(client.python), "install"],
        "uv": [str(UV), "pip", "install", "--python", str(client.python)],
    }
    return client.run(*command[client.name], *words)


def test_pip_has_one_index_and_trusts_only_this_machine(tmp_path: Path, house: Wheelhouse) -> None:
    def read(url: str) -> dict[str, str]:
        parser = configparser.ConfigParser()
        parser.read_string(clients.pip_conf(clients.Index.at(url, "local")))
        assert parser.sections() == ["global"]
        return dict(parser["global"])

    url = "https://wheels.example/simple/"
    assert read(url) == {"index-url": url}
    assert read("http://wheels.example:8377/") == {"index-url": "http://wheels.example:8377/simple/"}
    local = read("http://127.0.0.1:8377")
    assert local == {"index-url": "http://127.0.0.1:8377/simple/", "trusted-host": "127.0.0.1:8377"}
    publish(house, tmp_path)
    with serve(index.export(house, tmp_path / "ours").path) as server:
        conf = tmp_path / "pip.conf"
        conf.write_text(clients.pip_conf(clients.Index.at(server.url, "local")))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(tmp_path), "tiny"]
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(conf)}
        for _ in range(2):
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        # Without `trusted-host` pip would fetch METADATA again.
        assert len([line for line in server.requests if line.endswith(".metadata")]) == 1


@pytest.mark.parametrize("kind", ["requirements", "pylock"])
def test_locks_install_exactly_their_bytes(tmp_path: Path, house: Wheelhouse, client: Client, kind: str) -> None:
    wheel = publish(house, tmp_path)
    publish(house, tmp_path, "base", version="1.5+cu130")
    dest = index.export(house, tmp_path / "ours").path
    with serve(dest) as server:
        known, chosen = (
            clients.Index.at(server.url, "local"),
            clients.choose(view.read(house, "local").projects.values()),
        )
        file = tmp_path / clients.FILES[kind]
        text = clients.requirements(known, chosen) if kind == "requirements" else clients.pylock(known, chosen)
        file.write_text(text)
        done = install(client, "--no-deps", "-r", str(file))
        assert done.returncode == 0, done.stderr
        assert client.version("tiny") == f"1.0+{LABEL}"
        assert client.version("base") == f"1.5+{LABEL}.cu130"
        evil = write(tmp_path / wheel.filename, contents("tiny", wheel.version, {"tiny/__init__.py": b"VALUE = 66\n"}))
        evil.replace(dest / "files" / wheel.sha256 / wheel.filename)
        (tmp_path / "again").mkdir()
        words = ["--reinstall", "--no-cache"] if client.name == "uv" else ["--force-reinstall"]
        done = install(client, *words, "--no-deps", "-r", str(file))
        assert done.returncode != 0
        assert "hash" in done.stderr.lower() or "size" in done.stderr.lower()


def test_a_lock_names_index_place_size_and_digest(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = publish(house, tmp_path, headers=["Requires-Python: >=3.9"])
    channel.promote(house, "team/stable", [wheel])
    known = clients.Index.at("https://h.example/wheels/", "team/stable")
    assert known.url == "https://h.example/wheels/team/stable/simple/"
    chosen = clients.choose(view.read(house, "team/stable").projects.values())
    lock = Pylock.from_dict(tomllib.loads(clients.pylock(known, chosen)))
    (package,) = lock.packages
    (locked,) = package.wheels or ()
    assert (package.name, str(package.version), package.index) == ("tiny", wheel.version, known.url)
    assert str(package.requires_python) == ">=3.9"
    assert (locked.name, locked.size, locked.hashes) == (wheel.filename, wheel.size, {"sha256": wheel.sha256})
    name = wheel.filename.replace("+", "%2B")
    assert locked.url == f"https://h.example/wheels/files/{wheel.sha256}/{name}"


def test_a_lock_and_its_wheels_travel_together(tmp_path: Path, world: World, client: Client) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    stick = tmp_path / "a stick"
    world.run("index", "export", str(stick / "wheels"))
    url = (stick / "wheels").as_uri()
    world.run("index", "client-config", "--format", "pylock", "--url", url, "--relative", "--output", str(stick))
    (package,) = tomllib.loads((stick / "pylock.toml").read_text())["packages"]
    assert package["wheels"][0]["path"].startswith("wheels/files/")
    assert "url" not in package["wheels"][0]
    moved = stick.rename(tmp_path / "elsewhere")
    done = install(client, "--no-deps", "-r", str(moved / "pylock.toml"))
    assert done.returncode == 0, done.stderr
    assert client.version("tiny") == f"1.0+{LABEL}"


def test_the_highest_version_that_is_not_yanked_is_chosen_with_all_its_wheels(
    tmp_path: Path, house: Wheelhouse
) -> None:
    publish(house, tmp_path, version="1.9")
    set_state(house, publish(house, tmp_path, version="2.0"), "yanked")
    high = publish(house, tmp_path, version="1.10")
    set_state(house, publish(house, tmp_path, "held"), "quarantined")
    (chosen,) = clients.choose(view.read(house, "local").projects.values())
    assert (chosen.project, chosen.version) == ("tiny", high.version)
    assert [file.filename for file in chosen.files] == [high.filename]


# --- the command


def test_command_prints_all_or_writes_them(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    printed = world.run("index", "client-config").stdout
    done = world.run("index", "client-config", "--output", "client")
    folder = world.root / "client"
    assert done.stdout.splitlines() == [str(folder / name) for name in clients.FILES.values()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(clients.FILES.values())
    assert all(path.read_text().split("\n", 1)[1] in printed for path in folder.iterdir())
    tomllib.loads((folder / "pylock.toml").read_text())
    one = world.run("index", "client-config", "--format", "uv").stdout
    assert list(tomllib.loads(one)["tool"]["uv"]["sources"]) == ["tiny"]
    value = world.json("index", "client-config", "--format", "pip", "--url", "https://h.example/")["client_config"]
    assert value["url"] == "https://h.example/simple/"
    assert list(value["files"]) == ["pip.conf"]
    assert value["environment"] == {
        "UV_INDEX_SPARK_BUILD_USERNAME": "__token__",
        "UV_INDEX_SPARK_BUILD_PASSWORD": "the token",
    }
    assert value["projects"] == {"tiny": f"1.0+{LABEL}"}


def test_the_own_index_is_where_a_client_finds_it(tmp_path: Path, world: World, client: Client) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    world.run("index", "client-config", "--format", "requirements", "--output", "client")
    done = install(client, "--no-deps", "-r", str(world.root / "client" / "requirements.txt"))
    assert done.returncode == 0, done.stderr
    assert client.version("tiny") == f"1.0+{LABEL}"


def test_recipe_tells_who_pins_another_version(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        wheel = publish(house, tmp_path)
    world.tiny_recipe("tiny", more='pinned-by = ["torch"]')
    text = world.run("index", "client-config", "--format", "uv").stdout
    assert tomllib.loads(text)["tool"]["uv"]["override-dependencies"] == [f"tiny=={wheel.version}"]


def test_where_clients_find_it_may_stand_in_the_configuration(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path, "elsewhere")  # of another channel: this one's clients may take it from where they like
        house.remove(publish(house, tmp_path, "removed"))
        channel.promote(house, "team/new", [publish(house, tmp_path)])
    (world.config / "config.toml").write_text(
        '[index]\npublic-url = "https://h.example/w"\nreserve = ["triton", "x-*"]\n'
    )
    done = world.run("index", "client-config", "--format", "uv", "--channel", "team/new")
    told = tomllib.loads(done.stdout)["tool"]["uv"]
    assert told["index"][0]["url"] == "https://h.example/w/team/new/simple/"
    assert told["sources"] == {name: {"index": "spark-build-team-new"} for name in ("removed", "tiny", "triton")}
    assert "UV_INDEX_SPARK_BUILD_TEAM_NEW_PASSWORD" in done.stderr
    assert "machine h.example login __token__ password TOKEN" in done.stderr


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (("--url", "https://me:s3cr3t@h.example:99999/"), "index-url"),
        (("--url", "https://h.example/simple/?token=s3cr3t"), "index-url"),
        (("--url", "https://me:s3cr3t@h.example/simple/"), "index-url"),
        (("--url", "ftp://h.example/"), "index-url"),
        (("--channel", "none"), "channel-missing"),
        (("--channel", "team/new"), "index-url"),
        (("--project", "nobody"), "project-missing"),
        (("--relative",), "usage"),
        (("--relative", "--output", "x", "--url", "https://h.example/"), "usage"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, world: World, words: tuple[str, ...], slug: str) -> None:
    with open_house(world.wheelhouse) as house:
        channel.promote(house, "team/new", [publish(house, tmp_path)])
    done = world.run("index", "client-config", *words, code=2)
    assert f"error[{slug}]" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
    assert not (world.root / "x").exists()


BAD_URLS = [
    "https://h.example/\r\n",
    "https://h.example/\nextra-index-url = https://evil.example/",
    "https://h.example/a b",
    "https://h.example/${HOME}",
    'https://h.example/"',
    "https://h.example/'",
    "https:///simple/",
    "https:simple",
    "https://h.example:x/",
    "https://h.example/#x",
    "file:simple",
    "file://h.example/simple",
    "h.example:8377",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_would_not_be_read_as_one_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        clients.Index.at(url, "local")
    assert caught.value.code == "index-url"
    assert "\n" not in caught.value.summary


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8377", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:8377/", True),
        ("http://localhost/", True),
        ("http://127.evil.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://10.0.0.1/", False),
        ("http://localhost.example/", False),
    ],
)
def test_only_this_machine_is_trusted_without_tls(url: str, loopback: bool) -> None:  # noqa: FBT001  # of a table
    conf = clients.pip_conf(clients.Index.at(url, "local"))
    assert ("trusted-host" in conf) == loopback
    assert ("pip refuses" in conf) != loopback


@pytest.mark.parametrize("folder", ["team/stable", "x"])
def test_the_export_of_one_channel_may_lie_anywhere(tmp_path: Path, world: World, client: Client, folder: str) -> None:
    with open_house(world.wheelhouse) as house:
        channel.promote(house, "team/stable", [publish(house, tmp_path)])
        publish(house, tmp_path, "elsewhere")
    done = world.run("index", "export", folder, "--channel", "team/stable")
    line = next(line for line in done.stderr.splitlines() if "spark-build index client-config" in line)
    words = line.partition("spark-build ")[2].split()
    world.run(*words, "--output", "client")
    files = {name: (world.root / "client" / name).read_text() for name in clients.FILES.values()}
    assert not [name for name, text in files.items() if "elsewhere" in text]
    for name in ("requirements.txt", "pylock.toml"):
        done = install(client, "--no-deps", "-r", str(world.root / "client" / name))
        assert done.returncode == 0, done.stderr


def test_what_somebody_changed_or_wrote_is_not_replaced(tmp_path: Path, world: World) -> None:
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path)
    words = ("index", "client-config", "--output", "client")
    world.run(*words)
    with open_house(world.wheelhouse) as house:
        publish(house, tmp_path, "base")
    file = world.root / "client" / "requirements.txt"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # as some tools for versions leave it
    world.run(*words)
    text = file.read_text()
    assert "base==" in text
    for mine in (text + "requests\n", "requests\n", "", text.replace("base==1.0", "base==1.1")):
        file.write_text(mine)
        before = {path: path.read_bytes() for path in file.parent.iterdir()}
        done = world.run(*words, code=2)
        assert "error[output-taken]" in done.stderr
        assert {path: path.read_bytes() for path in file.parent.iterdir()} == before
    world.run(*words, "--format", "pip")
    world.run(*words, "--overwrite")
    assert file.read_text() == text


def test_a_login_in_a_url_is_refused_with_the_better_place() -> None:
    with pytest.raises(UsageError) as caught:
        clients.Index.at("https://token:s3cr3t@h.example/", "team/x")
    assert "UV_INDEX_SPARK_BUILD_TEAM_X_PASSWORD" in caught.value.help
    assert "s3cr3t" not in str(caught.value.as_json())
