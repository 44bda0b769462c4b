"""The process in which uploads are audited and published, apart from the server: ``python -m builder.server.worker FD``.

A malformed wheel can end or stall this process and nothing else. FD is a socket to the server; a job comes as one line of
JSON, and is answered by one line. The process ends when the server does, when there was no job for a while, and after so
many jobs that what leaks doesn't add up.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_file
from builder.errors import CheckRefused, SparkError, UsageError
from builder.wheel import read
from builder.wheelhouse import Wheelhouse, channel, states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.audit.context import Accepted
    from builder.audit.report import Report
    from builder.config import Config
    from builder.pipeline.intake import Examined, Taken
    from builder.stages import Stored

__all__ = ["main", "perform"]

_IDLE_S = 30.0
#: The wheelhouse's own index is brought up to date when there was no job for so long.
_QUIET_S = 0.2
_JOBS = 500
#: What the process may have grown to, in KiB (getrusage(2)).
_PEAK_KIB = 1 << 20
#: The first that the kernel ends when memory is short (proc(5), oom_score_adj).
_OOM = 900
#: Exit codes of what is wrong with a wheel or a request; all others are this server's troubles, and so is its configuration.
_THEIRS, _OWN, _TROUBLE = frozenset({2, 5}), frozenset({"config-wrong", "signers-missing"}), 3


def main(argv: Sequence[str]) -> int:
    """Answer jobs until there are no more."""
    link = socket.socket(fileno=int(argv[0]))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM))
    os.nice(5)  # pages and files go first
    with link, link.makefile("rb") as jobs:
        link.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
        behind: Path | None = None
        for _number in range(_JOBS):
            if behind and not _coming(link, _QUIET_S):
                _refresh(behind)
                behind = None
            if not _coming(link, _IDLE_S) or not (line := jobs.readline()):
                break
            job = json.loads(line)
            answer = _answer(job)
            if "wheels" in answer:
                behind = Path(job["root"])
            link.sendall(json.dumps(answer).encode() + b"\n")
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _PEAK_KIB:
                break
        if behind:
            _refresh(behind)
    return 0


def _coming(link: socket.socket, seconds: float) -> bool:
    """Whether there is a job, or the end of all, before `seconds` have passed: one is sent when the last is answered."""
    return bool(select.select([link], [], [], seconds)[0])


def _refresh(root: Path) -> None:
    """Bring the wheelhouse's own index up to date; what isn't done now, the next build does."""
    from builder import index  # noqa: PLC0415

    try:
        with Wheelhouse.open(root, clock=time.time, create=False) as house:
            index.refresh(house)
    except SparkError as error:
        sys.stderr.write(f"note: the index of files is behind: {error.summary}\n")


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    from builder.pipeline import intake  # noqa: PLC0415  # as is all that brings the audit: the job comes meanwhile

    try:
        return perform(job)
    except SparkError as error:
        reports = error.reports if isinstance(error, intake.Refused) else ()
        findings = [_found(report) for report in reports]
        return {"error": _told(error, job["root"]), "findings": findings}
    except Exception:  # noqa: BLE001  # told to the server's log; the client is told that it is ours
        traceback.print_exc()
        return {"error": SparkError("bug", "the server failed to audit or publish this").as_json(), "findings": []}


def _told(error: SparkError, root: str) -> dict[str, Any]:
    """Return an error as a client may see it: without where things lie here. The log gets all of it where it is ours."""
    said: dict[str, Any] = error.as_json()
    if error.exit_code not in _THEIRS or error.code in _OWN:
        sys.stderr.write(f"{error.code}: {error.summary}{f': {error.cause}' if error.cause else ''}\n")
        sys.stderr.flush()
        said["exit"] = error.exit_code if error.exit_code not in _THEIRS else _TROUBLE
    if error.code == "signer-unknown":  # what it says is for who can write that file
        said["help"] = "whoever runs this index says whose signatures count"
    for name in ("summary", "cause", "help"):
        said[name] = said[name].replace(root, "the wheelhouse")
    return said


def perform(job: Mapping[str, Any]) -> dict[str, Any]:
    """Audit and publish the ``wheels`` of a job together, all or none, and return what became of each.

    A wheel is ``sha256``, ``filename``, the ``path`` where its bytes lie (None: they have to be published already) and
    ``said``, what an upload said of it. With a ``channel`` they are appended to it, or with ``replace`` all that it lists.
    ``accept`` lets findings pass. What a wheel brings is durable when this returns.

    Raises CheckRefused ``project-closed``, UsageError ``wheel-unstaged``, ``wheel-torn``, ``wheel-withheld`` or
    ``said-otherwise``, and as `intake.take` does.
    """
    from builder import config as configuration  # noqa: PLC0415
    from builder import signature  # noqa: PLC0415
    from builder.pipeline import intake, judged  # noqa: PLC0415

    root, name = Path(job["root"]), job["channel"]
    config = configuration.load(os.environ, wheelhouse=str(root), cwd=root)
    with Wheelhouse.open(root, clock=time.time, create=False) as house:
        if name:
            channel.check(name)
        there = {wheel["sha256"]: _there(house, wheel) for wheel in job["wheels"]}
        _check_wanted(house, job)
        accepted = judged.accepted(job["accept"])
        examined = _examined([one for one in job["wheels"] if there[one["sha256"]] is None], config, accepted)
        sign = signature.signer(config.signing_key, env=os.environ) if examined else None
        _check_wanted(house, job)  # once more: an audit may take minutes
        # What is there already can't be filed with the others: then the channel gets all of the set in a step of its own.
        also = (name,) if name and not job["replace"] and not any(there.values()) else ()
        taken = {one.wheel.sha256: one for one in intake.file(house, examined, sign=sign, also=also)}
        rows = [(there[wheel["sha256"]], taken.get(wheel["sha256"])) for wheel in job["wheels"]]
        stored = [_stored(known, new) for known, new in rows]
        if name and job["replace"]:
            channel.promote(house, name, stored)
        elif name and not also:
            channel.append(house, name, stored)
        return {"wheels": [_row(known, new) for known, new in rows]}


def _examined(wheels: Sequence[Mapping[str, Any]], config: Config, accepted: Sequence[Accepted]) -> list[Examined]:
    """Return what was found good, once it is known to be what was sent, and as it was said."""
    from builder.pipeline import intake  # noqa: PLC0415

    paths = [_path(wheel) for wheel in wheels]
    try:
        examined = intake.examine(paths, config=config, env=os.environ, accepted=accepted)
    except CheckRefused:
        _require_sent(wheels)
        raise
    if {each.one.wheel.sha256 for each in examined} != {wheel["sha256"] for wheel in wheels}:
        _require_sent(wheels)
    _compare(wheels, examined)
    return examined


def _require_sent(wheels: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError where a file isn't any more what was sent: a power cut may have torn it."""
    for wheel in wheels:
        if sha256_file(_path(wheel)) != wheel["sha256"]:
            raise UsageError(
                "wheel-torn", f"{wheel['filename']} isn't here any more as it was sent", help="send it again"
            )


def _there(house: Wheelhouse, wheel: Mapping[str, Any]) -> Stored | None:
    """Return the wheel where these bytes are listed under this name, and whole: nothing has to be looked at again."""
    named = (wheel["sha256"], wheel["filename"])
    found = house.catalogue.stored("sha256=? AND filename=? AND state<>'unpublished'", named)
    return next((one for one in found if house.is_whole(one)), None)


def _check_wanted(house: Wheelhouse, job: Mapping[str, Any]) -> None:
    """Raise what says that a project takes no wheels, or that one of them enters no channel."""
    for wheel in job["wheels"]:
        _check_open(house, wheel["filename"])
        if job["channel"]:
            _check_offered(house, wheel)


def _check_open(house: Wheelhouse, filename: str) -> None:
    """Raise CheckRefused where the project of a wheel takes none (PEP 792)."""
    project = read.normalised(filename.partition("-")[0])
    kept = house.recall("project", project) or {}
    if kept.get("status") in {"archived", "quarantined"}:
        raise CheckRefused(
            "project-closed",
            f"{project} is {kept['status']}: it takes no wheels",
            cause=str(kept.get("reason") or ""),
            help="whoever runs this index can open it again",
        )


def _path(wheel: Mapping[str, Any]) -> Path:
    if wheel["path"] is None:
        raise UsageError(
            "wheel-unstaged",
            f"{wheel['filename']} isn't here",
            cause=f"nothing with the sha256 {wheel['sha256'][:16]} was staged or published",
            help="send it first",
        )
    return Path(wheel["path"])


def _compare(wheels: Sequence[Mapping[str, Any]], examined: Sequence[Examined]) -> None:
    """Raise UsageError where the METADATA of a wheel isn't what was said when it was sent."""
    told = {wheel["sha256"]: wheel.get("said") or {} for wheel in wheels}
    for each in examined:
        wheel = each.one.wheel
        for name, said in told.get(wheel.sha256, {}).items():
            found = read.header(wheel.metadata, name) or ""
            if said != found:
                raise UsageError(
                    "said-otherwise",
                    f"{wheel.filename}: it was sent with {name} {said!r}, and its METADATA says {found!r}",
                    help="send the file as it was built",
                )


def _check_offered(house: Wheelhouse, wheel: Mapping[str, Any]) -> None:
    """Raise UsageError where these bytes are withheld, also when they were removed: they come back as what they were."""
    told = states.withheld(house, wheel["sha256"])
    if told is not None:
        raise UsageError(
            "wheel-withheld",
            f"{wheel['filename']} is {told.state}: it enters no channel",
            help="what was withheld for a reason stays so, until whoever runs this index says otherwise",
        )


def _stored(known: Stored | None, new: Taken | None) -> Stored:
    assert known or new  # noqa: S101  # it was known, or it was filed
    return known or new.wheel  # type: ignore[union-attr]


def _row(known: Stored | None, new: Taken | None) -> dict[str, Any]:
    wheel = _stored(known, new)
    return {
        "filename": wheel.filename,
        "sha256": wheel.sha256,
        "project": wheel.project,
        "version": wheel.version,
        "size": wheel.size,
        "state": wheel.state,
        "cached": new is None or new.there,
        "findings": [one.as_json() for one in new.report.findings] if new else [],
    }


def _found(report: Report) -> dict[str, Any]:
    return {
        "filename": report.contents.filename,
        "sha256": report.contents.sha256,
        "findings": [one.as_json() for one in report.findings],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
