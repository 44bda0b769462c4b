from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from builder.executor.excerpt import CHARACTERS, LINES, first_error

if TYPE_CHECKING:
    from pathlib import Path

# What real tools printed, shortened where lines repeat.
NVCC = """\
k.cu(1): error: identifier "undefined_thing" is undefined
  namespace { __attribute__((global)) void k(int *p) { p[0] = undefined_thing; } }
                                                              ^

1 error detected in the compilation of "k.cu".
"""
PTXAS = """\
ptxas /tmp/tmpxft_6_p.ptx, line 26; error   : Not a name of any known instruction: 'bogus'
ptxas fatal   : Ptx assembly aborted due to errors
"""
CMAKE = """\
*** scikit-build-core 1.1.2 using CMake 3.25.1 (wheel)
-- Check for working CXX compiler: /usr/bin/c++ - skipped
-- Performing Test HAS_ERROR_FLAG - Failed
CMake Error at CMakeLists.txt:3 (find_package):
  By not providing "FindNotThere.cmake" in CMAKE_MODULE_PATH this project has
  asked CMake to find a package configuration file provided by "NotThere",
  but CMake did not find one.

  Could not find a package configuration file provided by "NotThere" with any
  of the following names:

    NotThereConfig.cmake
    notthere-config.cmake

  Add the installation prefix of "NotThere" to CMAKE_PREFIX_PATH or set
  "NotThere_DIR" to a directory containing one of the above files.

-- Configuring incomplete, errors occurred!

*** CMake configuration failed
"""
NINJA = """\
*** Building project with Ninja...
[1/3] cd /b && sh -c kill\\ -9\\ $$
FAILED: [code=137] CMakeFiles/y
cd /b && sh -c kill\\ -9\\ $$
[2/3] Building CXX object CMakeFiles/x.dir/a.cc.o
FAILED: [code=1] CMakeFiles/x.dir/a.cc.o
/usr/bin/g++ -O3 -DNDEBUG -o CMakeFiles/x.dir/a.cc.o -c /src/a.cc
In file included from /src/a.cc:1:
/src/a.cc: In function 'int f(std::vector<int>)':
/src/a.cc:2:45: error: 'class std::vector<int>' has no member named 'sise'
    2 | static int f(std::vector<int> v) { return v.sise(); }
      |                                             ^~~~
/src/a.cc: In function 'int main()':
/src/a.cc:3:29: error: 'missing' was not declared in this scope
ninja: build stopped: subcommand failed.

*** CMake build failed
"""
SETUPTOOLS = """\
fatal: not a git repository (or any of the parent directories): .git
running build_ext
gcc -Wall -fPIC -c st.c -o build/st.o
st.c:1:9: error: 'nope' undeclared here (not in a function)
    1 | int x = nope;
      |         ^~~~
Traceback (most recent call last):
  File "/venv/lib/python3.12/site-packages/setuptools/_distutils/unixccompiler.py", line 200, in _compile
    self.spawn(compiler_so + cc_args + [src, '-o', obj])
distutils.errors.CompileError: command '/usr/bin/gcc' failed with exit code 1
error: command '/usr/bin/gcc' failed with exit code 1
"""
TORCH = """\
FAILED: [code=1] /b/k.o
/usr/local/cuda/bin/nvcc -c k.cu
Traceback (most recent call last):
  File "/venv/lib/torch/utils/cpp_extension.py", line 2100, in _run_ninja_build
    subprocess.run(
subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "setup.py", line 3, in <module>
    build()
RuntimeError: Error compiling objects for extension
"""
CARGO = """\
   Compiling foo v0.1.0 (/tmp/ex/rs)
error[E0425]: cannot find value `xx` in this scope
 --> src/main.rs:1:28
  |
1 | fn main() { println!("{}", xx); }
  |                            ^^ not found in this scope

For more information about this error, try `rustc --explain E0425`.
error: could not compile `foo` (bin "foo") due to 1 previous error
"""
MAKE = """\
make[2]: Entering directory '/b'
make[2]: *** [CMakeFiles/y.dir/build.make:70: CMakeFiles/y] Killed
make[1]: *** [CMakeFiles/Makefile2:111: CMakeFiles/y.dir/all] Error 2
make: *** [Makefile:91: all] Error 2
"""


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        (NVCC, 'k.cu(1): error: identifier "undefined_thing" is undefined', 3),
        (PTXAS, "ptxas /tmp/tmpxft_6_p.ptx, line 26; error   : Not a name of any known instruction: 'bogus'", 1),
        (
            "nvcc fatal   : Unsupported gpu architecture 'sm_999'\n",
            "nvcc fatal   : Unsupported gpu architecture 'sm_999'",
            1,
        ),
        (
            "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
            "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
            1,
        ),
        (NINJA, "/src/a.cc:2:45: error: 'class std::vector<int>' has no member named 'sise'", 3),
        (SETUPTOOLS, "st.c:1:9: error: 'nope' undeclared here (not in a function)", 3),
        (TORCH, "RuntimeError: Error compiling objects for extension", 3),
        (CARGO, "error[E0425]: cannot find value `xx` in this scope", 5),
        (MAKE, "make[2]: *** [CMakeFiles/y.dir/build.make:70: CMakeFiles/y] Killed", 1),
        (
            "[5/9] Building CXX\nc++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated.\n",
            "c++: fatal error: Killed signal terminated program cc1plus",
            2,
        ),
        (
            (
                "/usr/bin/ld: /tmp/l.o: in function `main':\nl.cc:(.text+0x5): undefined reference to `bar()'\n"
                "collect2: error: ld returned 1 exit status\n"
            ),
            "l.cc:(.text+0x5): undefined reference to `bar()'",
            1,
        ),
        (
            "cc.s: Assembler messages:\ncc.s: Fatal error: can't write 8 bytes: No space left on device\n",
            "cc.s: Fatal error: can't write 8 bytes: No space left on device",
            1,
        ),
        (
            (
                "Cloning into 'x'...\nfatal: unable to access 'https://github.com/x/': Could not resolve host: github.com\n"
                "CMake Error at FetchContent.cmake:1 (message):\n  failed\n"
            ),
            "fatal: unable to access 'https://github.com/x/': Could not resolve host: github.com",
            1,
        ),
        (
            "error: Multiple top-level packages discovered in a flat-layout: ['a', 'b'].\n\nTo avoid accidental inclusion",
            "error: Multiple top-level packages discovered in a flat-layout: ['a', 'b'].",
            1,
        ),
        ("a.c:1:1: error: first\na.c:9:1: error: second\n", "a.c:1:1: error: first", 1),
        ("one\nFAILED: a.o\ng++ -c a.c\nout of luck\n[2/3] next\n", "FAILED: a.o", 2),
        ("one\n\n\x1b[31mtwo\x1b[0m\nthree\n\n", "one", 3),
    ],
)
def test_the_excerpt_begins_with_the_first_real_error(text: str, first: str, count: int) -> None:
    found = first_error(text.splitlines())
    assert found[0] == first
    assert len(found) == count


def test_a_cmake_error_is_quoted_in_whole_paragraphs() -> None:
    found = first_error(CMAKE.splitlines())
    assert found[0] == "CMake Error at CMakeLists.txt:3 (find_package):"
    assert found[-1] == "    notthere-config.cmake"
    assert "-- Configuring" not in "\n".join(found)


def test_an_exception_comes_with_the_place_that_raised_it() -> None:
    assert first_error(TORCH.splitlines()) == (
        "RuntimeError: Error compiling objects for extension",
        '  File "setup.py", line 3, in <module>',
        "    build()",
    )


def test_an_exception_about_a_command_gives_way_to_one_that_says_more() -> None:
    lines = [*TORCH.splitlines()[2:6], ""]
    own = ["Traceback (most recent call last):", '  File "gen.py", line 1, in <module>', "KeyError: 'CUDA_HOME'", ""]
    assert first_error([*own, *lines])[0] == "KeyError: 'CUDA_HOME'"
    assert first_error(lines)[0].startswith("subprocess.CalledProcessError")


def test_an_excerpt_is_short_whatever_was_printed() -> None:
    found = first_error(["a.c:1:1: error: " + "x" * 1000, *["  y"] * 100])
    assert len(found) == LINES
    assert max(map(len, found)) == CHARACTERS
    assert first_error([]) == ()
    assert first_error(["", " "]) == ()
    assert first_error([f"line {n}" for n in range(100)])[-1] == "line 99"


def test_a_compiler_at_hand_is_understood(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no compiler")
    (tmp_path / "a.cc").write_text("int main() { return missing; }\n")
    done = subprocess.run([compiler, "-c", "a.cc"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first_error(["configuring", *done.stderr.splitlines()])[0].startswith("a.cc:1:21: error:")


def test_a_traceback_of_this_python_is_understood() -> None:
    done = subprocess.run([sys.executable, "-c", "import torchy"], capture_output=True, text=True, check=False)
    assert first_error(done.stderr.splitlines())[0] == "ModuleNotFoundError: No module named 'torchy'"
