"""Whether a bundle is as it was made: every file, nothing else, what is locked is what is there, and who signed it."""

from __future__ import annotations

import shlex
import tomllib
from typing import TYPE_CHECKING, Any

from builder import signature
from builder.bundle import installer, layout, manifest
from builder.errors import CheckRefused, HostError, UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.bundle.manifest import Manifest

__all__ = ["Verified", "verify"]

#: What a lock of ours says. A URL or a source archive beside the wheel would be taken before it, or instead.
_PACKAGE, _WHEEL = frozenset(["name", "version", "wheels"]), frozenset(["name", "path", "size", "hashes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle all of whose files are right. `lacks` are those that a delta leaves out and nobody put in yet.

    `signer` is who signed it: one of the allowed signers, else what OpenSSH says of the key; empty where nobody did.
    """

    path: Path
    manifest: Manifest
    text: bytes
    lacks: tuple[str, ...]
    signer: str

    @property
    def document(self) -> dict[str, Any]:
        """The manifest as JSON."""
        return _documented(self.text)


def verify(here: Path, *, signers: Path | None, env: Mapping[str, str], base: Path | None = None) -> Verified:
    """Return the bundle at `here` when all of it is right; every file is read. Nothing is changed but for `base`.

    With `signers` one of these has to have signed it. `base` is the bundle that has what a delta leaves out: it is put in
    first. Raises UsageError ``not-a-bundle`` or ``bundle-unfinished``; CheckRefused ``bundle-wrong`` with every file,
    ``manifest-damaged``, or as `signature.verify` does.
    """
    if (here / layout.UNFINISHED).exists():
        raise UsageError(
            "bundle-unfinished",
            f"{here} was never finished",
            cause="the export that wrote it was stopped",
            help="run it again: it goes on where it stopped",
            run=(shlex.join(["spark-build", "bundle", "export", str(here), "NAME"]),),
        )
    data = manifest.read(here)
    signer = _signer(here, data, signers, env)
    found = manifest.parse(data)
    if base is not None:
        _complete(here, data, base)
    files = {path: {"sha256": one.sha256, "size": one.size} for path, one in found.files.items()}
    wrong = installer.problems(here, files, found.lacks)
    lacks = tuple(path for path in found.lacks if not (here / path).exists())
    wrong += list(_locked(here, found)) if not wrong else []
    if wrong:
        raise CheckRefused(
            "bundle-wrong",
            f"{len(wrong)} file{'s' if len(wrong) > 1 else ''} of {here.name} {'are' if len(wrong) > 1 else 'is'} wrong",
            cause="\n".join(wrong),
            help="nothing was installed; copy these files again from where the bundle was made",
            run=(shlex.join(["spark-build", "bundle", "verify", str(here)]),),
        )
    return Verified(path=here, manifest=found, text=data, lacks=lacks, signer=signer)


def _documented(data: bytes) -> dict[str, Any]:
    import json  # noqa: PLC0415

    loaded: dict[str, Any] = json.loads(data)
    return loaded


def _complete(here: Path, data: bytes, base: Path) -> None:
    """Put what a delta leaves out in its place. Raises as `manifest.load` does for the base; HostError, CheckRefused."""
    manifest.load(base)
    try:
        installer.complete(here, _documented(data), base)
    except installer.Refused as error:
        if error.code == 3:  # noqa: PLR2004  # the machine's fault, not the bundle's
            copy = f"cp -r {shlex.quote(str(here))} DIR"
            raise HostError("delta-unwritable", str(error), run=(copy,)) from error
        raise CheckRefused("bundle-wrong", str(error), help="nothing was installed; take the delta again") from error


def _signer(here: Path, data: bytes, signers: Path | None, env: Mapping[str, str]) -> str:
    """Return who signed the bytes of the manifest; empty where nobody did, and nobody has to."""
    sig = here / manifest.SIGNATURE
    try:
        if signers is not None:
            return signature.verify(data, sig, signers, env=env)
        return signature.sound(data, sig, env=env) if sig.exists() else ""
    except CheckRefused as error:
        error.help = (
            error.help or "the manifest and its signature aren't of one bundle: copy both again from where it was made"
        )
        raise


def _locked(here: Path, found: Manifest) -> Iterator[str]:
    """Yield what ``pylock.toml`` installs otherwise than as the manifest has it."""
    names = {str(one["path"]): one for one in found.wheels}
    try:
        packages = tomllib.loads((here / "pylock.toml").read_text())["packages"]
        rows = [(package, wheel) for package in packages for wheel in package["wheels"]]
        locked = {wheel["path"]: (package, wheel) for package, wheel in rows}
        if not len(packages) == len(rows) == len(locked):
            raise ValueError("a package has one wheel")  # noqa: TRY301
    except (OSError, KeyError, TypeError, ValueError) as error:
        yield f"pylock.toml: can't be read: {error}"
        return
    for path, (package, wheel) in locked.items():
        entry = found.files.get(path)
        if set(package) - _PACKAGE or set(wheel) - _WHEEL:
            yield f"pylock.toml: says more of {path} than where it lies"
        elif entry is None or path not in names:
            yield f"pylock.toml: installs {path}, which isn't of the bundle"
        elif (wheel.get("hashes"), wheel.get("size")) != ({"sha256": entry.sha256}, entry.size):
            yield f"pylock.toml: wants other bytes of {path}"
        elif (package["name"], package["version"]) != (names[path]["project"], names[path]["version"]):
            yield f"pylock.toml: calls {path} {package['name']} {package['version']}"
    for path in names.keys() - locked.keys():
        yield f"pylock.toml: leaves out {path}"
