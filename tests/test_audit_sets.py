"""Sets: what wheels need beside each other, read out of real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, imports, linkage, sets
from builder.values import replace
from tests.link_kit import context, judged, linked, slugs, wheel

if TYPE_CHECKING:
    from builder.audit.facts import Contents

LABEL = "sb20260101000000.g0123456789"


def _python(
    folder: Path, files: dict[str, str], *requires: str, project: str = "ext", version: str = "1.0"
) -> Contents:
    texts = {name: text.encode() for name, text in files.items()}
    return wheel(folder, texts, project=project, version=version, requires=requires, tags="py3-none-any")


def _named(folder: Path, project: str, version: str, *requires: str) -> Contents:
    return _python(
        folder, {f"{project.replace('-', '_')}/__init__.py": ""}, *requires, project=project, version=version
    )


@pytest.mark.parametrize(
    ("library", "requires", "expected"),
    [
        ("libcudart.so.13", [], ["dependency-missing"]),
        ("libcudart.so.13", ["numpy"], ["dependency-missing"]),
        ("libcudart.so.13", ["nvidia-cuda-runtime>=13"], []),
        ("libcudart.so.13", ["nvidia-cuda-runtime-cu13"], []),
        ("libcudart.so.13", ["cuda-toolkit[cudart]"], []),
        ("libcudart.so.13", ["torch==2.14.0"], []),
        ("libc10.so", ["nvidia-cuda-runtime"], ["dependency-missing"]),
        ("libtorch_python.so", ["torch"], []),
        ("libtorch.so", ["torch; sys_platform == 'win32'"], ["dependency-missing"]),
        ("libtorch.so", ["torch; extra == 'gpu'"], ["dependency-missing"]),
        ("libtorch.so", ["torch; platform_machine == 'x86_64'"], []),
        ("libnccl.so.2", ["nvidia-nccl-cu13"], []),
        ("libcudnn.so.9", [], ["dependency-missing"]),
        ("libcuda.so.1", [], []),
        ("libc.so.6", [], []),
    ],
)
def test_a_library_of_torch_or_cuda_wants_its_project(
    tmp_path: Path, library: str, requires: list[str], expected: list[str]
) -> None:
    facts = wheel(tmp_path, {"ext/_core.so": linked("one.so", library)}, requires=requires)
    found = judged(sets.judge, facts)
    assert slugs(found, "error") == slugs(found) == expected
    assert all(one.file == "ext/_core.so" for one in found)
    assert all(library in one.found and "Requires-Dist: " in one.wanted for one in found)


def test_what_brings_the_library_is_spelled_out(tmp_path: Path) -> None:
    facts = wheel(tmp_path, {"ext/_core.so": linked("one.so", "libcudart.so.13", "libcudnn.so.9")})
    found = judged(sets.judge, facts)
    assert [one.found for one in found] == ["links to libcudart.so.13", "links to libcudnn.so.9"]
    assert [one.wanted for one in found] == [
        "Requires-Dist: torch, cuda-toolkit or nvidia-cuda-runtime",
        "Requires-Dist: torch or nvidia-cudnn-cu13",
    ]


def test_a_project_may_be_brought_by_another_of_the_set(tmp_path: Path) -> None:
    facts = wheel(tmp_path, {"ext/_core.so": linked("one.so", "libc10.so")}, requires=["vision"])
    assert slugs(judged(sets.judge, facts)) == ["dependency-missing"]
    assert judged(sets.judge, facts, context(_named(tmp_path, "vision", "1.0", "torch"))) == []


def test_all_that_comes_with_torch_is_told_at_once(tmp_path: Path) -> None:
    data = linked("one.so", "libc10.so", "libtorch.so", "libcudart.so.13", "libnvrtc.so.13")
    (one,) = judged(sets.judge, wheel(tmp_path, {"ext/a.so": data, "ext/b.so": data}))
    assert one.found == "links to libc10.so, libtorch.so, and 1 more file like it"
    assert one.wanted == "Requires-Dist: torch"


def test_what_is_undeclared_and_there_all_the_same_is_warned_of(tmp_path: Path) -> None:
    files = {"ext/a.so": linked("one.so", "libc10.so"), "ext/__init__.py": b"import torch\n"}
    facts = wheel(tmp_path, files)
    assert slugs(judged(sets.judge, facts), "error") == ["dependency-missing"] * 2
    assert (
        slugs(judged(sets.judge, facts, context(_named(tmp_path, "torch", "2.14.0"))), "warning")
        == ["dependency-missing"] * 2
    )


def test_a_wheel_may_bring_the_library_itself(tmp_path: Path) -> None:
    data = linked("libcudart.so.13")
    facts = wheel(tmp_path, {"ext/a.so": linked("one.so", "libcudart.so.13"), "ext/libcudart.so.13": data})
    assert judged(sets.judge, facts) == []


IMPORTS = [
    ("import numpy\n", ["numpy"]),
    ("import numpy as np, scipy.linalg\n", ["numpy", "scipy"]),
    ("from numpy.linalg import norm\n", ["numpy"]),
    ("from numpy import (  # a reason\n    array,\n    dot,\n)\n", ["numpy"]),
    ("from . import (  # ours, first\n    other,  # the other\n)\n", ["late"]),
    ("import os, sys, json\nfrom pathlib import Path\nfrom __future__ import annotations\n", []),
    ("try:\n    import numpy\nexcept ImportError:\n    numpy = None\n", []),
    ("def late():\n    import numpy\n", []),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n", []),
    ('"""Type\n\nimport numpy\n"""\n', []),
    ("text = '''\nfrom numpy import array\n'''\n", []),
    ('x = """a \\""" \nimport numpy\n"""\n', []),
    ("import ext.other\nfrom . import other\nfrom .other import value\n", ["late"]),
    ("this is no Python\nimport numpy\n", []),
    ("# import numpy\n", []),
]


@pytest.mark.parametrize(("source", "expected"), IMPORTS)
def test_imports_that_are_certain(tmp_path: Path, source: str, expected: list[str]) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": source, "ext/other.py": "import late\nvalue = 1\n"})
    assert [one.package for one in imports.needed(facts)] == expected


def test_hostile_sources_and_requirements_take_no_time(tmp_path: Path) -> None:
    sources = [
        "from a import (\n" * 40_000,
        '"""' + "\\'''" * 100_000,
        "'''\"\"\"" * 60_000,
        "x = (\nimport " + "a," * 200_000,
        "(" * 5000 + "\nimport numpy\n",
    ]
    files = {"ext/__init__.py": "".join(f"from . import m{n}\n" for n in range(len(sources)))}
    files |= {f"ext/m{n}.py": source for n, source in enumerate(sources)}
    nested = "other; " + "(" * 3000 + "os_name == 'posix'" + ")" * 3000
    facts = _python(tmp_path, files, nested, "torch @ not a place", "; what", "torch>=2")
    assert imports.needed(facts) == ()
    assert judged(sets.judge, facts) == []


def test_imports_are_followed_through_the_wheels_own_modules(tmp_path: Path) -> None:
    files = {
        "ext/__init__.py": "from . import a\nfrom ext.sub.c import value\n",
        "ext/a.py": "from .b import (one,\n    two)\n",
        "ext/b.py": "import numpy\none = two = 1\n",
        "ext/sub/__init__.py": "from .. import d\n",
        "ext/sub/c.py": "import scipy\nvalue = 1\n",
        "ext/d.py": "import yaml\n",
        "ext/plugin.py": "import nothing_that_is_there\n",
        "single.py": "import zmq\n",
    }
    found = imports.needed(_python(tmp_path, files))
    assert [tuple(one) for one in found] == [
        ("numpy", "ext/b.py"),
        ("scipy", "ext/sub/c.py"),
        ("yaml", "ext/d.py"),
        ("zmq", "single.py"),
    ]


def test_an_installed_wheel_is_read_as_well(tmp_path: Path) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": "import numpy\n"})
    with zipfile.ZipFile(facts.where) as archive:
        archive.extractall(tmp_path / "site")
    there = replace(facts, where=tmp_path / "site", filename="")
    assert imports.needed(there) == imports.needed(facts) != ()
    assert imports.needed(replace(facts, where=tmp_path / "gone")) == ()


def test_an_import_that_nothing_brings_is_refused(tmp_path: Path) -> None:
    (one,) = judged(sets.judge, _python(tmp_path, {"ext/__init__.py": "import numpy\n"}))
    assert (one.id, one.severity, one.file) == ("dependency-missing", "error", "ext/__init__.py")
    assert (one.found, one.wanted) == ("imports numpy at once", "Requires-Dist: numpy")


def test_an_import_that_a_requirement_may_bring_is_warned_of(tmp_path: Path) -> None:
    files = {"ext/__init__.py": "import numpy\nimport yaml\nimport PIL.Image\nimport tvm_ffi\n"}
    facts = _python(tmp_path, files, "torch", "PyYAML>=6", "pillow", "apache-tvm-ffi")
    (one,) = judged(sets.judge, facts)
    assert (one.id, one.severity, one.found) == ("dependency-missing", "warning", "imports numpy at once")


def test_packages_of_requirements_are_known_by_what_they_hold(tmp_path: Path) -> None:
    facts = _python(tmp_path, {"ext/__init__.py": "import strange\n"}, "other")
    assert slugs(judged(sets.judge, facts)) == ["dependency-missing"]
    other = _python(tmp_path, {"strange/__init__.py": ""}, project="other")
    assert judged(sets.judge, facts, context(other)) == []
    through = _python(tmp_path, {"middle/__init__.py": ""}, "deep", project="other")
    deep = _python(tmp_path, {"strange.py": ""}, project="deep")
    assert judged(sets.judge, facts, context(through, deep)) == []


@pytest.mark.parametrize(
    ("version", "requirement", "expected"),
    [
        ("2.0", "other>=1", []),
        ("2.0", "other<2", ["dependency-conflict"]),
        ("2.0+cu130", "other==2.0", []),
        (f"2.0+{LABEL}", "Other==2.0", []),
        ("2.1.dev3", "other>=2.0", []),
        ("2.0", "other<2; python_version < '3.10'", []),
        ("2.0", "other<2; extra == 'x'", []),
    ],
)
def test_members_of_a_set_satisfy_each_other(
    tmp_path: Path, version: str, requirement: str, expected: list[str]
) -> None:
    found = judged(sets.judge, _named(tmp_path, "ext", "1.0", requirement), context(_named(tmp_path, "other", version)))
    assert slugs(found) == expected
    for one in found:
        assert (one.severity, one.found, one.wanted) == ("error", "other 2.0", "Requires-Dist: other<2")


def test_a_triton_that_torch_does_not_pin_needs_an_override(tmp_path: Path) -> None:
    torch = _named(tmp_path, "torch", "2.14.0", "triton~=3.8.0; platform_system == 'Linux'")
    triton = _named(tmp_path, "triton", f"3.9.0+{LABEL}")
    (one,) = judged(sets.judge, triton, context(torch))
    assert (one.id, one.severity) == ("triton-pin", "warning")
    assert one.found == f"triton 3.9.0+{LABEL}; torch 2.14.0 requires triton~=3.8.0"
    assert one.wanted == f'[tool.uv] override-dependencies = ["triton==3.9.0+{LABEL}"]'
    assert judged(sets.judge, torch, context(triton)) == []
    assert judged(sets.judge, _named(tmp_path, "triton", "3.8.2"), context(torch)) == []


@pytest.mark.parametrize(
    ("python", "shim", "provider", "cubin", "wrong"),
    [
        ("0.7.2", "0.7.2", "0.7.2", "0.7.2", []),
        ("0.7.2", "0.7.2+cu130", "0.7.2+cu130", "0.7.2", []),
        (f"0.7.2+{LABEL}", f"0.7.2+{LABEL}", f"0.7.2+{LABEL}", None, []),
        (f"0.7.2+{LABEL}", "0.7.2", "0.7.2", None, ["shim", "provider"]),
        (f"0.7.2+{LABEL}", f"0.7.2+{LABEL}.cu130", f"0.7.2+{LABEL}.cu130", None, ["shim", "provider"]),
        ("0.7.2", "0.7.1", "0.7.2", None, ["shim", "provider"]),
        ("0.7.2", "0.7.2+cu131", "0.7.2+cu130", None, ["provider"]),
        ("0.7.2", "0.7.2", "0.7.2", "0.7.2+cu130", ["cubin"]),
        ("0.7.2", None, "0.7.2", None, ["provider"]),
        ("0.7.2", None, None, "0.6.9", ["cubin"]),
        (None, "0.7.2", "0.7.2", None, []),
        ("0.0.0+unknown", "0.7.2", "0.7.2", None, []),
    ],
)
def test_flashinfers_packages_match(
    tmp_path: Path, python: str | None, shim: str | None, provider: str | None, cubin: str | None, wrong: list[str]
) -> None:
    names = {"python": "flashinfer-python", "shim": "flashinfer-jit-cache", "cubin": "flashinfer-cubin"}
    names["provider"] = "flashinfer-jit-cache-sm121a"
    versions = {"python": python, "shim": shim, "provider": provider, "cubin": cubin}
    members = {role: _named(tmp_path, names[role], version) for role, version in versions.items() if version}
    told = []
    for role, member in members.items():
        found = judged(sets.judge, member, context(*(one for one in members.values() if one is not member)))
        assert {(one.id, one.severity) for one in found} <= {("flashinfer-set", "error")}
        told += [role] if found else []
    assert sorted(told) == sorted(wrong)


def test_two_major_versions_of_cuda_in_a_set(tmp_path: Path) -> None:
    old = wheel(tmp_path, {"ext/a.so": linked("a.so", "libcudart.so.12")}, requires=["torch"])
    new = wheel(tmp_path, {"new/a.so": linked("b.so", "libnvrtc.so.13")}, project="new", requires=["torch"])
    (one,) = judged(sets.judge, old, context(new, cuda=12))
    assert (one.id, one.severity, one.file, one.wanted) == (
        "cuda-major",
        "error",
        "ext/a.so",
        "CUDA 13 in the whole set",
    )
    assert one.found == "libcudart.so.12; new 1.0 has libnvrtc.so.13"
    assert judged(sets.judge, new, context(old)) == []


def test_every_finding_has_its_rule() -> None:
    assert {rule.id for rule in sets.RULES.values()} == set(sets.RULES)
    assert {"dependency-missing", "triton-pin", "flashinfer-set", "torch-symbols", "torch-pin"} <= set(sets.RULES)


OFFICIAL = ("vllm==0.33.0", "triton==3.9.0", "flashinfer-python==0.7.2.post1", "torch==2.14.0")


def _official(folder: Path) -> list[Path]:
    given = os.environ.get("SPARK_BUILD_OFFICIAL_WHEELS")
    if given:
        every = sorted(Path(given).glob("*.whl"))
        return [
            path
            for path in every
            if any(path.name.startswith(one.replace("-", "_").replace("==", "-")) for one in OFFICIAL)
        ]
    platforms = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64"]
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *platforms]
    subprocess.run([*argv, "--python-version", "3.12", "-d", folder, *OFFICIAL], check=True)
    return sorted(folder.glob("*.whl"))


@pytest.mark.slow
@pytest.mark.network
def test_official_wheels_have_no_errors_and_fit_their_torch(tmp_path: Path) -> None:
    paths = _official(tmp_path / "wheels")
    wheels = {one.project: one for one in map(contents.read, paths)}
    assert sorted(wheels) == ["flashinfer-python", "torch", "triton", "vllm"]
    with zipfile.ZipFile(wheels["torch"].where) as archive:
        archive.extractall(
            tmp_path, [name for name in archive.namelist() if name.startswith(("torch/lib/", "torch/version.py"))]
        )
    told = {}
    for name, one in wheels.items():
        rest = [other for other in wheels.values() if other is not one]
        found = [
            finding
            for judge in (linkage.judge, sets.judge)
            for finding in judged(judge, one, context(*rest, torch=tmp_path / "torch"))
        ]
        told[name] = sorted({(finding.severity, finding.id) for finding in found})
    assert told == {
        "flashinfer-python": [],
        "torch": [("warning", "rpath-absolute")],
        "triton": [("warning", "rpath-absolute"), ("warning", "triton-pin")],
        "vllm": [("info", "abi3-floor"), ("info", "torch-abi")],
    }
    (abi,) = [one for one in judged(sets.judge, wheels["vllm"]) if one.id == "torch-abi"]
    assert abi.found.startswith("stable ABI of torch, 99 symbols by 10 files: ")
