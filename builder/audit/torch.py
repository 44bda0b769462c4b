"""Whether the files of a wheel fit the torch that they will be loaded into.

torch promises its C++ symbols to nobody: a library built against one torch may want a symbol that the next lacks, and the
import fails then. Only the C functions of its stable ABI (``aoti_torch_…``, ``torch_…``) stay. So each torch symbol that a
library wants is looked up in the real libraries of the torch at hand, whichever machine they are for.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from builder.audit import requires, symbols
from builder.audit.elf import Damaged
from builder.audit.rules import Rule, table
from builder.errors import HostError
from builder.proc import capture
from builder.values import dataclass
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.audit.context import Context
    from builder.audit.facts import Contents, Elf, File
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge", "needs_torch"]

RULES = table(
    Rule(
        id="torch-symbols",
        severity="error",
        title="needs symbols that this torch doesn't have",
        why="the import fails with `undefined symbol`: the library was built against another torch",
        help="build it against the torch that it will run with (--torch), or install the torch it was built for",
    ),
    Rule(
        id="torch-cxx11-abi",
        severity="error",
        title="the C++ ABI isn't that of this torch",
        why="std::string has another layout and other symbol names in each of the two C++ ABIs of libstdc++",
        help="compile with the _GLIBCXX_USE_CXX11_ABI of the torch that it will run with",
    ),
    Rule(
        id="torch-pin",
        severity="error",
        title="METADATA excludes the torch that it has to fit",
        why="an installer replaces that torch by another one, or refuses",
        help="build against the torch that the project pins, or correct Requires-Dist",
    ),
    Rule(
        id="torch-unpinned",
        severity="warning",
        title="fits one torch only, and doesn't say which",
        why="torch keeps no C++ ABI between releases; an installer may pair it with any torch",
        help="pin torch in Requires-Dist to the release it was built against, or build for torch's stable ABI",
    ),
    Rule(
        id="torch-abi",
        severity="info",
        title="which ABI of torch it uses",
        why="the stable ABI lasts over releases of torch; C++ symbols fit the torch that it was built against",
        help="nothing to do",
    ),
    Rule(
        id="torch-unknown",
        severity="warning",
        title="this torch can't be read",
        why="without its libraries nothing is known about the symbols that are wanted of it",
        help="name a whole torch (--torch), or none",
    ),
)

_LIBRARY = re.compile(r"lib(torch|c10|shm|caffe2)(_\w+)?\.so(\.\d+)*")
_LIBC10 = "libc10.so"
#: Names in namespaces of torch: functions, methods (const, by reference), virtual tables, type information, thunks, guards.
_CXX = re.compile(r"_Z(T[ISVTW]|GV|TH)?(N[rVK]*[RO]?)?(2at|3c10|5torch|6caffe2)")
#: What libtorch_python exports in C.
_PYTHON = re.compile(r"THP[A-Z]\w+")
_STABLE = re.compile(r"(aoti_)?torch_\w+")
_CXX11 = "__cxx11"
#: std::string of the old ABI, in a demangled name, and mangled where there's no c++filt.
_OLD_STRING = re.compile(r"std::(string|basic_string<)|Ss")
_VERSION = re.compile(r"""^__version__\s*(?::[^=]*)?=\s*['"]([^'"]+)""", re.MULTILINE)
#: So many missing symbols are named.
_NAMED = 5
_CHUNK = 1 << 20
#: What a wheel raises that lost bytes between two readings, or never had them.
_UNREADABLE = (OSError, Damaged, KeyError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Torch:
    """A torch that was found: its version (empty when it doesn't tell) and its libraries by name."""

    version: str
    libraries: dict[str, Path]

    @property
    def name(self) -> str:
        return f"torch {self.version}".strip()

    def lacks(self, names: frozenset[str]) -> frozenset[str]:
        """Return those of `names` that no library exports; raise Damaged when one can't be read."""
        for path in self.libraries.values():
            if not names:
                break
            names -= symbols.defined(path, names)
        return names

    def new_strings(self) -> bool | None:
        """Whether it was built with the C++11 ABI; None when its libc10 doesn't tell."""
        path = self.libraries.get(_LIBC10)
        found = [one for one in symbols.exported(path) if one.startswith("_Z")] if path else []
        if any(_CXX11 in one for one in found):
            return True
        return False if any("Ss" in one for one in found) else None


def needs_torch(elf: Elf) -> bool:
    """Whether a library links to one of torch's."""
    return any(_LIBRARY.fullmatch(name) for name in elf.needed)


def judge(contents: Contents, context: Context) -> Iterator[Finding]:
    """Yield what doesn't fit the torch of `context`, and which ABI of torch the files use."""
    if normalised(contents.project) == "torch":
        return
    wanted = {file.path: names for file in contents.files if file.elf and (names := _wanted(file.elf))}
    exact = {path for path, names in wanted.items() if any(map(_is_exact, names))}
    yield from _told_abi(wanted, exact)
    found = _torch(context.torch) if context.torch else None
    if exact and _unpinned(contents):
        yield RULES["torch-unpinned"].finding(
            found=_requirement(contents) or "no requirement of torch", wanted=f"torch=={_public(found)}"
        )
    if not wanted and not any(file.elf and needs_torch(file.elf) for file in contents.files):
        return
    yield from _judged_pin(contents, found)
    if context.torch and not (found and found.libraries):
        yield RULES["torch-unknown"].finding(
            found=f"no libraries in {context.torch.name}/lib", wanted="libtorch_cpu.so, libc10.so"
        )
    elif found:
        yield from _judged_symbols(contents, wanted, found)


def _wanted(elf: Elf) -> frozenset[str]:
    """Return the symbols that only torch can bring. What may stay away (weak) isn't wanted."""
    linked = needs_torch(elf)
    strong = elf.undefined - elf.weak
    return frozenset(
        name
        for name in strong
        if _CXX.match(name)
        or name.startswith("aoti_torch_")
        or (linked and (_STABLE.fullmatch(name) or _PYTHON.fullmatch(name)))
    )


def _is_exact(name: str) -> bool:
    return not _STABLE.fullmatch(name)


def _told_abi(wanted: dict[str, frozenset[str]], exact: set[str]) -> Iterator[Finding]:
    stable = [path for path in wanted if path not in exact]
    for kind, paths in (("exact ABI (C++ symbols)", sorted(exact)), ("stable ABI", stable)):
        if not paths:
            continue
        only = paths[0] if len(paths) == 1 else ""
        count = len(frozenset().union(*(wanted[path] for path in paths)))
        where = "" if only else f" by {len(paths)} files: {_listed(Path(path).name for path in paths)}"
        yield RULES["torch-abi"].finding(file=only, found=f"{kind} of torch, {count} symbols{where}")


def _torch(folder: Path) -> _Torch:
    with contextlib.suppress(OSError):
        text = (folder / "version.py").read_text(errors="replace")
        version = found[1] if (found := _VERSION.search(text)) else ""
        libraries = {path.name: path for path in sorted((folder / "lib").glob("*.so*")) if path.is_file()}
        return _Torch(version=version, libraries=libraries)
    return _Torch(version="", libraries={})


def _public(found: _Torch | None) -> str:
    return found.version.partition("+")[0] if found and found.version else "<release>"


def _requirement(contents: Contents) -> str:
    return ", ".join(str(one) for one in requires.requirements(contents) if normalised(one.name) == "torch")


def _unpinned(contents: Contents) -> bool:
    """Whether no requirement of torch stays within one release (``==2.14.0``, ``==2.14.*``, ``~=2.14.0``)."""
    return not any(
        specifier.operator in {"==", "===", "~="}
        for one in requires.requirements(contents)
        if normalised(one.name) == "torch"
        for specifier in one.specifier
    )


def _judged_pin(contents: Contents, found: _Torch | None) -> Iterator[Finding]:
    """Compare Requires-Dist with the torch at hand, and with the one that spark-build's inputs say it was built against."""
    inputs = (contents.inputs or {}).get("torch")
    built = str(inputs.get("version") or "") if isinstance(inputs, dict) else ""
    versions = {"the torch at hand": found.version if found else "", "built against": built}
    for one in requires.requirements(contents):
        if normalised(one.name) != "torch":
            continue
        for what, version in versions.items():
            if version and not requires.satisfied(one, version):
                yield RULES["torch-pin"].finding(found=f"Requires-Dist: {one}", wanted=f"{what}: {version}")


def _judged_symbols(contents: Contents, wanted: dict[str, frozenset[str]], torch: _Torch) -> Iterator[Finding]:
    try:
        lacking = torch.lacks(frozenset().union(*wanted.values()))
        lacking -= _brought(contents, lacking)
        new = torch.new_strings() if lacking else None
    except Damaged as error:
        yield RULES["torch-unknown"].finding(found=str(error), wanted="whole libraries")
        return
    own = {posixpath.basename(file.path) for file in contents.files if file.elf}
    for file in contents.files:
        names = wanted.get(file.path, frozenset())
        gone = [one for one in _linked(file) if one not in torch.libraries and one not in own]
        if names & lacking or gone:
            yield _missing(file, names, names & lacking, torch, gone=gone, new=new)


def _linked(file: File) -> list[str]:
    return [one for one in (file.elf.needed if file.elf else ()) if _LIBRARY.fullmatch(one)]


def _missing(
    file: File, names: frozenset[str], missing: frozenset[str], torch: _Torch, *, gone: list[str], new: bool | None
) -> Finding:
    shown = _demangled(sorted(missing)) if missing else []
    found = []
    if missing:
        plural = "symbol" if len(missing) == 1 else "symbols"
        found.append(f"{len(missing)} {plural} that {torch.name} lacks: {_listed(shown, count=_NAMED)}")
    if gone:
        found.append(f"links to {_listed(gone)}, which {torch.name} doesn't have at all")
    if _other_strings(names, shown, new=new):
        return RULES["torch-cxx11-abi"].finding(
            file=file.path,
            found="; ".join([f"_GLIBCXX_USE_CXX11_ABI={int(not new)}", *found]),
            wanted=f"_GLIBCXX_USE_CXX11_ABI={int(bool(new))}, as {torch.name} has it",
        )
    return RULES["torch-symbols"].finding(file=file.path, found="; ".join(found), wanted=f"symbols of {torch.name}")


def _other_strings(names: frozenset[str], missing: list[str], *, new: bool | None) -> bool:
    """Whether the missing symbols tell of the other C++ ABI."""
    if new is None:
        return False
    if new:
        return not any(_CXX11 in one for one in names) and any(_OLD_STRING.search(one) for one in missing)
    return any(_CXX11 in one for one in missing)


def _listed(names: Iterable[str], *, count: int = 12) -> str:
    every = list(names)
    rest = len(every) - count
    return ", ".join(every[:count]) + (f" and {rest} more" if rest > 0 else "")


def _demangled(names: list[str]) -> list[str]:
    """Return `names` as they are written in C++; as they are where there's no c++filt."""
    env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        ended = capture(["c++filt"], env=env, stdin="\n".join(names).encode() + b"\n", timeout_s=20)
    except HostError:
        return names
    lines = ended.out.splitlines()
    return lines if ended.ok and len(lines) == len(names) else names


def _brought(contents: Contents, names: frozenset[str]) -> frozenset[str]:
    """Return those of `names` that the wheel's own libraries export. Read again: this is asked when something lacks."""
    found: set[str] = set()
    for file in contents.files:
        if not names - found:
            break
        if file.elf and file.elf.kind == "shared" and file.elf.defined:
            with contextlib.suppress(*_UNREADABLE), _at_hand(contents, file) as path:
                found |= symbols.defined(path, names - found)
    return frozenset(found)


@contextlib.contextmanager
def _at_hand(contents: Contents, file: File) -> Iterator[Path]:
    if not contents.filename:
        yield contents.where / file.path
        return
    with tempfile.TemporaryDirectory(prefix="spark-build-") as folder, zipfile.ZipFile(contents.where) as archive:
        path = Path(folder) / "library"
        with archive.open(file.path) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        yield path
