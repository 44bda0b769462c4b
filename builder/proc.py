"""The only module that starts processes.

Each child gets a process group of its own and an explicit environment. `capture` is for short questions; `run` is for
work: it streams output to a log and to a callback, and takes the whole group down when the caller is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Finished", "capture", "run"]

GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended: `code` is its exit status, negative for a signal; `out` and `err` are decoded text.

    `raw` is stdout's bytes as they came.
    """

    argv: tuple[str, ...]
    code: int
    out: str = ""
    err: str = ""
    raw: bytes = b""
    wall_s: float = 0.0
    peak_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.code == 0


def capture(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
) -> Finished:
    """Run `argv` to its end and return what it printed; raise HostError when it can't be started or takes too long.

    A status other than 0 is no error here: the caller knows what it means. The group is killed at the time-out.
    """
    words = tuple(os.fspath(word) for word in argv)
    child = _start(words, env=env, cwd=cwd, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    started = time.monotonic()
    try:
        out, err = child.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(child, grace_s=0)
        code, summary = "tool-timeout", f"{words[0]} gave no answer in {timeout_s:.0f} s"
        raise HostError(code, summary, cause=" ".join(words)) from None
    except BaseException:
        _end(child)
        raise
    return Finished(
        argv=words,
        code=child.returncode,
        out=out.decode(errors="replace"),
        err=err.decode(errors="replace"),
        raw=out,
        wall_s=time.monotonic() - started,
    )


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    on_line: Callable[[str], None] = lambda _line: None,
    pass_fds: Iterable[int] = (),
    timeout_s: float | None = None,
) -> Finished:
    """Run `argv`, append its output and errors to `log`, call `on_line` for each line; return when the group is gone.

    Interrupted (KeyboardInterrupt, or any exception from `on_line`): the group gets SIGTERM, after `GRACE_S` seconds
    SIGKILL, and the exception goes on. Raises HostError when it can't be started or when `timeout_s` has passed.
    """
    words = tuple(os.fspath(word) for word in argv)
    started = time.monotonic()
    child = _start(
        words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, pass_fds=tuple(pass_fds)
    )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _signal(child, signal.SIGKILL)

    timer = threading.Timer(timeout_s, expire) if timeout_s else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        assert child.stdout is not None  # noqa: S101  # for mypy: stdout=PIPE
        with log.open("ab") as sink:
            for line in child.stdout:
                sink.write(line)
                sink.flush()
                on_line(line.decode(errors="replace").rstrip("\r\n"))
        _status, code, usage = _reap(child)
    except BaseException:
        _end(child)
        raise
    finally:
        if timer:
            timer.cancel()
    _signal(child, signal.SIGKILL)  # what the leader left behind in its group
    if expired.is_set():
        summary = f"{words[0]} was stopped after {timeout_s:.0f} s"
        raise HostError("tool-timeout", summary, cause=" ".join(words))
    return Finished(argv=words, code=code, wall_s=time.monotonic() - started, peak_bytes=usage)


def _start(
    words: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: int,
    stderr: int,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # argv lists only, never a shell
            words,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=pass_fds,
            process_group=0,
        )
    except OSError as error:
        summary = f"{words[0]} can't be started"
        raise HostError("tool-missing", summary, cause=str(error)) from error


def _reap(child: subprocess.Popen[bytes]) -> tuple[int, int, int]:
    pid, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return pid, child.returncode, usage.ru_maxrss * 1024


def _signal(child: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signum)


def _end(child: subprocess.Popen[bytes], *, grace_s: float = GRACE_S) -> None:
    """Take the whole group down: politely, then not."""
    if child.returncode is None:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    _signal(child, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr, child.stdin):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
