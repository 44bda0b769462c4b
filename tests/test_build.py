"""From a recipe to a wheel, by the installed command, on small real projects."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from builder.wheelhouse.statement import facts
from tests.test_isolation import without_network_namespaces
from tests.world import COMMAND, World

BUILD_FAILS = """
import subprocess, sys
print("compiling")
subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('src/a.c:3:5: error: no such thing\\\\n')"])
raise SystemExit("the compiler failed")
"""


def build(world: World, *words: str, **env: str) -> Path:
    (path,) = map(Path, world.run("recipe", "tiny", *words, code=0, **env).stdout.splitlines())
    return path


def content(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def patch_recipe(world: World, *, env: str = "") -> str:
    """Lay a patch onto the recipe by the user's own layer and return its text."""
    text = "--- a/src/__init__.py\n+++ b/src/__init__.py\n@@ -1 +1 @@\n-VALUE = 1\n+VALUE = 2\n"
    (world.patches / "tiny").mkdir(exist_ok=True)
    (world.patches / "tiny" / "value.patch").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    world.tiny_recipe(more=f'[build.env]\n{env}\n[[patch]]\nid = "value"\nfile = "value.patch"\nsha256 = "{digest}"\n')
    return text


@pytest.fixture
def tiny(world: World) -> World:
    world.tiny_repo()
    world.tiny_recipe()
    return world


def test_second_call_answers_from_the_wheelhouse(tiny: World) -> None:
    first = tiny.run("recipe", "tiny")
    again = tiny.run("recipe", "tiny")
    assert first.stdout == again.stdout
    wheel = Path(first.stdout.strip())
    assert wheel.parent == tiny.wheelhouse / "wheels" / "tiny"
    assert wheel.name.startswith("tiny-1.0+sb20")
    assert content(wheel, "tiny/__init__.py") == b"VALUE = 1\n"
    assert len(list((tiny.wheelhouse / "builds").glob("*/logs/*"))) == 1


def test_json_names_the_wheel_and_whether_it_was_there(tiny: World) -> None:
    (built,) = tiny.json("recipe", "tiny")["wheels"]
    (found,) = tiny.json("recipe", "tiny")["wheels"]
    assert (built["cached"], found["cached"]) == (False, True)
    assert built | {"cached": True} == found
    assert built["sha256"] == hashlib.sha256(Path(built["path"]).read_bytes()).hexdigest()
    assert built["commit"] == tiny.git(tiny.root / "tiny", "rev-parse", "HEAD")


def test_plan_stops_and_says_by_its_exit_code_whether_there_is_work(tiny: World) -> None:
    for words in (("recipe", "tiny", "--plan"), ("plan", "tiny")):
        assert "first build" in tiny.run(*words, code=10).stdout
    assert not list((tiny.wheelhouse / "wheels").glob("*/*.whl"))
    build(tiny)
    tiny.run("recipe", "tiny", "--plan")
    tiny.run("plan", "tiny")


def test_printed_install_line_installs_the_wheel(tiny: World) -> None:
    done = tiny.run("recipe", "tiny")
    (line,) = (line for line in done.stderr.splitlines() if "uv pip install" in line)
    venv = tiny.root / "venv"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", str(venv)], check=True)
    command = line.strip().replace("uv pip install", f"{uv} pip install --offline", 1)
    env = tiny.env(VIRTUAL_ENV=str(venv))
    subprocess.run(["sh", "-c", command], check=True, env=env, cwd=tiny.root)
    shown = subprocess.run(
        [venv / "bin" / "python", "-c", "import tiny, importlib.metadata as m; print(tiny.VALUE, m.version('tiny'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.startswith("1 1.0+sb20")


def test_patch_and_variable_make_another_wheel_and_why_names_both(tiny: World) -> None:
    """The case in which tools that go by name and version hand out the old wheel."""
    old = build(tiny)
    patch_recipe(tiny, env='TINY_EXTRA = "more"')
    told = tiny.run("why", "tiny").stdout
    assert "TINY_EXTRA" in told
    assert "value" in told
    new = build(tiny)
    assert new.name != old.name
    assert content(new, "tiny/__init__.py") == b"VALUE = 2\n"
    assert content(new, "tiny/more") == b"more"
    assert old.exists()
    against = tiny.json("why", "tiny", "--against", "^2")
    assert {change["path"] for change in against["changes"]} == {
        "patches[value]",
        "recipe.build.env.TINY_EXTRA",
    }


def test_what_changes_no_byte_is_a_hit(tiny: World) -> None:
    wheel = build(tiny)
    tiny.tiny_recipe(
        more='# a comment\n[about]\nsummary = "other"\n[resources]\nmem-per-job = "3GiB"\njobs = 1\n'
        '[[check]]\nkind = "import"\nrun = "import tiny"\n'
    )
    assert build(tiny, "-j", "1") == wheel
    assert build(tiny, CFLAGS="-O0", MAX_JOBS="7", USER="somebody", LOGNAME="somebody", TZ="Asia/Tokyo") == wheel
    moved = tiny.root / "moved"
    tiny.wheelhouse.rename(moved)
    assert build(tiny, SPARK_BUILD_WHEELHOUSE=str(moved)) == moved / "wheels" / "tiny" / wheel.name


@pytest.mark.parametrize("words", [("--env", "A=1"), ("--set", 'build.env.A="1"'), ("--arch", "12.0a")])
def test_what_may_change_bytes_is_a_miss(tiny: World, words: tuple[str, str]) -> None:
    build(tiny)
    tiny.run("plan", "tiny", *words, code=10)


def test_only_what_the_list_names_reaches_the_build(world: World) -> None:
    extra = "pathlib.Path('src/__init__.py').write_text('ENV = ' + repr(dict(os.environ)))"
    world.tiny_repo(extra=extra)
    world.tiny_recipe(more='[build.env]\nMINE = "${version} ${commit}"\n')
    leaked = {"CFLAGS": "-O0", "PYTHONPATH": "/nowhere", "MAKEFLAGS": "-j99", "LD_PRELOAD": "", "MY_SECRET": "s3cret"}
    wheel = build(world, **leaked)
    space: dict[str, dict[str, str]] = {}
    exec(content(wheel, "tiny/__init__.py"), space)  # noqa: S102  # what the build wrote
    env = space["ENV"]
    assert not set(leaked) & set(env)
    assert env["MINE"] == "1.0 " + world.git(world.root / "tiny", "rev-parse", "HEAD")
    assert env["HOME"] == "/sb/tiny/home"
    assert env["SOURCE_DATE_EPOCH"] == world.git(world.root / "tiny", "log", "-1", "--format=%ct")
    assert int(env["MAX_JOBS"]) == int(env["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1
    assert env["NVCC_THREADS"] == "1"


def test_build_runs_the_programs_that_the_fingerprint_names(world: World) -> None:
    """A compiler in a folder of its own, beside another program that nobody looked at."""
    folder = world.root / "opt"
    folder.mkdir()
    for name in ("gcc", "g++", "ninja", "wc"):  # each looks for its own folder, as wrappers do
        (folder / name).write_text(f'#!/bin/sh\n[ "$1" = --who ] && echo "$0" || exec /usr/bin/{name} "$@"\n')
        (folder / name).chmod(0o755)
    extra = """
        import subprocess
        names = ("gcc", "cc", "g++", "c++", "ninja", "wc")
        who = {name: subprocess.run([name, "--who"], capture_output=True, text=True).stdout.strip() for name in names}
        pathlib.Path("src/__init__.py").write_text(f"FOUND = {who!r}")
        """
    world.tiny_repo(extra=extra)
    world.tiny_recipe(more='[system]\ngcc = ">=9"\ntools = ["ninja"]\n')
    path = f"{folder}:{world.env()['PATH']}"
    space: dict[str, dict[str, str]] = {}
    exec(content(build(world, PATH=path), "tiny/__init__.py"), space)  # noqa: S102  # what the build wrote
    ours = {name: str(folder / name) for name in ("gcc", "g++", "ninja")}
    assert space["FOUND"] == {**ours, "cc": ours["gcc"], "c++": ours["g++"], "wc": ""}
    (folder / "gcc").write_text('#!/bin/sh\n# another one\nexec /usr/bin/gcc "$@"\n')
    world.run("plan", "tiny", code=10, PATH=path)


def test_bytes_behind_a_path_in_a_variable_count(tiny: World) -> None:
    file = tiny.root / "flags.txt"
    file.write_text("one")
    wheel = build(tiny, "--env", f"FLAGS={file}")
    assert build(tiny, "--env", f"FLAGS={file}") == wheel
    flagged = ("--env", f"CFLAGS=-DX=1,-I{file.parent}/none -include {file} @{file}")
    other = build(tiny, *flagged)
    assert build(tiny, *flagged) == other
    file.write_text("two")
    assert "flags.txt" in tiny.run("plan", "tiny", *flagged, code=10).stdout
    assert "flags.txt" in tiny.run("plan", "tiny", "--env", f"FLAGS={file}", code=10).stdout


def test_kept_tree_that_somebody_edited_is_put_right(world: World) -> None:
    """A wheel goes by the source as pinned and patched, whatever was tried in the tree of a failed build."""
    world.tiny_repo(extra="if not os.path.exists(os.environ['HOME'] + '/go'): raise SystemExit('not yet')")
    patch_recipe(world)
    world.run("recipe", "tiny", code=1)
    (tree,) = (world.wheelhouse / "builds").glob("*/src")
    (tree / "src" / "__init__.py").write_text("VALUE = 'tampered'\n")
    (tree / "pyproject.toml").unlink()
    (tree.parent / "home" / "go").touch()
    done = world.run("recipe", "tiny")
    assert "isn't as it was laid out" in done.stderr
    assert content(Path(done.stdout.strip()), "tiny/__init__.py") == b"VALUE = 2\n"


def test_kept_tree_that_lost_its_source_is_laid_out_again(world: World) -> None:
    repo = world.tiny_repo(extra="raise SystemExit('not yet')")
    world.tiny_recipe()
    world.run("recipe", "tiny", code=1)
    (tree,) = (world.wheelhouse / "builds").glob("*/src")
    shutil.rmtree(tree)
    told = world.run("recipe", "tiny", code=1).stderr
    assert "not yet" in told
    assert (tree / "backend.py").read_text() == (repo / "backend.py").read_text()


# --- builds that go wrong


def failing(world: World, extra: str, *words: str, more: str = "", code: int = 1) -> str:
    world.tiny_repo(extra=extra)
    world.tiny_recipe(more=more)
    done = world.run("recipe", "tiny", *words, code=code)
    assert not done.stdout
    assert not world.json("wheels", "list")["wheels"]
    return done.stderr


def test_failing_backend_is_shown_by_its_first_real_error(world: World) -> None:
    told = failing(world, BUILD_FAILS)
    assert "error[build-failed]" in told
    assert "src/a.c:3:5: error: no such thing" in told
    assert "spark-build log" in told
    assert "src/a.c:3:5: error: no such thing" in world.run("log", "--failed").stdout
    assert world.json("recipe", "tiny", code=1)["error"]["code"] == "build-failed"


def test_second_wheel_is_refused(world: World) -> None:
    extra = "open(os.path.join(wheel_directory, 'other-1.0-py3-none-any.whl'), 'wb').close()"
    assert "error[wheel-count]" in failing(world, extra)


def test_other_name_is_refused(world: World) -> None:
    assert "error[wheel-name]" in failing(world, "global NAME; NAME = 'other'")


def test_lying_record_is_refused(world: World) -> None:
    extra = """
        b64 = base64.urlsafe_b64encode
        base64.urlsafe_b64encode = lambda data: b64(data)[::-1]
        """
    assert "error[record-lies]" in failing(world, extra, code=5)


def test_missing_backend_is_told(world: World) -> None:
    folder = world.tiny_repo()
    (folder / "backend.py").rename(folder / "elsewhere.py")
    world.git(folder, "commit", "-qam", "moved")
    world.tiny_recipe()
    assert "error[backend-missing]" in world.run("recipe", "tiny", code=1).stderr


def test_build_that_reaches_for_the_network_is_told_what_it_wanted(world: World) -> None:
    extra = "import urllib.request; urllib.request.urlopen('http://downloads.example/kernels.tar')"
    told = failing(world, extra)
    assert "error[network-reached]" in told
    assert "downloads.example" in told


def test_pip_inside_a_build_fails_at_once(world: World) -> None:
    extra = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'ensurepip'], check=True)\n"
    extra += "subprocess.run([sys.executable, '-m', 'pip', 'install', 'requests'], check=True)"
    assert "requests" in failing(world, extra)


def test_time_limit_of_the_recipe_ends_a_build(world: World) -> None:
    more = '[resources]\nbuild-timeout = "1s"\n'
    assert "error[build-timeout]" in failing(world, "import time; time.sleep(60)", more=more)


def test_missing_tool_is_told_before_anything_is_built(world: World) -> None:
    told = failing(world, "", more='[system]\ntools = ["no-such-tool"]\n', code=3)
    assert "error[toolchain-floor]" in told
    assert "no-such-tool" in told


def test_what_the_recipe_advises_is_told_before_it_is_built(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe(more='[[about.advice]]\ntext = "a wheel is published"\nrun = "pip install tiny"\n')
    assert "tiny: a wheel is published: pip install tiny" in world.run("recipe", "tiny").stderr
    assert "a wheel is published" not in world.run("recipe", "tiny").stderr  # nothing is built


def test_a_refused_architecture_asks_nobody_for_nested_sources(world: World) -> None:
    world.tiny_repo()
    fetch = '[[fetch]]\nid = "n"\nkind = "git"\nurl = "file:///nowhere"\nref = "main"\n'
    world.tiny_recipe(more=fetch + '[[arch-map]]\narch = "12.0a"\nrefuse = "it does not load"\n')
    refused = world.run("recipe", "tiny", "--arch", "12.0a", code=2)
    assert "error[arch-refused]" in refused.stderr
    assert "it does not load" in refused.stderr
    assert "nowhere" in world.run("recipe", "tiny", "--arch", "12.1a", code=4).stderr


def test_keep_going_builds_the_others_and_fails_in_the_end(world: World) -> None:
    world.tiny_repo("bad", extra="raise SystemExit('no')")
    world.tiny_recipe("bad")
    world.tiny_repo("good")
    world.tiny_recipe("good")
    assert not world.run("recipe", "bad", "good", code=1).stdout
    done = world.run("recipe", "bad", "good", "--keep-going", code=1)
    assert Path(done.stdout.strip()).name.startswith("good-1.0+sb")
    assert "error[build-failed]" in done.stderr


def test_keep_going_goes_on_past_what_cant_be_planned(world: World) -> None:
    world.tiny_recipe("lost")
    world.tiny_repo("good")
    world.tiny_recipe("good")
    done = world.run("recipe", "lost", "good", "--keep-going", code=4)
    assert Path(done.stdout.strip()).name.startswith("good-1.0+sb")
    assert "error[remote-unreachable]" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("--ref", ""), ("--version", " "), ("--env", "A B=1"), ("--env", "A"), ("-j", "0"), ("--cuda", "13.0")],
)
def test_words_that_mean_nothing_are_refused(tiny: World, words: tuple[str, str]) -> None:
    tiny.run("plan", "tiny", *words, code=2)


def test_words_that_are_no_text_are_refused(tiny: World) -> None:
    argv = [os.fsencode(COMMAND), b"plan", b"tiny", b"--env", b"A=\xff"]
    done = subprocess.run(argv, env=tiny.env(), cwd=tiny.root, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"is no UTF-8" in done.stderr


# --- building again


@pytest.mark.parametrize(
    ("take", "give", "why"),
    [
        (("yank", "{}", "--reason", "bad sums"), ("yank", "{}", "--undo"), "yanked (bad sums)"),
        (("quarantine", "{}"), ("quarantine", "{}", "--release"), "quarantined"),
        (
            ("quarantine", "--project", "tiny"),
            ("quarantine", "--project", "tiny", "--release"),
            "of a quarantined project, tiny",
        ),
    ],
)
@pytest.mark.parametrize("more", [(), ("--force",)])
def test_what_is_withheld_is_neither_a_hit_nor_built_again(
    tiny: World, take: tuple[str, ...], give: tuple[str, ...], why: str, more: tuple[str, ...]
) -> None:
    wheel = build(tiny)
    tiny.run("wheels", *(word.format(wheel.name) for word in take))
    refused = tiny.run("recipe", "tiny", *more, code=5)
    assert f"the stored wheel is {why}: {wheel.name}" in refused.stderr
    assert f"spark-build wheels show {wheel.name}" in refused.stderr
    assert refused.stdout == ""
    tiny.run("wheels", *(word.format(wheel.name) for word in give))
    assert build(tiny, *more) == wheel


def test_force_with_the_same_bits_is_the_same_wheel(tiny: World) -> None:
    wheel = build(tiny)
    inode = wheel.stat().st_ino
    assert build(tiny, "--force") == wheel
    assert wheel.stat().st_ino == inode


def test_force_with_other_bits_gets_a_label_of_its_own(world: World) -> None:
    world.tiny_repo(extra="import uuid; pathlib.Path('src/__init__.py').write_text(f'VALUE = {uuid.uuid4().hex!r}')")
    world.tiny_recipe()
    first = build(world)
    second = build(world, "--force")
    third = build(world, "--force")
    assert first.exists()
    assert [path.name.split("-")[1].partition(".g")[2][10:] for path in (first, second, third)] == ["", "r2", "r3"]
    assert build(world) == third


# --- requirements


def test_requirement_that_only_the_hook_names_is_locked_and_counts(world: World) -> None:
    index = world.root / "index" / "helper"
    index.mkdir(parents=True)
    helper = World(world.root / "helper")
    helper.tiny_repo("helper")
    helper.tiny_recipe("helper")
    (wheel,) = helper.wheels("helper")
    (index / wheel.name).write_bytes(wheel.read_bytes())
    version = wheel.name.split("-")[1]
    (index / "index.html").write_text(f'<a href="{wheel.name.replace("+", "%2B")}">{wheel.name}</a>')
    repo = world.tiny_repo(extra="import helper; assert helper.VALUE == 1")
    backend = (repo / "backend.py").read_text().replace("return []", "return ['helper']")
    (repo / "backend.py").write_text(backend)
    world.git(repo, "commit", "-qam", "asks")
    world.tiny_recipe()
    url = index.parent.as_uri()
    done = world.run("recipe", "tiny", SPARK_BUILD_INDEX_URL=url)
    assert "asks for helper" in done.stderr
    shown = world.run("wheels", "show", Path(done.stdout.strip()).name, "--inputs").stdout
    (locked,) = json.loads(shown)["requires"]["tiny"]
    assert (locked["name"], locked["version"]) == ("helper", version)
    assert world.run("recipe", "tiny", SPARK_BUILD_INDEX_URL=url).stdout == done.stdout


def test_wheel_of_another_recipe_is_built_first_and_is_there_in_the_build(world: World) -> None:
    world.tiny_repo("base", text="VALUE = 40\n")
    world.tiny_recipe("base")
    extra = "import base; pathlib.Path('src/__init__.py').write_text(f'VALUE = {base.VALUE + 2}')"
    world.tiny_repo("top", extra=extra)
    world.recipe(
        "top",
        f"""
        schema = 1
        name = "top"
        builds-on = ["base"]
        [[source]]
        kind = "git"
        url = "{(world.root / "top").as_uri()}"
        ref = "main"
        [[output]]
        name = "top"
        """,
    )
    base, top = world.wheels("top")
    assert content(top, "top/__init__.py") == b"VALUE = 42"
    world.tiny_recipe("base", more='[build.env]\nA = "1"\n')
    changes = world.json("why", "top")["changes"]
    assert [change["path"] for change in changes] == ["builds-on.base"]
    assert base.exists()


# --- isolation


def provenance(wheel: Path) -> dict[str, object]:
    return facts(json.loads(wheel.with_name(f"{wheel.name}.provenance.json").read_bytes()))


def test_level_in_force_is_kept_beside_the_wheel(tiny: World) -> None:
    wheel = build(tiny)
    assert provenance(wheel)["isolation"] == {"level": "namespace", "path": "/sb/tiny", "why": ""}
    open_one = build(tiny, "--isolation", "none", "--env", "A=1")
    assert provenance(open_one)["isolation"] == {"level": "none", "path": None, "why": "--isolation none"}


def test_filter_cuts_the_network_where_namespaces_are_refused(world: World) -> None:
    world.tiny_repo(
        extra="import socket\ntry: socket.socket()\nexcept PermissionError: pass\nelse: raise SystemExit(1)"
    )
    world.tiny_recipe()
    words = without_network_namespaces(COMMAND, "recipe", "tiny")
    done = subprocess.run(words, env=world.env(), cwd=world.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "network is cut by a filter" in done.stderr
    wheel = Path(done.stdout.strip())
    found = provenance(wheel)["isolation"]
    assert isinstance(found, dict)
    assert (found["level"], found["path"]) == ("seccomp", None)
    refused = without_network_namespaces(COMMAND, "recipe", "tiny", "--env", "A=1", "--isolation", "namespace")
    done = subprocess.run(refused, env=world.env(), cwd=world.root, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "error[isolation]" in done.stderr


# --- sources, end to end


def test_refs_through_a_mirror_with_the_network_cut(world: World) -> None:
    """A branch, a commit, a tag and a pull request of a repository that only ``[mirrors]`` can reach."""
    repo = world.tiny_repo()
    first = world.git(repo, "rev-parse", "HEAD")
    world.git(repo, "checkout", "-q", "-b", "change")
    (repo / "src" / "__init__.py").write_text("VALUE = 7\n")
    world.git(repo, "commit", "-qam", "seven")
    world.git(repo, "update-ref", "refs/pull/12/head", "HEAD")
    world.git(repo, "checkout", "-q", "main")
    (repo / "README").write_text("more\n")
    world.git(repo, "add", "-A")
    world.git(repo, "commit", "-qm", "second")
    world.git(repo, "branch", "-qD", "change")
    (world.config / "config.toml").write_text(f'[mirrors]\n"https://forge.example/" = "{world.root}/"\n')
    world.tiny_recipe(url="https://forge.example/tiny")
    values = {}
    for name, words in {
        "branch": ["--ref", "main"],
        "commit": ["--ref", first],
        "tag": ["--ref", "v1.0"],
        "head": ["--ref", "refs/pull/12/head"],
        "diff": ["--ref", "main", "--pr", "12"],
    }.items():
        done = subprocess.run(
            ["unshare", "--net", str(COMMAND), "recipe", "tiny", *words, "--json"],
            env=world.env(),
            cwd=world.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = json.loads(done.stdout)["wheels"]
        values[name] = content(Path(wheel["path"]), "tiny/__init__.py").decode().strip()
    assert values == {"branch": "VALUE = 1", "commit": "VALUE = 1", "tag": "VALUE = 1"} | dict.fromkeys(
        ("head", "diff"), "VALUE = 7"
    )


def test_local_folder_is_built_as_it_is(world: World) -> None:
    folder = world.tiny_repo()
    world.tiny_recipe()
    (folder / "src" / "__init__.py").write_text("VALUE = 'dirty'\n")
    dirty = build(world, "--source", str(folder))
    assert content(dirty, "tiny/__init__.py") == b"VALUE = 'dirty'\n"
    assert build(world, "--source", str(folder)) == dirty
    (folder / "src" / "__init__.py").write_text("VALUE = 'dirtier'\n")
    assert build(world, "--source", str(folder)) != dirty


def test_unreachable_remote_is_told_with_what_was_known(tiny: World) -> None:
    wheel = build(tiny)
    (tiny.root / "tiny").rename(tiny.root / "away")
    told = tiny.run("recipe", "tiny", code=4).stderr
    assert "error[remote-unreachable]" in told
    assert tiny.git(tiny.root / "away", "rev-parse", "HEAD") in told
    assert "--offline" in told
    assert build(tiny, "--offline") == wheel
