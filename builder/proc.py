"""The only module that starts processes.

Each child gets a process group of its own and an explicit environment. `capture` is for short questions; `run` is for
work: it streams output to a log and to a callback, and takes the whole group down when the caller is interrupted.

Both end with the leader of the group, not with the last one that holds its output open: a program may leave something in
the background (``git gc``, a compiler's server), and waiting for that would take for ever. Such a one has `pump.LINGER_S` to
say what it has to say, then the group is killed.

A child also ends with this process, with all that it started in its group, however this process ends: a killed run leaves
no ``uv`` behind that writes into a build environment which the next run is making. ``spark-build-enter --tied`` sees to
that; where the package runs without its native programs, children are on their own.

What leaves the group by setsid(2) lives on: the gate's broker, git's credential cache, the shared connection of an ssh.
With `sweep` it is killed like the group. That is for the code of others: what a build or a trial started ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.pump import LINGER_S, Lines, await_end, pump, through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Finished", "attached", "capture", "installed", "leave", "piped", "run"]

PROGRAM = "spark-build-enter"

#: How long a group has between SIGTERM and SIGKILL.
GRACE_S = 5.0

#: How long a sweep may take; what the kernel doesn't let go is told on stderr before that.
SWEEP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended: `code` is its exit status, negative for a signal; `out` and `err` are decoded text.

    `raw` is stdout's bytes as they came. `peak_bytes` is that of the largest process, never of a sum; the kernel counts from
    what this process held when it started the child (getrusage(2)).
    """

    argv: tuple[str, ...]
    code: int
    out: str = ""
    err: str = ""
    raw: bytes = b""
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
    pass_fds: Iterable[int] = (),
    timeout_s: float | None = None,
    most_bytes: int | None = None,
    sweep: bool = False,
) -> Finished:
    """Run `argv` to its end and return what it printed; raise HostError when it can't be started or takes too long.

    A status other than 0 is no error here: the caller knows what it means. The group is killed at the time-out, and when it
    has printed more than `most_bytes` (HostError ``tool-output``): else a program that never stops would fill the memory.
    """
    words = tuple(os.fspath(word) for word in argv)
    child = _start(
        words, env=env, cwd=cwd, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=tuple(pass_fds), sweep=sweep
    )
    out, err = bytearray(), bytearray()

    def take(into: bytearray, data: bytes) -> None:
        into += data
        if most_bytes is not None and len(out) + len(err) > most_bytes:
            raise HostError(
                "tool-output", f"{words[0]} printed more than {most_bytes >> 20} MiB", cause=" ".join(words)
            )

    with _closed_at_end(child, sweep=sweep):
        ended = pump(
            child, functools.partial(take, out), functools.partial(take, err), stdin=stdin, timeout_s=timeout_s
        )
    if not ended:
        summary = f"{words[0]} gave no answer in {timeout_s:.0f} s"
        raise HostError("tool-timeout", summary, cause=" ".join(words))
    return Finished(
        argv=words,
        code=child.returncode,
        out=out.decode(errors="replace"),
        err=err.decode(errors="replace"),
        raw=bytes(out),
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
    sweep: bool = False,
) -> Finished:
    """Run `argv`, append its output and errors to `log`, call `on_line` for each line; return when the group is gone.

    Interrupted (KeyboardInterrupt, or any exception from `on_line`): the group gets SIGTERM, after `GRACE_S` seconds
    SIGKILL, and the exception goes on. Raises HostError when it can't be started or when `timeout_s` has passed.
    """
    words = tuple(os.fspath(word) for word in argv)
    with log.open("ab") as sink:
        child = _start(
            words,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            sweep=sweep,
        )
        lines = Lines(on_line)

        def take(data: bytes) -> None:
            sink.write(data)
            sink.flush()
            lines.feed(data)

        with _closed_at_end(child, sweep=sweep) as usage:
            ended = pump(child, take, timeout_s=timeout_s)
            lines.end()
    if not ended:
        summary = f"{words[0]} was stopped after {timeout_s:.0f} s"
        raise HostError("tool-timeout", summary, cause=" ".join(words))
    return Finished(argv=words, code=child.returncode, peak_bytes=usage.peak_bytes)


def piped(
    source: Sequence[str], sink: Sequence[str], *, env: Mapping[str, str], tell: Callable[[int], None]
) -> tuple[Finished, Finished]:
    """Run `source` with its output as the input of `sink` until both have ended, and return how each did.

    `tell` gets the bytes that have passed, at least once in `pump.TICK_S`; what it raises ends both and goes on. A `sink`
    that ends early ends `source`. Of what they say the last 64 KiB are kept. Raises HostError ``tool-missing``.
    """
    first = _start(
        tuple(source), env=env, cwd=None, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(), sweep=False
    )
    with _closed_at_end(first, sweep=False):
        second = _start(
            tuple(sink), env=env, cwd=None, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(), sweep=False
        )
        with _closed_at_end(second, sweep=False):
            said = through(first, second, tell)
            await_end(first, LINGER_S)  # nobody reads it any more
    return (
        Finished(argv=tuple(source), code=first.returncode, err=said.source_err),
        Finished(argv=tuple(sink), code=second.returncode, out=said.sink_out, err=said.sink_err),
    )


def leave(
    argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path
) -> int:
    """Start `argv` in a session of its own, without a terminal, and return its process id.

    It outlives this process; while this one lives it has to be reaped (waitpid(2)). Raises HostError ``tool-missing``.
    """
    with stdout.open("ab") as out, stderr.open("ab") as err:
        try:
            child = subprocess.Popen(  # noqa: S603  # argv lists only, never a shell
                [os.fspath(word) for word in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError("tool-missing", f"{argv[0]} can't be started", cause=str(error)) from error
    child.returncode = 0  # it is the caller's now
    return child.pid


def attached(argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], cwd: Path) -> int:
    """Run `argv` on the streams and in the process group of this process, and return its exit status as a shell tells it.

    What the keyboard interrupts is the child's business while it runs. Raises HostError ``tool-missing``.
    """

    def leave_it(_number: int, _frame: object) -> None:  # unlike SIG_IGN, the child doesn't inherit it
        pass

    before = signal.signal(signal.SIGINT, leave_it)
    try:
        try:
            child = subprocess.Popen([os.fspath(word) for word in argv], env=dict(env), cwd=cwd)  # noqa: S603
        except OSError as error:
            raise HostError("tool-missing", f"{argv[0]} can't be started", cause=str(error)) from error
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


@dataclass(slots=True)
class _Usage:
    peak_bytes: int = 0


def _start(
    words: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: int,
    stderr: int,
    pass_fds: tuple[int, ...],
    sweep: bool,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # argv lists only, never a shell
            _tied(words, env, sweep=sweep),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            pass_fds=pass_fds,
            process_group=0,
        )
    except OSError as error:
        summary = f"{words[0]} can't be started"
        raise HostError("tool-missing", summary, cause=str(error)) from error


def _tied(words: tuple[str, ...], env: Mapping[str, str], *, sweep: bool) -> tuple[str, ...]:
    """Return the command whose end is tied to that of this process; raise OSError when there is no such program."""
    if shutil.which(words[0], path=env.get("PATH", os.defpath)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])
    program = installed(PROGRAM)
    options = ("--sweep",) if sweep else ()
    return (program, "--tied", str(os.getpid()), *options, "--", *words) if program else words


@functools.cache
def installed(name: str) -> str | None:
    """Return the path of one of our native programs, which lie beside this Python; None when it is lost."""
    file = os.path.join(sys.prefix, "bin", name)  # noqa: PTH118  # felt at every start
    if not os.access(file, os.X_OK):
        import sysconfig  # noqa: PLC0415  # slow, and the first guess is nearly always right

        file = os.path.join(sysconfig.get_path("scripts"), name)  # noqa: PTH118
    return file if os.access(file, os.X_OK) else None


@contextlib.contextmanager
def _closed_at_end(child: subprocess.Popen[bytes], *, sweep: bool) -> Iterator[_Usage]:
    """Leave nothing of the child's group, reap it and close its pipes; politely when the block was interrupted."""
    usage = _Usage()
    try:
        yield usage
    except BaseException:
        _signal(child, signal.SIGTERM)
        await_end(child, GRACE_S)
        raise
    finally:
        if sweep:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGUSR1)  # to the leader alone, which has to live to do it
            await_end(child, SWEEP_S)
        _signal(child, signal.SIGKILL)  # what the leader left behind in its group, or the leader at a time-out
        _pid, status, rusage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        usage.peak_bytes = rusage.ru_maxrss * 1024
        for stream in (child.stdout, child.stderr, child.stdin):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _signal(child: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signum)
