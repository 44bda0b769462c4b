"""The same command in other surroundings: another user, another clock, another place."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A user who owns nothing.
NOBODY = 65534
#: A preloaded library that moves the clock of every dynamic program. It asks the kernel itself and sets nothing up, so that
#: it also works in programs with an allocator of their own, such as nvcc's compiler, where libfaketime waits for ever.
CLOCK = """
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *found)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, found);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        found->tv_sec += SHIFT;
    return failed;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *found)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}
"""


def clock(folder: Path, shift_s: int) -> Path:
    """Return the library that moves clocks by `shift_s`."""
    made = folder / "clock.so"
    words = ["cc", "-D_GNU_SOURCE", f"-DSHIFT={shift_s}", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(made)]
    subprocess.run(words, input=CLOCK, text=True, check=True)
    return made


def elsewhere(*argv: str | Path, nobody: bool = True, preload: Path | None = None) -> list[str]:
    """Return the command that runs `argv` in a mount namespace of its own, as another user, with `preload` in each program.

    The library is named in ``/etc/ld.so.preload``, since a build gets none of the caller's variables.
    """
    lines = ["set -e", "mount -t tmpfs -o mode=755 aside /mnt"]
    if nobody:
        lines += _ways(Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parent.parent)
    if preload:
        lines += ["cp -a /etc /mnt/etc", f"echo '{preload}' > /mnt/etc/ld.so.preload"]
        lines += ["chmod 644 /mnt/etc/ld.so.preload", "mount --bind /mnt/etc /etc"]
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups " if nobody else ""
    lines.append(f'exec {become}"$@"')
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh", *map(str, argv)]


def _ways(*paths: Path) -> list[str]:
    """Return shell lines that make `paths` reachable for every user.

    Homes are closed to others, and an interpreter may lie in one: a closed folder is covered by one that holds only the next
    steps of the ways.
    """
    steps: dict[Path, set[str]] = {}
    for path in (each for given in paths for each in (given, given.resolve())):
        if closed := next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None):
            steps.setdefault(closed, set()).add(path.relative_to(closed).parts[0])
    lines = []
    for number, (closed, names) in enumerate(steps.items()):
        asides = {name: f"/mnt/{number}-{name}" for name in sorted(names)}
        lines += [f"mkdir '{aside}' && mount --rbind '{closed / name}' '{aside}'" for name, aside in asides.items()]
        lines.append(f"mount -t tmpfs -o mode=755 way '{closed}'")
        lines += [
            f"mkdir '{closed / name}' && mount --rbind '{aside}' '{closed / name}'" for name, aside in asides.items()
        ]
    return lines


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that every user can reach, as pytest's own ones are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def moved(world: World, root: Path, *, owner: int | None = None) -> World:
    """Return a copy of all that `world` has at another path, for another user."""
    shutil.copytree(world.root, root, symlinks=True)
    other = World(root)
    for recipe in other.recipes.glob("*.toml"):
        recipe.write_text(recipe.read_text().replace(str(world.root), str(root)))
    if owner is not None:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", root], check=True)
    return other
