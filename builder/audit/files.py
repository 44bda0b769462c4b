"""Judge of wheel truth: whether a wheel is whole, safe, and what its name and tags say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import metadata, tags
from builder.audit.rules import Rule, table
from builder.audit.tags import Extension
from builder.recipe.units import show_bytes
from builder.wheel.read import header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.tags import Tag

    from builder.audit.context import Context
    from builder.audit.facts import Contents, Elf, File
    from builder.audit.rules import Finding, Severity

__all__ = ["RULES", "judge"]

RULES = table(
    Rule(
        id="wheel-damaged",
        severity="error",
        title="the file is no whole wheel",
        why="installers refuse it, or install a part of it",
        help="fetch or build it again; compare its sha256 with the one that the index names",
    ),
    Rule(
        id="wheel-unsafe",
        severity="error",
        title="unpacking the wheel could do harm",
        why="a member writes outside its folder, hides another one, or unpacks to far more than it claims",
        help="don't install it; tell whoever you have it from",
    ),
    Rule(
        id="wheel-hidden",
        severity="error",
        title="the wheel holds bytes that its directory doesn't name",
        why="what reads it from front to back may find files there that others, and this audit, don't see: uv refuses it,"
        " and so do indexes, where pip takes it",
        help="build it again, and write nothing before, behind or between its members: padding goes into their extra fields,"
        " notes into the zip's comment",
    ),
    Rule(
        id="wheel-name",
        severity="error",
        title="the file name, METADATA and the .dist-info folder don't name the same wheel",
        why="installers go by the file name and record what METADATA says: something else is installed than was asked for",
        help="build it again; never rename a wheel by hand",
    ),
    Rule(
        id="record-lies",
        severity="error",
        title="RECORD names other bytes than the wheel holds",
        why="a file was added, dropped or changed after the wheel was made; installers that check refuse it",
        help="build it again; `wheel pack` writes RECORD anew after a change that you meant",
    ),
    Rule(
        id="elf-damaged",
        severity="error",
        title="a library or program isn't whole",
        why="its headers point beyond its end or contradict each other: the loader refuses it, or it breaks when called",
        help="build it again; look whether the disk was full, or a tool that edits ELF files (patchelf, strip) broke it",
    ),
    Rule(
        id="tag-differs",
        severity="error",
        title="the file name's tags aren't those in WHEEL",
        why="installers choose by the file name, tools that pack again go by WHEEL: one of the two is wrong",
        help="set both with `wheel tags`, or build it again",
    ),
    Rule(
        id="tag-any-with-elf",
        severity="error",
        title="a wheel for any platform holds machine code",
        why="it is installed on machines whose processor or system can't load it",
        help="give the wheel its platform's tag; a build that doesn't know of its library (`ext_modules`, `wheel.py-api`)"
        " tags it so",
    ),
    Rule(
        id="elf-machine",
        severity="error",
        title="a library, program or object for another processor than the tag's",
        why='the loader says "cannot open shared object file" or "Exec format error" on the machine that the wheel is for,'
        " and a linker finds nothing that it could use in a static library of such objects",
        help="build that part for the tag's machine: a nested build that doesn't see the cross compiler makes this",
    ),
    Rule(
        id="target-machine",
        severity="warning",
        title="a wheel that can't be installed on the target machine",
        why="its tags are for another processor or system: pip and uv refuse it there, whatever device code it holds",
        help="take or build the wheel for the target machine",
    ),
    Rule(
        id="ext-suffix",
        severity="error",
        title="an extension module with a name that Python won't look for",
        why="Python only looks for its own suffix, `.abi3.so` and `.so`: the import ends with ModuleNotFoundError",
        help="build it with the target's Python; a cross build takes the host's suffix unless told otherwise"
        " (SETUPTOOLS_EXT_SUFFIX, Python_SOABI)",
    ),
    Rule(
        id="purelib-with-elf",
        severity="warning",
        title="WHEEL says that the wheel is pure, and it holds machine code",
        why="it goes into the folder for pure Python, which some systems share between machines; auditwheel refuses it",
        help="build it with Root-Is-Purelib: false, as backends do that know of the library",
    ),
    Rule(
        id="python-excluded",
        severity="error",
        title="Requires-Python excludes the Pythons of the tag",
        why="no Python may install it: those that the tag fits are refused by its metadata",
        help="correct `requires-python` in the project, or build with a Python that it allows",
    ),
    Rule(
        id="metadata-invalid",
        severity="warning",
        title="METADATA breaks its own format",
        why="indexes refuse to take it, and tools that read it strictly ignore it. Where pip or uv can't read a requirement,"
        " Requires-Python, a name or a version, it isn't installed at all: that is an error",
        help="correct the project's metadata; newer build backends refuse to write it so",
    ),
    Rule(
        id="program-mode",
        severity="warning",
        title="a program that may not be executed",
        why='installers keep the permissions that the wheel has: calling it ends with "Permission denied"',
        help="set the permission before packing; some backends and copies lose it",
    ),
    Rule(
        id="size-limit",
        severity="error",
        title="the wheel is larger than the recipe allows",
        why="something was built or bundled that doesn't belong there, or for more chips than asked for",
        help="the table of files shows what takes the room; raise `max` of the recipe's size check if that is right",
    ),
    Rule(
        id="unpacked-size",
        severity="info",
        title="what the wheel takes once it is installed",
        why="it takes this much disk in each environment, and in each layer of an image",
        help="",
    ),
    Rule(
        id="not-stripped",
        severity="info",
        title="a library with symbols that nothing needs to run it",
        why="debug information and the table of local symbols are read by debuggers only, and often hold paths of the build",
        help="let the recipe strip it (`strip`), or `strip --strip-unneeded` in the project's build",
    ),
    Rule(
        id="same-file-twice",
        severity="info",
        title="the same large file more than once",
        why="a wheel can't hold links, so each copy takes its room, packed and installed",
        help="where the project allows, load one copy under one name",
    ),
    Rule(
        id="left-over",
        severity="info",
        title="a file that a build or an editor left",
        why="nothing needs it at run time; compiled Python differs from build to build, too",
        help="exclude it in the project's packaging",
    ),
)

#: Code for a device that the host only hands on: CUDA, and AMD's GPUs (EM_AMDGPU).
_DEVICES = frozenset({"cuda", "em-224", "em-247"})
_LARGE, _OWN_LINE = 1 << 20, 10 << 20
_VERY_LARGE = 250 << 20
#: Saving so many bytes, and such a share of the file, makes stripping worth a warning.
_WORTH_STRIPPING, _WORTH_SHARE = 50 << 20, 0.2
_LEFT_OVER = re.compile(
    r"(^|/)(__pycache__|CMakeFiles|\.git|\.pytest_cache|\.mypy_cache)/|\.(py[co]|orig|rej|o|d|swp|gcda|gcno)$|~$"
)
_MOST_NAMED = 10


def judge(contents: Contents, context: Context) -> Iterator[Finding]:
    """Yield where a wheel isn't whole, safe, or what its name, tags and RECORD say; and what takes room for nothing."""
    for slug, file, found in contents.problems:
        if slug in RULES:
            yield RULES[slug].finding(file=file, found=found)
    promised = tags.of(contents)
    yield from _tags(contents)
    yield from _installable(contents, promised, context)
    yield from _machines(contents, promised)
    yield from _extensions(contents, promised)
    yield from _metadata(contents, promised)
    yield from _sizes(contents, context)
    if contents.filename:  # what is installed has compiled Python, and permissions of its own
        yield from _modes(contents)
        yield from _left_over(contents)


def _tags(contents: Contents) -> Iterator[Finding]:
    outside, inside = tags.outside(contents), tags.inside(contents)
    if not outside or outside == inside or not contents.metadata:
        return
    severity: Severity = "warning" if not inside or tags.renamed(inside, outside) else "error"
    yield RULES["tag-differs"].finding(found=_shown(outside), wanted=_shown(inside), severity=severity)


def _shown(found: frozenset[Tag]) -> str:
    return ", ".join(sorted(map(str, found))) or "none"


def _hosts(contents: Contents) -> Iterator[tuple[File, Elf]]:
    """Yield the ELF files that a host loads or runs."""
    for file in contents.files:
        if file.elf and file.elf.machine not in _DEVICES:
            yield file, file.elf


def _held(contents: Contents) -> Iterator[tuple[File, frozenset[str]]]:
    """Yield what holds code for a host, and for which machines: ELF files, and static libraries of them."""
    for file in contents.files:
        if found := (file.machines | {file.elf.machine} if file.elf else file.machines) - _DEVICES:
            yield file, found


def _machines(contents: Contents, promised: frozenset[Tag]) -> Iterator[Finding]:
    for file in contents.files:
        if file.damage:
            yield RULES["elf-damaged"].finding(file=file.path, found=file.damage)
    machines = {tags.machine(tag) for tag in promised}
    wanted = ", ".join(sorted(machines))
    for file, found in _held(contents):
        if "any" in machines:
            # A module is imported on whatever machine; a library may lie there for those that have a use for it (debugpy).
            loaded = bool(file.elf and file.elf.inits) or tags.is_extension(file.path)
            yield RULES["tag-any-with-elf"].finding(
                file=file.path,
                found=f"machine code for {', '.join(sorted(found))}",
                wanted="a tag with a platform",
                severity=None if loaded else "warning",
            )
        elif machines and found - machines:
            yield RULES["elf-machine"].finding(file=file.path, found=", ".join(sorted(found - machines)), wanted=wanted)
    hosts = list(_hosts(contents))
    if contents.purelib and hosts and "any" not in machines:
        first = hosts[0][0].path
        yield RULES["purelib-with-elf"].finding(
            file=first, found=f"{len(hosts)} ELF file(s)", wanted="Root-Is-Purelib: false"
        )


def _installable(contents: Contents, promised: frozenset[Tag], context: Context) -> Iterator[Finding]:
    """Tell of a wheel of whose tags none is for the target machine. What is installed somewhere is past that."""
    if context.machine and contents.filename and promised:
        reasons = {tags.misfit(tag, context.machine) for tag in promised}
        if "" not in reasons:
            wanted = f"any, or Linux with glibc on {context.machine}"
            yield RULES["target-machine"].finding(found=", ".join(sorted(reasons)), wanted=wanted)


def _extensions(contents: Contents, promised: frozenset[Tag]) -> Iterator[Finding]:
    """Yield the modules of which no variant fits the tag."""
    variants: dict[str, list[Extension]] = {}
    for file in contents.files:
        if one := Extension.parse(file.path):
            variants.setdefault(one.module, []).append(one)
    for tag in sorted(promised, key=str):
        for name, found in tuple(variants.items()):
            if any(one.fits(tag) for one in found):
                continue
            del variants[name]  # once is enough
            # Without an ABI, a module for one Python may be meant for that one only.
            foreign = all(one.machine not in {"", tags.machine(tag)} for one in found) and tags.machine(tag) != "any"
            severity: Severity = "warning" if tag.abi == "none" and not foreign else "error"
            yield RULES["ext-suffix"].finding(
                file=found[0].path,
                found=", ".join(sorted(one.suffix for one in found)),
                wanted=f"what every Python of {tag} looks for",
                severity=severity,
            )


def _metadata(contents: Contents, promised: frozenset[Tag]) -> Iterator[Finding]:
    if not contents.metadata:
        return
    for severity, texts in metadata.mistakes(contents).items():
        if texts:
            yield RULES["metadata-invalid"].finding(found="; ".join(texts[:_MOST_NAMED]), severity=severity)
    requires = header(contents.metadata, "Requires-Python")
    if requires and metadata.excludes(requires, promised):
        yield RULES["python-excluded"].finding(found=f"Requires-Python: {requires}", wanted=_shown(promised))


def _sizes(contents: Contents, context: Context) -> Iterator[Finding]:
    limit, unpacked = context.expected.max_size, sum(file.size for file in contents.files)
    if limit is not None and contents.size > limit:
        yield RULES["size-limit"].finding(found=show_bytes(contents.size), wanted=f"at most {show_bytes(limit)}")
    if unpacked >= _VERY_LARGE:
        yield RULES["unpacked-size"].finding(found=f"{show_bytes(unpacked)}, packed to {show_bytes(contents.size)}")
    yield from _unstripped(contents)
    copies: dict[str, list[File]] = {}
    for file in contents.files:
        if file.size >= _LARGE and file.sha256:
            copies.setdefault(file.sha256, []).append(file)
    for first, *others in copies.values():
        if others:
            also = ", ".join(one.path for one in others[:_MOST_NAMED])
            more = show_bytes(sum(one.size for one in others))
            yield RULES["same-file-twice"].finding(file=first.path, found=f"again as {also}: {more} more")


def _unstripped(contents: Contents) -> Iterator[Finding]:
    """Yield what stripping would save: for each library that is worth a line, and for all others together."""
    found = [(one.debug_size + one.symbols_size, one.debug_size, file) for file, one in _hosts(contents)]
    found = sorted((one for one in found if one[0] >= _LARGE), key=lambda one: (-one[0], one[2].path))
    few = [one for one in found if one[0] < _OWN_LINE]
    for number, (saved, debug, file) in enumerate(found):
        share = saved / max(file.size, 1)
        text = f"stripping would save {show_bytes(saved)}, {share:.0%} of the file"
        if debug:
            text += f"; {show_bytes(debug)} of it is debug information"
        if saved < _OWN_LINE and len(few) > 1:
            text += f"; and of {len(few) - 1} more files {show_bytes(sum(one[0] for one in few[1:]))}"
        worth = saved >= _WORTH_STRIPPING and share >= _WORTH_SHARE
        yield RULES["not-stripped"].finding(file=file.path, found=text, severity="warning" if worth else None)
        if number == len(found) - len(few):
            return


def _modes(contents: Contents) -> Iterator[Finding]:
    for file, found in _hosts(contents):
        if found.kind == "program" and not file.executable:
            yield RULES["program-mode"].finding(file=file.path, found="no permission to execute it")


def _left_over(contents: Contents) -> Iterator[Finding]:
    found = [file for file in contents.files if _LEFT_OVER.search(file.path)]
    if found:
        size = show_bytes(sum(file.size for file in found))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield RULES["left-over"].finding(file=found[0].path, found=f"{size} in this file{more}")
