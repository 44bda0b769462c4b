"""The values that the parts hand to each other, in the order in which a build makes them.

``Request -> Pin -> Host -> EnvLock -> (inputs.Inputs) -> (plan.Plan) -> Workspace -> Built -> Wheel -> Stored``

All are frozen. A stage's type is made by one part and only read by the others. What identifies a value (and so goes into
the fingerprint) is what its `identity()` returns; everything else may differ between two runs of the same build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.digest import Json

__all__ = [
    "ZIP_EPOCH",
    "Built",
    "EnvLock",
    "Given",
    "Host",
    "Interpreter",
    "Locked",
    "Nested",
    "Pin",
    "PullDiff",
    "Request",
    "Stored",
    "Submodule",
    "Target",
    "Tool",
    "Torch",
    "Wheel",
    "Workspace",
]

#: 1980, the first day that a zip can hold: no time that a build is told is before it.
ZIP_EPOCH = 315532800


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for on the command line, for one recipe.

    `variants` says what ``--with`` and ``--without`` said. `pinned`, `nested` (by id) and `locked` (by output) are sources
    and build environments that are taken as they are: a rebuild has those of then, a lock file those of its day.
    `below` says how recipes that this one builds on are asked for, by name; others are with the same words as this one.
    """

    recipe: str
    ref: str | None = None
    pulls: tuple[int, ...] = ()
    repo: str | None = None
    version: str | None = None
    source: Path | None = None
    outputs: tuple[str, ...] = ()
    python: str | None = None
    target: str | None = None
    arch: str | None = None
    torch: str | None = None
    cuda: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    jobs: int | None = None
    memory_bytes: int | None = None
    reserve_bytes: int | None = None
    compile_cache: str | None = None
    offline: bool = False
    relock: bool = False
    force: bool = False
    isolation: Literal["auto", "namespace", "none"] = "auto"
    locked: Mapping[str, EnvLock] = field(default_factory=dict)
    pinned: Pin | None = None
    nested: Mapping[str, Pin] = field(default_factory=dict)
    variants: Mapping[str, bool] = field(default_factory=dict)
    below: Mapping[str, Request] = field(default_factory=dict)

    def beneath(self, recipe: str) -> Request:
        """Return a request for a recipe that this one's builds on: how it is built is the same, what is left open."""
        how = ("jobs", "memory_bytes", "reserve_bytes", "compile_cache", "offline", "isolation")
        return Request(recipe=recipe, **{name: getattr(self, name) for name in how})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """A nested git source: where it lies in the tree, where it comes from (canonical, before mirrors), its commit."""

    path: str
    url: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullDiff:
    """The diff of a pull request from its merge base, applied onto the pinned commit like a patch."""

    number: int
    base: str
    head: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A source made exact.

    `tree` identifies the bytes: ``git:<tree id>`` | ``sha256:<hex>`` of an archive | ``tree:<hex>`` of a local folder.
    `time` is the commit's or the upload's, in seconds: the build's SOURCE_DATE_EPOCH. `url` is canonical: without mirrors
    and without credentials. `asked_at` says when the remote last confirmed a moving ref. `describe` is what ``git describe``
    says of the commit: projects make versions of it, and a tag that comes later changes it.
    """

    kind: Literal["git", "sdist", "archive", "local", "crates"]
    url: str
    tree: str
    time: int
    version: str | None = None
    ref: str | None = None
    commit: str | None = None
    describe: str | None = None
    submodules: tuple[Submodule, ...] = ()
    pulls: tuple[PullDiff, ...] = ()
    filename: str | None = None
    size: int | None = None
    asked_at: float | None = None
    stale: bool = False

    def identity(self) -> dict[str, Json]:
        """Return what changes the wheel's bytes: never the name by which the commit was asked for."""
        return {
            "kind": self.kind,
            "tree": self.tree,
            "time": self.time,
            "version": self.version,
            "commit": self.commit,
            "describe": self.describe,
            "submodules": [{"path": sub.path, "url": sub.url, "commit": sub.commit} for sub in self.submodules],
            "pulls": [{"number": pull.number, "sha256": pull.sha256} for pull in self.pulls],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """How a build gets a nested source back.

    Texts may still hold ``${home}``, ``${src}``, ``${deps}``, ``${place}`` and ``${path}``: only the build has those paths.
    `submodules` are ``all``, ``none`` or the paths of those that a clone gets.
    """

    place: str | None = None
    unpack: bool = False
    strip: int = 0
    stamp: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    submodules: str | tuple[str, ...] = "none"

    def identity(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "place": self.place,
            "unpack": self.unpack,
            "strip": self.strip,
            "stamp": dict(self.stamp),
            "env": dict(self.env),
            "submodules": self.submodules if isinstance(self.submodules, str) else list(self.submodules),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """Something that a tree pulls in while it is built, made exact.

    `pin` is its source, None where the user put `path` in its place, whose bytes `digest` covers. `origin` says who knows
    its digest: the tree, the recipe, the first download here, a lock file, or the user. An archive that nobody has a digest
    of yet has the tree ``unknown``: a plan may hold it, a build never does.
    """

    id: str
    kind: Literal["git", "archive", "crates"]
    origin: Literal["tree", "recipe", "first use", "lock", "user"]
    given: Given
    pin: Pin | None = None
    path: Path | None = None
    digest: str | None = None
    about: str = ""

    @property
    def known(self) -> bool:
        """Whether its bytes are known."""
        return self.pin is None or self.pin.tree != "unknown"

    @property
    def key(self) -> str:
        """The recipe key that puts another in its place."""
        return f"fetch.{self.id}.path"

    def identity(self) -> dict[str, Json]:
        """Return what changes the wheel's bytes; the URL is the one under which the build asks for it."""
        source: dict[str, Json] = {"replaced": self.digest}
        if self.pin and self.kind == "git":  # its tree and its submodules follow, and a plan may not have seen them
            source = {"url": self.pin.url, "commit": self.pin.commit}
        elif self.pin:
            source = {"url": self.pin.url, "tree": self.pin.tree}
        return {"id": self.id, "kind": self.kind, "given": self.given.identity(), **source}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the wheel must run on. `arch` is the user's word (``12.1a``); the recipe maps it to the project's."""

    machine: str
    arch: str
    cuda: str | None
    python: str
    glibc: str | None

    def identity(self) -> dict[str, Json]:
        """Return the target as JSON."""
        return {
            "machine": self.machine,
            "arch": self.arch,
            "cuda": self.cuda,
            "python": self.python,
            "glibc": self.glibc,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program or a system package that was found: `digest` covers its bytes (or its tree) where that is what counts."""

    name: str
    version: str
    path: str = ""
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """The torch that a build compiles against.

    `folder` is the package folder of the interpreter that has it; None where it comes from the index, with the lock.
    """

    version: str
    cxx11abi: bool = True
    cuda: str | None = None
    folder: Path | None = None

    def identity(self) -> dict[str, Json]:
        """Return what a compiled file can tell: never the place."""
        source = "index" if self.folder is None else "existing"
        return {"version": self.version, "cuda": self.cuda, "cxx11abi": self.cxx11abi, "from": source}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The Python that wheels are built for. `tag` is ``cp312``; `digest` covers the executable and its library."""

    path: str
    version: str
    tag: str
    digest: str
    headers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What was found on this machine. Cores, memory and paths are facts for the plan, no identity."""

    machine: str
    libc: str
    interpreter: Interpreter
    tools: tuple[Tool, ...]
    cuda: Tool | None
    cores: int
    memory_bytes: int

    def identity(self) -> dict[str, Json]:
        """Return versions and digests: a replaced nvcc with the same version is another host."""
        return {
            "machine": self.machine,
            "libc": self.libc,
            "python": {
                "version": self.interpreter.version,
                "tag": self.interpreter.tag,
                "digest": self.interpreter.digest,
            },
            "cuda": {"version": self.cuda.version, "digest": self.cuda.digest} if self.cuda else None,
            "tools": {tool.name: {"version": tool.version, "digest": tool.digest} for tool in self.tools},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One distribution of a build environment, exact. `sha256` holds every file that may be installed for it."""

    name: str
    version: str
    sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvLock:
    """The build environment of one output, resolved once.

    `text` is what uv installs from (pinned requirements with hashes); it may name URLs, so it isn't identity.
    """

    output: str
    packages: tuple[Locked, ...]
    text: str

    def identity(self) -> list[Json]:
        """Return names, versions and hashes."""
        return [{"name": p.name, "version": p.version, "sha256": list(p.sha256)} for p in self.packages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The one build tree of a fingerprint.

    `root` lies under ``builds/<fingerprint>`` and holds ``src``, ``venv``, ``home``, ``tmp``, ``dist`` and ``logs``;
    in the build's mount namespace it appears at `inside` (``/sb/<recipe>``), or is `root` itself where that can't be
    had. `attempt` counts from 1.
    """

    root: Path
    inside: Path
    attempt: int

    @property
    def src(self) -> Path:
        """The source tree, patched."""
        return self.root / "src"

    @property
    def venv(self) -> Path:
        """Parent of the build environments, one folder an output."""
        return self.root / "venv"

    @property
    def dist(self) -> Path:
        """Where the backend puts its wheels, one folder an output."""
        return self.root / "dist"

    @property
    def logs(self) -> Path:
        """Where this attempt's events and phase logs go."""
        return self.root / "logs" / str(self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A wheel as the backend left it."""

    output: str
    path: Path
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel with its label, final bytes, not yet published. `metadata` is the METADATA file's bytes."""

    output: str
    project: str
    version: str
    path: Path
    filename: str
    sha256: str
    size: int
    metadata: bytes
    requires_python: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A wheel in the wheelhouse. `created` is in seconds; `state` says whether pages list it."""

    output: str
    project: str
    version: str
    filename: str
    path: Path
    sha256: str
    size: int
    fingerprint: str
    recipe: str
    created: float
    state: Literal["published", "unpublished", "yanked", "quarantined"] = "published"
    requires_python: str | None = None
    metadata_sha256: str = ""
