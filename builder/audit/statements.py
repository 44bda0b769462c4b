"""What the source of a Python module imports, and which names it may bind. Sources are parsed, never executed."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["bound", "imported", "is_open", "outside", "parsed", "statements"]

_QUOTE = re.compile(rb"\"\"\"|'''")
#: How a text that spans lines ends, or an escape in it, by how it begins.
_ENDS = {quote: re.compile(rb"\\.|" + quote, re.DOTALL) for quote in (b'"""', b"'''")}
_COMMENT = re.compile(r"#[^\n]*")
#: Possessive throughout: whatever a stranger's file holds, each byte is looked at a bounded number of times.
_STATEMENT = re.compile(
    rb"^(?:from[ \t]++(\.++(?=[ \t]*+import\b)|[\w.]*+)[ \t]*+import[ \t]*+(\([^()]*+\)|[^\n#;(]*+)|"
    rb"import[ \t]++([^\n#;]*+))",
    re.MULTILINE,
)
#: Names that a package uses which finds modules by other means.
_OPENING = frozenset(
    {"__getattr__", "__path__", "__import__", "exec", "eval", "globals", "locals", "meta_path", "modules", "path_hooks"}
    | {"setattr", "vars", "extend_path", "load_library", "exec_module", "module_from_spec", "__dict__"}
)


def imported(name: str, path: str, text: bytes) -> Iterator[str]:
    """Yield the dotted names that a module imports at its top level; a name out of a package counts as a module of it.

    Told by lines that begin so. Parsing thousands of modules would take longer than all else that an audit does.
    """
    package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
    for match in _STATEMENT.finditer(_code(text)):
        base, names, plain = (_COMMENT.sub("", (part or b"").decode(errors="replace")) for part in match.groups())
        if plain:
            yield from (part.split()[0] for part in plain.split(",") if part.strip())
            continue
        base = _absolute(base, package)
        yield from (f"{base}.{part.split()[0]}" for part in names.strip("()").split(",") if part.strip())


def _code(text: bytes) -> bytes:
    """Return a source without the texts that span lines, in which a line may look like a statement."""
    kept, at = [], 0
    while opened := _QUOTE.search(text, at):
        kept.append(text[at : opened.start()])
        end = next((one for one in _ENDS[opened[0]].finditer(text, opened.end()) if one[0] == opened[0]), None)
        if end is None:
            return b"".join(kept)
        at = end.end()
    return b"".join([*kept, text[at:]])


def _absolute(base: str, package: str) -> str:
    """Return the package that ``from <base> import`` names in a module of `package`."""
    name = base.lstrip(".")
    level = len(base) - len(name)
    if not level:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def parsed(text: bytes) -> ast.Module | None:
    """Return the tree of a source, or None where it is none that this Python reads."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def outside(tree: ast.Module) -> set[str]:
    """Return the packages that the top level of a module imports for certain, by their absolute names."""
    return {module.partition(".")[0] for module, _names in statements(tree, "")}


def statements(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the modules that the top level of a module of `package` imports for certain, with the names taken from each.

    Relative ones are left out where `package` is empty. Behind a `raise` nothing is.
    """
    for statement in tree.body:
        if isinstance(statement, ast.Raise):
            return
        if isinstance(statement, ast.Import):
            yield from ((alias.name, ()) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and (package or not statement.level):
            base = _absolute("." * statement.level + (statement.module or ""), package)
            yield base, tuple(alias.name for alias in statement.names)


def is_open(tree: ast.Module) -> bool:
    """Whether a package may have modules that aren't in its folder, or import names that it doesn't bind by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        name = node.name if isinstance(node, ast.FunctionDef) else name
        if name in _OPENING:
            return True
    return False


def bound(tree: ast.Module, package: str) -> set[str]:
    """Return the names that the ``__init__`` of a package may bind, at whatever depth; not those it takes from itself."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            found.add(node.name or "")
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            itself = _absolute("." * node.level + (node.module or ""), package) == package
            found |= {alias.asname or alias.name for alias in node.names if not itself or alias.asname}
    return found
