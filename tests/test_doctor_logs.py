"""``doctor --log``: what servers really print is recognised, whoever wrote what stands before it, with the right mend."""

from __future__ import annotations

import codecs
import gzip
import io
import signal
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from builder.executor.diagnosis import UNKNOWN
from builder.runtime import known, logs
from builder.runtime.literal import literal
from tests.doctor_kit import Place
from tests.test_failures_catalogue import SAMPLES
from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

#: Entry, text, a part of the first command. What CUDA, torch, Triton, ptxas and the loader say is copied from runs (on an
#: H200 where a GPU is needed). FlashInfer's words: of 0.7.1 from a run of the whole package, of 0.7.4 from a run of its
#: jit/env.py alone, beside stand-ins for the packages of another version. vLLM's: "Unknown quantization method" is as its
#: config/model.py raises it (0.8.5 to 0.33), around it pydantic's words from a user's report; `--quantization` is what
#: argparse says to the list of 0.12.0, as which vLLM declares it there; the missing symbol is from a user's report.
RECORDED = [
    (
        "torch-cuda-library-missing",
        (
            "    from torch._C import *  # noqa: F403\n"
            "ImportError: libtorch_cuda.so: cannot open shared object file: No such file or directory"
        ),
        "uv pip install --python PYTHON --reinstall 'torch==VERSION'",
    ),
    ("torch-cpu", "AssertionError: Torch not compiled with CUDA enabled", "uv pip install --python PYTHON --reinstall"),
    (
        "quantization-unknown",
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, Unknown quantization method: nvfp4. Must be one of ['aqlm', 'awq', 'deepspeedfp', 'fp8']. "
            "[type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]"
        ),
        "spark-build doctor --env PYTHON",
    ),
    (
        "quantization-unknown",
        (
            "vllm serve: error: argument --quantization/-q: invalid choice: 'nvfp4' (choose from 'auto-round', 'awq', "
            "'awq_marlin', 'bitblas', 'bitsandbytes', 'compressed-tensors', 'cpu_awq', 'cpu_gptq', 'deepspeedfp', "
            "'experts_int8', 'fbgemm_fp8', 'fp8', 'fp_quant', 'gguf', 'gptq', 'gptq_bitblas', 'gptq_marlin', "
            "'gptq_marlin_24', 'hqq', 'inc', 'ipex', 'modelopt', 'modelopt_fp4', 'moe_wna16', 'mxfp4', 'petit_nvfp4', "
            "'ptpc_fp8', 'quark', 'rtn', 'torchao', 'tpu_int8', 'None')"
        ),
        "spark-build doctor --env PYTHON",
    ),
    (
        "cutlass-moe-symbol-missing",
        (
            "ImportError: /srv/vllm/vllm/_C.abi3.so: undefined symbol: "
            "_Z20cutlass_moe_mm_sm100RN2at6TensorERKS0_S3_S3_S3_S3_S3_S3_S3_S3_bb"
        ),
        "spark-build recipe vllm",
    ),
    (
        "ptxas-too-old",
        (
            "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error\n`ptxas` stderr:\n"
            "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'\n"
        ),
        "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas",
    ),
    (
        "no-kernel-image",
        (
            "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device\n"
            "Search for `cudaErrorNoKernelImageForDevice' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
        ),
        "spark-build audit --env PYTHON",
    ),
    (
        "no-kernel-image",
        "launch: cudaErrorNoKernelImageForDevice: no kernel image is available for execution on the device",
        "spark-build audit --env PYTHON",
    ),
    (
        "ptx-newer-than-driver",
        "launch: cudaErrorUnsupportedPtxVersion: the provided PTX was compiled with an unsupported toolchain.",
        "nvidia-smi",
    ),
    (
        "ptx-newer-than-driver",
        'CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222) "the provided PTX was compiled with an unsupported toolchain."',
        "nvidia-smi",
    ),
    (
        "cuda-major-mismatch",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "spark-build doctor --env PYTHON",
    ),
    (
        "cubin-version-mismatch",
        (
            "RuntimeError: flashinfer-cubin version (0.4.1) does not match flashinfer version (0.7.1). Please install the "
            "same version of both packages. Set FLASHINFER_DISABLE_VERSION_CHECK=1 to bypass this check."
        ),
        "uv pip uninstall --python PYTHON flashinfer-cubin",
    ),
    (
        "jit-cache-version-mismatch",
        (
            "Ignoring incompatible flashinfer-jit-cache package (kernels will be JIT-compiled instead): "
            "flashinfer-jit-cache version (0.7.1+cu130) does not match flashinfer version (0.7.4). Run "
            "`flashinfer download-kernels` to install matching kernel wheels, or set FLASHINFER_DISABLE_VERSION_CHECK=1 "
            "to use the installed version anyway."
        ),
        "spark-build recipe flashinfer --ref main --with jit-cache",
    ),
]


def read(text: str) -> logs.Log:
    return logs.read(io.BytesIO(text.encode()), UNKNOWN)


@pytest.mark.parametrize(("failure", "text", "command"), RECORDED)
def test_a_recorded_log_is_recognised_with_its_mend(failure: str, text: str, command: str) -> None:
    told = read(f"INFO starting\n{text}\nERROR gave up\n")
    assert [one.diagnosis.id for one in told.seen] == [failure]
    assert told.seen[0].diagnosis.run[0].startswith(command)


BEGINNINGS = [
    "",
    "vllm-1  | ",
    "Nov 29 15:40:00 spark docker[812]: ",
    "2026-11-29T15:40:00.123456Z ",
    "[2026-11-29 15:40:00,123] ",
    "(EngineCore_DP0 pid=15638) ERROR 01-05 12:12:01 [core.py:842] ",
    "vllm-1  | (Worker rank=6 pid=1192692) ERROR 07-30 15:19:50 [multiproc_executor.py:583] ",
    "\x1b[0;36m(APIServer pid=1)\x1b[0;0m ",
]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_stands_before_a_line_is_not_shown(beginning: str) -> None:
    told = read(f"{beginning}AssertionError: Torch not compiled with CUDA enabled\n")
    assert [one.line for one in told.seen] == ["AssertionError: Torch not compiled with CUDA enabled"]
    assert told.exception == told.seen[0].line


def test_the_recipe_is_that_of_the_trace() -> None:
    trace = '  File "/opt/venv/lib/python3.12/site-packages/{}/x.py", line 1, in f\n'
    error = "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device\n"
    run = {
        name: read(trace.format(name) + error).seen[0].diagnosis.run for name in ("vllm", "flashinfer_jit_cache", "xyz")
    }
    assert run["vllm"][-1] == "spark-build recipe vllm --arch 12.1a"
    assert run["flashinfer_jit_cache"][-1] == "spark-build recipe flashinfer --arch 12.1a"
    assert run["xyz"][-1] == "spark-build recipe NAME --arch 12.1a"
    far = read(trace.format("vllm") + "INFO serving\n" * 500 + error)
    assert far.seen[0].diagnosis.run[-1] == "spark-build recipe NAME --arch 12.1a"


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("no kernel image", "no kernel image"),
        (r"fatal\s*: Unsupported \.version (?P<found>[\d.]+); current", ": Unsupported .version "),
        ("(?:Cannot|Could not) find ptxas", " find ptxas"),
        ("colou?r of paint", "r of paint"),
        ("ab*cd+e", "cd"),
        ("x{2}long", "long"),
        ("one thing|another", ""),
        ("(?i)any case", ""),
        (r"[^']*cache[)(|]'", "cache"),
        (r"\(a\)\|", "(a)|"),
    ],
)
def test_what_a_line_has_to_hold(pattern: str, held: str) -> None:
    assert literal(pattern) == held


def test_every_pattern_has_something_that_few_lines_hold() -> None:
    patterns = [one for entry in known.catalogue() for one in entry.signature]
    assert not [one.pattern for one in patterns if len(literal(one.pattern).strip()) < 4]


def test_no_line_that_a_pattern_matches_is_passed_over() -> None:
    lines = [line for _id, text in SAMPLES for line in text.splitlines()]
    patterns = [one for entry in known.catalogue() for one in entry.signature]
    pairs = [(one.pattern, line) for one in patterns for line in lines if one.search(line)]
    assert len(pairs) > 40
    assert [(pattern, line) for pattern, line in pairs if literal(pattern) not in line] == []


def test_what_is_only_passed_over_is_a_warning(world: World) -> None:
    """FlashInfer goes on without the kernels: `doctor --env` says the same."""
    (world.root / "x.log").write_text(RECORDED[-1][1])
    done = world.run("doctor", "--log", "x.log")
    assert "1 lines, nothing that ends a server, 1 warning" in done.stdout


def test_each_failure_is_told_once_in_the_order_of_the_log() -> None:
    cpu, image = RECORDED[1][1], RECORDED[6][1]
    told = read(f"{image}\n{cpu}\n{image}\n" * 3)
    assert [(one.number, one.diagnosis.id) for one in told.seen] == [(1, "no-kernel-image"), (3, "torch-cpu")]
    assert told.lines == 15


def test_mends_of_builds_are_not_those_of_a_server() -> None:
    text = (
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)\nfatal error: Python.h: No such file or directory\n"
    )
    told = read(text)
    assert [one.diagnosis.id for one in told.seen] == ["run-time-compilation-killed", "run-time-headers-missing"]
    commands = [line for one in known.catalogue() for line in one.run]
    assert not [line for line in commands if "resume" in line or "{ref}" in line]


@pytest.mark.parametrize(
    "line",
    [
        "INFO 01-05 12:11:01 [cuda.py:1] Using FlashInfer for top-p & top-k sampling.",
        "WARNING: Unknown argument --foo",
        'INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK',
        "Loading safetensors checkpoint shards: 100% Completed | 4/4",
        "nvfp4 checkpoint detected, quantization=modelopt_fp4",
    ],
)
def test_what_every_server_prints_is_no_failure(line: str) -> None:
    assert not read(f"{line}\n" * 3).seen


def test_it_reads_stdin_and_tells_5(world: World) -> None:
    done = subprocess.run(
        [COMMAND, "doctor", "--log", "-"],
        input=RECORDED[0][1].encode() + b"\n\xff\x00\n",
        env=world.env(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 5
    assert b"lost its CUDA part" in done.stdout
    assert b"line 2" in done.stdout
    assert b"1 problem" in done.stdout


def test_an_unknown_log_is_no_problem_and_shows_its_last_exception(world: World) -> None:
    (world.root / "x.log").write_text("a\nValueError: two\nb\nKeyError: 'three'\n")
    done = world.run("doctor", "--log", "x.log")
    assert "4 lines, none of a known failure; the last exception: KeyError: 'three'" in done.stdout
    told = world.json("doctor", "--log", "x.log")
    assert told["findings"] == []
    assert (told["lines"], told["exception"], told["problems"]) == (4, "KeyError: 'three'", 0)


def test_json_names_the_failure(world: World) -> None:
    (world.root / "x.log").write_text(RECORDED[6][1])
    (one,) = world.json("doctor", "--log", "x.log", code=5)["findings"]
    assert one["failure"] == "no-kernel-image"
    assert one["run"][0] == "spark-build audit --env PYTHON"


def test_with_an_environment_the_commands_are_complete(world: World, tmp_path: Path) -> None:
    place = Place(tmp_path / "venv")
    place.torch("2.14.0")
    (world.root / "x.log").write_text(RECORDED[0][1])
    (one,) = world.json("doctor", "--log", "x.log", "--env", str(place.root), code=5)["findings"]
    assert one["run"][0] == f"uv pip install --python {place.python} --reinstall 'torch==2.14.0'"


@pytest.mark.parametrize("name", ["missing.log", "."])
def test_a_log_that_is_not_there_is_a_clear_error(world: World, name: str) -> None:
    done = world.run("doctor", "--log", name, code=2)
    assert "error[log-missing]" in done.stderr
    assert "spark-build doctor --log -" in done.stderr


def test_what_a_terminal_would_act_on_is_spelled_out(world: World) -> None:
    (world.root / "x.log").write_text("\x1b]0;title\x07\x1b[2JTorch not compiled with CUDA enabled \u202e\n")
    done = world.run("doctor", "--log", "x.log", code=5)
    assert "\\u202e" in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)


def test_the_last_exception_of_an_unknown_log_is_spelled_out(world: World) -> None:
    (world.root / "x.log").write_text("ValueError: \x1b]0;title\x07\x9b2J\u202e\n")
    done = world.run("doctor", "--log", "x.log")
    assert "ValueError: \\x1b]0;title\\x07\\x9b2J\\u202e" in done.stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.stdout)


def test_what_was_drawn_over_is_one_line_of_many_parts() -> None:
    """A bar of progress is written again and again without a line break, and then comes what went wrong."""
    bar = "".join(f"Loading shards: {done}%\r" for done in range(1000))
    told = read(f"one\r\ntwo\n{bar}{RECORDED[1][1]}\nfour\n")
    assert [(one.number, one.line) for one in told.seen] == [(3, RECORDED[1][1])]
    assert told.lines == 4


def test_a_log_is_never_held_as_a_whole() -> None:
    """Neither lines without number, nor one that has no end."""
    for line in (b"INFO 01-05 12:12:01 [x.py:1] all is well\n" * 60_000, bytes(5_000_000)):
        stream = io.BytesIO(line)
        tracemalloc.start()
        logs.read(stream, UNKNOWN)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000


def test_bytes_of_any_kind_are_a_log() -> None:
    told = read_bytes(bytes(range(256)) * 1000 + b"\n" + RECORDED[1][1].encode() + b"\n")
    assert [one.diagnosis.id for one in told.seen] == ["torch-cpu"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_log_as_powershell_writes_it(encoding: str) -> None:
    data = f"INFO\r\n{RECORDED[1][1]}\r\n".encode(encoding)
    told = read_bytes(data if encoding == "utf-16" else codecs.BOM_UTF16_BE + data)
    assert [(one.number, one.diagnosis.id) for one in told.seen] == [(2, "torch-cpu")]


def test_a_compressed_log_is_a_clear_error(world: World) -> None:
    (world.root / "x.log.gz").write_bytes(gzip.compress(RECORDED[1][1].encode()))
    done = world.run("doctor", "--log", "x.log.gz", code=2)
    assert "error[log-compressed]" in done.stderr
    assert "zcat LOG | spark-build doctor --log -" in done.stderr


def test_ctrl_c_shows_what_was_found_so_far(world: World) -> None:
    """`docker logs --follow` never ends."""
    with subprocess.Popen([COMMAND, "doctor", "--log", "-"], stdin=-1, stdout=-1, stderr=-1, env=world.env()) as child:
        assert child.stdin is not None
        child.stdin.write(RECORDED[0][1].encode() + b"\n" + b"INFO\n" * 100_000)  # more than a pipe holds
        child.stdin.flush()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"lost its CUDA part" in out
    assert b"error[interrupted]" in err
    assert b"Traceback" not in err


def test_an_empty_log_is_none_of_a_known_failure(world: World) -> None:
    (world.root / "x.log").write_text("")
    assert "0 lines" in world.run("doctor", "--log", "x.log").stdout


def read_bytes(data: bytes) -> logs.Log:
    return logs.read(io.BytesIO(data), UNKNOWN)


def test_a_line_without_end_takes_no_time() -> None:
    told = read("x" * 3_000_000 + "\n" + RECORDED[0][1] + "\n")
    assert [one.number for one in told.seen] == [3]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--image", "x", "--log", "y"), "--image doesn't go together with --log"),
        (("--env", ".", "--engine", "podman"), "--engine is about --image"),
        (("--manifest", "x", "--log", "y"), "--manifest is about --env"),
        (("--env", ".", "--target", "gb10"), "names no compute capability"),
        (("--env", ""), "--env is empty"),
        (("--image", ""), "--image is empty"),
        (("--env", ".", "--python", "3.12"), "--python is about this machine, and --env about something else"),
        (("--log", "x", "--recipe", "vllm"), "--recipe is about this machine, and --log about something else"),
        (("--target", "9.0"), "--target is about an environment or an image"),
        (("--engine", "podman"), "--engine is about an environment or an image"),
    ],
)
def test_words_that_do_not_fit_together(world: World, words: tuple[str, ...], told: str) -> None:
    assert told in world.run("doctor", *words, code=2).stderr
