"""Wheels as a backend leaves them, good and bad, and wheelhouses with wheels in them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import time
import zipfile
from typing import TYPE_CHECKING

from builder.stages import Built
from builder.wheel import pack
from builder.wheelhouse import Wheelhouse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored, Wheel
    from builder.wheel.strip import Strip

LABEL = "sb20261124101112.g0123456789"
WHEEL = b"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def hashed(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def record(files: Mapping[str, bytes], info: str) -> bytes:
    text = io.StringIO()
    rows = [(name, hashed(data), str(len(data))) for name, data in files.items()]
    csv.writer(text, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
    return text.getvalue().encode()


def contents(
    project: str, version: str, files: Mapping[str, bytes], headers: Sequence[str] = (), metadata: bytes | None = None
) -> dict[str, bytes]:
    """All members of a good wheel, RECORD last; a bad one is made by changing them."""
    info = f"{project}-{version}.dist-info"
    made = dict(files)
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}", *headers, "", ""])
    made[f"{info}/METADATA"] = text.encode() if metadata is None else metadata
    made[f"{info}/WHEEL"] = WHEEL
    made[f"{info}/RECORD"] = record(made, info)
    return made


def write(path: Path, members: Mapping[str, bytes], *, modes: Mapping[str, int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, time.localtime()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100000 | (modes or {}).get(name, 0o644)) << 16
            archive.writestr(info, data)
    return path


def piped(members: Mapping[str, bytes]) -> bytes:
    """Return the zip of `members` as it is written where nobody can go back: sizes follow the data."""

    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return pipe.data


def raw(  # as the backend leaves it
    folder: Path,
    project: str = "tiny",
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    headers: Sequence[str] = (),
    *,
    tags: str = "py3-none-any",
    modes: Mapping[str, int] | None = None,
    metadata: bytes | None = None,
) -> Path:
    files = {f"{project}/__init__.py": b"VALUE = 1\n"} if files is None else files
    return write(
        folder / f"{project}-{version}-{tags}.whl", contents(project, version, files, headers, metadata), modes=modes
    )


def finish(
    path: Path,
    *,
    dest: Path,
    label: str = LABEL,
    siblings: Mapping[str, str] | None = None,
    version_module: str | None = None,
    strip: Strip = "none",
    epoch: int = 1_700_000_001,
    extra_files: Mapping[str, bytes] | None = None,
    expected: str | None = None,
    torch: str | None = None,
) -> Wheel:
    expected = expected or path.name.split("-")[0]
    return pack.finish(
        Built(output=expected, path=path, peak_bytes=0),
        dest=dest,
        label=label,
        siblings=siblings or {},
        version_module=version_module,
        strip=strip,
        epoch=epoch,
        extra_files=extra_files or {},
        expected=expected,
        env=dict(os.environ),
        scratch=dest / "scratch",
        torch=torch,
    )


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def open_house(root: Path) -> Wheelhouse:
    return Wheelhouse.open(root, clock=time.time)


def publish(  # a labelled wheel in the wheelhouse
    house: Wheelhouse,
    folder: Path,
    project: str = "tiny",
    version: str = "1.0",
    *,
    label: str = LABEL,
    files: Mapping[str, bytes] | None = None,
    headers: Sequence[str] = (),
    channel: str = "local",
    modes: Mapping[str, int] | None = None,
) -> Stored:
    source = raw(folder / "raw" / label, project, version, files, headers, modes=modes)
    wheel = finish(source, dest=folder / "labelled", label=label)
    (stored,) = house.publish(
        [wheel], fingerprint=wheel.sha256, recipe=project, inputs={}, provenance={}, channel=channel
    )
    return stored


def set_state(house: Wheelhouse, wheel: Stored, state: str) -> None:
    with house.catalogue.transaction() as db:
        db.execute("UPDATE wheels SET state=? WHERE sha256=?", (state, wheel.sha256))
