"""Which projects `import <package>` needs at once: what its modules import at top level, followed through its own modules.

Only what is certain counts: an import in a function, a class, a condition or a ``try`` may never run. Sources are parsed,
never executed. Modules that nothing imports at once (plugins, tests, lazy ones) aren't looked at.

A module of its own that isn't there is told, too, unless something else may bring it: a namespace package, a path or a
finder that its packages set up, a name that they bind.
"""

from __future__ import annotations

import contextlib
import re
import sys
import zipfile
import zlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from builder.audit import statements

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection, Iterator, Mapping

    from builder.audit.facts import Contents

__all__ = ["Found", "Import", "Missing", "modules", "needed", "packages", "read"]

#: More modules than that, or larger ones, aren't followed: this is one check of many.
_MOST_MODULES = 2000
_LARGEST = 4 << 20
#: Endings of file names that Python imports, whatever its version.
_SOURCES = frozenset({"py", "pyc"})
_EXTENSIONS = (".so", "so", "pyd")
#: What lies at the top by mistake or for other uses, and isn't meant to be imported from a whole wheel.
_ASIDE = frozenset({"benchmark", "benchmarks", "conftest", "docs", "examples", "setup", "test", "testing", "tests"})
#: Where projects keep packages of others that they put onto `sys.path` themselves.
_VENDORED = re.compile(r"(?:^|/)(?=\w*?(?:vendor|third_?party|extern))\w++/([^/.]+)")
#: What every module has, or a package alone can mean: ``__version__``, ``*``.
_SPECIAL = re.compile(r"\*|__\w+__")
_WORD = re.compile(rb"\w+")


class Import(NamedTuple):
    """A package that isn't of the wheel's own, and the file that imports it first."""

    package: str
    file: str


class Missing(NamedTuple):
    """A module of the wheel's own that is imported at once: its dotted name, and the file that imports it."""

    module: str
    file: str


class Found(NamedTuple):
    """What is imported at once: packages of others, modules of its own that aren't there, extension modules.

    Of those only the ones that were asked for, and such as export no function to start them by.
    """

    needed: tuple[Import, ...] = ()
    missing: tuple[Missing, ...] = ()
    extensions: tuple[Missing, ...] = ()


class _Source(Protocol):
    def __call__(self, path: str, /) -> bytes: ...


def read(contents: Contents, watched: Collection[str] = ()) -> Found:
    """Return what importing the wheel's own packages imports at once; `watched` are paths of extension modules to tell of.

    Nothing where the wheel or the folder isn't there any more.
    """
    with contextlib.suppress(OSError, zipfile.BadZipFile), _sources(contents) as source:
        return _Reading(contents, source, watched).found()
    return Found()


def needed(contents: Contents) -> tuple[Import, ...]:
    """Return what is imported beside its own packages and the standard library, by name; see `read`."""
    return read(contents).needed


def packages(contents: Contents) -> frozenset[str]:
    """Return the names of the top-level packages and modules that it holds, extension modules included."""
    found = set()
    for file in contents.files:
        first, inside, _rest = file.path.partition("/")
        if inside and not first.endswith((".dist-info", ".data")):
            found.add(first)
        elif not inside and first.endswith((".py", ".so")):
            found.add(first.partition(".")[0])
    return frozenset(found)


def modules(contents: Contents) -> Mapping[str, str]:
    """Return the file of each module by its dotted name: sources, extension modules of any suffix, byte code.

    A package's is its ``__init__``; a folder without one counts as a namespace package, with an empty name of a file.
    """
    found: dict[str, str] = {}
    for file in contents.files:
        parts = _installed(file.path)
        stem, dot, suffix = parts[-1].partition(".") if parts else ("", "", "")
        names = parts[:-1] if stem == "__init__" else (*parts[:-1], stem)
        for count in range(1, len(parts)):
            found.setdefault(".".join(parts[:count]), "")
        if dot and names and (suffix in _SOURCES or suffix.endswith(_EXTENSIONS)):
            name = ".".join(names)
            if suffix.endswith(_EXTENSIONS) or not found.get(name):  # Python prefers them to sources
                found[name] = file.path
    return found


def _installed(path: str) -> tuple[str, ...]:
    """Return the parts of a path as seen from site-packages; none for what isn't put there."""
    parts = tuple(path.split("/"))  # members' names are plain; `pathlib` would take longer than all else here
    if len(parts) > 2 and parts[0].endswith(".data") and parts[1] in {"purelib", "platlib"}:  # noqa: PLR2004
        return parts[2:]
    return () if parts[0].endswith((".data", ".dist-info", ".egg-info")) or ".." in parts else parts


@contextlib.contextmanager
def _sources(contents: Contents) -> Iterator[_Source]:
    if contents.filename:
        with zipfile.ZipFile(contents.where) as archive:

            def member(path: str, /) -> bytes:
                with archive.open(path) as stream:
                    return stream.read(_LARGEST)

            yield member
    else:

        def file(path: str, /) -> bytes:
            with (contents.where / path).open("rb") as stream:
                return stream.read(_LARGEST)

        yield file


class _Reading:
    """One walk over the modules of a wheel, from those at the top."""

    def __init__(self, contents: Contents, source: _Source, watched: Collection[str]) -> None:
        self._source = source
        self._all = modules(contents)
        self._sources = {name: path for name, path in self._all.items() if path.endswith(".py")}
        self._own = {name.partition(".")[0] for name in self._sources}
        # An import hook of a .pth file may bring whatever it likes.
        hooked = any(file.path.endswith(".pth") for file in contents.files)
        self._closed = set() if hooked else self._own - sys.stdlib_module_names - _ASIDE
        inits = {file.path: file.elf.inits for file in contents.files if file.elf}
        self._watched = {
            name
            for name, path in self._all.items()
            if path in watched or (path in inits and not _starts(name, inits[path]))
        }
        self._trees: dict[str, ast.Module | None] = {}
        self._hosts = _hosts(contents, source)
        self._words: dict[str, frozenset[bytes]] = {}
        self._told = set[str]()
        self._brought = {match[1] for file in contents.files for match in _VENDORED.finditer(file.path)}
        self._needed: list[Import] = []
        self._missing: dict[str, Missing] = {}
        self._extensions: dict[str, Missing] = {}

    def found(self) -> Found:
        waiting = deque(name for name in sorted(self._own) if name in self._sources)
        seen = set(waiting)
        while waiting and len(seen) < _MOST_MODULES:
            name = waiting.popleft()
            imported = self._read(name)
            for one in (parent for each in imported for parent in _with_parents(each)):
                if one in self._sources and one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return Found(
            needed=tuple(sorted(self._needed)),
            missing=tuple(self._missing[name] for name in sorted(self._missing)),
            extensions=tuple(self._extensions[name] for name in sorted(self._extensions)),
        )

    def _read(self, name: str) -> list[str]:
        """Take note of what a module imports, and return it. A source is parsed only where a line of it is in question."""
        path = self._sources[name]
        text = _text(path, self._source)
        imported = list(statements.imported(name, path, text))
        others = (
            {one.partition(".")[0] for one in imported}
            - self._own
            - self._told
            - self._brought
            - sys.stdlib_module_names
            - self._hosts.get(name, frozenset())
        )
        tree = statements.parsed(text) if others or any(self._is_doubtful(one, name) for one in imported) else None
        if tree is not None:
            certain = others & statements.outside(tree)
            self._told |= certain
            self._needed += [Import(one, path) for one in certain]
            if name.partition(".")[0] in self._closed:
                self._judge(name, path, tree)
        return imported

    def _is_doubtful(self, imported: str, by: str) -> bool:
        """Whether a module of its own may be missing, or may not start. No parsing: this is asked of every import."""
        if imported.partition(".")[0] not in self._closed:
            return False
        if imported in self._all:
            return imported in self._watched
        package, _dot, name = imported.rpartition(".")
        if package not in self._all:
            return True
        if not self._is_package(package):
            return package in self._watched
        if package not in self._words:
            self._words[package] = frozenset(_WORD.findall(_text(self._sources[package], self._source)))
        return package == by or name.encode() not in self._words[package]

    def _judge(self, name: str, path: str, tree: ast.Module) -> None:
        package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
        for module, names in statements.statements(tree, package):
            if module.partition(".")[0] not in self._closed:
                continue
            # A name out of a package may be a module of it, unless the package binds it.
            taken = [one for one in names if not _SPECIAL.fullmatch(one) and self._is_package(module)]
            bound = statements.bound(tree, name) if module == name else set[str]()
            for one in (module, *(f"{module}.{each}" for each in taken if each not in bound)):
                if one in self._watched:
                    self._extensions.setdefault(one, Missing(one, path))
                elif one not in self._all and self._is_certain(one):
                    self._missing.setdefault(one, Missing(one, path))
                    break

    def _is_package(self, module: str) -> bool:
        return self._sources.get(module, "").endswith("/__init__.py")

    def _is_certain(self, module: str) -> bool:
        """Whether nothing can bring a module that has no file: each package above it is a plain one."""
        parents = list(_with_parents(module))[:-1]
        first = next((one for one in parents if one not in self._all), module)
        parents = parents[: parents.index(first)] if first in parents else parents
        if not parents or not all(self._is_package(one) for one in parents):
            return False
        trees = [self._tree(one) for one in parents]
        nearest = trees[-1]
        return (
            nearest is not None
            and all(tree is not None and not statements.is_open(tree) for tree in trees)
            and first.rpartition(".")[2] not in statements.bound(nearest, parents[-1])
        )

    def _tree(self, package: str) -> ast.Module | None:
        if package not in self._trees:
            self._trees[package] = statements.parsed(_text(self._sources[package], self._source))
        return self._trees[package]


def _hosts(contents: Contents, source: _Source) -> Mapping[str, frozenset[str]]:
    """Return by module what imports it as a plugin of its own, and so is there when that is done.

    Told by the entry point's group, which begins with the host's name: ``pytest11``, ``flake8.extension``.
    """
    from configparser import ConfigParser, Error  # noqa: PLC0415  # few wheels have plugins

    path = next((file.path for file in contents.files if file.path.endswith(".dist-info/entry_points.txt")), "")
    parser = ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    found: dict[str, frozenset[str]] = {}
    with contextlib.suppress(Error, UnicodeDecodeError):
        parser.read_string((_text(path, source) if path else b"").decode())
    for group in parser.sections():
        host = re.match(r"[A-Za-z_]+", group)
        for named in parser[group].values() if host else ():
            module = (named or "").partition(":")[0].strip()
            found[module] = found.get(module, frozenset()) | ({host[0]} if host else set())
    return found


def _text(path: str, source: _Source) -> bytes:
    try:
        return source(path)
    except (OSError, KeyError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile):
        return b""  # not ours to judge: RECORD tells of it


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _starts(module: str, inits: frozenset[str]) -> bool:
    name = module.rpartition(".")[2]
    return not name.isascii() or not inits.isdisjoint({f"PyInit_{name}", f"PyModExport_{name}"})
