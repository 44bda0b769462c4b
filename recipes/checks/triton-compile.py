"""Compile two kernels down to machine code for the target, without a GPU: what Triton is for.

The elementwise kernel takes the path through LLVM and the bundled ptxas; the product of matrices must use tensor cores.
"""

import os
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGET = os.environ["SPARK_BUILD_TARGET"].replace(".", "")


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):  # noqa: N803  # constants are capitals in Triton
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


@triton.jit
def dot(a, b, c, N: tl.constexpr):  # noqa: N803
    rows, columns = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    product = tl.dot(tl.load(a + rows * N + columns), tl.load(b + rows * N + columns))
    tl.store(c + rows * N + columns, product)


KERNELS = (
    (ASTSource(add, {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 128}), ("add.f32",)),
    (ASTSource(dot, {"a": "*fp16", "b": "*fp16", "c": "*fp32"}, {"N": 64}), ("mma.sync", "wgmma", "tcgen05")),
)

wrong = []
for source, instructions in KERNELS:
    made = triton.compile(source, target=GPUTarget("cuda", int(TARGET), 32))
    ptx = made.asm["ptx"]
    target = next(line.split()[1] for line in ptx.splitlines() if line.startswith(".target")).rstrip(",")
    print(f"{source.fn.__name__}: {target}, {len(made.asm['cubin'])} bytes of machine code")
    if target.rstrip("af") != f"sm_{TARGET}":
        wrong.append(f"{source.fn.__name__} was compiled for {target}, wanted sm_{TARGET}")
    if not any(one in ptx for one in instructions):
        wrong.append(f"{source.fn.__name__} has none of {', '.join(instructions)}")
sys.exit("\n".join(wrong) or 0)
