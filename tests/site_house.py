"""A wheelhouse with all that pages for people show, and one of which every text wants to be markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import events
from builder.digest import sha256_json
from builder.wheel import label
from tests.site_events import FAILED_LOG, compiled, gate_state, phase, whole
from tests.site_kit import (
    DAY,
    GIB,
    HOSTILE,
    MIB,
    NIGHTLY,
    NOW,
    STABLE,
    Kit,
    finding,
    flashinfer_report,
    images,
    inputs,
    library,
    report,
    triton_report,
    vllm_report,
)

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import Stored


VLLM_HEADERS = (
    "Summary: A high-throughput and memory-efficient inference and serving engine for LLMs",
    "License-Expression: Apache-2.0",
    "Requires-Python: >=3.10,<3.15",
    "Project-URL: Homepage, https://github.com/vllm-project/vllm",
    "Project-URL: Documentation, https://docs.vllm.ai/en/latest/",
    *(
        f"Requires-Dist: {one}"
        for one in (
            "torch==2.13.0",
            "transformers>=5.2",
            "tokenizers>=0.22",
            "fastapi[standard]>=0.118",
            "pydantic>=2.12",
            "numpy",
            "pillow",
            "prometheus-client>=0.22",
            "xgrammar==0.2.4; platform_machine == 'x86_64' or platform_machine == 'aarch64'",
            "flashinfer-python==0.7.2",
            "ray[cgraph]>=2.50; extra == 'ray'",
            "compressed-tensors==0.14.0",
            "depyf==0.20.0",
            "msgspec",
            "gguf>=0.17",
        )
    ),
)


def fill(root: Path, *, now: float = NOW, live: bool = True) -> Kit:  # a list
    """Return a wheelhouse with all that pages show."""
    kit = Kit(root, now)
    gate = {
        "units": 512,
        "failed": 0,
        "peak-bytes": 87 * GIB,
        "requeues": 1,
        "kernel-kills": 0,
        "waited-s": 412.0,
        "hits": 214,
        "saved-s": 5040.0,
    }
    vllm, triton, jit = [], [], []
    for number, (days, commit, minutes, peak) in enumerate(
        [
            (41, "5e1d", 152, 96),
            (33, "90ab", 141, 93),
            (24, "c377", 118, 88),
            (15, "1f02", 97, 87),
            (7, "ab49", 104, 90),
            (2.1, "77d0", 88, 87),
        ]
    ):
        document = inputs(
            "vllm",
            "0.33.0",
            (commit * 10),
            patches=[
                {"id": "gb10-arch-list", "sha256": "d" * 64},
                *([{"id": "marlin-sm121", "sha256": f"{number}" * 64}] if number > 2 else []),
            ],
            torch={"version": "2.13.0+cu130", "cxx11-abi": True},
            env={"VLLM_TARGET_DEVICE": "cuda"},
            requires={
                "vllm": [
                    {"name": "cmake", "version": "4.1.2", "sha256": ["a" * 64]},
                    {"name": "setuptools", "version": f"84.{number // 2}.0", "sha256": [f"{number}" * 64]},
                ]
            },
        )
        one = kit.wheel(
            "vllm",
            "0.33.0",
            document,
            days=days,
            size=(317 + number) * MIB,
            tags="cp310-abi3-manylinux_2_39_aarch64",
            headers=VLLM_HEADERS,
            found=vllm_report(490 + number * 2),
            gate=gate,
            url="https://github.com/vllm-project/vllm.git",
        )
        kit.attempt(
            "vllm",
            "0.33.0",
            one.fingerprint,
            whole("vllm", minutes, peak * GIB, one.sha256, units=120),
            days=days + minutes / 1440,
            logs={
                "build": "-- Configuring done\n[512/512] Linking CXX shared module _C.abi3.so\n",
                "env": "31 packages\n",
            },
        )
        vllm.append(one)
    for number, (days, minutes) in enumerate([(30, 24), (19, 19), (5, 21), (0.4, 18)]):
        version = "3.8.0" if number < 3 else "3.9.0.dev0"
        document = inputs("triton", version, f"{number}b7c" * 10, env={"LLVM_SYSPATH": "/sb/llvm"})
        one = kit.wheel(
            "triton",
            version,
            document,
            days=days,
            size=(176 + number) * MIB,
            headers=[
                "Summary: A language and compiler for custom deep learning operations",
                "License: MIT",
                "Requires-Python: >=3.10,<3.15",
                "Project-URL: Homepage, https://github.com/triton-lang/triton/",
            ],
            found=triton_report(),
            gate={**gate, "units": 1480, "peak-bytes": 31 * GIB, "saved-s": 900.0, "requeues": 0},
            url="https://github.com/triton-lang/triton.git",
        )
        kit.attempt(
            "triton",
            version,
            one.fingerprint,
            whole("triton", minutes, (28 + number) * GIB, one.sha256, units=150),
            days=days + minutes / 1440,
        )
        triton.append(one)
    for days in (12, 3):
        document = inputs("flashinfer", "0.7.2.post1", f"{int(days)}f4e" * 10, arch=["12.1a"])
        jit.append(
            kit.wheel(
                "flashinfer-jit-cache",
                "0.7.2.post1",
                document,
                days=days,
                size=(602 - int(days)) * MIB,
                tags="cp39-abi3-manylinux_2_39_aarch64",
                headers=["Summary: Pre-compiled kernels of FlashInfer", "License: Apache-2.0"],
                found=flashinfer_report(),
                gate={**gate, "units": 960},
                url="https://github.com/flashinfer-ai/flashinfer.git",
                recipe="flashinfer",
            )
        )
        jit.append(
            kit.wheel(
                "flashinfer-python",
                "0.7.2.post1",
                document,
                days=days,
                size=59 * MIB,
                tags="py3-none-any",
                headers=[
                    "Summary: FlashInfer: Kernel Library for LLM Serving",
                    "Requires-Dist: torch",
                    "Requires-Dist: nvidia-cudnn-frontend>=1.13",
                ],
                found=report([]),
                url="https://github.com/flashinfer-ai/flashinfer.git",
                recipe="flashinfer",
            )
        )
        kit.attempt(
            "flashinfer",
            "0.7.2.post1",
            jit[-1].fingerprint,
            whole("flashinfer-jit-cache", 64, 70 * GIB, jit[-2].sha256, units=140),
            days=days + 0.05,
            outputs=("flashinfer-jit-cache", "flashinfer-python"),
        )
    torch = kit.wheel(
        "torch",
        "2.13.0+cu130",
        None,
        days=50,
        size=427 * MIB,
        headers=[
            "Summary: Tensors and Dynamic neural networks in Python with strong GPU acceleration",
            "License: BSD-3-Clause",
            "Requires-Python: >=3.10",
        ],
    )
    kit.clock.now = now - 6 * DAY
    kit.promote(STABLE, torch, triton[1], vllm[3])
    kit.clock.now = now - 0.3 * DAY
    kit.promote(STABLE, torch, triton[2], jit[0], jit[1], vllm[4])
    kit.promote(NIGHTLY, torch, *triton, *jit, *vllm)
    failed = sha256_json({"failed": 1})
    told = [
        (2.0, one)
        for one in [
            *phase("fetch", 5200, "at hand"),
            *phase("patch", 610, "2 patches"),
            *phase("env", 4800, "31 packages from the lock", output="vllm"),
        ]
    ]
    start, end = phase("build", 2_460_000, "", output="vllm", status="failed")
    broken = events.UnitEnded(
        name="csrc/moe/grouped_topk.cu",
        unit="9" * 64,
        ok=False,
        peak_bytes=3 * GIB,
        reserved_bytes=4 * GIB,
        ms=48_000,
        wait_ms=0,
        code=2,
    )
    told += [
        (11.0, start),
        *((11 + at, one) for at, one in compiled(2460, 91 * GIB, units=512, until=0.72)),
        (2470.0, broken),
        (2471.0, end),
    ]
    summary = "vllm: 1 of 512 compiler runs failed: csrc/moe/grouped_topk.cu"
    kit.attempt(
        "vllm",
        "main",
        failed,
        [
            *told,
            (
                2472.0,
                events.BuildEnded(
                    status="failed",
                    ms=2_472_000,
                    code="compile-failed",
                    summary=summary,
                    peak_bytes=91 * GIB,
                    exit_code=1,
                ),
            ),
        ],
        days=1.2,
        number=2,
        logs={"build": FAILED_LOG, "env": "31 packages\n"},
    )
    kit.attempt(
        "vllm",
        "main",
        failed,
        [
            *told[:7],
            (
                600.0,
                events.BuildEnded(
                    status="interrupted", ms=600_000, code="interrupted", summary="stopped by Ctrl-C", exit_code=130
                ),
            ),
        ],
        days=1.3,
    )
    kit.attempt("triton", "main", sha256_json({"killed": 1}), told[:6], days=3.3)
    if live:
        live_fingerprint = sha256_json({"live": 1})
        ago = 1380 / DAY
        kit.attempt(
            "flashinfer",
            "main",
            live_fingerprint,
            [
                *told[:6],
                (11.0, start),
                *((11 + at, one) for at, one in compiled(3600, 84 * GIB, units=960, until=0.37)),
            ],
            days=ago,
            outputs=("flashinfer-jit-cache",),
            logs={
                "build": "-- The CUDA compiler is NVIDIA 13.0.88\n[355/960] Building CUDA object batch_prefill_f16.cu.o\n"
            },
        )
        kit.running(live_fingerprint)
    kit.clock.now = now
    return kit


def hostile(kit: Kit) -> tuple[Stored, str]:
    """Add a wheel and a failed build of which every text wants to be markup; return the wheel and the fingerprint."""
    bad, flat = HOSTILE, HOSTILE.replace("\u0007", "")
    document = inputs(
        "evil",
        bad,
        bad,
        patches=[{"id": bad, "sha256": bad}],
        env={bad: bad},
        requires={bad: [{"name": bad, "version": bad, "sha256": [bad]}]},
        torch={"version": bad},
    )
    document["host"]["tools"] = {bad: {"version": bad}}
    document["source"]["submodules"] = [{"path": bad, "commit": bad}]
    found = report(
        [library(bad, 1, images(("cubin", bad, 1, 10), ("ptx", "compute_121", 1, 10)), jit=10) | {"unknown": bad}],
        [finding(bad, "error", bad, bad, wanted=bad, why=bad, help=bad), finding(bad, bad, bad, bad, accepted=bad)],
    )
    found["target"] = bad
    metadata = "\n".join(
        [
            "Metadata-Version: 2.1",
            "Name: evil",
            "Version: {version}",
            f"Summary: {flat}",
            f"License: {flat}",
            f"Requires-Dist: {flat}",
            "Home-page: javascript:globalThis.bad=1",
            f"Project-URL: {flat}, data:text/html,<script>globalThis.bad=1</script>",
            f"Project-URL: {flat}, https://example.invalid/{flat}",
            f"Project-URL: {flat.replace(',', '')}, https://example.invalid/fine",
            "",
        ]
    )
    was = inputs("evil", "0.9", "0" * 40)
    kit.wheel("evil", "1.0", was, days=9, found=report([]))
    labelled = label.labelled("1.0", label.make(kit.now - 8 * DAY, sha256_json(document)))
    one = kit.wheel(
        "evil",
        "1.0",
        document,
        days=8,
        found=found,
        url="javascript:globalThis.bad=1",
        gate={"units": 1, "peak-bytes": bad, "hits": bad, "saved-s": [bad]},
        metadata=metadata.format(version=labelled).encode(),
    )
    fingerprint = sha256_json({"evil": 1})
    told = [
        *phase("fetch", 10, bad),
        events.Note(level="warning", text=bad),
        events.PhaseStarted(phase="build", output=bad, log="build.log"),
        *(gate_state(9, 9, 9, 9, [bad]) for _ in range(4)),
        events.UnitEnded(name=bad, unit=bad, ok=False, peak_bytes=1, reserved_bytes=1, ms=1, wait_ms=1),
        events.PhaseEnded(phase="build", status="failed", ms=5, output=bad, text=bad),
        events.BuildEnded(status="failed", ms=9, code=bad, summary=bad, exit_code=1),
    ]
    kit.attempt(bad, bad, fingerprint, [(1.0, one) for one in told], days=8, logs={"build": f"error: {bad}\n{bad}\n"})
    kit.attempt("evil", "1.0", one.fingerprint, whole(bad, 1, GIB, one.sha256, units=4), days=8)
    return one, fingerprint
