"""What lies beside a wheel, and the words under which the wheelhouse remembers things about wheels and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FOREIGN", "PROJECT", "WITHHELD", "sidecar", "signature"]

#: Under this word the wheelhouse remembers what came from elsewhere, by sha256; the journal keeps that.
FOREIGN = "added"

#: What isn't offered any more, by sha256: ``state``, ``reason``, ``time``.
WITHHELD = "withheld"

#: The status of projects that aren't active, by name: ``status``, ``reason``, ``time``.
PROJECT = "project"


def sidecar(wheel: Path) -> Path:
    """Return where the record of a wheel's making lies: beside it."""
    return wheel.with_name(f"{wheel.name}.provenance.json")


def signature(wheel: Path) -> Path:
    """Return where the signature of that record lies, if it has one."""
    return wheel.with_name(f"{wheel.name}.provenance.json.sig")
