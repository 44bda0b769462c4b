"""Telling systemd how it goes: sd_notify(3), by plain socket."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["notify"]


def notify(place: str, text: str) -> None:
    """Send `text` such as ``READY=1`` to the socket that NOTIFY_SOCKET names; nobody there is no error."""
    if not place.startswith(("/", "@")):
        return
    address = f"\0{place[1:]}" if place.startswith("@") else place
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(text.encode(), address)
