"""Where a member lies while it is looked into: in memory when small, else in a file without a name."""

from __future__ import annotations

import errno
import io
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, BinaryIO, Self, cast

from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["Spool", "told"]

_SMALL = 4 << 20


class Spool:
    """One place for one member after another.

    The file stays for the next member: to write over pages costs half of what new ones do.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._into: BinaryIO = io.BytesIO()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def begin(self, size: int) -> None:
        """Make place for a member of `size` bytes; what was there before is gone."""
        if size <= _SMALL:
            self._into = io.BytesIO()
            return
        with told():
            if not self._file:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
            self._into = cast("BinaryIO", self._file)
            self._into.seek(0)

    def write(self, chunk: bytes) -> None:
        """Add `chunk`. Raises HostError ``disk-full`` or ``unwritable``, as `begin` does."""
        with told():
            self._into.write(chunk)

    def end(self) -> BinaryIO:
        """Return the member as a stream that ends where it does; good until the next `begin`."""
        with told():
            self._into.truncate()
            self._into.flush()
        return self._into


@contextmanager
def told(folder: Path | None = None) -> Iterator[None]:
    """Turn what the system says about temporary files into HostError: those in `folder`, or the system's when None."""
    try:
        yield
    except OSError as error:
        place = folder or (tempfile.gettempdir() if tempfile.tempdir else "temporary files")
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            code, summary = "disk-full", f"no space left in {place}"
        else:
            code, summary = "unwritable", f"no temporary file can be made in {place}"
        help = "TMPDIR names another folder for what is unpacked while it is looked into"
        if folder:
            help = "make room there for what is unpacked while it is looked into, then begin again"
        raise HostError(code, summary, cause=str(error), help=help) from error
