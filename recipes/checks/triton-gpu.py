"""Run a kernel on the GPU of this machine and compare with torch."""

import sys

import torch
import triton
import triton.language as tl


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):  # noqa: N803  # constants are capitals in Triton
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


size = 100_003  # no multiple of the block: the masks count
x, y = torch.randn(2, size, device="cuda")
out = torch.empty_like(x)
add[(triton.cdiv(size, 1024),)](x, y, out, size, BLOCK=1024)
print(f"{torch.cuda.get_device_name()}: {torch.version.cuda}")
if not torch.equal(out, x + y):
    sys.exit(f"the sums differ by up to {(out - x - y).abs().max().item()}")
