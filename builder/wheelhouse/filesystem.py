"""Where a wheelhouse may lie. SQLite's WAL and ``flock`` need a local file system; over a network both break silently."""

from __future__ import annotations

import re
from pathlib import Path

from builder.errors import HostError

__all__ = ["NETWORK", "check", "type_of"]

_REMOTE = """
nfs nfs4 cifs smb2 smb3 smbfs ncpfs afs coda 9p ceph lustre gpfs beegfs glusterfs fuse.glusterfs fuse.sshfs fuse.s3fs
fuse.rclone fuse.juicefs ocfs2 gfs2 virtiofs vboxsf prl_fs fuse.vmhgfs-fuse fuse.gcsfuse fuse.mount-s3 fuse.cephfs
fuse.ceph-fuse fuse.nfs-fuse fuse.smbnetfs fuse.davfs
"""

#: File system types whose locks or shared memory don't hold between machines.
NETWORK = frozenset(_REMOTE.split())


def type_of(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that `path` lies on, from the text of ``/proc/self/mountinfo`` (proc(5))."""
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        left, _dash, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:  # noqa: PLR2004  # the mount point is the fifth
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])  # blanks and such, in octal
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def check(root: Path) -> None:
    """Raise HostError ``network-filesystem`` when `root` lies on one."""
    place = root.resolve()
    while not place.exists():
        place = place.parent
    kind = type_of(place, Path("/proc/self/mountinfo").read_text(errors="replace"))
    if kind in NETWORK:
        raise HostError(
            "network-filesystem",
            f"{root} lies on a network file system ({kind})",
            cause="the catalogue's locks don't hold there: two machines could damage it",
            help="keep the wheelhouse on a local disk and export it for the others",
            run=("spark-build index export DIR",),
        )
