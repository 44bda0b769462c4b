"""NVIDIA's own opinion: what ``cuobjdump`` finds in the same files, against what our reader found.

The layout of fat binaries isn't documented, so whoever doubts our reader can ask. ``cuobjdump -all FILE`` lists each image
with its architecture, including the ``f`` that ``--list-elf`` loses ("CUDA Binary Utilities", "cuobjdump"). It says nothing
of cubins and PTX texts in files of their own; those are left out.

The tool is a program of somebody else that reads a stranger's file: it gets each file under a name of ours in a scratch
folder, and has limited time.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builder import proc
from builder.audit.facts import DeviceCode
from builder.audit.rules import Rule, table
from builder.audit.target import architectures
from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from builder.audit.facts import Contents, File
    from builder.audit.rules import Finding

__all__ = ["RULES", "Tool", "check", "find", "parse"]

DIFFERS = Rule(
    id="cross-check-differs",
    severity="error",
    title="cuobjdump finds other device code than we do",
    why="one of the two is wrong about what this file holds, so nothing that is said about it can be relied on",
    help="try the newest cuobjdump: a toolkit that is newer than both may have changed the layout. Report it with the"
    " wheel's name",
)
FAILED = Rule(
    id="cross-check-failed",
    severity="warning",
    title="cuobjdump can't read a file",
    why="there is no second opinion on this file",
    help="try the newest cuobjdump (pip install -U nvidia-cuda-cuobjdump)",
)
AGREES = Rule(
    id="cross-check-agrees",
    severity="info",
    title="cuobjdump finds the same device code",
    why="two readers that share no code agree on every image and its architecture",
    help="nothing to do",
)

RULES = table(DIFFERS, FAILED, AGREES)

_NAME = "cuobjdump"
_PACKAGE = "nvidia-cuda-cuobjdump"

#: How it names kinds in ``Fatbin elf code:``.
_KINDS = {"elf": "cubin", "ptx": "ptx", "nvvm": "lto-ir"}

#: Ends with this when a file has no device code; that is an answer.
_NO_DEVICE_CODE = "does not contain device code"

#: The only sections of a host's file that it looks into.
_LINKED = (".nv_fatbin", "__nv_relfatbin")
#: What our reader tells of a member of an archive where the code lies elsewhere.
_DATA = (".data", ".rodata", ".ldata", ".lrodata")

_LIMIT_S = 600.0
_CHUNK = 1 << 20


class Tool(NamedTuple):
    """A ``cuobjdump`` and its version, such as ``13.5.37``."""

    path: Path
    version: str


class _Answer(NamedTuple):
    """What it says about one file: images by architecture, or why it says nothing."""

    counts: Counter[str]
    failed: str = ""


def find(env: Mapping[str, str]) -> Tool:
    """Return the ``cuobjdump`` of CUDA_HOME, of PATH, of /usr/local/cuda, or of the PyPI package beside this Python.

    Raises HostError ``cuobjdump-missing``, or ``tool-missing`` for one that can't be started.
    """
    for path in _candidates(env):
        if path.is_file():
            answer = proc.capture([path, "--version"], env=env, timeout_s=60.0)
            version = re.search(r"\bV(\d+(?:\.\d+)+)", answer.out)
            if answer.ok and version:
                return Tool(path, version.group(1))
    raise HostError(
        "cuobjdump-missing",
        "--cross-check needs cuobjdump, and there is none",
        cause=f"looked into CUDA_HOME, PATH, /usr/local/cuda/bin and the package {_PACKAGE}",
        help="It is a part of the CUDA toolkit, and a small package of its own that needs neither toolkit nor GPU.",
        run=(f"pip install {_PACKAGE}",),
    )


def _candidates(env: Mapping[str, str]) -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := env.get(name):
            yield Path(home, "bin", _NAME)
    if found := shutil.which(_NAME, path=env.get("PATH", "")):
        yield Path(found)
    yield Path("/usr/local/cuda/bin", _NAME)
    from importlib import metadata  # noqa: PLC0415  # slow, and rarely needed

    try:
        files = metadata.files(_PACKAGE) or ()
    except metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())) for file in files if file.name == _NAME)


def check(
    contents: Contents,
    tool: Tool,
    *,
    env: Mapping[str, str],
    scratch: Path | None = None,
    on_file: Callable[[str], None] = lambda _path: None,
) -> Iterator[Finding]:
    """Yield where `tool` and our reader differ about `contents`, and one finding about all on which they agree.

    They agree on a file when they list the same images. What our reader calls unknown there is another finding's matter.

    Each file of a wheel is copied into a folder below `scratch` (the system's, when None) while it is looked at; the largest
    must have room there. Raises HostError ``tool-timeout``, ``disk-full`` or ``unwritable``.
    """
    files = [file for file in contents.files if _comparable(file)]
    agreed, images, hidden = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="spark-build-cross-check-", dir=scratch) as folder:
        for file in files:
            on_file(file.path)
            answer = _ask(tool, _copied(contents, file, Path(folder, "file")), env)
            ours, elsewhere = _ours(file, answer)
            hidden += elsewhere
            if answer.failed:
                yield FAILED.finding(file=file.path, found=answer.failed, wanted=_written(ours))
            elif answer.counts != ours:
                yield DIFFERS.finding(file=file.path, found=_found(file, ours), wanted=_written(answer.counts))
            else:
                agreed += 1
                images += ours.total()
    if agreed:
        asked = {file.path for file in files}
        left = sum(1 for file in contents.files if file.device and file.device.units and file.path not in asked)
        yield AGREES.finding(
            found=f"{agreed} of {len(files)} files, {images} images, as {_NAME} {tool.version}"
            + (f"; {hidden} images in data sections, where it doesn't look" if hidden else "")
            + (f"; {left} of nothing but device code, which it doesn't list" if left else "")
        )


def parse(text: str) -> Counter[str]:
    """Return how many images ``cuobjdump -all`` lists by architecture, named as `architectures` does."""
    counts: Counter[str] = Counter()
    kind = ""
    for line in text.splitlines():
        if line.startswith("Fatbin ") and line.endswith(" code:"):
            word = line.split()[1]
            kind = _KINDS.get(word, "unknown")
        elif kind and line.startswith("arch = "):
            arch = line.removeprefix("arch = ").strip()
            virtual = arch.replace("sm_", "compute_", 1)
            counts[{"cubin": arch, "ptx": virtual}.get(kind, f"{kind} {virtual}")] += 1
            kind = ""
    return counts


def _comparable(file: File) -> bool:
    """Whether it can be asked about `file`: it can hold device code, and has a host's format around that or is a fatbin."""
    if file.device is None or (file.elf is not None and file.elf.machine == "cuda"):
        return False
    return file.elf is not None or any(len(unit.images) > 1 or unit.section for unit in file.device.units)


def _copied(contents: Contents, file: File, copy: Path) -> Path:
    """Return where the bytes of `file` are: installed ones stay, those of a wheel are at `copy` afterwards."""
    if not contents.filename:
        return contents.where / file.path
    try:
        with zipfile.ZipFile(contents.where) as wheel, wheel.open(file.path) as packed, copy.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, _CHUNK)
    except OSError as error:
        raise HostError(
            "disk-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "unwritable",
            f"{file.path} can't be unpacked for {_NAME}",
            cause=str(error),
            help=f"it takes {file.size / 1e6:.0f} MB; TMPDIR names another folder for that",
        ) from error
    return copy


def _ask(tool: Tool, path: Path, env: Mapping[str, str]) -> _Answer:
    answer = proc.capture([tool.path, "-all", path], env=env, timeout_s=_LIMIT_S)
    if answer.ok:
        return _Answer(parse(answer.out))
    if _NO_DEVICE_CODE in answer.err + answer.out:
        return _Answer(Counter())
    # What it lists before it gives up stands on stdout; on stderr the reason comes first, then what follows from it.
    lines = [line.strip() for line in (answer.err.strip() or answer.out).replace(str(path), "it").splitlines()]
    reason = next((line for line in lines if "fatal" in line), next((line for line in reversed(lines) if line), ""))
    return _Answer(Counter(), failed=reason or f"{_NAME} ended with {answer.code}")


def _ours(file: File, answer: _Answer) -> tuple[Counter[str], int]:
    """Return what we found in the sections that it reads, and how many images elsewhere.

    Some libraries (CUPTI) hold fat binaries as plain data or in sections of their own, which it passes over. In an archive
    our reader tells the member and not the section: there all is elsewhere when it finds nothing at all.
    """
    units = file.device.units if file.device is not None else ()
    if file.elf is not None:
        there = tuple(unit for unit in units if unit.section.startswith(_LINKED))
    else:
        passed_over = not answer.counts and not answer.failed
        there = tuple(unit for unit in units if not passed_over and not unit.section.startswith(_DATA))
    ours = Counter(architectures(DeviceCode(units=there)))
    return ours, sum(len(unit.images) for unit in units) - ours.total()


def _found(file: File, ours: Counter[str]) -> str:
    unknown = file.device.unknown if file.device is not None else ""
    return f"{_written(ours)} ({unknown})" if unknown else _written(ours)


def _written(counts: Counter[str]) -> str:
    return ", ".join(f"{name} x{number}" for name, number in sorted(counts.items())) or "no device code"
