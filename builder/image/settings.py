"""What a final image is: its system, its variables, its labels; reckoned from a bundle's manifest and its wheels. Pure."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from builder import __version__
from builder.errors import CheckRefused
from builder.image import compose, memory
from builder.stages import ZIP_EPOCH
from builder.values import dataclass
from builder.wheel import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.audit.target import Capability
    from builder.bundle.target import Target
    from builder.image.asked_for import Asked
    from builder.image.memory import Room
    from builder.image.wheels import Held

__all__ = ["CACHE", "PARTS", "VENV", "Closure", "Settings", "of_document", "reckon"]

VENV, CACHE = "/opt/venv", "/cache"

#: Where the toolkit lies that the base's distribution installs.
_TOOLKIT = "/usr/local/cuda"

#: The wheels that it is made of, beside the headers and libraries that torch brings.
PARTS = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt")

#: Its version where no wheel says one.
_CUDA = "13.0"

#: Where packages keep what they compile and fetch; without these it would be lost with the container.
#: Sources: triton/knobs.py, flashinfer/jit/env.py, torch/_inductor/runtime/cache_dir_utils.py, vllm/envs.py,
#: huggingface_hub/constants.py, and "CUDA C++ Programming Guide", "CUDA Environment Variables".
_CACHES = {
    "triton": {"TRITON_CACHE_DIR": f"{CACHE}/triton"},
    "flashinfer-python": {"FLASHINFER_WORKSPACE_BASE": CACHE},
    "torch": {
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        "CUDA_CACHE_PATH": f"{CACHE}/cuda",
        "CUDA_CACHE_MAXSIZE": str(4 << 30),  # what the driver takes at most; its own 1 GiB is too little for vLLM's PTX
    },
    "vllm": {"VLLM_CACHE_ROOT": f"{CACHE}/vllm"},
    "huggingface-hub": {"HF_HOME": f"{CACHE}/huggingface"},
}

#: What is compiled by packages that say so in their recipe is bounded; its ids in `bundle.companions`.
_COMPILES = frozenset({"compiler", "nvcc"})
_AHEAD = "flashinfer-jit-cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What is installed: versions by project, and what the manifest says of needs, variables and imports.

    `manifest` is the sha256 of the manifest, empty before there is one.
    """

    target: Target
    packages: Mapping[str, str]
    asked: tuple[str, ...]
    needs: tuple[str, ...]
    env: Mapping[str, str]
    manifest: str = ""
    cuda: str | None = None
    driver: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the files of an image are written from; the same for the same bundle and the same command line.

    `needs` are ids of what the system has to have (`bundle.companions`), its CUDA parts those of `cuda`, as ``13.0``; `apt`
    are packages that it gets besides. `toolkit` is the folder of a CUDA toolkit out of wheels. `room` is None where the
    target's GPU has memory of its own. `epoch` stands for the time of the build, in seconds.
    """

    base: str
    target: Target
    capability: Capability
    needs: tuple[str, ...]
    cuda: str
    apt: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    accept: tuple[str, ...]
    serves: bool
    room: Room | None
    epoch: int
    toolkit: str = ""
    paths: tuple[str, ...] = (f"{VENV}/bin",)

    @property
    def python(self) -> str:
        """The interpreter that the environment is made with."""
        return f"python{self.target.python}"


def reckon(closure: Closure, held: Held, asked: Asked) -> Settings:
    """Return the image of `closure`.

    Raises CheckRefused ``torch-cpu`` for a torch without CUDA, ``ptxas-ignorant`` where nothing that compiles kernels knows
    the chip.
    """
    if held.cuda_torch is False:
        raise CheckRefused(
            "torch-cpu",
            f"torch {closure.packages['torch']} is built without CUDA",
            cause="its wheel has no libtorch_cuda.so",
            help="wheels of torch for aarch64 have CUDA since 2.11.0: ask for a newer one, or for an index that has one",
            run=("spark-build image 'torch>=2.11' NAME -t TAG",),
        )
    site = f"{VENV}/lib/python{closure.target.python}/site-packages"
    room = _room(closure, asked)
    paths: tuple[str, ...] = (f"{VENV}/bin",)
    env = {
        "HOME": CACHE,
        "XDG_CACHE_HOME": f"{CACHE}/.cache",
        "VIRTUAL_ENV": VENV,
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",  # without it a container gets nvidia-smi and no libcuda.so.1
    }
    for project, more in _CACHES.items():
        env |= more if project in closure.packages else {}
    env |= closure.env
    toolkit = _toolkit(closure, held)
    needs = _needs(closure, toolkit)
    if toolkit or "nvcc" in needs:
        env["CUDA_HOME"] = f"{site}/{toolkit}" if toolkit else _TOOLKIT
        paths += (f"{env['CUDA_HOME']}/bin",)
    env |= _ptxas(closure, held, asked.capability, site)
    if room is not None:
        env["MAX_JOBS"] = str(room.jobs)
        if "torch" in closure.packages and compose.SERVER not in closure.packages:  # which sets it itself
            env["TORCHINDUCTOR_COMPILE_THREADS"] = str(room.jobs)
    epoch = asked.epoch if asked.epoch is not None else _moment(closure.packages.values())
    return Settings(
        base=asked.base,
        target=closure.target,
        capability=asked.capability,
        needs=needs,
        cuda=closure.cuda or _CUDA,
        apt=asked.apt,
        env={**env, **asked.env},
        labels=_labels(closure, asked, epoch),
        accept=asked.accept,
        serves=compose.SERVER in closure.packages,
        room=room,
        epoch=epoch,
        toolkit=f"{site}/{toolkit}" if toolkit else "",
        paths=paths,
    )


def _toolkit(closure: Closure, held: Held) -> str:
    """Return the folder of the toolkit that wheels bring; empty where they bring none whose parts fit together.

    They come from several wheels, which ask for each other without an upper bound: nvcc 13.2 gets the cicc of 13.5, whose
    PTX its ptxas refuses; and nvcc 13.5 the headers of torch's 13.0.
    """
    parts = [closure.packages[name] for name in PARTS if name in closure.packages]
    versions = {".".join(version.split(".")[:2]) for version in parts}
    if closure.cuda is None or versions != {closure.cuda}:  # whose headers are those of its run-time library
        return ""
    # Not at hand in a dry run; since 13 the folder is called after the major version.
    major = closure.cuda.partition(".")[0]
    return f"nvidia/cu{major}" if PARTS[0] in held.unread else held.toolkit


def _needs(closure: Closure, toolkit: str) -> tuple[str, ...]:
    """Return what the system has to bring: no CUDA compiler where wheels do, or where kernels were compiled ahead."""
    without = {"nvcc"} if toolkit or _AHEAD in closure.packages else set[str]()
    return tuple(one for one in closure.needs if one not in without)


def _room(closure: Closure, asked: Asked) -> Room | None:
    """Return how the memory is shared; None where nothing is compiled, or the GPU has its own memory."""
    from builder.audit.target import Capability  # noqa: PLC0415

    if asked.capability != Capability(12, 1) or (
        not _COMPILES & set(closure.needs) and compose.SERVER not in closure.packages
    ):
        return None
    return memory.plan(asked.peak_bytes, compiles=_AHEAD not in closure.packages)


def _ptxas(closure: Closure, held: Held, target: Capability, site: str) -> dict[str, str]:
    """Return the variables that lead Triton to a ptxas which knows `target`; none where its own does.

    Both names: since 3.6 Triton asks ``ptxas-blackwell`` for this chip, and never looks at the other variable; before, there
    was only that one.
    """
    own = held.of("triton")
    if "triton" not in closure.packages or "triton" in held.unread or any(one.knows(target) for one in own):
        return {}
    able = next((one for one in held.ptxas if one.project != "triton" and one.knows(target)), None)
    if able is not None:
        return dict.fromkeys(("TRITON_PTXAS_BLACKWELL_PATH", "TRITON_PTXAS_PATH"), f"{site}/{able.path}")
    found = ", ".join(f"{one.program.name} {one.program.version}" for one in own)
    raise CheckRefused(
        "ptxas-ignorant",
        f"nothing in the image could compile kernels for {target.own}",
        cause=f"triton {closure.packages['triton']} brings {found or 'no ptxas'}, and no other wheel has one that knows it",
        help="add the CUDA compiler to what is installed, or take a Triton of 3.6 or newer",
        run=("spark-build image NAME nvidia-cuda-nvcc -t TAG",),
    )


def _labels(closure: Closure, asked: Asked, epoch: int) -> dict[str, str]:
    """Return the labels: those of the OCI image specification ("Annotations"), and our own."""
    created = dt.datetime.fromtimestamp(epoch, dt.UTC)
    name, _at, digest = asked.base.partition("@")
    own = {
        "version": __version__,
        "env": VENV,
        "target": str(asked.capability),
        "platform": closure.target.platform,
        "python": closure.target.python,
        "cuda": closure.cuda or "",
        "driver": str(closure.driver or ""),
        "manifest.sha256": closure.manifest,
    }
    labels = {
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": digest,
        "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.description": " ".join(closure.asked),
        **{f"spark-build.{key}": value for key, value in own.items()},
    }
    return {key: value for key, value in labels.items() if value}


def _moment(versions: Iterable[str]) -> int:
    """Return the newest time that a label of ours names: what was built last. Without one, the earliest that zip knows."""
    return max((found for one in versions if (found := label.moment(one)) is not None), default=ZIP_EPOCH)


def of_document(document: Mapping[str, Any], manifest: str, target: Target) -> Closure:
    """Return the closure that a bundle's manifest, whose sha256 is `manifest`, describes.

    What goes into files of images and isn't checked where manifests are read is taken only as far as it is plain.
    """
    run, about, names = document.get("run", {}), document["target"], document.get("asked", ())
    cuda, driver = str(about.get("cuda")), str(about.get("driver"))
    return Closure(
        target=target,
        packages={one["project"]: one["version"] for one in document["wheels"]},
        asked=tuple(one for one in names if isinstance(one, str) and one.isprintable())
        if isinstance(names, list)
        else (),
        needs=tuple(one["id"] for one in document.get("needs", ())),
        env=dict(run.get("env", {})),
        manifest=manifest,
        cuda=cuda if re.fullmatch(r"\d+\.\d+", cuda, re.ASCII) else None,
        driver=int(driver) if re.fullmatch(r"\d{1,6}", driver, re.ASCII) else None,
    )
