"""Make a folder with real compile units of FlashInfer that can be built on any machine with nvcc.

``python benchmarks/cuda_units.py --python VENV/bin/python --source TREE DEST``

``TREE`` is an unpacked FlashInfer source archive (its submodules are inside), ``VENV`` has torch (the CPU build will do),
apache-tvm-ffi and FlashInfer's other requirements. FlashInfer itself writes the build files for compute capability 12.1a;
out of them a fixed choice of units is taken, with the closure of what they include, into ``DEST``: a ``build.ninja`` with
relative paths, ``$launcher`` before every compiler, and the sources.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Runs in VENV: FlashInfer writes its own ninja files.
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import flashinfer.jit as jit
from flashinfer.jit.fused_moe import gen_cutlass_fused_moe_sm120_module
from flashinfer.jit.gemm import gen_gemm_sm120_module, gen_gemm_sm120_module_cutlass_fp4
specs = [gen_cutlass_fused_moe_sm120_module(), gen_gemm_sm120_module_cutlass_fp4(), gen_gemm_sm120_module()]
for t in (torch.float16, torch.bfloat16):
    for dim in (64, 128):
        specs.append(jit.gen_batch_decode_module(t, t, t, torch.int32, dim, dim, 0, False, False))
        specs.append(jit.gen_batch_prefill_module("fa2", t, t, t, torch.int32, dim, dim, 0, False, False, False))
for spec in specs:
    spec.write_ninja()
    print(spec.ninja_path)
"""

#: What is built of each module: a pattern on the object, and how many. The first are those of 8 GiB and more.
CHOICE = (
    (r"/fused_moe_120/.*gemm_grouped_sm120_M128_BS_group[0-9]+\.generated", 2),
    (r"/batch_decode_", 12),
    (r"/batch_prefill_.*(kernel|binding)", 28),
)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument(
        "--include", type=Path, action="append", default=[], help="headers that the toolkit lacks (cuBLAS)"
    )
    parser.add_argument("dest", type=Path)
    args = parser.parse_args()
    source, dest = args.source.resolve(), args.dest.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        commands = chosen(written(args.python, source, Path(scratch)))[: args.units]
        for command in commands:
            command["command"] += "".join(f" -isystem {folder.resolve()}" for folder in args.include)
        roots = {str(source): "src", scratch: "gen"}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            closures = list(pool.map(included, commands))
        files = sorted({file for closure in closures for file in closure})
        for command in commands:
            for folder in re.findall(r"-isystem (\S+)|-I(\S+)", command["command"]):
                name = folder[0] or folder[1]
                if not any(name.startswith(root) for root in (*roots, "/usr/local", "/usr/include")):
                    roots[name] = f"include/{len(roots)}"
        for file in files:
            if place := moved(file, roots):
                (dest / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, dest / place)
        (dest / "build.ninja").write_text(ninja(commands, roots))
    sys.stdout.write(f"{len(commands)} units, {len(files)} files in {dest}\n")


def written(python: Path, source: Path, scratch: Path) -> list[Path]:
    """Return the ninja files that FlashInfer wrote."""
    data = source / "flashinfer" / "data"
    data.mkdir(exist_ok=True)
    for name, to in (
        ("csrc", "csrc"),
        ("include", "include"),
        ("cutlass", "3rdparty/cutlass"),
        ("spdlog", "3rdparty/spdlog"),
        ("cccl", "3rdparty/cccl"),
    ):
        if not (data / name).is_symlink():
            (data / name).symlink_to(source / to)
    env = {**os.environ, "FLASHINFER_CUDA_ARCH_LIST": "12.1a", "FLASHINFER_WORKSPACE_BASE": str(scratch)}
    done = subprocess.run([python, "-c", WRITER, source], env=env, check=True, capture_output=True, text=True)
    return [Path(line) for line in done.stdout.splitlines() if line.endswith("build.ninja")]


def chosen(files: list[Path]) -> list[dict[str, str]]:
    """Return the compile commands of the choice, heavy ones first."""
    found: list[dict[str, str]] = []
    for file in files:
        text = subprocess.run(
            ["ninja", "-C", file.parent, "-f", file, "-t", "compdb"], check=True, capture_output=True, text=True
        ).stdout
        found += [one for one in json.loads(text[text.index("[") :]) if one["output"].endswith(".cuda.o")]
    kept: list[dict[str, str]] = []
    for pattern, count in CHOICE:
        kept += [one for one in found if re.search(pattern, one["output"])][:count]
    return kept


def included(command: dict[str, str]) -> list[str]:
    """Return every file that a unit reads, the toolkit's and the system's too."""
    words = shlex.split(command["command"])
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in {"-MF", "-o"}:
            skip = True
        elif word not in {"-c", "-MD", "-MMD", "--generate-dependencies-with-compile"} and not word.startswith(
            "--depend"
        ):
            kept.append(word)
    text = subprocess.run([*kept, "-M"], check=True, capture_output=True, text=True).stdout
    return [os.path.normpath(word) for word in text.replace("\\\n", " ").split(":", 1)[1].split()]


def moved(path: str, roots: dict[str, str]) -> str | None:
    """Return the place of a file in the folder; None for the toolkit's and the system's own."""
    for root in sorted(roots, key=len, reverse=True):
        if path == root or path.startswith(root + "/"):
            return roots[root] + path[len(root) :]
    return None


def ninja(commands: list[dict[str, str]], roots: dict[str, str]) -> str:
    """Return the build file."""
    lines = [
        "launcher =",
        "nvcc = nvcc",
        "rule cu",
        "  command = $launcher $nvcc $flags -c $in -o $out",
        "  depfile = $out.d",
    ]
    lines += ["  deps = gcc", "  description = $out"]
    for command in commands:
        words = shlex.split(command["command"])
        flags = []
        skip = 0
        for at, word in enumerate(words):
            if skip:
                skip -= 1
            elif at == 0 or word == "-c":
                skip = 1 if word == "-c" else 0
            elif word == "-o":
                skip = 1
            elif word in {"-MF", "--dependency-output"}:
                flags += ["-MF", "$out.d"]
                skip = 1
            else:
                for root in sorted(roots, key=len, reverse=True):
                    word = word.replace(root, roots[root])  # noqa: PLW2901  # each root in turn
                flags.append(word)
        output = "/".join(Path(command["output"]).parts[-2:])
        lines.append(f"build out/{output}: cu {moved(os.path.normpath(command['file']), roots)}")
        lines.append(
            f"  flags = {shlex.join(flags).replace('$', '$$').replace(chr(39) + '$$out.d' + chr(39), '$out.d')}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
