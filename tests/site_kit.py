"""A wheelhouse with the shapes of real wheels and real builds, small in bytes: what the pages for people are tried on."""

from __future__ import annotations

import io
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder import events
from builder.digest import sha256_json
from builder.wheel import label, read
from builder.wheelhouse import Wheelhouse, channel, locks, statement
from tests import wheel_kit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored

MIB, GIB = 1 << 20, 1 << 30
DAY = 86400.0
#: When the newest of all was made, unless told otherwise.
NOW = 1_795_900_000.0
SPARK = "cp312-cp312-manylinux_2_39_aarch64"
STABLE, NIGHTLY = "cu130-gb10/stable", "cu130-gb10/nightly"

HOSTILE = '"><script>globalThis.bad=1</script><img src=x onerror="globalThis.bad=1">\u202egnp\u0007'


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def images(*some: tuple[str, str, int, int]) -> list[dict[str, object]]:
    return [{"kind": kind, "arch": arch, "count": count, "bytes": size} for kind, arch, count, size in some]


def library(
    path: str, size: int, held: Sequence[dict[str, object]] = (), *, jit: int = 0, other: int = 0
) -> dict[str, Any]:
    """A file of a report; what isn't `jit` or `other` is native."""
    whole = sum(int(str(one["bytes"])) for one in held)
    units = sum(int(str(one["count"])) for one in held)
    native = whole - jit - other
    word = "native" if native else "jit" if jit else "absent" if other else "none"
    counts = {"native": 0, "jit": 0, "dead": 0, "absent": 0, "unknown": 0} | ({word: units} if held else {})
    return {
        "path": path,
        "size": size,
        "machine": "aarch64",
        "coverage": {"verdict": word, "units": counts, "bytes": {"native": native, "jit": jit, "other": other}},
        "images": list(held),
        "unknown": None,
        "program": None,
    }


def program(path: str, size: int, name: str, version: str) -> dict[str, Any]:
    return {
        **library(path, size),
        "coverage": None,
        "program": {"name": name, "version": version, "targets": ["sm_121a"]},
    }


def finding(name: str, severity: str, file: str, found: str, **more: str) -> dict[str, Any]:
    empty = {"wanted": "", "why": "", "help": "", "accepted": None}
    return {"id": name, "severity": severity, "file": file, "found": found, **empty, **more}


def report(files: Sequence[dict[str, Any]], findings: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A report as `audit.report.as_json` makes it."""
    names = ("native", "jit", "other")
    held = {name: sum(file["coverage"]["bytes"][name] for file in files if file["coverage"]) for name in names}
    return {
        "version": 1,
        "wheel": {},
        "target": "12.1",
        "files": list(files),
        "total": {"verdict": "native", "units": {}, "bytes": held},
        "findings": list(findings),
        "refused": False,
    }


def vllm_report(native: int = 498, *, jit: int = 14) -> dict[str, Any]:
    core = images(("cubin", "sm_121a", 412, native * MIB), ("ptx", "compute_121a", 6, jit * MIB))
    moe = images(("cubin", "sm_121a", 96, 118 * MIB), ("cubin", "sm_90a", 12, 9 * MIB))
    flash = images(("cubin", "sm_121", 64, 74 * MIB))
    return report(
        [
            library("vllm/_C.abi3.so", 561 * MIB, core, jit=jit * MIB),
            library("vllm/_moe_C.abi3.so", 134 * MIB, moe, other=9 * MIB),
            library("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", 79 * MIB, flash),
            library("vllm/cumem_allocator.abi3.so", 180_000),
            library("vllm/spinloop.abi3.so", 64_000),
        ],
        [
            finding(
                "run-untried",
                "warning",
                "",
                "not run, since this machine has no GPU",
                why="an import or a check that wasn't run proves nothing, good or bad",
                help="run it where the wheel can run: spark-build audit WHEEL --run --gpu",
            ),
            finding(
                "device-mixed",
                "warning",
                "vllm/_moe_C.abi3.so",
                "9.0 MiB of machine code for sm_90a",
                wanted="nothing but code for 12.1",
                why="it makes the wheel larger, and is never used on the target",
                help="narrow the architectures of the recipe: arch-map of this project's version",
            ),
            finding("abi3-newer", "info", "vllm/_C.abi3.so", "uses no symbol newer than Python 3.10"),
            finding(
                "rpath-absolute",
                "warning",
                "vllm/_C.abi3.so",
                "RUNPATH /usr/local/cuda/lib64",
                accepted="the toolkit is at that place in the final image",
                why="a library is looked for where it may not be",
            ),
        ],
    )


def triton_report() -> dict[str, Any]:
    return report(
        [
            library("triton/_C/libtriton.so", 412 * MIB),
            program("triton/backends/nvidia/bin/ptxas", 31 * MIB, "ptxas", "13.0.88"),
            program("triton/backends/nvidia/bin/ptxas-blackwell", 33 * MIB, "ptxas", "13.1.12"),
            program("triton/backends/nvidia/bin/cuobjdump", 1 * MIB, "cuobjdump", "13.0.85"),
        ],
        [finding("glibc-newer", "info", "triton/_C/libtriton.so", "wants GLIBC_2.34, the tag says 2.39")],
    )


def flashinfer_report(kernels: int = 40) -> dict[str, Any]:
    return report(
        [
            library(
                f"flashinfer_jit_cache/jit_cache/batch_prefill_{number:03}_f16_hd{64 << number % 3}/module.so",
                (3 + number % 9) * MIB,
                images(("cubin", "sm_121a", 4 + number % 5, (2 + number % 9) * MIB)),
            )
            for number in range(kernels)
        ]
    )


def inputs(name: str, version: str, commit: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    """An inputs document as `builder.inputs.collect` makes it."""
    tool = {"digest": sha256_json({"tool": name})}
    document: dict[str, Any] = {
        "schema": 2,
        "name": name,
        "source": {
            "kind": "git",
            "commit": commit,
            "tree": f"git:{commit[::-1]}",
            "time": 1_795_000_000,
            "version": version,
            "submodules": [],
            "pulls": [],
        },
        "patches": [],
        "recipe": {"build": {"env": {"MAX_JOBS_HINT": "auto"}}},
        "target": {"machine": "aarch64", "arch": "12.1a", "cuda": "13.0.88", "glibc": "2.39", "python": "cp312"},
        "arch": ["12.1a"],
        "host": {
            "machine": "aarch64",
            "libc": "2.39",
            "cuda": {"version": "13.0.88", **tool},
            "python": {"version": "3.12.3", "tag": "cp312", **tool},
            "tools": {
                "gcc": {"version": "13.3.0", **tool},
                "ld": {"version": "2.42", **tool},
                "cmake": {"version": "4.1.2", **tool},
                "ninja": {"version": "1.13.2", **tool},
            },
        },
        "requires": {
            name: [
                {"name": "packaging", "version": "26.3", "sha256": ["a" * 64]},
                {"name": "setuptools", "version": "84.2.1", "sha256": ["b" * 64]},
                {"name": "wheel", "version": "0.47.0", "sha256": ["c" * 64]},
            ]
        },
        "torch": None,
        "env": {},
        "paths": {},
        "builds-on": {},
    }
    return document | more


def record(one: Mapping[str, Any], fingerprint: str, gate: Mapping[str, Any], url: str, at: float) -> dict[str, Any]:
    """A record as `builder.pipeline.provenance` makes it."""
    moment = wheel_time(at)
    run = {
        "attempt": 1,
        "isolation": {"level": "namespace", "path": f"/sb/{one['name']}", "why": ""},
        "host": {"machine": "aarch64", "cores": 20, "memory": 128 * GIB},
        "gate": gate,
        "units": {"kind": "spark-build units", "version": 1, "units": []},
    }
    return {
        "predicateType": statement.PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": statement.BUILD_TYPE,
                "externalParameters": {"recipe": one["name"], "source": {"url": url, "ref": "main"}},
                "internalParameters": {"fingerprint": fingerprint, "label": "x", "jobs": 20},
                "resolvedDependencies": [],
            },
            "runDetails": {
                "builder": {"id": "urn:spark-build:local"},
                "metadata": {"startedOn": moment, "finishedOn": moment},
                "byproducts": [{"name": statement.RUN, "annotations": run}],
            },
        },
    }


def wheel_time(at: float) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Kit:
    """A wheelhouse that is being filled."""

    root: Path
    now: float = NOW
    closing: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.clock = Clock(self.now)
        self.house = self.closing.enter_context(Wheelhouse.open(self.root, clock=self.clock))

    def close(self) -> None:
        self.closing.close()

    def wheel(
        self,
        name: str,
        version: str,
        document: Mapping[str, Any] | None,
        *,
        days: float,
        size: int = 0,
        tags: str = SPARK,
        headers: Sequence[str] = (),
        found: Mapping[str, Any] | None = None,
        gate: Mapping[str, Any] | None = None,
        url: str = "",
        recipe: str | None = None,
        metadata: bytes | None = None,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> Stored:
        """Publish a wheel that was made `days` before now; with inputs it has a label of ours. `size` is what pages say."""
        self.clock.now = self.now - days * DAY
        fingerprint = sha256_json(dict(document)) if document else ""
        if document:
            version = label.labelled(version, label.make(self.clock.now, fingerprint))
        module = name.replace("-", "_")
        path = wheel_kit.raw(
            self.root / "made",
            module,
            version,
            {f"{module}/__init__.py": version.encode()},
            headers,
            tags=tags,
            metadata=metadata,
        )
        (stored,) = self.house.publish(
            [read.inspect(path, output=name)],
            fingerprint=fingerprint,
            recipe=(recipe or name) if document else "",
            inputs=document,
            provenance=record(document, fingerprint, {name: gate or {}}, url, self.clock.now) if document else {},
            sign=sign,
        )
        if found is not None:
            self.house.keep_findings(stored.sha256, "rules", found)
        if size:
            with closing(sqlite3.connect(self.root / "catalog.sqlite3")) as db:
                db.execute("UPDATE wheels SET size=? WHERE sha256=?", (size, stored.sha256))
                db.commit()
        return stored

    def promote(self, name: str, *wheels: Stored) -> None:
        channel.promote(self.house, name, wheels)

    def attempt(
        self,
        recipe: str,
        version: str,
        fingerprint: str,
        told: Sequence[tuple[float, events.Event]],
        *,
        days: float,
        number: int = 1,
        outputs: Sequence[str] = (),
        logs: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the events of an attempt, each at its second; return the folder."""
        began = self.now - days * DAY
        folder = self.root / "builds" / fingerprint / "logs" / str(number)
        folder.mkdir(parents=True)
        clock, text = Clock(began), io.StringIO()
        lines = events.JsonLines(text, build="", clock=clock)
        lines.emit(
            events.BuildStarted(
                recipe=recipe,
                version=version,
                fingerprint=fingerprint,
                label=label.make(began, fingerprint),
                outputs=tuple(outputs) or (recipe,),
                attempt=number,
                isolation="namespace",
            )
        )
        for at, event in told:
            clock.now = began + at
            lines.emit(event)
        (folder / "events.jsonl").write_text(text.getvalue())
        for name, log in (logs or {}).items():
            (folder / f"{name}.log").write_text(log)
        return folder

    def running(self, fingerprint: str) -> None:
        """Hold the lock of a build, as the process does that makes it."""
        (self.root / "locks").mkdir(exist_ok=True)
        self.closing.enter_context(locks.held(self.root / "locks" / fingerprint))
