from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from builder.host import jobs
from builder.host.memory import cores, memory
from builder.recipe.model import Resources

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
MEMINFO = (
    f"MemTotal: {128 << 20} kB\nMemFree: 1 kB\nMemAvailable: {100 << 20} kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB"
)
MOUNTS_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
MOUNTS_1 = (
    "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
)
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": MEMINFO})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


def test_a_machine_without_cgroups(root: Path) -> None:
    found = memory(root)
    assert (found.total_bytes, found.available_bytes, found.cgroup_limit_bytes) == (128 * GIB, 100 * GIB, None)
    assert (found.swap_total_bytes, found.swap_free_bytes) == (2 << 20, 1 << 20)
    assert cores(root) == CPUS


def test_a_kernel_without_an_estimate_of_what_is_available(root: Path) -> None:
    write(root, {"proc/meminfo": "MemTotal: 1024 kB\nMemFree: 512 kB"})
    assert memory(root).available_bytes == 512 << 10


def unified(root: Path, **files: str) -> None:
    """cgroup v2, this process in /box/build."""
    write(root, {"proc/self/cgroup": "0::/box/build", "proc/self/mountinfo": MOUNTS_2})
    (root / "sys/fs/cgroup/box/build").mkdir(parents=True, exist_ok=True)
    write(root, {f"sys/fs/cgroup/{name.replace('__', '/').replace('_', '.')}": text for name, text in files.items()})


def test_v2_the_limit_of_a_parent_counts(root: Path) -> None:
    unified(root, box__memory_max=str(16 * GIB), box__memory_current=str(6 * GIB), box__build__memory_max="max")
    found = memory(root)
    assert (found.total_bytes, found.available_bytes, found.cgroup_limit_bytes) == (16 * GIB, 10 * GIB, 16 * GIB)


def test_v2_the_lowest_limit_counts_and_high_is_one(root: Path) -> None:
    unified(
        root,
        box__memory_max=str(16 * GIB),
        box__build__memory_max=str(12 * GIB),
        box__build__memory_high=str(8 * GIB),
        box__build__memory_current=str(GIB),
    )
    found = memory(root)
    assert (found.cgroup_limit_bytes, found.available_bytes) == (8 * GIB, 7 * GIB)


def test_v2_file_cache_can_be_given_back(root: Path) -> None:
    unified(
        root,
        box__memory_max=str(16 * GIB),
        box__memory_current=str(15 * GIB),
        box__memory_stat=f"anon 1\nactive_file {2 * GIB}\ninactive_file {9 * GIB}",
    )
    assert memory(root).available_bytes == 10 * GIB


def test_v2_a_limit_above_the_machine_is_none(root: Path) -> None:
    unified(root, box__memory_max=str(999 * GIB), box__memory_current="0")
    assert (memory(root).cgroup_limit_bytes, memory(root).total_bytes) == (None, 128 * GIB)


def test_v2_a_group_over_its_limit_has_nothing_left(root: Path) -> None:
    unified(root, box__memory_high=str(4 * GIB), box__memory_current=str(5 * GIB))
    assert memory(root).available_bytes == 0


def test_memory_that_the_gpu_took_is_charged_to_no_group(root: Path) -> None:
    """MemAvailable counts even where the group would have more."""
    unified(root, box__memory_max=str(120 * GIB), box__memory_current=str(GIB))
    assert memory(root).available_bytes == 100 * GIB


def test_v2_in_a_container_the_group_is_mounted_as_the_root(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/docker/abc",
            "proc/self/mountinfo": "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw",
            "sys/fs/cgroup/memory.max": str(8 * GIB),
            "sys/fs/cgroup/memory.current": "0",
            "sys/fs/cgroup/cpu.max": "100000 100000",
        },
    )
    assert memory(root).cgroup_limit_bytes == 8 * GIB
    assert cores(root) == 1


def test_v2_with_a_namespace_the_group_is_the_root(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": MOUNTS_2,
            "sys/fs/cgroup/memory.max": str(8 * GIB),
            "sys/fs/cgroup/memory.current": "0",
        },
    )
    assert memory(root).cgroup_limit_bytes == 8 * GIB


def test_v1_limit_and_usage(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/job\n0::/",
            "proc/self/mountinfo": MOUNTS_1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(16 * GIB),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(9 * GIB),
            "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}",
        },
    )
    found = memory(root)
    assert (found.cgroup_limit_bytes, found.available_bytes) == (16 * GIB, 8 * GIB)


def test_v1_without_a_limit(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "4:memory:/job",
            "proc/self/mountinfo": MOUNTS_1,
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert memory(root).cgroup_limit_bytes is None


@pytest.mark.skipif(CPUS < 2, reason="a quota below one core can't be told from none")
@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("max 100000", CPUS), ("50000 100000", 1), ("150000 100000", 2), ("9900000 100000", CPUS)],
)
def test_v2_quota(root: Path, quota: str, expected: int) -> None:
    unified(root, box__cpu_max=quota)
    assert cores(root) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", CPUS), ("100000", 1), ("10000", 1)])
def test_v1_quota(root: Path, quota: str, expected: int) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "1:cpu,cpuacct:/job",
            "proc/self/mountinfo": MOUNTS_1,
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
    )
    assert cores(root) == expected


def test_affinity_counts(root: Path) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores(root) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_this_machine_has_memory() -> None:
    found = memory()
    assert 0 < found.available_bytes <= found.total_bytes


@pytest.mark.parametrize(
    ("cores_", "limit", "asked", "expected"),
    [(20, None, None, 20), (20, 6, None, 6), (20, 6, 3, 3), (20, 3, 6, 3), (20, None, 99, 20), (1, None, None, 1)],
)
def test_caps_on_jobs_only_lower_them(cores_: int, limit: int | None, asked: int | None, expected: int) -> None:
    assert jobs.jobs(Resources(mem_per_job="64GiB", jobs=limit), cores=cores_, asked=asked) == expected
