"""Small libraries and programs made by real compilers, for this machine and for aarch64."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HOST = "x86_64-linux-gnu"
CROSS = "aarch64-linux-gnu"

_LIBRARY = """
#include <math.h>
#include <stdio.h>
#include <string.h>
extern int brought_by_another(int);
extern int may_be_missing(int) __attribute__((weak));
static int hidden_from_all(int n) { return n + 1; }
int offered(int n) { printf("%f", pow(n, 0.5)); return brought_by_another(hidden_from_all(n)); }
int also_offered(char *to, const char *from) { strcpy(to, from); return may_be_missing ? may_be_missing(1) : 0; }
int a_number = 7;
"""


def tool(name: str, machine: str = "x86_64") -> str:
    """The path of a binutils or gcc program; the test is skipped where it isn't there."""
    found = shutil.which(name if machine == "x86_64" else f"{CROSS}-{name}")
    if not found:
        pytest.skip(f"needs {name} for {machine}")
    return found


@functools.cache
def compiled(machine: str, *flags: str, text: str = _LIBRARY) -> bytes:
    """What gcc makes of `text`; the same call gives the same bytes without another run."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "lib.c"), Path(folder, "out")
        source.write_text(text)
        subprocess.run(
            [tool("gcc", machine), "-O1", source, "-o", target, *flags], check=True, cwd=folder, capture_output=True
        )
        return target.read_bytes()


def library(machine: str = "x86_64", *flags: str) -> bytes:
    return compiled(machine, "-shared", "-fPIC", "-Wl,-soname,libtiny.so.1", "-lm", *flags)


def program(machine: str = "x86_64", *flags: str) -> bytes:
    return compiled(machine, *flags, text="int main(void) { return 0; }")


def symbols(data: bytes, *flags: str) -> set[str]:
    """Names of the dynamic symbols as nm sees them, without versions."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        text = subprocess.run([tool("nm"), "-D", *flags, file.name], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].partition("@")[0] for line in text.splitlines()}
