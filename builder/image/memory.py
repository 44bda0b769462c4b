"""How a machine whose GPU has no memory of its own is shared: the model, what is compiled while it runs, the system.

On a GB10 an allocation too many kills nobody: the machine stops answering, and only power helps. What the GPU takes isn't
charged to a container's memory limit, so that only the server itself can keep to a share; compilers and Python are charged,
so that a limit stops them before they take the rest.
"""

from __future__ import annotations

import math

from builder.errors import UsageError
from builder.values import dataclass

__all__ = ["GB10_BYTES", "SERVER_BYTES", "UNIT_BYTES", "Room", "plan"]

_GIB = 1 << 30

#: MemTotal of a GB10, whose 128 GB firmware and kernel take their part of: 121.69 GiB, as owners report it.
GB10_BYTES = 121 * _GIB

#: What vLLM's processes take besides weights and KV cache: Python, CUDA contexts, graphs. Not measured by us.
SERVER_BYTES = 8 * _GIB

#: What a unit takes that nothing is known of: generated C++ and CUDA of Triton and torch.
UNIT_BYTES = _GIB

#: What is left to the system: as much as the gate leaves while building.
_RESERVE_BYTES, _RESERVE_PART = 6 * _GIB, 0.05

#: Compilations at once when kernels have to be compiled at first use, and when they were compiled ahead.
_JOBS_MANY, _JOBS_FEW = 2, 1

#: Jobs are never more than this: the model is being loaded meanwhile.
_JOBS_MOST = 8

#: Shares are written in these steps.
_STEP = 0.05

#: The largest share that starts on a GB10 which runs nothing else: more than 102 of 121 GiB are seldom free.
_SHARE_MOST = 0.80


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """`share` is vLLM's ``--gpu-memory-utilization``, `jobs` is MAX_JOBS, `host_bytes` the container's memory limit."""

    total_bytes: int
    share: float
    jobs: int
    host_bytes: int

    @property
    def system_bytes(self) -> int:
        """What nobody takes."""
        return self.total_bytes - self.host_bytes - math.ceil(self.share * self.total_bytes)


def plan(
    unit_bytes: int = UNIT_BYTES,
    *,
    total_bytes: int = GB10_BYTES,
    compiles: bool = True,
    share: float | None = None,
) -> Room:
    """Return how `total_bytes` are shared: model, server and compilers, and the system's reserve fit into it together.

    `unit_bytes` is the peak of the heaviest unit that is compiled at run time. With `compiles` the room is for two of them
    at once, without (its kernels are in the image already) for one. A `share` that is given stands, and the jobs follow.
    Raises UsageError ``memory-share`` where nothing fits.
    """
    reserve = max(_RESERVE_BYTES, round(total_bytes * _RESERVE_PART))
    unit = max(unit_bytes, UNIT_BYTES)
    if share is None:
        wanted = reserve + SERVER_BYTES + unit * (_JOBS_MANY if compiles else _JOBS_FEW)
        share = min(_SHARE_MOST, math.floor((1 - wanted / total_bytes) / _STEP + 1e-9) * _STEP)
    share = round(share, 2) if 0 <= share <= 1 else 0  # not NaN either
    host = total_bytes - math.ceil(share * total_bytes) - reserve
    jobs = min(_JOBS_MOST, (host - SERVER_BYTES) // unit)
    if share <= 0 or jobs < 1:
        raise UsageError(
            "memory-share",
            f"{total_bytes / _GIB:.0f} GiB are too little for a model's share of {share:.2f} and one compiler",
            cause=f"the system keeps {reserve / _GIB:.1f} GiB, the server takes {SERVER_BYTES / _GIB:.0f}, "
            f"a compiler up to {unit / _GIB:.1f}",
            help="a smaller share, or kernels that are compiled ahead (flashinfer's jit-cache)",
        )
    return Room(total_bytes=total_bytes, share=share, jobs=jobs, host_bytes=host)
