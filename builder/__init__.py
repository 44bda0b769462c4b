"""spark-build: source builds of Triton, FlashInfer and vLLM for NVIDIA GB10, kept in a wheelhouse, served as an index."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
