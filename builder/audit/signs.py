"""The known causes of other bits from the same inputs: why each comes about, and which key of a recipe cures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KNOWN", "Cause", "cause"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason for a difference: `old` and `new` are what stands in either file, `where` the section that holds it.

    `key` is what to set in the recipe, empty where the project itself has to change.
    """

    id: str
    where: str
    old: str
    new: str
    why: str
    cure: str
    key: str = ""

    def as_json(self) -> dict[str, str | None]:
        """Return the cause for programs."""
        return {
            "id": self.id,
            "where": self.where or None,
            "old": self.old,
            "new": self.new,
            "why": self.why,
            "cure": self.cure,
            "key": self.key or None,
        }


def cause(id_: str, where: str, old: str, new: str) -> Cause:
    """Return the known cause `id_` with what was found."""
    why, cure, key = KNOWN[id_]
    return Cause(id=id_, where=where, old=old, new=new, why=why, cure=cure, key=key)


_FIXED = "build where namespaces are allowed, so that the tree is at the same path each time (`spark-build doctor`)"

#: Why, cure, recipe key.
KNOWN: Mapping[str, tuple[str, str, str]] = {
    "date-time": (
        "the time of the build is compiled in: `__DATE__`, `__TIME__`, or a script that writes the date",
        "leave SOURCE_DATE_EPOCH as spark-build sets it: gcc, clang and nvcc take the time from it",
        "build.env",
    ),
    "clock": (
        "the time of the build is written down in seconds",
        "let the project take SOURCE_DATE_EPOCH where it asks the clock",
        "",
    ),
    "file-macro": (
        "the absolute path of a source file is compiled in: `__FILE__`, as in assert and TORCH_CHECK",
        f"{_FIXED}, or map it by -ffile-prefix-map=${{src}}=/src (nvcc: -Xcompiler)",
        "build.env",
    ),
    "debug-path": (
        "debug information and symbol tables hold the absolute path of what was compiled",
        f'build.strip = "debug" takes them out; or {_FIXED}',
        "build.strip",
    ),
    "line-info": (
        "`-lineinfo` puts the absolute path of each source file into the device code; no prefix map changes that",
        f"build without -lineinfo, or {_FIXED}",
        "build.env",
    ),
    "device-compressed": (
        "device code differs, and compressed as it is can't be looked into: -lineinfo and `static` bring paths in",
        f"{_FIXED}; build once with nvcc's --no-compress, then what differs is named",
        "build.env",
    ),
    "build-path": (
        "an absolute path of the machine or of the build tree is in the wheel",
        f"{_FIXED}; else let the project write a relative path",
        "",
    ),
    "temporary-path": (
        "the name of a temporary folder is in the wheel, another one each time",
        "let the project build in a folder of a fixed name, or map it by -ffile-prefix-map",
        "build.env",
    ),
    "nvcc-temporary": (
        "nvcc's temporary files are named after its process id, and the symbol table keeps the names",
        'build.strip = "debug" takes them out; or give nvcc -keep -keep-dir',
        "build.strip",
    ),
    "module-id": (
        "nvcc makes the id of what is `static` or in an anonymous namespace out of the source file's absolute path",
        f"{_FIXED}; no flag of nvcc changes it",
        "",
    ),
    "build-id": (
        "only the linker's build id differs: what it was made of differed before it was stripped",
        "-Wl,--build-id=none in LDFLAGS, or cure what the unstripped library holds",
        "build.env",
    ),
    "random-id": (
        "an id was drawn by chance",
        "let the project derive it from what it names (UUID version 5)",
        "",
    ),
    "pyc-time": (
        "compiled Python holds the time of its source",
        "leave SOURCE_DATE_EPOCH as spark-build sets it, so that a hash stands there; or ship no .pyc",
        "build.env",
    ),
    "archive-time": (
        "an archive in the wheel holds the time at which it was made",
        "make it with `ar D`, `gzip -n`, or times from SOURCE_DATE_EPOCH",
        "build.env",
    ),
    "order": (
        "the same contents in another order: a set or a folder was walked, or jobs ended in another order",
        "let the project sort what it writes; PYTHONHASHSEED is 0 unless the recipe sets it otherwise",
        "build.env",
    ),
    "zip-times": (
        "the zip's members have the times of the build",
        "leave SOURCE_DATE_EPOCH as spark-build sets it; wheels that spark-build packs have the source's time",
        "",
    ),
}
