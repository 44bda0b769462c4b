from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import config
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.config import Config


@dataclass
class Machine:
    """A site's and a user's configuration folder."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        return {"HOME": str(self.root / "home")}

    def site(self, text: str) -> None:
        self._write(self.root / "etc" / "config.toml", text)

    def user(self, text: str) -> None:
        self._write(self.root / "home" / ".config" / "spark-build" / "config.toml", text)

    def _write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self, wheelhouse: str | None = None, **env: str) -> Config:
        return config.load(self.env | env, wheelhouse=wheelhouse, cwd=self.root / "cwd", site=self.root / "etc")

    def refused(self, **env: str) -> list[str]:
        with pytest.raises(UsageError) as told:
            self.load(**env)
        assert (told.value.code, told.value.exit_code) == ("config-wrong", 2)
        return told.value.cause.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_files_everything_has_a_place_in_the_home(machine: Machine) -> None:
    found = machine.load()
    home = machine.root / "home"
    assert found.sources == home / ".cache" / "spark-build" / "sources"
    assert (found.mirrors, found.files, found.build, found.index_url) == ((), (), {}, None)
    assert [(word, path.name) for word, path in found.recipe_layers] == [("site", "recipes"), ("user", "recipes")]
    assert found.recipe_layers[1][1] == home / ".config" / "spark-build" / "recipes"


def test_the_user_wins_over_the_site_key_by_key(machine: Machine) -> None:
    machine.site('[build]\njobs = 8\npython = "3.12"\n[index]\nurl = "https://a.invalid/simple"\n')
    machine.user("[build]\njobs = 4\n")
    found = machine.load()
    assert found.build == {"jobs": 4, "python": "3.12"}
    assert found.index_url == "https://a.invalid/simple"
    assert [file.parent.name for file in found.files] == ["etc", "spark-build"]


def test_longer_mirror_prefixes_come_first_and_layers_add_up(machine: Machine) -> None:
    machine.site(
        '[mirrors]\n"https://git.invalid/" = "/all"\n"https://git.invalid/org/repo" = "/repo"\n"https://b/" = "/b"\n'
    )
    machine.user('[mirrors]\n"https://git.invalid/org/" = "/org"\n"https://b/" = "/mine"\n')
    assert machine.load().mirrors == (
        ("https://git.invalid/org/repo", "/repo"),
        ("https://git.invalid/org/", "/org"),
        ("https://git.invalid/", "/all"),
        ("https://b/", "/mine"),
    )


def test_which_wheelhouse(machine: Machine) -> None:
    """Command line, environment, configuration, checkout: the strongest that is there, and it is told which."""
    found = machine.load()
    root = config.checkout()
    assert root is not None
    assert (found.wheelhouse, found.wheelhouse_from) == (root / "wheelhouse", "source checkout")
    machine.user('[wheelhouse]\npath = "~/wheels"\n')
    found = machine.load()
    assert (found.wheelhouse, found.wheelhouse_from) == (machine.root / "home" / "wheels", "configuration")
    found = machine.load(SPARK_BUILD_WHEELHOUSE="/srv/wheels")
    assert (found.wheelhouse, found.wheelhouse_from) == (Path("/srv/wheels"), "SPARK_BUILD_WHEELHOUSE")
    found = machine.load("here", SPARK_BUILD_WHEELHOUSE="/srv/wheels")
    assert (found.wheelhouse, found.wheelhouse_from) == (machine.root / "cwd" / "here", "--wheelhouse")


def test_a_relative_path_counts_from_the_folder_of_the_file_that_says_it(machine: Machine) -> None:
    machine.site('[signing]\nsigners = "signers"\n[compile-cache]\npath = "../ccache"\n')
    machine.user('[signing]\nkey = "keys/mine"\n[wheelhouse]\npath = "wheels"\n[sources]\ncache = "sources"\n')
    found = machine.load()
    site, user = (file.parent for file in found.files)
    assert (found.signers, found.signing_key) == (site / "signers", user / "keys" / "mine")
    assert (found.wheelhouse, found.sources) == (user / "wheels", user / "sources")
    assert found.compile_cache["path"] == str(site / "../ccache")


def test_variables_win_over_files(machine: Machine) -> None:
    machine.user('[sources]\ncache = "/a"\n[index]\nurl = "https://a.invalid/simple"\n')
    assert machine.load().sources == Path("/a")
    found = machine.load(SPARK_BUILD_SOURCES="b", SPARK_BUILD_INDEX_URL="https://b.invalid/simple")
    assert (found.sources, found.index_url) == (machine.root / "cwd" / "b", "https://b.invalid/simple")


def test_an_empty_variable_asks_nobody(machine: Machine) -> None:
    machine.user('[wheelhouse]\nupstream = "https://a.example"\n')
    assert machine.load().upstream == "https://a.example"
    assert machine.load(SPARK_BUILD_UPSTREAM="https://b.example").upstream == "https://b.example"
    assert machine.load(SPARK_BUILD_UPSTREAM="").upstream is None


@pytest.mark.parametrize("value", ['reserve = "triton"', "reserve = [1]", 'superseded = "no"', "pass-through = {}"])
def test_wrong_values_of_the_index_are_told(machine: Machine, value: str) -> None:
    machine.user(f"[index]\n{value}\n")
    (line,) = machine.refused()
    assert f"index.{value.partition(' ')[0]} is" in line


def test_one_named_file_stands_for_all(machine: Machine) -> None:
    machine.site("[build]\njobs = 8\n")
    machine.user("[build]\njobs = 4\n")
    file = machine.root / "cwd" / "mine" / "file.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[build]\njobs = 2\n")
    found = machine.load(SPARK_BUILD_CONFIG="mine/file.toml")
    assert (found.build, found.files) == ({"jobs": 2}, (file,))
    assert found.recipe_layers[1] == ("user", file.parent / "recipes")


def test_a_named_file_that_is_not_there_is_a_mistake(machine: Machine) -> None:
    (line,) = machine.refused(SPARK_BUILD_CONFIG="/no/such.toml")
    assert "/no/such.toml" in line


def test_xdg_folders_are_used(machine: Machine) -> None:
    env = {name: str(machine.root / name) for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    folder = machine.root / "XDG_CONFIG_HOME" / "spark-build"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[build]\njobs = 1\n")
    found = machine.load(**env)
    assert found.build == {"jobs": 1}
    assert found.sources == machine.root / "XDG_CACHE_HOME" / "spark-build" / "sources"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[build]\njbs = 1", ["unknown key build.jbs", "did you mean jobs?"]),
        ("[biuld]\njobs = 1", ["unknown table [biuld]", "did you mean build?"]),
        ("jobs = 1", ["unknown table [jobs]"]),
        ("[build]\nzzz = 1", ["unknown key build.zzz"]),
        ('[build]\njobs = "many"', ["build.jobs is 'many'", "wanted a number"]),
        ("[build]\njobs = true", ["build.jobs is True", "wanted a number"]),
        ("[build]\njobs = 0", ["build.jobs is 0", "at least 1"]),
        ("[build]\npython = 3.12", ["build.python is 3.12", "wanted a text"]),
        ('[build]\nisolation = "nmespace"', ["'nmespace'", "auto, namespace, none"]),
        ("[build.env]\nX = 1", ["build.env is {'X': 1}", "a table of texts"]),
        ('[mirrors]\n"https://a/" = 1', ["mirrors.https://a/ is 1", "wanted a text"]),
        ("[build", ["Expected"]),
    ],
)
def test_a_mistake_is_told_with_file_found_and_wanted(machine: Machine, text: str, words: list[str]) -> None:
    machine.user(text)
    (line,) = machine.refused()
    assert "spark-build/config.toml: " in line
    assert [word for word in words if word not in line] == []


def test_all_mistakes_of_all_files_come_in_one_go(machine: Machine) -> None:
    machine.site("[build]\na = 1\njobs = []\n")
    machine.user("[nothing]\n")
    assert len(machine.refused()) == 3


def test_a_file_that_is_no_utf8(machine: Machine) -> None:
    machine.user("")
    (machine.root / "home/.config/spark-build/config.toml").write_bytes(b"\xff\xfe")
    assert "utf-8" in machine.refused()[0]


def test_who_inspects_gets_what_is_right_and_the_mistakes(machine: Machine) -> None:
    machine.user('[build]\njobs = "x"\npython = "3.12"\n')
    found, mistakes = config.inspect(machine.env, cwd=machine.root, site=machine.root / "etc")
    assert found.build == {"python": "3.12"}
    assert len(mistakes) == 1
