"""Environments to look at: real ones, with small packages that are installed as wheels are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.audit.target import Capability
from builder.runtime import environment, look
from builder.values import replace

if TYPE_CHECKING:
    from builder.host.checks import Finding

UV = Path(sys.executable).with_name("uv")

#: What the public wheels of torch say in torch/version.py.
TORCH_VERSION = (
    "from typing import Optional\n__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\n"
)

#: The part of torch that is asked: what its own C++ part tells.
TORCH = """\
from torch import version
__version__ = version.__version__
class _C:
    @staticmethod
    def _cuda_getArchFlags():
        return {flags!r}
"""

#: As in Triton 3.6 and later: the program for newer chips, the variable before the bundled one, and no word when it fails.
TRITON_COMPILER = """\
import os, re, subprocess
from types import SimpleNamespace
def get_ptxas(arch):
    name = "ptxas-blackwell" if arch >= 100 else "ptxas"
    given = os.environ.get("TRITON_" + name.upper().replace("-", "_") + "_PATH")
    for path in [*([given] if given else []), os.path.join(os.path.dirname(__file__), "bin", name)]:
        try:
            said = subprocess.check_output([path, "--version"], stderr=subprocess.STDOUT).decode()
        except (OSError, subprocess.CalledProcessError):
            continue
        if found := re.search(r"release (\\d+\\.\\d+)", said):
            return SimpleNamespace(path=path, version=found[1])
    raise RuntimeError("Cannot find " + name)
"""


@dataclass
class Place:
    """A virtual environment in `root`."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, self.root], check=True)

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def site(self) -> Path:
        return next((self.root / "lib").glob("python3.*/site-packages"))

    def install(self, name: str, version: str, files: dict[str, str | Path]) -> None:
        """Put a package there; a path is copied, byte for byte."""
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
        for path, content in files.items():
            target = self.site / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                target.write_bytes(content.read_bytes())
                target.chmod(0o755)
            else:
                target.write_text(content)
        (self.site / info / "RECORD").write_text("".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")))

    def torch(
        self, version: str = "2.15.0", *, cuda: str | None = "13.2", flags: str = "sm_90 sm_120", lib: bool = True
    ) -> None:
        files: dict[str, str | Path] = {
            "torch/__init__.py": TORCH.format(flags=flags),
            "torch/version.py": TORCH_VERSION.format(version=version, cuda=cuda),
        }
        self.install("torch", version, {**files, **({"torch/lib/libtorch_cuda.so": ""} if lib else {})})

    def triton(self, version: str, ptxas: Path | None) -> None:
        files: dict[str, str | Path] = {
            "triton/__init__.py": "",
            "triton/backends/__init__.py": "",
            "triton/backends/nvidia/__init__.py": "",
            "triton/backends/nvidia/compiler.py": TRITON_COMPILER,
        }
        program: dict[str, str | Path] = {"triton/backends/nvidia/bin/ptxas-blackwell": ptxas} if ptxas else {}
        self.install("triton", version, {**files, **program})

    def found(
        self,
        *,
        target: str = "12.1",
        imports: tuple[str, ...] = (),
        wants: dict[str, str] | None = None,
        root: Path = Path("/"),
        limit_s: float = environment.ASK_S,
        **variables: str,
    ) -> list[Finding]:
        """Return what is found; `variables` beside a plain PATH."""
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", **self.variables, **variables}
        there = environment.open_at(self.root, variables=env, target=Capability.parse(target), root=root)
        return list(look(replace(there, imports=imports, wants=wants or {}, limit_s=limit_s)))


def compiled(target: Path, source: str, *flags: str, name: str = "x.c") -> Path:
    """Compile a shared library with the system's compiler."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.parent / name
    file.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", file, "-o", target, *flags], check=True)
    return target
