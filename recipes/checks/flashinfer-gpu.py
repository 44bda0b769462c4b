"""Run a normalisation on the GPU of this machine and compare with torch: JIT or pre-compiled, as it is installed."""

import sys

import flashinfer
import torch

x = torch.randn(64, 4096, device="cuda", dtype=torch.float16)
weight = torch.randn(4096, device="cuda", dtype=torch.float16)
found = flashinfer.norm.rmsnorm(x, weight)
wide = x.float()
wanted = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight.float()).half()
print(f"{torch.cuda.get_device_name()}: {torch.version.cuda}")
worst = (found - wanted).abs().max().item()
if worst > 2e-2:  # noqa: PLR2004  # a half has 11 bits, the sum of 4096 squares loses a few
    sys.exit(f"the results differ by up to {worst}")
