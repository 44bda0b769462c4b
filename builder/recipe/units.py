"""Sizes, durations and GPU architectures as people write them."""

from __future__ import annotations

import re

__all__ = ["ARCH", "parse_bytes", "parse_seconds", "show_bytes", "show_seconds"]

_ONE = r"\d{1,2}\.\d[af]?(\+PTX)?"
#: What CUDA's and torch's lists of architectures hold, one or several.
ARCH = re.compile(rf"{_ONE}([;, ]+{_ONE})*")

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SPANS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Return ``8GiB``, ``8G`` or ``8589934592`` in bytes; a unit is always a power of 1,024. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no size; write 8GiB or 500M")
    return int(float(found[1]) * _SIZES[found[2].lower()])


def parse_seconds(text: str) -> int:
    """Return ``20min``, ``6h`` or ``90`` in seconds. Raises ValueError."""
    found = _SPAN.fullmatch(text)
    if not found or found[2].lower() not in _SPANS:
        raise ValueError(f"{text!r} is no time; write 20min or 6h")
    return int(float(found[1]) * _SPANS[found[2].lower()])


def show_bytes(size: int) -> str:
    """Return a size with three digits at most and a binary unit."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:  # noqa: PLR2004  # three digits
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"  # noqa: PLR2004


def show_seconds(seconds: float) -> str:
    """Return a duration as a clock would say it: ``4s``, ``2m41s``, ``1h05m``."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004  # a minute
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004  # an hour
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
