"""Libraries of the system that no platform policy has, and the package of Ubuntu 24.04 that brings each."""

from __future__ import annotations

import re

__all__ = ["package"]

#: The driver's libraries come with the driver: no package to name.
_PACKAGES = tuple(
    (re.compile(pattern), package)
    for pattern, package in (
        (r"libcuda\.so\.1|libnvidia-[\w-]+\.so\.\d+|libnv(cuvid|optix)\.so\.\d+", ""),
        (r"libgomp\.so\.1(\.0\.0)?", "libgomp1"),
        (r"libssl\.so\.3|libcrypto\.so\.3", "libssl3t64"),
        (r"libzstd\.so\.1", "libzstd1"),
        (r"libbrotli(dec|enc|common)\.so\.1", "libbrotli1"),
        (r"libnuma\.so\.1", "libnuma1"),
        (r"libhwloc\.so\.15", "libhwloc15"),
        (r"libibverbs\.so\.1|libmlx5\.so\.1|libefa\.so\.1", "libibverbs1"),
        (r"librdmacm\.so\.1", "librdmacm1"),
        (r"libibmad\.so\.5", "libibmad5"),
        (r"libibumad\.so\.3", "libibumad3"),
        (r"libfabric\.so\.1", "libfabric1"),
        (r"libuc[mpst]\.so\.0", "libucx0"),
        (r"lib(mpi|oshmem)\.so\.40", "libopenmpi3t64"),
        (r"libpmix\.so\.2", "libpmix2t64"),
        (r"libavutil\.so\.58", "libavutil58"),
        (r"libav(?P<name>codec|format|device)\.so\.60", r"libav\g<name>60"),
        (r"libavfilter\.so\.9", "libavfilter9"),
        (r"libswscale\.so\.7", "libswscale7"),
        (r"libswresample\.so\.4", "libswresample4"),
        (r"libheif\.so\.1", "libheif1"),
        (r"libEGL\.so\.1", "libegl1"),
        (r"libdrm\.so\.2", "libdrm2"),
        (r"libdbus-1\.so\.3", "libdbus-1-3"),
        (r"libfreetype\.so\.6", "libfreetype6"),
        (r"libfontconfig\.so\.1", "libfontconfig1"),
        (r"libxcb\.so\.1", "libxcb1"),
        (r"libxcb-(?P<name>[a-z-]+)\.so\.(?P<number>\d)", r"libxcb-\g<name>\g<number>"),
        (r"libX11-xcb\.so\.1", "libx11-xcb1"),
        (r"libxkbcommon\.so\.0", "libxkbcommon0"),
        (r"libxkbcommon-x11\.so\.0", "libxkbcommon-x11-0"),
        (r"libwayland-(?P<name>[a-z]+)\.so\.(?P<number>\d)", r"libwayland-\g<name>\g<number>"),
    )
)


def package(library: str) -> str | None:
    """Return the package that brings `library`; empty for the driver's own, None for one that isn't known."""
    for pattern, name in _PACKAGES:
        if match := pattern.fullmatch(library):
            return match.expand(name)
    return None
