"""Objects that a compile cache must not mix up: ccache alone in both its modes, beside the launcher with depend mode.

    python benchmarks/wrong_objects.py --launcher PATH [--ccache PATH] [--check]

Each case compiles twice with a cache that was empty: the second time with one flag more, or with a changed header. The
object of the second time is compared with what the compiler makes without any cache: disassembly, relocations and data.
``--check`` fails unless ours is right in all cases.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KERNEL = """
#include "value.h"
int shared_value = VALUE;
double multiply(double a, double b, double c) { return a * b + c; }
int *where() { return &shared_value; }
__global__ void kernel(int *out) { *out = VALUE; }
"""
PLAIN = KERNEL[: KERNEL.index("__global__")]
NVCC = ["nvcc", "-arch=sm_80", "-O2", "-isystem", "include", "-c", "a.cu", "-o", "a.o"]
GXX = ["g++", "-O2", "-isystem", "include", "-c", "a.cpp", "-o", "a.o"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What changes between the two compiles."""

    name: str
    command: tuple[str, ...]
    more: tuple[str, ...] = ()
    header: bool = False


CASES = (
    *(
        Case(name=" ".join(more), command=(*NVCC, "-MD", "-MF", "a.d"), more=more)
        for more in (
            ("-Xcompiler", "-fPIC"),
            ("--compiler-options", "-fPIC"),
            ("-Xcompiler", "-mfma"),
            ("-Xcompiler", "-mfma,-fPIC"),
            ("-Xcompiler=-fPIC",),
        )
    ),
    Case(name="g++ -MMD, header by -isystem", command=(*GXX, "-MMD", "-MF", "a.d"), header=True),
    Case(name="nvcc -MMD, header by -isystem", command=(*NVCC, "-MMD", "-MF", "a.d"), header=True),
)


def content(folder: Path) -> str:
    """Return the code and data of the host's part of the object."""
    command = ["objdump", "-d", "-r", "-s", "-j", ".text", "-j", ".data", "a.o"]
    lines = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in lines if "tmpxft" not in line)


def prepare(folder: Path, value: int) -> None:
    """Write the sources; their times lie in the past, since ccache doesn't trust what has just been written."""
    (folder / "include").mkdir(parents=True, exist_ok=True)
    for name, text in (("a.cu", KERNEL), ("a.cpp", PLAIN), ("include/value.h", f"#define VALUE {value}\n")):
        (folder / name).write_text(text)
        os.utime(folder / name, (1_700_000_000 + value, 1_700_000_000 + value))


def second(case: Case, folder: Path, before: list[str], env: dict[str, str], *, cached: bool) -> str:
    """Compile as the case says and return what the object of the second compile holds."""
    for run in (0, 1) if cached else (1,):
        prepare(folder, 1 + run * case.header)
        (folder / "a.o").unlink(missing_ok=True)
        command = [*before, *case.command, *(case.more if run else ())]
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return content(folder)


def main() -> int:
    """Print the table; with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(sys.executable).parent
    parser.add_argument("--launcher", type=Path, default=beside / "spark-build-launch")
    parser.add_argument("--ccache", type=Path, default=beside / "ccache")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wrong-objects-"))
    ccache, launcher = str(args.ccache.absolute()), str(args.launcher.absolute())
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CCACHE_", "SPARK_BUILD_"))}
    all_right = True
    print(f"{'second compile differs by':34} {'ccache default':16} {'ccache depend':16} ours")
    for number, case in enumerate(CASES):
        folder = root / str(number) / "tree"
        folder.mkdir(parents=True)
        slots = root / str(number)
        plain = clean | {"CCACHE_DIR": str(slots / "plain")}
        ours = clean | {"CCACHE_DIR": str(slots / "ours"), "CCACHE_DEPEND": "1", "SPARK_BUILD_CCACHE": ccache}
        ours |= {"SPARK_BUILD_GATE": str(slots), "SPARK_BUILD_SLOTS": str(slots), "SPARK_BUILD_ROOT": str(folder)}
        wanted = second(case, folder, [], clean, cached=False)
        default = second(case, folder, [ccache], plain, cached=True) == wanted
        depend_env = plain | {"CCACHE_DIR": str(slots / "depend"), "CCACHE_DEPEND": "1"}
        depend = second(case, folder, [ccache], depend_env, cached=True) == wanted
        right = second(case, folder, [launcher], ours, cached=True) == wanted
        all_right = all_right and right
        words = {True: "right", False: "WRONG"}
        print(f"{case.name:34} {words[default]:16} {words[depend]:16} {words[right]}")
    shutil.rmtree(root)
    return 1 if args.check and not all_right else 0


if __name__ == "__main__":
    sys.exit(main())
