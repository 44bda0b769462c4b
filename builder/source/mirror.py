"""The bare mirror of one git repository: fetched incrementally, shared by processes, whole after a kill.

Every write happens under one lock file beside the mirror. The lock is handed to git, too: it is free only when the last
process of a fetch is gone, also when spark-build itself was killed. So whoever holds it may clear away what a killed git
left: its own lock files and half-received packs.

Git's settings come from us. The user's own (``~/.gitconfig``: proxies, credential helpers) hold where the network is asked,
and nowhere else: a filter, an attribute or a diff setting of theirs must not change a tree.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import HostError, SourceError
from builder.events import Fetching
from builder.recipe.units import show_seconds
from builder.source.place import locked, revealed, without_credentials, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.source.place import Sources

__all__ = [
    "ATTRIBUTES",
    "HEADS",
    "SHORT",
    "Mirror",
    "asking",
    "environment",
    "full",
    "insteadof",
    "no_room",
    "quoted",
    "reason",
]

HEADS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

#: What is laid out, compared and merged is what git holds: no line ends, filters or keywords of a `.gitattributes`.
ATTRIBUTES = "* -text -eol -crlf -ident -filter -working-tree-encoding !diff !merge !whitespace\n"

SHORT = re.compile(r"[0-9a-f]{7,39}")

_PASSED = re.compile(r"(PATH|HOME|LANG|GIT_SSL_\w+|GIT_SSH\w*|SSH_AUTH_SOCK|SSL_CERT_\w+|\w*_proxy|\w*_PROXY)")
_SETTINGS = {
    "protocol.file.allow": "always",
    "safe.directory": "*",
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    "gc.auto": "0",
}
#: A connection that gives less than 1 kB/s for a minute is dead.
_NETWORK = {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60", "fetch.unpackLimit": "1", "core.fsync": "all"}
#: The user's settings, and what git hands on to the other side of a fetch from a folder: whoever owns that, we only read.
_GLOBAL = """\
[include]
	path = ~/.config/git/config
	path = ~/.gitconfig
[safe]
	directory = *
"""
_ASK_S = 120

#: What git says of a spec that the remote doesn't know, and of a host of plain files that knows no single commits.
_ABSENT = re.compile(r"couldn't find remote ref|not our ref|unadvertised object|does not support shallow")
_PACKS = 40
_SCANT = 64 << 20


def environment(sources: Sources, **more: str) -> dict[str, str]:
    """Return the environment of a git that stays on this machine; `more` are settings of git, dots as ``__``."""
    env = {key: value for key, value in sources.env.items() if _PASSED.fullmatch(key)}
    env |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    return env | _asked(_SETTINGS | {key.replace("__", "."): value for key, value in more.items()})


def asking(sources: Sources, remote: str) -> dict[str, str]:
    """Return the environment of a git that asks `remote`, which it knows as ``asked``: secrets stay off command lines."""
    env = {key: value for key, value in sources.env.items() if _PASSED.fullmatch(key)}
    home = {"HOME": str(sources.root)}  # for the `~` of the settings, where the user has none
    return home | env | _global(sources) | _asked(_SETTINGS | _NETWORK | {"remote.asked.url": remote})


def _global(sources: Sources) -> dict[str, str]:
    """Return the variable that names our settings for both sides of a fetch."""
    file = sources.root / "gitconfig"
    with contextlib.suppress(OSError):  # read-only sources ask nobody
        if not file.exists():
            write_atomic(file, _GLOBAL.encode())
        return {"GIT_CONFIG_GLOBAL": str(file)}
    return {}


def _asked(settings: Mapping[str, str]) -> dict[str, str]:
    env = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_CONFIG_COUNT": str(len(settings)), "LC_ALL": "C"}
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def insteadof(sources: Sources) -> dict[str, str]:
    """Return variables that send git clones inside a build to the configured mirrors in folders.

    With the network cut no other can be reached, and its URL may hold a login.
    """
    pairs = []
    for prefix, to in sources.mirrors:
        if not to.startswith(("/", "file:")):
            continue
        pairs.append((f"url.{to.rstrip('/')}/.insteadOf", prefix if prefix.endswith(("/", ":")) else prefix + "/"))
        if not prefix.endswith(("/", ":")):
            pairs.append((f"url.{to}.insteadOf", prefix))
    if not pairs:
        return {}
    env = _global(sources) | {"GIT_CONFIG_COUNT": str(len(pairs) + 1)}
    for number, (key, value) in enumerate([*pairs, ("protocol.file.allow", "always")]):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


class Mirror:
    """One repository: `url` as it may be shown, `asked` as it was given, `remote` as it is asked."""

    def __init__(self, url: str, sources: Sources) -> None:
        self.url = without_credentials(url)
        self.asked = url
        self.remote = revealed(sources.mirrored(url))
        self.sources = sources
        self.name = self.url.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1]
        stem = re.sub(r"[^A-Za-z0-9]+", "-", self.name)
        self.path = sources.root / "git" / f"{stem}-{sha256_bytes(self.url.encode())[:12]}.git"

    def git(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> proc.Finished:
        """Run git in the mirror; nothing is asked of the remote."""
        argv = ["git", f"--git-dir={self.path}", *words]
        return proc.capture(argv, env={**environment(self.sources), **(env or {})}, stdin=stdin)

    def out(self, *words: str) -> str:
        """Return what git prints, or an empty text when it fails."""
        done = self.git(*words) if self.path.exists() else None
        return done.out.strip() if done and done.ok else ""

    def has(self, commit: str) -> bool:
        """Whether the mirror holds `commit` with its tree."""
        return self.path.exists() and self.git("cat-file", "-e", f"{commit}^{{tree}}").ok

    def commit_of(self, name: str) -> str:
        """Return the commit that `name` means in the mirror, or an empty text."""
        return self.out("rev-parse", "--verify", "-q", "--end-of-options", f"{name}^{{commit}}")

    def tags(self) -> dict[str, str]:
        """Return the tags that the mirror has, each with its commit or object."""
        listed = self.out("for-each-ref", "--format=%(refname)%09%(objectname)", "refs/tags")
        return dict(line.split("\t", 1) for line in listed.splitlines())

    @property
    def look(self) -> str:
        """The command that asks the remote."""
        return f"git ls-remote {'-- ' if self.url.startswith('-') else ''}{quoted(self.url)}"

    @property
    def shallow(self) -> bool:
        """Whether some history is cut off, as in a repository that was only a submodule so far."""
        return (self.path / "shallow").exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Keep other processes off the mirror while refs and objects change; yield the lock for a child to hold."""
        with locked(self.path.with_suffix(".lock"), self.sources, what=f"the mirror of {self.url}") as lock:
            self._made(lock)
            self._cleared()
            yield lock

    def _made(self, lock: int) -> None:
        """Make the mirror; one whose last file is missing is what a killed `git init` left."""
        last = self.path / "info" / "attributes"
        if last.exists():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        words = ["git", "init", "-q", "--bare", "--template=", str(self.path)]
        made = proc.capture(words, env=environment(self.sources), pass_fds=(lock,))
        if not made.ok:
            raise self.failed(made)
        write_atomic(last, ATTRIBUTES.encode())

    def _cleared(self) -> None:
        """Remove what a killed git left: nobody else can be at work here."""
        for pattern in (
            "*.lock",
            "refs/**/*.lock",
            "objects/info/**/*.lock",
            "objects/pack/tmp_*",
            "objects/??/tmp_obj_*",
        ):
            for left in self.path.glob(pattern):
                left.unlink(missing_ok=True)
        for left in self.path.glob("objects/tmp_objdir-*"):
            shutil.rmtree(left, ignore_errors=True)

    def fetch(self, *specs: str, depth: int | None = None) -> int:
        """Bring in `specs` (all branches and tags by `HEADS`) and return how many bytes of packs came.

        What the remote deleted is deleted here too, its commits stay. Raises SourceError ``fetch-failed`` or
        ``mirror-damaged``, HostError ``disk-full``. A spec that the remote doesn't know is no error: look whether it came.
        """
        with self.locked() as lock, self._watched():
            before = self._packs()
            everything = specs[: len(HEADS)] == HEADS
            # A mirror of the user's may be a shallow clone: what it has is what there is.
            words = ["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--update-shallow"]
            words += ["--prune"] if everything else []
            words += ["--unshallow"] if everything and self.shallow else []
            words += [f"--depth={depth}"] if depth else []
            done = proc.capture(
                ["git", f"--git-dir={self.path}", *words, "--", "asked", *specs],
                env=asking(self.sources, self.remote),
                pass_fds=(lock,),
            )
            if done.ok and everything:
                self.note("*", "")
            after = self._packs()
            if len(after) > _PACKS:
                self.git("repack", "-q", "-d", "--geometric=2")
        if not done.ok and not _ABSENT.search(done.err):
            raise self.failed(done)
        return sum(size for name, size in after.items() if name not in before)

    def _packs(self) -> dict[str, int]:
        return {file.name: file.stat().st_size for file in self.path.glob("objects/pack/*.pack")}

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell twice a second how much of a pack has come; git tells only terminals."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                done = 0
                for file in self.path.glob("objects/pack/tmp_pack_*"):
                    with contextlib.suppress(OSError):
                        done += file.stat().st_size
                if done:
                    self.sources.sink.emit(Fetching(name=self.name, done=done, total=None))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def failed(self, done: proc.Finished, dest: Path | None = None) -> SourceError | HostError:
        """Return why a fetch failed, or laying a tree out at `dest`."""
        place, cause = dest or self.path, reason(done)
        if no_room(done, place.parent):
            return full(place)
        if re.search(r"Permission denied|Read-only file system", done.err) and str(place) in done.err:
            return HostError("unwritable", f"{place} can't be written", cause=cause, run=(f"ls -ld {place.parent}",))
        if self.path.exists() and self.damaged():
            return self.broken(cause)
        return SourceError(
            "checkout" if dest else "fetch-failed",
            f"{self.url} can't be {'laid out' if dest else 'fetched'}",
            cause=cause,
            help="--offline takes what is at hand; [mirrors] in the configuration names another place to ask",
            run=(self.look,),
        )

    def damaged(self) -> bool:
        """Whether objects that must be here are lost or broken. Takes seconds on a big mirror: for error texts only."""
        if not self.git("rev-parse", "--git-dir").ok:
            return True
        checked = self.git("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
        return not checked.ok or bool(
            re.search(r"^(error|broken|missing|fatal)", checked.out + checked.err, re.MULTILINE)
        )

    def broken(self, cause: str) -> SourceError:
        """Return the error for a mirror that lost objects."""
        return SourceError(
            "mirror-damaged",
            f"the local mirror of {self.url} is damaged",
            cause=cause,
            help="delete it, and it is fetched anew",
            run=(f"rm -rf {self.path}", f"spark-build fetch {self.sources.recipe}"),
        )

    def ask(self, *patterns: str, words: tuple[str, ...] = (), ref: str) -> dict[str, str]:
        """Return the refs that the remote lists now, each with its commit or object.

        Raises SourceError ``remote-unreachable`` with what was known of `ref` before.
        """
        argv = ["git", "ls-remote", *words, "asked", *patterns]
        try:
            done = proc.capture(argv, env=asking(self.sources, self.remote), cwd=Path("/"), timeout_s=_ASK_S)
        except HostError as error:
            if error.code != "tool-timeout":
                raise
            raise self._unreachable(ref, error.summary) from error
        if done.ok:
            return {name: commit for commit, name in (line.split("\t") for line in done.out.splitlines())}
        raise self._unreachable(ref, reason(done))

    def _unreachable(self, ref: str, cause: str) -> SourceError:
        run, recipe = [self.look], self.sources.recipe
        if known := self.known(ref):
            age = show_seconds(self.sources.clock() - known[1])
            cause = f"{cause}\nlast known {ref}: {known[0]}, asked {age} ago"
            run.insert(0, f"spark-build recipe {recipe} --ref {quoted(ref)} --offline")
        return SourceError(
            "remote-unreachable",
            f"{self.url} can't be asked for {ref}",
            cause=cause,
            help="--offline takes the last known commit; [mirrors] in the configuration names another place to ask",
            run=tuple(run),
        )

    def known(self, ref: str) -> tuple[str, float] | None:
        """Return the last commit that the remote is known to have had for `ref`, and when (seconds), or None.

        Either `ref` itself was asked for, or all was fetched: the later of both counts.
        """
        state = self.state()
        found = [(one["commit"], one["asked"])] if (one := state.get(ref)) else []
        # Not `main~1`: offline knows no words that the remote wouldn't.
        if (fetched := state.get("*")) and not re.search(r"[~^:\s]|@\{|\.\.", ref):
            named = (ref,) if ref.startswith("refs/") else (f"refs/tags/{ref}", f"refs/heads/{ref}")
            short = (ref,) if SHORT.fullmatch(ref.lower()) else ()
            commit = next(filter(None, map(self.commit_of, (*named, *short))), None)
            found += [(commit, fetched["asked"])] if commit else []
        return max(found, key=lambda one: one[1], default=None)

    def state(self) -> dict[str, Any]:
        """Return what the remote said of refs the last time it was asked; ``*`` is the last fetch of everything."""
        try:
            loaded: dict[str, Any] = json.loads((self.path / "spark-build.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return loaded

    def note(self, ref: str, commit: str) -> None:
        """Keep that `ref` was `commit` now; the caller holds the lock."""
        state = self.state() | {ref: {"commit": commit, "asked": self.sources.clock()}}
        write_atomic(self.path / "spark-build.json", json.dumps(state).encode())


def quoted(word: str) -> str:
    """Return a word for a command that somebody types; refs and URLs may come from a tree."""
    import shlex  # noqa: PLC0415  # only for messages

    return shlex.quote(word)


def no_room(done: proc.Finished, place: Path) -> bool:
    """Whether git failed for want of space; it doesn't always say why it is "unable to write"."""
    return "No space left" in done.err or ("unable to write" in done.err and shutil.disk_usage(place).free < _SCANT)


def full(place: Path) -> HostError:
    """Return the error for a disk without room at `place`."""
    return HostError("disk-full", f"no space left for {place}", run=("spark-build gc",))


def reason(done: proc.Finished) -> str:
    """Return the line of git's errors that says why."""
    lines = done.err.strip().splitlines()
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote: fatal:", "ssh:"))]
    return "\n".join(told[:3]) or "\n".join(lines[-3:])
