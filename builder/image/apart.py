"""Namespaces around an engine that has no daemon: they cut the network, and what is killed leaves nothing in them.

A build that is killed can't clean up. In a process and a mount namespace of its own the kernel does: what ran in it ends,
and what was mounted is gone. unshare(1) makes them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.image.words import ask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["around"]

_CLEAN = ("--fork", "--kill-child", "--mount-proc")

#: The first process of a namespace takes all others along when it ends: those, too, that still pass on what a step printed.
#: So it waits for them, two seconds at most.
_FIRST = ("sh", "-c", """"$@"; code=$?; left=40
while set -- /proc/[0-9]*; [ $# -gt 1 ] && [ $left -gt 0 ]; do sleep 0.05; left=$((left - 1)); done
exit $code""", "sh")  # fmt: skip


def around(env: Mapping[str, str], *, cut: bool, within: Sequence[str] = ()) -> tuple[list[str], str]:
    """Return the command that runs another one apart, and why it is empty where that can't be had.

    With `cut` nothing but the network may be apart, where the machine gives no more. Only root can do without `within`: a
    command that makes its user root in a namespace of users.
    """
    if os.geteuid() != 0 and not within:
        return [], "it needs root"
    said = "unshare(1) isn't installed"
    for options in (["-mpn", *_CLEAN, *_FIRST], ["-n"]) if cut else (["-mp", *_CLEAN, *_FIRST],):
        words = [*within, "unshare", *options]
        try:
            done = ask([*words, "true"], env)
        except HostError:
            break
        if done.ok:
            return words, ""
        said = done.err.strip()
    return [], said
