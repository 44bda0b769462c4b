"""The compile cache with real compilers: what hits, what must not, what it costs when another machine doesn't answer."""

from __future__ import annotations

import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.errors import HostError, UsageError
from builder.gate import ccache
from builder.gate.relay import Relay
from builder.stages import Host, Interpreter, Tool, Torch
from builder.values import replace
from tests.hook_kit import CCACHE, CUDA, Bench, Store, program, run, script, serving, sha, stripped, write
from tests.tls_kit import certificate

SOURCES = {
    "a.cpp": '#include "a.h"\nconst char *where() { return __FILE__; }\nint value() { return VALUE; }\n',
    "a.h": "#define VALUE 1\n",
}
KERNEL = {
    "k.cu": """
        #include "a.h"
        static __device__ int counter;
        __global__ void k(int *x) { x[threadIdx.x] = VALUE + counter++; }
        const char *where() { return __FILE__; }
        void launch(int *x) { k<<<1, 32>>>(x); }
    """,
    "a.h": "#define VALUE 1\n",
}


def unit(bench: Bench, *more: str, out: str = "a.o") -> tuple[str, ...]:
    return ("g++", "-O1", "-MD", *more, "-c", str(bench.src / "a.cpp"), "-o", out)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "tree")
    write(made.src, SOURCES)
    return made


def kernel(bench: Bench, out: str = "k.o") -> tuple[str, ...]:
    nvcc = str(CUDA / "bin" / "nvcc")
    return (nvcc, "-arch=sm_121a", "-MD", "-MF", "k.d", "-c", str(bench.src / "k.cu"), "-o", out)


# What hits


def test_a_fresh_build_folder_is_all_hits_and_starts_no_compiler(bench: Bench) -> None:
    for number in range(12):
        (bench.src / f"{number}.cpp").write_text(f'#include "a.h"\nint f{number}() {{ return VALUE; }}\n')

    def build(folder: str) -> None:
        (bench.src / folder).mkdir()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: bench.compile("g++", "-MD", "-c", f"{n}.cpp", "-o", f"{folder}/{n}.o"), range(12)))

    build("one")
    assert bench.compiled() == 12
    build("two")
    assert bench.compiled() == 0
    done = bench.statistics()
    assert (done.hits, done.misses, done.rate, dict(done.uncacheable)) == (12, 12, 0.5, {})
    assert all(sha(bench.src / "one" / f"{n}.o") == sha(bench.src / "two" / f"{n}.o") for n in range(12))


def test_at_a_fixed_path_objects_are_the_same_with_the_cache_and_without(bench: Bench) -> None:
    run(*unit(bench, "-g", out="plain.o"), env=bench.env(), cwd=bench.src)
    bench.compile(*unit(bench, "-g", out="miss.o"))
    bench.compile(*unit(bench, "-g", out="hit.o"))
    assert bench.compiled() == 1
    assert sha(bench.src / "plain.o") == sha(bench.src / "miss.o") == sha(bench.src / "hit.o")


def test_another_tree_hits_where_paths_differ_and_never_where_they_are_fixed(tmp_path: Path) -> None:
    one, two = (Bench(tmp_path / name, cache=tmp_path / "cache") for name in ("one", "two"))
    for bench in (one, two):
        write(bench.src, SOURCES)
    one.compile(*unit(one, "-g"), env=one.env(fixed=False))
    two.compile(*unit(two, "-g"), env=two.env(fixed=False))
    assert (one.compiled(), two.compiled()) == (1, 0)
    one.compile(*unit(one, "-g"))
    two.compile(*unit(two, "-g"))
    assert (one.compiled(), two.compiled()) == (1, 1)  # else debug information would name the wrong tree
    assert str(two.src).encode() in (two.src / "a.o").read_bytes()


@pytest.mark.cuda
def test_kernels_hit_in_a_fresh_folder_and_in_another_tree(tmp_path: Path) -> None:
    one, two = (Bench(tmp_path / name, cache=tmp_path / "cache") for name in ("one", "two"))
    for bench in (one, two):
        write(bench.src, KERNEL)
    run(*kernel(one, "plain.o"), env=one.env(), cwd=one.src)
    one.compile(*kernel(one))
    one.compile(*kernel(one, "again.o"))
    assert one.compiled() == 1
    assert stripped(one.src / "plain.o", tmp_path) == stripped(one.src / "again.o", tmp_path)
    one.compile(*kernel(one), env=one.env(fixed=False))
    two.compile(*kernel(two), env=two.env(fixed=False))
    assert (one.compiled(), two.compiled()) == (1, 0)


# What must not hit


@pytest.mark.parametrize("how", ["-I", "-isystem"])
def test_a_changed_header_is_seen(bench: Bench, how: str) -> None:
    header = bench.root / "include" / "v.h"
    write(header.parent, {"v.h": "#define V 1\n"})
    (bench.src / "v.cpp").write_text("#include <v.h>\nint v() { return V; }\n")
    words = ("g++", "-MD", how, str(header.parent), "-c", "v.cpp", "-o", "v.o")
    bench.compile(*words)
    before = sha(bench.src / "v.o")
    header.write_text("#define V 2\n")
    bench.compile(*words)
    assert bench.compiled() == 2
    assert sha(bench.src / "v.o") != before


def test_another_namespace_has_no_hit(bench: Bench) -> None:
    bench.compile(*unit(bench))
    bench.compile(*unit(bench), env=bench.env(name="other"))
    assert bench.compiled() == 2


TOOLKIT = Tool(name="cuda", version="13.0", path="/usr/local/cuda", digest="c")
HOST = Host(
    machine="aarch64",
    libc="2.39",
    interpreter=Interpreter(path="/usr/bin/python3", version="3.12.3", tag="cp312", digest="p", headers=True),
    tools=(Tool(name="g++", version="13.3", path="/usr/bin/g++", digest="g"), Tool(name="apt:x", version="1")),
    cuda=TOOLKIT,
    cores=20,
    memory_bytes=1 << 36,
)
TORCH = Torch(version="2.14.0", cuda="13.0")


@pytest.mark.parametrize(
    "other",
    [
        (replace(HOST, cuda=replace(TOOLKIT, digest="another cicc")), TORCH),
        (replace(HOST, tools=(replace(HOST.tools[0], digest="another cc1plus"),)), TORCH),
        (replace(HOST, interpreter=replace(HOST.interpreter, tag="cp313")), TORCH),
        (HOST, replace(TORCH, version="2.14.1")),
        (HOST, replace(TORCH, cxx11abi=False)),
        (HOST, None),
    ],
)
def test_the_namespace_tells_toolchains_apart(other: tuple[Host, Torch | None]) -> None:
    assert ccache.namespace(*other) != ccache.namespace(HOST, TORCH)


def test_the_namespace_is_that_of_a_toolchain_and_not_of_a_machine() -> None:
    moved = replace(
        HOST,
        cores=4,
        memory_bytes=1,
        cuda=replace(TOOLKIT, path="/opt/cuda"),
        tools=(replace(HOST.tools[0], path="/opt/g++"), Tool(name="apt:x", version="2")),
    )
    assert ccache.namespace(moved, TORCH) == ccache.namespace(HOST, TORCH)


# Whose settings hold


def test_neither_a_users_nor_a_trees_configuration_is_read(bench: Bench) -> None:
    write(bench.root, {".config/ccache/ccache.conf": "disable = true\n", "src/ccache.conf": "recache = true\n"})
    write(bench.cache, {"ccache.conf": "depend_mode = false\nsloppiness = system_headers\n"})
    told = run(CCACHE, "-p", env=bench.env(), cwd=bench.src).stdout
    assert {line[1 : line.index(")")] for line in told.splitlines()} == {"environment", "default"}
    bench.compile(*unit(bench))
    bench.compile(*unit(bench))
    assert bench.compiled() == 1


def test_a_folder_name_is_no_variable(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "tree", cache=tmp_path / "a $HOME b")
    write(bench.src, SOURCES)
    bench.compile(*unit(bench))
    assert (bench.cache / "tmp").is_dir()


# What it says


def test_statistics_tell_hits_misses_and_why_there_was_neither(bench: Bench) -> None:
    (bench.src / "bad.cpp").write_text("no\n")
    bench.compile(*unit(bench))
    bench.compile(*unit(bench))
    bench.compile("g++", "-MD", "-c", "bad.cpp", code=1)
    bench.compile("g++", "-shared", "a.o", "-o", "a.so")
    bench.compile("g++", "-E", "a.cpp")
    done = bench.statistics()
    assert (done.hits, done.misses, done.remote_hits, done.remote_errors) == (1, 1, 0, 0)
    assert dict(done.uncacheable) == {"compile_failed": 1, "called_for_link": 1, "called_for_preprocessing": 1}


def test_statistics_of_a_log_that_was_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ccache.statistics(log) == ccache.Statistics()
    assert ccache.statistics(log).rate is None
    log.write_text("# a.cpp\ndirect_cache_hit\nlocal_storage_hit\n# b.cpp\ncache_mi")
    assert ccache.statistics(log).hits == 1


# Which program


def test_the_program_is_the_one_beside_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "path" / "ccache", "echo ccache version 9.9.9")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert ccache.program() == CCACHE
    assert ccache.program(tmp_path) is None


@pytest.mark.parametrize("says", ["echo ccache version 4.12.3", "echo ccache version 3.7.7", "echo hello", "exit 1"])
def test_an_old_program_is_refused(tmp_path: Path, says: str) -> None:
    script(tmp_path / "ccache", says)
    with pytest.raises(HostError) as caught:
        ccache.program(tmp_path)
    assert caught.value.code == "ccache-old"


def test_what_may_be_asked_for() -> None:
    assert ccache.choose(None) == ccache.choose("on") == ccache.Choice()
    assert ccache.choose("off").off
    assert ccache.choose("https://host/x").url == "https://host/x"
    assert ccache.choose("file:///shared").url == "file:///shared"
    for text in ("offf", "http://", "ftp://host/x", "file:x", "/shared"):
        with pytest.raises(UsageError, match="compile-cache"):
            ccache.choose(text)


# Another machine


def elsewhere(bench: Bench, name: str) -> Bench:
    """Another machine: nothing in its own cache, the same tree."""
    other = Bench(bench.root, cache=bench.root.parent / name)
    other.compiled()
    return other


def shared(bench: Bench, relay: Relay) -> dict[str, str]:
    return bench.env(remote=relay.storage)


def test_what_one_machine_compiled_another_takes(bench: Bench) -> None:
    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        bench.compile(*unit(bench, out="one.o"), env=shared(bench, relay))
        other = elsewhere(bench, "cache-2")
        other.compile(*unit(other, out="two.o"), env=shared(other, relay))
        assert other.compiled() == 0
        served = relay.served()
    assert (served.put, served.got, served.failed) == (2, 2, 0)  # the list of headers, and the object
    assert sha(bench.src / "one.o") == sha(bench.src / "two.o")
    done = bench.statistics()
    assert (done.hits, done.remote_hits, done.misses, done.remote_errors) == (1, 1, 1, 0)
    assert {path.split("/")[1] for path in store.values} == {"ccache"}
    assert all(len(path.split("/")[2]) == 2 for path in store.values)


def test_ccache_itself_finds_over_http_what_the_relay_stored(bench: Bench) -> None:
    with serving(Store()) as store:
        with Relay(store.url, root=bench.root, inside=bench.root) as relay:
            bench.compile(*unit(bench), env=shared(bench, relay))
        other = elsewhere(bench, "cache-2")
        other.compile(*unit(other), env=other.env(remote=store.url))
        assert other.compiled() == 0


def test_a_folder_can_be_shared_without_a_server(bench: Bench) -> None:
    url = (bench.root.parent / "shared").as_uri()
    bench.compile(*unit(bench), env=bench.env(remote=url))
    other = elsewhere(bench, "cache-2")
    other.compile(*unit(other), env=other.env(remote=url))
    assert other.compiled() == 0


@pytest.mark.root
@pytest.mark.parametrize("how", [("--namespaces", "--bind"), ("--seccomp",)])
def test_a_build_whose_network_is_cut_reaches_the_cache(bench: Bench, how: tuple[str, ...]) -> None:
    inside = Path("/sb/tiny") if "--bind" in how else bench.root
    words = [str(program("spark-build-enter")), *how, *([str(bench.root), "tiny"] if "--bind" in how else [])]

    def compile_inside(bench: Bench, relay: Relay) -> None:
        env = shared(bench, relay)
        seen = [word.replace(str(bench.root), str(inside)) for word in unit(bench)]
        cut = (
            "if python3 -c \"import socket; socket.create_connection(('127.0.0.1', $0))\" 2>/dev/null; then exit 9; fi"
        )
        shell = ["sh", "-c", f'{cut}; exec "$@"', str(store.server_port), str(CCACHE), *seen]
        run(*words, "--chdir", inside / "src", "--", *shell, env=env, cwd=bench.root)

    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=inside) as relay:
        compile_inside(bench, relay)
        assert bench.compiled() == 1
        assert len(store.values) == 2
        other = elsewhere(bench, "cache-2")
        compile_inside(other, relay)
        assert other.compiled() == 0


@pytest.mark.parametrize("login", ["token", "url"])
def test_the_login_reaches_the_server_and_no_build(bench: Bench, login: str) -> None:
    wanted = "Bearer s3cret" if login == "token" else "Basic dTpzM2NyZXQ="
    with serving(Store(token=wanted)) as store:
        url = store.url if login == "token" else store.url.replace("//", "//u:s3cret@")
        token = "s3cret" if login == "token" else None
        with Relay(url, root=bench.root, inside=bench.root, token=token) as relay:
            env = shared(bench, relay)
            bench.compile(*unit(bench), env=env)
            assert relay.served().put == 2
    assert not any("s3cret" in value for value in env.values())


def test_a_server_that_lets_nobody_write_is_asked_once(bench: Bench) -> None:
    refuses = Store("Bearer of nobody here")
    with serving(refuses) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        for number in range(3):
            bench.compile(*unit(bench, f"-DN={number}"), env=shared(bench, relay))
        assert sum(line.startswith("PUT") for line in store.asked) == 1
        assert "401" in relay.served().reason
    assert bench.compiled() == 3


def test_a_server_that_is_down_is_found_out_once_and_costs_no_object(bench: Bench) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/ccache"
    with Relay(url, root=bench.root, inside=bench.root) as relay:
        for number in range(3):
            bench.compile(*unit(bench, f"-DN={number}"), env=shared(bench, relay))
        served = relay.served()
    assert bench.compiled() == 3
    assert (served.got, served.put, served.failed) == (0, 0, 1)
    assert "127.0.0.1" in served.reason


def test_a_relay_that_is_gone_costs_no_object(bench: Bench) -> None:
    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        pass
    assert not relay.socket.exists()
    bench.compile(*unit(bench), env=shared(bench, relay))
    assert bench.compiled() == 1
    assert (bench.src / "a.o").exists()


def test_a_server_that_goes_away_in_the_middle_of_a_build(bench: Bench) -> None:
    store = Store()
    with Relay(store.url, root=bench.root, inside=bench.root) as relay:
        with serving(store):
            bench.compile(*unit(bench, "-DN=1"), env=shared(bench, relay))
        bench.compile(*unit(bench, "-DN=2"), env=shared(bench, relay))
        bench.compile(*unit(bench, "-DN=3"), env=shared(bench, relay))
    assert bench.compiled() == 3


@pytest.mark.parametrize("damage", [b"", b"x" * 5000, b"cC"])
def test_a_server_that_gives_other_bytes_costs_no_wrong_object(bench: Bench, damage: bytes) -> None:
    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        bench.compile(*unit(bench, out="one.o"), env=shared(bench, relay))
        store.damage = damage or store.values[min(store.values)][:-20] + b"y" * 20
        other = elsewhere(bench, "cache-2")
        other.compile(*unit(other, out="two.o"), env=shared(other, relay))
        assert other.compiled() == 1
    assert sha(bench.src / "one.o") == sha(bench.src / "two.o")


def test_a_tree_deeper_than_an_address_holds(tmp_path: Path) -> None:
    bench = Bench(tmp_path / ("deep" * 20) / ("er" * 20) / "tree")
    write(bench.src, SOURCES)
    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        bench.compile(*unit(bench), env=shared(bench, relay))
        assert len(store.values) == 2
        assert len(str(relay.socket)) < 100
    assert not relay.socket.parent.exists()
    with Relay("http://127.0.0.1:1/x", root=bench.root, inside=Path("/sb/tiny")) as relay:
        assert (bench.root / relay.socket.name).is_socket()
        assert relay.socket.parent == Path("/sb/tiny")


def test_https(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = bench.root / "key", bench.root / "cert"
    certificate(key, cert, name="DNS:localhost")
    store = Store()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    store.socket = context.wrap_socket(store.socket, server_side=True)
    url = f"https://localhost:{store.server_port}/ccache"
    with serving(store):
        with Relay(url, root=bench.root, inside=bench.root) as relay:
            bench.compile(*unit(bench), env=shared(bench, relay))
            assert relay.served().put == 0  # nobody vouches for it
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        with Relay(url, root=bench.root, inside=bench.root) as relay:
            bench.compile(*unit(bench, "-DN=2"), env=shared(bench, relay))
            assert relay.served().put == 2


def test_many_compiles_at_once_share_the_relay(bench: Bench) -> None:
    with serving(Store()) as store, Relay(store.url, root=bench.root, inside=bench.root) as relay:
        env = shared(bench, relay)

        def one(number: int) -> None:
            bench.compile(*unit(bench, f"-DN={number}", out=f"{number}.o"), env=env)

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(one, range(24)))
        assert relay.served().put == 48
        assert relay.served().failed == 0
    assert threading.active_count() < 40
