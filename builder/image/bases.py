"""The images that ours begin with, pinned by digest.

Names are complete, since podman and buildah have no registry that they would take for granted. The digests are those of the
lists over all machines (aarch64 and x86_64), as public sources give them.
"""

from __future__ import annotations

__all__ = ["BUILDER", "FINAL"]

#: With nvcc and the whole toolkit.
BUILDER = (
    "docker.io/nvidia/cuda:13.0.3-devel-ubuntu24.04"
    "@sha256:b7ae301dea2c162444795462ce17a05f6a516e5a75944b57af5b88540a1a2266"
)

#: With the driver's stand-ins and the vendor's package repository. The CUDA libraries come with torch's wheels, and
#: ``-runtime-`` would hold 2 GB of them a second time.
FINAL = (
    "docker.io/nvidia/cuda:13.0.3-base-ubuntu24.04"
    "@sha256:7c7413a56200486f71f181cad9310f6fd31b6bb21816ade15fc9c1e1e927a5c1"
)
