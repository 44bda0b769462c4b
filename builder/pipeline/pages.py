"""What the pages for people are told by the layers above them: attempts, reasons in words, the first error of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import CheckRefused, SparkError
from builder.pipeline import builds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder import site
    from builder.inputs import Change
    from builder.pipeline.builds import Attempt
    from builder.site.model import Seal
    from builder.wheelhouse import Wheelhouse

__all__ = ["Told", "source", "tree"]


class Told:
    """See `builder.site.model.Told`. `root` is the wheelhouse of the builds, `signers` the file of those who may sign."""

    def __init__(self, root: Path, signers: Path | None = None) -> None:
        self._root = root
        self._signers = signers

    def attempts(self) -> Sequence[Attempt]:
        """Return every attempt whose events are there, newest first."""
        return builds.attempts(self._root)

    def reasons(self, changes: Sequence[Change]) -> Sequence[tuple[str, Sequence[Change]]]:
        """Return differences of two inputs documents in words, each with the changes that it tells of."""
        from builder.ui import reasons  # noqa: PLC0415

        return reasons.grouped(changes)

    def seal(self, wheel: Path) -> Seal:
        """Return how far the signature holds of the record beside a wheel."""
        from builder import signature  # noqa: PLC0415
        from builder.site.model import Seal  # noqa: PLC0415
        from builder.wheelhouse import publish  # noqa: PLC0415

        record, sig = publish.sidecar(wheel), publish.signature(wheel)
        if not sig.is_file():
            return Seal()
        try:
            if self._signers is not None:
                return Seal(kind="good", text=signature.verify(record, sig, self._signers))
            return Seal(kind="sound", text=signature.sound(record, sig))
        except CheckRefused as error:
            return Seal(kind="bad", text=error.summary)
        except SparkError as error:
            return Seal(kind="unknown", text=error.summary)

    def first_error(self, lines: Sequence[str]) -> Sequence[str]:
        """Return the first real error in what a build printed."""
        from builder.executor import excerpt  # noqa: PLC0415

        return excerpt.first_error(lines)


def source(
    house: Wheelhouse, *, url: str | None = None, only: Sequence[str] | None = None, signers: Path | None = None
) -> site.Source:
    """Return what pages are made from; see `builder.site.Source`."""
    from builder import site  # noqa: PLC0415

    return site.Source(house, Told(house.root, signers), url=url, only=only)


def tree(
    house: Wheelhouse,
    channels: Sequence[str] | None = None,
    *,
    url: str | None = None,
    signers: Path | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of every page for people, with the wheels of `channels`, or all; see `builder.site.tree`."""
    from builder import site  # noqa: PLC0415

    yield from site.tree(source(house, url=url, only=channels, signers=signers))
