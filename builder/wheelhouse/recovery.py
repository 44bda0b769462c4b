"""Completing or undoing what a killed process left. Its incoming folder tells of it, and the journal what it was to be."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from builder.errors import HostError
from builder.wheelhouse import journal, locks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.wheelhouse.store import Wheelhouse

__all__ = ["recover", "recover_if_needed"]

#: How long an opening waits for the write lock before it leaves a killed publish to the next one.
RECOVER_WAIT_S = 5.0


def recover_if_needed(house: Wheelhouse) -> None:
    """Complete or undo what a killed process left; costs one folder listing when there is nothing to do.

    Folders of processes that are at it are left alone. What can't be done now, for lack of space or of the write lock, is
    left to the next opening. Raises WheelhouseError ``journal-damaged``.
    """
    incoming = house.root / "wheels" / ".incoming"
    try:
        left = any(not locks.is_claimed(entry) for entry in incoming.iterdir())
    except FileNotFoundError:
        return
    if left:
        with contextlib.suppress(HostError), house.writing(timeout_s=RECOVER_WAIT_S):
            recover(house)


def recover(house: Wheelhouse) -> None:
    """Complete or undo what killed processes left. The write lock is held."""
    with contextlib.ExitStack() as claims:
        folders: dict[str, Path] = {}
        try:
            for entry in (house.root / "wheels" / ".incoming").iterdir():
                if not entry.is_dir():
                    entry.unlink()
                elif (descriptor := locks.claim(entry, wait=False)) is not None:
                    claims.callback(os.close, descriptor)
                    folders[entry.name] = entry
            for number, announced in _announced(house.root, folders).items():
                _settle(house, folders[number], announced)
                del folders[number]
        except FileNotFoundError:
            return
        except OSError as error:
            raise house.cannot_write(error) from error
        for folder in folders.values():  # nothing was announced, or all was done
            shutil.rmtree(folder, ignore_errors=True)


def _announced(root: Path, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the entries that began something and didn't end it, by the name of their folder."""
    found: dict[str, dict[str, Any]] = {}
    if not folders:
        return found
    for entry in journal.read(root / "journal.jsonl"):
        number = entry.get("id", "")
        match entry["op"]:
            case "publish.begin":
                filed = {row["filename"] for row in entry["wheels"]}
                for other in [key for key, one in found.items() if one.get("filename") in filed]:
                    del found[other]  # removed, and published again since
                if number in folders:
                    found[number] = entry
            case "promote":  # of a channel's the last one counts
                about = ("promote", entry["channel"])
                found = {key: one for key, one in found.items() if (one["op"], one.get("channel")) != about}
                found |= {number: entry} if number in folders else {}
            case "remove" | "state" | "project" if number in folders:
                found[number] = entry
            case "publish.end" | "publish.undo":
                found.pop(number, None)
    return found


def _settle(house: Wheelhouse, folder: Path, entry: Mapping[str, Any]) -> None:
    from builder.wheelhouse import channel, publish, removal, states  # noqa: PLC0415  # they call this module

    match entry["op"]:
        case "publish.begin":
            publish.settle(house, folder, entry)
            return
        case "remove":
            removal.settle(house, folder, entry)
            return
        case op:
            enter = {"promote": channel.enter, "state": states.enter, "project": states.enter_status}[op]
    with house.catalogue.transaction() as db:
        enter(db, entry)
    shutil.rmtree(folder, ignore_errors=True)
