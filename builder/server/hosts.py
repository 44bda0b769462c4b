"""Whether a request is meant for this server. Where reading is open because only this machine can, others' pages may not.

A page of a stranger, in a browser on this machine, can let its own name stand for 127.0.0.1 (DNS rebinding); the browser
then lets it read whatever is open there. It can't help saying its name in ``Host``.
"""

from __future__ import annotations

import functools
import ipaddress

__all__ = ["is_ours"]


@functools.lru_cache(256)
def is_ours(said: str, public: str | None) -> bool:
    """Whether ``Host`` is an address, a name that nobody can register, or the host of the URL `public`."""
    name = _name(said)
    if "." not in name or name.endswith(".localhost"):
        return True
    if public and name == _name(public.partition("://")[2].partition("/")[0].rpartition("@")[2]):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(said: str) -> str:
    """Return the name of a host without its port."""
    host, colon, port = said.rpartition(":")
    return (host if colon and "]" not in port else said).strip("[]").rstrip(".").lower()
