"""What the official aarch64 wheels hold, library by library: tables that are known by other means, and cuobjdump's word."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, crosscheck, device
from builder.audit.context import Context
from builder.audit.target import Capability, architectures, cover, total
from builder.errors import HostError
from tests import official_kit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.audit.facts import Contents

pytestmark = [pytest.mark.slow, pytest.mark.network]

SPARK = Capability(12, 1)

_OLD = "sm_80 71, compute_80 19, sm_86 1, sm_87 51, sm_89 57, compute_89 1, sm_90 58, sm_90a 27, compute_90 8"
#: Images by architecture, verdict for 12.1, and size in millions of bytes, of every ELF file of vLLM 0.33.0.
VLLM = {
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": ("sm_80 76, compute_80 76", "jit", 306.8),
    "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": ("sm_90a 192", "absent", 165.2),
    "vllm/_C_stable_libtorch.abi3.so": (
        f"{_OLD}, sm_100 49, sm_100f 24, sm_110 49, sm_110f 21, sm_120 50, sm_120f 35",
        "native",
        89.4,
    ),
    "vllm/_moe_C_stable_libtorch.abi3.so": (
        "sm_80 23, compute_80 15, sm_87 8, sm_89 13, sm_90 8, sm_100 8, sm_110 8, sm_120 8, sm_120f 19",
        "native",
        40.6,
    ),
    "vllm/third_party/deep_gemm/_C_extension.abi3.so": ("", "none", 28.6),
    "vllm/_flashkda_C.abi3.so": ("sm_90a 1, sm_100f 1, sm_120f 1", "native", 4.6),
    "vllm/_deepselect_C.abi3.so": ("sm_100f 78", "absent", 4.3),
    "vllm/_flashmla_C.abi3.so": ("sm_90a 53, sm_100f 53", "absent", 3.8),
    "vllm/_qutlass_C.abi3.so": ("sm_100f 6", "absent", 1.4),
    "vllm/_flashmla_extension_C.abi3.so": ("sm_90a 2, sm_100f 2", "absent", 0.3),
    "vllm/fs_io_C.abi3.so": ("", "none", 0.2),
    "vllm/spinloop.abi3.so": ("", "none", 0.2),
    "vllm/cumem_allocator.abi3.so": ("", "none", 0.2),
    "vllm/vllm-rs": ("", "none", 56.9),
}

#: The same of torch's CUDA library.
TORCH = {
    "sm_80": 475,
    "sm_90": 475,
    "sm_90a": 4,
    "sm_100": 475,
    "sm_100a": 59,
    "sm_103f": 59,
    "sm_110": 475,
    "sm_110a": 59,
    "sm_120": 475,
    "sm_120a": 1,
    "sm_121a": 1,
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Contents]:
    """Return what tells the contents of an official wheel, by project; each is read once."""
    cache = tmp_path_factory.mktemp("official")
    return functools.cache(lambda name: contents.read(official_kit.wheel(name, cache)))


def named(text: str) -> dict[str, int]:
    return {word.split()[0]: int(word.split()[1]) for word in text.split(", ") if word}


def test_vllm_holds_what_its_table_says_library_by_library(read: Callable[[str], Contents]) -> None:
    files = {file.path: file for file in read("vllm").files if file.elf is not None}
    found = {
        path: (architectures(file.device), cover(file.device, SPARK).verdict, round(file.size / 1e6, 1))
        for path, file in files.items()
    }
    assert found == {path: (named(text), verdict, size) for path, (text, verdict, size) in VLLM.items()}
    assert not any(file.device is None or file.device.unknown or file.damage for file in files.values())


def test_vllm_by_bytes_is_mostly_for_other_chips(read: Callable[[str], Contents]) -> None:
    """By bytes as stored, in millions: 535 of device code, of which 21.4 native; PTX 92; sm_80 246; sm_90a 138."""
    files = read("vllm").files
    sizes: dict[str, int] = {}
    for file in files:
        for unit in file.device.units if file.device else ():
            for image in unit.images:
                key = "ptx" if image.kind == "ptx" else image.arch
                sizes[key] = sizes.get(key, 0) + image.size
    whole = total(cover(file.device, SPARK) for file in files)
    assert round(sum(sizes.values()) / 1e6) == 535
    assert (round(sizes["sm_80"] / 1e6), round(sizes["sm_90a"] / 1e6), round(sizes["ptx"] / 1e6)) == (246, 138, 92)
    assert round((sizes["sm_120"] + sizes["sm_120f"]) / 1e6, 1) == round(whole.native_bytes / 1e6, 1) == 21.4
    assert whole.native_bytes + whole.jit_bytes + whole.other_bytes == sum(sizes.values())
    assert whole.jit_bytes == sizes["ptx"]


def test_vllm_is_told_of_and_let_pass(read: Callable[[str], Contents]) -> None:
    found = {(one.file, one.id, one.severity) for one in device.judge(read("vllm"), Context(target=SPARK))}
    slugs = {"jit": ("device-jit", "warning"), "absent": ("device-absent", "warning")}
    wanted = {(path, *slugs[verdict]) for path, (_, verdict, _) in VLLM.items() if verdict in slugs}
    wanted |= {(f"vllm/{name}_stable_libtorch.abi3.so", "device-partly", "info") for name in ("_C", "_moe_C")}
    assert found == wanted | {("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", "device-driver-floor", "info")}


def test_vllm_is_for_a_hopper_what_it_is(read: Callable[[str], Contents]) -> None:
    hopper = Capability(9, 0)
    verdicts = {file.path: cover(file.device, hopper).verdict for file in read("vllm").files if file.elf}
    assert verdicts["vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so"] == "native"
    assert verdicts["vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so"] == "jit"
    assert verdicts["vllm/_qutlass_C.abi3.so"] == verdicts["vllm/_deepselect_C.abi3.so"] == "absent"


def test_triton_brings_two_assemblers_that_know_the_chip(read: Callable[[str], Contents]) -> None:
    programs = {file.path: file.program for file in read("triton").files if file.program is not None}
    tools = {path.rpartition("/")[2]: program.version for path, program in programs.items()}
    assert (tools["ptxas"], tools["ptxas-blackwell"]) == ("12.9.86", "13.4.59")
    for name in ("ptxas", "ptxas-blackwell"):
        known = programs[f"triton/backends/nvidia/bin/{name}"].targets
        assert {"sm_121", "sm_121a", "sm_121f", "sm_90a"} <= known
    sizes = {file.path: round(file.size / 1e6, 1) for file in read("triton").files}
    assert sizes["triton/_C/libtriton.so"] == 510.8
    assert sizes["triton/backends/nvidia/bin/ptxas"] == 28.9
    assert sizes["triton/backends/nvidia/bin/ptxas-blackwell"] == 46.2
    found = [one for one in device.judge(read("triton"), Context(target=SPARK)) if one.severity != "info"]
    assert not [one for one in found if one.severity == "error"]


def test_triton_has_no_kernels_of_its_own(read: Callable[[str], Contents]) -> None:
    """What device code there is belongs to CUPTI, the profiler, which holds it as plain data."""
    holders = [file for file in read("triton").files if file.device and (file.device.units or file.device.unknown)]
    assert holders
    assert all("/cupti" in file.path for file in holders)
    assert all(not unit.section.startswith(".nv") for file in holders if file.device for unit in file.device.units)
    assert {cover(file.device, SPARK).verdict for file in holders} == {"native"}


def test_flashinfer_holds_sources_and_four_ptx_texts_for_another_chip(read: Callable[[str], Contents]) -> None:
    files = read("flashinfer_python").files
    assert len(files) > 1000
    held = {file.path: architectures(file.device) for file in files if file.device is not None}
    names = ("fixed_h64", "fixed_h96", "varlen_mixed_h64", "varlen_uniform_h64")
    assert held == {f"flashinfer/data/csrc/kda/ptx/{name}.ptx": {"compute_103a": 1} for name in names}
    found = [(one.id, one.severity, one.file) for one in device.judge(read("flashinfer_python"), Context(target=SPARK))]
    assert found == [("device-absent", "warning", "flashinfer/data/csrc/kda/ptx/*")]


def test_torch_is_native_by_its_family_and_has_no_ptx(read: Callable[[str], Contents]) -> None:
    file = next(file for file in read("torch").files if file.path == "torch/lib/libtorch_cuda.so")
    assert architectures(file.device) == TORCH
    assert cover(file.device, SPARK).verdict == "native"


@pytest.mark.parametrize("name", ["vllm", "triton", "torch"])
def test_cuobjdump_agrees_on_every_library(read: Callable[[str], Contents], name: str, tmp_path: Path) -> None:
    env = dict(os.environ)
    try:
        tool = crosscheck.find(env)
    except HostError as error:
        pytest.skip(error.summary)
    found = list(crosscheck.check(read(name), tool, env=env, scratch=tmp_path))
    assert [one.id for one in found] == ["cross-check-agrees"], found
    compared = [file for file in read(name).files if file.elf is not None and file.elf.machine != "cuda"]
    number = int(found[0].found.split()[0])
    assert number >= len(compared)
