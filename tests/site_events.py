"""Events of builds as real ones tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import events
from tests.site_kit import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence


def phase(
    name: events.PhaseName, ms: int, text: str = "", *, output: str | None = None, status: events.Status = "ok"
) -> list[events.Event]:
    log = f"{name}.log" if name in {"env", "build"} else None
    return [
        events.PhaseStarted(phase=name, output=output, log=log),
        events.PhaseEnded(phase=name, output=output, status=status, ms=ms, text=text),
    ]


def gate_state(used: int, jobs: int, done: int, edges: int, running: Sequence[str] = ()) -> events.GateState:
    return events.GateState(
        used_bytes=used,
        promised_bytes=4 * GIB,
        ceiling_bytes=104 * GIB,
        peak_bytes=used,
        available_bytes=60 * GIB,
        total_bytes=128 * GIB,
        jobs=jobs,
        slots=20,
        waiting=max(0, 20 - jobs),
        bound="memory",
        running=tuple((name, used // 8, 61_000, 90_000, "history") for name in running),
        done=done,
        edges=edges,
        hits=214,
    )


UNITS = (
    "csrc/attention/paged_attention_v2.cu",
    "csrc/quantization/machete/generated/machete_mm_bf16u4.cu",
    "csrc/quantization/cutlass_w8a8/scaled_mm_c3x_sm120.cu",
    "csrc/moe/marlin_moe_wna16/kernel_bf16_ku4.cu",
    "csrc/mamba/mamba_ssm/selective_scan_fwd.cu",
    "csrc/sparse/cutlass/sparse_scaled_mm_c3x.cu",
    "csrc/attention/mla/sm100_cutlass_mla_kernel.cu",
    "csrc/custom_all_reduce.cu",
    "csrc/layernorm_kernels.cu",
    "csrc/cache_kernels.cu",
    "csrc/pos_encoding_kernels.cu",
    "csrc/sampler.cu",
    "csrc/torch_bindings.cpp",
)


def compiled(total_s: float, peak: int, *, units: int = 380, until: float = 1.0) -> list[tuple[float, events.Event]]:
    """What the gate tells while a build compiles: states, units, and one that ran again."""
    told: list[tuple[float, events.Event]] = []
    steps = 120
    for step in range(int(steps * until)):
        share = step / steps
        used = int(peak * min(1.0, 0.15 + 1.6 * share * (1 - share) + 0.25 * ((step * 7) % 5) / 5))
        told.append(
            (total_s * share, gate_state(min(used, peak), 8 + (step * 5) % 12, int(share * units), units, UNITS[:4]))
        )
    for number in range(int(units * until)):
        name = UNITS[number % len(UNITS)]
        heavy = int(peak / 9 / (1 + (number % len(UNITS)) / 3 + number / units))
        told.append(
            (
                total_s * number / units,
                events.UnitEnded(
                    name=name if number < len(UNITS) else name.replace(".c", f"_{number}.c"),
                    unit=f"{number:064x}",
                    ok=True,
                    peak_bytes=heavy,
                    reserved_bytes=heavy,
                    ms=int(240_000 / (1 + number % 17)),
                    wait_ms=1200 * (number % 3),
                    attempts=2 if number == 1 else 1,
                ),
            )
        )
    told.append(
        (total_s * until * 0.5, events.UnitRequeued(name=UNITS[1], by="gate", used_bytes=9 * GIB, next_bytes=14 * GIB))
    )
    return sorted(told, key=lambda pair: pair[0])


def whole(output: str, minutes: float, peak: int, sha256: str, *, units: int = 380) -> list[tuple[float, events.Event]]:
    """A build from its start to its good end."""
    build_s = minutes * 60
    early = [
        *phase("fetch", 6200, "at hand"),
        *phase("patch", 480, "2 patches"),
        *phase("env", 5100, "31 packages from the lock", output=output),
    ]
    told: list[tuple[float, events.Event]] = [(3.0, one) for one in early]
    start, end = phase("build", int(build_s * 1000), f"{output}.whl", output=output)
    told += [(12.0, start), *((12 + at, one) for at, one in compiled(build_s, peak, units=units)), (12 + build_s, end)]
    late: list[events.Event] = [
        *phase("pack", 21_000, "321 MiB"),
        *phase("audit", 9_300, f"{output}: 100 % of 512 MiB device code is native to 12.1"),
        events.Note(level="warning", text=f"{output}: not run, since this machine has no GPU (run-untried)"),
        *phase("publish", 400, "in the wheelhouse"),
        events.Stored(output=output, path="x", sha256=sha256, size=321 * MIB),
        events.BuildEnded(status="ok", ms=int((build_s + 45) * 1000), peak_bytes=peak, exit_code=0),
    ]
    return [*told, *((30 + build_s, one) for one in late)]


FAILED_LOG = """\
[371/512] Building CUDA object CMakeFiles/_C.dir/csrc/quantization/machete.cu.o
[372/512] Building CUDA object CMakeFiles/_C.dir/csrc/moe/topk_softmax_kernels.cu.o
FAILED: CMakeFiles/_moe_C.dir/csrc/moe/grouped_topk.cu.o
/usr/local/cuda/bin/nvcc -DTORCH_EXTENSION_NAME=_moe_C ... -gencode=arch=compute_121a,code=sm_121a
/sb/vllm/csrc/moe/grouped_topk.cu(218): error: no instance of function template "vllm::moe::warp_topk" matches the arguments
            argument types are: (float *, int, const uint32_t)
      auto const best = warp_topk<kTopK, float>(scores, lane, kMask);
                        ^
/sb/vllm/csrc/moe/grouped_topk.cu(97): note #3326-D: function template "T vllm::moe::warp_topk<K,T>(T*, int)" does not match

1 error detected in the compilation of "/sb/vllm/csrc/moe/grouped_topk.cu".
ninja: build stopped: subcommand failed.
"""


def fields_of(event: events.Event) -> dict[str, object]:
    """The fields of an event, as its line has them."""
    from builder.values import fields  # noqa: PLC0415

    return {one.name: getattr(event, one.name) for one in fields(event)}
