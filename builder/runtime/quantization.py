"""vLLM's own list of quantizations: whether checkpoints in NVFP4 can be loaded, and what --quantization may say."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from builder.host.checks import Finding
from builder.runtime import known

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.runtime.environment import Environment

__all__ = ["check", "methods"]

#: Where the list is, and what it is called: ``QuantizationMethods = Literal[...]`` since 0.8, before that a list or dict.
_FILE = "vllm/model_executor/layers/quantization/__init__.py"
_NAMES = frozenset({"QuantizationMethods", "QUANTIZATION_METHODS"})

#: What loads checkpoints in NVFP4: those of NVIDIA's Model Optimizer, and those of LLM Compressor.
_NVFP4 = ("modelopt_fp4", "compressed-tensors")


def check(environment: Environment) -> Iterator[Finding]:
    """Yield whether NVFP4 is known; the file is read, not run."""
    version = environment.version("vllm")
    file = environment.find(_FILE)
    if not version or file is None:
        return
    found = methods(file)
    if not found:
        yield Finding(
            id="quantization", status="info", found=f"vllm {version} tells its list in a way that isn't known"
        )
        return
    missing = [name for name in _NVFP4 if name not in found]
    if missing:
        yield known.finding(
            "quantization-unknown",
            environment,
            check="quantization",
            found=f"vllm {version} knows no {', '.join(missing)}",
            wanted=f"{' and '.join(_NVFP4)}, for checkpoints in NVFP4",
            named={"method": "nvfp4"},
        )
        return
    word = "" if "nvfp4" in found else "; nvfp4 is no word for --quantization: leave that flag out"
    yield Finding(id="quantization", status="ok", found=f"vllm {version} loads NVFP4{word}")


def methods(file: Path) -> frozenset[str]:
    """Return the names in vLLM's list, as the source in `file` writes them; none where it is written in another way."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _bound(node) & _NAMES:
            every = (one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant))
            return frozenset(value for value in every if isinstance(value, str))
    return frozenset()


def _bound(node: ast.Assign | ast.AnnAssign) -> frozenset[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return frozenset(one.id for one in targets if isinstance(one, ast.Name))
