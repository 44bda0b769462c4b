"""What a final image is made to be: from its wheels, its manifest and the command line; and the files that say so."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.audit.facts import Program
from builder.audit.target import Capability
from builder.bundle.target import parse
from builder.errors import CheckRefused, HostError, UsageError
from builder.image import asked_for, compose, context, dockerfile, final, memory, settings, wheels, words
from builder.image.bases import FINAL
from builder.image.steps import Steps
from builder.image.wheels import Held, Tool
from builder.recipe import find
from builder.ui.waiting import waiting
from tests import bundle_kit

if TYPE_CHECKING:
    from builder.events import Event
    from builder.image.settings import Settings
    from tests.world import World

GB10 = Capability(12, 1)
SITE = "/opt/venv/lib/python3.12/site-packages"
HADOLINT = Path(sys.executable).with_name("hadolint")
ROOT = Path(__file__).resolve().parent.parent


class Unheard:
    """A sink that nobody listens to."""

    def emit(self, event: Event) -> None:
        pass


NULL = Unheard()


def tool(project: str, path: str, version: str, *targets: str) -> Tool:
    name = path.rpartition("/")[2]
    return Tool(project=project, path=path, program=Program(name=name, version=version, targets=frozenset(targets)))


OLD = tool("triton", "triton/backends/nvidia/bin/ptxas", "12.8.93", "sm_90a", "sm_120a")
BLACKWELL = tool("triton", "triton/backends/nvidia/bin/ptxas-blackwell", "13.4.59", "sm_120a", "sm_121a")
TOOLKIT = tool("nvidia-cuda-nvcc", "nvidia/cu13/bin/ptxas", "13.0.88", "sm_121a")

#: A toolkit in wheels that fits CUDA 13.0.
NVCC = {"nvidia-cuda-nvcc": "13.0.88", "nvidia-nvvm": "13.0.88", "nvidia-cuda-crt": "13.0.88"}
VLLM = {"vllm": "0.33.0", "torch": "2.14.0", "triton": "3.9.0", "flashinfer-python": "0.7.2"}


def closure(packages: dict[str, str] | None = None, **more: Any) -> settings.Closure:  # noqa: ANN401  # fields
    given = {
        "target": parse("aarch64-manylinux_2_39", "3.12"),
        "packages": VLLM if packages is None else packages,
        "asked": ("vllm",),
        "needs": ("compiler", "headers", "nvcc"),
        "env": {"FLASHINFER_NO_DOWNLOAD": "1"},
        "cuda": "13.0",
        "driver": 580,
    }
    return settings.Closure(**{**given, **more})


def reckoned(
    found: settings.Closure | None = None,
    held: Held | None = None,
    **more: Any,  # noqa: ANN401  # fields
) -> Settings:
    given: dict[str, Any] = {"base": FINAL, "capability": GB10, "peak_bytes": 8 << 30}
    held = Held(ptxas=(OLD, BLACKWELL), cuda_torch=True) if held is None else held
    return settings.reckon(found or closure(), held, asked_for.Asked(**{**given, **more}))


def test_a_server_keeps_what_it_compiles_and_fetches() -> None:
    env = reckoned().env
    kept = [name for name, value in env.items() if value.startswith("/cache")]
    assert {"HOME", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "VLLM_CACHE_ROOT", "CUDA_CACHE_PATH"} <= set(kept)
    assert env["FLASHINFER_NO_DOWNLOAD"] == "1"
    assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "TRITON_CACHE_DIR" not in reckoned(closure({"app": "1"}, needs=()), Held()).env


def test_jobs_follow_from_what_is_compiled_and_what_memory_there_is() -> None:
    assert reckoned().env["MAX_JOBS"] == "2"
    assert reckoned(peak_bytes=memory.UNIT_BYTES).env["MAX_JOBS"] == "8"
    ahead = reckoned(closure({**VLLM, "flashinfer-jit-cache": "0.7.2"}))
    assert (ahead.env["MAX_JOBS"], ahead.needs) == ("1", ("compiler", "headers"))
    assert "MAX_JOBS" not in reckoned(capability=Capability(12, 0)).env  # a GPU with memory of its own
    assert "MAX_JOBS" not in reckoned(closure({"app": "1"}, needs=()), Held()).env
    assert "TORCHINDUCTOR_COMPILE_THREADS" not in reckoned().env  # vLLM's own business
    alone = reckoned(closure({"torch": "2.14.0", "triton": "3.9.0"}))
    assert alone.env["TORCHINDUCTOR_COMPILE_THREADS"] == alone.env["MAX_JOBS"]
    assert reckoned(env={"MAX_JOBS": "3"}).env["MAX_JOBS"] == "3"


def test_the_heaviest_unit_is_that_of_what_compiles_by_nvcc_at_run_time() -> None:
    folders = (find.shipped(),)
    assert (
        8 << 30 < final.peak_bytes(VLLM, folders, NULL) < 9 << 30
    )  # FlashInfer's; vLLM's heavier ones are built before
    assert final.peak_bytes({"triton": "3.9.0"}, folders, NULL) == memory.UNIT_BYTES


def _ptxas(found: Settings) -> dict[str, str]:
    return {name: value for name, value in found.env.items() if name.startswith("TRITON_PTXAS")}


def test_triton_is_led_to_another_ptxas_only_where_its_own_does_not_know_the_chip() -> None:
    both = {"TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH"}
    assert _ptxas(reckoned()) == {}
    led = _ptxas(reckoned(held=Held(ptxas=(OLD, TOOLKIT), toolkit="nvidia/cu13")))
    assert led == dict.fromkeys(both, f"{SITE}/nvidia/cu13/bin/ptxas")
    assert (
        set(_ptxas(reckoned(held=Held(ptxas=(TOOLKIT,), toolkit="nvidia/cu13")))) == both
    )  # built offline: none in it
    assert _ptxas(reckoned(held=Held(unread=("triton",)))) == {}
    assert _ptxas(reckoned(held=Held(ptxas=(OLD,)), capability=Capability(12, 0))) == {}
    assert _ptxas(reckoned(closure({"app": "1"}, needs=()), Held())) == {}
    with pytest.raises(CheckRefused, match="sm_121a") as caught:
        reckoned(held=Held(ptxas=(OLD,)))
    assert caught.value.code == "ptxas-ignorant"
    assert "12.8.93" in caught.value.cause
    assert "nvidia-cuda-nvcc" in caught.value.run[0]


def test_a_torch_without_cuda_is_refused_before_anything_is_built() -> None:
    with pytest.raises(CheckRefused) as caught:
        reckoned(held=Held(ptxas=(BLACKWELL,), cuda_torch=False))
    assert caught.value.code == "torch-cpu"


def test_nvcc_comes_as_wheels_or_from_the_distribution() -> None:
    held = Held(ptxas=(BLACKWELL, TOOLKIT), toolkit="nvidia/cu13")
    wheel = reckoned(closure(VLLM | NVCC), held)
    assert wheel.env["CUDA_HOME"] == f"{SITE}/nvidia/cu13"
    assert wheel.needs == ("compiler", "headers")
    text = dockerfile.final(wheel, base="x")
    assert f"ENV PATH=/opt/venv/bin:{SITE}/nvidia/cu13/bin:${{PATH}}\n" in text
    assert f"ln -s lib {SITE}/nvidia/cu13/lib64" in text
    system = reckoned()
    assert system.env["CUDA_HOME"] == "/usr/local/cuda"
    assert "lib64" not in dockerfile.final(system, base="x")
    assert re.findall(r'set -- "\$@" (\S+);', dockerfile.system(system)) == [
        *("python3.12", "ca-certificates", "gcc", "g++", "python3.12-dev"),
        *("cuda-nvcc-13-0", "cuda-cudart-dev-13-0", "cuda-driver-dev-13-0"),
    ]
    assert "nvidia-nvvm==13.0.*" in dockerfile.system(system)
    assert "CUDA_HOME" not in reckoned(closure(needs=("compiler",))).env


def test_a_toolkit_of_wheels_can_be_linked_against(tmp_path: Path) -> None:
    """As FlashInfer links, by a compiler that drops libraries of which nothing is used, as Ubuntu's does."""
    toolkit = tmp_path / "nvidia" / "cu13"
    (toolkit / "lib").mkdir(parents=True)
    (toolkit / "include").mkdir()
    (toolkit / "include" / "cuda.h").write_text(
        "#define cuMemAlloc cuMemAlloc_v2\nCUresult CUDAAPI cuInit(unsigned int Flags);\n"
    )
    (tmp_path / "rt.c").write_text("int cudaFree(void *at) { return 0; }\n")
    words = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcudart.so.13", "-o", str(toolkit / "lib" / "libcudart.so.13")]
    subprocess.run([*words, str(tmp_path / "rt.c")], check=True)
    steps = "; ".join(["set -eu", *dockerfile.linkable(str(toolkit), sys.executable)])
    for _twice in range(2):
        subprocess.run(["sh", "-c", steps], check=True)
    (tmp_path / "use.c").write_text(
        "int cuMemAlloc_v2(); int cudaFree(); int use(void) { return cuMemAlloc_v2() + cudaFree(0); }\n"
    )
    words = ["gcc", "-shared", "-fPIC", "-Wl,--as-needed", "-o", str(tmp_path / "use.so"), str(tmp_path / "use.c")]
    words += [f"-L{toolkit}/lib64", f"-L{toolkit}/lib64/stubs", "-lcudart", "-lcuda"]
    subprocess.run(words, check=True)
    needed = subprocess.run(["readelf", "-d", tmp_path / "use.so"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED.*\[(libcu.+)\]", needed) == ["libcudart.so.13", "libcuda.so.1"]


@pytest.mark.parametrize(
    "parts",
    [
        {**NVCC, "nvidia-nvvm": "13.5.37"},  # what a resolver gives for nvcc 13.0
        dict.fromkeys(NVCC, "13.5.37"),  # what it gives beside a torch of CUDA 13.0
        {},
    ],
)
def test_wheels_of_several_toolkits_are_none(parts: dict[str, str]) -> None:
    found = reckoned(closure(VLLM | parts), Held(ptxas=(BLACKWELL, TOOLKIT), toolkit="nvidia/cu13"))
    assert found.env["CUDA_HOME"] == "/usr/local/cuda"
    assert "nvcc" in found.needs


def test_a_dry_run_knows_where_nvcc_will_be() -> None:
    found = reckoned(closure(VLLM | NVCC), Held(unread=("nvidia-cuda-nvcc", "triton")))
    assert found.env["CUDA_HOME"] == f"{SITE}/nvidia/cu13"


def test_wheels_are_read_and_never_unpacked(tmp_path: Path) -> None:
    ptxas = b"\x7fELF" + b"\0" * 60 + b"Cuda compilation tools, release 12.8, V12.8.93\0sm_90a\0sm_120a\0"
    made = {
        "triton": {"triton/backends/nvidia/bin/ptxas": ptxas, "triton/ptxas.py": b"print()"},
        "nvidia-cuda-nvcc": {"x-1.data/purelib/nvidia/cu13/bin/nvcc": b"\x7fELF"},
        "torch": {"torch/lib/libtorch_cpu.so": b""},
    }
    for name, members in made.items():
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            for path, data in members.items():
                archive.writestr(path, data)
    found = wheels.read((name, tmp_path / f"{name}.whl") for name in [*made, "vllm"])
    assert found.of("triton") == (tool("triton", "triton/backends/nvidia/bin/ptxas", "12.8.93", "sm_90a", "sm_120a"),)
    assert (found.toolkit, found.cuda_torch, found.unread) == ("nvidia/cu13", False, ("vllm",))
    assert not found.ptxas[0].knows(GB10)
    assert found.ptxas[0].knows(Capability(12, 0))


def test_what_a_bundle_says_of_itself_writes_no_instructions(tmp_path: Path) -> None:
    document = {
        "target": {"cuda": "13.0\nRUN id", "driver": "1;id"},
        "asked": ["vllm", "x\nRUN id"],
        "wheels": [{"project": "vllm", "version": "1"}, {"project": "triton", "version": "3.9"}],
        "needs": [{"id": "nvcc"}, {"id": "x; id"}],
        "run": {"env": {"A": "$(id) `id`"}, "imports": []},
    }
    with zipfile.ZipFile(tmp_path / "nvcc.whl", "w") as archive:
        archive.writestr("a;id/bin/nvcc", b"\x7fELF")
        archive.writestr("b\nRUN id/bin/ptxas", b"\x7fELF sm_121a")
    held = wheels.read([("triton", tmp_path / "missing"), ("nvidia-cuda-nvcc", tmp_path / "nvcc.whl")])
    assert held == Held(unread=("triton",))
    target = parse("aarch64-manylinux_2_39", "3.12")
    found = reckoned(settings.of_document(document, "0" * 64, target), held)
    for text in context.files(found, signed=True, statements=True).values():
        assert not re.search(r"^RUN id|; ?id|/id", text, re.MULTILINE)
    assert 'ENV A="\\$(id) `id`"' in dockerfile.final(found, base="x")
    assert (found.cuda, found.labels["org.opencontainers.image.description"]) == ("13.0", "vllm")


@pytest.mark.cuda
def test_a_real_ptxas_says_what_it_knows(tmp_path: Path) -> None:
    real = next(path for path in (Path("/usr/local/cuda/bin/ptxas"), Path("/usr/bin/ptxas")) if path.exists())
    with zipfile.ZipFile(tmp_path / "nvcc.whl", "w") as archive:
        archive.write(real, "nvidia/cu13/bin/ptxas")
    (found,) = wheels.read([("nvidia-cuda-nvcc", tmp_path / "nvcc.whl")]).ptxas
    assert found.knows(GB10)


def test_labels_name_the_base_and_what_is_in_it() -> None:
    version = "0.33.0+sb20261101120000.gabcdefabcd"
    found = reckoned(closure({**VLLM, "vllm": version}, manifest="0" * 64))
    assert found.labels["org.opencontainers.image.base.name"] == FINAL.partition("@")[0]
    assert found.labels["org.opencontainers.image.base.digest"] == FINAL.partition("@")[2]
    assert (
        found.labels["org.opencontainers.image.created"] == "2026-11-01T12:00:00Z"
    )  # that of the newest wheel of ours
    assert found.labels["spark-build.manifest.sha256"] == "0" * 64
    assert (found.labels["spark-build.cuda"], found.labels["spark-build.driver"]) == ("13.0", "580")
    assert reckoned(epoch=0).epoch == 0
    local = reckoned(base="localhost/base:1")
    assert "org.opencontainers.image.base.digest" not in local.labels
    assert final.described(local, "sha256:1").labels["org.opencontainers.image.base.digest"] == "sha256:1"
    assert final.described(found, "sha256:1") == found


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("image-base", {"base": "a b"}),
        ("image-base", {"base": "x\nRUN id"}),
        ("image-base", {"base": "--platform=x"}),
        ("image-apt", {"apt": ("x;id",)}),
        ("image-apt", {"apt": ("-o=x",)}),
        ("image-env", {"env": {"A B": "1"}}),
        ("image-env", {"env": {"A": "1\n2"}}),
        ("image-secret", {"env": {"HF_TOKEN": "hf_x"}}),
        ("image-secret", {"env": {"aws_secret_access_key": "x"}}),
        ("image-accept", {"accept": ("rpath-absolute=a\nb",)}),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(code: str, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        asked_for.check(asked_for.Asked(**{"base": FINAL, "capability": GB10, **more}))
    assert caught.value.code == code


def test_variables_that_only_sound_secret_are_taken() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "VLLM_MAX_TOKENS": "1", "HF_TOKEN": ""}
    asked_for.check(asked_for.Asked(base=FINAL, capability=GB10, env=env, apt=("less", "libc6=2.39-0ubuntu8")))


def test_another_machine_needs_somebody_who_runs_its_programs(tmp_path: Path) -> None:
    final.check_machine("x86_64", "x86_64", handlers=tmp_path)
    with pytest.raises(HostError) as caught:
        final.check_machine("aarch64", "x86_64", handlers=tmp_path)
    assert caught.value.code == "image-foreign"
    handler = tmp_path / "qemu-aarch64"
    handler.write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: \noffset 0\n")
    with pytest.raises(HostError):  # a container has no such program
        final.check_machine("aarch64", "x86_64", handlers=tmp_path)
    handler.write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n")
    final.check_machine("aarch64", "x86_64", handlers=tmp_path)
    handler.write_text("disabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n")
    with pytest.raises(HostError):
        final.check_machine("aarch64", "x86_64", handlers=tmp_path)


def _every() -> list[dict[str, str]]:
    """Texts of several images: with and without a server, nvcc, signature, odd values."""
    wheel = Held(ptxas=(OLD, TOOLKIT), toolkit="nvidia/cu13")
    odd = {"A": 'x "y" $HOME \\n', "B": "a=b c"}
    found = [
        reckoned(),
        reckoned(held=wheel, apt=("less", "git"), env=odd),
        reckoned(closure({"app": "1"}, needs=()), Held(), accept=('rpath-absolute=it\'s found by "dlopen"',)),
    ]
    return [context.files(one, signed=flag, statements=flag) for one in found for flag in (True, False)]


def test_the_files_pass_hadolint_and_hold_to_what_every_engine_takes(tmp_path: Path) -> None:
    for number, texts in enumerate(_every()):
        for name in (dockerfile.FILE, dockerfile.SYSTEM):
            file = tmp_path / f"{number}.{name}"
            file.write_text(texts[name])
            assert not re.search(r"<<|# syntax|--link|RUN --network|^SHELL", texts[name], re.MULTILINE)
            assert re.search(r"^ARG BASE=.+\nFROM \$\{BASE\}", texts[name], re.MULTILINE)
            assert re.findall(r"^USER (\S+)", texts[name], re.MULTILINE) == ["0", "1000"]
    words = [str(HADOLINT), "-c", str(ROOT / ".hadolint.yaml"), *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_hadolint_is_asked_for_real(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install x\n")
    words = [str(HADOLINT), "-c", str(ROOT / ".hadolint.yaml"), str(tmp_path / "Dockerfile")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 1


def test_the_check_cannot_be_passed_over() -> None:
    text = dockerfile.final(reckoned(accept=("rpath-absolute=why",)), base="x")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert [stage.split()[0] for stage in stages] == ["${BASE}", "installed", "installed"]
    assert "-m builder doctor --env /opt/venv --target 12.1" in stages[1]
    assert "--ours --accept=rpath-absolute=why" in stages[1]
    assert "RUN --mount=type=bind,from=check,source=/tmp,target=/check test -e /check/checked" in stages[2]
    assert "HEALTHCHECK" in stages[2]
    assert "8000" not in dockerfile.final(reckoned(closure({"app": "1"}, needs=()), Held()), base="x")


def test_a_system_has_one_name_for_each_text_and_machine() -> None:
    one, other = reckoned(), reckoned(env={"A": "1"})
    assert context.system_tag(one) == context.system_tag(other)
    arm, x86 = closure(), closure(target=parse("x86_64-manylinux_2_39", "3.12"))
    assert context.system_tag(reckoned(arm)) != context.system_tag(reckoned(x86))
    assert context.system_tag(one) != context.system_tag(reckoned(apt=("less",)))


def test_a_stack_and_names_beside_it_are_told_without_fetching_anything(world: World, tmp_path: Path) -> None:
    index = bundle_kit.public(tmp_path / "public")
    index.add_uv()
    world.tiny_repo()
    world.tiny_recipe(more='[image]\nenv = { TINY = "a b" }\n')
    stack = 'schema = 1\nname = "team"\nchannel = "team"\n[[member]]\nrecipe = "tiny"\n'
    (world.root / "stack.toml").write_text(stack)
    words = [
        "image",
        "stack.toml",
        "app",
        "--dry-run",
        "--platform",
        "x86_64-manylinux_2_39",
        "--target-python",
        "3.13",
    ]
    done = world.run(*words, code=2)
    assert "error[stack-not-promoted]" in done.stderr
    world.run("stack", "stack.toml")
    told = world.json(*words, SPARK_BUILD_INDEX_URL=index.url, UV_NO_CONFIG="1")
    assert sorted(told["files"]) == [".dockerignore", "Dockerfile", "Dockerfile.system"]
    text = told["files"]["Dockerfile"]
    assert re.search(r'description="tiny==1\.0\+sb\d{14}\.g[0-9a-f]{10} app"', text)
    assert 'TINY="a b"' in text
    assert "/usr/share/spark-build/statements" in text  # one is ours
    assert told["unread"] == ["app", "base"]  # ours lies in the wheelhouse
    assert not list(world.root.glob("sources/files/*/*.whl"))


@pytest.mark.parametrize("name", ["bundle", "tool", "Dockerfile.system", "compose.yaml"])
def test_a_folder_that_holds_what_is_called_as_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError) as caught:
        context.claim(tmp_path)
    assert caught.value.code == "context-taken"
    assert [one.name for one in tmp_path.iterdir()] == [name]
    context.claim(tmp_path / "new")
    (tmp_path / "new" / name).mkdir()
    context.claim(tmp_path / "new")  # begun, and stopped


def test_a_context_that_a_killed_run_left_is_removed_by_gc_and_one_in_use_isnt(world: World) -> None:
    sources = world.root / "sources"
    with context.scratch(sources) as used:
        (sources / ".image-left" / "bundle").mkdir(parents=True)
        for folder in (used, sources / ".image-left" / "bundle", sources / ".image-left"):
            os.utime(folder, (1, 1))
        world.wheelhouse.mkdir()
        world.run("gc")
        assert [one.name for one in sources.glob(".image-*")] == [used.name]


def test_what_a_killed_run_left_goes_and_what_another_uses_stays(tmp_path: Path) -> None:
    with context.scratch(tmp_path) as used:
        (tmp_path / ".image-left" / "bundle").mkdir(parents=True)
        with context.scratch(tmp_path) as mine:
            assert sorted(tmp_path.iterdir()) == sorted([used, mine])
        assert list(tmp_path.iterdir()) == [used]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("nothing-asked", ["-t", "x"]),
        ("usage", ["vllm"]),
        ("usage", ["vllm", "--bundle", "b", "-t", "x"]),
        ("usage", ["--bundle", "b", "-t", "x", "--platform", "aarch64-manylinux_2_39"]),
        ("usage", ["vllm", "-t", "x", "--model", "m"]),
        ("usage", ["vllm", "--dry-run", "--to", "spark-2"]),
        ("usage", ["vllm", "--dry-run", "--write", "d"]),
        ("ship-host", ["vllm", "-t", "x", "--to", "a b"]),
        ("image-env", ["vllm", "-t", "x", "--env", "A"]),
        ("image-secret", ["vllm", "-t", "x", "--env", "HF_TOKEN=1"]),
        ("image-secret", ["vllm", "-t", "x", "--env", "APP_SECRET_KEY=1"]),
        ("image-secret", ["vllm", "-t", "x", "--env", "UV_INDEX_URL=https://me:mine@index.example/simple"]),
        ("accept-unknown", ["vllm", "-t", "x", "--accept", "nope"]),
        ("target", ["vllm", "-t", "x", "--capability", "many"]),
        ("target-platform", ["vllm", "-t", "x", "--platform", "linux"]),
        ("not-a-bundle", ["--bundle", "b", "-t", "x"]),
        ("engine-unknown", ["vllm", "-t", "x", "--engine", "kaniko"]),
        ("compose-model", ["vllm", "-t", "x", "--compose", "--model", "a b"]),
        ("image-name", ["vllm", "-t", "A b"]),
        ("image-name", ["vllm", "-t", "Team/vLLM:1"]),
        ("image-name", ["vllm", "-t", "vllm:1:2"]),
        ("image-base", ["vllm", "-t", "x", "--base", "docker.io/Debian"]),
        ("image-env", ["vllm", "-t", "x", "--env", "PATH=/usr/bin"]),
        ("compose-exists", ["vllm", "-t", "x", "--compose", "mine.yaml"]),
        ("compose-place", ["vllm", "-t", "x", "--compose", "no/compose.yaml"]),
        ("compose-place", ["vllm", "-t", "x", "--compose", "home"]),
    ],
)
def test_mistakes_are_told_before_anything_is_resolved(world: World, code: str, words: list[str]) -> None:
    (world.root / "mine.yaml").write_text("services: {}\n")
    done = world.run("image", *words, "--json", code=2)
    assert json.loads(done.stdout)["error"]["code"] == code
    assert "resolving" not in done.stderr
    assert not os.path.lexists(world.root / "sources")


@pytest.mark.parametrize("text", ["abc", "-1", "9" * 13, "253402300800"])
def test_a_time_that_is_none_is_told(world: World, text: str) -> None:
    done = world.run("image", "vllm", "-t", "x", "--dry-run", "--json", code=2, SOURCE_DATE_EPOCH=text)
    assert json.loads(done.stdout)["error"]["code"] == "image-epoch"


def test_names_of_images_are_those_that_every_engine_takes() -> None:
    digest = f"@sha256:{64 * '0'}"
    for name in (FINAL, "debian", "localhost:5000/a/b_c:1.0-x", "Registry.example/team/vllm", f"localhost/x{digest}"):
        assert words.is_reference(name), name
    for name in ("", "Debian", "a/B:1", "a:1:2", "a//b", "-a", "a:", f"a{digest}{digest}", f"{digest}", "a b", "a\n"):
        assert not words.is_reference(name), name
    assert words.new_name("team/vllm:1") == "team/vllm:1"
    with pytest.raises(UsageError):
        words.new_name(f"vllm{digest}")


def test_a_file_that_was_changed_by_hand_is_not_written_over(world: World) -> None:
    file = world.root / "compose.yaml"
    text = compose.text("x", model=None, room=None, cwd=world.root)
    file.write_text(text.replace("60m", "90m"))
    assert compose.is_as_written(text.encode())
    for more in ((), ("--write", ".")):
        error = world.json("image", "vllm", "-t", "x", "--compose", *more, code=2)["error"]
        assert error["code"] == "compose-exists"
        assert error["run"][0] == f"mv {file} {file}.old"
    assert "90m" in file.read_text()


#: It knows the packages of the folder ``has`` in these versions.
_DPKG = """\
for name; do :; done
version=$(cat "HERE/has/$name") || exit 1
echo "${2#-f=}" | sed "s/\\${db:Status-Status}/installed/; s/\\${Version}/$version/"
"""


def _looked_at(here: Path, *, update: str, has: dict[str, str], apt: tuple[str, ...]) -> tuple[int, str, list[str]]:
    """Run the step that looks at the base, with a dpkg and an apt that say what they are told to.

    Return how it ended, what it said, and which packages apt was asked for.
    """
    (here / "has").mkdir()
    for name, version in has.items():
        (here / "has" / name).write_text(version)
    programs = {
        "dpkg-query": _DPKG.replace("HERE", str(here)),
        "apt-get": f'case "$1" in update) {update} ;; install) echo "$@" >>{here}/asked; exit 100 ;; esac\n',
        "apt-cache": '[ "$2" != nothere ]\n',
        "python3.12": "",
    }
    for name, text in programs.items():
        (here / name).write_text(f"#!/bin/sh\n{text}")
        (here / name).chmod(0o755)
    text = dockerfile.system(reckoned(closure({"app": "1"}, needs=()), Held(), apt=apt))
    step = text.partition("\nRUN ")[2].partition("\n#")[0]
    path = f"{here}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", step], env={"PATH": path}, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (here / "asked").read_text().split()[3:]


def test_a_package_that_is_there_in_another_version_is_asked_for(tmp_path: Path) -> None:
    has = {"ca-certificates": "1", "gcc": "4:12", "make": "4.3"}
    apt = ("gcc=4:13", "gcc", "make=4.3", "g++")
    assert _looked_at(tmp_path, update="true", has=has, apt=apt)[2] == ["gcc=4:13", "g++"]


def test_a_distribution_that_is_out_of_reach_is_not_one_that_lacks_something(tmp_path: Path) -> None:
    for name in ("cut", "there"):
        (tmp_path / name).mkdir()
    code, said, _asked = _looked_at(tmp_path / "cut", update="exit 100", has={}, apt=("nothere",))
    assert code == 1
    assert "error: the archives of the base are out of reach, and it lacks ca-certificates nothere:" in said
    assert "has no" not in said
    code, said, _asked = _looked_at(tmp_path / "there", update="true", has={}, apt=("nothere",))
    assert (code, re.findall(r"error: .* has no (\S+);", said)) == (1, ["nothere"])


def test_what_the_check_found_wrong_says_what_to_type_next() -> None:
    steps = Steps(lambda _line: None)
    mend = f"uv pip install --python {settings.VENV}/bin/python 'torch>=2.11'"
    for line in (
        "STEP 2/2: RUN doctor",
        " ✔ python",
        "  ✘ torch            none",
        f"       fix     {mend}",
        "E: not apt",
    ):
        steps(line)
    found = steps.failed("Dockerfile", "podman")
    assert found.cause.splitlines()[0] == "✘ torch            none"
    assert final.advised(found, "vllm:1").run == ("spark-build image NAME 'torch>=2.11' -t vllm:1",)


class Screen(io.StringIO):
    """A terminal on which somebody waits for a text."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted, self.seen = wanted, threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.wanted in text:
            self.seen.set()
        return super().write(text)


def test_a_step_that_says_nothing_is_told_all_the_same() -> None:
    screen, times = Screen("STEP"), itertools.count(0, 60)
    with waiting(screen, {"TERM": "xterm"}, lambda: float(next(times)), "building the image") as tell:
        tell("STEP 5/7: install.sh")
        screen.seen.clear()
        assert screen.seen.wait(60)
    assert re.search(r"building the image, \d+m.*: STEP 5/7: install.sh", screen.getvalue())
    assert screen.getvalue().endswith("\r\x1b[K")
