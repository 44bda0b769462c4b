"""Reading the version of a CUDA tool, and the architectures that it knows, out of its bytes: for any machine, never run.

The tools of NVIDIA print ``Cuda compilation tools, release 13.4, V13.4.59``, of which the end stands as it is in each. The
names of architectures are texts of their own (``sm_121a``): ptxas holds those that it takes, and some of older chips that it
only knows by name. nvdisasm and fatbinary hold none.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from builder.audit import elf
from builder.audit.facts import Program

__all__ = ["of"]

#: Behind ``ptxas`` stands for what it is meant, where there are several (``ptxas-blackwell`` of Triton).
_TOOL = re.compile(r"(ptxas|cuobjdump|nvdisasm|nvlink|fatbinary|nvcc|cicc|nvprune|cu\+\+filt|tileiras)(-[\w.-]+)?")
#: Both begin with letters that stand as they are: searching is 20 times slower otherwise. So what may not stand before is
#: looked at afterwards.
_VERSION = re.compile(rb"release \d+\.\d+, V(\d+\.\d+\.\d+)")
_TARGET = re.compile(rb"sm_(?:[2-9]\d|\d{3})[af]?(?![A-Za-z0-9_])")
_WORD = re.compile(rb"[A-Za-z0-9_]")
_CHUNK = 1 << 20
#: Longer than anything that is looked for, with what stands around it.
_OVERLAP = 64


def of(stream: BinaryIO, name: str, size: int) -> Program | None:
    """Return what the tool `name` of `size` bytes says about itself, or None for another file.

    `version` is empty where none stands in it, or more than one.
    """
    if not _TOOL.fullmatch(name):
        return None
    stream.seek(0)
    if stream.read(4) != elf.MAGIC:
        return None
    stream.seek(0)
    versions: set[bytes] = set()
    targets: set[bytes] = set()
    window = b""
    while size > 0 and (data := stream.read(min(size, _CHUNK))):
        size -= len(data)
        window += data
        # What touches the window's end may go on behind it: it is found whole in the next window.
        end = len(window) - (_OVERLAP if size > 0 else 0)
        versions.update(one[1] for one in _VERSION.finditer(window) if one.start() < end)
        targets.update(
            one[0]
            for one in _TARGET.finditer(window)
            if one.start() < end and not _WORD.match(window[max(0, one.start() - 1) : one.start()])
        )
        # With the byte before it, which is looked at.
        window = window[max(0, end - 1) :]
    version = versions.pop().decode() if len(versions) == 1 else ""
    return Program(name=name, version=version, targets=frozenset(one.decode() for one in targets))
