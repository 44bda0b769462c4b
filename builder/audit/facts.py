"""What is read out of a wheel or an environment, before anybody judges it. Values only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Contents", "DeviceCode", "Elf", "File", "Image", "Program", "Unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One piece of device code: machine code for one architecture (`cubin`), or text that a driver compiles (`ptx`).

    `sm` is 121 for compute capability 12.1; `variant` is ``a`` (that chip only), ``f`` (its family), empty, or ``?`` for
    one of these that the file doesn't note. `size` is the number of bytes that it takes in the file, as stored there.
    `version` is the PTX ISA of PTX (``9.0``), the toolkit of a cubin where that can be read (``13.0``), else empty.
    """

    kind: Literal["cubin", "ptx", "lto-ir", "unknown"]
    sm: int
    variant: Literal["", "a", "f", "?"] = ""
    size: int = 0
    compressed: bool = False
    version: str = ""

    @property
    def arch(self) -> str:
        """``sm_121a`` for machine code, ``compute_121a`` for everything that is compiled later."""
        return f"{'sm' if self.kind == 'cubin' else 'compute'}_{self.sm}{self.variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One container of a fat binary: the same kernels for several architectures, of which the driver takes the best.

    `section` is where it lies: ``.nv_fatbin``, ``__nv_relfatbin``, a member of an archive, or empty for a file of its own.
    `sha256` is that of its bytes, so that device code can be compared apart from host code; empty unless it was asked for.
    """

    images: tuple[Image, ...]
    section: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """All device code of one file. `unknown` says what couldn't be read; then `units` may lack something."""

    units: tuple[Unit, ...] = ()
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """What the headers of an ELF file say.

    `machine` is as in platform tags (``x86_64``, ``aarch64``), ``cuda`` for a cubin, else ``em-<number>``. `versions` maps a
    needed library to the symbol versions wanted of it (``libc.so.6``: ``GLIBC_2.34``). `undefined` are the dynamic symbols
    that something else has to bring, `weak` those of them that may stay away; `defined` counts what it exports itself, and
    `inits` are those of its exports that start an extension module (``PyInit_name``, ``PyModExport_name``).
    `debug_size` is what ``strip --strip-debug`` would save, `symbols_size` what ``--strip-unneeded`` would on top, in bytes.
    """

    machine: str
    bits: int
    kind: Literal["shared", "program", "object", "other"]
    soname: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    undefined: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    defined: int = 0
    inits: frozenset[str] = frozenset()
    debug_size: int = 0
    symbols_size: int = 0
    build_id: str = ""
    compilers: tuple[str, ...] = ()
    interpreter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A CUDA tool that a wheel brings along (``ptxas``, ``cuobjdump``, ``nvdisasm``): its version and what it knows.

    `targets` are the architectures whose names stand in its bytes (``sm_121a``); read without running it.
    """

    name: str
    version: str
    targets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One member of a wheel, or one file of an environment. `packed` is what it takes in the wheel.

    `device` is None where the file can't hold device code (a text, say), and has no units where it could and doesn't.
    `damage` says why an ELF file or a fat binary couldn't be read to its end. `machines` are those that the objects in a
    static library are for, spelled as in `Elf`.
    """

    path: str
    size: int
    packed: int = 0
    sha256: str = ""
    executable: bool = False
    elf: Elf | None = None
    device: DeviceCode | None = None
    program: Program | None = None
    damage: str = ""
    machines: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A wheel, or one installed distribution, as it was found.

    `where` is the wheel's path or the site-packages folder; `filename` the wheel's name (empty when installed). `tags` are
    the ``Tag`` lines of WHEEL. `problems` are what makes it no whole or no safe wheel, as (slug, file, what was found);
    members after such a problem may be missing from `files`. `inputs` is the document that spark-build left in it.
    """

    where: Path
    filename: str
    project: str
    version: str
    sha256: str = ""
    size: int = 0
    tags: tuple[str, ...] = ()
    purelib: bool = False
    metadata: bytes = b""
    inputs: Mapping[str, Any] | None = None
    files: tuple[File, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()
