"""A wheel's own modules: those that it imports and lacks, and extension modules that Python can't start."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.audit import elf, imports, sets
from builder.values import replace
from tests.link_kit import context, judged, library, linked, slugs, wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.audit.facts import Contents

SUFFIX = "cpython-312-x86_64-linux-gnu.so"
LONG = f"ext/_core.{SUFFIX}"


def _python(folder: Path, files: Mapping[str, str | bytes], *requires: str, project: str = "ext") -> Contents:
    data = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    return wheel(folder, data, project=project, requires=requires)


def _module(*inits: str) -> bytes:
    source = "".join(f"void *{one}(void) {{ return 0; }}\n" for one in inits)
    return linked("ext.so", source=source or "int one(void) { return 1; }\n")


@pytest.mark.parametrize(
    "source",
    [
        "from . import _core\n",
        "from ._core import run\n",
        "import ext._core\n",
        "from ext import _core\n",
        "from ext._core import run\n",
        "from .sub import value\nfrom . import (\n    _core,\n)\n",
        "from .sub import late\n",
    ],
)
def test_a_module_of_its_own_that_is_not_there_is_refused(tmp_path: Path, source: str) -> None:
    files = {"ext/__init__.py": source, "ext/sub.py": "value = 1\n"}
    if "late" in source:
        files["ext/sub.py"] = "from ext import _core as late\n"
    (one,) = judged(sets.judge, _python(tmp_path, files))
    assert (one.id, one.severity, one.found) == ("module-missing", "error", "imports ext._core at once")
    assert one.file == ("ext/sub.py" if "late" in source else "ext/__init__.py")


@pytest.mark.parametrize(
    "there",
    [
        *("ext/_core.py", "ext/_core/__init__.py", "ext/_core/inner.py", "ext/_core.pyc", "ext/_core.pyd"),
        *("ext/_core.so", LONG, "ext/_core.abi3.so", "ext-1.0.data/purelib/ext/_core.py"),
        "ext-1.0.data/platlib/ext/_core.so",
    ],
)
def test_any_file_that_python_imports_will_do(tmp_path: Path, there: str) -> None:
    data = _module("PyInit__core") if there.endswith(".so") else b""
    for source in ("from . import _core\n", "import ext._core\n"):
        assert judged(sets.judge, _python(tmp_path, {"ext/__init__.py": source, there: data})) == []


OTHERWISE = [
    "try:\n    from . import _core\nexcept ImportError:\n    _core = None\n",
    "def late():\n    from . import _core\n",
    "if False:\n    from . import _core\n",
    "_core = None\nfrom . import _core\n",
    "def _core(): ...\nfrom ext import _core\n",
    "from .sub import value as _core\nfrom . import _core\n",
    "from .sub import *\nfrom . import _core\n",
    "def __getattr__(name): ...\nfrom . import _core\n",
    "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\nfrom . import _core\n",
    "import sys, types\nsys.modules['ext._core'] = types.ModuleType('_core')\nimport ext._core\n",
    "import sys\nsys.meta_path.append(None)\nfrom ._core import run\n",
    "globals()['_core'] = 1\nfrom . import _core\n",
    "raise ImportError('not here')\nfrom . import _core\n",
    '"""\nfrom . import _core\n"""\n',
    "from .sub.moves import run\n",
    "import os.path\nfrom . import __name__ as own\n",
]


@pytest.mark.parametrize("source", OTHERWISE)
def test_what_may_come_from_elsewhere_is_let_be(tmp_path: Path, source: str) -> None:
    files = {"ext/__init__.py": source, "ext/sub.py": "value = 1\n"}
    assert judged(sets.judge, _python(tmp_path, files)) == []


@pytest.mark.parametrize(
    "files",
    [
        {"space/a.py": "import space.other\nfrom space import more\n"},
        {"ext/__init__.py": "import tests.kit\n", "tests/__init__.py": "from . import kit\n"},
        {"ext/__init__.py": "from . import _core\n", "hook.pth": "import hook\n"},
        {"typing/__init__.py": "from . import _core\n"},
        {"ext/__init__.py": "from . import _core\n", f"ext/__init__.{SUFFIX}": _module("PyInit___init__")},
    ],
)
def test_namespaces_tests_and_hooks_are_let_be(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert judged(sets.judge, _python(tmp_path, files)) == []


def test_python_prefers_an_extension_module_to_the_source_beside_it(tmp_path: Path) -> None:
    source: dict[str, str | bytes] = {
        "ext/__init__.py": "from . import _core\n",
        "ext/_core.py": "import cython\nfrom . import gone\n",
    }
    assert slugs(judged(sets.judge, _python(tmp_path, source))) == ["module-missing", "dependency-missing"]
    assert judged(sets.judge, _python(tmp_path, {**source, LONG: _module("PyInit__core")})) == []


def test_another_distribution_may_bring_a_part_of_the_package(tmp_path: Path) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": "from . import _core\n"}, "ext-core")
    assert slugs(judged(sets.judge, facts), "warning") == ["module-missing"]
    other = _python(tmp_path, {"ext/_core.py": ""}, project="ext-core")
    assert judged(sets.judge, facts, context(other)) == []
    empty = _python(tmp_path, {"ext/other.py": ""}, project="ext-core")
    assert slugs(judged(sets.judge, facts, context(empty)), "error") == ["module-missing"]


def test_installed_it_may_have_been_made_there(tmp_path: Path) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": "from . import _core\n"})
    with zipfile.ZipFile(facts.where) as archive:
        archive.extractall(tmp_path / "site")
    there = replace(facts, where=tmp_path / "site", filename="")
    assert slugs(judged(sets.judge, there), "warning") == ["module-missing"]


def test_what_could_not_be_read_is_not_called_missing(tmp_path: Path) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": "from . import _core\n"})
    assert judged(sets.judge, replace(facts, problems=(("wheel-damaged", LONG, "its CRC is wrong"),))) == []


@pytest.mark.parametrize("name", [LONG, "ext/_core.abi3.so", "ext/_core.so"])
@pytest.mark.parametrize("inits", [(), ("PyInit_core",), ("PyInit__core_",)])
def test_an_extension_module_that_python_cannot_start_is_refused(
    tmp_path: Path, name: str, inits: tuple[str, ...]
) -> None:
    files: dict[str, str | bytes] = {"ext/__init__.py": "from ._core import run\n", name: _module(*inits)}
    (one,) = judged(sets.judge, _python(tmp_path, files))
    assert (one.id, one.severity, one.file, one.wanted) == ("ext-init-missing", "error", name, "PyInit__core")
    assert one.found == f"exports {''.join(inits) or 'no PyInit function'}; ext/__init__.py imports it"


@pytest.mark.parametrize("init", ["PyInit__core", "PyModExport__core"])
def test_either_function_starts_it(tmp_path: Path, init: str) -> None:
    files: dict[str, str | bytes] = {"ext/__init__.py": "from ._core import run\n", LONG: _module(init, "PyInit_other")}
    assert judged(sets.judge, _python(tmp_path, files)) == []


REGISTERING = "void aoti_torch_library_init_def(void);\nvoid one(void) { aoti_torch_library_init_def(); }\n"


@pytest.mark.parametrize(
    ("name", "data", "severity"),
    [
        (LONG, _module(), "warning"),
        ("ext/_core.abi3.so", _module("PyInit_other"), "warning"),
        ("ext/_core.so", _module(), None),
        ("ext/libcore.abi3.so", _module(), None),
        ("ext/_core.abi3.so", linked("torch.so", source=REGISTERING), None),
    ],
)
def test_a_library_that_nobody_imports_at_once_may_be_loaded_otherwise(
    tmp_path: Path, name: str, data: bytes, severity: str | None
) -> None:
    files: dict[str, str | bytes] = {"ext/__init__.py": "def late():\n    from . import _core\n", name: data}
    found = [one for one in judged(sets.judge, _python(tmp_path, files, "torch")) if one.id == "ext-init-missing"]
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_packages_that_the_wheel_carries_along_need_no_requirement(tmp_path: Path) -> None:
    files = {"ext/__init__.py": "import jaraco.text\nimport psutil\nimport numpy\n"}
    files |= {"ext/_vendor/jaraco/text/__init__.py": "", "ext/thirdparty_files/psutil/__init__.py": ""}
    assert [one.package for one in imports.needed(_python(tmp_path, files))] == ["numpy"]


CUDA = "libnccl.so.2"


@pytest.mark.parametrize(
    ("source", "name", "requires", "severity"),
    [
        ("from . import _core\n", LONG, [], "error"),
        ("from . import _core\n", LONG, ["nvidia-nccl-cu13; extra == 'all'"], "error"),
        ("try:\n    from . import _core\nexcept ImportError:\n    pass\n", LONG, [], "warning"),
        ("", LONG, ["nvidia-nccl-cu13; extra == 'all'"], "warning"),
        ("", "ext/libcore.so", [], "error"),
        ("", "ext/libcore.so", ["nvidia-nccl-cu13; extra == 'all'"], "warning"),
        ("", "ext/libcore.so", ["nvidia-nccl-cu13; extra == 'other'"], "error"),
        ("", "ext/libcore.so", ["nvidia-nccl-cu13; sys_platform == 'win32' and extra == 'all'"], "error"),
    ],
)
def test_libraries_of_a_part_that_not_everybody_uses(
    tmp_path: Path, source: str, name: str, requires: list[str], severity: str
) -> None:
    data = linked("_core.so", CUDA, source="void *PyInit__core(void) { return 0; }\n")
    files = {"ext/__init__.py": source.encode(), name: data}
    headers = [*requires, *(["x\nProvides-Extra: all"])]
    found = judged(sets.judge, wheel(tmp_path, files, requires=headers))
    assert [(one.id, one.severity) for one in found] == [("dependency-missing", severity)]
    assert ("an extra alone requires it" in found[0].found) == (requires[:1] == ["nvidia-nccl-cu13; extra == 'all'"])


def test_functions_that_start_modules_are_found_among_all_symbols(tmp_path: Path) -> None:
    """The names fill several of the windows in which they are read."""
    names = [
        *(f"PyInit_{one}" for one in range(60_000)),
        "PyModExport_x",
        "PyInitU_x_4ja",
        "no_PyInit_x",
        "PyInitialize",
    ]
    lines = "".join(f'".globl {one}\\n{one}:\\n"\n' for one in names)
    hidden = 'void PyInit_hidden(void) __attribute__((visibility("hidden")));\nvoid PyInit_hidden(void) {}\n'
    path = library(tmp_path, "a.so", f"__asm__(\n{lines});\n{hidden}", "-nostdlib", language="c")
    with path.open("rb") as stream:
        found = elf.read(stream)
    assert found.inits == frozenset(names[:-2])
    assert found.defined >= len(names)


def test_every_finding_has_its_rule() -> None:
    assert {"module-missing", "ext-init-missing"} <= set(sets.RULES)


@pytest.mark.parametrize(
    ("entries", "needed"),
    [
        ("[pytest11]\next = ext_plugin\n", ["numpy"]),
        ("[pytest11]\next = ext_plugin:Class [extra]\n", ["numpy"]),
        ("[pytest]\nx: ext_plugin\n", ["numpy", "pytest"]),
        ("[console_scripts]\next = ext_plugin:main\n", ["numpy", "pytest"]),
        ("[pytest11\n\xff = ext_plugin\n", ["numpy", "pytest"]),
        ("[pytest11]\next\next = ext\n", ["numpy", "pytest"]),
        ("", ["numpy", "pytest"]),
    ],
)
def test_a_plugin_finds_its_host_there(tmp_path: Path, entries: str, needed: list[str]) -> None:
    files = {
        "ext/__init__.py": "import sys\n",
        "ext_plugin.py": "import pytest\nimport numpy\n",
        "ext-1.0.dist-info/entry_points.txt": entries,
    }
    assert [one.package for one in imports.needed(_python(tmp_path, files))] == needed


def test_what_else_imports_the_host_of_a_plugin_needs_it(tmp_path: Path) -> None:
    files = {
        "ext/__init__.py": "import pytest\n",
        "aplugin.py": "import pytest\n",
        "ext-1.0.dist-info/entry_points.txt": "[pytest11]\next = aplugin\n",
    }
    assert imports.needed(_python(tmp_path, files)) == (imports.Import("pytest", "ext/__init__.py"),)


@pytest.mark.parametrize("text", ["from " + "." * 1_000_000, "from a" + "\t" * 1_000_000, "import\t" * 200_000])
def test_a_source_that_is_made_to_take_long_does_not(tmp_path: Path, text: str) -> None:
    """Half a second here, hours where a pattern goes back: so it is run by somebody who can be stopped."""
    source = tmp_path / "source.py"
    source.write_text(text)
    code = (
        "import pathlib, sys; from builder.audit import statements\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes(); sum(1 for _one in statements._STATEMENT.finditer(data))"
    )
    subprocess.run([sys.executable, "-c", code, source], check=True, timeout=60)
